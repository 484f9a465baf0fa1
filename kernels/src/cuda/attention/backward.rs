//! Attention backward, three launches: the row sums of `do * o`; the gradients of queries, a tile of them through all
//! tiles of keys; the gradients of keys and values, a tile of them through all tiles of queries of all heads that share
//! it. Scores are computed again in both of the latter, so that no two blocks add to one element.

use super::{
    BLOCK, CHANNEL, Channels, EACH, Fragment, KEYS, Lowering, Operands, POSITION, QUERIES, SHARED_BYTES, THREADS, TILE,
    row_view,
    tiles::{Heads, Rows},
};
use crate::{
    cuda::{DeviceStage, entry, nest},
    emit::{
        builder::{Builder, Value},
        point::Point,
    },
    ir::{
        AttentionBackward, Binary, Buffer, Expr, ExprId, Index, Kernel, Nest, ReduceKind, Reduction, Store, Sweep, View,
    },
};

/// Slices of channels of each gradient that a block keeps in registers.
const MOST_KEPT: u64 = 2;

/// What a kernel reads and writes; `F` is how it reads the factors of products.
pub(super) struct Parts<F> {
    pub q: F,
    pub k: F,
    pub v: F,
    pub d_o: F,
    lse: ExprId,
    delta: ExprId,
    pub d_q: Store,
    pub d_k: Store,
    pub d_v: Store,
}

impl<F> Parts<F> {
    /// Of a kernel whose factors are read as `factor` says.
    pub fn new(operands: &mut Operands, attention: &AttentionBackward, factor: impl Fn(ExprId, &View) -> F) -> Self {
        let mut read = |view: &View| factor(operands.load(view), view);
        let [q, k, v, d_o] = [&attention.q, &attention.k, &attention.v, &attention.d_o].map(&mut read);
        Parts {
            q,
            k,
            v,
            d_o,
            lse: operands.load(&row_view(&attention.lse)),
            delta: operands.exprs.load(attention.delta, row_index(attention)),
            d_q: operands.store(&attention.d_q),
            d_k: operands.store(&attention.d_k),
            d_v: operands.store(&attention.d_v),
        }
    }
}

/// Lowers attention backward.
pub(super) fn lower(b: &mut Builder, kernel: &Kernel, attention: &AttentionBackward, name: &str) -> Vec<DeviceStage> {
    let shape = attention.shape;
    let channels = Channels::new(shape.channels, MOST_KEPT);
    let mut operands = Operands::new();
    let parts = Parts::new(&mut operands, attention, |load, _| load);
    let row_sums = nest::lower_stage(b, &kernel.buffers, &delta(attention, &kernel.buffers), format!("{name}_0"));
    let mut stages = vec![row_sums];
    let shared = (shape.batch * channels.groups(), THREADS as u32);
    let of_queries = shared.0 * shape.heads * shape.queries.div_ceil(TILE);
    let of_keys = shared.0 * shape.kv_heads * shape.keys.div_ceil(TILE);
    for (number, blocks) in [(1, of_queries), (2, of_keys)] {
        let symbol = format!("{name}_{number}");
        entry(b, &symbol, BLOCK, kernel.buffers.len(), |b, pointers, instance| {
            let mut lowering = Lowering::new(b, (&operands, &kernel.buffers), (pointers, instance), shape, channels);
            if number == 1 { lowering.query_gradients(&parts) } else { lowering.key_gradients(&parts) }
        });
        stages.push(DeviceStage { symbol, blocks, threads: shared.1, shared_bytes: SHARED_BYTES as u32 });
    }
    stages
}

fn row_index(attention: &AttentionBackward) -> Index {
    let shape = attention.shape;
    let strides = [(0, shape.heads * shape.queries), (1, shape.queries), (2, 1)];
    Index::linear(strides.map(|(var, stride)| (var, stride as i64)))
}

/// `delta[row] = Σ_e do[row][e] · o[row][e]`
pub(super) fn delta(attention: &AttentionBackward, buffers: &[Buffer]) -> Nest {
    let shape = attention.shape;
    let mut operands = Operands::new();
    let [d_o, o] = [&attention.d_o, &attention.o].map(|view| operands.factor(view, shape.precision, buffers));
    let Operands { mut exprs, accumulator: sum } = operands;
    let value = exprs.add(Expr::Binary(Binary::Mul, d_o, o));
    let store = Store { buffer: attention.delta, index: row_index(attention), value: sum, accumulate: false };
    let reduction = Reduction { kind: ReduceKind::Sum, value };
    Nest {
        parallel: vec![shape.batch, shape.heads, shape.queries],
        inner: vec![shape.channels],
        exprs,
        sweeps: vec![
            Sweep { once: false, reductions: vec![reduction], stores: Vec::new() },
            Sweep { once: true, reductions: Vec::new(), stores: vec![store] },
        ],
    }
}

impl Lowering<'_> {
    fn query_gradients(&mut self, parts: &Parts<ExprId>) {
        let block = self.e.b.block();
        let (group, number) = self.e.b.split(block, self.channels.groups());
        let (heads, queries) = self.query_tile(number);
        let channel = self.e.b.times(group, self.channels.kept * self.channels.slice);
        let bounds = self.key_tiles(queries.first);
        let sums = self.zeros(EACH * self.channels.each() * self.channels.kept);
        let (open, keys) = self.begin_tiles(bounds, self.shape.keys, &sums);
        let (_, d_scores) = self.gradients_of_scores(parts, &heads, queries, keys);
        self.share_scores(&d_scores);
        let sums = self.over_slices(channel, open.carried.clone(), |lowering, channel, sums| {
            lowering.e.b.barrier();
            lowering.load_slice(parts.k, &heads.keys, keys, channel, KEYS);
            lowering.e.b.barrier();
            lowering.weigh(KEYS, sums)
        });
        let sums = self.e.b.end_loop(open, &sums);
        self.store_slices(&parts.d_q, (&heads.queries, queries), channel, &sums, Self::query_row);
    }

    fn key_gradients(&mut self, parts: &Parts<ExprId>) {
        let block = self.e.b.block();
        let (group, number) = self.e.b.split(block, self.channels.groups());
        let (key_head, keys) = self.key_tile(number);
        let channel = self.e.b.times(group, self.channels.kept * self.channels.slice);
        let bounds = self.query_tiles(keys.first);
        let count = EACH * self.channels.each() * self.channels.kept;
        let sums = self.zeros(2 * count);
        let (members, heads) = self.begin_heads(key_head, &sums);
        let (open, queries) = self.begin_tiles(bounds, self.shape.queries, &members.carried);
        let (d_v, d_k) = open.carried.split_at(count as usize);
        let (weights, d_scores) = self.gradients_of_scores(parts, &heads, queries, keys);
        let mut next = Vec::new();
        for (scores, load, sums) in [(weights, parts.d_o, d_v), (d_scores, parts.q, d_k)] {
            self.e.b.barrier();
            self.share_scores(&scores);
            next.extend(self.over_slices(channel, sums.to_vec(), |lowering, channel, sums| {
                lowering.e.b.barrier();
                lowering.load_slice(load, &heads.queries, queries, channel, QUERIES);
                lowering.e.b.barrier();
                lowering.weigh_transposed(sums)
            }));
        }
        let after = self.e.b.end_loop(open, &next);
        let sums = self.e.b.end_loop(members, &after);
        for (store, sums) in [(&parts.d_v, &sums[..count as usize]), (&parts.d_k, &sums[count as usize..])] {
            self.store_slices(store, (&heads.keys, keys), channel, sums, |lowering, i| {
                let first = lowering.e.b.times(lowering.y, EACH);
                lowering.e.b.plus(first, i)
            });
        }
    }

    /// Weights `p = e^(scale · s - lse)` and gradients of scores `p (dp - delta) scale` of the thread, 0 where masked.
    fn gradients_of_scores(
        &mut self,
        parts: &Parts<ExprId>,
        heads: &Heads,
        queries: Rows,
        keys: Rows,
    ) -> (Fragment, Fragment) {
        let scores = self.scores((parts.q, &heads.queries), queries, (parts.k, &heads.keys), keys);
        let d_weights = self.scores((parts.d_o, &heads.queries), queries, (parts.v, &heads.keys), keys);
        let scale = self.e.b.float(1, f32::from_bits(self.shape.scale_bits));
        let (mut weights, mut d_scores) = (Vec::new(), Vec::new());
        for i in 0..EACH {
            let query = self.spread(queries.first, self.y, i);
            let (lse, delta) = self.of_query(parts, &heads.queries, query);
            for j in 0..EACH {
                let place = (i * EACH + j) as usize;
                let key = self.spread(keys.first, self.x, j);
                let visible = self.visible(query, key);
                let scaled = self.e.b.mul(scores[place], scale);
                let shifted = self.e.b.sub(scaled, lse);
                let power = self.e.b.exp(shifted);
                let weight = self.masked(visible, power, 0.0);
                let centred = self.e.b.sub(d_weights[place], delta);
                let d_score = self.e.b.mul(weight, centred);
                let d_score = self.e.b.mul(d_score, scale);
                let d_score = self.masked(visible, d_score, 0.0);
                weights.push(self.rounded(weight));
                d_scores.push(self.rounded(d_score));
            }
        }
        (weights, d_scores)
    }

    /// Log-sum-exp and row sum of a query; of the last one where it does not exist.
    pub(super) fn of_query<F>(&mut self, parts: &Parts<F>, head: &Point, query: Value) -> (Value, Value) {
        let (last, zero) = (self.e.b.i64(self.shape.queries as i64 - 1), self.e.b.i64(0));
        let existing = self.e.b.min_signed(query, last);
        let mut point = head.at(POSITION, existing).at(CHANNEL, zero);
        (self.e.evaluate(&mut point, parts.lse), self.e.evaluate(&mut point, parts.delta))
    }
}
