//! Attention forward.

use super::{Keys, Layout, Lowering, Matrix, Operands, Panels, QUERY_BLOCK, Rows, Sizes, WORK_PER_TILE, row_view};
use crate::{
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
    },
    ir::{Attention, ExprId, Kernel, ReduceKind, Store},
    micro::MicroKernels,
    stage::{Lowered, emit_stage, tile_count},
};

/// Units aimed at, so that a static split balances.
const UNITS_WANTED: u64 = 32;

/// What the kernel reads and writes.
struct Parts {
    q: ExprId,
    k: ExprId,
    v: ExprId,
    o: Store,
    lse: Option<Store>,
}

/// Where things lie in scratch, in f32 elements.
struct Places {
    k: u64,
    v: u64,
    q: u64,
    scores: u64,
    output: u64,
    /// One over the sum of each row.
    factors: u64,
    end: u64,
}

impl Places {
    fn new(sizes: Sizes) -> Places {
        let mut layout = Layout::default();
        Places {
            k: layout.take(sizes.keys() * sizes.shape.channels),
            v: layout.take(sizes.shape.keys * sizes.channels()),
            q: layout.take(QUERY_BLOCK * sizes.channels()),
            scores: layout.take(QUERY_BLOCK * sizes.strip()),
            output: layout.take(QUERY_BLOCK * sizes.channels()),
            factors: layout.take(QUERY_BLOCK),
            end: layout.floats,
        }
    }
}

/// Lowers verified attention.
pub(crate) fn lower(
    b: &mut Builder,
    micro: &mut MicroKernels,
    kernel: &Kernel,
    attention: &Attention,
    name: &str,
) -> Lowered {
    let shape = attention.shape;
    let sizes = Sizes { shape, tile: micro.tile };
    let mut operands = Operands::new();
    let parts = Parts {
        q: operands.load(&attention.q),
        k: operands.load(&attention.k),
        v: operands.load(&attention.v),
        o: operands.store(&attention.o),
        lse: attention.lse.as_ref().map(|lse| operands.store(&row_view(lse))),
    };
    let heads = shape.batch * shape.heads;
    let chunks = UNITS_WANTED.div_ceil(heads).min(sizes.query_blocks());
    let blocks = sizes.query_blocks().div_ceil(chunks);
    let chunks = sizes.query_blocks().div_ceil(blocks);
    let units = heads * chunks;
    let tiles = tile_count(units, heads * shape.queries * shape.keys * shape.channels, WORK_PER_TILE);
    let places = Places::new(sizes);
    let symbol = format!("{name}_0");
    emit_stage(b, &symbol, |b, stage| {
        let mut lowering = Lowering::new(b, micro, (&operands, &kernel.buffers), sizes, stage);
        let [low, high] = [stage.begin, stage.end].map(|tile| lowering.e.b.boundary(tile, units, tiles));
        let one = lowering.e.b.i64(1);
        let open = lowering.e.b.begin_loop((low, high, one), &[]);
        lowering.forward_unit(open.counter, (chunks, blocks * QUERY_BLOCK), &parts, &places);
        lowering.e.b.end_loop(open, &[]);
    });
    Lowered { stages: vec![(symbol, tiles)], scratch_bytes: 4 * places.end }
}

impl Lowering<'_> {
    /// Some query blocks of one head.
    fn forward_unit(&mut self, unit: Value, (chunks, queries): (u64, u64), parts: &Parts, places: &Places) {
        let shape = self.sizes.shape;
        let (chunk, rest) = self.e.b.split(unit, chunks);
        let (head, batch) = self.e.b.split(rest, shape.heads);
        let (_, group) = self.e.b.split(head, shape.heads / shape.kv_heads);
        let of_keys = self.head_point(batch, group);
        let k = self.matrix(places.k, shape.channels);
        self.pack_transposed(parts.k, &of_keys, k);
        let v = self.matrix(places.v, shape.keys);
        let all = (self.e.b.i64(0), self.e.b.i64(shape.keys as i64));
        self.pack_rows(parts.v, &of_keys, all, v);
        let start = self.e.b.times(chunk, queries);
        let end = self.e.b.plus(start, queries);
        let limit = self.e.b.i64(shape.queries as i64);
        let end = self.e.b.min_signed(end, limit);
        let step = self.e.b.i64(QUERY_BLOCK as i64);
        let open = self.e.b.begin_loop((start, end, step), &[]);
        let rest = self.e.b.sub_known(end, open.counter);
        let count = self.e.b.min_signed(step, rest);
        let point = self.head_point(batch, head);
        self.forward_block(&point, (open.counter, count), (k, v), parts, places);
        self.e.b.end_loop(open, &[]);
    }

    /// One block of queries.
    fn forward_block(
        &mut self,
        point: &Point,
        (start, count): (Value, Value),
        (k, v): (Matrix, Matrix),
        parts: &Parts,
        places: &Places,
    ) {
        let sizes = self.sizes;
        let keys = self.visible(start, count);
        let rows = Rows { rows: count, rest: sizes.shape.queries % sizes.tile.rows };
        let q = self.matrix(places.q, sizes.channels());
        self.copy_rows(parts.q, point, (start, count), q);
        let scores = self.matrix(places.scores, sizes.strip());
        self.scores(q, rows, keys, k, scores);
        let factors = self.e.b.float_after(self.scratch, places.factors);
        let open = self.e.b.begin_steps(count, 1);
        let query = self.e.b.add(start, open.counter);
        let offset = self.e.b.times(open.counter, scores.stride);
        let row = self.e.b.float_at(scores.pointer, offset);
        let (factor, lse) = self.softmax_row(row, query, keys);
        self.store_vector(factor, factors, open.counter);
        if let Some(store) = &parts.lse {
            self.store_scalar(store, &point.at(2, query), lse);
        }
        self.e.b.end_loop(open, &[]);
        let output = self.matrix(places.output, sizes.channels());
        self.weigh(scores, rows, keys, v, output);
        self.store_rows(&parts.o, point, (start, count), output, Some(factors));
    }

    /// `to = left · keysᵀ` over the visible panels; the first column of `to` belongs to key `keys.low`.
    pub(super) fn scores(&mut self, left: Matrix, rows: Rows, keys: Keys, packed: Matrix, to: Matrix) {
        let channels = self.sizes.shape.channels;
        let offset = self.e.b.times(keys.low, channels);
        let pointer = self.e.b.float_at(packed.pointer, offset);
        let used = self.e.b.i64(channels as i64);
        let right = Panels { pointer, depth: channels, used, count: keys.panels };
        let (left, fresh) = (self.row_major(left), self.e.b.i64(0));
        self.multiply(left, rows, right, to, fresh);
    }

    /// Turns a row of scores into weights that are not yet normalised. Returns one over their sum (0 where the query
    /// sees nothing) and the log-sum-exp.
    fn softmax_row(&mut self, row: Value, query: Value, keys: Keys) -> (Value, Value) {
        let lanes = self.sizes.tile.lanes;
        let bounds = self.bounds(query, keys);
        let scale = self.e.b.float(lanes, f32::from_bits(self.sizes.shape.scale_bits));
        let bottom = self.e.b.float(lanes, f32::NEG_INFINITY);
        let open = self.begin_strip(keys, &[bottom]);
        let score = self.load_vector(row, open.counter);
        let scaled = self.e.b.mul(score, scale);
        let visible = self.within(open.counter, bounds);
        let masked = self.e.b.select(visible, scaled, bottom);
        // One instruction, where `max` is five. A NaN may get lost here; the sum of exponentials finds it again.
        let is_lower = self.e.b.compare(Compare::Greater, open.carried[0], masked);
        let top = self.e.b.select(is_lower, open.carried[0], masked);
        let top = self.e.b.end_loop(open, &[top]);
        let top = self.e.b.across(ReduceKind::Max, top)[0];
        let (bottom, zero) = (self.e.b.float(1, f32::NEG_INFINITY), self.e.b.float(1, 0.0));
        let sees_none = self.e.b.compare(Compare::Equal, top, bottom);
        let shift = self.e.b.select(sees_none, zero, top);
        let sum = self.exponentials(row, keys, bounds, (scale, shift));
        let one = self.e.b.float(1, 1.0);
        let inverse = self.e.b.div(one, sum);
        let factor = self.e.b.select(sees_none, zero, inverse);
        let logarithm = self.e.b.log(sum);
        (factor, self.e.b.add(top, logarithm))
    }

    /// Replaces scores by `e^(scale · score - shift)`, 0 where masked; returns the sum.
    fn exponentials(
        &mut self,
        row: Value,
        keys: Keys,
        bounds: (Value, Value),
        (scale, shift): (Value, Value),
    ) -> Value {
        let lanes = self.sizes.tile.lanes;
        let (zeros, shift) = (self.e.b.float(lanes, 0.0), self.e.b.splat(shift, lanes));
        let open = self.begin_strip(keys, &[zeros]);
        let score = self.load_vector(row, open.counter);
        let scaled = self.e.b.mul(score, scale);
        let shifted = self.e.b.sub(scaled, shift);
        let power = self.e.b.exp(shifted);
        let visible = self.within(open.counter, bounds);
        let weight = self.e.b.select(visible, power, zeros);
        let rounded = self.rounded(weight);
        self.store_vector(rounded, row, open.counter);
        let sum = self.e.b.add(open.carried[0], weight);
        let sum = self.e.b.end_loop(open, &[sum]);
        self.e.b.across(ReduceKind::Sum, sum)[0]
    }
}
