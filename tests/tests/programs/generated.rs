//! Random programs: what the compiled code computes is what the reference interpreter computes, in f64, on the graph as
//! the checker built it.
//!
//! `TRAINC_GENERATED_PROGRAMS` sets the number of programs, `TRAINC_GENERATED_FROM` the first one's number.

use std::panic;
use trainc::{
    graph::{Bindings, Evaluation, Output, Tensor, TensorType},
    program::Program,
};
use trainc_runtime::{
    Batch, Options, Session, Values,
    artifact::InputBinding,
    data::{Need, hash, unit},
};
use trainc_tests::{
    arbitrary,
    program::{self, floats},
};

/// Updates compared: the second one sees the state that the first has left.
const STEPS: u32 = 2;

/// Relative error of a loss in f32.
const LOSS_TOLERANCE: f64 = 1e-3;

/// `|compiled - expected| / |expected - initial|` over all parameters as one vector: the error of the updates, which
/// normalising optimizers make larger than that of the gradients.
const UPDATE_TOLERANCE: f64 = 1e-2;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn compiled_random_programs_agree_with_the_interpreter() {
    let first = from_environment("TRAINC_GENERATED_FROM", 0);
    let count = from_environment("TRAINC_GENERATED_PROGRAMS", 8);
    let failures: Vec<String> = (first..first + count).filter_map(failure).collect();
    assert!(failures.is_empty(), "{} of {count} programs fail:\n{}", failures.len(), failures.join("\n\n"));
}

/// The new value of an element needs others of the old matrix, which is therefore not updated in place.
#[test]
fn an_optimizer_that_transposes_its_parameter_agrees_with_the_interpreter() {
    let text = "model Line() {
        input x: [batch, 3]
        param w: [3, 3] ~ normal(0.1)
        output y = mean(sum[i](x[b, i] * w[o, i])^2)
    }
    optimizer turning(p: [m, n]) {
        p <- 0.5 * (p[.., i, j] -> [.., j, i]) - rate * grad
    }
    train {
        model Line()
        loss y
        optimizer turning
        schedule 0.1
        steps 10 batch 5
    }";
    compare(text, STEPS, UPDATE_TOLERANCE).unwrap();
}

/// What is wrong with the program of this number, with its text.
fn failure(seed: u64) -> Option<String> {
    let text = arbitrary::program(seed);
    let compared = panic::catch_unwind(|| compare(&text, STEPS, UPDATE_TOLERANCE));
    let error = compared.unwrap_or_else(|_| Err("a panic, see above".into())).err()?;
    Some(format!("program {seed}: {error}\n{text}"))
}

/// Compares the losses of some updates, and what they sum up to; see [`UPDATE_TOLERANCE`].
pub fn compare(text: &str, steps: u32, tolerance: f64) -> Result<(), String> {
    let checked = program::check("generated", text, &[])?;
    let mut session = program::session("generated", text, &[], &Options::default());
    let mut reference = Reference::new(checked, &session);
    for step in 0..steps {
        let needs = Need::of(session.manifest().entry("step").into_iter().flat_map(|entry| &entry.inputs))?;
        let fields: Vec<(String, Vec<f64>)> =
            needs.iter().map(|need| (need.field.clone(), numbers(need, u64::from(step)))).collect();
        let expected = reference.step(&session, &fields)?;
        let loss = session.step_with(&batch(&needs, &fields)).map_err(|error| error.to_string())?.loss();
        let error = (loss - expected).abs() / expected.abs();
        if error.is_nan() || error > LOSS_TOLERANCE {
            return Err(format!("step {step}: loss {loss}, expected {expected}"));
        }
    }
    let error = reference.update_error(&session);
    if error < tolerance { Ok(()) } else { Err(format!("the updates are wrong by {error:e}")) }
}

/// A field of a batch, made up.
fn numbers(need: &Need, stream: u64) -> Vec<f64> {
    let count = need.batch * need.record_elements();
    match need.below {
        Some(below) => (0..count).map(|index| (hash(stream, index) % below) as f64).collect(),
        None => (0..count).map(|index| unit(stream, index)).collect(),
    }
}

fn batch(needs: &[Need], fields: &[(String, Vec<f64>)]) -> Batch {
    needs.iter().zip(fields).fold(Batch::new(), |batch, (need, (field, numbers))| {
        let values = match need.integer {
            true => Values::Integers(numbers.iter().map(|&number| number as i32).collect()),
            false => Values::Floats(numbers.iter().map(|&number| number as f32).collect()),
        };
        batch.with(field, values)
    })
}

/// What one of the model's inputs takes of a field: each record from `shift` on.
fn input(binding: &InputBinding, field: &[f64]) -> Tensor {
    let (record, taken) = (field.len() / binding.batch() as usize, binding.record_elements() as usize);
    let from = binding.shift as usize;
    let data = field.chunks_exact(record).flat_map(|record| &record[from..from + taken]).copied().collect();
    Tensor::new(TensorType { dtype: binding.dtype, shape: binding.shape.clone() }, data)
}

/// The interpreter's run of the program.
struct Reference {
    program: Program,
    bindings: Bindings,
    initial: Vec<Tensor>,
}

impl Reference {
    fn new(program: Program, session: &Session) -> Self {
        let tensor = |name: &str, shape: &[u64]| Tensor::f32(shape, floats(session, name));
        let parameters = program.parameters.iter().map(|parameter| tensor(&parameter.name, &parameter.shape));
        let initial: Vec<Tensor> = parameters.collect();
        let states = program.states.iter().map(|state| tensor(&state.name, &state.shape));
        let bindings = Bindings {
            parameters: (0..).zip(initial.iter().cloned()).collect(),
            states: (0..).zip(states).collect(),
            steps: session.steps().expect("the horizon is given in steps"),
            seed: program.train.seed,
            ..Bindings::default()
        };
        Self { program, bindings, initial }
    }

    /// Makes an update; returns the loss before it.
    fn step(&mut self, session: &Session, fields: &[(String, Vec<f64>)]) -> Result<f64, String> {
        self.feed(session, fields);
        let mut evaluation = Evaluation::new(&self.program.step, &self.bindings);
        let mut value = |output: &Output| evaluation.output(output).cloned().map_err(|error| error.to_string());
        let loss = value(&Output::Report("loss".into()))?.scalar();
        let mut next = self.bindings.clone();
        for (output, _) in self.program.step.outputs() {
            match output {
                Output::Parameter(index) => drop(next.parameters.insert(*index, value(output)?)),
                Output::State(index) => drop(next.states.insert(*index, value(output)?)),
                Output::Report(_) => {}
            }
        }
        next.step += 1;
        self.bindings = next;
        Ok(loss)
    }

    fn feed(&mut self, session: &Session, fields: &[(String, Vec<f64>)]) {
        let entry = session.manifest().entry("step").expect("a program has steps");
        for (index, declared) in (0..).zip(&self.program.inputs) {
            let Some(binding) = entry.inputs.iter().find(|binding| binding.name == declared.name) else { continue };
            let (_, field) = fields.iter().find(|(name, _)| *name == binding.field).expect("every field is made up");
            self.bindings.inputs.insert(index, input(binding, field));
        }
    }

    /// See [`UPDATE_TOLERANCE`].
    fn update_error(&self, session: &Session) -> f64 {
        let (mut wrong, mut moved) = (0.0, 0.0);
        for ((index, parameter), initial) in (0..).zip(&self.program.parameters).zip(&self.initial) {
            let expected = &self.bindings.parameters[&index].data;
            let found = floats(session, &parameter.name);
            wrong += squared_distance(&found, expected);
            moved += squared_distance(&initial.data, expected);
        }
        (wrong / moved).sqrt()
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}
