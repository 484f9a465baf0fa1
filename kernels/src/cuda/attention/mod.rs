//! Attention on devices, forward and backward, without a T x S matrix in memory (Dao et al., FlashAttention, 2022;
//! FlashAttention-2, 2023).
//!
//! A block of 16 x 16 threads handles 64 queries against 64 keys at a time. The thread in row `y` and column `x` has the
//! scores of queries `y + 16i` and keys `x + 16j`; channels go through shared memory in slices of up to 64. Sums over
//! keys (or queries) are kept in registers. Every element of a result is written by one block: no atomics, one order.

mod backward;
mod forward;
pub(super) mod tensor;
mod tiles;

use tiles::Rows;

use crate::{
    attention::operands::{CHANNEL, Operands, POSITION, VARS, is_bf16, row_view},
    cuda::DeviceStage,
    emit::{
        builder::{Block, Builder, Compare, Elem, Type, Value},
        point::{Emitter, Point},
    },
    ir::{Attention, AttentionBackward, AttentionShape, Buffer, ExprId, Kernel, Store},
};

/// Lowers verified attention.
pub(super) fn lower_forward(b: &mut Builder, kernel: &Kernel, attention: &Attention, name: &str) -> Vec<DeviceStage> {
    match tensor::takes(&attention.shape) {
        true => tensor::lower_forward(b, kernel, attention, name),
        false => forward::lower(b, kernel, attention, name),
    }
}

/// Lowers verified attention backward.
pub(super) fn lower_backward(
    b: &mut Builder,
    kernel: &Kernel,
    attention: &AttentionBackward,
    name: &str,
) -> Vec<DeviceStage> {
    match tensor::takes(&attention.shape) {
        true => tensor::lower_backward(b, kernel, attention, name),
        false => backward::lower(b, kernel, attention, name),
    }
}

/// Queries, and keys, of a tile.
const TILE: u64 = 64;
/// Threads along each side of a block.
const SIDE: u64 = 16;
/// Scores of a thread along each side.
const EACH: u64 = TILE / SIDE;
const THREADS: u64 = SIDE * SIDE;
const BLOCK: Block = Block { threads: THREADS as u32, together: None };
/// Elements that a row in shared memory is longer than it must be, so that rows start in different banks.
const PADDING: u64 = 4;

/// How channels are cut.
#[derive(Clone, Copy, Debug)]
struct Channels {
    all: u64,
    /// Of a slice: 16, 32 or 64.
    slice: u64,
    /// Slices of the result that a block keeps.
    kept: u64,
}

impl Channels {
    fn new(all: u64, most_kept: u64) -> Channels {
        let slice = all.next_power_of_two().clamp(SIDE, TILE);
        let kept = all.div_ceil(slice).min(most_kept);
        Channels { all, slice, kept }
    }

    fn slices(self) -> u64 {
        self.all.div_ceil(self.slice)
    }

    /// Blocks that share the channels of a result.
    fn groups(self) -> u64 {
        self.slices().div_ceil(self.kept)
    }

    /// Of a slice, those of a thread.
    fn each(self) -> u64 {
        self.slice / SIDE
    }
}

/// A part of shared memory: rows of up to a tile's width.
#[derive(Clone, Copy)]
struct Matrix {
    /// In f32 elements.
    offset: u64,
}

const ROW: u64 = TILE + PADDING;

/// Where things lie in shared memory: slices of queries (or of what goes with them), of keys, and scores.
const QUERIES: Matrix = Matrix { offset: 0 };
const KEYS: Matrix = Matrix { offset: TILE * ROW };
const SCORES: Matrix = Matrix { offset: 2 * TILE * ROW };
const SHARED_BYTES: u64 = 4 * 3 * TILE * ROW;

/// What both directions emit with.
struct Lowering<'a> {
    e: Emitter<'a>,
    shape: AttentionShape,
    channels: Channels,
    /// Column and row of the thread.
    x: Value,
    y: Value,
    thread: Value,
}

/// Values of a thread, `EACH` rows of some.
type Fragment = Vec<Value>;

impl<'a> Lowering<'a> {
    fn new(
        b: &'a mut Builder,
        (operands, buffers): (&'a Operands, &'a [Buffer]),
        (pointers, instance): (Vec<Value>, Value),
        shape: AttentionShape,
        channels: Channels,
    ) -> Self {
        let thread = b.thread();
        let (x, y) = b.split(thread, SIDE);
        let e = Emitter::with_pointers(b, &operands.exprs, buffers, pointers, instance, 1);
        Lowering { e, shape, channels, x, y, thread }
    }

    /// `base + side + 16 i`
    fn spread(&mut self, base: Value, side: Value, number: u64) -> Value {
        let position = self.e.b.add(base, side);
        self.e.b.plus(position, SIDE * number)
    }

    fn zeros(&mut self, count: u64) -> Fragment {
        let zero = self.e.b.float(1, 0.0);
        vec![zero; count as usize]
    }

    fn rounded(&mut self, value: Value) -> Value {
        self.e.rounded(value, self.shape.precision)
    }

    /// A factor of a product at a point, rounded as the shape says.
    fn factor(&mut self, point: &mut Point, load: ExprId) -> Value {
        let value = self.e.evaluate(point, load);
        if is_bf16(&self.e, load) { value } else { self.rounded(value) }
    }

    /// The address of element (row, column) of a matrix in shared memory.
    fn at(&mut self, matrix: Matrix, row: Value, column: Value) -> Value {
        let position = self.e.b.times(row, ROW);
        let position = self.e.b.add(position, column);
        let base = self.e.b.shared(matrix.offset);
        self.e.b.float_at(base, position)
    }

    /// `count` neighbouring elements from (row, column) on.
    fn vector(&mut self, matrix: Matrix, row: Value, column: Value, count: u64) -> Fragment {
        let address = self.at(matrix, row, column);
        let loaded = self.e.b.load_aligned(address, Type::vector(Elem::F32, count as u32), 4 * count as u32, false);
        (0..count as u32).map(|lane| self.e.b.extract(loaded, lane)).collect()
    }

    /// Emits for every element of a slice that the thread moves; the body gets row and channel of the slice.
    fn slice_elements(&mut self, mut emit: impl FnMut(&mut Self, Value, Value)) {
        let slice = self.channels.slice;
        let open = self.e.b.begin_count(TILE * slice / THREADS, &[]);
        let position = self.e.b.times(open.counter, THREADS);
        let position = self.e.b.add(position, self.thread);
        let (channel, row) = self.e.b.split(position, slice);
        emit(self, row, channel);
        self.e.b.end_loop(open, &[]);
    }

    /// Whether a position of the rows and a channel exist; `None` if all do.
    fn exists(&mut self, rows: Rows, position: Value, channel: Value) -> Option<Value> {
        let ragged_rows = !rows.limit.is_multiple_of(TILE);
        let ragged_channels = !self.channels.all.is_multiple_of(self.channels.slice);
        let limit = self.e.b.i64(rows.limit as i64);
        let all = self.e.b.i64(self.channels.all as i64);
        let row = ragged_rows.then(|| self.e.b.compare(Compare::Less, position, limit));
        let channel = ragged_channels.then(|| self.e.b.compare(Compare::Less, channel, all));
        match (row, channel) {
            (Some(row), Some(channel)) => Some(self.e.b.and(row, channel)),
            (row, channel) => row.or(channel),
        }
    }

    /// Copies a slice of channels, from `channel` on, of rows of an operand; zeros where there is nothing.
    fn load_slice(&mut self, load: ExprId, head: &Point, rows: Rows, channel: Value, to: Matrix) {
        self.slice_elements(|lowering, row, within| {
            let position = lowering.e.b.add(rows.first, row);
            let at = lowering.e.b.add(channel, within);
            let exists = lowering.exists(rows, position, at);
            let open = exists.map(|exists| lowering.e.b.begin_if(exists, &[Type::scalar(Elem::F32)]));
            let mut value = lowering.factor(&mut head.at(POSITION, position).at(CHANNEL, at), load);
            if let Some(open) = open {
                lowering.e.b.begin_else(&[value]);
                let zero = lowering.e.b.float(1, 0.0);
                value = lowering.e.b.end_if(open, &[zero])[0];
            }
            let address = lowering.at(to, row, within);
            lowering.e.b.store(value, address);
        });
    }

    /// The opposite of [`Lowering::load_slice`].
    fn store_slice(&mut self, store: &Store, head: &Point, rows: Rows, channel: Value, from: Matrix) {
        self.slice_elements(|lowering, row, within| {
            let position = lowering.e.b.add(rows.first, row);
            let at = lowering.e.b.add(channel, within);
            let exists = lowering.exists(rows, position, at);
            let open = exists.map(|exists| lowering.e.b.begin_if(exists, &[]));
            let address = lowering.at(from, row, within);
            let value = lowering.e.b.load(address, Type::scalar(Elem::F32), false);
            let mut point = head.at(POSITION, position).at(CHANNEL, at);
            point.set_accumulator(0, value);
            lowering.e.store(&mut point, store);
            if let Some(open) = open {
                lowering.e.b.begin_else(&[]);
                lowering.e.b.end_if(open, &[]);
            }
        });
    }

    /// Products of query rows with key rows, summed over all channels: the thread's scores, row by row.
    fn scores(
        &mut self,
        (left, of_left): (ExprId, &Point),
        queries: Rows,
        (right, of_right): (ExprId, &Point),
        keys: Rows,
    ) -> Fragment {
        let zeros = self.zeros(EACH * EACH);
        let slices = self.channels.slices();
        let open = self.e.b.begin_count(slices, &zeros);
        let channel = self.e.b.times(open.counter, self.channels.slice);
        self.e.b.barrier();
        self.load_slice(left, of_left, queries, channel, QUERIES);
        self.load_slice(right, of_right, keys, channel, KEYS);
        self.e.b.barrier();
        let sums = self.multiply_rows(open.carried.clone());
        self.e.b.end_loop(open, &sums)
    }

    /// `sums[i][j] += Σ_c queries[y + 16i][c] · keys[x + 16j][c]`
    fn multiply_rows(&mut self, sums: Fragment) -> Fragment {
        let open = self.e.b.begin_count(self.channels.slice / 4, &sums);
        let mut sums = open.carried.clone();
        let channel = self.e.b.times(open.counter, 4);
        let zero = self.e.b.i64(0);
        let fragments = |lowering: &mut Self, matrix: Matrix, side: Value| -> Vec<Fragment> {
            let rows: Vec<Value> = (0..EACH).map(|i| lowering.spread(zero, side, i)).collect();
            rows.into_iter().map(|row| lowering.vector(matrix, row, channel, 4)).collect()
        };
        let (y, x) = (self.y, self.x);
        let (left, right) = (fragments(self, QUERIES, y), fragments(self, KEYS, x));
        for lane in 0..4 {
            for (number, sum) in sums.iter_mut().enumerate() {
                let (i, j) = (number / EACH as usize, number % EACH as usize);
                *sum = self.e.b.fma(left[i][lane], right[j][lane], *sum);
            }
        }
        self.e.b.end_loop(open, &sums)
    }

    /// Writes the thread's scores where all threads of the block find them.
    fn share_scores(&mut self, scores: &[Value]) {
        let zero = self.e.b.i64(0);
        for (number, &score) in scores.iter().enumerate() {
            let row = self.spread(zero, self.y, number as u64 / EACH);
            let column = self.spread(zero, self.x, number as u64 % EACH);
            let address = self.at(SCORES, row, column);
            self.e.b.store(score, address);
        }
    }

    /// `value` where visible, else `otherwise`.
    fn masked(&mut self, visible: Option<Value>, value: Value, otherwise: f32) -> Value {
        let otherwise = self.e.b.float(1, otherwise);
        visible.map_or(value, |visible| self.e.b.select(visible, value, otherwise))
    }

    /// `sums[i][e] += Σ_k scores[y + 16i][k] · keys[k][each·x + e]` over a tile of keys.
    fn weigh(&mut self, from: Matrix, sums: Fragment) -> Fragment {
        let each = self.channels.each();
        let open = self.e.b.begin_count(TILE / 4, &sums);
        let mut sums = open.carried.clone();
        let key = self.e.b.times(open.counter, 4);
        let zero = self.e.b.i64(0);
        let weights: Vec<Fragment> = (0..EACH)
            .map(|i| {
                let row = self.spread(zero, self.y, i);
                self.vector(SCORES, row, key, 4)
            })
            .collect();
        let channel = self.e.b.times(self.x, each);
        for lane in 0..4 {
            let row = self.e.b.plus(key, lane);
            let values = self.vector(from, row, channel, each);
            for (number, sum) in sums.iter_mut().enumerate() {
                let (i, e) = (number / each as usize, number % each as usize);
                *sum = self.e.b.fma(weights[i][lane as usize], values[e], *sum);
            }
        }
        self.e.b.end_loop(open, &sums)
    }

    /// `sums[i][e] += Σ_q scores[q][4y + i] · queries[q][each·x + e]` over a tile of queries.
    fn weigh_transposed(&mut self, sums: Fragment) -> Fragment {
        let each = self.channels.each();
        let open = self.e.b.begin_count(TILE, &sums);
        let mut sums = open.carried.clone();
        let (first, channel) = (self.e.b.times(self.y, EACH), self.e.b.times(self.x, each));
        let weights = self.vector(SCORES, open.counter, first, EACH);
        let values = self.vector(QUERIES, open.counter, channel, each);
        for (number, sum) in sums.iter_mut().enumerate() {
            let (i, e) = (number / each as usize, number % each as usize);
            *sum = self.e.b.fma(weights[i], values[e], *sum);
        }
        self.e.b.end_loop(open, &sums)
    }

    /// Writes a slice of results into a matrix in shared memory; `row(i)` says which row the thread's `i`-th is.
    fn share_slice(&mut self, slice: &[Value], to: Matrix, mut row: impl FnMut(&mut Self, u64) -> Value) {
        let each = self.channels.each();
        let channel = self.e.b.times(self.x, each);
        for i in 0..EACH {
            let row = row(self, i);
            let address = self.at(to, row, channel);
            let values: Vec<Value> = (0..each).map(|e| slice[(i * each + e) as usize]).collect();
            let values = self.e.b.assemble(&values);
            self.e.b.store_aligned(values, address, 4 * each as u32);
        }
    }

    /// Runs the body for each slice of channels that the block keeps.
    fn over_slices(
        &mut self,
        channel: Value,
        mut sums: Fragment,
        mut emit: impl FnMut(&mut Self, Value, Fragment) -> Fragment,
    ) -> Fragment {
        let kept = (EACH * self.channels.each()) as usize;
        for slice in 0..self.channels.kept as usize {
            let channel = self.e.b.plus(channel, slice as u64 * self.channels.slice);
            let next = emit(self, channel, sums[slice * kept..(slice + 1) * kept].to_vec());
            sums.splice(slice * kept..(slice + 1) * kept, next);
        }
        sums
    }

    /// Stores slices of results, from `channel` on; `row(i)` says which row of the tile the thread's `i`-th is.
    fn store_slices(
        &mut self,
        store: &Store,
        (head, rows): (&Point, Rows),
        channel: Value,
        sums: &[Value],
        mut row: impl FnMut(&mut Self, u64) -> Value,
    ) {
        self.over_slices(channel, sums.to_vec(), |lowering, channel, sums| {
            lowering.e.b.barrier();
            lowering.share_slice(&sums, SCORES, &mut row);
            lowering.e.b.barrier();
            lowering.store_slice(store, head, rows, channel, SCORES);
            sums
        });
    }

    /// The thread's `i`-th row of a tile of queries.
    fn query_row(&mut self, i: u64) -> Value {
        let none = self.e.b.i64(0);
        self.spread(none, self.y, i)
    }

    /// Stores the quantity of a row, in the thread where `is_first` holds.
    fn store_row(&mut self, store: &Store, head: &Point, query: Value, (is_first, value): (Value, Value)) {
        let zero = self.e.b.i64(0);
        let limit = self.e.b.i64(self.shape.queries as i64);
        let exists = self.e.b.compare(Compare::Less, query, limit);
        let both = self.e.b.and(is_first, exists);
        let open = self.e.b.begin_if(both, &[]);
        let mut point = head.at(POSITION, query).at(CHANNEL, zero);
        point.set_accumulator(0, value);
        self.e.store(&mut point, store);
        self.e.b.begin_else(&[]);
        self.e.b.end_if(open, &[]);
    }
}
