//! The logistic function and its logarithm, recognised from their definitions.
//!
//! `1 / (1 + exp(-x))` and `log(1 + exp(x))` are right in real numbers, but their parts overflow in f32 where the whole does
//! not: beyond 88.7 a gradient is the product of an infinity and the zero that it was divided to. So what is written that way is
//! built as `sigmoid` and `softplus`, whose values and gradients never pass through an infinity. So is the form that is made to
//! avoid the overflow, `max(x, 0) + log(1 + exp(-abs(x)))`: by itself each half of it has the gradient 0 at 0.

use super::{Checked, evaluator::Evaluator};
use crate::{
    graph::{NodeId, Op},
    source::Span,
};
use trainc_kernels::ir::{Binary, Unary};

impl Evaluator<'_> {
    /// `exp(z) / (1 + exp(z)) = sigmoid(z)`, and of other numerators `a / (1 + exp(z)) = a sigmoid(-z)`.
    pub(super) fn logistic_quotient(&mut self, a: NodeId, b: NodeId, span: Span) -> Checked<Option<NodeId>> {
        let Some(exponent) = self.exponent_beside_one(b) else { return Ok(None) };
        if self.unary_operand(Unary::Exp, a) == Some(exponent) {
            return self.add(Op::Unary(Unary::Sigmoid), &[exponent], span).map(Some);
        }
        let sigmoid = self.sigmoid_of_negative(exponent, span)?;
        let is_one = self.graph.splat(a) == Some(1.0);
        let quotient = if is_one { sigmoid } else { self.add(Op::Binary(Binary::Mul), &[a, sigmoid], span)? };
        Ok(Some(quotient))
    }

    /// `(1 + exp(z))^-1 = sigmoid(-z)`, `log(1 + exp(z)) = softplus(z)` and `log(sigmoid(z)) = -softplus(-z)`.
    pub(super) fn logistic_form(&mut self, function: Unary, x: NodeId, span: Span) -> Checked<Option<NodeId>> {
        match (function, self.exponent_beside_one(x), self.unary_operand(Unary::Sigmoid, x)) {
            (Unary::Reciprocal, Some(exponent), _) => self.sigmoid_of_negative(exponent, span).map(Some),
            (Unary::Log, Some(exponent), _) => self.add(Op::Unary(Unary::Softplus), &[exponent], span).map(Some),
            (Unary::Log, _, Some(z)) => {
                let z = self.negative(z, span)?;
                let softplus = self.add(Op::Unary(Unary::Softplus), &[z], span)?;
                self.negative(softplus, span).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `max(x, 0) + log(1 + exp(-abs(x))) = softplus(x)`, and the same with something subtracted from the first term, as cross
    /// entropies of logits are written.
    pub(super) fn logistic_sum(&mut self, a: NodeId, b: NodeId, span: Span) -> Checked<Option<NodeId>> {
        let Some((x, rest)) = self.ramp_beside_tail(a, b).or_else(|| self.ramp_beside_tail(b, a)) else {
            return Ok(None);
        };
        let softplus = self.add(Op::Unary(Unary::Softplus), &[x], span)?;
        match rest {
            Some(rest) => self.add(Op::Binary(Binary::Sub), &[softplus, rest], span).map(Some),
            None => Ok(Some(softplus)),
        }
    }

    /// The x of `max(x, 0)` and `softplus(-abs(x))`, and what is subtracted from the former.
    fn ramp_beside_tail(&self, ramp: NodeId, tail: NodeId) -> Option<(NodeId, Option<NodeId>)> {
        let tail = self.unary_operand(Unary::Softplus, tail)?;
        let magnitude = self.unary_operand(Unary::Neg, tail)?;
        let x = self.unary_operand(Unary::Abs, magnitude)?;
        let (ramp, rest) = match (&self.graph.node(ramp).op, self.graph.operands(ramp)) {
            (Op::Binary(Binary::Sub), operands) => (operands[0], Some(operands[1])),
            _ => (ramp, None),
        };
        let Op::Binary(Binary::Max) = self.graph.node(ramp).op else { return None };
        let operands = self.graph.operands(ramp);
        let is_ramp = |a: NodeId, b: NodeId| a == x && self.graph.splat(b) == Some(0.0);
        (is_ramp(operands[0], operands[1]) || is_ramp(operands[1], operands[0])).then_some((x, rest))
    }

    fn sigmoid_of_negative(&mut self, z: NodeId, span: Span) -> Checked<NodeId> {
        let x = self.negative(z, span)?;
        self.add(Op::Unary(Unary::Sigmoid), &[x], span)
    }

    /// `-x`; of a negation, what it is the negation of.
    fn negative(&mut self, x: NodeId, span: Span) -> Checked<NodeId> {
        match self.unary_operand(Unary::Neg, x) {
            Some(inner) => Ok(inner),
            None => self.add(Op::Unary(Unary::Neg), &[x], span),
        }
    }

    /// The z of `1 + exp(z)`.
    fn exponent_beside_one(&self, sum: NodeId) -> Option<NodeId> {
        let Op::Binary(Binary::Add) = self.graph.node(sum).op else { return None };
        let operands = self.graph.operands(sum);
        let [a, b] = [operands[0], operands[1]];
        let exponential = match (self.graph.splat(a), self.graph.splat(b)) {
            (Some(1.0), _) => b,
            (_, Some(1.0)) => a,
            _ => return None,
        };
        self.unary_operand(Unary::Exp, exponential)
    }

    /// What a function is applied to, if a node is the result of this one.
    fn unary_operand(&self, function: Unary, node: NodeId) -> Option<NodeId> {
        (self.graph.node(node).op == Op::Unary(function)).then(|| self.graph.operands(node)[0])
    }
}
