//! Packing: evaluating a factor of a product into the layout that the microkernel reads.

use super::{
    Block, Lowering, Span,
    plan::{GROUP, LeftLayout, RightScan, Shared},
};
use crate::{
    emit::{
        builder::{Compare, Value},
        point::Point,
    },
    ir::{DType, Expr, ExprId, Unary},
    micro::Step,
};

/// Steps of the contraction that a panel takes before the next panel's turn.
pub(super) const CHUNK: u64 = 16;

impl Lowering<'_> {
    /// Packs the tiles `begin..end` of a shared factor into the workspace.
    pub(super) fn pack_stage(&mut self, shared: Shared, begin: Value, end: Value, tiles: u64) {
        let units = self.plan.pack_units(shared);
        let [low, high] = [begin, end].map(|tile| self.e.b.boundary(tile, units, tiles));
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &[]);
        match shared {
            Shared::Left => self.pack_shared_left(open.counter),
            Shared::Right => self.pack_shared_right(open.counter),
        }
        self.e.b.end_loop(open, &[]);
    }

    fn whole_depth(&mut self) -> Span {
        Span { start: self.e.b.i64(0), size: self.e.b.i64(self.plan.depth as i64) }
    }

    fn batch_point(&mut self, batch: Value) -> Point {
        let point = self.empty_point();
        if self.gemm.batch.is_empty() { point } else { self.decode(&point, 0, &self.gemm.batch, batch) }
    }

    fn pack_shared_right(&mut self, unit: Value) {
        let (group, batch) = self.e.b.split(unit, self.plan.panel_groups());
        let point = self.batch_point(batch);
        let (start, limit) = (self.e.b.times(group, GROUP), self.e.b.i64(self.plan.panels as i64));
        let panels = self.span(start, GROUP, limit);
        let entry = self.e.b.times(batch, self.plan.panels);
        let first = self.e.b.add(entry, start);
        let offset = self.e.b.times(first, self.plan.depth * self.plan.tile.columns());
        let target = self.e.b.float_at(self.workspace, offset);
        let depth = self.whole_depth();
        self.pack_panels(&point, panels, depth, (target, self.plan.depth));
    }

    fn pack_shared_left(&mut self, unit: Value) {
        let (group, batch) = self.e.b.split(unit, self.plan.row_groups());
        let point = self.batch_point(batch);
        let length = GROUP * self.plan.tile.rows;
        let (start, limit) = (self.e.b.times(group, length), self.e.b.i64(self.plan.rows as i64));
        let rows = self.span(start, length, limit);
        let depth = self.whole_depth();
        self.pieces(depth, self.plan.depth_per_block, |lowering, depth| {
            let stride = lowering.plan.padded_depth_block();
            let base = lowering.left_workspace(batch, depth.start);
            let position = lowering.e.b.times(start, stride);
            let target = lowering.e.b.float_at(base, position);
            lowering.pack_rows(&point, rows, depth, (target, stride));
        });
    }

    /// Packs the right factor of a block: its panels, one after the other, each `depth_per_block` deep.
    pub(super) fn pack_right_block(&mut self, block: &Block, depth: Span, target: Value) {
        self.pack_panels(block.point, block.panels, depth, (target, self.plan.depth_per_block));
    }

    /// Packs the left factor of a block.
    pub(super) fn pack_left_block(&mut self, block: &Block, depth: Span, target: Value) {
        self.pack_rows(block.point, block.rows, depth, (target, self.plan.padded_depth_block()));
    }

    /// Panels of the right factor, `stride` steps of the contraction apart in memory.
    fn pack_panels(&mut self, point: &Point, panels: Span, depth: Span, (target, stride): (Value, u64)) {
        let columns = self.plan.tile.columns();
        // Along columns, all panels take a few steps before any takes more: whole cache lines and pages are used at once.
        let chunk = if self.plan.right_scan == RightScan::Columns { CHUNK } else { self.plan.depth };
        self.pieces(depth, chunk, |lowering, piece| {
            let open = lowering.e.b.begin_steps(panels.size, 1);
            let offset = lowering.e.b.times(open.counter, stride);
            let step = lowering.e.b.sub_known(piece.start, depth.start);
            let offset = lowering.e.b.add(offset, step);
            let offset = lowering.e.b.times(offset, columns);
            let target = lowering.e.b.float_at(target, offset);
            let panel = lowering.e.b.add(panels.start, open.counter);
            lowering.pack_panel(point, panel, piece, target);
            lowering.e.b.end_loop(open, &[]);
        });
    }

    /// One panel of the right factor: `target[k][column]`. Columns beyond the domain hold anything.
    fn pack_panel(&mut self, point: &Point, panel: Value, depth: Span, target: Value) {
        let (place, point) = self.panel_point(point, panel);
        match self.plan.right_scan {
            RightScan::Columns => self.pack_along_columns(&point, place, depth, target),
            RightScan::Depth => self.pack_along_depth(&point, place, depth, target),
        }
    }

    fn pack_along_columns(&mut self, point: &Point, place: Value, depth: Span, target: Value) {
        let [_, columns, _] = self.first_vars();
        let last = columns + self.gemm.n.len().saturating_sub(1) as u32;
        let first = self.e.b.times(place, self.plan.tile.columns());
        self.by_width(place, |lowering, widths| {
            let open = lowering.e.b.begin_steps(depth.size, 1);
            let step = lowering.e.b.add(depth.start, open.counter);
            let offset = lowering.e.b.times(open.counter, lowering.plan.tile.columns());
            let row = lowering.e.b.float_at(target, offset);
            for (half, active) in widths.iter().enumerate().filter(|(_, active)| **active > 0) {
                let shift = half as u64 * u64::from(lowering.e.lanes);
                let start = lowering.e.b.plus(first, shift);
                let point = match lowering.gemm.n.is_empty() {
                    true => point.clone(),
                    false => point.along(last, start, *active),
                };
                let value = lowering.at_step(&point, lowering.gemm.rhs, step);
                if half == 0 {
                    lowering.prefetch_factor(&point, lowering.gemm.rhs, step);
                }
                let shift = lowering.e.b.i64(shift as i64);
                let address = lowering.e.b.float_at(row, shift);
                lowering.e.b.store(value, address);
            }
            lowering.e.b.end_loop(open, &[]);
        });
    }

    /// Square blocks, loaded along the contraction and transposed in registers.
    fn pack_along_depth(&mut self, point: &Point, place: Value, depth: Span, target: Value) {
        self.along_depth(depth, |lowering, offset, active| {
            lowering.transposed_block(point, place, (depth, offset, active), target);
        });
    }

    /// Emits for vectors of steps: the whole ones of a span, then, where the contraction ends, a partial one. The body is
    /// given where they start in the span, and how many elements of the contraction they hold.
    fn along_depth(&mut self, depth: Span, mut emit: impl FnMut(&mut Self, Value, u64)) {
        let lanes = u64::from(self.e.lanes);
        let whole = lanes * self.plan.step.elements();
        let rest = self.elements() % whole;
        let full = match rest {
            0 => depth.size,
            _ => {
                let end = self.e.b.add(depth.start, depth.size);
                let contraction = self.e.b.i64(self.plan.depth as i64);
                let is_last = self.e.b.compare(Compare::Equal, end, contraction);
                let tail = self.e.b.i64(rest.div_ceil(self.plan.step.elements()) as i64);
                let before = self.e.b.sub_known(depth.size, tail);
                self.e.b.select(is_last, before, depth.size)
            }
        };
        let open = self.e.b.begin_steps(full, lanes);
        emit(self, open.counter, whole);
        self.e.b.end_loop(open, &[]);
        if rest > 0 {
            let is_partial = self.e.b.compare(Compare::Less, full, depth.size);
            let open = self.e.b.begin_if(is_partial, &[]);
            emit(self, full, rest);
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    /// Elements of the contraction.
    fn elements(&self) -> u64 {
        self.gemm.k.iter().product()
    }

    /// `active` elements of the contraction from step `offset` in `depth` on, for all columns of a panel.
    fn transposed_block(
        &mut self,
        point: &Point,
        place: Value,
        (depth, offset, active): (Span, Value, u64),
        target: Value,
    ) {
        let start = self.e.b.add(depth.start, offset);
        let lanes = self.e.lanes;
        let steps = active.div_ceil(self.plan.step.elements());
        let halves = if self.plan.panels_per_row() == 1 && self.plan.last_width() <= lanes { 1 } else { 2 };
        for half in 0..halves {
            let columns: Vec<Value> =
                (0..lanes).map(|lane| self.column(point, place, half * lanes + lane, (start, active))).collect();
            let rows = self.e.b.transpose(&columns);
            for (step, &row) in rows.iter().enumerate().take(steps as usize) {
                let step = self.e.b.plus(offset, step as u64);
                let position = self.e.b.times(step, self.plan.tile.columns());
                let position = self.e.b.plus(position, (half * lanes).into());
                let address = self.e.b.float_at(target, position);
                self.e.b.store(row, address);
            }
        }
    }

    /// The right factor in one column (the last one, beyond the domain) for a vector of steps, as [`Lowering::steps`].
    fn column(&mut self, point: &Point, place: Value, number: u32, steps: (Value, u64)) -> Value {
        let [_, columns, _] = self.first_vars();
        let last_var = columns + self.gemm.n.len() as u32 - 1;
        let first = self.e.b.times(place, self.plan.tile.columns());
        let column = self.e.b.plus(first, number.into());
        let last = self.gemm.n.last().copied().unwrap_or(1) as i64 - 1;
        let column = match self.plan.last_width() == 2 * self.e.lanes {
            true => column,
            false => {
                let last = self.e.b.i64(last);
                self.e.b.min_signed(column, last)
            }
        };
        self.steps(&point.at(last_var, column), self.gemm.rhs, steps)
    }

    /// Rows of the left factor; `target` is where the first of them starts, `stride` the padded depth.
    fn pack_rows(&mut self, point: &Point, rows: Span, depth: Span, target: (Value, u64)) {
        match self.plan.left_layout {
            LeftLayout::Panels => self.pack_row_panels(point, rows, depth, target),
            LeftLayout::Rows => self.pack_row_major(point, rows, depth, target),
            LeftLayout::RowsScalar => self.pack_row_scalars(point, rows, depth, target),
        }
    }

    fn pack_row_major(&mut self, point: &Point, rows: Span, depth: Span, (target, stride): (Value, u64)) {
        let [row_vars, ..] = self.first_vars();
        let open = self.e.b.begin_steps(rows.size, 1);
        let row = self.e.b.add(rows.start, open.counter);
        let point = self.decode(point, row_vars, &self.gemm.m, row);
        let offset = self.e.b.times(open.counter, stride);
        let target = self.e.b.float_at(target, offset);
        self.along_depth(depth, |lowering, offset, active| {
            let step = lowering.e.b.add(depth.start, offset);
            let value = lowering.steps(&point, lowering.gemm.lhs, (step, active));
            let address = lowering.e.b.float_at(target, offset);
            lowering.e.b.store(value, address);
        });
        self.e.b.end_loop(open, &[]);
    }

    fn pack_row_scalars(&mut self, point: &Point, rows: Span, depth: Span, (target, stride): (Value, u64)) {
        let [row_vars, ..] = self.first_vars();
        let open = self.e.b.begin_steps(rows.size, 1);
        let row = self.e.b.add(rows.start, open.counter);
        let point = self.decode(point, row_vars, &self.gemm.m, row);
        let offset = self.e.b.times(open.counter, stride);
        let target = self.e.b.float_at(target, offset);
        let inner = self.e.b.begin_steps(depth.size, 1);
        let step = self.e.b.add(depth.start, inner.counter);
        let value = self.at_step(&point, self.gemm.lhs, step);
        let address = self.e.b.float_at(target, inner.counter);
        self.e.b.store(value, address);
        self.e.b.end_loop(inner, &[]);
        self.e.b.end_loop(open, &[]);
    }

    /// Panels of rows: all take a few steps of the contraction before any takes more, so that cache lines are used whole.
    fn pack_row_panels(&mut self, point: &Point, rows: Span, depth: Span, (target, stride): (Value, u64)) {
        let height = self.plan.tile.rows;
        self.pieces(depth, CHUNK, |lowering, piece| {
            let open = lowering.e.b.begin_steps(rows.size, height);
            let offset = lowering.e.b.times(open.counter, stride);
            let step = lowering.e.b.sub_known(piece.start, depth.start);
            let step = lowering.e.b.times(step, height);
            let offset = lowering.e.b.add(offset, step);
            let target = lowering.e.b.float_at(target, offset);
            let start = lowering.e.b.add(rows.start, open.counter);
            let end = lowering.e.b.add(rows.start, rows.size);
            let tile = lowering.span(start, height, end);
            lowering.pack_row_panel(point, tile, piece, target);
            lowering.e.b.end_loop(open, &[]);
        });
    }

    /// `target[k][row]` for one tile's rows.
    fn pack_row_panel(&mut self, point: &Point, rows: Span, depth: Span, target: Value) {
        let height = self.plan.tile.rows;
        let rest = self.plan.rows % height;
        if rest == 0 {
            return self.row_panel(point, rows.start, height, depth, target);
        }
        let full = self.e.b.i64(height as i64);
        let is_full = self.e.b.compare(Compare::Equal, rows.size, full);
        let open = self.e.b.begin_if(is_full, &[]);
        self.row_panel(point, rows.start, height, depth, target);
        self.e.b.begin_else(&[]);
        self.row_panel(point, rows.start, rest, depth, target);
        self.e.b.end_if(open, &[]);
    }

    fn row_panel(&mut self, point: &Point, start: Value, rows: u64, depth: Span, target: Value) {
        let [row_vars, ..] = self.first_vars();
        let last = row_vars + self.gemm.m.len() as u32 - 1;
        let point = self.decode(point, row_vars, &self.gemm.m, start);
        let point = point.along(last, point.value_of(last), rows as u32);
        let open = self.e.b.begin_steps(depth.size, 1);
        let step = self.e.b.add(depth.start, open.counter);
        let value = self.at_step(&point, self.gemm.lhs, step);
        self.prefetch_factor(&point, self.gemm.lhs, step);
        let offset = self.e.b.times(open.counter, self.plan.tile.rows);
        let address = self.e.b.float_at(target, offset);
        let mask = self.e.b.mask(self.e.lanes, self.plan.tile.rows as u32);
        self.e.b.masked_store(value, address, mask);
        self.e.b.end_loop(open, &[]);
    }

    /// A factor at one step of the contraction, for the row or column of each lane.
    fn at_step(&mut self, point: &Point, root: ExprId, step: Value) -> Value {
        let first = self.e.b.times(step, self.plan.step.elements());
        let value = self.at_element(point, root, first);
        match self.plan.step {
            Step::Float => value,
            Step::Bf16Pair => {
                let second = self.second_of_pair(point, root, first);
                self.e.b.pair_bf16(value, second)
            }
        }
    }

    fn at_element(&mut self, point: &Point, root: ExprId, k: Value) -> Value {
        let mut point = self.at_depth(point, k);
        self.factor(&mut point, root)
    }

    pub(super) fn at_depth(&mut self, point: &Point, k: Value) -> Point {
        let [.., depths] = self.first_vars();
        self.decode(point, depths, &self.gemm.k, k)
    }

    /// The element after `first`; 0 where the contraction has ended, as in the other factor.
    fn second_of_pair(&mut self, point: &Point, root: ExprId, first: Value) -> Value {
        let next = self.e.b.plus(first, 1);
        if self.elements().is_multiple_of(2) {
            return self.at_element(point, root, next);
        }
        let last = self.e.b.i64(self.elements() as i64 - 1);
        let exists = self.e.b.compare(Compare::Less, first, last);
        let next = self.e.b.min_signed(next, last);
        let value = self.at_element(point, root, next);
        let zero = self.e.b.zero(value.ty);
        self.e.b.select(exists, value, zero)
    }

    /// A factor at a vector of steps from `start` on, which hold `active` elements of the contraction.
    fn steps(&mut self, point: &Point, root: ExprId, (start, active): (Value, u64)) -> Value {
        let lanes = u64::from(self.e.lanes);
        let first = self.e.b.times(start, self.plan.step.elements());
        let value = self.elements_from(point, root, (first, active.min(lanes)));
        match self.plan.step {
            Step::Float => value,
            Step::Bf16Pair => {
                let second = self.e.b.plus(first, lanes);
                let second = match active.checked_sub(lanes) {
                    None | Some(0) => self.e.b.zero(value.ty),
                    Some(rest) => self.elements_from(point, root, (second, rest)),
                };
                self.e.b.pairs_of_bf16(value, second)
            }
        }
    }

    /// A factor along the contraction; of a partial vector of pairs, the other lanes are 0.
    fn elements_from(&mut self, point: &Point, root: ExprId, (start, active): (Value, u64)) -> Value {
        let [.., depths] = self.first_vars();
        let last = depths + self.gemm.k.len() as u32 - 1;
        let point = self.decode(point, depths, &self.gemm.k, start);
        let mut point = point.along(last, point.value_of(last), active as u32);
        let value = self.factor(&mut point, root);
        if self.plan.step == Step::Float || active == u64::from(self.e.lanes) {
            return value;
        }
        let (mask, zeros) = (self.e.b.mask(self.e.lanes, active as u32), self.e.b.zero(value.ty));
        self.e.b.select(mask, value, zeros)
    }

    /// A factor at a point, rounded as the product wants it; the rounding to pairs comes later, for what is not stored
    /// in bf16.
    fn factor(&mut self, point: &mut Point, root: ExprId) -> Value {
        if self.plan.step == Step::Bf16Pair {
            let exact = match self.gemm.exprs.get(root) {
                Expr::Unary(Unary::RoundBf16, inner) => *inner,
                _ => root,
            };
            let stored = self.e.stored_bf16(point, exact);
            return stored.unwrap_or_else(|| self.e.evaluate_wide(point, exact));
        }
        let value = self.e.evaluate_wide(point, root);
        let rounded = match self.gemm.exprs.get(root) {
            Expr::Unary(Unary::RoundBf16 | Unary::RoundTf32, _) => true,
            Expr::Load { buffer, .. } => self.e.dtype(*buffer) == DType::Bf16,
            _ => false,
        };
        if rounded { value } else { self.e.rounded(value, self.gemm.precision) }
    }
}
