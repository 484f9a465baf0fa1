//! Reductions: nothing is summed that is known to be constant along the axis, and sums of products over two private
//! sets of axes are contractions.

use super::Builder;
use crate::graph::{Contraction, NodeId, Op};
use trainc_kernels::ir::{Binary, ReduceKind, Unary};
use trainc_runtime::artifact::DType;

impl Builder {
    pub(super) fn reduce(&mut self, kind: ReduceKind, axes: &[usize], x: NodeId) -> Option<NodeId> {
        if kind == ReduceKind::ArgMax {
            return None;
        }
        if axes.is_empty() {
            return Some(x);
        }
        if axes.iter().all(|&axis| self.shape(x)[axis] == 1) {
            let shape = without(self.shape(x), axes);
            return Some(self.build(Op::Reshape { shape }, &[x]));
        }
        let simpler = match self.op(x).clone() {
            Op::Broadcast { axes: places, .. } => self.reduce_broadcast(kind, axes, &places, x),
            Op::Reduce { kind: inner, axes: first } if inner == kind => Some(self.reduce_twice(kind, axes, &first, x)),
            Op::Permute { axes: order } => Some(self.reduce_permuted(kind, axes, &order, x)),
            _ => None,
        };
        match kind {
            ReduceKind::Sum => simpler.or_else(|| self.sum_over(axes, x)),
            _ => simpler,
        }
    }

    /// Along new axes of a broadcast, a sum is a multiple and a maximum is the value.
    fn reduce_broadcast(&mut self, kind: ReduceKind, axes: &[usize], places: &[usize], x: NodeId) -> Option<NodeId> {
        let (new, old): (Vec<usize>, Vec<usize>) = axes.iter().partition(|axis| !places.contains(axis));
        if new.is_empty() {
            return None;
        }
        let copies: u64 = new.iter().map(|&axis| self.shape(x)[axis]).product();
        let shape = without(self.shape(x), &new);
        let places = renumber(places, &new);
        let fewer = self.build(Op::Broadcast { axes: places, shape }, &[self.operand(x)]);
        let reduced = self.build(Op::Reduce { kind, axes: renumber(&old, &new) }, &[fewer]);
        Some(if kind == ReduceKind::Sum { self.scale(reduced, copies as f64) } else { reduced })
    }

    fn reduce_twice(&mut self, kind: ReduceKind, second: &[usize], first: &[usize], x: NodeId) -> NodeId {
        let inner = self.operand(x);
        let kept: Vec<usize> = (0..self.shape(inner).len()).filter(|axis| !first.contains(axis)).collect();
        let mut axes: Vec<usize> = second.iter().map(|&axis| kept[axis]).chain(first.iter().copied()).collect();
        axes.sort_unstable();
        self.build(Op::Reduce { kind, axes }, &[inner])
    }

    fn reduce_permuted(&mut self, kind: ReduceKind, axes: &[usize], order: &[usize], x: NodeId) -> NodeId {
        let mut inner: Vec<usize> = axes.iter().map(|&axis| order[axis]).collect();
        inner.sort_unstable();
        let rest: Vec<usize> = (0..order.len()).filter(|axis| !axes.contains(axis)).map(|axis| order[axis]).collect();
        let reduced = self.build(Op::Reduce { kind, axes: inner.clone() }, &[self.operand(x)]);
        self.build(Op::Permute { axes: renumber(&rest, &inner) }, &[reduced])
    }

    fn sum_over(&mut self, axes: &[usize], x: NodeId) -> Option<NodeId> {
        let operands = self.graph.operands(x);
        match *self.op(x) {
            Op::Unary(Unary::Neg) => {
                let sum = self.sum_of(axes, operands[0]);
                Some(self.neg(sum))
            }
            Op::Binary(Binary::Mul) if self.ty(x).dtype == DType::F32 => {
                self.sum_of_product(axes, operands[0], operands[1])
            }
            _ => None,
        }
    }

    fn sum_of(&mut self, axes: &[usize], x: NodeId) -> NodeId {
        self.build(Op::Reduce { kind: ReduceKind::Sum, axes: axes.to_vec() }, &[x])
    }

    fn sum_of_product(&mut self, axes: &[usize], x: NodeId, y: NodeId) -> Option<NodeId> {
        if let Some(factor) = self.uniform(y) {
            let sum = self.sum_of(axes, x);
            return Some(self.scale(sum, factor));
        }
        if let Some(factor) = self.constant_along(axes, y) {
            return Some(self.factored_sum(axes, x, factor));
        }
        if let Some(factor) = self.constant_along(axes, x) {
            return Some(self.factored_sum(axes, y, factor));
        }
        self.as_contraction(axes, x, y)
    }

    fn factored_sum(&mut self, axes: &[usize], x: NodeId, factor: NodeId) -> NodeId {
        let sum = self.sum_of(axes, x);
        self.build(Op::Binary(Binary::Mul), &[sum, factor])
    }

    /// A value that does not change along these axes, without them.
    fn constant_along(&mut self, axes: &[usize], x: NodeId) -> Option<NodeId> {
        let (places, inner) = self.as_broadcast(x)?;
        if places.iter().any(|place| axes.contains(place)) {
            return None;
        }
        let shape = without(self.shape(x), axes);
        Some(self.build(Op::Broadcast { axes: renumber(&places, axes), shape }, &[inner]))
    }

    /// `sum(broadcast(x) * broadcast(y))` is a contraction if it sums common axes only, each factor has an axis that the
    /// other lacks, and together they have all axes.
    fn as_contraction(&mut self, axes: &[usize], x: NodeId, y: NodeId) -> Option<NodeId> {
        let rank = self.shape(x).len();
        let (left, x) = self.as_broadcast(x)?;
        let (right, y) = self.as_broadcast(y)?;
        let private = |a: &[usize], b: &[usize]| a.iter().any(|axis| !b.contains(axis));
        let covered = (0..rank).all(|axis| left.contains(&axis) || right.contains(&axis));
        let shared = axes.iter().all(|axis| left.contains(axis) && right.contains(axis));
        if !covered || !shared || !private(&left, &right) || !private(&right, &left) || rank > usize::from(u8::MAX) {
            return None;
        }
        let labels = |axes: &[usize]| axes.iter().map(|&axis| axis as u8).collect::<Vec<u8>>();
        let out: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
        let contraction =
            Contraction { lhs: labels(&left), rhs: labels(&right), out: labels(&out), precision: self.precision };
        Some(self.build(Op::Contract(contraction), &[x, y]))
    }
}

/// The extents of the other axes.
pub(super) fn without(shape: &[u64], axes: &[usize]) -> Vec<u64> {
    (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect()
}

/// The numbers of these axes once the `removed` ones are gone.
pub(super) fn renumber(axes: &[usize], removed: &[usize]) -> Vec<usize> {
    axes.iter().map(|&axis| axis - removed.iter().filter(|&&r| r < axis).count()).collect()
}
