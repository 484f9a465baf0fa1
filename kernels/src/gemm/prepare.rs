//! Brings a product into the form that the lowering expects: few dims, columns contiguous where it stores.

use crate::ir::{ExprId, Gemm, Index, Loops, Store};

/// The same product with dims merged; with rows and columns exchanged if stores are contiguous along rows; and with the
/// column dims flattened into one if their last is too short for a vector.
pub(crate) fn prepare(gemm: &Gemm, lanes: u32) -> Gemm {
    let mut gemm = merged(gemm);
    if contiguity(&gemm, Side::Rows) > contiguity(&gemm, Side::Columns) {
        gemm = exchanged(&gemm);
    }
    let last = gemm.n.last().copied().unwrap_or(1);
    if gemm.n.len() > 1 && last < 2 * u64::from(lanes) && !last.is_multiple_of(lanes.into()) {
        gemm = flattened(&gemm);
    }
    gemm
}

fn merged(gemm: &Gemm) -> Gemm {
    let groups = vec![gemm.batch.clone(), gemm.m.clone(), gemm.n.clone(), gemm.k.clone()];
    let mut loops = Loops { groups, exprs: gemm.exprs.clone(), stores: gemm.stores.clone() };
    let moved = loops.merge();
    let [batch, m, n, k] = <[Vec<u64>; 4]>::try_from(loops.groups).expect("four groups went in");
    Gemm {
        batch,
        m,
        n,
        k,
        exprs: loops.exprs,
        lhs: moved[gemm.lhs.0 as usize],
        rhs: moved[gemm.rhs.0 as usize],
        precision: gemm.precision,
        stores: loops.stores,
    }
}

#[derive(Clone, Copy)]
enum Side {
    Rows,
    Columns,
}

/// How many stores are contiguous along the last dim of a side.
fn contiguity(gemm: &Gemm, side: Side) -> usize {
    let last = match side {
        Side::Rows if gemm.m.is_empty() => return 0,
        Side::Rows => gemm.batch.len() + gemm.m.len() - 1,
        Side::Columns if gemm.n.is_empty() => return 0,
        Side::Columns => gemm.batch.len() + gemm.m.len() + gemm.n.len() - 1,
    };
    gemm.stores.iter().filter(|store| store.index.stride_of(last as u32, &gemm.exprs) == Some(1)).count()
}

/// Rewrites all indices; `extents` are those of the new variables.
fn renamed(gemm: &Gemm, extents: &[u64], rename: &mut dyn FnMut(u32) -> Index) -> Gemm {
    let (exprs, moved) = gemm.exprs.map_indices(&mut |index, value| index.substitute(extents, &mut *rename, value));
    let at = |id: ExprId| moved[id.0 as usize];
    let stores = gemm.stores.iter().map(|store| Store {
        index: store.index.substitute(extents, &mut *rename, &mut |id| at(id)),
        value: at(store.value),
        ..store.clone()
    });
    let stores = stores.collect();
    Gemm { exprs, lhs: at(gemm.lhs), rhs: at(gemm.rhs), stores, ..gemm.clone() }
}

fn exchanged(gemm: &Gemm) -> Gemm {
    let (batch, m, n) = (gemm.batch.len() as u32, gemm.m.len() as u32, gemm.n.len() as u32);
    let extents = [&gemm.batch[..], &gemm.n, &gemm.m, &gemm.k].concat();
    let mut rename = |var: u32| match var {
        var if var < batch || var >= batch + m + n => Index::var(var),
        var if var < batch + m => Index::var(var + n),
        var => Index::var(var - m),
    };
    let renamed = renamed(gemm, &extents, &mut rename);
    Gemm { m: gemm.n.clone(), n: gemm.m.clone(), lhs: renamed.rhs, rhs: renamed.lhs, ..renamed }
}

fn flattened(gemm: &Gemm) -> Gemm {
    let first = (gemm.batch.len() + gemm.m.len()) as u32;
    let count = gemm.n.len() as u32;
    let columns: u64 = gemm.n.iter().product();
    let extents = [&gemm.batch[..], &gemm.m, &[columns], &gemm.k].concat();
    let mut rename = |var: u32| match var {
        var if var < first => Index::var(var),
        var if var >= first + count => Index::var(var - count + 1),
        var => {
            let axis = (var - first) as usize;
            let stride: u64 = gemm.n[axis + 1..].iter().product();
            let position = Index::var(first).div(stride as i64, &extents);
            position.mod_(gemm.n[axis] as i64, &extents)
        }
    };
    let renamed = renamed(gemm, &extents, &mut rename);
    Gemm { n: vec![columns], ..renamed }
}
