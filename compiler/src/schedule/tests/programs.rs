//! Graphs to schedule.

use super::Case;
use crate::{
    graph::{
        AttentionSpec, ControlField, Graph, Mask, NodeId, Op, Output, ScopeId, TensorType, arbitrary, differentiate,
    },
    rewrite,
};
use trainc_kernels::ir::{Binary, Generator, Precision, ReduceKind, Unary};
use trainc_runtime::artifact::DType;

/// Shorthands for building a case.
pub struct Builder {
    pub g: Graph,
    pub parameters: Vec<Vec<u64>>,
    pub states: Vec<Vec<u64>>,
    /// Of products.
    pub precision: Precision,
    inputs: u32,
}

impl Builder {
    pub fn new() -> Self {
        let (parameters, states) = (Vec::new(), Vec::new());
        Self { g: Graph::new("step"), parameters, states, precision: Precision::F32, inputs: 0 }
    }

    pub fn input(&mut self, ty: TensorType) -> NodeId {
        self.inputs += 1;
        self.g.add(Op::Input { index: self.inputs - 1, ty }, &[])
    }

    pub fn parameter(&mut self, shape: &[u64]) -> NodeId {
        self.parameters.push(shape.to_vec());
        let index = self.parameters.len() as u32 - 1;
        self.g.add(Op::Parameter { index, shape: shape.to_vec() }, &[])
    }

    pub fn state(&mut self, shape: &[u64]) -> NodeId {
        self.states.push(shape.to_vec());
        let index = self.states.len() as u32 - 1;
        self.g.add(Op::State { index, shape: shape.to_vec() }, &[])
    }

    pub fn report(&mut self, name: &str, node: NodeId) {
        self.g.set_output(Output::Report(name.into()), node);
    }

    pub fn contract(&mut self, a: NodeId, b: NodeId, labels: &str) -> NodeId {
        let labels: Vec<&[u8]> = labels.split([',', '>']).map(str::as_bytes).collect();
        self.g.contract(a, b, [labels[0], labels[1], labels[2]], self.precision)
    }

    /// `x + b`, b along the last axes.
    pub fn bias(&mut self, x: NodeId, b: NodeId) -> NodeId {
        let shape = self.g.shape(x).to_vec();
        let wide = self.g.broadcast_to_leading(b, &shape);
        self.g.plus(x, wide)
    }

    /// AdamW on a parameter.
    pub fn adamw(&mut self, p: NodeId, gradient: NodeId) {
        let shape = self.g.shape(p).to_vec();
        let Op::Parameter { index, .. } = self.g.node(p).op else { panic!("not a parameter") };
        let (m, v) = (self.state(&shape), self.state(&shape));
        let state = self.states.len() as u32 - 2;
        let g = &mut self.g;
        let step = g.add(Op::Control(ControlField::Step), &[]);
        let t = g.add(Op::ToFloat, &[step]);
        let one = g.constant(1.0);
        let t = g.plus(t, one);
        let (old, new) = (g.scale(m, 0.9), g.scale(gradient, 0.1));
        let m = g.plus(old, new);
        let square = g.times(gradient, gradient);
        let (old, new) = (g.scale(v, 0.999), g.scale(square, 0.001));
        let v = g.plus(old, new);
        let corrected = |g: &mut Graph, beta: f64, x: NodeId| {
            let beta = g.constant(beta);
            let power = g.binary(Binary::Pow, beta, t);
            let rest = g.minus(one, power);
            let rest = g.broadcast(rest, &[], &shape);
            g.over(x, rest)
        };
        let (m_hat, v_hat) = (corrected(g, 0.9, m), corrected(g, 0.999, v));
        let root = g.unary(Unary::Sqrt, v_hat);
        let eps = g.full_like(1e-8, root);
        let root = g.plus(root, eps);
        let ratio = g.over(m_hat, root);
        let decay = g.scale(p, 0.01);
        let sum = g.plus(ratio, decay);
        let change = g.scale(sum, 0.01);
        let new = g.minus(p, change);
        g.set_output(Output::Parameter(index), new);
        g.set_output(Output::State(state), m);
        g.set_output(Output::State(state + 1), v);
    }

    /// The parameter's slice in each instance of a scope.
    pub fn layered(&mut self, scope: ScopeId, shape: &[u64]) -> (NodeId, NodeId) {
        let count = self.g.scope(scope).count;
        let whole = self.parameter(&[&[count], shape].concat());
        (whole, self.g.add(Op::Layer { scope }, &[whole]))
    }

    pub fn layer_norm(&mut self, x: NodeId, gain: NodeId, bias: NodeId) -> NodeId {
        let g = &mut self.g;
        let shape = g.shape(x).to_vec();
        let last = shape.len() - 1;
        let share = 1.0 / shape[last] as f64;
        let sum = g.sum(x, &[last]);
        let mean = g.scale(sum, share);
        let mean = g.broadcast_along(mean, &[last], &shape);
        let centered = g.minus(x, mean);
        let square = g.times(centered, centered);
        let sum = g.sum(square, &[last]);
        let variance = g.scale(sum, share);
        let eps = g.full_like(1e-5, variance);
        let variance = g.plus(variance, eps);
        let scale = g.unary(Unary::Rsqrt, variance);
        let scale = g.broadcast_along(scale, &[last], &shape);
        let normal = g.times(centered, scale);
        let gain = g.broadcast_to_leading(gain, &shape);
        let scaled = g.times(normal, gain);
        self.bias(scaled, bias)
    }

    pub fn gelu(&mut self, x: NodeId) -> NodeId {
        let g = &mut self.g;
        let square = g.times(x, x);
        let cube = g.times(square, x);
        let cube = g.scale(cube, 0.044715);
        let inner = g.plus(x, cube);
        let inner = g.scale(inner, 0.797_884_560_802_865_4);
        let tanh = g.unary(Unary::Tanh, inner);
        let one = g.full_like(1.0, tanh);
        let sum = g.plus(one, tanh);
        let product = g.times(x, sum);
        g.scale(product, 0.5)
    }

    /// Causal attention over heads, written out.
    pub fn attention(&mut self, q: NodeId, k: NodeId, v: NodeId) -> NodeId {
        let scores = self.contract(q, k, "bhte,bhse>bhts");
        let g = &mut self.g;
        let shape = g.shape(scores).to_vec();
        let scores = g.scale(scores, 1.0 / (g.shape(q)[3] as f64).sqrt());
        let query = g.add(Op::Iota { axis: 2, shape: shape.clone() }, &[]);
        let key = g.add(Op::Iota { axis: 3, shape: shape.clone() }, &[]);
        let visible = g.binary(Binary::LessEqual, key, query);
        let never = g.full_like(-1e30, scores);
        let scores = g.select(visible, scores, never);
        let most = g.reduce(ReduceKind::Max, scores, &[3]);
        let most = g.add(Op::StopGradient, &[most]);
        let most = g.broadcast_along(most, &[3], &shape);
        let shifted = g.minus(scores, most);
        let weights = g.unary(Unary::Exp, shifted);
        let sum = g.sum(weights, &[3]);
        let sum = g.broadcast_along(sum, &[3], &shape);
        let weights = g.over(weights, sum);
        self.contract(weights, v, "bhts,bhse>bhte")
    }

    /// Mean cross entropy of logits `[..., v]` with ids.
    pub fn cross_entropy(&mut self, logits: NodeId, ids: NodeId) -> NodeId {
        let g = &mut self.g;
        let shape = g.shape(logits).to_vec();
        let last = shape.len() - 1;
        let most = g.reduce(ReduceKind::Max, logits, &[last]);
        let most = g.add(Op::StopGradient, &[most]);
        let wide = g.broadcast_along(most, &[last], &shape);
        let shifted = g.minus(logits, wide);
        let exps = g.unary(Unary::Exp, shifted);
        let sum = g.sum(exps, &[last]);
        let log = g.unary(Unary::Log, sum);
        let position = g.add(Op::Iota { axis: last, shape: shape.clone() }, &[]);
        let target = g.broadcast_along(ids, &[last], &shape);
        let hit = g.binary(Binary::Equal, position, target);
        let picked = g.times(hit, shifted);
        let picked = g.sum(picked, &[last]);
        let losses = g.minus(log, picked);
        let total = g.sum_all(losses);
        let rows: u64 = shape[..last].iter().product();
        g.scale(total, 1.0 / rows as f64)
    }

    /// Gradients of a loss, clipped together to norm 1, and AdamW on all parameters.
    pub fn train(&mut self, loss: NodeId, parameters: &[NodeId]) {
        self.report("loss", loss);
        let gradients = differentiate(&mut self.g, loss, parameters).expect("differentiable");
        let gradients: Vec<NodeId> = gradients.into_iter().map(|gradient| gradient.expect("used")).collect();
        let g = &mut self.g;
        let mut total = g.constant(0.0);
        for &gradient in &gradients {
            let square = g.times(gradient, gradient);
            let sum = g.sum_all(square);
            total = g.plus(total, sum);
        }
        let norm = g.unary(Unary::Sqrt, total);
        let one = g.constant(1.0);
        let most = g.binary(Binary::Max, norm, one);
        let factor = g.unary(Unary::Reciprocal, most);
        self.report("grad_norm", norm);
        for (&parameter, gradient) in parameters.iter().zip(gradients) {
            let shape = self.g.shape(parameter).to_vec();
            let factor = self.g.broadcast(factor, &[], &shape);
            let clipped = self.g.times(gradient, factor);
            self.adamw(parameter, clipped);
        }
    }

    /// The case after rewriting.
    pub fn rewritten(self, below: i32) -> Case {
        let graph = rewrite::rewrite(&self.g, &rewrite::Options::default()).graph;
        Case { graph, parameters: self.parameters, states: self.states, below, bindings: None }
    }

    pub fn done(self, below: i32) -> Case {
        Case { graph: self.g, parameters: self.parameters, states: self.states, below, bindings: None }
    }
}

/// Two layers, ReLU, mean squared error, gradients written out, AdamW.
pub fn perceptron() -> Case {
    let mut b = Builder::new();
    let (x, y) = (b.input(TensorType::f32([6, 10])), b.input(TensorType::f32([6, 3])));
    let (w1, b1) = (b.parameter(&[12, 10]), b.parameter(&[12]));
    let (w2, b2) = (b.parameter(&[3, 12]), b.parameter(&[3]));
    let h = b.contract(x, w1, "bi,hi>bh");
    let h = b.bias(h, b1);
    let zero = b.g.full_like(0.0, h);
    let a = b.g.binary(Binary::Max, h, zero);
    let z = b.contract(a, w2, "bh,oh>bo");
    let z = b.bias(z, b2);
    let d = b.g.minus(z, y);
    let square = b.g.times(d, d);
    let sum = b.g.sum_all(square);
    let loss = b.g.scale(sum, 1.0 / 18.0);
    b.report("loss", loss);
    let dz = b.g.scale(d, 2.0 / 18.0);
    let dw2 = b.contract(dz, a, "bo,bh>oh");
    let db2 = b.g.sum(dz, &[0]);
    let da = b.contract(dz, w2, "bo,oh>bh");
    let mask = b.g.binary(Binary::Less, zero, h);
    let dh = b.g.times(da, mask);
    let dw1 = b.contract(dh, x, "bh,bi>hi");
    let db1 = b.g.sum(dh, &[0]);
    for (p, g) in [(w1, dw1), (b1, db1), (w2, dw2), (b2, db2)] {
        b.adamw(p, g);
    }
    b.done(1)
}

/// Sizes of a GPT.
#[derive(Clone, Copy)]
pub struct Gpt {
    pub depth: u64,
    pub width: u64,
    pub heads: u64,
    pub vocab: u64,
    pub batch: u64,
    pub context: u64,
    pub precision: Precision,
}

impl Gpt {
    pub const SMALL: Gpt =
        Gpt { depth: 3, width: 16, heads: 2, vocab: 11, batch: 2, context: 6, precision: Precision::F32 };

    /// A pre-norm GPT with tied embedding, learned positions and biases, and its training step.
    pub fn step(self) -> Builder {
        let Gpt { depth, width: d, heads, vocab, batch, context, precision } = self;
        let mut b = Builder { precision, ..Builder::new() };
        let tokens = b.input(TensorType::i32([batch, context]));
        let targets = b.input(TensorType::i32([batch, context]));
        let table = b.parameter(&[vocab, d]);
        let positions = b.parameter(&[context, d]);
        let embedded = b.g.add(Op::Gather, &[table, tokens]);
        let x = b.bias(embedded, positions);
        let block = b.g.add_scope("block", depth);
        let carry = b.g.add_carry(block, x, false);
        let shapes: [&[u64]; 12] =
            [&[d], &[d], &[3 * d, d], &[3 * d], &[d, d], &[d], &[d], &[d], &[4 * d, d], &[4 * d], &[d, 4 * d], &[d]];
        let (mut all, layer): (Vec<NodeId>, Vec<NodeId>) = shapes.iter().map(|shape| b.layered(block, shape)).unzip();
        let y = b.layer_norm(carry, layer[0], layer[1]);
        let qkv = b.contract(y, layer[2], "btd,fd>btf");
        let qkv = b.bias(qkv, layer[3]);
        let part = |b: &mut Builder, n: u64| {
            let part = b.g.slice(qkv, 2, n * d, d);
            let part = b.g.reshape(part, &[batch, context, heads, d / heads]);
            b.g.permute(part, &[0, 2, 1, 3])
        };
        let (q, k, v) = (part(&mut b, 0), part(&mut b, 1), part(&mut b, 2));
        let o = b.attention(q, k, v);
        let o = b.g.permute(o, &[0, 2, 1, 3]);
        let o = b.g.reshape(o, &[batch, context, d]);
        let o = b.contract(o, layer[4], "btd,fd>btf");
        let o = b.bias(o, layer[5]);
        let x = b.g.plus(carry, o);
        let y = b.layer_norm(x, layer[6], layer[7]);
        let h = b.contract(y, layer[8], "btd,fd>btf");
        let h = b.bias(h, layer[9]);
        let a = b.gelu(h);
        let o = b.contract(a, layer[10], "btf,df>btd");
        let o = b.bias(o, layer[11]);
        let x = b.g.plus(x, o);
        b.g.set_next(carry, x);
        let x = b.g.add(Op::Last, &[carry]);
        let (gain, bias) = (b.parameter(&[d]), b.parameter(&[d]));
        let x = b.layer_norm(x, gain, bias);
        let logits = b.contract(x, table, "btd,vd>btv");
        let loss = b.cross_entropy(logits, targets);
        all.extend([table, positions, gain, bias]);
        b.train(loss, &all);
        b
    }
}

/// Convolution by windows with padding, pooling, and a linear layer.
pub fn convolution() -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([2, 1, 6, 6]));
    let ids = b.input(TensorType::i32([2]));
    let (kernel, bias) = (b.parameter(&[3, 1, 3, 3]), b.parameter(&[3]));
    let head = b.parameter(&[4, 27]);
    let mut padded = x;
    for axis in [2, 3] {
        padded = b.g.add(Op::Pad { axis, before: 1, after: 1 }, &[padded]);
    }
    let rows = b.g.add(Op::Window { axis: 2, size: 3, stride: 1 }, &[padded]);
    let windows = b.g.add(Op::Window { axis: 4, size: 3, stride: 1 }, &[rows]);
    let y = b.contract(windows, kernel, "bcipjq,ocpq>boij");
    let shape = b.g.shape(y).to_vec();
    let wide = b.g.broadcast(bias, &[1], &shape);
    let y = b.g.plus(y, wide);
    let y = b.g.unary(Unary::Tanh, y);
    let rows = b.g.add(Op::Window { axis: 2, size: 2, stride: 2 }, &[y]);
    let windows = b.g.add(Op::Window { axis: 4, size: 2, stride: 2 }, &[rows]);
    let pooled = b.g.reduce(ReduceKind::Max, windows, &[3, 5]);
    let flat = b.g.reshape(pooled, &[2, 27]);
    let logits = b.contract(flat, head, "bf,of>bo");
    let loss = b.cross_entropy(logits, ids);
    b.train(loss, &[kernel, bias, head]);
    b.done(4)
}

/// A repeat with dropout, a scale shared by all instances, and stacked reports.
pub fn recurrent() -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([4, 8]));
    let scope = b.g.add_scope("cell", 4);
    let shared = b.parameter(&[8, 8]);
    let carry = b.g.add_carry(scope, x, false);
    let (whole, gain) = b.layered(scope, &[8]);
    let y = b.contract(carry, shared, "bi,oi>bo");
    let y = b.g.unary(Unary::Tanh, y);
    let y = {
        let shape = b.g.shape(y).to_vec();
        let gain = b.g.broadcast_to_leading(gain, &shape);
        b.g.times(y, gain)
    };
    let draw = b.g.add(Op::Random { generator: Generator::Philox, stream: 5, shape: vec![4, 8], scope }, &[]);
    let limit = b.g.full_like(0.8, draw);
    let keep = b.g.binary(Binary::Less, draw, limit);
    let y = b.g.times(y, keep);
    b.g.set_next(carry, y);
    let seen = b.g.add(Op::Stack { count: 4 }, &[y]);
    let squares = b.g.times(y, y);
    let squares = b.g.sum(squares, &[0, 1]);
    let total = b.g.add(Op::SumInstances, &[squares]);
    b.report("seen", seen);
    let last = b.g.add(Op::Last, &[carry]);
    let sum = b.g.sum_all(last);
    let loss = b.g.plus(sum, total);
    b.train(loss, &[shared, whole]);
    b.done(1)
}

/// The sum of as many equal terms as there are instances: `x (1 + 1e-9 gain)`, whose gain is the instance's own.
pub fn long_repeat(count: u64) -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([32]));
    let scope = b.g.add_scope("cell", count);
    let (_, gain) = b.layered(scope, &[32]);
    let small = b.g.scale(gain, 1e-9);
    let change = b.g.times(x, small);
    let term = b.g.plus(x, change);
    let total = b.g.add(Op::SumInstances, &[term]);
    b.report("total", total);
    b.done(1)
}

/// Updates that cannot be made in place: each of two parameters becomes a function of the other, transposed.
pub fn exchange() -> Case {
    let mut b = Builder::new();
    let (p, q) = (b.parameter(&[5, 7]), b.parameter(&[7, 5]));
    let (pt, qt) = (b.g.permute(p, &[1, 0]), b.g.permute(q, &[1, 0]));
    let (new_p, new_q) = (b.g.plus(p, qt), b.g.minus(q, pt));
    let product = b.contract(new_p, new_q, "ij,jk>ik");
    b.report("product", product);
    b.g.set_output(Output::Parameter(0), new_p);
    b.g.set_output(Output::Parameter(1), new_q);
    b.report("old", p);
    b.done(1)
}

/// Grouped-query attention as one operation, on slices of one buffer and on rotated copies.
pub fn attention() -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([2, 5, 4 * 6]));
    let part = |b: &mut Builder, start: u64, heads: u64| {
        let part = b.g.slice(x, 2, start * 6, heads * 6);
        let part = b.g.reshape(part, &[2, 5, heads, 6]);
        b.g.permute(part, &[0, 2, 1, 3])
    };
    let (q, k, v) = (part(&mut b, 0, 2), part(&mut b, 2, 1), part(&mut b, 3, 1));
    let turned = {
        let low = b.g.slice(k, 3, 0, 3);
        let high = b.g.slice(k, 3, 3, 3);
        let low = b.g.negative(low);
        b.g.add(Op::Concat { axis: 3 }, &[high, low])
    };
    let spec = AttentionSpec { scale: 0.4.into(), mask: Mask::Window(3), precision: Precision::F32 };
    let o = b.g.add(Op::Attention(spec), &[q, turned, v]);
    let lse = b.g.project(o, 1);
    let out = b.g.permute(o, &[0, 2, 1, 3]);
    let out = b.g.reshape(out, &[2, 5, 12]);
    let out = b.g.scale(out, 2.0);
    b.report("out", out);
    b.report("lse", lse);
    let gradient = b.g.full_like(0.5, o);
    let dq = b.g.add(Op::AttentionBackward(spec), &[q, turned, v, o, lse, gradient]);
    let dv = b.g.project(dq, 2);
    b.report("dq", dq);
    b.report("dv", dv);
    b.done(1)
}

/// Gradients of attention side by side: along the axis of heads and channels (two query heads for one key head), or along
/// an axis of their own. A product and a sum read them.
pub fn packed_gradients(own_axis: bool) -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([2, 5, 6 * 6]));
    let heads = if own_axis { [2, 2, 2] } else { [4, 1, 1] };
    let [q, k, v] = [0, 1, 2].map(|part| {
        let start = heads[..part].iter().sum::<u64>() * 6;
        let part = b.g.slice(x, 2, start, heads[part] * 6);
        let head = b.g.reshape(part, &[2, 5, b.g.shape(part)[2] / 6, 6]);
        b.g.permute(head, &[0, 2, 1, 3])
    });
    let spec = AttentionSpec { scale: 0.4.into(), mask: Mask::Causal, precision: Precision::F32 };
    let o = b.g.add(Op::Attention(spec), &[q, k, v]);
    let lse = b.g.project(o, 1);
    let dq = b.g.add(Op::AttentionBackward(spec), &[q, k, v, o, lse, o]);
    let gradients = [dq, b.g.project(dq, 1), b.g.project(dq, 2)];
    let (axis, labels, shape) =
        if own_axis { (0, "cbhte,chei>bti", [3, 2, 6, 7].as_slice()) } else { (2, "btf,fi>bti", &[36, 7][..]) };
    let parts = gradients.map(|gradient| match own_axis {
        true => b.g.broadcast(gradient, &[1, 2, 3, 4], &[1, 2, 2, 5, 6]),
        false => {
            let rows = b.g.permute(gradient, &[0, 2, 1, 3]);
            b.g.reshape(rows, &[2, 5, b.g.shape(rows)[2] * 6])
        }
    });
    let packed = b.g.add(Op::Concat { axis }, &parts);
    let weights = b.parameter(shape);
    let product = b.contract(packed, weights, labels);
    let sum = b.g.sum(packed, if own_axis { &[1, 3] } else { &[0, 1] });
    b.report("product", product);
    b.report("sum", sum);
    b.done(1)
}

/// Reductions of all kinds over large and small values, with counts that do not divide.
pub fn reductions() -> Case {
    let mut b = Builder::new();
    let x = b.input(TensorType::f32([40, 13, 36]));
    let ids = b.input(TensorType::i32([40, 13]));
    for (n, axes) in [&[0usize][..], &[1], &[2], &[0, 2], &[0, 1, 2], &[1, 2]].into_iter().enumerate() {
        let sum = b.g.sum(x, axes);
        let most = b.g.reduce(ReduceKind::Max, x, axes);
        let place = b.g.reduce(ReduceKind::ArgMax, x, axes);
        let place = b.g.add(Op::ToFloat, &[place]);
        for (name, node) in [("sum", sum), ("max", most), ("argmax", place)] {
            b.report(&format!("{name} {n}"), node);
        }
    }
    let scattered = b.g.add(Op::Scatter { rows: 9 }, &[ids, x]);
    b.report("scattered", scattered);
    let ones = b.g.full(1.0, &[40, 13]);
    let counts = b.g.add(Op::Scatter { rows: 9 }, &[ids, ones]);
    let counts = b.g.scale(counts, 0.5);
    b.report("counts", counts);
    let zero = b.g.add(Op::Constant { value: 3.0.into(), dtype: DType::I32 }, &[]);
    b.report("constant", zero);
    b.done(9)
}

/// A random graph with the gradients of its loss, as it is or rewritten.
pub fn random(seed: u64, rewritten: bool) -> Case {
    let mut sample = arbitrary::sample(seed, 8);
    let gradients = differentiate(&mut sample.graph, sample.loss, &sample.parameters).expect("differentiable");
    for (n, gradient) in gradients.into_iter().enumerate() {
        if let Some(gradient) = gradient {
            sample.graph.set_output(Output::Report(format!("gradient {n}")), gradient);
        }
    }
    let shapes = sample.parameters.iter().map(|&id| sample.graph.shape(id).to_vec()).collect();
    let graph = match rewritten {
        true => rewrite::rewrite(&sample.graph, &rewrite::Options::default()).graph,
        false => sample.graph,
    };
    Case { graph, parameters: shapes, states: Vec::new(), below: 1, bindings: Some(sample.bindings) }
}
