//! Private training of a small classifier of digits, measured: how far the gradient that the optimizer works with is from the
//! gradient of all records, and how many held-out digits are recognised. The acceptance test runs it on made-up digits,
//! `examples/private_report.rs` on real ones.

use crate::{
    program,
    vectors::{difference, dot, norm},
};
use std::path::{Path, PathBuf};
use trainc_kernels::{Target, host_isa};
use trainc_runtime::{
    Options, Session,
    artifact::{Artifact, TensorKind},
    data::unit,
};

/// Steps of a run.
pub const STEPS: u32 = 400;

/// Images in `digits.csv`; a fifth is held out.
const IMAGES: u64 = 1797;
const TRAINED_ON: u64 = 1438;
const HELD_OUT: u64 = 359;

/// Expected samples of a step: a fifth of the records takes part.
const BATCH: u64 = 288;

/// The probability of failure: records to the power of -1.1.
pub const DELTA: f64 = 3.36e-4;

/// The sampling rate.
pub const SAMPLING_RATE: f64 = BATCH as f64 / TRAINED_ON as f64;

/// The first steps do not count: filters have not seen enough yet.
const SETTLED: u32 = 20;

/// Of the others one in so many is looked at; neighbours have most of their noise in common.
const STRIDE: u32 = 4;

/// What happens to the noisy gradient.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// For people.
    pub name: &'static str,
    /// The clause `filter ...`, or nothing.
    pub filter: &'static str,
    /// The optimizer.
    pub optimizer: &'static str,
    /// By how many times the rate a constant gradient of 1 moves a parameter, step by step in the end.
    pub gain: f64,
}

impl Method {
    /// Gradient descent behind a filter.
    pub const fn filtered(name: &'static str, filter: &'static str) -> Self {
        Self { name, filter, optimizer: "sgd", gain: 1.0 }
    }
}

/// How a gradient compares with that of all records: means over the steps of a run.
#[derive(Clone, Copy, Debug)]
pub struct GradientError {
    /// `||u - grad F|| / ||grad F||`.
    pub relative: f64,
    /// The cosine of the angle between the two.
    pub cosine: f64,
}

fn text(batch: u64, method: &Method, rate: f64, private: &str) -> String {
    let Method { filter, optimizer, gain, .. } = method;
    let rate = rate / gain;
    format!(
        "use std
model Mlp(hidden, classes) {{
    input image: [batch, 64]
    input label: int[batch]
    x = tanh(linear(image, hidden, init = fan_in_uniform(64)))
    output logits = linear(x, classes, init = fan_in_uniform(hidden))
}}
data Digits {{
    csv \"digits.csv\"
    field image = columns(0, 64, scale = 1 / 16)
    field label = columns(64)
    split valid = 20%
}}
train {{
    model Mlp(hidden = 64, classes = 10)
    data Digits
    loss cross_entropy(logits, label)
    metric accuracy(logits, label)
    {private}
    optimizer {optimizer}
    {filter}
    schedule constant({rate})
    steps {STEPS}  batch {batch}
}}
"
    )
}

/// Private training of one method with one amount of noise, compiled.
pub struct Experiment {
    artifact: Artifact,
    base: PathBuf,
    rate: f64,
}

impl Experiment {
    /// Training on the `digits.csv` of a folder. A constant gradient moves parameters by `rate` times itself in each step,
    /// whatever the method.
    pub fn new(base: &Path, method: &Method, noise_multiplier: f64, rate: f64) -> Self {
        // So many rows hold a step, almost always, and all held-out digits. Nobody looks at the account: the cheap one will do.
        let private = format!(
            "private {{ noise_multiplier {noise_multiplier}  delta {DELTA}  clip 1.0  rows {HELD_OUT}  accountant rdp }}"
        );
        Self { artifact: artifact(base, &text(BATCH, method, rate, &private)), base: base.to_owned(), rate }
    }

    fn session(&self, seed: u64) -> Session {
        open(&self.artifact, &self.base, Options { seed: Some(seed), ..Options::default() })
    }

    /// The share of held-out digits that are recognised after training.
    pub fn accuracy(&self, seed: u64) -> f64 {
        let mut session = self.session(seed);
        for _ in 0..STEPS {
            session.step().expect("a private step");
        }
        let numbers = session.evaluate().expect("digits are held out").expect("digits are held out");
        numbers.get("accuracy").expect("the metric is reported")
    }

    /// Compares what each step does with the gradient of all records where the step begins.
    pub fn gradient_error(&self, seed: u64, all: &mut AllRecords) -> GradientError {
        let mut session = self.session(seed);
        let mut found = Vec::new();
        for step in 0..STEPS {
            if step < SETTLED || step % STRIDE != 0 {
                session.step().expect("a private step");
                continue;
            }
            let (gradient, before) = (all.gradient(&session), parameters(&session));
            session.step().expect("a private step");
            let used = difference(&before, &parameters(&session)).into_iter().map(|moved| moved / self.rate);
            found.push(compare(&used.collect::<Vec<f64>>(), &gradient));
        }
        GradientError {
            relative: mean(found.iter().map(|error| error.relative)),
            cosine: mean(found.iter().map(|error| error.cosine)),
        }
    }
}

fn compare(used: &[f64], gradient: &[f64]) -> GradientError {
    GradientError {
        relative: norm(&difference(used, gradient)) / norm(gradient),
        cosine: dot(used, gradient) / norm(used) / norm(gradient),
    }
}

/// The mean of some numbers.
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// The gradient of the mean loss of all training records: a step of gradient descent over all of them shows it.
pub struct AllRecords {
    session: Session,
}

impl AllRecords {
    /// The same model on the same data, without privacy.
    pub fn new(base: &Path) -> Self {
        let text = text(TRAINED_ON, &Method::filtered("all records", ""), 1.0, "");
        // These steps are not training: there is no end to them.
        let options = Options { steps: Some(u32::MAX), ..Options::default() };
        let mut session = open(&artifact(base, &text), base, options);
        assert_eq!(session.open_data().expect("digits").train_records(), TRAINED_ON);
        Self { session }
    }

    /// The gradient at the parameters of another session.
    fn gradient(&mut self, at: &Session) -> Vec<f64> {
        for name in names(at) {
            let values = at.tensor(&name).expect("a parameter");
            self.session.set_tensor(&name, &values).expect("the same model");
        }
        let before = parameters(&self.session);
        self.session.step().expect("a step over all records");
        difference(&before, &parameters(&self.session))
    }
}

fn artifact(base: &Path, text: &str) -> Artifact {
    program::artifact_of("digits", program::checked_in(base, "digits", text), Target::Cpu, host_isa())
}

fn open(artifact: &Artifact, base: &Path, options: Options) -> Session {
    let options = Options { base: Some(base.to_owned()), threads: Some(1), ..options };
    Session::new(artifact.clone(), &options).expect("a program of ours")
}

fn names(session: &Session) -> Vec<String> {
    let parameters = session.tensors().iter().filter(|tensor| matches!(tensor.kind, TensorKind::Parameter { .. }));
    parameters.map(|tensor| tensor.name.clone()).collect()
}

fn parameters(session: &Session) -> Vec<f64> {
    names(session).iter().flat_map(|name| program::floats(session, name)).collect()
}

/// Writes a `digits.csv` of made-up digits: ten random images, each seen through much noise.
pub fn write_made_up(base: &Path) {
    let pixel = |image: u64, pixel: u64| {
        let (seen, noise) = (unit(image % 10, pixel), unit(100 + image, pixel));
        (16.0 * 0.5 * (seen + noise)).floor().to_string()
    };
    let line = |image| {
        let pixels = (0..64).map(|at| pixel(image, at)).collect::<Vec<_>>().join(",");
        format!("{pixels},{}\n", image % 10)
    };
    let lines: String = (0..IMAGES).map(line).collect();
    std::fs::write(base.join("digits.csv"), lines).expect("a folder to write to");
}
