//! Gradients by the trainable parameters, their norm, and clipping to it.

use super::{
    evaluator::{Checked, Evaluator, Failed},
    train::Plan,
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op, Output, differentiate},
    source::Span,
};
use trainc_kernels::ir::{Binary, ReduceKind, Unary};

impl Evaluator<'_> {
    /// Gradients by some nodes, which stand for parameters.
    pub(super) fn gradients(
        &mut self,
        loss: NodeId,
        plan: &Plan,
        nodes: Vec<(u32, NodeId)>,
    ) -> Checked<Vec<(u32, NodeId)>> {
        let wrt: Vec<NodeId> = nodes.iter().map(|(_, node)| *node).collect();
        let gradients = differentiate(&mut self.graph, loss, &wrt)
            .unwrap_or_else(|error| panic!("internal: a graph from the checker is differentiable: {error}"));
        let mut found = Vec::new();
        for ((index, _), gradient) in nodes.into_iter().zip(gradients) {
            match gradient {
                Some(gradient) => found.push((index, gradient)),
                None => self.no_gradient(index, plan.loss.span),
            }
        }
        if self.has_errors() { Err(Failed) } else { Ok(found) }
    }

    /// The parameters that training moves, by index, with the nodes that read them.
    pub(super) fn trainable(&mut self, model: Span) -> Checked<Vec<(u32, NodeId)>> {
        let nodes: Vec<(u32, NodeId)> = self
            .registry
            .parameter_nodes()
            .iter()
            .filter(|(index, _)| self.registry.parameters[**index as usize].trainable)
            .map(|(index, node)| (*index, *node))
            .collect();
        if nodes.is_empty() {
            let error = Diagnostic::error("E0509", model, "there is nothing to train");
            return self
                .fail(error.label("no parameter of this model is trainable").help("add a layer, or freeze less"));
        }
        Ok(nodes)
    }

    /// Complains about a parameter that the loss does not depend on.
    pub(super) fn no_gradient(&mut self, index: u32, loss: Span) {
        let parameter = &self.registry.parameters[index as usize];
        let error = Diagnostic::error("E0510", parameter.span, format!("`{}` has no gradient", parameter.name))
            .label("the loss does not depend on this parameter")
            .also(loss, "the loss")
            .help(format!("use it, remove it, or write `freeze \"{}\"`", parameter.name));
        self.report(error);
    }

    /// The norm of all gradients, reported; gradients scaled down to the clipping norm.
    pub(super) fn clipped(&mut self, gradients: Vec<(u32, NodeId)>, plan: &Plan) -> Checked<Vec<(u32, NodeId)>> {
        let span = plan.clip.map_or(plan.loss.span, |(_, span)| span);
        let norm = self.norm(&gradients, span)?;
        self.graph.set_output(Output::Report("grad_norm".into()), norm);
        let Some((limit, span)) = plan.clip else { return Ok(gradients) };
        let factor = self.clip_factor(norm, limit, span)?;
        let mut clipped = Vec::new();
        for (index, gradient) in gradients {
            let shape = self.graph.shape(gradient).to_vec();
            let factor = self.spread(factor, &[], &shape, span)?;
            clipped.push((index, self.add(Op::Binary(Binary::Mul), &[gradient, factor], span)?));
        }
        Ok(clipped)
    }

    /// `sqrt(sum of all squares)`, added up in the order of the parameters.
    fn norm(&mut self, gradients: &[(u32, NodeId)], span: Span) -> Checked<NodeId> {
        let mut total: Option<NodeId> = None;
        for &(_, gradient) in gradients {
            let square = self.add(Op::Binary(Binary::Mul), &[gradient, gradient], span)?;
            let axes: Vec<usize> = (0..self.graph.shape(square).len()).collect();
            let sum = if axes.is_empty() {
                square
            } else {
                self.add(Op::Reduce { kind: ReduceKind::Sum, axes }, &[square], span)?
            };
            total = Some(match total {
                None => sum,
                Some(total) => self.add(Op::Binary(Binary::Add), &[total, sum], span)?,
            });
        }
        let total = total.expect("at least one trainable parameter");
        self.add(Op::Unary(Unary::Sqrt), &[total], span)
    }

    /// `min(1, limit / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_` has it.
    fn clip_factor(&mut self, norm: NodeId, limit: f64, span: Span) -> Checked<NodeId> {
        const EPSILON: f64 = 1e-6;
        let constant = |this: &mut Self, value: f64| this.add(Op::constant(value), &[], span);
        let (limit, epsilon, one) = (constant(self, limit)?, constant(self, EPSILON)?, constant(self, 1.0)?);
        let norm = self.add(Op::Binary(Binary::Add), &[norm, epsilon], span)?;
        let ratio = self.add(Op::Binary(Binary::Div), &[limit, norm], span)?;
        self.add(Op::Binary(Binary::Min), &[one, ratio], span)
    }
}
