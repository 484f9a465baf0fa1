//! Shorthands for building graphs that are known to be well-typed; they panic where [`Graph::add`] does.

use super::{Contraction, Graph, NodeId, Op, TensorType};
use trainc_kernels::ir::{Binary, Precision, ReduceKind, Unary};
use trainc_runtime::artifact::DType;

impl Graph {
    /// An f32 scalar.
    pub fn constant(&mut self, value: f64) -> NodeId {
        self.add(Op::constant(value), &[])
    }

    /// An i32 scalar.
    pub fn integer(&mut self, value: i32) -> NodeId {
        self.add(Op::Constant { value: f64::from(value).into(), dtype: DType::I32 }, &[])
    }

    /// An f32 tensor of one value.
    pub fn full(&mut self, value: f64, shape: &[u64]) -> NodeId {
        let scalar = self.constant(value);
        self.broadcast(scalar, &[], shape)
    }

    /// A constant of a node's type.
    pub fn full_like(&mut self, value: f64, like: NodeId) -> NodeId {
        let TensorType { dtype, shape } = self.node(like).ty.clone();
        let scalar = self.add(Op::Constant { value: value.into(), dtype }, &[]);
        self.broadcast(scalar, &[], &shape)
    }

    /// The value of all elements, if the node is a constant or a broadcast one.
    pub fn splat(&self, node: NodeId) -> Option<f64> {
        match self.node(node).op {
            Op::Constant { value, .. } => Some(value.get()),
            Op::Broadcast { .. } | Op::Reshape { .. } => self.splat(self.operands(node)[0]),
            _ => None,
        }
    }

    /// A function of each element.
    pub fn unary(&mut self, function: Unary, x: NodeId) -> NodeId {
        self.add(Op::Unary(function), &[x])
    }

    /// A function of two tensors of one type.
    pub fn binary(&mut self, function: Binary, a: NodeId, b: NodeId) -> NodeId {
        self.add(Op::Binary(function), &[a, b])
    }

    /// `a + b`.
    pub fn plus(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`.
    pub fn minus(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Sub, a, b)
    }

    /// `a * b`, element by element.
    pub fn times(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`, element by element.
    pub fn over(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Binary::Div, a, b)
    }

    /// `factor * x`.
    pub fn scale(&mut self, x: NodeId, factor: f64) -> NodeId {
        let factor = self.full_like(factor, x);
        self.times(x, factor)
    }

    /// `a` where the condition is not 0, else `b`.
    pub fn select(&mut self, condition: NodeId, a: NodeId, b: NodeId) -> NodeId {
        self.add(Op::Select, &[condition, a, b])
    }

    /// Copies along new axes: axis i of `x` becomes axis `axes[i]` of `shape`.
    pub fn broadcast(&mut self, x: NodeId, axes: &[usize], shape: &[u64]) -> NodeId {
        if self.shape(x) == shape {
            return x;
        }
        self.add(Op::Broadcast { axes: axes.to_vec(), shape: shape.to_vec() }, &[x])
    }

    /// Copies along new leading axes, so that the shape becomes `shape`, which ends in that of `x`.
    pub fn broadcast_to_leading(&mut self, x: NodeId, shape: &[u64]) -> NodeId {
        let axes: Vec<usize> = (shape.len().saturating_sub(self.shape(x).len())..shape.len()).collect();
        self.broadcast(x, &axes, shape)
    }

    /// The inverse of a reduction over `axes` (ascending): copies along them, so that the shape becomes `shape`.
    pub fn broadcast_along(&mut self, x: NodeId, axes: &[usize], shape: &[u64]) -> NodeId {
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
        self.broadcast(x, &kept, shape)
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, x: NodeId, shape: &[u64]) -> NodeId {
        if self.shape(x) == shape {
            return x;
        }
        self.add(Op::Reshape { shape: shape.to_vec() }, &[x])
    }

    /// Axis i of the result is axis `axes[i]` of `x`.
    pub fn permute(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        if axes.iter().copied().eq(0..self.shape(x).len()) {
            return x;
        }
        self.add(Op::Permute { axes: axes.to_vec() }, &[x])
    }

    /// A reduction over some axes; over none, `x` itself.
    pub fn reduce(&mut self, kind: ReduceKind, x: NodeId, axes: &[usize]) -> NodeId {
        if axes.is_empty() && kind != ReduceKind::ArgMax {
            return x;
        }
        self.add(Op::Reduce { kind, axes: axes.to_vec() }, &[x])
    }

    /// The sum over some axes.
    pub fn sum(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        self.reduce(ReduceKind::Sum, x, axes)
    }

    /// The sum of all elements.
    pub fn sum_all(&mut self, x: NodeId) -> NodeId {
        let axes: Vec<usize> = (0..self.shape(x).len()).collect();
        self.sum(x, &axes)
    }

    /// Elements `start`, `start + 1`, ... along an axis.
    pub fn slice(&mut self, x: NodeId, axis: usize, start: u64, length: u64) -> NodeId {
        if length == self.shape(x)[axis] {
            return x;
        }
        self.add(Op::Slice { axis, start, length }, &[x])
    }

    /// An einsum of two operands.
    pub fn contract(&mut self, a: NodeId, b: NodeId, labels: [&[u8]; 3], precision: Precision) -> NodeId {
        let [lhs, rhs, out] = labels.map(<[u8]>::to_vec);
        self.add(Op::Contract(Contraction { lhs, rhs, out, precision }), &[a, b])
    }

    /// A further result of an operation with several.
    pub fn project(&mut self, whole: NodeId, index: u32) -> NodeId {
        self.add(Op::Project { index }, &[whole])
    }

    /// `a * b`, without a multiplication where one of them is 1 throughout.
    pub fn product(&mut self, a: NodeId, b: NodeId) -> NodeId {
        match (self.splat(a), self.splat(b)) {
            (Some(1.0), _) => b,
            (_, Some(1.0)) => a,
            (Some(x), Some(y)) => self.full_like(x * y, a),
            _ => self.times(a, b),
        }
    }

    /// `-x`, folded if x is constant or itself a negation.
    pub fn negative(&mut self, x: NodeId) -> NodeId {
        match (self.splat(x), &self.node(x).op) {
            (Some(value), _) => self.full_like(-value, x),
            (_, Op::Unary(Unary::Neg)) => self.operands(x)[0],
            _ => self.unary(Unary::Neg, x),
        }
    }

    /// The sum over some axes, folded if x is constant.
    pub fn total(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        let Some(value) = self.splat(x) else { return self.sum(x, axes) };
        let shape = self.shape(x);
        let terms: u64 = axes.iter().map(|&axis| shape[axis]).product();
        let kept: Vec<u64> = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
        self.full(value * terms as f64, &kept)
    }
}
