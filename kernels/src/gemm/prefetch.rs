//! Asking for memory ahead of its use: what epilogues read and write, and what packing reads.
//!
//! A tile's epilogue touches a few dozen cache lines that were last used in another pass, and packing walks rows that lie
//! further apart than the processor's own prefetching follows.

use super::{Block, Lowering};
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
    pub(super) fn prefetch_epilogue(&mut self, block: &Block, (row, rows): (Value, u64), panel: Value) {
        let walks = self.walks_of_epilogue();
        if walks.is_empty() {
            return;
        }
        let [row_vars, column_vars, _] = self.first_vars();
        let panel = self.e.b.add(block.panels.start, panel);
        let (place, point) = self.panel_point(block.point, panel);
        let column = self.e.b.times(place, self.plan.tile.columns());
        let point = point.at(column_vars + self.gemm.n.len() as u32 - 1, column);
        let open = self.e.b.begin_count(rows, &[]);
        let absolute = self.e.b.add(block.rows.start, row);
        let absolute = self.e.b.add(absolute, open.counter);
        let mut point = self.decode(&point, row_vars, &self.gemm.m, absolute);
        for walk in &walks {
            self.prefetch_panel(&mut point, walk, 0);
        }
        self.e.b.end_loop(open, &[]);
    }

    /// Asks for what a factor reads in the columns of a panel, or the rows of a tile, that begin at `point`, `steps` steps
    /// of the contraction later.
    pub(super) fn prefetch_factor(&mut self, point: &mut Point, root: ExprId, steps: u64) {
        let last = (self.gemm.batch.len() + self.gemm.m.len() + self.gemm.n.len() + self.gemm.k.len()) as u32 - 1;
        let elements = (steps * self.plan.step.elements()) as i64;
        for walk in self.loads(&[root]) {
            if let Some(stride) = walk.index.stride_of(last, &self.gemm.exprs).filter(|stride| *stride != 0) {
                self.prefetch_panel(point, &walk, elements * stride);
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
        let [rows, columns, depths] = self.first_vars();
        if self.gemm.n.is_empty() {
            return Vec::new();
        }
        let values: Vec<ExprId> = self.gemm.stores.iter().map(|store| store.value).collect();
        let stores =
            self.gemm.stores.iter().map(|store| Walk { buffer: store.buffer, index: store.index.clone(), write: true });
        let along = |index: &Index| index.stride_of(depths - 1, &self.gemm.exprs) == Some(1);
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
