//! Attention forward on tensor cores.

use super::{ACROSS, COLUMNS, Lowering, Rows, Source, Sums, THREADS, TILE, block, channels, result_bytes, tile_bytes};
use crate::{
    attention::operands::Forward,
    cuda::{
        DeviceStage,
        attention::{Channels, Operands},
        entry,
    },
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
    },
    ir::{Attention, Kernel, View},
};

/// Maximum and sum of the thread's two rows, and the weighted values.
struct State {
    top: [Value; 2],
    sum: [Value; 2],
    output: Sums,
}

impl State {
    fn flat(&self) -> Vec<Value> {
        [&self.top[..], &self.sum, &self.output.concat()].concat()
    }

    fn of(flat: &[Value]) -> State {
        let output = flat[4..].chunks(4).map(|sum| [sum[0], sum[1], sum[2], sum[3]]).collect();
        State { top: [flat[0], flat[1]], sum: [flat[2], flat[3]], output }
    }
}

/// Lowers verified attention whose factors are bf16.
pub(in crate::cuda::attention) fn lower(
    b: &mut Builder,
    kernel: &Kernel,
    attention: &Attention,
    name: &str,
) -> Vec<DeviceStage> {
    let shape = attention.shape;
    let mut operands = Operands::new();
    let source = |load, view: &View| Source::new(load, view, &kernel.buffers, &shape);
    let parts = Forward::new(&mut operands, attention, source);
    let symbol = format!("{name}_0");
    entry(b, &symbol, block(&shape), kernel.buffers.len(), |b, pointers, instance| {
        let channels = Channels::new(shape.channels, 1);
        Lowering::new(b, (&operands, &kernel.buffers), (pointers, instance), shape, channels).tensor_forward(&parts);
    });
    let blocks = shape.batch * shape.heads * shape.queries.div_ceil(TILE);
    let shared_bytes = (3 * tile_bytes(&shape)).max(result_bytes(channels(&shape))) as u32;
    vec![DeviceStage { symbol, blocks, threads: THREADS as u32, shared_bytes }]
}

impl Lowering<'_> {
    fn tensor_forward(&mut self, parts: &Forward<Source>) {
        let shape = self.shape;
        let block = self.e.b.block();
        let (heads, queries) = self.query_tile(block);
        let [q, k, v] = [0, 1, 2].map(|place| place * tile_bytes(&shape));
        self.load_tile(parts.q, &heads.queries, queries, q);
        let bounds = self.key_tiles(queries.first);
        let (bottom, zero) = (self.e.b.float(1, f32::NEG_INFINITY), self.e.b.float(1, 0.0));
        let output = self.no_sums(channels(&shape) / COLUMNS);
        let state = State { top: [bottom; 2], sum: [zero; 2], output };
        let (open, keys) = self.begin_tiles(bounds, shape.keys, &state.flat());
        self.e.b.barrier();
        self.load_tile(parts.k, &heads.keys, keys, k);
        self.load_tile(parts.v, &heads.keys, keys, v);
        self.e.b.barrier();
        let scores = self.tensor_scores(q, k);
        let (mut state, weights) = self.tensor_softmax(State::of(&open.carried), scores, queries, keys);
        state.output = self.tensor_weigh(&weights, v, 0, state.output);
        let after = self.e.b.end_loop(open, &state.flat());
        self.tensor_finish(parts, &heads.queries, queries, State::of(&after));
    }

    /// Takes a tile of scores into the state; returns its weights, which are not normalised.
    fn tensor_softmax(&mut self, mut state: State, scores: Sums, queries: Rows, keys: Rows) -> (State, Sums) {
        let scale = self.e.b.float(1, f32::from_bits(self.shape.scale_bits));
        let (bottom, zero) = (self.e.b.float(1, f32::NEG_INFINITY), self.e.b.float(1, 0.0));
        let own = self.own_row();
        let mut weights = scores.clone();
        for half in 0..2usize {
            let row = self.e.b.plus(own, 8 * half as u64);
            let query = self.e.b.add(queries.first, row);
            let mut row = Vec::new();
            for j in 0..ACROSS {
                for lane in 0..2 {
                    let key = self.own_column(j);
                    let key = self.e.b.plus(key, lane);
                    let key = self.e.b.add(keys.first, key);
                    let visible = self.visible(query, key);
                    let scaled = self.e.b.mul(scores[j as usize][2 * half + lane as usize], scale);
                    row.push((visible, self.masked(visible, scaled, f32::NEG_INFINITY)));
                }
            }
            let top = row.iter().fold(state.top[half], |top, &(_, score)| self.e.b.max(top, score));
            let top = [1, 2].into_iter().fold(top, |top, distance| {
                let other = self.e.b.shuffle_xor(top, distance);
                self.e.b.max(top, other)
            });
            let sees_none = self.e.b.compare(Compare::Equal, top, bottom);
            let shift = self.e.b.select(sees_none, zero, top);
            let change = self.e.b.sub(state.top[half], shift);
            let correction = self.e.b.exp(change);
            let mut sum = self.e.b.mul(state.sum[half], correction);
            for (place, (visible, score)) in row.into_iter().enumerate() {
                let shifted = self.e.b.sub(score, shift);
                let power = self.e.b.exp(shifted);
                let weight = self.masked(visible, power, 0.0);
                sum = self.e.b.add(sum, weight);
                weights[place / 2][2 * half + place % 2] = weight;
            }
            (state.top[half], state.sum[half]) = (top, sum);
            self.correct(&mut state.output, half, correction);
        }
        (state, weights)
    }

    /// Scales what the thread's row `half` has summed.
    fn correct(&mut self, output: &mut Sums, half: usize, factor: Value) {
        for sum in output {
            for lane in 0..2 {
                sum[2 * half + lane] = self.e.b.mul(sum[2 * half + lane], factor);
            }
        }
    }

    fn tensor_finish(&mut self, parts: &Forward<Source>, head: &Point, queries: Rows, mut state: State) {
        let (zero, one) = (self.e.b.float(1, 0.0), self.e.b.float(1, 1.0));
        let bottom = self.e.b.float(1, f32::NEG_INFINITY);
        let own = self.own_row();
        for half in 0..2usize {
            let sum = [1, 2].into_iter().fold(state.sum[half], |sum, distance| {
                let other = self.e.b.shuffle_xor(sum, distance);
                self.e.b.add(sum, other)
            });
            let sees_none = self.e.b.compare(Compare::Equal, state.top[half], bottom);
            let inverse = self.e.b.div(one, sum);
            let factor = self.e.b.select(sees_none, zero, inverse);
            self.correct(&mut state.output, half, factor);
            if let Some(store) = &parts.lse {
                let logarithm = self.e.b.log(sum);
                let lse = self.e.b.add(state.top[half], logarithm);
                let row = self.e.b.plus(own, 8 * half as u64);
                let query = self.e.b.add(queries.first, row);
                let is_first = self.is_first_of_row();
                self.store_row(store, head, query, (is_first, lse));
            }
        }
        let none = self.e.b.i64(0);
        self.store_tile(&parts.o, head, queries, none, &state.output);
    }

    /// Whether the thread is the first of the four lanes that have a row.
    fn is_first_of_row(&mut self) -> Value {
        let (lane, _) = self.lane();
        let (pair, _) = self.e.b.split(lane, 4);
        let zero = self.e.b.i64(0);
        self.e.b.compare(Compare::Equal, pair, zero)
    }
}
