//! Schedules: the learning rate over time, and what among their arguments is time.

use super::{
    call::Given,
    evaluator::{Checked, Evaluator},
    train::Use,
    value::{Number, Value},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{Bindings, NodeId, Output, interpret},
    program::TrainSettings,
    source::Span,
    syntax::tree::{BinaryOp, Definition, DefinitionKind, Expr, Parameter, Unit},
};
use trainc_kernels::ir::Binary;
use trainc_runtime::artifact::Duration;

/// Updates at which a program's rate is looked at before it runs.
const MOMENTS: u64 = 33;

/// The horizon that rates are looked at under if the program counts epochs.
const SOME_HORIZON: u32 = 1000;

/// What an argument of a schedule stands for, as its default tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// A length of training: bare numbers count steps.
    Time,
    /// A number without a unit.
    Number,
    /// There is no default that tells: the argument's own unit does.
    Open,
}

impl Evaluator<'_> {
    /// The schedule that a clause names; `None` for a number.
    pub(super) fn named_schedule(&mut self, expr: &Expr) -> Checked<Option<Use>> {
        self.named_use(expr, DefinitionKind::Schedule)
    }

    /// The rate of this step: from a schedule with arguments, or a number.
    pub(super) fn schedule(&mut self, expr: &Expr, settings: &TrainSettings) -> Checked<Value> {
        match self.named_schedule(expr)? {
            Some(used) => self.run_schedule(&used, settings),
            None => self.known_number(expr, "the learning rate").map(Value::Number),
        }
    }

    fn run_schedule(&mut self, used: &Use, settings: &TrainSettings) -> Checked<Value> {
        let definition = self.library.definition(used.definition);
        let [t, horizon] = self.clock(used.span)?;
        let given = self.given(&used.arguments)?;
        let places: Vec<Span> = (0..definition.parameters.len()).map(|i| place_of(definition, i, &given)).collect();
        let (value, _) = self.within(used.definition, Some(used.span), |this| {
            for (name, value) in [("t", t), ("T", horizon.clone())] {
                this.frame().names.insert(name.to_string(), value);
            }
            this.bind(definition, given, used.span)?;
            for (parameter, place) in definition.parameters.iter().zip(places) {
                this.measured(parameter, place, &horizon, settings)?;
            }
            this.body(&definition.body)
        })?;
        Ok(value)
    }

    /// Turns an argument that is time into steps.
    fn measured(
        &mut self,
        parameter: &Parameter,
        place: Span,
        horizon: &Value,
        settings: &TrainSettings,
    ) -> Checked<()> {
        let name = &parameter.name.text;
        let Some(Value::Number(number)) = self.frame().names.get(name).cloned() else { return Ok(()) };
        let is_time = match self.measure(parameter)? {
            Measure::Time => true,
            Measure::Open => is_time(number.unit) || number.unit == Unit::Bytes,
            Measure::Number if is_time(number.unit) => return self.not_time(parameter, &number, place),
            Measure::Number => false,
        };
        if is_time {
            let steps = self.duration(&number, horizon, settings, place)?;
            self.frame().names.insert(name.clone(), steps);
        }
        Ok(())
    }

    fn measure(&mut self, parameter: &Parameter) -> Checked<Measure> {
        let Some(default) = &parameter.default else { return Ok(Measure::Open) };
        Ok(match self.expression(default)? {
            Value::Number(number) if is_time(number.unit) => Measure::Time,
            Value::Number(Number { unit: Unit::None, .. }) => Measure::Number,
            _ => Measure::Open,
        })
    }

    fn not_time<T>(&mut self, parameter: &Parameter, number: &Number, place: Span) -> Checked<T> {
        let name = &parameter.name.text;
        let error = Diagnostic::error("E0721", place, format!("`{name}` is a number, and not a length of training"))
            .label(format!("`{}` means so many steps of training", self.text(place)))
            .also(parameter.name.span, "its default is a bare number");
        self.fail(match number.unit {
            Unit::Percent => error.replace(place, number.plain().to_string(), "write the share as a number"),
            _ => error.help("write a bare number"),
        })
    }

    /// A length of training in steps, between none and all of it. Percentages are shares of the horizon, and so are epochs
    /// if it counts them. Steps of a run that is shorter than the program says shrink with it.
    fn duration(&mut self, number: &Number, horizon: &Value, settings: &TrainSettings, span: Span) -> Checked<Value> {
        let share = match (number.unit, settings.steps) {
            (Unit::Percent, _) => Some(number.plain()),
            (Unit::Epochs, Duration::Epochs { epochs }) => Some(number.value / epochs),
            _ => None,
        };
        let whole = match (share, settings.steps) {
            (Some(_), _) => 1.0,
            (None, Duration::Steps(steps)) => f64::from(steps),
            (None, Duration::Epochs { .. }) => f64::INFINITY,
        };
        let given = share.map_or_else(|| self.in_steps(number, settings, span), Ok)?;
        let given = self.within_training(given, whole, number, span)?;
        match settings.steps {
            _ if share.is_some() || given == 0.0 => {
                self.binary(BinaryOp::Mul, Value::number(given), horizon.clone(), span)
            }
            Duration::Steps(steps) => {
                let of_program = Value::number(f64::from(steps));
                let made = self.binary(BinaryOp::Div, horizon.clone(), of_program, span)?;
                let made = self.extreme(Binary::Min, made, Value::number(1.0), span)?;
                self.binary(BinaryOp::Mul, Value::number(given), made, span)
            }
            Duration::Epochs { .. } => self.extreme(Binary::Min, Value::number(given), horizon.clone(), span),
        }
    }

    /// Refuses lengths that training cannot have; what is longer than this training ends with it.
    fn within_training(&mut self, given: f64, whole: f64, number: &Number, span: Span) -> Checked<f64> {
        let percent = number.unit == Unit::Percent;
        if given.is_nan() || given < 0.0 || (percent && given > whole) {
            let error = Diagnostic::error("E0720", span, "this is no part of training").label(format!(
                "{}{}",
                number.value,
                super::value::unit_suffix(number.unit)
            ));
            let help = if percent { "give a share between 0% and 100%" } else { "give a length of at least 0" };
            return self.fail(error.help(help));
        }
        if given > whole {
            let warning = Diagnostic::warning("W0720", span, "this is longer than training")
                .label(format!("{given} of {whole}"))
                .note("it ends when training ends")
                .help("train for longer, or make it shorter: a percentage follows the number of steps");
            self.report(warning);
        }
        Ok(given.min(whole))
    }

    /// Refuses schedules whose rate is at some moment negative or not a finite number.
    pub(super) fn sound_rates(&mut self, rate: NodeId, settings: &TrainSettings, span: Span) -> Checked<()> {
        let steps = match settings.steps {
            Duration::Steps(steps) => steps,
            Duration::Epochs { .. } => SOME_HORIZON,
        };
        let graph = self.graph.yielding(vec![(Output::Report("rate".into()), rate)]);
        let last = u64::from(steps).saturating_sub(1);
        for moment in 0..MOMENTS {
            let step = (moment * last / (MOMENTS - 1)) as u32;
            let bindings = Bindings { step, steps, ..Bindings::default() };
            let Ok(mut evaluation) = interpret(&graph, &bindings) else { return Ok(()) };
            let Ok(value) = evaluation.output(&Output::Report("rate".into())) else { return Ok(()) };
            let value = value.data[0];
            if !(value >= 0.0 && value.is_finite()) {
                return self.unsound_rate(value, step, span);
            }
        }
        Ok(())
    }

    fn unsound_rate<T>(&mut self, value: f64, step: u32, span: Span) -> Checked<T> {
        let error = Diagnostic::error("E0722", span, "a learning rate must be finite and not negative")
            .label(format!("this is {value} in step {} of training", step + 1))
            .note("an optimizer would go uphill, or nowhere");
        self.fail(error.help("correct the schedule: `max(0, ...)` bounds it from below"))
    }
}

/// Whether a number with this unit can be a length of training.
fn is_time(unit: Unit) -> bool {
    matches!(unit, Unit::Steps | Unit::Tokens | Unit::Samples | Unit::Epochs | Unit::Percent)
}

/// Where the value of a parameter is written: its argument, its default, or else its name.
fn place_of(definition: &Definition, index: usize, given: &[Given]) -> Span {
    let parameter = &definition.parameters[index];
    let named = |given: &&Given| given.name.as_ref().is_some_and(|name| name.text == parameter.name.text);
    let positional = given.get(index).filter(|given| given.name.is_none());
    let argument = given.iter().find(named).or(positional).map(|given| given.span);
    argument.or_else(|| parameter.default.as_ref().map(|default| default.span)).unwrap_or(parameter.name.span)
}
