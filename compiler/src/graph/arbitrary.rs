//! Random well-typed graphs, for tests that hold for every graph: a pass must not change what the interpreter computes.
//!
//! Everything is drawn from a seed, so that a failing graph is found again by its seed. Values stay moderate, and the
//! functions are smooth but for max, min, select and abs, so that central differences can be trusted.

use super::*;
use trainc_kernels::ir::{Binary, Generator, Precision, ReduceKind, Unary};
use trainc_runtime::philox::Draw;

/// A graph with parameters, something bound to them, and a scalar made from them (also its report `loss`).
pub struct Sample {
    /// The graph.
    pub graph: Graph,
    /// Values of its parameters.
    pub bindings: Bindings,
    /// Its parameters.
    pub parameters: Vec<NodeId>,
    /// The scalar.
    pub loss: NodeId,
}

/// The graph of a seed, with about this many random operations in each repeat and outside.
pub fn sample(seed: u64, operations: usize) -> Sample {
    let mut builder = Builder::new(seed);
    for _ in 0..3 {
        let shape = builder.shape();
        builder.parameter(shape);
    }
    (0..operations).for_each(|_| builder.operation());
    for repeat in 0..builder.below(3) {
        builder.repeat(repeat, operations);
        (0..operations / 2).for_each(|_| builder.operation());
    }
    builder.finish()
}

struct Builder {
    draw: Draw,
    drawn: u32,
    graph: Graph,
    bindings: Bindings,
    parameters: Vec<NodeId>,
    /// f32 values that may be used where we are.
    values: Vec<NodeId>,
}

impl Builder {
    fn new(seed: u64) -> Self {
        Self {
            draw: Draw { seed, stream: 0, step: 0, instance: 0 },
            drawn: 0,
            graph: Graph::new("random"),
            bindings: Bindings { seed, step: 2, steps: 9, ..Bindings::default() },
            parameters: Vec::new(),
            values: Vec::new(),
        }
    }

    fn uniform(&mut self) -> f64 {
        self.drawn += 1;
        f64::from(self.draw.uniform(self.drawn))
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.uniform() * bound as f64) as usize
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    fn shape(&mut self) -> Vec<u64> {
        (0..self.below(4)).map(|_| 1 + self.below(4) as u64).collect()
    }

    fn parameter(&mut self, shape: Vec<u64>) -> NodeId {
        let index = self.parameters.len() as u32;
        let ty = TensorType::f32(shape.as_slice());
        let data = (0..ty.elements()).map(|_| 2.0 * self.uniform() - 1.0).collect();
        self.bindings.parameters.insert(index, Tensor::new(ty, data));
        let node = self.graph.add(Op::Parameter { index, shape }, &[]);
        self.parameters.push(node);
        self.values.push(node);
        node
    }

    /// One of the values, recent ones more often.
    fn pick(&mut self) -> NodeId {
        let back = self.below(self.values.len()).min(self.below(self.values.len()));
        self.values[self.values.len() - 1 - back]
    }

    fn axis(&mut self, node: NodeId) -> usize {
        let rank = self.graph.shape(node).len();
        self.below(rank)
    }

    /// Adds a random operation, and keeps its values moderate.
    fn operation(&mut self) {
        let x = self.pick();
        let large = self.graph.node(x).ty.elements() > 64;
        let y = match (self.below(8), self.graph.shape(x).len()) {
            (0, _) => self.unary(x),
            (1 | 2, _) => self.binary(x),
            (_, 0) => self.widen(x),
            (3, 1..=3) if !large => self.widen(x),
            (3 | 4, _) => self.move_elements(x),
            (5, _) => self.reduce(x),
            (6, _) => self.contract(x),
            _ => self.look_up(x),
        };
        let y = if self.flip() { self.graph.unary(Unary::Tanh, y) } else { self.graph.scale(y, 0.5) };
        self.values.push(y);
    }

    fn unary(&mut self, x: NodeId) -> NodeId {
        let functions = [
            Unary::Neg,
            Unary::Abs,
            Unary::Exp,
            Unary::Log,
            Unary::Sqrt,
            Unary::Rsqrt,
            Unary::Reciprocal,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Softplus,
            Unary::Sin,
            Unary::Cos,
            Unary::Erf,
        ];
        match functions[self.below(functions.len())] {
            function @ (Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal) => {
                let positive = self.positive(x);
                self.graph.unary(function, positive)
            }
            Unary::Exp => {
                let bounded = self.graph.unary(Unary::Tanh, x);
                self.graph.unary(Unary::Exp, bounded)
            }
            function => self.graph.unary(function, x),
        }
    }

    /// `1 + x^2`.
    fn positive(&mut self, x: NodeId) -> NodeId {
        let (square, one) = (self.graph.times(x, x), self.graph.full_like(1.0, x));
        self.graph.plus(square, one)
    }

    fn binary(&mut self, a: NodeId) -> NodeId {
        let b = self.pick();
        let b = self.fitted(b, a);
        match self.below(8) {
            0 | 1 => self.graph.plus(a, b),
            2 => self.graph.minus(a, b),
            3 => self.graph.times(a, b),
            4 => {
                let below = self.positive(b);
                self.graph.over(a, below)
            }
            5 => {
                let base = self.positive(a);
                let exponent = self.graph.unary(Unary::Tanh, b);
                self.graph.binary(Binary::Pow, base, exponent)
            }
            6 => {
                let function = if self.flip() { Binary::Max } else { Binary::Min };
                self.graph.binary(function, a, b)
            }
            _ => {
                let condition = self.graph.binary(Binary::Less, a, b);
                let other = self.graph.unary(Unary::Sin, a);
                self.graph.select(condition, other, b)
            }
        }
    }

    /// A value made to have the shape of another.
    fn fitted(&mut self, x: NodeId, like: NodeId) -> NodeId {
        if self.graph.shape(x) == self.graph.shape(like) {
            return x;
        }
        let elements = self.graph.node(x).ty.elements() as f64;
        let sum = self.graph.sum_all(x);
        let mean = self.graph.scale(sum, 1.0 / elements);
        let shape = self.graph.shape(like).to_vec();
        self.graph.broadcast_to_leading(mean, &shape)
    }

    fn widen(&mut self, x: NodeId) -> NodeId {
        let mut shape = self.graph.shape(x).to_vec();
        let axis = self.below(shape.len() + 1);
        shape.insert(axis, 1 + self.below(3) as u64);
        self.graph.broadcast_along(x, &[axis], &shape)
    }

    fn move_elements(&mut self, x: NodeId) -> NodeId {
        let axis = self.axis(x);
        let extent = self.graph.shape(x)[axis];
        match self.below(6) {
            0 => {
                let elements = self.graph.node(x).ty.elements();
                self.graph.reshape(x, &[elements])
            }
            1 => {
                let rank = self.graph.shape(x).len();
                let axes: Vec<usize> = (0..rank).map(|i| (i + axis + 1) % rank).collect();
                self.graph.permute(x, &axes)
            }
            2 => {
                let length = 1 + self.below(extent as usize) as u64;
                let start = self.below((extent - length + 1) as usize) as u64;
                self.graph.slice(x, axis, start, length)
            }
            3 => {
                let (before, after) = (self.below(2) as u64, self.below(3) as u64);
                self.graph.add(Op::Pad { axis, before, after }, &[x])
            }
            4 => {
                let other = self.graph.unary(Unary::Cos, x);
                self.graph.add(Op::Concat { axis }, &[x, other])
            }
            _ => self.windows(x, axis, extent),
        }
    }

    fn windows(&mut self, x: NodeId, axis: usize, extent: u64) -> NodeId {
        let size = 1 + self.below(extent as usize) as u64;
        let stride = 1 + self.below(2) as u64;
        let windows = self.graph.add(Op::Window { axis, size, stride }, &[x]);
        if self.flip() {
            return self.graph.sum(windows, &[axis]);
        }
        let bent = self.graph.unary(Unary::Sin, windows);
        self.graph.add(Op::Unwindow { axis, stride, extent }, &[bent])
    }

    fn reduce(&mut self, x: NodeId) -> NodeId {
        let rank = self.graph.shape(x).len();
        let mut axes: Vec<usize> = (0..rank).filter(|_| self.flip()).collect();
        if axes.is_empty() {
            axes.push(self.axis(x));
        }
        let kind = if self.flip() { ReduceKind::Sum } else { ReduceKind::Max };
        self.graph.reduce(kind, x, &axes)
    }

    /// A product with another value that shares as many extents as there are; a shared label is summed or kept.
    fn contract(&mut self, a: NodeId) -> NodeId {
        let b = self.pick();
        let (left, right) = (self.graph.shape(a).to_vec(), self.graph.shape(b).to_vec());
        let lhs: Vec<u8> = (0..left.len() as u8).collect();
        let mut rhs: Vec<u8> = Vec::new();
        for (axis, &extent) in right.iter().enumerate() {
            let shared = lhs.iter().copied().find(|&label| left[label as usize] == extent && !rhs.contains(&label));
            rhs.push(shared.unwrap_or((left.len() + axis) as u8));
        }
        let own: Vec<u8> = rhs.iter().copied().filter(|label| !lhs.contains(label)).collect();
        let mut out: Vec<u8> = lhs.iter().copied().filter(|label| !rhs.contains(label) || self.flip()).collect();
        out.splice(0..0, own);
        let product = self.graph.contract(a, b, [&lhs, &rhs, &out], Precision::F32);
        self.shrunk(product)
    }

    /// Sums leading axes until the value is small.
    fn shrunk(&mut self, mut x: NodeId) -> NodeId {
        while self.graph.node(x).ty.elements() > 64 || self.graph.shape(x).len() > 3 {
            x = self.graph.sum(x, &[0]);
        }
        self.graph.scale(x, 0.25)
    }

    /// Rows of a table by ids, some twice, or rows added up by ids.
    fn look_up(&mut self, x: NodeId) -> NodeId {
        let rows = self.graph.shape(x)[0];
        let index = self.graph.add(Op::Iota { axis: 0, shape: vec![rows] }, &[]);
        let bound = self.below(rows as usize) as f64;
        let bound = self.graph.full_like(bound, index);
        let ids = self.graph.binary(Binary::Min, index, bound);
        if self.flip() {
            self.graph.add(Op::Gather, &[x, ids])
        } else {
            self.graph.add(Op::Scatter { rows: rows + 1 }, &[ids, x])
        }
    }

    /// A repeat with layers and one or two carries, and what leads out of it.
    fn repeat(&mut self, number: usize, operations: usize) {
        let outside = self.values.clone();
        let count = 1 + self.below(4) as u64;
        let reversed = self.below(4) == 0;
        let inits: Vec<NodeId> = (0..=self.below(2)).map(|_| self.pick()).collect();
        let stacked = [&[count], self.shape().as_slice()].concat();
        let stack = self.parameter(stacked);
        let scope = self.graph.add_scope("body", count);
        let carries: Vec<NodeId> = inits.iter().map(|&init| self.graph.add_carry(scope, init, reversed)).collect();
        self.values.extend(&carries);
        let layer = self.graph.add(Op::Layer { scope }, &[stack]);
        let noise = Op::Random {
            generator: Generator::Philox,
            stream: number as u32,
            shape: self.graph.shape(layer).to_vec(),
            scope,
        };
        let noise = self.graph.add(noise, &[]);
        self.values.extend([noise, layer]);
        (0..operations).for_each(|_| self.operation());
        self.close(&carries);
        let exits: Vec<NodeId> = (0..3).map(|_| self.pick()).collect();
        self.values = outside;
        self.leave(&carries, &exits, count);
    }

    fn close(&mut self, carries: &[NodeId]) {
        for &carry in carries {
            let next = self.pick();
            let next = self.fitted(next, carry);
            self.graph.set_next(carry, next);
        }
    }

    fn leave(&mut self, carries: &[NodeId], exits: &[NodeId], count: u64) {
        let mut left: Vec<NodeId> = carries.iter().map(|&carry| self.graph.add(Op::Last, &[carry])).collect();
        for &exit in exits {
            let scope = self.graph.node(exit).scope;
            left.push(match scope {
                ScopeId::ROOT => exit,
                _ if self.flip() => self.graph.add(Op::SumInstances, &[exit]),
                _ => self.graph.add(Op::Stack { count }, &[exit]),
            });
        }
        self.values.extend(left);
    }

    /// The scalar: recent values, each element weighted by a draw of its own.
    fn finish(mut self) -> Sample {
        let mut loss = self.graph.constant(0.0);
        for (stream, value) in (100..).zip(self.values.clone().into_iter().rev().take(6)) {
            let shape = self.graph.shape(value).to_vec();
            let weights =
                self.graph.add(Op::Random { generator: Generator::Philox, stream, shape, scope: ScopeId::ROOT }, &[]);
            let weighted = self.graph.times(value, weights);
            let sum = self.graph.sum_all(weighted);
            loss = self.graph.plus(loss, sum);
        }
        self.graph.set_output(Output::Report("loss".into()), loss);
        Sample { graph: self.graph, bindings: self.bindings, parameters: self.parameters, loss }
    }
}
