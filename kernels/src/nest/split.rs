//! Reductions of much into little: one sum over a whole parameter has no parallel loop to share among threads, so it is
//! cut into pieces that a first stage reduces into the workspace and a second one combines, in a fixed order.

use crate::ir::{Access, Buffer, DType, Expr, Index, Kernel, Nest, ReduceKind, Reduction, Store, Sweep};

/// Parallel iterations that are enough to share.
const ENOUGH_PARALLEL: u64 = 8;
/// Inner iterations below which a second stage is not worth its barrier.
const LEAST_INNER: u64 = 1 << 17;
/// Pieces at most.
const MAX_PIECES: u64 = 64;

/// A nest in two stages.
pub(crate) struct Split {
    /// Reduces each piece into the workspace.
    pub first: Nest,
    /// Combines the pieces, then does what followed the reduction.
    pub second: Nest,
    /// The kernel's buffers and the workspace.
    pub buffers: Vec<Buffer>,
}

/// Splits a nest with merged loops, if that helps.
pub(crate) fn split(kernel: &Kernel, nest: &Nest) -> Option<Split> {
    let ([inner], [reducing, rest @ ..]) = (&nest.inner[..], &nest.sweeps[..]) else { return None };
    let kinds = reducing.reductions.iter().all(|reduction| reduction.kind != ReduceKind::ArgMax);
    let pure = !reducing.once && reducing.stores.is_empty() && !reducing.reductions.is_empty();
    let finished = rest.iter().all(|sweep| sweep.once);
    let narrow = nest.parallel.iter().product::<u64>() < ENOUGH_PARALLEL && *inner >= LEAST_INNER;
    if !(kinds && pure && finished && narrow) {
        return None;
    }
    let pieces = (2..=MAX_PIECES).rev().find(|pieces| inner.is_multiple_of(*pieces))?;
    let rows: u64 = nest.parallel.iter().product();
    let elements = rows * pieces * reducing.reductions.len() as u64;
    let workspace = Buffer { dtype: DType::F32, elements, access: Access::ReadWrite };
    let buffers = [&kernel.buffers[..], &[workspace]].concat();
    let number = kernel.buffers.len() as u32;
    Some(Split { first: first(nest, number, pieces), second: second(nest, number, pieces), buffers })
}

/// Where the workspace keeps reduction `number` of a piece; the piece is the variable after the parallel ones.
fn place(nest: &Nest, pieces: u64, number: usize) -> Index {
    let dims = [&nest.parallel[..], &[pieces]].concat();
    let reductions = nest.sweeps[0].reductions.len() as i64;
    Index::row_major(0, &dims).mul(reductions).add(Index::constant(number as i64))
}

fn first(nest: &Nest, workspace: u32, pieces: u64) -> Nest {
    let inner_var = nest.parallel.len() as u32;
    let length = nest.inner[0] / pieces;
    let extents = [&nest.parallel[..], &[pieces, length]].concat();
    let mut rename = |var: u32| match var == inner_var {
        true => Index::linear([(inner_var, length as i64), (inner_var + 1, 1)]),
        false => Index::var(var),
    };
    let (mut exprs, moved) = nest.exprs.map_indices(&mut |index, value| index.substitute(&extents, &mut rename, value));
    let reductions = nest.sweeps[0].reductions.iter();
    let reductions: Vec<Reduction> =
        reductions.map(|reduction| Reduction { value: moved[reduction.value.0 as usize], ..*reduction }).collect();
    let stores = (0..reductions.len()).map(|number| {
        let value = exprs.add(Expr::Accumulator(number as u32));
        Store { buffer: workspace, index: place(nest, pieces, number), value, accumulate: false }
    });
    let stores = stores.collect();
    let sweeps = vec![
        Sweep { once: false, reductions, stores: Vec::new() },
        Sweep { once: true, reductions: Vec::new(), stores },
    ];
    Nest { parallel: extents[..extents.len() - 1].to_vec(), inner: vec![length], exprs, sweeps }
}

fn second(nest: &Nest, workspace: u32, pieces: u64) -> Nest {
    let mut exprs = nest.exprs.clone();
    let reductions = nest.sweeps[0].reductions.iter().enumerate().map(|(number, reduction)| {
        let value = exprs.load(workspace, place(nest, pieces, number));
        Reduction { value, ..*reduction }
    });
    let combining = Sweep { once: false, reductions: reductions.collect(), stores: Vec::new() };
    let sweeps = std::iter::once(combining).chain(nest.sweeps[1..].iter().cloned()).collect();
    Nest { parallel: nest.parallel.clone(), inner: vec![pieces], exprs, sweeps }
}
