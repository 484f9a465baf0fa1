//! Training steps for the tests, built and differentiated as the checker does it.

use crate::{
    check::{self, Sources},
    diagnostic::{Diagnostic, render},
    graph::{Bindings, Graph, NodeId, Op, Output, Tensor, TensorType, differentiate},
    program::Program,
    source::{FileId, SourceMap, Span},
};
use trainc_kernels::ir::{Binary, Precision, ReduceKind, Unary};

/// Batch, positions, heads, channels of a head.
const BATCH: u64 = 2;
pub const TOKENS: u64 = 5;
const HEADS: u64 = 4;
const CHANNELS: u64 = 3;
const WIDTH: u64 = HEADS * CHANNELS;

/// How a transformer block attends.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    causal: bool,
    window: Option<i32>,
    /// Query heads of a key head.
    group: u64,
    /// Root-mean-square norms and gated feed-forward instead of layer norm and gelu.
    llama: bool,
}

impl Style {
    pub const FULL: Style = Style { causal: false, window: None, group: 1, llama: false };
    pub const CAUSAL: Style = Style { causal: true, ..Style::FULL };
    pub const WINDOW: Style = Style { window: Some(3), ..Style::CAUSAL };
    pub const GROUPED: Style = Style { group: 2, llama: true, ..Style::CAUSAL };
}

/// Named training steps.
pub fn all() -> Vec<(&'static str, Graph)> {
    vec![
        ("mlp", mlp()),
        ("gpt", transformer(Style::CAUSAL, 3)),
        ("full", transformer(Style::FULL, 2)),
        ("window", transformer(Style::WINDOW, 1)),
        ("llama", transformer(Style::GROUPED, 2)),
        ("cnn", cnn()),
    ]
}

/// A value for everything that a graph is fed: reproducible numbers around 0.
pub fn bindings(graph: &Graph, seed: u64) -> Bindings {
    let mut bindings = Bindings { steps: 10, seed, ..Bindings::default() };
    for id in graph.ids() {
        let ty = &graph.node(id).ty;
        match graph.node(id).op {
            Op::Input { index, .. } => drop(bindings.inputs.insert(index, noise(ty, seed + u64::from(index)))),
            Op::Parameter { index, .. } => {
                drop(bindings.parameters.insert(index, noise(ty, seed + 100 + u64::from(index))));
            }
            Op::State { index, .. } => {
                let value = noise(ty, seed + 200 + u64::from(index)).map(f64::abs);
                bindings.states.insert(index, value);
            }
            _ => {}
        }
    }
    bindings
}

/// Numbers in (-1, 1), or indices below 4 for integers.
pub fn noise(ty: &TensorType, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let integer = ty.dtype == trainc_runtime::artifact::DType::I32;
    let value = |draw: f64| if integer { (draw * 4.0).floor() } else { draw * 2.0 - 1.0 };
    for _ in 0..3 {
        draw();
    }
    Tensor::new(ty.clone(), (0..ty.elements()).map(|_| value(draw())).collect())
}

/// A graph under construction, with its parameters.
pub struct Step {
    pub graph: Graph,
    parameters: Vec<NodeId>,
}

impl Step {
    pub fn new() -> Self {
        Self { graph: Graph::new("step"), parameters: Vec::new() }
    }

    pub fn input(&mut self, index: u32, ty: TensorType) -> NodeId {
        self.graph.add(Op::Input { index, ty }, &[])
    }

    pub fn parameter(&mut self, shape: &[u64]) -> NodeId {
        let index = self.parameters.len() as u32;
        let node = self.graph.add(Op::Parameter { index, shape: shape.to_vec() }, &[]);
        self.parameters.push(node);
        node
    }

    /// Outputs the loss and, as new parameters, the gradients.
    pub fn finish(mut self, loss: NodeId) -> Graph {
        let gradients = differentiate(&mut self.graph, loss, &self.parameters).expect("all operations have gradients");
        self.graph.set_output(Output::Report("loss".into()), loss);
        for (index, gradient) in gradients.into_iter().enumerate() {
            self.graph.set_output(Output::Parameter(index as u32), gradient.expect("every parameter is used"));
        }
        self.graph
    }

    /// `sum[i](x[.., i] * w[o, i])` as a product of broadcasts.
    fn linear(&mut self, x: NodeId, w: NodeId) -> NodeId {
        let g = &mut self.graph;
        let mut shape = g.shape(x).to_vec();
        let last = shape.len() - 1;
        shape.insert(last, g.shape(w)[0]);
        let axes: Vec<usize> = (0..last).chain([last + 1]).collect();
        let (x, w) = (g.broadcast(x, &axes, &shape), g.broadcast(w, &[last, last + 1], &shape));
        let product = g.times(x, w);
        g.sum(product, &[last + 1])
    }

    fn offset(&mut self, x: NodeId, b: NodeId) -> NodeId {
        let shape = self.graph.shape(x).to_vec();
        let b = self.graph.broadcast_to_leading(b, &shape);
        self.graph.plus(x, b)
    }

    fn stopped_maximum(&mut self, x: NodeId) -> NodeId {
        let shape = self.graph.shape(x).to_vec();
        let last = shape.len() - 1;
        let highest = self.graph.reduce(ReduceKind::Max, x, &[last]);
        let highest = self.graph.add(Op::StopGradient, &[highest]);
        self.graph.broadcast_along(highest, &[last], &shape)
    }

    fn softmax(&mut self, x: NodeId) -> NodeId {
        let shape = self.graph.shape(x).to_vec();
        let last = shape.len() - 1;
        let highest = self.stopped_maximum(x);
        let g = &mut self.graph;
        let difference = g.minus(x, highest);
        let e = g.unary(Unary::Exp, difference);
        let total = g.sum(e, &[last]);
        let total = g.broadcast_along(total, &[last], &shape);
        g.over(e, total)
    }

    fn mean(&mut self, x: NodeId) -> NodeId {
        let shape = self.graph.shape(x).to_vec();
        let last = shape.len() - 1;
        let total = self.graph.sum(x, &[last]);
        let count = self.graph.full_like(shape[last] as f64, total);
        let mean = self.graph.over(total, count);
        self.graph.broadcast_along(mean, &[last], &shape)
    }

    fn norm(&mut self, x: NodeId, gain: NodeId, centred: bool) -> NodeId {
        let x = if centred {
            let mean = self.mean(x);
            self.graph.minus(x, mean)
        } else {
            x
        };
        let square = self.graph.times(x, x);
        let variance = self.mean(square);
        let g = &mut self.graph;
        let epsilon = g.full_like(1e-5, variance);
        let shifted = g.plus(variance, epsilon);
        let inverse = g.unary(Unary::Rsqrt, shifted);
        let normal = g.times(x, inverse);
        let shape = g.shape(x).to_vec();
        let gain = g.broadcast_to_leading(gain, &shape);
        g.times(normal, gain)
    }

    /// 1 where a query (axis 2) sees a key (axis 3).
    fn visible(&mut self, style: Style, shape: &[u64]) -> NodeId {
        let g = &mut self.graph;
        let (queries, keys) = (shape.len() - 2, shape.len() - 1);
        let key = g.add(Op::Iota { axis: keys, shape: shape.to_vec() }, &[]);
        let query = g.add(Op::Iota { axis: queries, shape: shape.to_vec() }, &[]);
        let before = g.binary(Binary::LessEqual, key, query);
        let Some(window) = style.window else { return before };
        let distance = g.minus(query, key);
        let width = g.full_like(f64::from(window), distance);
        let near = g.binary(Binary::Less, distance, width);
        g.times(before, near)
    }

    fn attention(&mut self, x: NodeId, qkv: NodeId, out: NodeId, style: Style) -> NodeId {
        let y = self.linear(x, qkv);
        let groups = HEADS / style.group;
        let g = &mut self.graph;
        let q = g.slice(y, 2, 0, WIDTH);
        let part = |g: &mut Graph, i: u64| {
            let part = g.slice(y, 2, WIDTH + i * groups * CHANNELS, groups * CHANNELS);
            let part = g.reshape(part, &[BATCH, TOKENS, groups, CHANNELS]);
            g.permute(part, &[0, 2, 1, 3])
        };
        let (k, v) = (part(g, 0), part(g, 1));
        let q = g.reshape(q, &[BATCH, TOKENS, groups, style.group, CHANNELS]);
        let q = g.permute(q, &[0, 2, 3, 1, 4]);
        let scores = g.contract(q, k, [&[0, 1, 2, 3, 5], &[0, 1, 4, 5], &[0, 1, 2, 3, 4]], Precision::F32);
        let divisor = g.full_like((CHANNELS as f64).sqrt(), scores);
        let mut scores = g.over(scores, divisor);
        if style.causal {
            let shape = g.shape(scores).to_vec();
            let near = self.visible(style, &shape);
            let g = &mut self.graph;
            let hidden = g.full_like(-1e30, scores);
            scores = g.select(near, scores, hidden);
        }
        let weights = self.softmax(scores);
        let g = &mut self.graph;
        let o = g.contract(weights, v, [&[0, 1, 2, 3, 4], &[0, 1, 4, 5], &[0, 1, 2, 3, 5]], Precision::F32);
        let o = g.permute(o, &[0, 3, 1, 2, 4]);
        let o = g.reshape(o, &[BATCH, TOKENS, WIDTH]);
        self.linear(o, out)
    }

    /// The tanh form.
    fn gelu(&mut self, x: NodeId) -> NodeId {
        let g = &mut self.graph;
        let three = g.full_like(3.0, x);
        let cube = g.binary(Binary::Pow, x, three);
        let cubic = g.scale(cube, 0.044715);
        let inner = g.plus(x, cubic);
        let inner = g.scale(inner, (2.0 / std::f64::consts::PI).sqrt());
        let tanh = g.unary(Unary::Tanh, inner);
        let one = g.full_like(1.0, tanh);
        let gate = g.plus(one, tanh);
        let half = g.scale(x, 0.5);
        g.times(half, gate)
    }

    fn silu(&mut self, x: NodeId) -> NodeId {
        let g = &mut self.graph;
        let sigmoid = g.unary(Unary::Sigmoid, x);
        g.times(x, sigmoid)
    }

    fn cross_entropy(&mut self, logits: NodeId, targets: NodeId) -> NodeId {
        let shape = self.graph.shape(logits).to_vec();
        let last = shape.len() - 1;
        let highest = self.stopped_maximum(logits);
        let g = &mut self.graph;
        let z = g.minus(logits, highest);
        let e = g.unary(Unary::Exp, z);
        let total = g.sum(e, &[last]);
        let log = g.unary(Unary::Log, total);
        let log = g.broadcast_along(log, &[last], &shape);
        let p = g.minus(z, log);
        let class = g.add(Op::Iota { axis: last, shape: shape.clone() }, &[]);
        let target = g.broadcast_along(targets, &[last], &shape);
        let hit = g.binary(Binary::Equal, class, target);
        let zero = g.full_like(0.0, p);
        let hits = g.select(hit, p, zero);
        let rows = g.sum(hits, &[last]);
        let minus = g.unary(Unary::Neg, rows);
        let count = g.node(minus).ty.elements() as f64;
        let sum = g.sum_all(minus);
        g.scale(sum, 1.0 / count)
    }
}

/// A program of one file over the standard library.
#[derive(Default)]
struct OneFile(SourceMap);

impl Sources for OneFile {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.0
    }

    fn load(&mut self, path: &str, _from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        Err(check::import_failed(span, path, "there is only one file here"))
    }
}

/// The graphs of small programs in the language itself.
pub fn programs() -> Vec<(&'static str, Program)> {
    let model = |layers: &str, optimizer: &str| {
        format!(
            "use std\nmodel Small(vocab, depth, context) {{\n    input tokens: int[batch, context]\n    \
             x = embedding(tokens, vocab, 12) + positions(context, 12)\n    repeat depth {{\n{layers}\n    }}\n    \
             output logits = head(layer_norm(x), vocab)\n}}\n\
             data Made {{ field tokens = hash(stream = 1, below = 7) }}\n\
             train {{\n    model Small(vocab = 7, depth = 2, context = 5)\n    data Made\n    \
             loss cross_entropy(logits, next(tokens))\n    optimizer {optimizer}\n    schedule constant(1e-3)\n    clip 1.0\n    \
             steps 10 batch 2 seed 1\n}}\n"
        )
    };
    let gpt = "x = x + dropout(attention(layer_norm(x), 3), 0.1)\nx = x + ffn(layer_norm(x))";
    let window = "x = x + attention(layer_norm(x), 2, window = 3)\nx = x + ffn(layer_norm(x), act = gelu_exact)";
    let full = "x = x + attention(layer_norm(x), 2, full)\nx = x + ffn(layer_norm(x), act = relu2)";
    let llama = "x = x + grouped_attention(rms_norm(x), 6, 3, rotate = rope)\nx = x + swiglu(rms_norm(x), hidden = 8)";
    let texts = [
        ("gpt", model(gpt, "adamw(betas = (0.9, 0.95), weight_decay = 0.1)")),
        ("window", model(window, "muon()")),
        ("full", model(full, "lion()")),
        ("llama", model(llama, "adafactor()")),
    ];
    texts.into_iter().map(|(name, text)| (name, program(&text))).collect()
}

/// Squared norms and weighted sums of gradients of samples that are multiples and seen under another shape, as of a kernel
/// of a convolution that is kept as a matrix.
pub fn viewed_gradients() -> Graph {
    let [samples, times, rows, columns] = [2, 3, 16, 24];
    let mut step = Step::new();
    let x = step.input(0, TensorType::f32([samples, times, rows]));
    let y = step.input(1, TensorType::f32([samples, times, columns]));
    let f = step.input(2, TensorType::f32([samples]));
    let g = &mut step.graph;
    let gradient = g.contract(x, y, [&[0, 1, 2], &[0, 1, 3], &[0, 2, 3]], Precision::F32);
    let multiple = g.scale(gradient, 0.25);
    let viewed = g.reshape(gradient, &[samples, 4, 4, columns]);
    for (i, gradient) in [multiple, viewed].into_iter().enumerate() {
        let shape = g.shape(gradient).to_vec();
        let square = g.times(gradient, gradient);
        let norm = g.sum(square, &(1..shape.len()).collect::<Vec<usize>>());
        let weights = g.broadcast(f, &[0], &shape);
        let weighted = g.times(weights, gradient);
        let sum = g.sum(weighted, &[0]);
        g.set_output(Output::Report(format!("norm {i}")), norm);
        g.set_output(Output::Report(format!("sum {i}")), sum);
    }
    step.graph
}

/// Private programs: a table that is used twice, gradients at two points, images.
pub fn private_programs() -> Vec<(&'static str, Program)> {
    let train = |name: &str, loss: &str, private: &str| {
        format!(
            "train {{\n    model {name}\n    loss {loss}\n    optimizer momentum\n    schedule constant(0.1)\n    \
             steps 10  batch 3  seed 1\n    private {{ noise_multiplier 1  clip 0.7  records 100  rows 3  secure  {private} }}\n}}\n"
        )
    };
    let gpt = "use std\nmodel Tied() {\n    input tokens: int[batch, 5]\n    param table: [7, 12] ~ normal(0.1)\n    \
               x = table[tokens[b, t], d] + positions(5, 12)\n    repeat 2 {\n        \
               x = x + attention(layer_norm(x), 3)\n        x = x + ffn(layer_norm(x))\n    }\n    \
               y = layer_norm(x)\n    output logits = sum[d](y[b, t, d] * table[v, d])\n}\n";
    let cnn = "use std\nmodel Images() {\n    input x: [batch, 1, 6, 6]\n    input y: int[batch]\n    \
               a = max_pool(relu(conv2d(x, 3, padding = 1)))\n    output logits = linear(flatten(a), 4)\n}\n";
    let (next, label) = ("cross_entropy(logits, next(tokens))", "cross_entropy(logits, y)");
    let texts = [
        ("tied", format!("{gpt}{}", train("Tied()", next, ""))),
        ("two points", format!("{gpt}{}", train("Tied()", next, "filter kalman(kappa = 0.7, gamma = 0.5)"))),
        ("images", format!("{cnn}{}", train("Images()", label, "filter lowpass"))),
    ];
    texts.into_iter().map(|(name, text)| (name, program(&text))).collect()
}

fn program(text: &str) -> Program {
    let mut sources = OneFile::default();
    let root = sources.0.add("sample.train", text);
    check::check(&mut sources, root, &[]).unwrap_or_else(|found| panic!("{}", render(&sources.0, &found, false)))
}

/// Two layers and a cross entropy.
fn mlp() -> Graph {
    let mut step = Step::new();
    let x = step.input(0, TensorType::f32([6, 7]));
    let targets = step.input(1, TensorType::i32([6]));
    let (w1, b1, w2) = (step.parameter(&[5, 7]), step.parameter(&[5]), step.parameter(&[4, 5]));
    let h = step.linear(x, w1);
    let h = step.offset(h, b1);
    let h = step.gelu(h);
    let logits = step.linear(h, w2);
    let loss = step.cross_entropy(logits, targets);
    step.finish(loss)
}

/// A residual network of `blocks` blocks, all outside repeats, with the moments of an Adam step for each parameter.
pub fn deep_mlp(blocks: usize) -> Graph {
    let mut step = Step::new();
    let mut x = step.input(0, TensorType::f32([3, 4]));
    let targets = step.input(1, TensorType::i32([3]));
    for _ in 0..blocks {
        let (gain, up, down) = (step.parameter(&[4]), step.parameter(&[8, 4]), step.parameter(&[4, 8]));
        let n = step.norm(x, gain, true);
        let h = step.linear(n, up);
        let h = step.gelu(h);
        let y = step.linear(h, down);
        x = step.graph.plus(x, y);
    }
    let loss = step.cross_entropy(x, targets);
    let mut graph = step.finish(loss);
    for index in 0..3 * blocks as u32 {
        let gradient = graph.output(&Output::Parameter(index)).expect("every parameter has a gradient");
        adam(&mut graph, index, gradient);
    }
    graph
}

fn adam(graph: &mut Graph, index: u32, gradient: NodeId) {
    let shape = graph.shape(gradient).to_vec();
    let state = |graph: &mut Graph, index| graph.add(Op::State { index, shape: shape.clone() }, &[]);
    let [m, v] = [2 * index, 2 * index + 1].map(|index| state(graph, index));
    let parameter = graph.add(Op::Parameter { index, shape: shape.clone() }, &[]);
    let (old, new) = (graph.scale(m, 0.9), graph.scale(gradient, 0.1));
    let first = graph.plus(old, new);
    let square = graph.times(gradient, gradient);
    let power = graph.times(v, v);
    let (old, new) = (graph.scale(power, 0.99), graph.scale(square, 0.01));
    let second = graph.plus(old, new);
    let root = graph.unary(Unary::Sqrt, second);
    let epsilon = graph.full_like(1e-3, root);
    let divisor = graph.plus(root, epsilon);
    let ratio = graph.over(first, divisor);
    let change = graph.scale(ratio, 0.01);
    let moved = graph.minus(parameter, change);
    let outputs =
        [(Output::Parameter(index), moved), (Output::State(2 * index), first), (Output::State(2 * index + 1), second)];
    outputs.into_iter().for_each(|(output, node)| graph.set_output(output, node));
}

/// Attention and nothing else, small enough for proofs that are written out in full.
pub fn attention_alone(style: Style) -> Graph {
    let mut step = Step::new();
    let x = step.input(0, TensorType::f32([BATCH, TOKENS, WIDTH]));
    let (qkv, out) = (step.parameter(&[WIDTH + 2 * WIDTH / style.group, WIDTH]), step.parameter(&[WIDTH, WIDTH]));
    let y = step.attention(x, qkv, out, style);
    let loss = step.graph.sum_all(y);
    step.finish(loss)
}

/// A language model of `depth` blocks in one repeat.
pub fn transformer(style: Style, depth: u64) -> Graph {
    let mut step = Step::new();
    let tokens = step.input(0, TensorType::i32([BATCH, TOKENS]));
    let targets = step.input(1, TensorType::i32([BATCH, TOKENS]));
    let table = step.parameter(&[7, WIDTH]);
    let wide = WIDTH + 2 * WIDTH / style.group;
    let stacked: Vec<NodeId> =
        [&[wide, WIDTH][..], &[WIDTH, WIDTH], &[8, WIDTH], &[8, WIDTH], &[WIDTH, 8], &[WIDTH], &[WIDTH]]
            .iter()
            .map(|shape| step.parameter(&[&[depth], *shape].concat()))
            .collect();
    let head = step.parameter(&[7, WIDTH]);
    let x = step.graph.add(Op::Gather, &[table, tokens]);
    let scope = step.graph.add_scope("block", depth);
    let x = step.graph.add_carry(scope, x, false);
    let w: Vec<NodeId> = stacked.iter().map(|&p| step.graph.add(Op::Layer { scope }, &[p])).collect();
    let n = step.norm(x, w[5], !style.llama);
    let a = step.attention(n, w[0], w[1], style);
    let y = step.graph.plus(x, a);
    let n = step.norm(y, w[6], !style.llama);
    let (h, gate) = (step.linear(n, w[2]), step.linear(n, w[3]));
    let h = if style.llama { step.silu(h) } else { step.gelu(h) };
    let h = step.graph.times(h, gate);
    let f = step.linear(h, w[4]);
    let z = step.graph.plus(y, f);
    step.graph.set_next(x, z);
    let x = step.graph.add(Op::Last, &[x]);
    let logits = step.linear(x, head);
    let loss = step.cross_entropy(logits, targets);
    step.finish(loss)
}

/// A convolution by windows, a pooling and a linear layer.
fn cnn() -> Graph {
    let mut step = Step::new();
    let x = step.input(0, TensorType::f32([2, 6, 6, 3]));
    let targets = step.input(1, TensorType::i32([2]));
    let (kernel, w) = (step.parameter(&[3, 3, 3, 4]), step.parameter(&[4, 16]));
    let g = &mut step.graph;
    let x = g.add(Op::Window { axis: 1, size: 3, stride: 1 }, &[x]);
    let x = g.add(Op::Window { axis: 3, size: 3, stride: 1 }, &[x]);
    let x = g.contract(x, kernel, [&[0, 1, 2, 3, 4, 5], &[2, 4, 5, 6], &[0, 1, 3, 6]], Precision::F32);
    let zero = g.full_like(0.0, x);
    let x = g.binary(Binary::Max, x, zero);
    let x = g.add(Op::Window { axis: 1, size: 2, stride: 2 }, &[x]);
    let x = g.add(Op::Window { axis: 3, size: 2, stride: 2 }, &[x]);
    let x = g.reduce(ReduceKind::Max, x, &[2, 4]);
    let x = g.reshape(x, &[2, 16]);
    let logits = step.linear(x, w);
    let loss = step.cross_entropy(logits, targets);
    step.finish(loss)
}
