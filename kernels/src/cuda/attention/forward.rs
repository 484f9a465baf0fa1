//! Attention forward: a block takes a tile of queries of one head through all tiles of keys that it sees. Maximum and sum
//! of each row are kept up to date, and what is summed already is scaled when the maximum grows (online softmax).

use super::{
    BLOCK, Channels, EACH, Fragment, KEYS, Lowering, Operands, SHARED_BYTES, THREADS, TILE,
    tiles::{Heads, Rows},
};
use crate::{
    attention::operands::Forward,
    cuda::{DeviceStage, entry},
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
    },
    ir::{Attention, ExprId, Kernel},
};

/// Slices of channels that a block keeps in registers.
const MOST_KEPT: u64 = 4;

/// The running state of the thread's rows.
struct State {
    /// Maximum of the scores of each row.
    top: Fragment,
    /// Sum of exponentials of each row: of this thread's columns.
    sum: Fragment,
    /// The weighted values, slice by slice.
    output: Fragment,
}

impl State {
    fn flat(&self) -> Vec<Value> {
        [&self.top[..], &self.sum, &self.output].concat()
    }

    fn of(flat: &[Value]) -> State {
        let (top, rest) = flat.split_at(EACH as usize);
        let (sum, output) = rest.split_at(EACH as usize);
        State { top: top.to_vec(), sum: sum.to_vec(), output: output.to_vec() }
    }
}

/// Lowers attention.
pub(super) fn lower(b: &mut Builder, kernel: &Kernel, attention: &Attention, name: &str) -> Vec<DeviceStage> {
    let shape = attention.shape;
    let channels = Channels::new(shape.channels, MOST_KEPT);
    let mut operands = Operands::new();
    let parts = Forward::new(&mut operands, attention, |load, _| load);
    let symbol = format!("{name}_0");
    entry(b, &symbol, BLOCK, kernel.buffers.len(), |b, pointers, instance| {
        let arguments = (pointers, instance);
        Lowering::new(b, (&operands, &kernel.buffers), arguments, shape, channels).forward_block(&parts);
    });
    let blocks = shape.batch * shape.heads * shape.queries.div_ceil(TILE) * channels.groups();
    vec![DeviceStage { symbol, blocks, threads: THREADS as u32, shared_bytes: SHARED_BYTES as u32 }]
}

impl Lowering<'_> {
    fn forward_block(&mut self, parts: &Forward<ExprId>) {
        let block = self.e.b.block();
        let (group, number) = self.e.b.split(block, self.channels.groups());
        let (heads, queries) = self.query_tile(number);
        let channel = self.e.b.times(group, self.channels.kept * self.channels.slice);
        let state = self.over_keys(parts, &heads, queries, channel);
        self.finish(parts, (&heads.queries, queries), (group, channel), state);
    }

    fn over_keys(&mut self, parts: &Forward<ExprId>, heads: &Heads, queries: Rows, channel: Value) -> State {
        let bounds = self.key_tiles(queries.first);
        let bottom = self.e.b.float(1, f32::NEG_INFINITY);
        let output = self.zeros(EACH * self.channels.each() * self.channels.kept);
        let state = State { top: vec![bottom; EACH as usize], sum: self.zeros(EACH), output };
        let (open, keys) = self.begin_tiles(bounds, self.shape.keys, &state.flat());
        let scores = self.scores((parts.q, &heads.queries), queries, (parts.k, &heads.keys), keys);
        let (mut state, weights) = self.softmax(State::of(&open.carried), scores, queries, keys);
        self.share_scores(&weights);
        state.output = self.over_slices(channel, state.output, |lowering, channel, sums| {
            lowering.e.b.barrier();
            lowering.load_slice(parts.v, &heads.keys, keys, channel, KEYS);
            lowering.e.b.barrier();
            lowering.weigh(KEYS, sums)
        });
        State::of(&self.e.b.end_loop(open, &state.flat()))
    }

    /// Takes a tile of scores into the state; returns its weights, which are not normalised.
    fn softmax(&mut self, mut state: State, scores: Fragment, queries: Rows, keys: Rows) -> (State, Fragment) {
        let scale = self.e.b.float(1, f32::from_bits(self.shape.scale_bits));
        let bottom = self.e.b.float(1, f32::NEG_INFINITY);
        let zero = self.e.b.float(1, 0.0);
        let mut weights = Vec::new();
        for i in 0..EACH {
            let query = self.spread(queries.first, self.y, i);
            let row: Vec<(Option<Value>, Value)> = (0..EACH)
                .map(|j| {
                    let key = self.spread(keys.first, self.x, j);
                    let visible = self.visible(query, key);
                    let scaled = self.e.b.mul(scores[(i * EACH + j) as usize], scale);
                    (visible, self.masked(visible, scaled, f32::NEG_INFINITY))
                })
                .collect();
            let mut top = row.iter().fold(state.top[i as usize], |top, &(_, score)| self.e.b.max(top, score));
            for distance in [8, 4, 2, 1] {
                let other = self.e.b.shuffle_xor(top, distance);
                top = self.e.b.max(top, other);
            }
            let sees_none = self.e.b.compare(Compare::Equal, top, bottom);
            let shift = self.e.b.select(sees_none, zero, top);
            let change = self.e.b.sub(state.top[i as usize], shift);
            let correction = self.e.b.exp(change);
            let mut sum = self.e.b.mul(state.sum[i as usize], correction);
            for (visible, score) in row {
                let shifted = self.e.b.sub(score, shift);
                let power = self.e.b.exp(shifted);
                let weight = self.masked(visible, power, 0.0);
                sum = self.e.b.add(sum, weight);
                weights.push(self.rounded(weight));
            }
            (state.top[i as usize], state.sum[i as usize]) = (top, sum);
            self.correct_row(&mut state.output, i, correction);
        }
        (state, weights)
    }

    /// Scales what row `i` has summed.
    fn correct_row(&mut self, output: &mut Fragment, i: u64, correction: Value) {
        let each = self.channels.each();
        for slice in 0..self.channels.kept {
            for e in 0..each {
                let place = ((slice * EACH + i) * each + e) as usize;
                output[place] = self.e.b.mul(output[place], correction);
            }
        }
    }

    /// Normalises and stores.
    fn finish(
        &mut self,
        parts: &Forward<ExprId>,
        (head, queries): (&Point, Rows),
        (group, channel): (Value, Value),
        mut state: State,
    ) {
        let (zero, one) = (self.e.b.float(1, 0.0), self.e.b.float(1, 1.0));
        let bottom = self.e.b.float(1, f32::NEG_INFINITY);
        for i in 0..EACH {
            let mut sum = state.sum[i as usize];
            for distance in [8, 4, 2, 1] {
                let other = self.e.b.shuffle_xor(sum, distance);
                sum = self.e.b.add(sum, other);
            }
            let top = state.top[i as usize];
            let sees_none = self.e.b.compare(Compare::Equal, top, bottom);
            let inverse = self.e.b.div(one, sum);
            let factor = self.e.b.select(sees_none, zero, inverse);
            self.correct_row(&mut state.output, i, factor);
            if let Some(store) = &parts.lse {
                let logarithm = self.e.b.log(sum);
                let lse = self.e.b.add(top, logarithm);
                let query = self.spread(queries.first, self.y, i);
                let column = self.e.b.add(self.x, group);
                let none = self.e.b.i64(0);
                let is_first = self.e.b.compare(Compare::Equal, column, none);
                self.store_row(store, head, query, (is_first, lse));
            }
        }
        self.store_slices(&parts.o, (head, queries), channel, &state.output, Self::query_row);
    }
}
