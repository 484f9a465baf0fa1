//! The update: for each parameter the rule that groups make of optimizer and rate, and the code of filter and optimizer.

use super::{
    evaluator::{Checked, Evaluator},
    filter::{Filtering, Point},
    groups::{Group, Rate},
    optimizer::Update,
    train::{Plan, Use},
    value::{Tensor, Value},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op, Output},
    program::TrainSettings,
    syntax::tree::{BinaryOp, Expr},
};

/// How a parameter is updated.
pub(super) struct Rule {
    /// The parameter.
    pub index: u32,
    /// Its optimizer.
    pub used: Use,
    /// Its learning rate.
    pub rate: Value,
}

/// The update of all parameters, as far as it goes without gradients.
pub(super) struct Updates<'p> {
    rules: Vec<Rule>,
    filters: Vec<Filtering<'p>>,
    /// Where gradients are taken.
    pub points: Vec<Point>,
}

impl<'p> Evaluator<'p> {
    /// Learning rates, and what filters do before they see a gradient.
    pub(super) fn begin_updates(&mut self, plan: &Plan, settings: &TrainSettings) -> Checked<Updates<'p>> {
        let rate = self.rate(&plan.schedule, settings)?;
        let rules = self.rules(plan, &rate)?;
        let filters = self.filters(plan, &rules)?;
        let points = if filters.is_empty() { vec![Point::here(&rules)] } else { self.points(&filters)? };
        Ok(Updates { rules, filters, points })
    }

    /// The learning rate of this step, reported as `rate`.
    pub(super) fn rate(&mut self, schedule: &Expr, settings: &TrainSettings) -> Checked<Value> {
        let value = self.schedule(schedule, settings)?;
        let tensor = self.operand(value, schedule.span)?;
        let tensor = self.float(tensor, schedule.span)?;
        if !tensor.axes.is_empty() {
            return self.fail(Diagnostic::error("E0711", schedule.span, "the learning rate must be one number"));
        }
        self.sound_rates(tensor.node, settings, schedule.span)?;
        self.graph.set_output(Output::Report("rate".into()), tensor.node);
        Ok(Value::Tensor(tensor))
    }

    /// How each trainable parameter is updated.
    fn rules(&mut self, plan: &Plan, rate: &Value) -> Checked<Vec<Rule>> {
        let mut rules = Vec::new();
        for (index, _) in self.trainable(plan.model.span)? {
            let (mut used, mut rate) = (plan.optimizer.clone(), rate.clone());
            let parameter = self.registry.parameters[index as usize].clone();
            for group in plan.groups.iter().filter(|group| group.selects(&parameter)) {
                rate = self.group_rate(group, rate)?;
                used = group.overriding(used);
            }
            rules.push(Rule { index, used, rate });
        }
        Ok(rules)
    }

    /// The filters of all trainable parameters, as far as they go without gradients.
    fn filters(&mut self, plan: &Plan, rules: &[Rule]) -> Checked<Vec<Filtering<'p>>> {
        let Some(used) = &plan.filter else { return Ok(Vec::new()) };
        rules.iter().map(|rule| self.begin_filter(used, rule.index, rule.rate.clone())).collect()
    }

    /// The code of filter and optimizer for each parameter, given the gradients in the order of the parameters, and the
    /// standard deviation of the noise in them.
    pub(super) fn end_updates(
        &mut self,
        updates: Updates<'p>,
        gradients: &[(u32, NodeId)],
        noise: &Value,
    ) -> Checked<()> {
        let mut filters = updates.filters.into_iter();
        for (rule, &(_, raw)) in updates.rules.into_iter().zip(gradients) {
            let Rule { index, used, rate } = rule;
            let mut filter = filters.next();
            let gradient = match &mut filter {
                Some(filter) => self.filter(filter, raw)?,
                None => raw,
            };
            let (given, span, noise) = (self.given(&used.arguments)?, used.span, noise.clone());
            self.optimize(index, Update { optimizer: used.definition, given, rate, gradient, raw, noise, span })?;
            filter.map_or(Ok(()), |filter| self.end_filter(filter))?;
        }
        Ok(())
    }

    fn group_rate(&mut self, group: &Group, inherited: Value) -> Checked<Value> {
        match group.rate {
            None => Ok(inherited),
            Some(Rate::Times(factor, span)) => self.binary(BinaryOp::Mul, inherited, Value::number(factor), span),
            Some(Rate::Absolute(rate, span)) => {
                let node = self.add(Op::constant(rate), &[], span)?;
                Ok(Value::Tensor(Tensor { node, axes: Vec::new(), position: false }))
            }
        }
    }
}
