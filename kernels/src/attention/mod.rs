//! Lowering of attention, forward and backward.
//!
//! Neither keeps a T x S matrix: a unit of work is one head (forward also: some of its query blocks), and for one block
//! of queries at a time the scores against all visible keys stand in scratch, a strip of rows. The products run in the
//! shared microkernel. Keys beyond the causal bound or the window are skipped by panels and masked within them.
//! Backward sums the gradients of keys and values in scratch over all queries and heads that share them, so that one
//! unit alone writes them: no atomics, one order (Dao, FlashAttention-2, 2023, cuts the work the other way and
//! recomputes more).

mod backward;
mod forward;
pub(crate) mod operands;

pub(crate) use backward::lower as lower_backward;
pub(crate) use forward::lower as lower_forward;

use operands::{CHANNEL, Operands, VARS, row_view};

use crate::{
    emit::{
        builder::{Builder, Compare, Elem, Loop, Type, Value},
        point::{Emitter, Point},
    },
    ir::{AttentionShape, Buffer, DType, Expr, ExprId, Precision, Store},
    micro::{Left, MicroKernels, Output, Step, Tile},
    stage::Stage,
};

/// Queries of a block, a multiple of the tile's rows on every instruction set.
const QUERY_BLOCK: u64 = 48;
/// Depth of one call of the microkernel over keys: a panel this deep fills half of a 32 KiB first-level cache.
const DEPTH_BLOCK: u64 = 256;
/// Multiply-adds below which a tile is not worth its own launch.
const WORK_PER_TILE: u64 = 64 * 1024;

/// Sizes in scratch.
#[derive(Clone, Copy)]
struct Sizes {
    shape: AttentionShape,
    tile: Tile,
}

impl Sizes {
    fn lanes(self) -> u64 {
        self.tile.lanes.into()
    }

    /// Channels, padded to whole panels.
    fn channels(self) -> u64 {
        self.shape.channels.next_multiple_of(self.tile.columns())
    }

    /// Keys, padded to whole panels.
    fn keys(self) -> u64 {
        self.shape.keys.next_multiple_of(self.tile.columns())
    }

    /// Elements between rows of a strip of scores: one vector more than the keys, which is kept zero.
    fn strip(self) -> u64 {
        self.keys() + self.lanes()
    }

    fn query_blocks(self) -> u64 {
        self.shape.queries.div_ceil(QUERY_BLOCK)
    }
}

/// Hands out parts of scratch.
#[derive(Default)]
struct Layout {
    floats: u64,
}

impl Layout {
    fn take(&mut self, floats: u64) -> u64 {
        let start = self.floats;
        self.floats += floats.next_multiple_of(16);
        start
    }
}

/// What both directions emit with.
struct Lowering<'a> {
    e: Emitter<'a>,
    micro: &'a mut MicroKernels,
    sizes: Sizes,
    scratch: Value,
}

/// The keys that a block of queries can see: `low..high`, `low` at a panel's start; `panels` counts those touched.
#[derive(Clone, Copy)]
struct Keys {
    low: Value,
    high: Value,
    panels: Value,
}

/// A matrix in scratch.
#[derive(Clone, Copy)]
struct Matrix {
    pointer: Value,
    /// Elements between rows; for panels, the rows of a panel.
    stride: u64,
}

impl<'a> Lowering<'a> {
    fn new(
        b: &'a mut Builder,
        micro: &'a mut MicroKernels,
        (operands, buffers): (&'a Operands, &'a [Buffer]),
        sizes: Sizes,
        stage: Stage,
    ) -> Self {
        let e = Emitter::new(b, &operands.exprs, buffers, stage.args, stage.instance, micro.tile.lanes);
        Lowering { e, micro, sizes, scratch: stage.scratch }
    }

    fn matrix(&mut self, offset: u64, stride: u64) -> Matrix {
        Matrix { pointer: self.e.b.float_after(self.scratch, offset), stride }
    }

    /// The point of a batch entry and a head.
    fn head_point(&self, batch: Value, head: Value) -> Point {
        Point::new(VARS, 1).at(0, batch).at(1, head)
    }

    /// Emits for the vectors of a row of channels; the body is given the first channel and the active lanes.
    fn channels(&mut self, mut emit: impl FnMut(&mut Self, Value, u32)) {
        let (lanes, channels) = (self.sizes.lanes(), self.sizes.shape.channels);
        let full = channels / lanes * lanes;
        if full > 0 {
            let size = self.e.b.i64(full as i64);
            let open = self.e.b.begin_steps(size, lanes);
            emit(self, open.counter, lanes as u32);
            self.e.b.end_loop(open, &[]);
        }
        if full < channels {
            let start = self.e.b.i64(full as i64);
            emit(self, start, (channels - full) as u32);
        }
    }

    /// A factor of a product at a point, rounded as the shape says.
    fn factor(&mut self, point: &mut Point, load: ExprId) -> Value {
        let value = self.e.evaluate_wide(point, load);
        let stored = match self.e.exprs.get(load) {
            Expr::Load { buffer, .. } => self.e.dtype(*buffer),
            _ => DType::F32,
        };
        if stored == DType::Bf16 { value } else { self.rounded(value) }
    }

    fn rounded(&mut self, value: Value) -> Value {
        match self.sizes.shape.precision {
            Precision::F32 => value,
            Precision::Tf32 => self.e.b.round_tf32(value),
            Precision::Bf16 => self.e.b.round_bf16(value),
        }
    }

    /// Copies rows `start..start + count` of an operand: row-major.
    fn copy_rows(&mut self, load: ExprId, point: &Point, (start, count): (Value, Value), to: Matrix) {
        let open = self.e.b.begin_steps(count, 1);
        let position = self.e.b.add(start, open.counter);
        let point = point.at(2, position);
        let row = self.e.b.times(open.counter, to.stride);
        self.channels(|lowering, channel, active| {
            let value = lowering.factor(&mut point.along(CHANNEL, channel, active), load);
            let place = lowering.e.b.add(row, channel);
            let address = lowering.e.b.float_at(to.pointer, place);
            lowering.e.b.store(value, address);
        });
        self.e.b.end_loop(open, &[]);
    }

    /// Copies rows of an operand into panels of channels, `panel[row][channel]`, each `to.stride` rows long.
    fn pack_rows(&mut self, load: ExprId, point: &Point, (start, count): (Value, Value), to: Matrix) {
        let columns = self.sizes.tile.columns();
        let open = self.e.b.begin_steps(count, 1);
        let position = self.e.b.add(start, open.counter);
        let point = point.at(2, position);
        self.channels(|lowering, channel, active| {
            let value = lowering.factor(&mut point.along(CHANNEL, channel, active), load);
            let (within, panel) = lowering.e.b.split(channel, columns);
            let row = lowering.e.b.times(panel, to.stride);
            let row = lowering.e.b.add(row, open.counter);
            let place = lowering.e.b.times(row, columns);
            let place = lowering.e.b.add(place, within);
            let address = lowering.e.b.float_at(to.pointer, place);
            lowering.e.b.store(value, address);
        });
        self.e.b.end_loop(open, &[]);
    }

    /// Copies all keys of an operand into panels of keys, `panel[channel][key]`. Beyond the last key the last repeats.
    fn pack_transposed(&mut self, load: ExprId, point: &Point, to: Matrix) {
        let (lanes, columns) = (self.sizes.lanes(), self.sizes.tile.columns());
        let keys = self.e.b.i64(self.sizes.keys() as i64);
        let open = self.e.b.begin_steps(keys, lanes);
        let (within, panel) = self.e.b.split(open.counter, columns);
        let panel = self.e.b.times(panel, to.stride * columns);
        let base = self.e.b.add(panel, within);
        self.channels(|lowering, channel, active| {
            let rows: Vec<Value> = (0..lanes)
                .map(|lane| {
                    let key = lowering.e.b.plus(open.counter, lane);
                    let last = lowering.e.b.i64(lowering.sizes.shape.keys as i64 - 1);
                    let key = lowering.e.b.min_signed(key, last);
                    lowering.factor(&mut point.at(2, key).along(CHANNEL, channel, active), load)
                })
                .collect();
            let columns_of = lowering.e.b.transpose(&rows);
            for (step, &column) in columns_of.iter().enumerate().take(active as usize) {
                let channel = lowering.e.b.plus(channel, step as u64);
                let place = lowering.e.b.times(channel, columns);
                let place = lowering.e.b.add(base, place);
                let address = lowering.e.b.float_at(to.pointer, place);
                lowering.e.b.store(column, address);
            }
        });
        self.e.b.end_loop(open, &[]);
    }

    /// The keys that queries `start..start + count` can see.
    fn visible(&mut self, start: Value, count: Value) -> Keys {
        let shape = self.sizes.shape;
        let columns = self.sizes.tile.columns();
        let all = self.e.b.i64(shape.keys as i64);
        let end = self.e.b.add(start, count);
        let high = if shape.causal { self.e.b.min_signed(end, all) } else { all };
        let low = match shape.window {
            None => self.e.b.i64(0),
            Some(window) => {
                let low = self.first_key(start, window);
                let low = self.e.b.min_signed(low, high);
                let (within, _) = self.e.b.split(low, columns);
                self.e.b.sub_known(low, within)
            }
        };
        let size = self.e.b.sub_known(high, low);
        let size = self.e.b.plus(size, columns - 1);
        let (_, panels) = self.e.b.split(size, columns);
        Keys { low, high, panels }
    }

    /// `max(0, query + 1 - window)`
    fn first_key(&mut self, query: Value, window: u64) -> Value {
        let window = self.e.b.i64(window.min(1 << 40) as i64 - 1);
        let low = self.e.b.sub_known(query, window);
        let zero = self.e.b.i64(0);
        self.e.b.max_signed(low, zero)
    }

    /// Multiplies rows `0..count` of `left` with panels of `right`, tile by tile.
    fn multiply(&mut self, left: Left, count: Rows, right: Panels, to: Matrix, accumulate: Value) {
        let columns = self.sizes.tile.columns();
        let open = self.e.b.begin_steps(right.count, 1);
        let panel = self.e.b.times(open.counter, right.depth * columns);
        let panel = self.e.b.float_at(right.pointer, panel);
        let column = self.e.b.times(open.counter, columns);
        let target = self.e.b.float_at(to.pointer, column);
        self.row_tiles(left, count, (panel, right.used), Matrix { pointer: target, ..to }, accumulate);
        self.e.b.end_loop(open, &[]);
    }

    fn row_tiles(&mut self, left: Left, count: Rows, right: (Value, Value), to: Matrix, accumulate: Value) {
        let height = self.sizes.tile.rows;
        let (_, full) = self.e.b.split(count.rows, height);
        let full = self.e.b.times(full, height);
        let open = self.e.b.begin_steps(full, height);
        self.row_tile(left, (open.counter, height), right, to, accumulate);
        self.e.b.end_loop(open, &[]);
        if count.rest > 0 {
            let is_partial = self.e.b.compare(Compare::Less, full, count.rows);
            let open = self.e.b.begin_if(is_partial, &[]);
            self.row_tile(left, (full, count.rest), right, to, accumulate);
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    fn row_tile(
        &mut self,
        left: Left,
        (row, rows): (Value, u64),
        (right, depth): (Value, Value),
        to: Matrix,
        accumulate: Value,
    ) {
        let offset = self.e.b.mul(row, left.row_stride);
        let pointer = self.e.b.float_at(left.pointer, offset);
        let offset = self.e.b.times(row, to.stride);
        let target = self.e.b.float_at(to.pointer, offset);
        let output = Output { pointer: target, row_stride: self.e.b.i64(to.stride as i64), accumulate };
        self.micro.call(self.e.b, (Step::Float, rows), Left { pointer, ..left }, (right, depth), output);
    }

    /// A row-major left factor.
    fn row_major(&mut self, from: Matrix) -> Left {
        Left { pointer: from.pointer, row_stride: self.e.b.i64(from.stride as i64), k_stride: self.e.b.i64(1) }
    }

    /// The transpose of a row-major matrix as left factor.
    fn transposed(&mut self, from: Matrix) -> Left {
        Left { pointer: from.pointer, row_stride: self.e.b.i64(1), k_stride: self.e.b.i64(from.stride as i64) }
    }

    /// `to = weights · right` over the visible keys, a piece of them at a time. `weights` is a strip whose first column
    /// belongs to key `keys.low`; `right` holds all keys in panels of channels.
    fn weigh(&mut self, weights: Matrix, count: Rows, keys: Keys, right: Matrix, to: Matrix) {
        if self.sizes.shape.window.is_some() {
            self.clear_unseen(keys, count.rows, to);
        }
        let columns = self.sizes.tile.columns();
        let step = self.e.b.i64(DEPTH_BLOCK as i64);
        let open = self.e.b.begin_loop((keys.low, keys.high, step), &[]);
        let rest = self.e.b.sub_known(keys.high, open.counter);
        let used = self.e.b.min_signed(step, rest);
        let first = self.e.b.sub_known(open.counter, keys.low);
        let pointer = self.e.b.float_at(weights.pointer, first);
        let left = self.row_major(Matrix { pointer, ..weights });
        let offset = self.e.b.times(open.counter, columns);
        let pointer = self.e.b.float_at(right.pointer, offset);
        let panels = self.e.b.i64((self.sizes.channels() / columns) as i64);
        let right = Panels { pointer, depth: right.stride, used, count: panels };
        self.multiply(left, count, right, to, first);
        self.e.b.end_loop(open, &[]);
    }

    /// Where a block sees no key at all, as many rows of zeros as it has queries.
    fn clear_unseen(&mut self, keys: Keys, count: Value, to: Matrix) {
        let unseen = self.e.b.compare(Compare::Equal, keys.low, keys.high);
        let open = self.e.b.begin_if(unseen, &[]);
        let size = self.e.b.times(count, to.stride);
        self.clear(to.pointer, size);
        self.e.b.begin_else(&[]);
        self.e.b.end_if(open, &[]);
    }

    /// Writes zeros; `floats` is a multiple of the lanes.
    fn clear(&mut self, pointer: Value, floats: Value) {
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        let open = self.e.b.begin_steps(floats, self.sizes.lanes());
        self.store_vector(zeros, pointer, open.counter);
        self.e.b.end_loop(open, &[]);
    }

    /// The keys that one query sees, as bounds in i32 relative to `keys.low`.
    fn bounds(&mut self, query: Value, keys: Keys) -> (Value, Value) {
        let shape = self.sizes.shape;
        let next = self.e.b.plus(query, 1);
        let high = if shape.causal { self.e.b.min_signed(next, keys.high) } else { keys.high };
        let low = match shape.window {
            None => keys.low,
            Some(window) => self.first_key(query, window),
        };
        let [low, high] = [low, high].map(|bound| {
            let relative = self.e.b.sub_known(bound, keys.low);
            let bound = self.e.b.truncate(relative, Elem::I32);
            self.e.b.splat(bound, self.sizes.tile.lanes)
        });
        (low, high)
    }

    /// Which lanes of the vector at `column` of a strip lie within bounds.
    fn within(&mut self, column: Value, (low, high): (Value, Value)) -> Value {
        let lanes = self.sizes.tile.lanes;
        let base = self.e.b.truncate(column, Elem::I32);
        let (base, steps) = (self.e.b.splat(base, lanes), self.e.b.iota(lanes, 1));
        let position = self.e.b.add(base, steps);
        let before_end = self.e.b.compare(Compare::Less, position, high);
        if self.sizes.shape.window.is_none() {
            return before_end;
        }
        let from_start = self.e.b.compare(Compare::LessEqual, low, position);
        self.e.b.and(before_end, from_start)
    }

    /// Opens the loop over the vectors of a strip's row that belong to visible panels.
    fn begin_strip(&mut self, keys: Keys, carried: &[Value]) -> Loop {
        let size = self.e.b.times(keys.panels, self.sizes.tile.columns());
        let bounds = (self.e.b.i64(0), size, self.e.b.i64(self.sizes.lanes() as i64));
        self.e.b.begin_loop(bounds, carried)
    }

    fn load_vector(&mut self, row: Value, column: Value) -> Value {
        let address = self.e.b.float_at(row, column);
        self.e.b.load(address, Type::vector(Elem::F32, self.sizes.tile.lanes), false)
    }

    fn store_vector(&mut self, value: Value, row: Value, column: Value) {
        let address = self.e.b.float_at(row, column);
        self.e.b.store(value, address);
    }

    /// Stores rows of a matrix in scratch through a view, each multiplied by its factor if there are factors.
    fn store_rows(
        &mut self,
        store: &Store,
        point: &Point,
        (start, count): (Value, Value),
        from: Matrix,
        factors: Option<Value>,
    ) {
        let open = self.e.b.begin_steps(count, 1);
        let position = self.e.b.add(start, open.counter);
        let point = point.at(2, position);
        let offset = self.e.b.times(open.counter, from.stride);
        let row = self.e.b.float_at(from.pointer, offset);
        let factor = factors.map(|factors| self.load_scalar(factors, open.counter));
        self.channels(|lowering, channel, active| {
            let mut value = lowering.load_vector(row, channel);
            if let Some(factor) = factor {
                let factor = lowering.e.b.splat(factor, lowering.sizes.tile.lanes);
                value = lowering.e.b.mul(value, factor);
            }
            let mut point = point.along(CHANNEL, channel, active);
            point.set_accumulator(0, value);
            lowering.e.store(&mut point, store);
        });
        self.e.b.end_loop(open, &[]);
    }

    /// Stores one number through a view of rows.
    fn store_scalar(&mut self, store: &Store, point: &Point, value: Value) {
        let zero = self.e.b.i64(0);
        let mut point = point.at(CHANNEL, zero);
        point.set_accumulator(0, value);
        self.e.store(&mut point, store);
    }

    fn load_scalar(&mut self, base: Value, position: Value) -> Value {
        let address = self.e.b.float_at(base, position);
        self.e.b.load(address, Type::scalar(Elem::F32), false)
    }
}

/// Rows of a left factor; `rest` is their remainder modulo the tile's rows where they are the last.
#[derive(Clone, Copy)]
struct Rows {
    rows: Value,
    rest: u64,
}

/// Panels of a right factor: each `depth` deep in memory, of which `used` steps are contracted.
#[derive(Clone, Copy)]
struct Panels {
    pointer: Value,
    depth: u64,
    used: Value,
    count: Value,
}
