//! Attention on tensor cores, where its factors are rounded to bf16, or to tf32 ([`tf32`]).
//!
//! A block of four warps handles 64 rows (queries, or keys) against tiles of 64 others. A warp has 16 rows and all columns
//! of their scores, so that a row lies in four lanes; scores become the left factor of the next product without leaving
//! the registers (FlashAttention-2, section 3.3).

mod backward;
mod forward;
mod tf32;

pub(super) use backward::lower as lower_backward;
pub(super) use forward::lower as lower_forward;

use super::{CHANNEL, Lowering, POSITION, TILE, tiles::Rows};
use crate::{
    cuda::{matrix::Order, simt::WARP},
    emit::{
        builder::{Block, Compare, Elem, Type, Value},
        point::Point,
    },
    ir::{AttentionShape, Buffer, DType, Expr, ExprId, Precision, Store, View},
};

const WARPS: u64 = 4;
const THREADS: u64 = WARPS * WARP as u64;

/// Fragments of tf32 need all registers that a thread can have.
fn block(shape: &AttentionShape) -> Block {
    let together = (shape.precision == Precision::Tf32).then_some(1);
    Block { threads: THREADS as u32, together }
}

/// Rows of a warp; depth of a multiplication.
const ROWS: u64 = 16;
/// Columns of a fragment of sums, and fragments across a tile.
const COLUMNS: u64 = 8;
const ACROSS: u64 = TILE / COLUMNS;
/// Channels of a gradient that a block can keep in registers.
const MOST_KEPT: u64 = 64;
/// The same where fragments are tf32.
const MOST_KEPT_TF32: u64 = 48;
/// Bytes that a row in shared memory is longer than it must be, so that rows start in different banks.
const PADDING: u64 = 16;

/// Whether attention of this shape runs here: other numbers of channels take the way of fused multiply-adds.
pub(in crate::cuda) fn takes(shape: &AttentionShape) -> bool {
    let channels = channels(shape);
    match shape.precision {
        Precision::F32 => false,
        // Tiles of more would not fit shared memory.
        Precision::Tf32 => channels <= MOST_KEPT,
        Precision::Bf16 => channels <= MOST_KEPT || channels == 2 * MOST_KEPT,
    }
}

/// Channels, padded to whole multiplications.
fn channels(shape: &AttentionShape) -> u64 {
    shape.channels.next_multiple_of(ROWS)
}

/// Channels of a gradient that a block keeps in registers: all, or half of them.
fn kept(shape: &AttentionShape) -> u64 {
    let most = if shape.precision == Precision::Tf32 { MOST_KEPT_TF32 } else { MOST_KEPT };
    if channels(shape) > most { channels(shape) / 2 } else { channels(shape) }
}

/// Bytes of an element in shared memory.
fn element_bytes(shape: &AttentionShape) -> u64 {
    if shape.precision == Precision::Tf32 { 4 } else { 2 }
}

/// Bytes of a row, and of a tile of rows, in shared memory.
fn row_bytes(shape: &AttentionShape) -> u64 {
    element_bytes(shape) * channels(shape) + PADDING
}

fn tile_bytes(shape: &AttentionShape) -> u64 {
    TILE * row_bytes(shape)
}

/// Bytes of a tile of results, which takes the place of the factors.
fn result_bytes(channels: u64) -> u64 {
    4 * TILE * (channels + 4)
}

/// Channels of a view that a thread moves at once: those of 16 bytes, if they lie side by side at a multiple of as many.
fn vector(view: &View, buffers: &[Buffer], shape: &AttentionShape) -> u64 {
    let buffer = &buffers[view.buffer as usize];
    let vector = 16 / buffer.dtype.bytes();
    let [batch, head, position, channel] = view.strides;
    let steps = [batch, head, position, view.offset, shape.channels, buffer.elements];
    // Shared memory holds pairs of bf16, or f32 for tf32.
    let as_it_is = buffer.dtype == DType::F32 || shape.precision == Precision::Bf16;
    if as_it_is && channel == 1 && steps.iter().all(|step| step.is_multiple_of(vector)) { vector } else { 1 }
}

/// A factor in memory.
#[derive(Clone, Copy)]
struct Source {
    load: ExprId,
    /// As [`vector`] says.
    vector: u64,
}

impl Source {
    fn new(load: ExprId, view: &View, buffers: &[Buffer], shape: &AttentionShape) -> Source {
        Source { load, vector: vector(view, buffers, shape) }
    }
}

/// The fragments of sums of a warp, 4 values each.
type Sums = Vec<[Value; 4]>;

impl Lowering<'_> {
    /// Lane in the warp, and number of the warp.
    fn lane(&mut self) -> (Value, Value) {
        self.e.b.split(self.thread, WARP.into())
    }

    /// The first row of the thread; its second is 8 below.
    fn own_row(&mut self) -> Value {
        let (lane, warp) = self.lane();
        let (_, row) = self.e.b.split(lane, 4);
        let first = self.e.b.times(warp, ROWS);
        self.e.b.add(first, row)
    }

    /// The first of the thread's two columns of fragment `j`.
    fn own_column(&mut self, j: u64) -> Value {
        let (lane, _) = self.lane();
        let (pair, _) = self.e.b.split(lane, 4);
        let column = self.e.b.times(pair, 2);
        self.e.b.plus(column, j * COLUMNS)
    }

    fn no_sums(&mut self, fragments: u64) -> Sums {
        let zero = self.e.b.float(1, 0.0);
        vec![[zero; 4]; fragments as usize]
    }

    /// Copies a tile of rows of an operand, rounded to bf16 or as it is for tf32; zeros where there is nothing.
    fn load_tile(&mut self, source: Source, head: &Point, rows: Rows, offset: u64) {
        let (width, vector) = (channels(&self.shape), source.vector);
        let open = self.e.b.begin_count(TILE * width / (THREADS * vector), &[]);
        let position = self.e.b.times(open.counter, THREADS);
        let position = self.e.b.add(position, self.thread);
        let (place, row) = self.e.b.split(position, width / vector);
        let channel = self.e.b.times(place, vector);
        let at = self.e.b.add(rows.first, row);
        let value = self.elements(source, head, (rows, at), channel);
        let address = self.tile_at(offset, row, channel);
        match value.ty {
            Type { elem: Elem::I32, .. } => self.e.b.store_aligned(value, address, 16),
            Type { lanes, .. } if self.is_tf32() => self.e.b.store_aligned(value, address, 4 * lanes),
            Type { lanes: 1, .. } => {
                let stored = self.e.b.narrow_bf16(value);
                self.e.b.store(stored, address);
            }
            ty => {
                let values: Vec<Value> = (0..ty.lanes).map(|lane| self.e.b.extract(value, lane)).collect();
                let pairs: Vec<Value> = values.chunks(2).map(|pair| self.e.b.pack_bf16(pair[0], pair[1])).collect();
                let vector = self.e.b.assemble(&pairs);
                self.e.b.store_aligned(vector, address, 8);
            }
        }
        self.e.b.end_loop(open, &[]);
    }

    /// Neighbouring channels of a row of an operand: f32, or pairs of bf16 (i32) as they are stored.
    fn elements(&mut self, source: Source, head: &Point, (rows, at): (Rows, Value), channel: Value) -> Value {
        let ty = match source.vector {
            1 => Type::scalar(Elem::F32),
            4 => Type::vector(Elem::F32, 4),
            pairs => Type::vector(Elem::I32, pairs as u32 / 2),
        };
        let exists = self.existing(rows, at, channel);
        let open = exists.map(|exists| self.e.b.begin_if(exists, &[ty]));
        let mut point = head.at(POSITION, at).at(CHANNEL, channel);
        let mut value = match self.e.exprs.get(source.load) {
            Expr::Load { buffer, index, .. } if source.vector > 1 => {
                let (buffer, index) = (*buffer, index.clone());
                let address = self.e.element(&mut point, buffer, &index, 0);
                self.e.b.load_aligned(address, ty, 16, true)
            }
            _ => self.e.evaluate(&mut point, source.load),
        };
        if let Some(open) = open {
            self.e.b.begin_else(&[value]);
            let zero = self.e.b.zero(ty);
            value = self.e.b.end_if(open, &[zero])[0];
        }
        value
    }

    /// As [`Lowering::exists`], with channels padded to whole multiplications only.
    fn existing(&mut self, rows: Rows, position: Value, channel: Value) -> Option<Value> {
        let mut conditions = Vec::new();
        if !rows.limit.is_multiple_of(TILE) {
            let limit = self.e.b.i64(rows.limit as i64);
            conditions.push(self.e.b.compare(Compare::Less, position, limit));
        }
        if !self.shape.channels.is_multiple_of(ROWS) {
            let limit = self.e.b.i64(self.shape.channels as i64);
            conditions.push(self.e.b.compare(Compare::Less, channel, limit));
        }
        conditions.into_iter().reduce(|a, b| self.e.b.and(a, b))
    }

    fn tile_at(&mut self, offset: u64, row: Value, channel: Value) -> Value {
        let row = self.e.b.times(row, row_bytes(&self.shape));
        let channel = self.e.b.times(channel, element_bytes(&self.shape));
        let place = self.e.b.add(row, channel);
        let place = self.e.b.plus(place, offset);
        let base = self.e.b.shared(0);
        self.e.b.address(base, place, Elem::I8)
    }

    /// Loads 8 x 8 matrices; the lane is given the halves (0 or 1) along rows and along channels by `halves`.
    fn fragment(&mut self, offset: u64, row: Value, channel: u64, rows_first: bool, order: Order) -> [Value; 4] {
        let (lane, _) = self.lane();
        let (within, matrix) = self.e.b.split(lane, 8);
        let (low, high) = self.e.b.split(matrix, 2);
        let (row_half, channel_half) = if rows_first { (low, high) } else { (high, low) };
        let row_half = self.e.b.times(row_half, 8);
        let row = self.e.b.add(row, row_half);
        let row = self.e.b.add(row, within);
        let channel_half = self.e.b.times(channel_half, 8);
        let channel = self.e.b.plus(channel_half, channel);
        let address = self.tile_at(offset, row, channel);
        self.e.b.load_matrices(address, order)
    }

    /// `own rows of the left tile · all rows of the right tile ᵀ`, summed over channels.
    fn tensor_scores(&mut self, left: u64, right: u64) -> Sums {
        let mut sums = self.no_sums(ACROSS);
        if self.is_tf32() {
            return self.scores_tf32(left, right, sums);
        }
        let (_, warp) = self.lane();
        let first = self.e.b.times(warp, ROWS);
        for channel in (0..channels(&self.shape)).step_by(ROWS as usize) {
            let a = self.fragment(left, first, channel, true, Order::Straight);
            for pair in 0..ACROSS / 2 {
                let row = self.e.b.i64((pair * 2 * COLUMNS) as i64);
                let [b0, b1, b2, b3] = self.fragment(right, row, channel, false, Order::Straight);
                for (half, b) in [[b0, b1], [b2, b3]].into_iter().enumerate() {
                    let sum = &mut sums[2 * pair as usize + half];
                    *sum = self.e.b.multiply_matrices(a, b, *sum);
                }
            }
        }
        sums
    }

    /// `sums += scores · tile`, for `sums.len()` fragments of channels from `channel` on. The scores are rounded to bf16.
    fn tensor_weigh(&mut self, scores: &Sums, tile: u64, channel: u64, mut sums: Sums) -> Sums {
        if self.is_tf32() {
            return self.weigh_tf32(scores, tile, channel, sums);
        }
        for step in 0..TILE / ROWS {
            let [low, high] = [0, 1].map(|half| scores[(2 * step + half) as usize]);
            let a = [
                self.e.b.pack_bf16(low[0], low[1]),
                self.e.b.pack_bf16(low[2], low[3]),
                self.e.b.pack_bf16(high[0], high[1]),
                self.e.b.pack_bf16(high[2], high[3]),
            ];
            let row = self.e.b.i64((step * ROWS) as i64);
            for pair in 0..sums.len() / 2 {
                let at = channel + 2 * pair as u64 * COLUMNS;
                let [b0, b1, b2, b3] = self.fragment(tile, row, at, true, Order::Transposed);
                for (half, b) in [[b0, b1], [b2, b3]].into_iter().enumerate() {
                    let sum = &mut sums[2 * pair + half];
                    *sum = self.e.b.multiply_matrices(a, b, *sum);
                }
            }
        }
        sums
    }

    /// Stores the rows of the block, channels from `channel` on, through shared memory.
    fn store_tile(&mut self, store: &Store, head: &Point, rows: Rows, channel: Value, sums: &Sums) {
        let width = sums.len() as u64 * COLUMNS;
        self.e.b.barrier();
        let own = self.own_row();
        for (j, sum) in sums.iter().enumerate() {
            let column = self.own_column(j as u64);
            for half in 0..2 {
                let row = self.e.b.plus(own, 8 * half);
                let address = self.result_at(width, row, column);
                let pair = self.e.b.assemble(&[sum[2 * half as usize], sum[2 * half as usize + 1]]);
                self.e.b.store_aligned(pair, address, 8);
            }
        }
        self.e.b.barrier();
        let open = self.e.b.begin_count(TILE * width / THREADS, &[]);
        let position = self.e.b.times(open.counter, THREADS);
        let position = self.e.b.add(position, self.thread);
        let (column, row) = self.e.b.split(position, width);
        let (at, channel) = (self.e.b.add(rows.first, row), self.e.b.add(channel, column));
        let exists = self.stored(rows, at, channel, width);
        let inside = exists.map(|exists| self.e.b.begin_if(exists, &[]));
        let address = self.result_at(width, row, column);
        let value = self.e.b.load(address, Type::scalar(Elem::F32), false);
        let mut point = head.at(POSITION, at).at(CHANNEL, channel);
        point.set_accumulator(0, value);
        self.e.store(&mut point, store);
        if let Some(inside) = inside {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(inside, &[]);
        }
        self.e.b.end_loop(open, &[]);
    }

    fn stored(&mut self, rows: Rows, at: Value, channel: Value, width: u64) -> Option<Value> {
        let row = self.existing(Rows { limit: rows.limit, ..rows }, at, channel);
        let ragged = self.shape.channels.is_multiple_of(ROWS) && !self.shape.channels.is_multiple_of(width);
        let limit = self.e.b.i64(self.shape.channels as i64);
        let inside = ragged.then(|| self.e.b.compare(Compare::Less, channel, limit));
        match (row, inside) {
            (Some(a), Some(b)) => Some(self.e.b.and(a, b)),
            (a, b) => a.or(b),
        }
    }

    fn result_at(&mut self, width: u64, row: Value, column: Value) -> Value {
        let position = self.e.b.times(row, width + 4);
        let position = self.e.b.add(position, column);
        let base = self.e.b.shared(0);
        self.e.b.float_at(base, position)
    }
}
