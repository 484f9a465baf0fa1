//! Graphs to schedule.

use super::Case;
use crate::graph::{ControlField, Graph, NodeId, Op, Output, TensorType};
use trainc_kernels::ir::{Binary, Precision, ReduceKind, Unary};

/// Shorthands for building a case.
pub struct Builder {
    pub g: Graph,
    pub parameters: Vec<Vec<u64>>,
    pub states: Vec<Vec<u64>>,
    inputs: u32,
}

impl Builder {
    pub fn new() -> Self {
        Self { g: Graph::new("step"), parameters: Vec::new(), states: Vec::new(), inputs: 0 }
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
        self.g.contract(a, b, [labels[0], labels[1], labels[2]], Precision::F32)
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
        let mut corrected = |g: &mut Graph, beta: f64, x: NodeId| {
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

    pub fn done(self, below: i32) -> Case {
        Case { graph: self.g, parameters: self.parameters, states: self.states, below }
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
    let _ = ReduceKind::Sum;
    b.done(1)
}
