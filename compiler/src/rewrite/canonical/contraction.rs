//! Contractions absorb what their labels can say: permutations, broadcasts and merged axes of their operands. Signs and
//! scalar factors move to the result.

use super::Builder;
use crate::graph::{Contraction, NodeId, Op};
use trainc_kernels::ir::{Binary, ReduceKind, Unary};

/// An operand of a contraction with the labels of its axes.
type Labelled = (NodeId, Vec<u8>);

impl Builder {
    pub(super) fn contract(&mut self, c: &Contraction, x: NodeId, y: NodeId) -> Option<NodeId> {
        let (left, right) = ((x, c.lhs.clone()), (y, c.rhs.clone()));
        if let Some(left) = self.relabelled(&left) {
            return Some(self.contract_labelled(left, right, c));
        }
        if let Some(right) = self.relabelled(&right) {
            return Some(self.contract_labelled(left, right, c));
        }
        self.without_broadcast(&left, &right, c)
            .or_else(|| self.degenerate(c, &left, &right))
            .or_else(|| self.without_sign(c, x, y))
            .or_else(|| self.without_factor(c, x, y))
            .or_else(|| self.without_rounding(c, [x, y]))
    }

    fn contract_labelled(&mut self, (x, lhs): Labelled, (y, rhs): Labelled, c: &Contraction) -> NodeId {
        self.build(Op::Contract(Contraction { lhs, rhs, ..c.clone() }), &[x, y])
    }

    /// An operand that is a permutation, as what it permutes.
    fn relabelled(&self, (x, labels): &Labelled) -> Option<Labelled> {
        let Op::Permute { axes } = self.op(*x) else { return None };
        let mut inner = vec![0; axes.len()];
        for (&axis, &label) in axes.iter().zip(labels) {
            inner[axis] = label;
        }
        Some((self.operand(*x), inner))
    }

    /// Drops labels along which an operand is a broadcast. Those of the result that no operand has any more become a
    /// broadcast of it.
    fn without_broadcast(&mut self, left: &Labelled, right: &Labelled, c: &Contraction) -> Option<NodeId> {
        let shape = self.labelled_shape(&c.out, left, right);
        let (left, right) = match self.narrowed(left, right, c) {
            Some(narrowed) => narrowed,
            None => self.narrowed(right, left, c).map(|(right, left)| (left, right))?,
        };
        let present = |label: &u8| left.1.contains(label) || right.1.contains(label);
        let axes: Vec<usize> = (0..c.out.len()).filter(|&axis| present(&c.out[axis])).collect();
        let out: Vec<u8> = axes.iter().map(|&axis| c.out[axis]).collect();
        let narrow = self.contract_labelled(left, right, &Contraction { out, ..c.clone() });
        Some(self.build(Op::Broadcast { axes, shape }, &[narrow]))
    }

    /// The first operand without the axes it is broadcast along, and the second summed over those of them that are
    /// summed.
    fn narrowed(&mut self, broad: &Labelled, other: &Labelled, c: &Contraction) -> Option<(Labelled, Labelled)> {
        let (axes, inner) = self.as_broadcast(broad.0)?;
        let kept: Vec<u8> = axes.iter().map(|&axis| broad.1[axis]).collect();
        let summed = |label: &u8| broad.1.contains(label) && !kept.contains(label) && !c.out.contains(label);
        let gone: Vec<usize> = (0..other.1.len()).filter(|&axis| summed(&other.1[axis])).collect();
        let labels = other.1.iter().copied().filter(|label| !summed(label)).collect();
        let other = self.build(Op::Reduce { kind: ReduceKind::Sum, axes: gone }, &[other.0]);
        Some(((inner, kept), (other, labels)))
    }

    /// Extents of these labels.
    fn labelled_shape(&self, labels: &[u8], left: &Labelled, right: &Labelled) -> Vec<u64> {
        let within = |(x, own): &Labelled, label| own.iter().position(|l| l == label).map(|axis| self.shape(*x)[axis]);
        let extent = |label| within(left, label).or_else(|| within(right, label));
        labels
            .iter()
            .map(|label| extent(label).unwrap_or_else(|| panic!("internal: label {label} in no operand")))
            .collect()
    }

    /// A contraction without a summed label, or with a factor that has no label of its own, is not a matrix product:
    /// `sum(broadcast(x) * broadcast(y))`.
    fn degenerate(&mut self, c: &Contraction, left: &Labelled, right: &Labelled) -> Option<NodeId> {
        let summed: Vec<u8> = c.lhs.iter().copied().filter(|label| !c.out.contains(label)).collect();
        let private = |own: &[u8], other: &[u8]| own.iter().any(|label| !other.contains(label));
        if !summed.is_empty() && private(&c.lhs, &c.rhs) && private(&c.rhs, &c.lhs) {
            return None;
        }
        let domain: Vec<u8> = c.out.iter().chain(&summed).copied().collect();
        let shape = self.labelled_shape(&domain, left, right);
        let factors = [self.spread(left, &domain, &shape), self.spread(right, &domain, &shape)];
        let product = self.build(Op::Binary(Binary::Mul), &factors);
        Some(self.build(Op::Reduce { kind: ReduceKind::Sum, axes: (c.out.len()..domain.len()).collect() }, &[product]))
    }

    /// An operand laid out along all labels of `domain`.
    fn spread(&mut self, (x, labels): &Labelled, domain: &[u8], shape: &[u64]) -> NodeId {
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(labels.len());
        for (axis, label) in labels.iter().enumerate() {
            let place = domain.iter().position(|l| l == label);
            places.push((place.unwrap_or_else(|| panic!("internal: label {label} outside the domain")), axis));
        }
        places.sort_unstable();
        let ordered = self.build(Op::Permute { axes: places.iter().map(|&(_, axis)| axis).collect() }, &[*x]);
        let axes = places.iter().map(|&(place, _)| place).collect();
        self.build(Op::Broadcast { axes, shape: shape.to_vec() }, &[ordered])
    }

    fn without_sign(&mut self, c: &Contraction, x: NodeId, y: NodeId) -> Option<NodeId> {
        let operands = match (self.op(x), self.op(y)) {
            (Op::Unary(Unary::Neg), _) => [self.operand(x), y],
            (_, Op::Unary(Unary::Neg)) => [x, self.operand(y)],
            _ => return None,
        };
        let positive = self.build(Op::Contract(c.clone()), &operands);
        Some(self.neg(positive))
    }

    fn without_factor(&mut self, c: &Contraction, x: NodeId, y: NodeId) -> Option<NodeId> {
        let (operands, factor) = match (self.scaled(x), self.scaled(y)) {
            (Some((x, factor)), _) => ([x, y], factor),
            (_, Some((y, factor))) => ([x, y], factor),
            _ => return None,
        };
        let product = self.build(Op::Contract(c.clone()), &operands);
        Some(self.scale(product, factor))
    }

    /// Factors that the contraction rounds, as they were before they were rounded.
    fn without_rounding(&mut self, c: &Contraction, factors: [NodeId; 2]) -> Option<NodeId> {
        let rounding = Op::Unary(c.precision.rounding()?);
        let exact = factors.map(|x| if *self.op(x) == rounding { self.operand(x) } else { x });
        (exact != factors).then(|| self.build(Op::Contract(c.clone()), &exact))
    }

    /// A node that is a multiple, by its form.
    fn scaled(&self, x: NodeId) -> Option<(NodeId, f64)> {
        let Op::Binary(Binary::Mul) = self.op(x) else { return None };
        let operands = self.graph.operands(x);
        Some((operands[0], self.uniform(operands[1])?))
    }
}
