//! Attention backward.

use super::{
    CHANNEL, Keys, Layout, Lowering, Matrix, Operands, Panels, QUERY_BLOCK, Rows, Sizes, WORK_PER_TILE, row_view,
};
use crate::{
    emit::{
        builder::{Builder, Value},
        point::Point,
    },
    ir::{AttentionBackward, Buffer, ExprId, Index, Kernel, ReduceKind, Store},
    micro::MicroKernels,
    stage::{Lowered, emit_stage, tile_count},
};

/// What the kernel reads and writes.
struct Parts {
    q: ExprId,
    k: ExprId,
    v: ExprId,
    o: ExprId,
    lse: ExprId,
    d_o: ExprId,
    d_q: Store,
    d_k: Store,
    d_v: Store,
    delta: Store,
}

/// Where things lie in scratch, in f32 elements. What is `transposed` lies in panels of keys, what is `packed` in
/// panels of channels, the rest row by row.
struct Places {
    k_transposed: u64,
    v_transposed: u64,
    k_packed: u64,
    d_k: u64,
    d_v: u64,
    q: u64,
    d_o: u64,
    q_packed: u64,
    d_o_packed: u64,
    weights: u64,
    d_scores: u64,
    d_q: u64,
    end: u64,
}

impl Places {
    fn new(sizes: Sizes) -> Places {
        let mut layout = Layout::default();
        let transposed = sizes.keys() * sizes.shape.channels;
        // Row tiles may reach beyond the last panel of keys.
        let sums = (sizes.keys() + sizes.tile.rows) * sizes.channels();
        let rows = QUERY_BLOCK * sizes.channels();
        let strip = QUERY_BLOCK * sizes.strip();
        Places {
            k_transposed: layout.take(transposed),
            v_transposed: layout.take(transposed),
            k_packed: layout.take(sizes.shape.keys * sizes.channels()),
            d_k: layout.take(sums),
            d_v: layout.take(sums),
            q: layout.take(rows),
            d_o: layout.take(rows),
            q_packed: layout.take(rows),
            d_o_packed: layout.take(rows),
            weights: layout.take(strip),
            d_scores: layout.take(strip),
            d_q: layout.take(rows),
            end: layout.floats,
        }
    }
}

/// Lowers verified attention backward.
pub(crate) fn lower(
    b: &mut Builder,
    micro: &mut MicroKernels,
    kernel: &Kernel,
    attention: &AttentionBackward,
    name: &str,
) -> Lowered {
    let shape = attention.shape;
    let sizes = Sizes { shape, tile: micro.tile };
    let mut operands = Operands::new();
    let parts = parts(&mut operands, attention, &kernel.buffers);
    let places = Places::new(sizes);
    let units = shape.batch * shape.kv_heads;
    let work = 3 * shape.batch * shape.heads * shape.queries * shape.keys * shape.channels;
    let tiles = tile_count(units, work, WORK_PER_TILE);
    let symbol = format!("{name}_0");
    emit_stage(b, &symbol, |b, stage| {
        let mut lowering = Lowering::new(b, micro, (&operands, &kernel.buffers), sizes, stage);
        let [low, high] = [stage.begin, stage.end].map(|tile| lowering.e.b.boundary(tile, units, tiles));
        let one = lowering.e.b.i64(1);
        let open = lowering.e.b.begin_loop((low, high, one), &[]);
        lowering.backward_unit(open.counter, &parts, &places);
        lowering.e.b.end_loop(open, &[]);
    });
    Lowered { stages: vec![(symbol, tiles)], scratch_bytes: 4 * places.end }
}

fn parts(operands: &mut Operands, attention: &AttentionBackward, buffers: &[Buffer]) -> Parts {
    let shape = attention.shape;
    let strides = [(0, shape.heads * shape.queries), (1, shape.queries), (2, 1)];
    let row = Index::linear(strides.map(|(var, stride)| (var, stride as i64)));
    Parts {
        q: operands.load(&attention.q),
        k: operands.load(&attention.k),
        v: operands.load(&attention.v),
        o: operands.factor(&attention.o, shape.precision, buffers),
        lse: operands.load(&row_view(&attention.lse)),
        d_o: operands.factor(&attention.d_o, shape.precision, buffers),
        d_q: operands.store(&attention.d_q),
        d_k: operands.store(&attention.d_k),
        d_v: operands.store(&attention.d_v),
        delta: Store { buffer: attention.delta, index: row, value: operands.accumulator, accumulate: false },
    }
}

/// The matrices of one key head that all its query blocks share.
#[derive(Clone, Copy)]
struct Shared {
    k_transposed: Matrix,
    v_transposed: Matrix,
    k_packed: Matrix,
    d_k: Matrix,
    d_v: Matrix,
}

impl Lowering<'_> {
    /// One key head with all query heads that share it.
    fn backward_unit(&mut self, unit: Value, parts: &Parts, places: &Places) {
        let (sizes, shape) = (self.sizes, self.sizes.shape);
        let (group, batch) = self.e.b.split(unit, shape.kv_heads);
        let of_keys = self.head_point(batch, group);
        let shared = Shared {
            k_transposed: self.matrix(places.k_transposed, shape.channels),
            v_transposed: self.matrix(places.v_transposed, shape.channels),
            k_packed: self.matrix(places.k_packed, shape.keys),
            d_k: self.matrix(places.d_k, sizes.channels()),
            d_v: self.matrix(places.d_v, sizes.channels()),
        };
        self.pack_transposed(parts.k, &of_keys, shared.k_transposed);
        self.pack_transposed(parts.v, &of_keys, shared.v_transposed);
        let all = (self.e.b.i64(0), self.e.b.i64(shape.keys as i64));
        self.pack_rows(parts.k, &of_keys, all, shared.k_packed);
        for sums in [shared.d_k, shared.d_v] {
            let size = self.e.b.i64(((sizes.keys() + sizes.tile.rows) * sizes.channels()) as i64);
            self.clear(sums.pointer, size);
        }
        let per_group = shape.heads / shape.kv_heads;
        let members = self.e.b.begin_count(per_group, &[]);
        let first = self.e.b.times(group, per_group);
        let head = self.e.b.add(first, members.counter);
        let point = self.head_point(batch, head);
        let (zero, limit) = (self.e.b.i64(0), self.e.b.i64(shape.queries as i64));
        let step = self.e.b.i64(QUERY_BLOCK as i64);
        let blocks = self.e.b.begin_loop((zero, limit, step), &[]);
        let rest = self.e.b.sub_known(limit, blocks.counter);
        let count = self.e.b.min_signed(step, rest);
        self.backward_block(&point, (blocks.counter, count), shared, parts, places);
        self.e.b.end_loop(blocks, &[]);
        self.e.b.end_loop(members, &[]);
        self.store_rows(&parts.d_k, &of_keys, all, shared.d_k, None);
        self.store_rows(&parts.d_v, &of_keys, all, shared.d_v, None);
    }

    /// One block of queries of one head.
    fn backward_block(
        &mut self,
        point: &Point,
        (start, count): (Value, Value),
        shared: Shared,
        parts: &Parts,
        places: &Places,
    ) {
        let sizes = self.sizes;
        let keys = self.visible(start, count);
        let rows = Rows { rows: count, rest: sizes.shape.queries % sizes.tile.rows };
        let [q, d_o] = [(parts.q, places.q), (parts.d_o, places.d_o)].map(|(load, place)| {
            let rows = self.matrix(place, sizes.channels());
            self.copy_rows(load, point, (start, count), rows);
            rows
        });
        let [q_packed, d_o_packed] =
            [(parts.q, places.q_packed), (parts.d_o, places.d_o_packed)].map(|(load, place)| {
                let panels = self.matrix(place, QUERY_BLOCK);
                self.pack_rows(load, point, (start, count), panels);
                panels
            });
        let [weights, d_scores] = [places.weights, places.d_scores].map(|place| self.matrix(place, sizes.strip()));
        self.scores(q, rows, keys, shared.k_transposed, weights);
        self.scores(d_o, rows, keys, shared.v_transposed, d_scores);
        self.score_gradients(point, (start, count), keys, (weights, d_scores), parts);
        self.add_transposed(weights, (keys, count), d_o_packed, shared.d_v);
        self.add_transposed(d_scores, (keys, count), q_packed, shared.d_k);
        let d_q = self.matrix(places.d_q, sizes.channels());
        self.weigh(d_scores, rows, keys, shared.k_packed, d_q);
        self.store_rows(&parts.d_q, point, (start, count), d_q, None);
    }

    /// Turns scores into weights and the gradients of weights into those of scores, row by row.
    fn score_gradients(
        &mut self,
        point: &Point,
        (start, count): (Value, Value),
        keys: Keys,
        (weights, d_scores): (Matrix, Matrix),
        parts: &Parts,
    ) {
        let open = self.e.b.begin_steps(count, 1);
        let query = self.e.b.add(start, open.counter);
        let point = point.at(2, query);
        let delta = self.row_product(&point, parts.d_o, parts.o);
        self.store_scalar(&parts.delta, &point, delta);
        let zero = self.e.b.i64(0);
        let lse = self.e.evaluate(&mut point.at(CHANNEL, zero), parts.lse);
        let [weights, d_scores] = [weights, d_scores].map(|strip| {
            let offset = self.e.b.times(open.counter, strip.stride);
            self.e.b.float_at(strip.pointer, offset)
        });
        self.gradient_row((weights, d_scores), query, keys, (lse, delta));
        self.e.b.end_loop(open, &[]);
    }

    /// `Σ_e a[e] c[e]` over the channels of a row.
    fn row_product(&mut self, point: &Point, a: ExprId, c: ExprId) -> Value {
        let (lanes, channels) = (self.sizes.lanes(), self.sizes.shape.channels);
        let full = channels / lanes * lanes;
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        let bounds = (self.e.b.i64(0), self.e.b.i64(full as i64), self.e.b.i64(lanes as i64));
        let open = self.e.b.begin_loop(bounds, &[zeros]);
        let mut at = point.along(CHANNEL, open.counter, lanes as u32);
        let (x, y) = (self.e.evaluate_wide(&mut at, a), self.e.evaluate_wide(&mut at, c));
        let sum = self.e.b.fma(x, y, open.carried[0]);
        let mut sum = self.e.b.end_loop(open, &[sum])[0];
        if full < channels {
            let start = self.e.b.i64(full as i64);
            let mut at = point.along(CHANNEL, start, (channels - full) as u32);
            let (x, y) = (self.e.evaluate_wide(&mut at, a), self.e.evaluate_wide(&mut at, c));
            sum = self.e.b.fma(x, y, sum);
        }
        self.e.b.across(ReduceKind::Sum, vec![sum])[0]
    }

    /// `p = e^(scale · s - lse)` and `ds = p (dp - delta) scale`, 0 where masked and in the vector after the last panel.
    fn gradient_row(
        &mut self,
        (weights, d_scores): (Value, Value),
        query: Value,
        keys: Keys,
        (lse, delta): (Value, Value),
    ) {
        let lanes = self.sizes.tile.lanes;
        let bounds = self.bounds(query, keys);
        let scale = self.e.b.float(lanes, f32::from_bits(self.sizes.shape.scale_bits));
        let (zeros, lse, delta) =
            (self.e.b.float(lanes, 0.0), self.e.b.splat(lse, lanes), self.e.b.splat(delta, lanes));
        let open = self.begin_strip(keys, &[]);
        let score = self.load_vector(weights, open.counter);
        let scaled = self.e.b.mul(score, scale);
        let shifted = self.e.b.sub(scaled, lse);
        let power = self.e.b.exp(shifted);
        let visible = self.within(open.counter, bounds);
        let weight = self.e.b.select(visible, power, zeros);
        let d_weight = self.load_vector(d_scores, open.counter);
        let centred = self.e.b.sub(d_weight, delta);
        let d_score = self.e.b.mul(weight, centred);
        let d_score = self.e.b.mul(d_score, scale);
        let d_score = self.e.b.select(visible, d_score, zeros);
        let (weight, d_score) = (self.rounded(weight), self.rounded(d_score));
        self.store_vector(weight, weights, open.counter);
        self.store_vector(d_score, d_scores, open.counter);
        self.e.b.end_loop(open, &[]);
        let end = self.e.b.times(keys.panels, self.sizes.tile.columns());
        self.store_vector(zeros, weights, end);
        self.store_vector(zeros, d_scores, end);
    }

    /// `to[keys] += stripᵀ · packed` over the queries of a block. The last row tile may reach into the strip's zeros.
    fn add_transposed(&mut self, strip: Matrix, (keys, count): (Keys, Value), packed: Matrix, to: Matrix) {
        let sizes = self.sizes;
        let seen = self.e.b.sub_known(keys.high, keys.low);
        let seen = self.e.b.plus(seen, sizes.tile.rows - 1);
        let (_, tiles) = self.e.b.split(seen, sizes.tile.rows);
        let rows = Rows { rows: self.e.b.times(tiles, sizes.tile.rows), rest: 0 };
        let offset = self.e.b.times(keys.low, to.stride);
        let to = Matrix { pointer: self.e.b.float_at(to.pointer, offset), ..to };
        let columns = sizes.tile.columns();
        let panels = self.e.b.i64((sizes.channels() / columns) as i64);
        let right = Panels { pointer: packed.pointer, depth: packed.stride, used: count, count: panels };
        let (left, adding) = (self.transposed(strip), self.e.b.i64(1));
        self.multiply(left, rows, right, to, adding);
    }
}
