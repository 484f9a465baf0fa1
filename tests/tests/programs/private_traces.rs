//! Recorded runs of private training, repeated step by step by whole programs: gradients of samples, clipping, noise, filter
//! and optimizer. The recorded draws are put into the checked graph, and so is, for four of the runs, the 1e-6 that a published
//! program adds to norms before it clips, which the language does not say (`trainc_tests::traces`).

use trainc::{
    graph::{Bindings, Evaluation, Output, Tensor, TensorType},
    program::{InputKind, Program},
};
use trainc_kernels::{Target, host_isa};
use trainc_runtime::{Options, Session};
use trainc_tests::{
    program::artifact_of,
    traces::{Recorded, Replayed, SAMPLES, Trace, WIDTH, WORDS, numbers},
};

/// Largest difference from a recorded number in f64.
const TOLERANCE: f64 = 1e-10;

/// Runs on each of two problems.
const RUNS: usize = 24 + LOOKING_BACK;

/// Those of them whose filter takes its second gradient behind (`gamma` < 0).
const LOOKING_BACK: usize = 4;

/// A program between two steps of the interpreter.
struct Run {
    replayed: Replayed,
    bindings: Bindings,
}

impl Run {
    fn new(trace: &Trace) -> Self {
        let replayed = trace.replayed();
        let program = &replayed.program;
        let mut bindings = Bindings { steps: 8, ..Bindings::default() };
        bindings.parameters.insert(0, Tensor::f32(&[WIDTH as u64], trace.start()));
        for (index, state) in (0..).zip(&program.states) {
            bindings.states.insert(index, Tensor::full(TensorType::f32(state.shape.clone()), 0.0));
        }
        for (index, input) in (0..).zip(&program.inputs) {
            let rows = SAMPLES as u64;
            let value = match (input.kind, input.name.as_str()) {
                (InputKind::Mask, _) => Tensor::f32(&[rows], vec![1.0; SAMPLES]),
                (_, "a") => Tensor::f32(&[rows, WIDTH as u64], trace.features()),
                _ => Tensor::f32(&[rows], trace.targets()),
            };
            bindings.inputs.insert(index, value);
        }
        Run { replayed, bindings }
    }

    fn program(&self) -> &Program {
        &self.replayed.program
    }

    fn parameter(&self) -> &[f64] {
        &self.bindings.parameters[&0].data
    }

    /// The state of a filter with this name.
    fn filter_state(&self, name: &str) -> Option<&[f64]> {
        let end = format!(".{name}.x");
        let index = self.program().states.iter().position(|state| state.name.ends_with(&end))?;
        Some(&self.bindings.states[&(index as u32)].data)
    }

    fn set(&mut self, name: &str, values: Vec<f64>) {
        let index = self.program().states.iter().position(|state| state.name == name).expect("the state is there");
        self.bindings.states.insert(index as u32, Tensor::f32(&[WIDTH as u64], values));
    }

    /// Makes a step; returns the norms of the samples' gradients, and the private gradient.
    fn step(&mut self) -> [Vec<f64>; 2] {
        let graph = &self.replayed.program.step;
        let mut next = self.bindings.clone();
        let mut evaluation = Evaluation::new(graph, &self.bindings);
        for (output, _) in graph.outputs() {
            let value = evaluation.output(output).unwrap_or_else(|error| panic!("{error}")).clone();
            match output {
                Output::Parameter(index) => drop(next.parameters.insert(*index, value)),
                Output::State(index) => drop(next.states.insert(*index, value)),
                Output::Report(_) => {}
            }
        }
        let seen = [self.replayed.norms, self.replayed.private_gradient];
        let seen = seen.map(|node| evaluation.value(node, 0).expect("evaluated").data.clone());
        next.step += 1;
        self.bindings = next;
        seen
    }
}

fn close(trace: &Trace, what: &str, found: &[f64], expected: &[f64]) {
    let name = trace.shown();
    assert_eq!(found.len(), expected.len(), "{name}: {what}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error <= TOLERANCE, "{name}: {what} is {found:?}, recorded {expected:?}");
    }
}

fn replay(trace: &Trace) {
    let mut run = Run::new(trace);
    for (t, step) in trace.steps().iter().enumerate() {
        close(trace, "x", run.parameter(), &numbers(&step["x"]));
        if let Some(d) = run.filter_state("d") {
            close(trace, "d", d, &numbers(&step["d_prev"]));
        }
        if let Some(r) = run.filter_state("r.0") {
            let response = trace.response_to_the_newest() + r[0];
            close(trace, "c", &[response], &[step["c"].as_f64().expect("a number")]);
        }
        WORDS.iter().zip(trace.words(t)).for_each(|(name, words)| run.set(name, words));
        let [norms, gradient] = run.step();
        close(trace, "norms", &norms, &numbers(&step["norms"]));
        close(trace, "private gradient", &gradient, &numbers(&step["private_grad"]));
        if let Some(filtered) = run.filter_state("g") {
            close(trace, "filtered", filtered, &numbers(&step["filtered"]));
        }
        close(trace, "the next x", run.parameter(), &numbers(&step["x_next"]));
    }
}

#[test]
fn recorded_runs_of_private_training_are_repeated_by_the_interpreter() {
    let recorded = Recorded::read();
    let traces = recorded.traces();
    assert_eq!(traces.len(), 2 * RUNS);
    traces.iter().for_each(replay);
}

#[test]
fn recorded_runs_with_a_gradient_from_behind_are_among_them() {
    let recorded = Recorded::read();
    let back = recorded.traces().iter().filter(|trace| trace.name().starts_with("disk_back")).count();
    assert_eq!(back, 2 * LOOKING_BACK);
}

#[test]
fn recorded_runs_of_private_training_are_repeated_by_compiled_programs() {
    let recorded = Recorded::read();
    for trace in recorded.traces() {
        let artifact = artifact_of(&trace.shown(), trace.replayed().program, Target::Cpu, host_isa());
        let mut session = Session::new(artifact, &Options::default()).expect("the artifact is loaded");
        let distance = trace.distance(&mut session);
        println!("{}: {distance:e}", trace.shown());
        assert!(distance <= trace.tolerance_of_f32(), "{}: {distance:e}", trace.shown());
    }
}
