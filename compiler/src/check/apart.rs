//! What can be said of each clause of `train` by itself, once some of them are wrong: a program with three mistakes that
//! do not depend on one another is answered once.
//!
//! What a clause needs of another one that is wrong is unknown here, and fails silently; a finding that has been reported
//! is not reported again.

use super::{
    evaluator::{Checked, Evaluator, Failed, Mode},
    train::{Draft, Use, rows},
    value::Value,
};
use crate::{
    program::TrainSettings,
    syntax::tree::{Statement, Unit},
};

impl Evaluator<'_> {
    /// Checks every clause as far as the others let it.
    pub(super) fn clauses_apart(&mut self, draft: &Draft) {
        self.begin("step", mode(draft));
        if self.open(None, None).is_err() {
            return;
        }
        let model = match &draft.model {
            Ok(used) => self.model_apart(used),
            Err(Failed) => Err(Failed),
        };
        // Of a model without outputs it has been said that it has none.
        if draft.model.as_ref().is_ok_and(|used| !self.inputs_and_outputs(used).1.is_empty()) {
            self.objective_apart(draft);
        }
        let settings = self.horizon_apart(draft, model.is_ok());
        self.schedule_apart(draft, settings.ok());
        let filter = draft.filter.as_ref().ok().and_then(Option::as_ref);
        for used in draft.optimizer.as_ref().ok().into_iter().chain(filter) {
            self.arguments_apart(used);
        }
        if let (Ok(()), Ok(frozen), Ok(groups)) = (model, &draft.frozen, &draft.groups) {
            let _reported = self.freeze(frozen, groups);
        }
        self.data_apart(draft, model);
        self.close();
    }

    /// The model; where it fails, the clauses see its inputs and outputs as unknown values.
    fn model_apart(&mut self, used: &Use) -> Checked<()> {
        let modelled = self.modelled(used);
        if modelled.is_err() {
            let (inputs, outputs) = self.inputs_and_outputs(used);
            let unknown = inputs.into_iter().chain(outputs).map(|name| (name, Value::Unknown));
            self.frame().names.extend(unknown);
        }
        modelled
    }

    /// Names of what a model declares.
    fn inputs_and_outputs(&self, used: &Use) -> (Vec<String>, Vec<String>) {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for statement in &self.library.definition(used.definition).body {
            match statement {
                Statement::Input { name, .. } => inputs.push(name.text.clone()),
                Statement::Output { name, .. } => outputs.push(name.text.clone()),
                _ => {}
            }
        }
        (inputs, outputs)
    }

    fn objective_apart(&mut self, draft: &Draft) {
        if let Ok(loss) = &draft.loss {
            let _reported = self.scalar(loss, "the loss");
        }
        for (_, metric) in draft.metrics.iter().flatten() {
            let _reported = self.scalar(metric, "a metric");
        }
    }

    /// The horizon, unless it depends on what is wrong: how many samples or tokens a step takes.
    fn horizon_apart(&mut self, draft: &Draft, modelled: bool) -> Checked<TrainSettings> {
        let steps = draft.steps.as_ref().map_err(|_| Failed)?;
        let number = self.known_number(steps, "the horizon")?;
        let settled = draft.settled.is_ok();
        match number.unit {
            Unit::Tokens if !(modelled && settled) => Err(Failed),
            Unit::Samples if !settled => Err(Failed),
            _ => self.horizon(steps, &draft.settings, !matches!(draft.data, Ok(None))),
        }
    }

    fn schedule_apart(&mut self, draft: &Draft, settings: Option<TrainSettings>) {
        let Ok(expr) = &draft.schedule else { return };
        match (settings, self.named_schedule(expr)) {
            (Some(settings), _) => drop(self.rate(expr, &settings)),
            (None, Ok(Some(used))) => self.arguments_apart(&used),
            _ => {}
        }
    }

    /// The arguments of a definition, without running it.
    fn arguments_apart(&mut self, used: &Use) {
        let definition = self.library.definition(used.definition);
        let _reported = self.given(&used.arguments).and_then(|given| self.arguments_fit(definition, given, used.span));
    }

    fn data_apart(&mut self, draft: &Draft, model: Checked<()>) {
        let Ok(Some(index)) = draft.data else { return };
        if let (Ok(data), Ok(()), Ok(used)) = (self.data(index), model, &draft.model) {
            self.bound_inputs();
            let _reported = self.data_fits(used.span, &data);
        }
    }
}

/// The mode in which the model is looked at.
fn mode(draft: &Draft) -> Mode {
    let private = draft.private.as_ref().ok().and_then(Option::as_ref);
    Mode { training: true, batch: rows(private, &draft.settings), precision: draft.settings.precision }
}
