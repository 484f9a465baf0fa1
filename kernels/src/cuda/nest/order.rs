//! The order of inner loops: the one along which most arrays lie goes last, so that the members of a team read neighbours.

use crate::{
    ir::{Expr, Index, Nest, ReduceKind, Reduction, Store, Sweep},
    nest::{merged, roots},
};

/// The nest with merged loops and the best of the inner ones last, where the order of inner iterations is free.
pub(in crate::cuda) fn ordered(nest: &Nest) -> Nest {
    let nest = merged(nest);
    match best_inner(&nest) {
        Some(place) if is_free(&nest) => merged(&with_last(&nest, place)),
        _ => nest,
    }
}

/// Whether inner iterations may come in any order: none adds to what another adds to, none is found by its position.
fn is_free(nest: &Nest) -> bool {
    let keeps_positions = |sweep: &Sweep| sweep.reductions.iter().any(|r| r.kind == ReduceKind::ArgMax);
    !super::is_ordered(nest) && !nest.sweeps.iter().any(keeps_positions)
}

/// The place of the inner loop along which more arrays lie than along the last one.
fn best_inner(nest: &Nest) -> Option<usize> {
    let last = nest.inner.len().checked_sub(1)?;
    let along = |place: usize| contiguous(nest, (nest.parallel.len() + place) as u32);
    (0..last).rev().max_by_key(|&place| along(place)).filter(|&place| along(place) > along(last))
}

/// Loads and stores of neighbours by neighbouring iterations of a loop.
fn contiguous(nest: &Nest, var: u32) -> usize {
    let lies_along = |index: &Index| index.stride_of(var, &nest.exprs) == Some(1);
    let of_sweep = |sweep: &Sweep| {
        let loads = nest.exprs.reachable(&roots(sweep)).into_iter();
        let loads = loads.filter(|&id| matches!(nest.exprs.get(id), Expr::Load { index, .. } if lies_along(index)));
        loads.count() + sweep.stores.iter().filter(|store| lies_along(&store.index)).count()
    };
    nest.sweeps.iter().map(of_sweep).sum()
}

/// The same nest with the inner loop at `place` moved behind the others.
fn with_last(nest: &Nest, place: usize) -> Nest {
    let mut inner = nest.inner.clone();
    let moved = inner.remove(place);
    inner.push(moved);
    let (from, last) = ((nest.parallel.len() + place) as u32, (nest.parallel.len() + inner.len() - 1) as u32);
    let mut rename = |var: u32| {
        Index::var(match var {
            var if var == from => last,
            var if var > from && var <= last => var - 1,
            var => var,
        })
    };
    let extents = [&nest.parallel[..], &inner].concat();
    let (exprs, at) = nest.exprs.map_indices(&mut |index, value| index.substitute(&extents, &mut rename, value));
    let sweeps = nest.sweeps.iter().map(|sweep| Sweep {
        once: sweep.once,
        reductions: sweep.reductions.iter().map(|r| Reduction { value: at[r.value.0 as usize], ..*r }).collect(),
        stores: (sweep.stores.iter())
            .map(|store| Store {
                index: store.index.substitute(&extents, &mut rename, &mut |id| at[id.0 as usize]),
                value: at[store.value.0 as usize],
                ..store.clone()
            })
            .collect(),
    });
    let sweeps = sweeps.collect();
    Nest { parallel: nest.parallel.clone(), inner, exprs, sweeps }
}
