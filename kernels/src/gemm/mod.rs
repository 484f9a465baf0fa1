//! Lowering of [`Gemm`]s: packed, blocked products in the manner of Goto, around the shared microkernel.
//!
//! A unit of work is a block of rows times a block of columns of one batch entry, with the whole contraction, so that
//! the epilogue sees final sums and no two threads add to one element. The longer side is cut into units; of the shorter
//! one every unit covers all. An operand that units share is packed once, by a stage of its own, into the workspace; one
//! that belongs to a unit is packed by that unit into scratch; a left factor that is a plain f32 array is not packed.

mod long;
mod pack;
mod plan;
mod prefetch;
pub(crate) mod prepare;
mod scratch;
mod units;

use crate::{
    emit::{
        builder::{Builder, Compare, Elem, Type, Value},
        point::{Emitter, Point, argument},
    },
    ir::{Gemm, Index, Kernel},
    micro::{Left, Machine, MicroKernels, Output},
    stage::{Lowered, emit_stage},
};
use plan::{Place, Plan};

/// Bytes of workspace that a product needs.
pub(crate) fn workspace_bytes(kernel: &Kernel, gemm: &Gemm, machine: Machine) -> u64 {
    Plan::new(kernel, &prepare::prepare(gemm, machine.lanes), machine).workspace_bytes()
}

/// Lowers a verified product.
pub(crate) fn lower(b: &mut Builder, micro: &mut MicroKernels, kernel: &Kernel, gemm: &Gemm, name: &str) -> Lowered {
    let lanes = micro.tile.lanes;
    let gemm = prepare::prepare(gemm, lanes);
    let plan = Plan::new(kernel, &gemm, micro.machine);
    let mut stages = Vec::new();
    for shared in plan.shared() {
        let symbol = format!("{name}_{}", stages.len());
        let tiles = plan.pack_tiles(shared);
        emit_stage(b, &symbol, |b, stage| {
            let workspace = argument(b, stage.args, kernel.buffers.len());
            let e = Emitter::new(b, &gemm.exprs, &kernel.buffers, stage.args, stage.instance, lanes);
            let mut lowering = Lowering { e, micro, gemm: &gemm, plan: &plan, workspace, scratch: stage.scratch };
            lowering.pack_stage(shared, stage.begin, stage.end, tiles);
        });
        stages.push((symbol, tiles));
    }
    let symbol = format!("{name}_{}", stages.len());
    let tiles = plan.tiles();
    emit_stage(b, &symbol, |b, stage| {
        let workspace =
            if plan.workspace_bytes() > 0 { argument(b, stage.args, kernel.buffers.len()) } else { stage.scratch };
        let e = Emitter::new(b, &gemm.exprs, &kernel.buffers, stage.args, stage.instance, lanes);
        let mut lowering = Lowering { e, micro, gemm: &gemm, plan: &plan, workspace, scratch: stage.scratch };
        lowering.main_stage(stage.begin, stage.end, tiles);
    });
    stages.push((symbol, tiles));
    Lowered { stages, scratch_bytes: plan.scratch_bytes() }
}

struct Lowering<'a> {
    e: Emitter<'a>,
    micro: &'a mut MicroKernels,
    gemm: &'a Gemm,
    plan: &'a Plan,
    workspace: Value,
    scratch: Value,
}

/// A range `start..start + size` of rows, of column panels, or of the steps of the contraction.
#[derive(Clone, Copy)]
struct Span {
    start: Value,
    size: Value,
}

/// A block of the product that is being computed: rows and panels of one batch entry.
#[derive(Clone, Copy)]
struct Block<'a> {
    point: &'a Point,
    batch: Value,
    rows: Span,
    panels: Span,
    /// The row of the first sums in scratch.
    first_row: Value,
}

impl Lowering<'_> {
    /// The number of the first row, column and contraction variable.
    fn first_vars(&self) -> [u32; 3] {
        let (batch, m, n) = (self.gemm.batch.len(), self.gemm.m.len(), self.gemm.n.len());
        [batch as u32, (batch + m) as u32, (batch + m + n) as u32]
    }

    fn empty_point(&self) -> Point {
        Point::new(self.gemm.batch.len() + self.gemm.m.len() + self.gemm.n.len() + self.gemm.k.len(), 1)
    }

    /// Fixes the variables of some dims from the flattened position.
    fn decode(&mut self, point: &Point, first: u32, dims: &[u64], position: Value) -> Point {
        let (mut point, mut rest) = (point.clone(), position);
        for (axis, &dim) in dims.iter().enumerate().rev() {
            let (place, outer) = if axis == 0 { (rest, rest) } else { self.e.b.split(rest, dim) };
            point = point.at(first + axis as u32, place);
            rest = outer;
        }
        point
    }

    /// The part of `scratch` that starts after `floats` elements.
    fn scratch_at(&mut self, floats: u64) -> Value {
        let offset = self.e.b.i64(floats as i64);
        self.e.b.float_at(self.scratch, offset)
    }

    /// `start..min(start + length, limit)`
    fn span(&mut self, start: Value, length: u64, limit: Value) -> Span {
        let length = self.e.b.i64(length as i64);
        let rest = self.e.b.sub_known(limit, start);
        Span { start, size: self.e.b.min_signed(length, rest) }
    }

    fn main_stage(&mut self, begin: Value, end: Value, tiles: u64) {
        let [low, high] = [begin, end].map(|tile| self.e.b.boundary(tile, self.plan.units(), tiles));
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &[]);
        self.unit(open.counter);
        self.e.b.end_loop(open, &[]);
    }

    fn unit(&mut self, unit: Value) {
        let plan = self.plan;
        let (column_block, rest) = self.e.b.split(unit, plan.column_blocks());
        let (row_block, batch) = self.e.b.split(rest, plan.row_blocks());
        let mut point = self.empty_point();
        if !self.gemm.batch.is_empty() {
            point = self.decode(&point, 0, &self.gemm.batch, batch);
        }
        let (start, limit) = (self.e.b.times(row_block, plan.rows_per_unit), self.e.b.i64(plan.rows as i64));
        let rows = self.span(start, plan.rows_per_unit, limit);
        let (start, limit) = (self.e.b.times(column_block, plan.panels_per_unit), self.e.b.i64(plan.panels as i64));
        let panels = self.span(start, plan.panels_per_unit, limit);
        self.pieces(panels, plan.panels_per_block, |lowering, panels| {
            lowering.pieces(rows, plan.rows_per_sums, |lowering, rows| {
                lowering.block(&Block { point: &point, batch, rows, panels, first_row: rows.start });
            });
        });
    }

    /// Runs the body for consecutive pieces of a span.
    fn pieces(&mut self, span: Span, length: u64, emit: impl FnOnce(&mut Self, Span)) {
        let end = self.e.b.add(span.start, span.size);
        let step = self.e.b.i64(length as i64);
        let open = self.e.b.begin_loop((span.start, end, step), &[]);
        let piece = self.span(open.counter, length, end);
        emit(self, piece);
        self.e.b.end_loop(open, &[]);
    }

    /// A block over the whole contraction, one piece of it after the other.
    fn block(&mut self, block: &Block) {
        let depth = Span { start: self.e.b.i64(0), size: self.e.b.i64(self.plan.depth as i64) };
        if self.plan.depth_per_block == self.plan.depth {
            return self.depth_block(block, depth);
        }
        self.pieces(depth, self.plan.depth_per_block, |lowering, depth| lowering.depth_block(block, depth));
    }

    fn depth_block(&mut self, block: &Block, depth: Span) {
        if self.plan.right_place == Place::Scratch {
            let target = self.scratch_at(self.plan.right_offset());
            self.pack_right_block(block, depth, target);
        }
        self.pieces(block.rows, self.plan.rows_per_block, |lowering, rows| {
            lowering.row_block(&Block { rows, ..*block }, depth);
        });
    }

    /// The rows whose left factor stays in the second-level cache.
    fn row_block(&mut self, block: &Block, depth: Span) {
        if self.plan.left_place == Place::Scratch {
            let target = self.scratch_at(self.plan.left_offset());
            self.pack_left_block(block, depth, target);
        }
        let open = self.e.b.begin_steps(block.panels.size, 1);
        self.panel(block, depth, open.counter);
        self.e.b.end_loop(open, &[]);
    }

    /// All row tiles against one panel.
    fn panel(&mut self, block: &Block, depth: Span, panel: Value) {
        let height = self.plan.tile.rows;
        let rest = self.plan.rows % height;
        let (_, full) = self.e.b.split(block.rows.size, height);
        let full = self.e.b.times(full, height);
        let open = self.e.b.begin_steps(full, height);
        self.tile(block, depth, (open.counter, height), panel);
        self.e.b.end_loop(open, &[]);
        if rest > 0 {
            let is_partial = self.e.b.compare(Compare::Less, full, block.rows.size);
            let open = self.e.b.begin_if(is_partial, &[]);
            self.tile(block, depth, (full, rest), panel);
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    /// One register tile: `rows` rows from `row` of the block on, against panel `panel` of the block.
    fn tile(&mut self, block: &Block, depth: Span, rows: (Value, u64), panel: Value) {
        let left = self.left(block, depth, rows.0);
        let right = self.right(block, depth, panel);
        let offset = if self.plan.keeps_sums() { self.sums_offset(block, rows.0, panel) } else { self.e.b.i64(0) };
        let sums = self.e.b.float_at(self.scratch, offset);
        let row_stride = self.e.b.i64(self.plan.tile.columns() as i64);
        let is_last = self.is_last(depth);
        self.when(is_last, |lowering| lowering.prefetch_epilogue(block, rows, panel));
        let (plain, fresh) = (!self.plan.corrects_sums(), self.e.b.i64(0));
        let terms = if plain { sums } else { self.scratch_at(self.plan.terms_offset()) };
        let accumulate = if plain { depth.start } else { fresh };
        let output = Output { pointer: terms, row_stride, accumulate };
        self.micro.call(self.e.b, (self.plan.step, rows.1), left, (right, depth.size), output);
        if let Some(is_last) = is_last.filter(|_| !plain) {
            self.add_terms(rows.1, (sums, terms), [depth.start, is_last]);
        }
        self.when(is_last, |lowering| lowering.epilogue(block, rows, panel, sums));
    }

    /// Whether sums are complete after this piece of the contraction; `None` if they always are.
    fn is_last(&mut self, depth: Span) -> Option<Value> {
        self.plan.keeps_sums().then(|| {
            let end = self.e.b.add(depth.start, depth.size);
            let whole = self.e.b.i64(self.plan.depth as i64);
            self.e.b.compare(Compare::Equal, end, whole)
        })
    }

    /// Emits under a condition, if there is one.
    fn when(&mut self, condition: Option<Value>, emit: impl FnOnce(&mut Self)) {
        let Some(condition) = condition else { return emit(self) };
        let open = self.e.b.begin_if(condition, &[]);
        emit(self);
        self.e.b.begin_else(&[]);
        self.e.b.end_if(open, &[]);
    }

    /// Where the sums of a tile lie, all of them together: rows of a whole block would be a multiple of 4096 bytes apart,
    /// and thrash the first-level cache.
    fn sums_offset(&mut self, block: &Block, row: Value, panel: Value) -> Value {
        let before = self.e.b.sub_known(block.rows.start, block.first_row);
        let row = self.e.b.add(before, row);
        let row = self.e.b.times(row, self.plan.panels_per_block * self.plan.tile.columns());
        let column = self.e.b.times(panel, self.plan.tile.rows * self.plan.tile.columns());
        self.e.b.add(row, column)
    }

    fn left(&mut self, block: &Block, depth: Span, row: Value) -> Left {
        let absolute = self.e.b.add(block.rows.start, row);
        let (pointer, [row_stride, k_stride]) = match self.plan.left_place {
            Place::Direct => self.direct_left(block.point, absolute, depth.start),
            Place::Scratch => {
                let base = self.scratch_at(self.plan.left_offset());
                let position = self.e.b.times(row, self.plan.padded_depth_block());
                (self.e.b.float_at(base, position), self.plan.left_strides(self.plan.padded_depth_block()))
            }
            Place::Workspace => {
                let stride = self.plan.padded_depth_block();
                let block = self.left_workspace(block.batch, depth.start);
                let position = self.e.b.times(absolute, stride);
                (self.e.b.float_at(block, position), self.plan.left_strides(stride))
            }
        };
        Left { pointer, row_stride: self.e.b.i64(row_stride as i64), k_stride: self.e.b.i64(k_stride as i64) }
    }

    fn direct_left(&mut self, point: &Point, row: Value, k: Value) -> (Value, [u64; 2]) {
        let direct = self.plan.direct.clone().expect("the plan says direct");
        let [rows, _, ks] = self.first_vars();
        let point = &mut self.decode(point, rows, &self.gemm.m, row);
        let mut at = self.decode(point, ks, &self.gemm.k, k);
        let pointer = self.e.element(&mut at, direct.buffer, &direct.index, 0);
        (pointer, direct.strides)
    }

    /// Where the left factor of a batch entry lies in the workspace, from a block of the contraction on. All rows of one
    /// block lie together: their distance is no multiple of a cache's size.
    fn left_workspace(&mut self, batch: Value, depth: Value) -> Value {
        let entry = self.e.b.times(batch, self.plan.left_elements());
        let block = self.e.b.times(depth, self.plan.padded_rows());
        let offset = self.e.b.add(entry, block);
        let base = self.workspace_at(self.plan.left_workspace_offset());
        self.e.b.float_at(base, offset)
    }

    fn workspace_at(&mut self, floats: u64) -> Value {
        let offset = self.e.b.i64(floats as i64);
        self.e.b.float_at(self.workspace, offset)
    }

    fn right(&mut self, block: &Block, depth: Span, panel: Value) -> Value {
        let columns = self.plan.tile.columns();
        if self.plan.right_place == Place::Scratch {
            let base = self.scratch_at(self.plan.right_offset());
            let offset = self.e.b.times(panel, self.plan.depth_per_block * columns);
            return self.e.b.float_at(base, offset);
        }
        let entry = self.e.b.times(block.batch, self.plan.panels);
        let panel = self.e.b.add(block.panels.start, panel);
        let panel = self.e.b.add(entry, panel);
        let offset = self.e.b.times(panel, self.plan.depth);
        let offset = self.e.b.add(offset, depth.start);
        let offset = self.e.b.times(offset, columns);
        let base = self.workspace_at(0);
        self.e.b.float_at(base, offset)
    }

    /// The stores of a finished tile.
    fn epilogue(&mut self, block: &Block, rows: (Value, u64), panel: Value, sums: Value) {
        self.rows_of_tile(block, rows, panel, |lowering, number, place, point| {
            let offset = lowering.e.b.times(number, lowering.plan.tile.columns());
            let sums = lowering.e.b.float_at(sums, offset);
            lowering.by_width(place, |lowering, widths| {
                let first = lowering.e.b.times(place, lowering.plan.tile.columns());
                for (half, active) in widths.iter().enumerate().filter(|(_, active)| **active > 0) {
                    let shift = half as u64 * u64::from(lowering.e.lanes);
                    let start = lowering.e.b.plus(first, shift);
                    let mut point = match lowering.gemm.n.is_empty() {
                        true => point.clone(),
                        false => point.along(lowering.last_column(), start, *active),
                    };
                    let sum = lowering.load_sum(sums, shift, lowering.e.width(&point));
                    point.set_accumulator(0, sum);
                    lowering.stores(point);
                }
            });
        });
    }

    /// Emits for each row of a tile, which may differ in all but the last column var. The body is given the number of the row
    /// in the tile, and the place of the panel along that var.
    fn rows_of_tile(
        &mut self,
        block: &Block,
        (row, rows): (Value, u64),
        panel: Value,
        emit: impl FnOnce(&mut Self, Value, Value, Point),
    ) {
        let panel = self.e.b.add(block.panels.start, panel);
        let [row_vars, ..] = self.first_vars();
        let (place, point) = self.panel_point(block.point, panel);
        let open = self.e.b.begin_count(rows, &[]);
        let absolute = self.e.b.add(block.rows.start, row);
        let absolute = self.e.b.add(absolute, open.counter);
        let point = self.decode(&point, row_vars, &self.gemm.m, absolute);
        emit(self, open.counter, place, point);
        self.e.b.end_loop(open, &[]);
    }

    /// The last column variable, if there is one.
    fn last_column(&self) -> u32 {
        let [.., depths] = self.first_vars();
        depths - 1
    }

    fn load_sum(&mut self, sums: Value, shift: u64, lanes: u32) -> Value {
        let shift = self.e.b.i64(shift as i64);
        let address = self.e.b.float_at(sums, shift);
        self.e.b.load(address, Type::vector(Elem::F32, lanes), false)
    }

    fn stores(&mut self, mut point: Point) {
        for store in &self.gemm.stores {
            for gathered in store.index.values() {
                self.e.evaluate(&mut point, gathered);
            }
            self.e.evaluate(&mut point, store.value);
        }
        self.gemm.stores.iter().for_each(|store| self.e.store(&mut point, store));
    }

    /// The place of a panel along the last column dim, and the point with the other column dims fixed.
    fn panel_point(&mut self, point: &Point, panel: Value) -> (Value, Point) {
        let [_, first, _] = self.first_vars();
        let (place, outer) = self.e.b.split(panel, self.plan.panels_per_row());
        let outer_dims = &self.gemm.n[..self.gemm.n.len().saturating_sub(1)];
        let point = if outer_dims.is_empty() { point.clone() } else { self.decode(point, first, outer_dims, outer) };
        (place, point)
    }

    /// Emits for a full panel and, where the last panel of a row is narrower, for that too. The body is given the
    /// active lanes of each vector.
    fn by_width(&mut self, place: Value, mut emit: impl FnMut(&mut Self, [u32; 2])) {
        let lanes = self.e.lanes;
        let rest = self.plan.last_width();
        let partial = [rest.min(lanes), rest.saturating_sub(lanes)];
        if partial == [lanes; 2] {
            return emit(self, partial);
        }
        if self.plan.panels_per_row() == 1 {
            return emit(self, partial);
        }
        let last = self.e.b.i64(self.plan.panels_per_row() as i64 - 1);
        let is_last = self.e.b.compare(Compare::Equal, place, last);
        let open = self.e.b.begin_if(is_last, &[]);
        emit(self, partial);
        self.e.b.begin_else(&[]);
        emit(self, [lanes; 2]);
        self.e.b.end_if(open, &[]);
    }
}

/// A left factor that can be read where it is.
#[derive(Clone, Debug)]
struct Direct {
    buffer: u32,
    index: Index,
    /// Elements between rows, and between steps of the contraction.
    strides: [u64; 2],
}
