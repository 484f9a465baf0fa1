//! Lowering of attention, forward and backward.
//!
//! Neither keeps a T x S matrix: a unit of work is one head (forward also: some of its query blocks), and for one block
//! of queries at a time the scores against all visible keys stand in scratch, a strip of rows. The products run in the
//! shared microkernel, in pairs of bf16 where the shape says bf16 and the processor multiplies them. Keys beyond the
//! causal bound or the window are skipped by tiles and masked within them.
//! Backward sums the gradients of keys and values in scratch over all queries and heads that share them, so that one
//! unit alone writes them: no atomics, one order (Dao, FlashAttention-2, 2023, cuts the work the other way and
//! recomputes more).

mod backward;
mod forward;
pub(crate) mod operands;
mod pack;
mod product;
mod rows;

pub(crate) use backward::lower as lower_backward;
pub(crate) use forward::lower as lower_forward;

use operands::{CHANNEL, Operands, POSITION, VARS, row_view};

use crate::{
    emit::{
        builder::{Builder, Elem, Type, Value},
        point::{Emitter, Point},
    },
    ir::{AttentionShape, Buffer, Store},
    micro::{MicroKernels, Step, Tile},
    stage::Stage,
};

/// Queries of a block where their strips stay in the second-level cache, a multiple of a tile's rows and of the lanes on
/// every instruction set; half as many where they would not.
const QUERY_BLOCK: u64 = 96;
/// Keys at most for so many queries: two strips of f32 are then 3/4 of a MiB.
const SHORT_STRIP: u64 = 1024;
/// Depth of one call of the microkernel over keys: a panel this deep fills a 32 KiB first-level cache.
const DEPTH_BLOCK: u64 = 256;
/// Multiply-adds below which a tile is not worth its own launch.
const WORK_PER_TILE: u64 = 64 * 1024;

/// Sizes in scratch.
#[derive(Clone, Copy)]
struct Sizes {
    shape: AttentionShape,
    tile: Tile,
    step: Step,
}

impl Sizes {
    fn new(shape: AttentionShape, micro: &MicroKernels) -> Sizes {
        Sizes { shape, tile: micro.tile, step: micro.machine.step(shape.precision) }
    }

    fn lanes(self) -> u64 {
        self.tile.lanes.into()
    }

    /// Queries of a block.
    fn block(self) -> u64 {
        if self.shape.keys <= SHORT_STRIP { QUERY_BLOCK } else { QUERY_BLOCK / 2 }
    }

    /// Channels, padded to whole panels.
    fn channels(self) -> u64 {
        self.shape.channels.next_multiple_of(self.tile.columns())
    }

    /// Steps of a contraction over channels.
    fn channel_steps(self) -> u64 {
        self.shape.channels.div_ceil(self.step.elements())
    }

    /// Elements between rows that are contracted over channels.
    fn row(self) -> u64 {
        self.channel_steps().next_multiple_of(self.lanes())
    }

    /// Keys, padded to whole panels.
    fn keys(self) -> u64 {
        self.shape.keys.next_multiple_of(self.tile.columns())
    }

    /// Steps of a contraction over all keys.
    fn key_steps(self) -> u64 {
        self.shape.keys.div_ceil(self.step.elements())
    }

    /// Steps of a contraction over the queries of a block.
    fn query_steps(self) -> u64 {
        self.block() / self.step.elements()
    }

    /// Elements between rows of a strip of scores: one vector more than the keys, for zeros. So rows never lie a multiple of
    /// a cache's size apart.
    fn strip(self) -> u64 {
        self.keys() + self.lanes()
    }

    fn query_blocks(self) -> u64 {
        self.shape.queries.div_ceil(self.block())
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

/// Queries `start..start + count`: a block of one head's.
#[derive(Clone, Copy)]
struct Queries {
    start: Value,
    count: Value,
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
    /// Elements between rows; for panels, the steps of a panel.
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
        let lanes = self.sizes.lanes();
        self.pieces_of_channels(lanes, |lowering, channel, active| emit(lowering, channel, active as u32));
    }

    /// Emits for pieces of a row of channels, of which the last may be shorter: the first channel and the length.
    fn pieces_of_channels(&mut self, length: u64, mut emit: impl FnMut(&mut Self, Value, u64)) {
        let channels = self.sizes.shape.channels;
        let full = channels / length * length;
        if full > 0 {
            let size = self.e.b.i64(full as i64);
            let open = self.e.b.begin_steps(size, length);
            emit(self, open.counter, length);
            self.e.b.end_loop(open, &[]);
        }
        if full < channels {
            let start = self.e.b.i64(full as i64);
            emit(self, start, channels - full);
        }
    }

    /// A factor of a product, rounded unless it will be when it is paired.
    fn rounded(&mut self, value: Value) -> Value {
        match self.sizes.step {
            Step::Float => self.e.rounded(value, self.sizes.shape.precision),
            Step::Bf16Pair => value,
        }
    }

    /// The keys that queries can see.
    fn visible(&mut self, queries: Queries) -> Keys {
        let shape = self.sizes.shape;
        let columns = self.sizes.tile.columns();
        let all = self.e.b.i64(shape.keys as i64);
        let end = self.e.b.add(queries.start, queries.count);
        let high = if shape.causal { self.e.b.min_signed(end, all) } else { all };
        let low = match shape.window {
            None => self.e.b.i64(0),
            Some(window) => {
                let low = self.first_key(queries.start, window);
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

    /// Writes zeros; `floats` is a multiple of the lanes.
    fn clear(&mut self, pointer: Value, floats: Value) {
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        let open = self.e.b.begin_steps(floats, self.sizes.lanes());
        self.store_vector(zeros, pointer, open.counter);
        self.e.b.end_loop(open, &[]);
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
        let point = point.at(POSITION, position);
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

    fn load_scalar(&mut self, base: Value, position: Value) -> Value {
        let address = self.e.b.float_at(base, position);
        self.e.b.load(address, Type::scalar(Elem::F32), false)
    }
}
