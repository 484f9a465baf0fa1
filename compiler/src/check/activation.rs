//! Activations in `precision bf16`: what a product with a parameter gives is rounded.
//!
//! A learned offset that is added to such a product belongs to it: both are rounded together, once. The gradient of
//! rounding rounds, so that gradients of activations are in bf16 as well.

use super::{Checked, evaluator::Evaluator};
use crate::{
    graph::{NodeId, Op},
    source::Span,
};
use std::collections::BTreeSet;
use trainc_kernels::ir::{Binary, Precision, Unary};

const ROUND: Op = Op::Unary(Unary::RoundBf16);

impl Evaluator<'_> {
    /// The result of a product of two factors, rounded if it is an activation: data times a parameter.
    pub(super) fn product_result(&mut self, product: NodeId, [a, b]: [NodeId; 2], span: Span) -> Checked<NodeId> {
        let in_bf16 = self.mode.precision == Precision::Bf16 && self.in_network();
        let is_activation = |data, weight| self.is_parameter(weight) && self.is_data(data);
        let rounds = in_bf16 && (is_activation(a, b) || is_activation(b, a));
        if rounds { self.add(ROUND, &[product], span) } else { Ok(product) }
    }

    /// `a + b`, rounded as a whole if it is the result of a product and a parameter.
    pub(super) fn offset_product(&mut self, a: NodeId, b: NodeId, span: Span) -> Checked<Option<NodeId>> {
        let [exact_a, exact_b] = [a, b].map(|node| self.exact_product(node));
        let operands = match (exact_a, exact_b) {
            (Some(product), None) if self.is_parameter(b) => [product, b],
            (None, Some(product)) if self.is_parameter(a) => [a, product],
            _ => return Ok(None),
        };
        let sum = self.add(Op::Binary(Binary::Add), &operands, span)?;
        self.add(ROUND, &[sum], span).map(Some)
    }

    /// The product of which a node is the rounded result.
    fn exact_product(&self, node: NodeId) -> Option<NodeId> {
        let product = *self.graph.operands(node).first()?;
        let rounded = self.graph.node(node).op == ROUND;
        (rounded && matches!(self.graph.node(product).op, Op::Contract(_))).then_some(product)
    }

    /// Whether a value depends on an input.
    fn is_data(&self, node: NodeId) -> bool {
        let (mut open, mut seen) = (vec![node], BTreeSet::from([node]));
        while let Some(node) = open.pop() {
            if matches!(self.graph.node(node).op, Op::Input { .. }) {
                return true;
            }
            open.extend(self.graph.operands(node).iter().copied().filter(|&operand| seen.insert(operand)));
        }
        false
    }

    /// Whether a value is a parameter, or its elements in another arrangement.
    fn is_parameter(&self, mut node: NodeId) -> bool {
        loop {
            match self.graph.node(node).op {
                Op::Parameter { .. } => return true,
                Op::Layer { .. }
                | Op::Broadcast { .. }
                | Op::Reshape { .. }
                | Op::Permute { .. }
                | Op::Slice { .. } => {
                    node = self.graph.operands(node)[0];
                }
                _ => return false,
            }
        }
    }
}
