//! Fewer, longer loops: adjacent dims that every access walks as one are made one, dims of extent 1 vanish.

use super::{Expr, ExprId, Exprs, Index, Store};

/// Loop dims in groups (only dims of one group may merge), with everything that is indexed by them.
pub(crate) struct Loops {
    /// Extents by group, outer first; variables are numbered through the groups.
    pub groups: Vec<Vec<u64>>,
    /// The expressions.
    pub exprs: Exprs,
    /// All stores.
    pub stores: Vec<Store>,
}

impl Loops {
    /// Merges what can be merged. Returns where each expression went.
    pub fn merge(&mut self) -> Vec<ExprId> {
        let mut moved: Vec<ExprId> = (0..self.exprs.len() as u32).map(ExprId).collect();
        while let Some(pair) = self.mergeable() {
            let step = self.join(pair);
            moved.iter_mut().for_each(|id| *id = step[id.0 as usize]);
        }
        moved
    }

    fn extents(&self) -> Vec<u64> {
        self.groups.concat()
    }

    /// The group and the place in it of the first dim that can merge with the next.
    fn mergeable(&self) -> Option<(usize, usize)> {
        let mut first = 0;
        for (group, dims) in self.groups.iter().enumerate() {
            let found = (0..dims.len().saturating_sub(1)).find(|&place| {
                let (outer, extent) = (first + place as u32, dims[place + 1]);
                dims[place] == 1 || extent == 1 || self.indices().all(|index| self.walks_as_one(index, outer, extent))
            });
            if let Some(place) = found {
                return Some((group, place));
            }
            first += dims.len() as u32;
        }
        None
    }

    fn indices(&self) -> impl Iterator<Item = &Index> {
        let of_exprs = self.exprs.iter().filter_map(|(_, expr)| match expr {
            Expr::Position(index) | Expr::Load { index, .. } => Some(index),
            Expr::Random(draw) => Some(&draw.element),
            _ => None,
        });
        of_exprs.chain(self.stores.iter().map(|store| &store.index))
    }

    /// Gathered values inside the index are judged by the indices of their own loads.
    fn walks_as_one(&self, index: &Index, outer: u32, inner_extent: u64) -> bool {
        let index = index.without_values();
        match (index.stride_of(outer, &self.exprs), index.stride_of(outer + 1, &self.exprs)) {
            (Some(long), Some(short)) => long == short * inner_extent as i64,
            _ => false,
        }
    }

    /// Merges the dim at `place` of `group` with the next one.
    fn join(&mut self, (group, place): (usize, usize)) -> Vec<ExprId> {
        let outer = (self.groups[..group].iter().map(Vec::len).sum::<usize>() + place) as u32;
        let inner_extent = self.groups[group].remove(place + 1);
        let kept_outer = inner_extent == 1;
        self.groups[group][place] *= inner_extent;
        let extents = self.extents();
        let mut rename = |var: u32| match var {
            var if var < outer => Index::var(var),
            var if var == outer && kept_outer => Index::var(outer),
            var if var == outer + 1 && !kept_outer => Index::var(outer),
            var if var <= outer + 1 => Index::constant(0),
            var => Index::var(var - 1),
        };
        let (exprs, moved) = self.exprs.map_indices(&mut |index, value| index.substitute(&extents, &mut rename, value));
        self.exprs = exprs;
        for store in &mut self.stores {
            store.index = store.index.substitute(&extents, &mut rename, &mut |id| moved[id.0 as usize]);
            store.value = moved[store.value.0 as usize];
        }
        moved
    }
}
