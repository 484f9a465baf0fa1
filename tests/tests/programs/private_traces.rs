//! Recorded runs of private training, step by step: gradients of single samples where the filter takes them, what filter
//! and optimizer make of the private gradient, and where the parameters go. The traces (`golden/privacy/dp_golden.json`) are
//! of two convex problems with four samples and three parameters, made by an independent implementation in f64.
//!
//! What is between the gradients of the samples and the private gradient, clipping and noise, is done here by hand, with
//! the recorded factors and draws.

use serde_json::Value as Json;
use trainc::{
    graph::{Bindings, Evaluation, Output, Tensor},
    program::Program,
};
use trainc_tests::program;

/// Largest difference from a recorded number.
const TOLERANCE: f64 = 1e-10;

/// Learning rate of the optimizers of Adam's kind.
const ADAM_RATE: f64 = 0.05;

/// The filters of two traces that are not in the library: DiSK started from 0, and with the gain and the noise of a published
/// program that departs from its own description.
const VARIANTS: &str = "
filter kalman_from_zero(kappa, gamma, gain) {
    state g = 0, d = 0
    c = (1 - kappa) / (kappa * gamma)
    sample c * gradient(p + gamma * d) + (1 - c) * gradient(p)
    g <- (1 - gain) * g + gain * grad
    grad <- g
    x = p
    update
    d <- p - x
}

filter kalman_with_gain(kappa, gamma, gain) {
    state g = 0, d = 0
    c = (1 - kappa) / (kappa * gamma)
    sample c * gradient(p + gamma * d) + (1 - c) * gradient(p)
    g <- if t == 1 then grad else (1 - gain) * g + gain * grad
    grad <- g
    x = p
    update
    d <- p - x
}
";

/// A model of one sample whose loss has the gradient `a`.
const FED: &str = "mean(product)";

/// One of the recorded runs.
struct Trace<'a> {
    data: &'a Json,
    problem: &'a Json,
    trace: &'a Json,
}

impl Trace<'_> {
    fn number(&self, name: &str) -> Option<f64> {
        self.trace[name].as_f64()
    }

    fn text(&self, name: &str) -> &str {
        self.trace[name].as_str().unwrap_or_default()
    }

    fn shown(&self) -> String {
        format!("{}, {}", self.problem["problem"].as_str().unwrap(), self.text("name"))
    }

    /// The standard deviation of the noise in the sum of the clipped gradients.
    fn deviation(&self) -> f64 {
        let drawn = f64::from(u8::from(self.trace["noise"].as_bool().unwrap()));
        drawn * self.problem["sigma"].as_f64().unwrap() * self.problem["C"].as_f64().unwrap()
            / self.number("sigma_divisor").unwrap()
    }

    fn batch(&self) -> f64 {
        self.data["B"].as_f64().unwrap()
    }

    /// The loss of one sample, with its features in `a` and its target in `y`.
    fn loss(&self) -> &'static str {
        match self.problem["problem"].as_str().unwrap() {
            "quadratic" => "mean(0.5 * (product - y)^2)",
            _ => "mean(log(1 + exp(-y * product)))",
        }
    }

    fn targets(&self) -> Vec<f64> {
        let name = if self.problem["problem"] == "quadratic" { "b" } else { "y_logistic" };
        numbers(&self.data[name])
    }

    fn filter(&self) -> String {
        let numbers = |name: &str| format!("{:?}", numbers(&self.trace[name]));
        let number = |name: &str| self.number(name).unwrap_or_default();
        match (self.text("method"), self.text("name")) {
            ("doppler" | "doppler_adam_author", _) => {
                format!("filter lowpass(a = {}, b = {})", numbers("a"), numbers("b"))
            }
            ("disk", name @ ("disk_zeroinit_noise" | "disk_opacus_buggy_noise")) => {
                let variant = if name == "disk_zeroinit_noise" { "kalman_from_zero" } else { "kalman_with_gain" };
                let (kappa, gamma, gain) = (number("kappa"), number("gamma"), number("gain"));
                format!("filter {variant}(kappa = {kappa}, gamma = {gamma}, gain = {gain})")
            }
            ("disk", _) => format!("filter kalman(kappa = {}, gamma = {})", number("kappa"), number("gamma")),
            _ => String::new(),
        }
    }

    /// Optimizer and learning rate.
    fn optimizer(&self) -> (String, f64) {
        match (self.text("method"), self.text("opt")) {
            ("doppler_adam_author", _) => {
                (format!("filtered_adam(beta = {})", self.number("beta2").unwrap()), ADAM_RATE)
            }
            (_, "adamw") => ("adamw(weight_decay = 0.01)".into(), ADAM_RATE),
            (_, "adambc") => (format!("dp_adam(deviation = {})", self.deviation() / self.batch()), ADAM_RATE),
            (_, "sgd") => ("sgd".into(), self.problem["lr_sgd"].as_f64().unwrap()),
            (_, other) => panic!("{}: no optimizer {other}", self.shown()),
        }
    }
}

fn numbers(list: &Json) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// A program of one sample, and what is kept from step to step.
#[derive(Clone)]
struct Run {
    program: Program,
    bindings: Bindings,
}

impl Run {
    fn new(loss: &str, filter: &str, optimizer: &str, rate: f64) -> Self {
        let text = format!(
            "use std
{VARIANTS}
model Sample() {{
    input a: [batch, 3]
    input y: [batch]
    param x: [3] = 0
    output product = sum[i](a[n, i] * x[i])
}}

train {{
    model Sample()
    loss {loss} + 0 * mean(y)
    optimizer {optimizer}
    {filter}
    schedule {rate}
    steps 8  batch 1
}}
"
        );
        let program = program::check("trace", &text, &[]).unwrap_or_else(|found| panic!("{found}"));
        let mut bindings = Bindings { steps: 8, ..Bindings::default() };
        bindings.parameters.insert(0, Tensor::f32(&[3], vec![0.0; 3]));
        for (index, state) in (0..).zip(&program.states) {
            bindings
                .states
                .insert(index, Tensor::f32(&state.shape, vec![0.0; state.shape.iter().product::<u64>() as usize]));
        }
        Run { program, bindings }
    }

    fn with_parameter(mut self, x: &[f64]) -> Self {
        self.bindings.parameters.insert(0, Tensor::f32(&[3], x.to_vec()));
        self
    }

    fn parameter(&self) -> &[f64] {
        &self.bindings.parameters[&0].data
    }

    /// The index of the state with this name in any filter.
    fn state_index(&self, name: &str) -> Option<u32> {
        let is_it = |state: &trainc::program::State| state.name.ends_with(&format!(".{name}.x"));
        self.program.states.iter().position(is_it).map(|index| index as u32)
    }

    fn state(&self, name: &str) -> Option<&[f64]> {
        self.state_index(name).map(|index| self.bindings.states[&index].data.as_slice())
    }

    /// Makes a step; returns the norm of the gradient.
    fn step(&mut self, a: &[f64], y: f64) -> f64 {
        for (index, input) in (0..).zip(&self.program.inputs) {
            let value = if input.name == "a" { Tensor::f32(&[1, 3], a.to_vec()) } else { Tensor::f32(&[1], vec![y]) };
            self.bindings.inputs.insert(index, value);
        }
        let mut next = self.bindings.clone();
        let mut evaluation = Evaluation::new(&self.program.step, &self.bindings);
        let mut value = |output: &Output| evaluation.output(output).cloned().unwrap_or_else(|error| panic!("{error}"));
        for (output, _) in self.program.step.outputs() {
            match output {
                Output::Parameter(index) => drop(next.parameters.insert(*index, value(output))),
                Output::State(index) => drop(next.states.insert(*index, value(output))),
                Output::Report(_) => {}
            }
        }
        let norm = value(&Output::Report("grad_norm".into())).scalar();
        next.step += 1;
        self.bindings = next;
        norm
    }
}

/// What gives the gradients of single samples as the filter takes them: gradient descent at rate 1, in the first step of
/// which filters change nothing. The variants have the sample of the library's filter.
fn sampler(trace: &Trace) -> Run {
    let number = |name: &str| trace.number(name).unwrap();
    let filter = match trace.text("method") {
        "disk" => format!("filter kalman(kappa = {}, gamma = {})", number("kappa"), number("gamma")),
        _ => String::new(),
    };
    Run::new(trace.loss(), &filter, "sgd", 1.0)
}

/// The gradient of a sample, and its norm. `d` is the last movement of the parameter.
fn gradient_of_sample(
    mut sampler: Run,
    features: &[f64],
    target: f64,
    x: &[f64],
    d: Option<&[f64]>,
) -> (Vec<f64>, f64) {
    sampler = sampler.with_parameter(x);
    if let (Some(d), Some(index)) = (d, sampler.state_index("d")) {
        sampler.bindings.states.insert(index, Tensor::f32(&[3], d.to_vec()));
    }
    let norm = sampler.step(features, target);
    (x.iter().zip(sampler.parameter()).map(|(before, after)| before - after).collect(), norm)
}

/// The private gradient: the recorded factors on the gradients of the samples, and the recorded draw.
fn private_gradient(trace: &Trace, sampler: &Run, run: &Run, step: &Json, t: usize) -> Vec<f64> {
    let draws = numbers(&trace.data["noise_table_standard_normal"][t]);
    let mut sum: Vec<f64> = draws.iter().map(|draw| trace.deviation() * draw).collect();
    for (sample, factor) in numbers(&step["factors"]).into_iter().enumerate() {
        let (features, target) = (numbers(&trace.data["A"][sample]), trace.targets()[sample]);
        let (gradient, norm) = gradient_of_sample(sampler.clone(), &features, target, run.parameter(), run.state("d"));
        close(&trace.shown(), "norm", &[norm], &[numbers(&step["norms"])[sample]]);
        sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += factor * gradient);
    }
    sum.iter().map(|sum| sum / trace.batch()).collect()
}

fn close(trace: &str, what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{trace}: {what}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error <= TOLERANCE, "{trace}: {what} is {found:?}, recorded {expected:?}");
    }
}

fn replay(trace: &Trace) {
    let name = trace.shown();
    let (optimizer, rate) = trace.optimizer();
    let start = numbers(&trace.data["x0"]);
    let mut run = Run::new(FED, &trace.filter(), &optimizer, rate).with_parameter(&start);
    // The same filter before gradient descent at rate 1, which shows the filtered gradient.
    let mut shown = Run::new(FED, &trace.filter(), "sgd", 1.0);
    let sampler = sampler(trace);
    for (t, step) in trace.trace["steps"].as_array().unwrap().iter().enumerate() {
        close(&name, "x", run.parameter(), &numbers(&step["x"]));
        if let Some(d) = run.state("d") {
            close(&name, "d", d, &numbers(&step["d_prev"]));
        }
        let gradient = private_gradient(trace, &sampler, &run, step, t);
        close(&name, "private gradient", &gradient, &numbers(&step["private_grad"]));
        let response = run.state("r.0").map(|r| numbers(&trace.trace["b"])[0] + r[0]);
        run.step(&gradient, 0.0);
        let before = shown.parameter().to_vec();
        shown.step(&gradient, 0.0);
        let filtered: Vec<f64> = before.iter().zip(shown.parameter()).map(|(before, after)| before - after).collect();
        if !step["filtered"].is_null() {
            close(&name, "filtered", &filtered, &numbers(&step["filtered"]));
        }
        if let Some(c) = response {
            close(&name, "c", &[c], &[step["c"].as_f64().unwrap()]);
            let m: Vec<f64> = filtered.iter().map(|filtered| filtered * c).collect();
            close(&name, "m", &m, &numbers(&step["m"]));
        }
        close(&name, "the next x", run.parameter(), &numbers(&step["x_next"]));
    }
}

#[test]
fn recorded_runs_of_private_training_are_repeated_by_the_interpreter() {
    let golden: Json = serde_json::from_str(&program::read("tests/golden/privacy/dp_golden.json")).unwrap();
    let mut replayed = 0;
    for problem in golden["problems"].as_array().unwrap() {
        for trace in problem["traces"].as_array().unwrap() {
            replay(&Trace { data: &golden["data"], problem, trace });
            replayed += 1;
        }
    }
    assert_eq!(replayed, 48, "24 runs on each of two problems");
}
