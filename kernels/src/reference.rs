//! The slow, obvious interpreter of every kernel body: what the compiled code is tested against.
//!
//! Arithmetic is in f64 and rounded to f32 only where the kernel says so (stores, loads, draws); results agree with
//! compiled kernels up to the rounding of f32.

use crate::ir::{
    Attention, AttentionBackward, AttentionShape, Batch, Binary, Body, Draw, Expr, ExprId, Exprs, Gemm, Generator,
    Index, Kernel, Nest, ReduceKind, Store, View, round_bf16,
};
use std::collections::BTreeMap;
use trainc_runtime::{chacha, philox};

/// A buffer in host memory.
#[derive(Clone, Debug, PartialEq)]
pub enum HostBuffer {
    /// f32
    F32(Vec<f32>),
    /// bfloat16, as stored bits.
    Bf16(Vec<u16>),
    /// i32
    I32(Vec<i32>),
}

impl HostBuffer {
    fn get(&self, position: usize) -> f64 {
        match self {
            HostBuffer::F32(data) => data[position].into(),
            HostBuffer::Bf16(data) => f32::from_bits(u32::from(data[position]) << 16).into(),
            HostBuffer::I32(data) => data[position].into(),
        }
    }

    fn set(&mut self, position: usize, value: f64) {
        match self {
            HostBuffer::F32(data) => data[position] = value as f32,
            HostBuffer::Bf16(data) => data[position] = (round_bf16(value as f32).to_bits() >> 16) as u16,
            HostBuffer::I32(data) => data[position] = value as i32,
        }
    }

    /// The first bytes, for calling compiled code.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            HostBuffer::F32(data) => data.as_mut_ptr().cast(),
            HostBuffer::Bf16(data) => data.as_mut_ptr().cast(),
            HostBuffer::I32(data) => data.as_mut_ptr().cast(),
        }
    }
}

/// Executes a kernel that [`Kernel::verify`] accepts. `buffers` are its launch arguments, without workspace.
pub fn run(kernel: &Kernel, buffers: &mut [HostBuffer], instance: u64) {
    match &kernel.body {
        Body::Nest(nest) => run_nest(nest, buffers, instance),
        Body::Gemm(gemm) => run_gemm(gemm, buffers, instance),
        Body::Attention(attention) => run_attention(attention, buffers),
        Body::AttentionBackward(attention) => run_backward(attention, buffers),
        Body::Batch(batch) => run_batch(batch, buffers, instance),
    }
}

fn run_batch(batch: &Batch, buffers: &mut [HostBuffer], instance: u64) {
    for (first, part) in batch.placed() {
        let each = part.kernel.buffers.len();
        for call in 0..part.times as usize {
            run(&part.kernel, &mut buffers[first + call * each..][..each], instance);
        }
    }
}

/// All points of a loop domain, in row-major order.
fn domain(extents: &[u64]) -> impl Iterator<Item = Vec<u64>> {
    let size: u64 = extents.iter().product();
    (0..size).map(move |flat| {
        let mut rest = flat;
        let mut point: Vec<u64> = extents
            .iter()
            .rev()
            .map(|&extent| {
                let place = rest % extent;
                rest /= extent;
                place
            })
            .collect();
        point.reverse();
        point
    })
}

/// Values of expressions at one point.
struct Evaluator<'a> {
    exprs: &'a Exprs,
    buffers: &'a [HostBuffer],
    instance: u64,
    vars: &'a [u64],
    accumulators: &'a [f64],
    known: BTreeMap<ExprId, f64>,
}

impl Evaluator<'_> {
    fn value(&mut self, root: ExprId) -> f64 {
        for id in self.exprs.reachable(&[root]) {
            if !self.known.contains_key(&id) {
                let value = self.node(id);
                self.known.insert(id, value);
            }
        }
        self.known[&root]
    }

    fn index(&self, index: &Index) -> usize {
        index.evaluate(self.vars, &mut |id| self.known[&id] as i64) as usize
    }

    fn random(&self, draw: &Draw, control: &[i32]) -> f32 {
        let word = |place: usize| control[place] as u32;
        let (stream, step, instance) = (draw.stream, word(2), self.instance as u32);
        let element = self.index(&draw.element) as u32;
        match draw.generator {
            Generator::Philox => {
                let seed = u64::from(word(0)) | u64::from(word(1)) << 32;
                philox::Draw { seed, stream, step, instance }.uniform(element)
            }
            Generator::ChaCha20 { word: place } => {
                let key = std::array::from_fn(|i| word(4 + i));
                chacha::Draw { key, stream, step, instance }.uniform(element, place)
            }
        }
    }

    fn node(&self, id: ExprId) -> f64 {
        let of = |id: &ExprId| self.known[id];
        match self.exprs.get(id) {
            Expr::Constant(bits) => f32::from_bits(*bits).into(),
            Expr::Integer(value) => f64::from(*value),
            Expr::Position(index) => index.evaluate(self.vars, &mut |id| self.known[&id] as i64) as f64,
            Expr::Load { guard: Some(guard), .. } if of(guard) == 0.0 => 0.0,
            Expr::Load { buffer, index, .. } => self.buffers[*buffer as usize].get(self.index(index)),
            Expr::Unary(function, a) => function.apply(of(a)),
            Expr::Binary(Binary::Pow, a, b) => Binary::Pow.apply(of(a), of(b)),
            Expr::Binary(function, a, b) => function.apply(of(a), of(b)),
            Expr::Select(condition, a, b) => of(if of(condition) != 0.0 { a } else { b }),
            Expr::ToFloat(a) => (of(a) as f32).into(),
            Expr::ToInteger(a) => f64::from(of(a) as f32 as i32),
            Expr::Random(draw) => {
                let HostBuffer::I32(control) = &self.buffers[draw.control as usize] else {
                    panic!("verified: the control block is i32");
                };
                self.random(draw, control).into()
            }
            Expr::Accumulator(number) => self.accumulators[*number as usize],
        }
    }
}

/// Evaluates what a set of stores needs at one point, then executes them.
fn execute(
    stores: &[Store],
    exprs: &Exprs,
    buffers: &mut [HostBuffer],
    (instance, vars, accumulators): (u64, &[u64], &[f64]),
) {
    let mut at = Evaluator { exprs, buffers, instance, vars, accumulators, known: BTreeMap::new() };
    let writes: Vec<(usize, f64)> = stores
        .iter()
        .map(|store| {
            for gathered in store.index.values() {
                at.value(gathered);
            }
            let value = at.value(store.value);
            (at.index(&store.index), value)
        })
        .collect();
    for (store, (position, value)) in stores.iter().zip(writes) {
        let buffer = &mut buffers[store.buffer as usize];
        let old = if store.accumulate { buffer.get(position) } else { 0.0 };
        buffer.set(position, old + value);
    }
}

fn run_nest(nest: &Nest, buffers: &mut [HostBuffer], instance: u64) {
    for outer in domain(&nest.parallel) {
        let mut accumulators = Vec::new();
        for sweep in &nest.sweeps {
            let inner: Vec<Vec<u64>> = if sweep.once { vec![Vec::new()] } else { domain(&nest.inner).collect() };
            let mut state: Vec<(f64, f64)> = sweep.reductions.iter().map(|r| identity(r.kind)).collect();
            for (position, inner) in inner.iter().enumerate() {
                let mut vars = [&outer[..], inner].concat();
                vars.resize(nest.parallel.len() + nest.inner.len(), 0);
                let known = BTreeMap::new();
                let exprs = &nest.exprs;
                let mut at = Evaluator { exprs, buffers, instance, vars: &vars, accumulators: &accumulators, known };
                for (state, reduction) in state.iter_mut().zip(&sweep.reductions) {
                    *state = reduce(reduction.kind, *state, at.value(reduction.value), position);
                }
                execute(&sweep.stores, exprs, buffers, (instance, &vars, &accumulators));
            }
            let finished = state.iter().zip(&sweep.reductions).map(|(state, reduction)| match reduction.kind {
                ReduceKind::ArgMax => state.1,
                ReduceKind::Sum | ReduceKind::Max => state.0,
            });
            accumulators.extend(finished.collect::<Vec<f64>>());
        }
    }
}

fn identity(kind: ReduceKind) -> (f64, f64) {
    match kind {
        ReduceKind::Sum => (0.0, 0.0),
        ReduceKind::Max | ReduceKind::ArgMax => (f64::NEG_INFINITY, 0.0),
    }
}

/// Value and position after one more value.
fn reduce(kind: ReduceKind, (best, place): (f64, f64), value: f64, position: usize) -> (f64, f64) {
    match kind {
        ReduceKind::Sum => (best + value, 0.0),
        ReduceKind::Max => (Binary::Max.apply(best, value), 0.0),
        ReduceKind::ArgMax if value > best => (value, position as f64),
        ReduceKind::ArgMax => (best, place),
    }
}

fn run_gemm(gemm: &Gemm, buffers: &mut [HostBuffer], instance: u64) {
    let [batch, m, n, k] = [&gemm.batch, &gemm.m, &gemm.n, &gemm.k].map(|dims| domain(dims).collect::<Vec<_>>());
    let (no_row, no_column) = (vec![0; gemm.m.len()], vec![0; gemm.n.len()]);
    for entry in &batch {
        // Each factor is evaluated once for all rows, or columns, that it meets.
        let of = |root: ExprId, row: &[u64], column: &[u64]| -> Vec<f64> {
            k.iter()
                .map(|k| {
                    let vars = [entry, row, column, k].concat();
                    let known = BTreeMap::new();
                    let mut at =
                        Evaluator { exprs: &gemm.exprs, buffers, instance, vars: &vars, accumulators: &[], known };
                    gemm.precision.round(at.value(root))
                })
                .collect()
        };
        let left: Vec<Vec<f64>> = m.iter().map(|row| of(gemm.lhs, row, &no_column)).collect();
        let right: Vec<Vec<f64>> = n.iter().map(|column| of(gemm.rhs, &no_row, column)).collect();
        for (row, left) in m.iter().zip(&left) {
            for (column, right) in n.iter().zip(&right) {
                let sum: f64 = left.iter().zip(right).map(|(a, b)| a * b).sum();
                let vars = [&entry[..], row, column].concat();
                execute(&gemm.stores, &gemm.exprs, buffers, (instance, &vars, &[sum]));
            }
        }
    }
}

impl View {
    fn position(&self, b: u64, h: u64, t: u64, e: u64) -> usize {
        let [sb, sh, st, se] = self.strides;
        (self.offset + b * sb + h * sh + t * st + e * se) as usize
    }

    fn get(&self, buffers: &[HostBuffer], at: [u64; 4]) -> f64 {
        buffers[self.buffer as usize].get(self.position(at[0], at[1], at[2], at[3]))
    }

    fn set(&self, buffers: &mut [HostBuffer], at: [u64; 4], value: f64) {
        buffers[self.buffer as usize].set(self.position(at[0], at[1], at[2], at[3]), value);
    }
}

impl AttentionShape {
    fn sees(&self, query: u64, key: u64) -> bool {
        (!self.causal || key <= query) && self.window.is_none_or(|window| query < key.saturating_add(window))
    }

    fn scale(&self) -> f64 {
        f32::from_bits(self.scale_bits).into()
    }

    /// `Σ_e a[b, h, t, e] c[b, g, s, e]`, factors rounded.
    fn dot(&self, buffers: &[HostBuffer], (a, t): (&View, u64), (c, s): (&View, u64), [b, h]: [u64; 2]) -> f64 {
        let g = h / (self.heads / self.kv_heads);
        let product =
            |e| self.precision.round(a.get(buffers, [b, h, t, e])) * self.precision.round(c.get(buffers, [b, g, s, e]));
        (0..self.channels).map(product).sum()
    }

    fn rows(&self) -> impl Iterator<Item = [u64; 3]> {
        let (heads, queries) = (self.heads, self.queries);
        (0..self.batch * heads * queries).map(move |row| [row / queries / heads, row / queries % heads, row % queries])
    }
}

fn run_attention(attention: &Attention, buffers: &mut [HostBuffer]) {
    let Attention { shape, q, k, v, o, lse } = attention;
    for [b, h, t] in shape.rows() {
        let g = h / (shape.heads / shape.kv_heads);
        let keys: Vec<u64> = (0..shape.keys).filter(|&s| shape.sees(t, s)).collect();
        let scores: Vec<f64> =
            keys.iter().map(|&s| shape.scale() * shape.dot(buffers, (q, t), (k, s), [b, h])).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - top).exp()).sum();
        for e in 0..shape.channels {
            let weighted = |(&s, score): (&u64, &f64)| {
                shape.precision.round((score - top).exp()) * shape.precision.round(v.get(buffers, [b, g, s, e]))
            };
            let sum: f64 = keys.iter().zip(&scores).map(weighted).sum();
            o.set(buffers, [b, h, t, e], if keys.is_empty() { 0.0 } else { sum / total });
        }
        if let Some(lse) = lse {
            lse.set(buffers, [b, h, t, 0], top + total.ln());
        }
    }
}

fn run_backward(attention: &AttentionBackward, buffers: &mut [HostBuffer]) {
    let AttentionBackward { shape, q, k, v, o, lse, d_o, d_q, d_k, d_v, delta } = attention;
    let round = |value| shape.precision.round(value);
    let kv_size = (shape.batch * shape.kv_heads * shape.keys * shape.channels) as usize;
    let (mut dk, mut dv) = (vec![0.0; kv_size], vec![0.0; kv_size]);
    for (row, [b, h, t]) in shape.rows().enumerate() {
        let g = h / (shape.heads / shape.kv_heads);
        let sum: f64 = (0..shape.channels)
            .map(|e| round(d_o.get(buffers, [b, h, t, e])) * round(o.get(buffers, [b, h, t, e])))
            .sum();
        buffers[*delta as usize].set(row, sum);
        let mut dq = vec![0.0; shape.channels as usize];
        for s in (0..shape.keys).filter(|&s| shape.sees(t, s)) {
            let score = shape.scale() * shape.dot(buffers, (q, t), (k, s), [b, h]);
            let p = (score - lse.get(buffers, [b, h, t, 0])).exp();
            let ds = p * (shape.dot(buffers, (d_o, t), (v, s), [b, h]) - sum) * shape.scale();
            for e in 0..shape.channels {
                let place = (((b * shape.kv_heads + g) * shape.keys + s) * shape.channels + e) as usize;
                dv[place] += round(p) * round(d_o.get(buffers, [b, h, t, e]));
                dk[place] += round(ds) * round(q.get(buffers, [b, h, t, e]));
                dq[e as usize] += round(ds) * round(k.get(buffers, [b, g, s, e]));
            }
        }
        (0..shape.channels).for_each(|e| d_q.set(buffers, [b, h, t, e], dq[e as usize]));
    }
    for (place, at) in domain(&[shape.batch, shape.kv_heads, shape.keys, shape.channels]).enumerate() {
        let at = [at[0], at[1], at[2], at[3]];
        d_k.set(buffers, at, dk[place]);
        d_v.set(buffers, at, dv[place]);
    }
}
