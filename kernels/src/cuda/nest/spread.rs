//! Few sums over much, followed by work on each element: two launches, so that the second has a thread for each element.

use super::{BLOCKS_WANTED, Stage};
use crate::{
    ir::{Access, Buffer, DType, Expr, ExprId, Index, Kernel, Nest, ReduceKind, Store, Sweep},
    nest::merged,
};

/// Inner iterations below which a block does the last sweep itself.
const LEAST_INNER: u64 = 4096;

/// Splits a nest before its last sweep, if that helps. What has been reduced goes through the workspace, the buffer behind
/// the kernel's.
pub(super) fn spread(kernel: &Kernel, nest: &Nest) -> Option<[Stage; 2]> {
    let [reducing @ .., last] = &nest.sweeps[..] else { return None };
    let count: usize = reducing.iter().map(|sweep| sweep.reductions.len()).sum();
    let of_floats = reducing.iter().flat_map(|sweep| &sweep.reductions).all(|r| r.kind != ReduceKind::ArgMax);
    let each_element = !last.once && last.reductions.is_empty() && !last.stores.iter().any(|store| store.accumulate);
    let iterations: u64 = nest.parallel.iter().product();
    let few = iterations < BLOCKS_WANTED && nest.inner.iter().product::<u64>() >= LEAST_INNER;
    if count == 0 || !(of_floats && each_element && few) {
        return None;
    }
    let workspace = Buffer { dtype: DType::F32, elements: iterations * count as u64, access: Access::Write };
    let buffers = |access| [&kernel.buffers[..], &[Buffer { access, ..workspace }]].concat();
    let number = kernel.buffers.len() as u32;
    let place = |accumulator: usize| {
        Index::row_major(0, &nest.parallel).mul(count as i64).add(Index::constant(accumulator as i64))
    };
    let first = Stage {
        nest: merged(&first(nest, number, (0..count).map(place))),
        buffers: buffers(Access::Write),
        errors: None,
    };
    let second = Stage { nest: merged(&second(nest, number, place)), buffers: buffers(Access::Read), errors: None };
    Some([first, second])
}

/// All sweeps but the last, and one that stores the accumulators.
fn first(nest: &Nest, workspace: u32, places: impl Iterator<Item = Index>) -> Nest {
    let mut exprs = nest.exprs.clone();
    let stores = (0..).zip(places).map(|(number, index)| {
        let value: ExprId = exprs.add(Expr::Accumulator(number));
        Store { buffer: workspace, index, value, accumulate: false }
    });
    let keeping = Sweep { once: true, reductions: Vec::new(), stores: stores.collect() };
    let reducing = nest.sweeps[..nest.sweeps.len() - 1].iter().cloned();
    let sweeps = reducing.chain([keeping]).collect();
    Nest { parallel: nest.parallel.clone(), inner: nest.inner.clone(), exprs, sweeps }
}

/// The last sweep with all loops parallel.
fn second(nest: &Nest, workspace: u32, place: impl Fn(usize) -> Index) -> Nest {
    let exprs = nest.exprs.with_accumulators(|number| Expr::Load {
        buffer: workspace,
        index: place(number as usize),
        guard: None,
    });
    let parallel = [&nest.parallel[..], &nest.inner].concat();
    Nest { parallel, inner: Vec::new(), exprs, sweeps: nest.sweeps[nest.sweeps.len() - 1..].to_vec() }
}
