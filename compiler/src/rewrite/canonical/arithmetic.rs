//! Element-wise operations: constants are folded, neutral elements vanish, signs and scalar factors move outward, and
//! what does not depend on an axis is computed before it is broadcast along it.
//!
//! Folding is in f64; a folded constant is rounded once, when code is made of it.

use super::Builder;
use crate::graph::{NodeId, Op, TensorType};
use trainc_kernels::ir::{Binary, Unary};
use trainc_runtime::artifact::DType;

impl Builder {
    pub(super) fn unary(&mut self, f: Unary, x: NodeId) -> Option<NodeId> {
        if let Some(value) = self.uniform(x) {
            let folded = f.apply(value);
            return folded.is_finite().then(|| self.fill(folded, &self.ty(x)));
        }
        if f == Unary::Neg
            && let Some(simpler) = self.negation(x)
        {
            return Some(simpler);
        }
        let (axes, inner) = self.as_broadcast(x)?;
        let inner = self.build(Op::Unary(f), &[inner]);
        Some(self.build(Op::Broadcast { axes, shape: self.shape(x).to_vec() }, &[inner]))
    }

    fn negation(&mut self, x: NodeId) -> Option<NodeId> {
        let operands = self.graph.operands(x);
        match *self.op(x) {
            Op::Unary(Unary::Neg) => Some(operands[0]),
            Op::Binary(Binary::Sub) => Some(self.build(Op::Binary(Binary::Sub), &[operands[1], operands[0]])),
            Op::Binary(Binary::Mul) => {
                let factor = self.uniform(operands[1])?;
                Some(self.scale(operands[0], -factor))
            }
            _ => None,
        }
    }

    /// `x * factor`.
    pub(super) fn scale(&mut self, x: NodeId, factor: f64) -> NodeId {
        let factor = self.fill(factor, &self.ty(x));
        self.build(Op::Binary(Binary::Mul), &[x, factor])
    }

    pub(super) fn neg(&mut self, x: NodeId) -> NodeId {
        self.build(Op::Unary(Unary::Neg), &[x])
    }

    /// What a node is the negative of, by its form.
    pub(super) fn negated(&mut self, x: NodeId) -> Option<NodeId> {
        match self.op(x).clone() {
            Op::Unary(Unary::Neg) => Some(self.operand(x)),
            Op::Broadcast { axes, shape } => {
                let inner = self.negated(self.operand(x))?;
                Some(self.build(Op::Broadcast { axes, shape }, &[inner]))
            }
            _ => None,
        }
    }

    pub(super) fn binary(&mut self, f: Binary, x: NodeId, y: NodeId) -> Option<NodeId> {
        if let (Some(a), Some(b)) = (self.uniform(x), self.uniform(y)) {
            return self.fold(f, a, b, x);
        }
        let simpler = match f {
            Binary::Add => self.sum(x, y),
            Binary::Sub => self.difference(x, y),
            Binary::Mul => self.product(x, y),
            Binary::Div => self.quotient(x, y),
            Binary::Pow => self.power(x, y),
            Binary::Max | Binary::Min if x == y => Some(x),
            _ => None,
        };
        simpler.or_else(|| self.below_broadcasts(f, x, y))
    }

    /// A function of constants. Integers divide in their own way: that is left to run time.
    fn fold(&mut self, f: Binary, a: f64, b: f64, x: NodeId) -> Option<NodeId> {
        let ty = self.ty(x);
        let comparison = matches!(f, Binary::Less | Binary::LessEqual | Binary::Equal);
        let dtype = if comparison { DType::F32 } else { ty.dtype };
        let value = f.apply(a, b);
        let exact =
            ty.dtype == DType::F32 || !matches!(f, Binary::Div | Binary::Pow) && value.abs() < f64::from(i32::MAX);
        (exact && value.is_finite()).then(|| self.fill(value, &TensorType { dtype, shape: ty.shape }))
    }

    fn sum(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        if self.uniform(x) == Some(0.0) {
            return Some(y);
        }
        if self.uniform(y) == Some(0.0) {
            return Some(x);
        }
        if let Some(y) = self.negated(y) {
            return Some(self.build(Op::Binary(Binary::Sub), &[x, y]));
        }
        if let Some(x) = self.negated(x) {
            return Some(self.build(Op::Binary(Binary::Sub), &[y, x]));
        }
        self.sum_of_pads(x, y).or_else(|| self.sum_of_pads(y, x))
    }

    /// Padded values that lie one after the other are a concatenation: what differentiating slices leaves behind.
    fn sum_of_pads(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        let (&Op::Pad { axis, before, after }, &Op::Pad { axis: second, before: gap, after: rest }) =
            (self.op(x), self.op(y))
        else {
            return None;
        };
        let total = self.shape(x)[axis];
        if axis != second || gap != total - after {
            return None;
        }
        let parts = [self.operand(x), self.operand(y)];
        let joined = self.build(Op::Concat { axis }, &parts);
        Some(self.build(Op::Pad { axis, before, after: rest }, &[joined]))
    }

    fn difference(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        if self.uniform(y) == Some(0.0) {
            return Some(x);
        }
        if self.uniform(x) == Some(0.0) && self.ty(x).dtype == DType::F32 {
            return Some(self.neg(y));
        }
        if x == y {
            return Some(self.fill(0.0, &self.ty(x)));
        }
        let y = self.negated(y)?;
        Some(self.build(Op::Binary(Binary::Add), &[x, y]))
    }

    fn product(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        if self.uniform(x).is_some() {
            return Some(self.build(Op::Binary(Binary::Mul), &[y, x]));
        }
        if let Some(factor) = self.uniform(y) {
            return self.product_with(x, factor, y);
        }
        if let Some(x) = self.negated(x) {
            let product = self.build(Op::Binary(Binary::Mul), &[x, y]);
            return Some(self.neg(product));
        }
        let y = self.negated(y)?;
        let product = self.build(Op::Binary(Binary::Mul), &[x, y]);
        Some(self.neg(product))
    }

    fn product_with(&mut self, x: NodeId, factor: f64, y: NodeId) -> Option<NodeId> {
        if factor == 1.0 {
            return Some(x);
        }
        if factor == 0.0 {
            return Some(y);
        }
        if self.ty(x).dtype != DType::F32 {
            return None;
        }
        if factor == -1.0 {
            return Some(self.neg(x));
        }
        let operands = self.graph.operands(x);
        match *self.op(x) {
            Op::Unary(Unary::Neg) => Some(self.scale(operands[0], -factor)),
            Op::Binary(Binary::Mul) => {
                let inner = self.uniform(operands[1])?;
                Some(self.scale(operands[0], inner * factor))
            }
            _ => None,
        }
    }

    fn quotient(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        if self.ty(x).dtype != DType::F32 {
            return None;
        }
        if let Some(divisor) = self.uniform(y) {
            return (divisor != 0.0).then(|| self.scale(x, 1.0 / divisor));
        }
        if self.uniform(x) == Some(1.0) {
            return Some(self.build(Op::Unary(Unary::Reciprocal), &[y]));
        }
        if self.uniform(x) == Some(0.0) {
            return Some(x);
        }
        let x = self.negated(x)?;
        let quotient = self.build(Op::Binary(Binary::Div), &[x, y]);
        Some(self.neg(quotient))
    }

    /// Powers with small known exponents; as products they are also right for negative bases.
    fn power(&mut self, x: NodeId, y: NodeId) -> Option<NodeId> {
        let exponent = self.uniform(y)?;
        let unary = |f| Some(Op::Unary(f));
        let op = match exponent {
            0.5 => unary(Unary::Sqrt),
            -0.5 => unary(Unary::Rsqrt),
            -1.0 => unary(Unary::Reciprocal),
            _ => None,
        };
        if let Some(op) = op {
            return Some(self.build(op, &[x]));
        }
        match exponent {
            0.0 => Some(self.fill(1.0, &self.ty(x))),
            1.0 => Some(x),
            4.0 => {
                let square = self.build(Op::Binary(Binary::Mul), &[x, x]);
                Some(self.build(Op::Binary(Binary::Mul), &[square, square]))
            }
            -2.0 => {
                let square = self.build(Op::Binary(Binary::Mul), &[x, x]);
                Some(self.build(Op::Unary(Unary::Reciprocal), &[square]))
            }
            _ if exponent.fract() == 0.0 && (2.0..=8.0).contains(&exponent) => {
                Some((1..exponent as u32).fold(x, |power, _| self.build(Op::Binary(Binary::Mul), &[power, x])))
            }
            _ => None,
        }
    }

    /// `f(broadcast(x), broadcast(y)) = broadcast(f(x, y))` where both go along the same axes, or one is uniform.
    fn below_broadcasts(&mut self, f: Binary, x: NodeId, y: NodeId) -> Option<NodeId> {
        let inner = self.below([x, y])?;
        let shape = self.shape(x).to_vec();
        let value = self.build(Op::Binary(f), &inner.1);
        Some(self.build(Op::Broadcast { axes: inner.0, shape }, &[value]))
    }

    /// The axes along which all these broadcasts have their operands, and operands on these axes alone.
    fn below<const N: usize>(&mut self, nodes: [NodeId; N]) -> Option<(Vec<usize>, [NodeId; N])> {
        let varying = nodes.iter().copied().find(|&node| self.uniform(node).is_none())?;
        let (axes, inner) = self.as_broadcast(varying)?;
        let extents = self.shape(inner).to_vec();
        let mut below = [inner; N];
        for (slot, &node) in below.iter_mut().zip(&nodes) {
            *slot = match (self.uniform(node), self.as_broadcast(node)) {
                (Some(value), _) => {
                    let ty = TensorType { dtype: self.ty(node).dtype, shape: extents.clone() };
                    self.fill(value, &ty)
                }
                (None, Some((other, inner))) if other == axes => inner,
                _ => return None,
            };
        }
        Some((axes, below))
    }

    pub(super) fn select(&mut self, condition: NodeId, x: NodeId, y: NodeId) -> Option<NodeId> {
        if x == y {
            return Some(x);
        }
        if let Some(value) = self.uniform(condition) {
            return Some(if value != 0.0 { x } else { y });
        }
        let (axes, inner) = self.below([condition, x, y])?;
        let shape = self.shape(x).to_vec();
        let value = self.build(Op::Select, &inner);
        Some(self.build(Op::Broadcast { axes, shape }, &[value]))
    }

    pub(super) fn convert(&mut self, op: &Op, x: NodeId) -> Option<NodeId> {
        let dtype = if *op == Op::ToFloat { DType::F32 } else { DType::I32 };
        if let Some(value) = self.uniform(x) {
            let shape = self.shape(x).to_vec();
            let value = if dtype == DType::I32 { f64::from(value as i32) } else { value };
            return Some(self.fill(value, &TensorType { dtype, shape }));
        }
        let (axes, inner) = self.as_broadcast(x)?;
        let inner = self.build(op.clone(), &[inner]);
        Some(self.build(Op::Broadcast { axes, shape: self.shape(x).to_vec() }, &[inner]))
    }
}
