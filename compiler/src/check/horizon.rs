//! Durations: the horizon of training, and what is given in tokens, samples or epochs, in steps.

use super::{
    evaluator::{Checked, Evaluator},
    value::Number,
};
use crate::{
    diagnostic::Diagnostic,
    program::TrainSettings,
    source::Span,
    syntax::tree::{Expr, Unit},
};
use trainc_runtime::artifact::Duration;

/// Longest run.
pub(super) const MAX_STEPS: f64 = u32::MAX as f64;

impl Evaluator<'_> {
    /// Steps and items per step, in which durations can be given.
    pub(super) fn horizon(
        &mut self,
        horizon: &Expr,
        settings: &TrainSettings,
        has_data: bool,
    ) -> Checked<TrainSettings> {
        let sequence = self.registry.inputs.iter().position(|input| input.shift > 0).map(|index| index as u32);
        let positions = sequence.and_then(|index| {
            let node = self.registry.input_nodes().get(&index)?;
            self.graph.shape(*node).get(1).copied()
        });
        let mut settings = settings.clone();
        settings.items_per_step = settings.batch * positions.unwrap_or(1);
        settings.item = if positions.is_some() { "tokens" } else { "samples" }.into();
        let number = self.known_number(horizon, "the horizon")?;
        settings.steps = if number.unit == Unit::Epochs {
            self.epochs(&number, has_data, horizon.span)?
        } else {
            let steps = self.in_steps(&number, &settings, horizon.span)?;
            // A part of the data may end within a batch; steps are whole.
            let steps = if matches!(number.unit, Unit::None | Unit::Steps) { steps } else { steps.ceil() };
            Duration::Steps(self.whole_in(steps, horizon.span, "the number of steps", 1.0..=MAX_STEPS)? as u32)
        };
        Ok(settings)
    }

    /// A number of epochs, which the runtime makes into steps once it has opened the data.
    pub(super) fn epochs(&mut self, number: &Number, has_data: bool, span: Span) -> Checked<Duration> {
        let epochs = number.value;
        if !has_data {
            let error = Diagnostic::error("E0712", span, "epochs of data that the program does not name")
                .label("an epoch is one pass over the data, and no data are given")
                .help("add `data NAME` to `train`, or say how long in steps, tokens or samples");
            return self.fail(error);
        }
        if !(epochs > 0.0 && epochs.is_finite()) {
            let error = Diagnostic::error("E0704", span, "the number of epochs must be positive");
            return self.fail(error.label(format!("this is {epochs}")).help("write for example `3 epochs`"));
        }
        Ok(Duration::Epochs { epochs })
    }

    /// A duration in steps.
    pub(super) fn in_steps(&mut self, number: &Number, settings: &TrainSettings, span: Span) -> Checked<f64> {
        match number.unit {
            Unit::None | Unit::Steps => Ok(number.value),
            Unit::Tokens if settings.item == "tokens" => Ok(number.value / settings.items_per_step as f64),
            Unit::Samples => Ok(number.value / settings.batch as f64),
            Unit::Epochs => {
                let error = Diagnostic::error("E0712", span, "epochs beside a horizon in other units")
                    .label("how many steps this is shows only when the data are read")
                    .help("give the horizon in epochs too, or this in steps, tokens, samples or %");
                self.fail(error)
            }
            _ => {
                let error = Diagnostic::error("E0406", span, "this is not a duration")
                    .label(format!("found {}", number.shown()));
                self.fail(error.help("give it in steps, tokens or samples"))
            }
        }
    }
}
