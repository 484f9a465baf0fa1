//! Attention backward.

use super::{
    CHANNEL, Keys, Layout, Lowering, Matrix, Operands, POSITION, Queries, Sizes, WORK_PER_TILE, row_view, rows::Reach,
};
use crate::{
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
    },
    ir::{AttentionBackward, Buffer, ExprId, Index, Kernel, ReduceKind, Store},
    micro::{MicroKernels, Step},
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
    /// The gradients of scores as factors along the keys, where they are other ones than along the queries.
    d_score_rows: u64,
    d_q: u64,
    /// A vector of each row, before it is reduced.
    partial: u64,
    delta: u64,
    end: u64,
}

impl Places {
    fn new(sizes: Sizes) -> Places {
        let mut layout = Layout::default();
        let transposed = sizes.keys() * sizes.channel_steps();
        // Row tiles may reach beyond the last panel of keys.
        let sums = (sizes.keys() + sizes.tile.rows) * sizes.channels();
        let rows = sizes.block() * sizes.row();
        let packed = sizes.query_steps() * sizes.channels();
        let strip = sizes.block() * sizes.strip();
        let paired = if sizes.step == Step::Bf16Pair { strip } else { 0 };
        Places {
            k_transposed: layout.take(transposed),
            v_transposed: layout.take(transposed),
            k_packed: layout.take(sizes.key_steps() * sizes.channels()),
            d_k: layout.take(sums),
            d_v: layout.take(sums),
            q: layout.take(rows),
            d_o: layout.take(rows),
            q_packed: layout.take(packed),
            d_o_packed: layout.take(packed),
            weights: layout.take(strip),
            d_scores: layout.take(strip),
            d_score_rows: layout.take(paired),
            d_q: layout.take(sizes.block() * sizes.channels()),
            partial: layout.take(sizes.block() * sizes.lanes()),
            delta: layout.take(sizes.block()),
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
    let sizes = Sizes::new(shape, micro);
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

/// Strips of a block of queries. In pairs of bf16, a row of the first two becomes one of pairs of queries, with a row of
/// nothing after it, and a row of the third has pairs of keys; else the third is the second.
#[derive(Clone, Copy)]
struct Strips {
    weights: Matrix,
    d_scores: Matrix,
    d_score_rows: Matrix,
}

/// What the gradients of a query's scores are made of.
#[derive(Clone, Copy)]
struct Row {
    weights: Value,
    d_scores: Value,
    d_score_row: Value,
    reach: Reach,
    /// `-lse · log2 e` and `-delta · scale`, in all lanes.
    shift: Value,
    centre: Value,
}

impl Lowering<'_> {
    /// One key head with all query heads that share it.
    fn backward_unit(&mut self, unit: Value, parts: &Parts, places: &Places) {
        let (sizes, shape) = (self.sizes, self.sizes.shape);
        let (group, batch) = self.e.b.split(unit, shape.kv_heads);
        let of_keys = self.head_point(batch, group);
        let shared = Shared {
            k_transposed: self.matrix(places.k_transposed, sizes.channel_steps()),
            v_transposed: self.matrix(places.v_transposed, sizes.channel_steps()),
            k_packed: self.matrix(places.k_packed, sizes.key_steps()),
            d_k: self.matrix(places.d_k, sizes.channels()),
            d_v: self.matrix(places.d_v, sizes.channels()),
        };
        self.pack_transposed(parts.k, &of_keys, shared.k_transposed);
        self.pack_transposed(parts.v, &of_keys, shared.v_transposed);
        let all = (self.e.b.i64(0), self.e.b.i64(shape.keys as i64));
        self.pack_rows(parts.k, &of_keys, all, shape.keys, shared.k_packed);
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
        let step = self.e.b.i64(sizes.block() as i64);
        let blocks = self.e.b.begin_loop((zero, limit, step), &[]);
        let rest = self.e.b.sub_known(limit, blocks.counter);
        let queries = Queries { start: blocks.counter, count: self.e.b.min_signed(step, rest) };
        self.backward_block(&point, queries, shared, parts, places);
        self.e.b.end_loop(blocks, &[]);
        self.e.b.end_loop(members, &[]);
        self.store_rows(&parts.d_k, &of_keys, all, shared.d_k, None);
        self.store_rows(&parts.d_v, &of_keys, all, shared.d_v, None);
    }

    /// One block of queries of one head.
    fn backward_block(&mut self, point: &Point, queries: Queries, shared: Shared, parts: &Parts, places: &Places) {
        let sizes = self.sizes;
        let keys = self.visible(queries);
        let rows = (queries.start, queries.count);
        let [q, d_o] = [(parts.q, places.q), (parts.d_o, places.d_o)].map(|(load, place)| {
            let to = self.matrix(place, sizes.row());
            self.copy_rows(load, point, rows, to);
            to
        });
        let [q_packed, d_o_packed] =
            [(parts.q, places.q_packed), (parts.d_o, places.d_o_packed)].map(|(load, place)| {
                let panels = self.matrix(place, sizes.query_steps());
                self.pack_rows(load, point, rows, sizes.shape.queries, panels);
                panels
            });
        let strips = self.strips(places);
        self.scores(q, queries, keys, shared.k_transposed, strips.weights);
        self.scores(d_o, queries, keys, shared.v_transposed, strips.d_scores);
        let delta = self.row_products(point, queries, parts, places);
        self.score_gradients(point, (queries, keys), strips, delta, parts);
        self.add_transposed(strips.weights, (keys, queries), d_o_packed, shared.d_v);
        self.add_transposed(strips.d_scores, (keys, queries), q_packed, shared.d_k);
        let d_q = self.matrix(places.d_q, sizes.channels());
        self.weigh(strips.d_score_rows, queries, keys, shared.k_packed, d_q);
        self.store_rows(&parts.d_q, point, rows, d_q, None);
    }

    fn strips(&mut self, places: &Places) -> Strips {
        let sizes = self.sizes;
        let [weights, d_scores] = [places.weights, places.d_scores].map(|place| self.matrix(place, sizes.strip()));
        let d_score_rows = match sizes.step {
            Step::Float => d_scores,
            Step::Bf16Pair => self.matrix(places.d_score_rows, sizes.strip()),
        };
        Strips { weights, d_scores, d_score_rows }
    }

    /// `delta`, the products of rows of `do` and `o`: stored, and where they are in scratch.
    fn row_products(&mut self, point: &Point, queries: Queries, parts: &Parts, places: &Places) -> Value {
        let [partial, delta] = [places.partial, places.delta].map(|place| self.e.b.float_after(self.scratch, place));
        let open = self.e.b.begin_steps(queries.count, 1);
        let query = self.e.b.add(queries.start, open.counter);
        let product = self.row_product(&point.at(POSITION, query), parts.d_o, parts.o);
        self.store_partial(product, partial, open.counter);
        self.e.b.end_loop(open, &[]);
        self.row_groups(queries.count, |lowering, first| {
            let sums = lowering.reduced(ReduceKind::Sum, partial, first);
            lowering.store_vector(sums, delta, first);
        });
        self.store_of_rows(&parts.delta, point, queries, delta);
        delta
    }

    /// `Σ_e a[e] c[e]` over the channels of a row, lane by lane.
    fn row_product(&mut self, point: &Point, a: ExprId, c: ExprId) -> Value {
        let (lanes, channels) = (self.sizes.lanes(), self.sizes.shape.channels);
        let full = channels / lanes * lanes;
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        let bounds = (self.e.b.i64(0), self.e.b.i64(full as i64), self.e.b.i64(lanes as i64));
        let open = self.e.b.begin_loop(bounds, &[zeros]);
        let mut at = point.along(CHANNEL, open.counter, lanes as u32);
        let (x, y) = (self.e.evaluate_wide(&mut at, a), self.e.evaluate_wide(&mut at, c));
        let sum = self.e.b.fma(x, y, open.carried[0]);
        let sum = self.e.b.end_loop(open, &[sum])[0];
        if full == channels {
            return sum;
        }
        let start = self.e.b.i64(full as i64);
        let mut at = point.along(CHANNEL, start, (channels - full) as u32);
        let (x, y) = (self.e.evaluate_wide(&mut at, a), self.e.evaluate_wide(&mut at, c));
        self.e.b.fma(x, y, sum)
    }

    /// Turns scores into weights and the gradients of weights into those of scores: factors of the next products.
    fn score_gradients(
        &mut self,
        point: &Point,
        (queries, keys): (Queries, Keys),
        strips: Strips,
        delta: Value,
        parts: &Parts,
    ) {
        let open = self.e.b.begin_steps(queries.count, self.sizes.step.elements());
        let first = self.gradient_row(point, (queries, open.counter, None), keys, strips, (delta, parts.lse));
        match self.sizes.step {
            Step::Float => self.float_gradients(first),
            Step::Bf16Pair => {
                let next = self.e.b.plus(open.counter, 1);
                let exists = self.e.b.compare(Compare::Less, next, queries.count);
                let second = self.gradient_row(point, (queries, next, Some(exists)), keys, strips, (delta, parts.lse));
                self.paired_gradients([first, second]);
            }
        }
        self.e.b.end_loop(open, &[]);
    }

    /// What row `number` of a block needs. Where the row does not exist it sees nothing.
    fn gradient_row(
        &mut self,
        point: &Point,
        (queries, number, exists): (Queries, Value, Option<Value>),
        keys: Keys,
        strips: Strips,
        (delta, lse): (Value, ExprId),
    ) -> Row {
        let lanes = self.sizes.tile.lanes;
        let mut query = self.e.b.add(queries.start, number);
        if exists.is_some() {
            let last = self.e.b.i64(self.sizes.shape.queries as i64 - 1);
            query = self.e.b.min_signed(query, last);
        }
        let reach = self.reach(query, keys, exists);
        let zero = self.e.b.i64(0);
        let lse = self.e.evaluate(&mut point.at(POSITION, query).at(CHANNEL, zero), lse);
        let delta = self.load_scalar(delta, number);
        let scale = f32::from_bits(self.sizes.shape.scale_bits);
        let (to_binary, minus_scale) = (self.e.b.float(1, -std::f32::consts::LOG2_E), self.e.b.float(1, -scale));
        let (shift, centre) = (self.e.b.mul(lse, to_binary), self.e.b.mul(delta, minus_scale));
        let [shift, centre] = [shift, centre].map(|value| self.e.b.splat(value, lanes));
        let [weights, d_scores, d_score_row] = [strips.weights, strips.d_scores, strips.d_score_rows].map(|strip| {
            let offset = self.e.b.times(number, strip.stride);
            self.e.b.float_at(strip.pointer, offset)
        });
        Row { weights, d_scores, d_score_row, reach, shift, centre }
    }

    /// `p = 2^(scale · log2 e · s - lse · log2 e)` and `ds = p (scale · dp - scale · delta)`, 0 where masked.
    fn gradients(&mut self, row: Row, column: Value, masked: bool) -> [Value; 2] {
        let lanes = self.sizes.tile.lanes;
        let scale = f32::from_bits(self.sizes.shape.scale_bits);
        let (binary_scale, scale) =
            (self.e.b.float(lanes, scale * std::f32::consts::LOG2_E), self.e.b.float(lanes, scale));
        let (score, d_weight) = (self.load_vector(row.weights, column), self.load_vector(row.d_scores, column));
        let shifted = self.e.b.fma(score, binary_scale, row.shift);
        let weight = self.e.b.exp2(shifted);
        let centred = self.e.b.fma(d_weight, scale, row.centre);
        let d_score = self.e.b.mul(weight, centred);
        if !masked {
            return [weight, d_score];
        }
        let zeros = self.e.b.float(lanes, 0.0);
        [weight, d_score].map(|value| self.where_visible(column, row.reach, value, zeros))
    }

    fn float_gradients(&mut self, row: Row) {
        self.panels_of_rows(&[row.reach], &[], |lowering, column, masked, _| {
            for column in lowering.halves(column) {
                let [weight, d_score] = lowering.gradients(row, column, masked);
                let (weight, d_score) = (lowering.rounded(weight), lowering.rounded(d_score));
                lowering.store_vector(weight, row.weights, column);
                lowering.store_vector(d_score, row.d_scores, column);
            }
            Vec::new()
        });
        let end = self.end(&[row.reach]);
        for strip in [row.weights, row.d_scores] {
            self.zeros_after(strip, end);
        }
    }

    /// Two rows as pairs: along the queries where the first row was, and gradients of scores also along the keys.
    fn paired_gradients(&mut self, rows: [Row; 2]) {
        let reaches = rows.map(|row| row.reach);
        self.panels_of_rows(&reaches, &[], |lowering, column, masked, _| {
            let columns = lowering.halves(column);
            let [first, second] = rows.map(|row| columns.map(|column| lowering.gradients(row, column, masked)));
            for (half, column) in columns.into_iter().enumerate() {
                for (kind, strip) in [rows[0].weights, rows[0].d_scores].into_iter().enumerate() {
                    let pairs = lowering.e.b.pair_bf16(first[half][kind], second[half][kind]);
                    lowering.store_vector(pairs, strip, column);
                }
            }
            for (row, values) in rows.into_iter().zip([first, second]) {
                lowering.store_factors([values[0][1], values[1][1]], row.d_score_row, column);
            }
            Vec::new()
        });
        let end = self.end(&reaches);
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        for strip in [rows[0].weights, rows[0].d_scores] {
            self.store_vector(zeros, strip, end);
        }
        rows.into_iter().for_each(|row| self.zeros_after(row.d_score_row, end));
    }
}
