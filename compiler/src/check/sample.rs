//! Gradients where a filter wants them: at other points than where the parameters are, and sums of several.

use super::{
    evaluator::{Checked, Evaluator},
    filter::Point,
    train::Plan,
};
use crate::graph::{NodeId, Op, Output, Substitution, substitute};
use trainc_kernels::ir::Binary;

impl Evaluator<'_> {
    /// For each trainable parameter the sum, over the points, of the gradient there times what it counts, by index. If
    /// none is taken where the parameters are, the step reports what it computes at the first point, for it visits no
    /// other place.
    pub(super) fn sampled_gradients(
        &mut self,
        loss: NodeId,
        plan: &Plan,
        points: &[Point],
    ) -> Checked<Vec<(u32, NodeId)>> {
        let elsewhere = points.iter().all(|point| !point.moved.is_empty());
        let mut sums: Vec<(u32, NodeId)> = Vec::new();
        for (i, point) in points.iter().enumerate() {
            let loss = self.loss_at(loss, point, elsewhere && i == 0);
            let wrt: Vec<(u32, NodeId)> =
                point.weights.keys().map(|&index| (index, self.value_at(index, point))).collect();
            for (index, gradient) in self.gradients(loss, plan, wrt)? {
                let term = self.weighted(gradient, point.weights[&index], plan)?;
                match sums.iter_mut().find(|(known, _)| *known == index) {
                    Some((_, sum)) => *sum = self.add(Op::Binary(Binary::Add), &[*sum, term], plan.model.span)?,
                    None => sums.push((index, term)),
                }
            }
        }
        sums.sort_unstable_by_key(|&(index, _)| index);
        Ok(sums)
    }

    /// The loss at a point; on demand also what the step reports is computed there.
    fn loss_at(&mut self, loss: NodeId, point: &Point, reports: bool) -> NodeId {
        let reported: Vec<(Output, NodeId)> = if reports { self.graph.outputs().to_vec() } else { Vec::new() };
        let wanted: Vec<NodeId> = reported.iter().map(|&(_, node)| node).chain([loss]).collect();
        let there = self.computed_at(point, &wanted);
        for (output, node) in reported {
            self.graph.set_output(output, there.of(node));
        }
        there.of(loss)
    }

    /// What these nodes are at a point.
    pub(super) fn computed_at(&mut self, point: &Point, wanted: &[NodeId]) -> Substitution {
        let here = |this: &mut Self, index| this.registry.parameter_node(&mut this.graph, index);
        let pairs: Vec<_> = point.moved.iter().map(|(&index, &moved)| (here(self, index), moved)).collect();
        substitute(&mut self.graph, &pairs, wanted)
    }

    /// What a parameter is at a point: the node by which gradients are taken there.
    pub(super) fn value_at(&mut self, index: u32, point: &Point) -> NodeId {
        let here = self.registry.parameter_node(&mut self.graph, index);
        point.moved.get(&index).copied().unwrap_or(here)
    }

    fn weighted(&mut self, gradient: NodeId, weight: f64, plan: &Plan) -> Checked<NodeId> {
        if weight == 1.0 {
            return Ok(gradient);
        }
        let shape = self.graph.shape(gradient).to_vec();
        let weight = self.filled(weight, &shape, plan.model.span)?;
        self.add(Op::Binary(Binary::Mul), &[gradient, weight], plan.model.span)
    }
}
