//! Asking for memory ahead of its use: what epilogues read and write, and what packing reads.
//!
//! A tile's epilogue touches a few dozen cache lines that were last used in another pass, and packing walks rows that lie
//! further apart than the processor's own prefetching follows.

use super::{Block, Lowering, pack::CHUNK};
use crate::{
    emit::{builder::Value, point::Point},
    ir::{Expr, ExprId, Index},
};

/// Bytes of a cache line.
const LINE: u64 = 64;

/// An array that is walked.
struct Walk {
    buffer: u32,
    index: Index,
    write: bool,
}

impl Lowering<'_> {
    /// Asks for what the epilogue of a tile reads and writes; the microkernel leaves the time for it.
    pub(super) fn prefetch_epilogue(&mut self, block: &Block, rows: (Value, u64), panel: Value) {
        let walks = self.walks_of_epilogue();
        if walks.is_empty() {
            return;
        }
        self.rows_of_tile(block, rows, panel, |lowering, _, place, point| {
            let column = lowering.e.b.times(place, lowering.plan.tile.columns());
            let mut point = point.at(lowering.last_column(), column);
            walks.iter().for_each(|walk| lowering.prefetch_panel(&mut point, walk, 0));
        });
    }

    /// Asks for what a factor reads [`CHUNK`] steps of the contraction after `step`, in the columns of a panel, or the rows of
    /// a tile, that begin at `point`.
    pub(super) fn prefetch_factor(&mut self, point: &Point, root: ExprId, step: Value) {
        let [.., depths] = self.first_vars();
        let Some(before) = self.gemm.k.len().checked_sub(1) else { return };
        let k = self.e.b.times(step, self.plan.step.elements());
        let mut point = self.at_depth(point, k);
        let ahead = (CHUNK * self.plan.step.elements()) as i64;
        for walk in self.loads(&[root]) {
            let stride = walk.index.stride_of(depths + before as u32, &self.gemm.exprs);
            if let Some(stride) = stride.filter(|stride| *stride != 0) {
                self.prefetch_panel(&mut point, &walk, ahead * stride);
            }
        }
    }

    /// Asks for as many elements as a tile has columns, `ahead` elements after a point.
    fn prefetch_panel(&mut self, point: &mut Point, walk: &Walk, ahead: i64) {
        let size = self.e.dtype(walk.buffer).bytes();
        let address = self.e.element(point, walk.buffer, &walk.index, 0);
        for line in 0..(self.plan.tile.columns() * size).div_ceil(LINE) {
            let offset = self.e.b.i64(ahead * size as i64 + (LINE * line) as i64);
            let address = self.e.b.byte_at(address, offset);
            self.e.b.prefetch(address, walk.write);
        }
    }

    /// Arrays that the epilogue walks along the columns, and that differ between rows: the others stay in the cache.
    fn walks_of_epilogue(&self) -> Vec<Walk> {
        let [rows, columns, _] = self.first_vars();
        if self.gemm.n.is_empty() {
            return Vec::new();
        }
        let values: Vec<ExprId> = self.gemm.stores.iter().map(|store| store.value).collect();
        let stores =
            self.gemm.stores.iter().map(|store| Walk { buffer: store.buffer, index: store.index.clone(), write: true });
        let along = |index: &Index| index.stride_of(self.last_column(), &self.gemm.exprs) == Some(1);
        let differs = |index: &Index| (rows..columns).any(|row| index.mentions(row));
        let walks = self.loads(&values).into_iter().chain(stores);
        walks.filter(|walk| walk.index.values().is_empty() && along(&walk.index) && differs(&walk.index)).collect()
    }

    /// Arrays that expressions read at places which follow from loop variables alone.
    fn loads(&self, roots: &[ExprId]) -> Vec<Walk> {
        let load = |id: ExprId| match self.gemm.exprs.get(id) {
            Expr::Load { buffer, index, .. } if index.values().is_empty() => {
                Some(Walk { buffer: *buffer, index: index.clone(), write: false })
            }
            _ => None,
        };
        self.gemm.exprs.reachable(roots).into_iter().filter_map(load).collect()
    }
}
