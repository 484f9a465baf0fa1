//! The sum of the samples' clipped gradients.
//!
//! Written down as it is defined, sample by sample: the gradient of each, its norm, a factor that bounds it, the weighted
//! sum. How that is computed without ever holding a gradient for each sample is the e-graph's business.

use super::{
    super::{
        evaluator::{Checked, Evaluator, Failed},
        filter::Point,
    },
    Clip, ClipRule, Parts, Private,
};
use crate::{
    diagnostic::Diagnostic,
    graph::{Coupled, NodeId, Op, Output, Place, Samples, ScopeId, per_sample_vjp},
    program::Parameter,
    source::Span,
};
use std::collections::BTreeMap;
use trainc_kernels::ir::{Binary, ReduceKind, Unary};

/// What a physical batch contributes.
pub(super) struct Clipped {
    /// The sum of clipped gradients for each trainable parameter, by index.
    pub sums: Vec<(u32, NodeId)>,
    /// For each row, 1 if its gradient is not finite: `[rows]`.
    pub bad: NodeId,
}

/// The gradient of each sample with respect to a parameter; in a repeat, with respect to its slice in an instance.
struct PerSample {
    parameter: u32,
    /// `[rows, ...]`, in the scope of the parameter.
    gradient: NodeId,
    /// `[rows]`, in the same scope.
    squared_norm: NodeId,
}

impl Evaluator<'_> {
    /// Replaces the batch's loss by the mean over the rows that count, and clips each row's gradient.
    pub(super) fn clipped_sums(
        &mut self,
        loss: NodeId,
        mask: NodeId,
        private: &Private,
        points: &[Point],
    ) -> Checked<Clipped> {
        let span = private.span;
        let rows = self.graph.shape(mask)[0];
        let first_new = self.graph.len();
        let mut sums: BTreeMap<u32, NodeId> = BTreeMap::new();
        let mut reported = None;
        for point in points {
            let loss = self.computed_at(point, &[loss]).of(loss);
            let weight = common_weight(point);
            let (losses, gradients) = self.gradients_at(loss, rows, point, weight.unwrap_or(1.0), span)?;
            if reported.is_none() || point.moved.is_empty() {
                reported = Some(losses);
            }
            for (parameter, gradient) in gradients {
                let own = if weight.is_some() { 1.0 } else { point.weights[&parameter] };
                let gradient = if own == 1.0 { gradient } else { self.graph.scale(gradient, own) };
                let sum = sums.get(&parameter).map_or(gradient, |&sum| self.graph.plus(sum, gradient));
                sums.insert(parameter, sum);
            }
        }
        let losses = self.graph.scale(reported.expect("at least one point"), rows as f64);
        self.report_mean(losses, mask);
        let gradients: Vec<PerSample> =
            sums.into_iter().map(|(parameter, gradient)| self.per_sample(parameter, gradient)).collect();
        let total = self.total(&gradients);
        let factors = self.factors(&gradients, total, mask, &private.clip)?;
        let sums = gradients.iter().zip(&factors).map(|(of, &factor)| (of.parameter, self.weighted_sum(of, factor)));
        let sums: Vec<(u32, NodeId)> = sums.collect();
        let bad = self.not_finite(total);
        self.came_from(first_new, span);
        Ok(Clipped { sums, bad })
    }

    /// Gives the nodes made since then a place in the source.
    pub(super) fn came_from(&mut self, first: usize, span: Span) {
        for new in (first..self.graph.len()).map(NodeId::new) {
            if self.graph.node(new).span.is_none() {
                self.graph.set_span(new, Some(span));
            }
        }
    }

    fn coupled<T>(&mut self, coupled: &Coupled, loss: NodeId, private: Span) -> Checked<T> {
        let own = self.graph.node(coupled.node).span.or(self.graph.node(loss).span);
        let error = Diagnostic::error("E0752", own.unwrap_or(private), "samples are not independent of each other here")
            .label(format!("this {}", coupled.reason))
            .also(private, "each sample's gradient is to be bounded")
            .note("a sample's gradient must not depend on other samples: no statistics over the batch, and a loss that is a sum or a mean over samples")
            .help("replace batch statistics by those of a sample (`layer_norm`), a mean over counted positions by a mean over all");
        self.fail(error)
    }

    /// What each row adds to the loss at a point, and the gradients of the rows' own losses times a weight, by parameter.
    fn gradients_at(
        &mut self,
        loss: NodeId,
        rows: u64,
        point: &Point,
        weight: f64,
        span: Span,
    ) -> Checked<(NodeId, Vec<(u32, NodeId)>)> {
        let mut samples = match Samples::trace(&self.graph, loss, rows) {
            Ok(samples) => samples,
            Err(coupled) => return self.coupled(&coupled, loss, span),
        };
        let losses = samples.shares(&mut self.graph, loss);
        let parameters: Vec<u32> = point.weights.keys().copied().collect();
        let nodes: Vec<NodeId> = parameters.iter().map(|&index| self.value_at(index, point)).collect();
        // The loss is a mean over the rows: what a row adds to it, times their number, is the row's own loss.
        let seed = self.graph.full_like(rows as f64 * weight, losses);
        let gradients = self.per_sample_gradients((losses, seed), &samples, &parameters, &nodes, span)?;
        Ok((losses, gradients))
    }

    fn per_sample_gradients(
        &mut self,
        output: (NodeId, NodeId),
        samples: &Samples,
        parameters: &[u32],
        nodes: &[NodeId],
        span: Span,
    ) -> Checked<Vec<(u32, NodeId)>> {
        let sites: Vec<Vec<NodeId>> = nodes.iter().map(|&node| self.sites(node)).collect();
        for (&parameter, sites) in parameters.iter().zip(&sites) {
            if sites.iter().any(|&site| samples.of(site) != Place::Shared) {
                return self.belongs_to_rows(parameter, span);
            }
        }
        let wrt: Vec<NodeId> = sites.iter().flatten().copied().collect();
        let found = per_sample_vjp(&mut self.graph, &[output], &wrt, samples)
            .unwrap_or_else(|error| panic!("internal: a graph from the checker has gradients by sample: {error}"));
        let mut found = found.into_iter();
        let mut gradients = Vec::new();
        for (&parameter, sites) in parameters.iter().zip(&sites) {
            let own: Vec<NodeId> = found.by_ref().take(sites.len()).flatten().collect();
            match own.into_iter().reduce(|sum, term| self.graph.plus(sum, term)) {
                Some(gradient) => gradients.push((parameter, gradient)),
                None => self.no_gradient(parameter, span),
            }
        }
        if self.has_errors() { Err(Failed) } else { Ok(gradients) }
    }

    fn belongs_to_rows<T>(&mut self, parameter: u32, private: Span) -> Checked<T> {
        let parameter = &self.registry.parameters[parameter as usize];
        let message = format!("`{}` has a part for each row of the batch", parameter.name);
        let error = Diagnostic::error("E0755", parameter.span, message)
            .label("no sample has a gradient for all of it")
            .also(private, "each sample's gradient is to be bounded")
            .help("let the parameter have no index that counts samples");
        self.fail(error)
    }

    /// Where the gradient of a parameter is kept apart by sample: in each instance of its repeat, or at itself.
    fn sites(&self, parameter: NodeId) -> Vec<NodeId> {
        let users = self.graph.users(parameter);
        let layers: Vec<NodeId> =
            users.into_iter().filter(|user| matches!(self.graph.node(*user).op, Op::Layer { .. })).collect();
        if layers.is_empty() { vec![parameter] } else { layers }
    }

    fn per_sample(&mut self, parameter: u32, gradient: NodeId) -> PerSample {
        let square = self.graph.times(gradient, gradient);
        let own: Vec<usize> = (1..self.graph.shape(square).len()).collect();
        let squared_norm = self.graph.sum(square, &own);
        PerSample { parameter, gradient, squared_norm }
    }

    /// The mean of the rows that count, as the loss of the batch.
    fn report_mean(&mut self, losses: NodeId, mask: NodeId) {
        let counted = self.graph.times(losses, mask);
        let sum = self.graph.sum_all(counted);
        let count = self.graph.sum_all(mask);
        let one = self.graph.constant(1.0);
        let count = self.graph.binary(Binary::Max, count, one);
        let mean = self.graph.over(sum, count);
        self.graph.set_output(Output::Report("loss".into()), mean);
    }

    /// The squared norm of each sample's whole gradient.
    fn total(&mut self, gradients: &[PerSample]) -> NodeId {
        let parts: Vec<NodeId> = gradients.iter().map(|of| of.squared_norm).collect();
        let parts: Vec<NodeId> = parts.into_iter().map(|norm| self.over_instances(norm)).collect();
        self.added(parts)
    }

    fn added(&mut self, terms: Vec<NodeId>) -> NodeId {
        terms.into_iter().reduce(|sum, term| self.graph.plus(sum, term)).expect("at least one trainable parameter")
    }

    fn over_instances(&mut self, node: NodeId) -> NodeId {
        if self.graph.node(node).scope == ScopeId::ROOT { node } else { self.graph.add(Op::SumInstances, &[node]) }
    }

    /// The factor of each gradient, in its scope: `[rows]`, 0 for rows that do not count.
    fn factors(&mut self, gradients: &[PerSample], total: NodeId, mask: NodeId, clip: &Clip) -> Checked<Vec<NodeId>> {
        let parts = self.clipped_together(gradients, clip)?;
        let members = |part: usize| (0..gradients.len()).filter(|&i| parts.of[i] == part).collect::<Vec<usize>>();
        let norm = clip.norm / (parts.count as f64).sqrt();
        let mut factors = vec![total; gradients.len()];
        for part in 0..=parts.of.iter().copied().max().unwrap_or(0) {
            let own: Vec<NodeId> = members(part).into_iter().map(|i| gradients[i].squared_norm).collect();
            let squared = match (&clip.parts, own.is_empty()) {
                (_, true) => continue,
                (Parts::Whole, _) => total,
                (Parts::Layers, _) => self.added(own),
                (Parts::Groups(_), _) => {
                    let own = own.into_iter().map(|norm| self.over_instances(norm)).collect();
                    self.added(own)
                }
            };
            let factor = self.factor(squared, norm, clip.rule);
            let factor = self.graph.times(factor, mask);
            members(part).into_iter().for_each(|i| factors[i] = factor);
        }
        Ok(factors)
    }

    /// The bounding factor for squared norms `[rows]`.
    fn factor(&mut self, squared: NodeId, norm: f64, rule: ClipRule) -> NodeId {
        // Rounding can leave a sum of products that is a square by right below 0.
        let zero = self.graph.full_like(0.0, squared);
        let squared = self.graph.binary(Binary::Max, squared, zero);
        let n = self.graph.unary(Unary::Sqrt, squared);
        let limit = self.graph.full_like(norm, n);
        match rule {
            ClipRule::Flat => {
                let larger = self.graph.binary(Binary::Max, n, limit);
                self.graph.over(limit, larger)
            }
            ClipRule::Automatic { stability } => {
                let stability = self.graph.full_like(stability, n);
                let divisor = self.graph.plus(n, stability);
                let factor = self.graph.over(limit, divisor);
                // Without stability, the factor of a gradient of 0 is not a number.
                let some = self.graph.binary(Binary::Less, zero, n);
                self.graph.select(some, factor, zero)
            }
        }
    }

    /// The sum over the rows of factor times gradient; of a repeat, stacked.
    fn weighted_sum(&mut self, of: &PerSample, factor: NodeId) -> NodeId {
        let shape = self.graph.shape(of.gradient).to_vec();
        let factor = self.graph.broadcast(factor, &[0], &shape);
        let weighted = self.graph.times(factor, of.gradient);
        let sum = self.graph.sum(weighted, &[0]);
        let scope = self.graph.node(of.gradient).scope;
        if scope == ScopeId::ROOT {
            return sum;
        }
        let count = self.graph.scope(scope).count;
        self.graph.add(Op::Stack { count }, &[sum])
    }

    /// 1 where a squared norm is infinite or not a number.
    fn not_finite(&mut self, squared: NodeId) -> NodeId {
        let largest = self.graph.full_like(f64::from(f32::MAX), squared);
        let finite = self.graph.binary(Binary::LessEqual, squared, largest);
        let one = self.graph.full_like(1.0, finite);
        self.graph.minus(one, finite)
    }

    /// Whether some row is bad, as a number.
    pub(super) fn some_bad(&mut self, bad: NodeId) -> NodeId {
        self.graph.reduce(ReduceKind::Max, bad, &[0])
    }

    fn clipped_together(&mut self, gradients: &[PerSample], clip: &Clip) -> Checked<Together> {
        let parameters: Vec<&Parameter> =
            gradients.iter().map(|of| &self.registry.parameters[of.parameter as usize]).collect();
        Ok(match &clip.parts {
            Parts::Whole => Together { of: vec![0; gradients.len()], count: 1 },
            Parts::Layers => layers(&parameters),
            Parts::Groups(selectors) => {
                let rest = selectors.len();
                let of: Vec<usize> = parameters
                    .iter()
                    .map(|parameter| selectors.iter().position(|selector| selector.selects(parameter)).unwrap_or(rest))
                    .collect();
                for selector in selectors.clone() {
                    self.selects_something(&selector);
                }
                let mut used = of.clone();
                used.sort_unstable();
                used.dedup();
                Together { of, count: used.len() as u64 }
            }
        })
    }
}

/// What the gradient at a point counts in the sample of every parameter, if that is the same for all: then it goes into the
/// seed, and gradients are sums without factors.
fn common_weight(point: &Point) -> Option<f64> {
    let mut weights = point.weights.values();
    let first = *weights.next()?;
    weights.all(|&weight| weight == first).then_some(first)
}

/// Which parameters are clipped together.
struct Together {
    /// The part of each.
    of: Vec<usize>,
    /// Number of parts, those of each instance of a repeat counted.
    count: u64,
}

/// The parameters of a layer are a part: those whose paths differ in their last name alone.
fn layers(parameters: &[&Parameter]) -> Together {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = 0;
    let mut of = Vec::new();
    for parameter in parameters {
        let layer = parameter.name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let next = numbers.len();
        of.push(*numbers.entry(layer).or_insert_with(|| {
            count += if parameter.stacked { parameter.shape[0] } else { 1 };
            next
        }));
    }
    Together { of, count }
}
