//! Attention forward.

use super::{Keys, Layout, Lowering, Matrix, Operands, Queries, Sizes, WORK_PER_TILE, operands::Forward};
use crate::{
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
    },
    ir::{Attention, ExprId, Kernel, ReduceKind},
    micro::MicroKernels,
    stage::{Lowered, emit_stage, tile_count},
};

/// Units aimed at, so that a static split balances.
const UNITS_WANTED: u64 = 32;

/// Where things lie in scratch, in f32 elements.
struct Places {
    k: u64,
    v: u64,
    q: u64,
    scores: u64,
    output: u64,
    /// A vector of each row, before it is reduced.
    partial: u64,
    /// Of each row, the binary logarithm of what its weights are divided by until they are normalised.
    shifts: u64,
    /// Of each row, one over the sum of its weights.
    factors: u64,
    lse: u64,
    end: u64,
}

impl Places {
    fn new(sizes: Sizes) -> Places {
        let mut layout = Layout::default();
        Places {
            k: layout.take(sizes.keys() * sizes.channel_steps()),
            v: layout.take(sizes.key_steps() * sizes.channels()),
            q: layout.take(sizes.block() * sizes.row()),
            scores: layout.take(sizes.block() * sizes.strip()),
            output: layout.take(sizes.block() * sizes.channels()),
            partial: layout.take(sizes.block() * sizes.lanes()),
            shifts: layout.take(sizes.block()),
            factors: layout.take(sizes.block()),
            lse: layout.take(sizes.block()),
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
    let sizes = Sizes::new(shape, micro);
    let mut operands = Operands::new();
    let parts = Forward::new(&mut operands, attention, |load, _| load);
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
        lowering.forward_unit(open.counter, (chunks, blocks * sizes.block()), &parts, &places);
        lowering.e.b.end_loop(open, &[]);
    });
    Lowered { stages: vec![(symbol, tiles)], scratch_bytes: 4 * places.end }
}

/// Where the quantities of rows lie.
#[derive(Clone, Copy)]
struct RowPlaces {
    partial: Value,
    shifts: Value,
    factors: Value,
    lse: Value,
}

impl Lowering<'_> {
    /// Some query blocks of one head.
    fn forward_unit(&mut self, unit: Value, (chunks, queries): (u64, u64), parts: &Forward<ExprId>, places: &Places) {
        let (sizes, shape) = (self.sizes, self.sizes.shape);
        let (chunk, rest) = self.e.b.split(unit, chunks);
        let (head, batch) = self.e.b.split(rest, shape.heads);
        let (_, group) = self.e.b.split(head, shape.heads / shape.kv_heads);
        let of_keys = self.head_point(batch, group);
        let k = self.matrix(places.k, sizes.channel_steps());
        self.pack_transposed(parts.k, &of_keys, k);
        let v = self.matrix(places.v, sizes.key_steps());
        let all = (self.e.b.i64(0), self.e.b.i64(shape.keys as i64));
        self.pack_rows(parts.v, &of_keys, all, shape.keys, v);
        let start = self.e.b.times(chunk, queries);
        let end = self.e.b.plus(start, queries);
        let limit = self.e.b.i64(shape.queries as i64);
        let end = self.e.b.min_signed(end, limit);
        let step = self.e.b.i64(sizes.block() as i64);
        let open = self.e.b.begin_loop((start, end, step), &[]);
        let rest = self.e.b.sub_known(end, open.counter);
        let queries = Queries { start: open.counter, count: self.e.b.min_signed(step, rest) };
        let point = self.head_point(batch, head);
        self.forward_block(&point, queries, (k, v), parts, places);
        self.e.b.end_loop(open, &[]);
    }

    /// One block of queries.
    fn forward_block(
        &mut self,
        point: &Point,
        queries: Queries,
        (k, v): (Matrix, Matrix),
        parts: &Forward<ExprId>,
        places: &Places,
    ) {
        let sizes = self.sizes;
        let keys = self.visible(queries);
        let rows = (queries.start, queries.count);
        let q = self.matrix(places.q, sizes.row());
        self.copy_rows(parts.q, point, rows, q);
        let scores = self.matrix(places.scores, sizes.strip());
        self.scores(q, queries, keys, k, scores);
        let [partial, shifts, factors, lse] = [places.partial, places.shifts, places.factors, places.lse]
            .map(|place| self.e.b.float_after(self.scratch, place));
        self.softmax(scores, queries, keys, RowPlaces { partial, shifts, factors, lse });
        if let Some(store) = &parts.lse {
            self.store_of_rows(store, point, queries, lse);
        }
        let output = self.matrix(places.output, sizes.channels());
        self.weigh(scores, queries, keys, v, output);
        self.store_rows(&parts.o, point, rows, output, Some(factors));
    }

    /// Turns scores into weights that are not yet normalised: factors of the next product. Powers are those of 2.
    fn softmax(&mut self, scores: Matrix, queries: Queries, keys: Keys, places: RowPlaces) {
        let scale = f32::from_bits(self.sizes.shape.scale_bits) * std::f32::consts::LOG2_E;
        let scale = self.e.b.float(self.sizes.tile.lanes, scale);
        self.rows_of(scores, queries, |lowering, number, query, row| {
            let top = lowering.maxima(row, query, keys, scale);
            lowering.store_partial(top, places.partial, number);
        });
        self.row_groups(queries.count, |lowering, first| {
            let top = lowering.reduced(ReduceKind::Max, places.partial, first);
            let shift = lowering.finite_or_zero(top);
            lowering.store_vector(shift, places.shifts, first);
        });
        self.rows_of(scores, queries, |lowering, number, query, row| {
            let shift = lowering.load_scalar(places.shifts, number);
            let sum = lowering.exponentials(row, query, keys, (scale, shift));
            lowering.store_partial(sum, places.partial, number);
        });
        self.row_groups(queries.count, |lowering, first| lowering.finish_rows(first, places));
    }

    /// Emits for each row of a strip: its number, its query, where it lies.
    fn rows_of(&mut self, strip: Matrix, queries: Queries, emit: impl FnOnce(&mut Self, Value, Value, Value)) {
        let open = self.e.b.begin_steps(queries.count, 1);
        let query = self.e.b.add(queries.start, open.counter);
        let offset = self.e.b.times(open.counter, strip.stride);
        let row = self.e.b.float_at(strip.pointer, offset);
        emit(self, open.counter, query, row);
        self.e.b.end_loop(open, &[]);
    }

    /// Lane by lane the largest of `scale · score` over what a query sees. A NaN may get lost here; the sum of exponentials
    /// finds it again.
    fn maxima(&mut self, row: Value, query: Value, keys: Keys, scale: Value) -> Value {
        let bottom = self.e.b.float(self.sizes.tile.lanes, f32::NEG_INFINITY);
        let reach = self.reach(query, keys, None);
        let tops = self.panels_of_rows(&[reach], &[bottom; 2], |lowering, column, masked, tops| {
            let columns = lowering.halves(column);
            let next = columns.into_iter().zip(tops).map(|(column, &top)| {
                let score = lowering.load_vector(row, column);
                let mut scaled = lowering.e.b.mul(score, scale);
                if masked {
                    scaled = lowering.where_visible(column, reach, scaled, bottom);
                }
                lowering.larger(top, scaled)
            });
            next.collect()
        });
        self.larger(tops[0], tops[1])
    }

    /// One instruction, where `max` is five. Of a NaN and a number the second.
    fn larger(&mut self, a: Value, c: Value) -> Value {
        let is_lower = self.e.b.compare(Compare::Greater, a, c);
        self.e.b.select(is_lower, a, c)
    }

    /// 0 instead of minus infinity, which is the top of a row that sees no key.
    fn finite_or_zero(&mut self, top: Value) -> Value {
        let lanes = self.sizes.tile.lanes;
        let (bottom, zero) = (self.e.b.float(lanes, f32::NEG_INFINITY), self.e.b.float(lanes, 0.0));
        let sees_none = self.e.b.compare(Compare::Equal, top, bottom);
        self.e.b.select(sees_none, zero, top)
    }

    /// Replaces scores by `2^(scale · score - shift)`, 0 where masked; returns the sum lane by lane.
    fn exponentials(&mut self, row: Value, query: Value, keys: Keys, (scale, shift): (Value, Value)) -> Value {
        let lanes = self.sizes.tile.lanes;
        let zeros = self.e.b.float(lanes, 0.0);
        let shift = self.e.b.neg(shift);
        let shift = self.e.b.splat(shift, lanes);
        let reach = self.reach(query, keys, None);
        let sums = self.panels_of_rows(&[reach], &[zeros; 2], |lowering, column, masked, sums| {
            let weights = lowering.halves(column).map(|column| {
                let score = lowering.load_vector(row, column);
                let shifted = lowering.e.b.fma(score, scale, shift);
                let power = lowering.e.b.exp2(shifted);
                if masked { lowering.where_visible(column, reach, power, zeros) } else { power }
            });
            lowering.store_factors(weights, row, column);
            (0..2).map(|half| lowering.e.b.add(sums[half], weights[half])).collect()
        });
        let end = self.end(&[reach]);
        self.zeros_after(row, end);
        self.e.b.add(sums[0], sums[1])
    }

    /// Normalising factors (0 where nothing is seen) and log-sum-exps of a group of rows.
    fn finish_rows(&mut self, first: Value, places: RowPlaces) {
        let lanes = self.sizes.tile.lanes;
        let (one, zero) = (self.e.b.float(lanes, 1.0), self.e.b.float(lanes, 0.0));
        let sum = self.reduced(ReduceKind::Sum, places.partial, first);
        let sees_none = self.e.b.compare(Compare::Equal, sum, zero);
        let inverse = self.e.b.div(one, sum);
        let factor = self.e.b.select(sees_none, zero, inverse);
        self.store_vector(factor, places.factors, first);
        let shift = self.load_vector(places.shifts, first);
        let (logarithm, unit) = (self.e.b.log(sum), self.e.b.float(lanes, std::f32::consts::LN_2));
        let lse = self.e.b.fma(shift, unit, logarithm);
        self.store_vector(lse, places.lse, first);
    }
}
