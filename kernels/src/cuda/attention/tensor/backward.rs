//! Attention backward on tensor cores. For the gradients of keys and values everything is transposed: rows are keys, so
//! that weights and gradients of scores become left factors again.

use super::{COLUMNS, Lowering, Rows, Source, Sums, THREADS, TILE, block, channels, kept, result_bytes, tile_bytes};
use crate::{
    cuda::{
        DeviceStage,
        attention::{
            Channels, Operands,
            backward::{Parts, delta},
        },
        entry, nest,
    },
    emit::{
        builder::{Builder, Value},
        point::Point,
    },
    ir::{AttentionBackward, Kernel, View},
};

/// Lowers verified attention backward whose factors are bf16.
pub(in crate::cuda::attention) fn lower(
    b: &mut Builder,
    kernel: &Kernel,
    attention: &AttentionBackward,
    name: &str,
) -> Vec<DeviceStage> {
    let shape = attention.shape;
    let mut operands = Operands::new();
    let source = |load, view: &View| Source::new(load, view, &kernel.buffers, &shape);
    let parts = Parts::new(&mut operands, attention, source);
    let mut stages =
        vec![nest::lower_stage(b, &kernel.buffers, &delta(attention, &kernel.buffers), format!("{name}_0"))];
    let groups = channels(&shape) / kept(&shape);
    let of_queries = shape.batch * shape.heads * shape.queries.div_ceil(TILE);
    let of_keys = shape.batch * shape.kv_heads * shape.keys.div_ceil(TILE);
    let shared_bytes = (4 * tile_bytes(&shape)).max(result_bytes(kept(&shape))) as u32;
    for (number, blocks) in [(1, of_queries * groups), (2, of_keys * groups)] {
        let symbol = format!("{name}_{number}");
        entry(b, &symbol, block(&shape), kernel.buffers.len(), |b, pointers, instance| {
            let channels = Channels::new(shape.channels, 1);
            let mut lowering = Lowering::new(b, (&operands, &kernel.buffers), (pointers, instance), shape, channels);
            if number == 1 { lowering.tensor_query_gradients(&parts) } else { lowering.tensor_key_gradients(&parts) }
        });
        stages.push(DeviceStage { symbol, blocks, threads: THREADS as u32, shared_bytes });
    }
    stages
}

/// Where the four tiles lie in shared memory.
struct Tiles {
    q: u64,
    d_o: u64,
    k: u64,
    v: u64,
}

impl Lowering<'_> {
    fn tiles(&self) -> Tiles {
        let [q, d_o, k, v] = [0, 1, 2, 3].map(|place| place * tile_bytes(&self.shape));
        Tiles { q, d_o, k, v }
    }

    /// The group of channels that is this block's: the first of them, known at run time, and what is left of the block.
    fn channel_group(&mut self) -> (Value, Value) {
        let block = self.e.b.block();
        self.e.b.split(block, channels(&self.shape) / kept(&self.shape))
    }

    /// Emits for the block's group of channels; the body is given the first channel.
    fn for_group(
        &mut self,
        group: Value,
        sums: Vec<Value>,
        mut emit: impl FnMut(&mut Self, u64, Vec<Value>) -> Vec<Value>,
    ) -> Vec<Value> {
        let groups = channels(&self.shape) / kept(&self.shape);
        if groups == 1 {
            return emit(self, 0, sums);
        }
        let zero = self.e.b.i64(0);
        let first = self.e.b.compare(crate::emit::builder::Compare::Equal, group, zero);
        let types: Vec<_> = sums.iter().map(|sum| sum.ty).collect();
        let open = self.e.b.begin_if(first, &types);
        let of_first = emit(self, 0, sums.clone());
        self.e.b.begin_else(&of_first);
        let of_second = emit(self, kept(&self.shape), sums);
        self.e.b.end_if(open, &of_second)
    }

    fn tensor_query_gradients(&mut self, parts: &Parts<Source>) {
        let (shape, tiles) = (self.shape, self.tiles());
        let (group, number) = self.channel_group();
        let (heads, queries) = self.query_tile(number);
        self.load_tile(parts.q, &heads.queries, queries, tiles.q);
        self.load_tile(parts.d_o, &heads.queries, queries, tiles.d_o);
        let bounds = self.key_tiles(queries.first);
        let sums = self.no_sums(kept(&shape) / COLUMNS).concat();
        let (open, keys) = self.begin_tiles(bounds, shape.keys, &sums);
        self.e.b.barrier();
        self.load_tile(parts.k, &heads.keys, keys, tiles.k);
        self.load_tile(parts.v, &heads.keys, keys, tiles.v);
        self.e.b.barrier();
        let scores = self.tensor_scores(tiles.q, tiles.k);
        let d_weights = self.tensor_scores(tiles.d_o, tiles.v);
        let (_, d_scores) = self.tensor_gradients(parts, &heads.queries, (queries, keys), (scores, d_weights), false);
        let sums = self.for_group(group, open.carried.clone(), |lowering, channel, sums| {
            lowering.tensor_weigh(&d_scores, tiles.k, channel, grouped(&sums)).concat()
        });
        let sums = self.e.b.end_loop(open, &sums);
        let channel = self.e.b.times(group, kept(&shape));
        self.store_tile(&parts.d_q, &heads.queries, queries, channel, &grouped(&sums));
    }

    fn tensor_key_gradients(&mut self, parts: &Parts<Source>) {
        let (shape, tiles) = (self.shape, self.tiles());
        let (group, number) = self.channel_group();
        let (key_head, keys) = self.key_tile(number);
        let of_keys = key_head.point();
        self.load_tile(parts.k, &of_keys, keys, tiles.k);
        self.load_tile(parts.v, &of_keys, keys, tiles.v);
        let bounds = self.query_tiles(keys.first);
        let count = kept(&shape) / COLUMNS;
        let sums = self.no_sums(2 * count).concat();
        let (members, heads) = self.begin_heads(key_head, &sums);
        let (open, queries) = self.begin_tiles(bounds, shape.queries, &members.carried);
        self.e.b.barrier();
        self.load_tile(parts.q, &heads.queries, queries, tiles.q);
        self.load_tile(parts.d_o, &heads.queries, queries, tiles.d_o);
        self.e.b.barrier();
        let scores = self.tensor_scores(tiles.k, tiles.q);
        let d_weights = self.tensor_scores(tiles.v, tiles.d_o);
        let (weights, d_scores) =
            self.tensor_gradients(parts, &heads.queries, (queries, keys), (scores, d_weights), true);
        let next = self.for_group(group, open.carried.clone(), |lowering, channel, sums| {
            let (d_v, d_k) = sums.split_at(4 * count as usize);
            let d_v = lowering.tensor_weigh(&weights, tiles.d_o, channel, grouped(d_v));
            let d_k = lowering.tensor_weigh(&d_scores, tiles.q, channel, grouped(d_k));
            [d_v.concat(), d_k.concat()].concat()
        });
        let after = self.e.b.end_loop(open, &next);
        let sums = self.e.b.end_loop(members, &after);
        let channel = self.e.b.times(group, kept(&shape));
        let (d_v, d_k) = sums.split_at(4 * count as usize);
        for (store, sums) in [(&parts.d_v, d_v), (&parts.d_k, d_k)] {
            self.store_tile(store, &of_keys, keys, channel, &grouped(sums));
        }
    }

    /// Weights `p = e^(scale · s - lse)` and gradients of scores `p (dp - delta) scale`, 0 where masked. Rows are queries,
    /// or keys if `transposed`.
    fn tensor_gradients(
        &mut self,
        parts: &Parts<Source>,
        of_queries: &Point,
        (queries, keys): (Rows, Rows),
        (scores, d_weights): (Sums, Sums),
        transposed: bool,
    ) -> (Sums, Sums) {
        let scale = self.e.b.float(1, f32::from_bits(self.shape.scale_bits));
        let own = self.own_row();
        let (mut weights, mut d_scores) = (scores.clone(), scores.clone());
        // Along which of the thread's places the query changes: rows, or columns if transposed.
        let mut known: Vec<Option<(Value, Value, Value)>> = vec![None; 2 * scores.len()];
        for (j, score) in scores.iter().enumerate() {
            for place in 0..4usize {
                let (half, lane) = (place / 2, place % 2);
                let row = self.e.b.plus(own, 8 * half as u64);
                let column = self.own_column(j as u64);
                let column = self.e.b.plus(column, lane as u64);
                let (query, key) = if transposed { (column, row) } else { (row, column) };
                let key = self.e.b.add(keys.first, key);
                let slot = if transposed { 2 * j + lane } else { half };
                let (query, lse, delta) = match known[slot] {
                    Some(known) => known,
                    None => {
                        let query = self.e.b.add(queries.first, query);
                        let (lse, delta) = self.of_query(parts, of_queries, query);
                        *known[slot].insert((query, lse, delta))
                    }
                };
                let visible = self.visible(query, key);
                let scaled = self.e.b.mul(score[place], scale);
                let shifted = self.e.b.sub(scaled, lse);
                let power = self.e.b.exp(shifted);
                let weight = self.masked(visible, power, 0.0);
                let centred = self.e.b.sub(d_weights[j][place], delta);
                let d_score = self.e.b.mul(weight, centred);
                let d_score = self.e.b.mul(d_score, scale);
                weights[j][place] = weight;
                d_scores[j][place] = self.masked(visible, d_score, 0.0);
            }
        }
        (weights, d_scores)
    }
}

fn grouped(flat: &[Value]) -> Sums {
    flat.chunks(4).map(|sum| [sum[0], sum[1], sum[2], sum[3]]).collect()
}
