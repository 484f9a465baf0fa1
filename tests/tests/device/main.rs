//! Whole programs on an emulated CUDA device, through the driver calls of the runtime, next to the processor.
//!
//! Each test starts itself again as a child that finds the emulated driver; the child trains on both machines and compares,
//! the parent reads what the emulator has to say. With `TRAINC_ON_GPU` set (`tests/on_gpu.sh` does) the same comparisons run
//! on the machine's own device instead, of course without the emulator's checks.

mod counts;
mod failures;
mod layers;
mod private;
mod programs;
mod saturation;

use trainc_kernels::{Target, host_isa};
use trainc_libcuda::child::{is_child, of_kind, report_of};
use trainc_runtime::{
    Batch, Options, Session, Values,
    artifact::{Artifact, DType, InputBinding, Isa},
    device::Place,
};
use trainc_tests::{
    program,
    vectors::{difference, norm},
};

const STEPS: u32 = 5;

/// Whether the comparisons run on the machine's own device.
fn on_gpu() -> bool {
    std::env::var_os("TRAINC_ON_GPU").is_some()
}

/// How close the two machines must come.
#[derive(Clone, Copy)]
enum Bound {
    /// The order of every reduction that reaches a tensor is the same.
    Bits,
    /// Relative difference of losses, and of all parameters as one vector.
    Relative(f64),
}

/// Trains a program in a child on both machines; the emulator must not complain. Returns its report.
fn compared(test: &str, name: &str, text: &str, bound: Bound) -> Option<Vec<serde_json::Value>> {
    compared_each(test, &[(name, text.to_owned(), bound)])
}

/// [`compared`] for several programs, each with its name and its bound, in one child.
fn compared_each(test: &str, programs: &[(&str, String, Bound)]) -> Option<Vec<serde_json::Value>> {
    clean(test, || programs.iter().for_each(|(name, text, bound)| compare(name, text, *bound)))
}

/// Does something in a child that has a device; the emulator must not complain. Returns its report.
fn clean(test: &str, work: impl FnOnce()) -> Option<Vec<serde_json::Value>> {
    if is_child() || on_gpu() {
        work();
        return None;
    }
    let report = report_of(test, &[]);
    let violations = of_kind(&report, "violation");
    assert!(violations.is_empty(), "{violations:#?}");
    Some(report)
}

fn compiled(name: &str, text: &str, target: Target, isa: Isa) -> Artifact {
    let checked = program::check(name, text, &[]).unwrap_or_else(|found| panic!("{found}"));
    program::artifact_of(name, checked, target, isa)
}

fn opened(name: &str, artifact: Artifact, device: Place) -> Session {
    Session::new(artifact, &Options { device, ..Options::default() }).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sessions(name: &str, text: &str) -> [Session; 2] {
    let cpu = opened(name, compiled(name, text, Target::Cpu, host_isa()), Place::Cpu);
    [cpu, opened(name, compiled(name, text, Target::Cuda, Isa::Sm80), Place::Cuda(0))]
}

fn compare(name: &str, text: &str, bound: Bound) {
    let [mut cpu, mut device] = sessions(name, text);
    let before = everything(&cpu);
    assert!(before == everything(&device), "{name}: other initial values");
    let most = if let Bound::Relative(bound) = bound { 10.0 * bound } else { 0.0 };
    for step in 0..STEPS {
        let batch = batch(&cpu, step);
        let expected: Vec<(String, f64)> = cpu.step_with(&batch).unwrap().iter().map(owned).collect();
        let actual: Vec<(String, f64)> = device.step_with(&batch).unwrap().iter().map(owned).collect();
        agree(&format!("{name}, step {step}"), &expected, &actual, bound);
        if step == 0 {
            let moved = [&cpu, &device].map(|session| difference(&everything(session), &before));
            let distance = norm(&difference(&moved[0], &moved[1])) / norm(&moved[0]).max(f64::MIN_POSITIVE);
            assert!(distance <= most, "{name}: the first movements differ by {distance:e}");
        }
    }
    if cpu.manifest().entry("evaluate").is_some() {
        let batch = batch(&cpu, STEPS);
        let [expected, actual] = [&mut cpu, &mut device].map(|session| session.evaluate_with(&batch).unwrap());
        let [expected, actual] = [expected, actual].map(|numbers| numbers.iter().map(owned).collect::<Vec<_>>());
        // Each machine adds up what a row adds in an order of its own.
        let bound = if matches!(bound, Bound::Bits) { Bound::Relative(1e-6) } else { bound };
        agree(&format!("{name}, evaluated"), &expected, &actual, bound);
    }
    let [after, on_device] = [&cpu, &device].map(everything);
    let distance = norm(&difference(&after, &on_device)) / norm(&after);
    assert!(distance <= most, "{name}: parameters and states differ by {distance:e}");
    println!("{name}: difference of all tensors {distance:e}");
}

/// Holds numbers of a device to those of the processor.
fn agree(when: &str, expected: &[(String, f64)], actual: &[(String, f64)], bound: Bound) {
    assert_eq!(expected.len(), actual.len(), "{when}");
    for ((what, expected), (_, actual)) in expected.iter().zip(actual) {
        let close = match bound {
            // A sum over all parameters, which each machine takes in an order of its own.
            Bound::Bits if what == "grad_norm" => (actual - expected).abs() <= 1e-6 * expected.abs(),
            Bound::Bits => actual == expected,
            Bound::Relative(bound) => (actual - expected).abs() <= bound * expected.abs().max(1e-3),
        };
        assert!(close, "{when}: {what} is {actual} on the device, {expected} on the processor");
    }
}

fn owned((name, value): (&str, f64)) -> (String, f64) {
    (name.to_owned(), value)
}

/// All tensors of a session as one vector.
fn everything(session: &Session) -> Vec<f64> {
    let values = session.tensors().iter().map(|tensor| match session.tensor(&tensor.name).unwrap() {
        Values::Floats(values) => values.into_iter().map(f64::from).collect::<Vec<_>>(),
        Values::Integers(values) => values.into_iter().map(f64::from).collect(),
    });
    values.flatten().collect()
}

/// A batch for the step's inputs, from a small generator.
fn batch(session: &Session, step: u32) -> Batch {
    let inputs = &session.manifest().entry("step").unwrap().inputs;
    let mut batch = Batch::new();
    for input in inputs.iter().filter(|input| input.shift == 0) {
        let ahead =
            inputs.iter().filter(|other| other.field == input.field).map(|other| other.shift).max().unwrap_or(0);
        let count = input.batch() * (input.record_elements() + ahead);
        batch = batch.with(&input.field, values(input, count, u64::from(step)));
    }
    batch
}

fn values(input: &InputBinding, count: u64, step: u64) -> Values {
    let mut state = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ input.name.len() as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    match input.dtype {
        DType::I32 => Values::Integers((0..count).map(|_| (next() % input.below.unwrap_or(2)) as i32).collect()),
        _ => Values::Floats((0..count).map(|_| next() as f32 / (1u64 << 31) as f32).collect()),
    }
}

/// An example with some words of its text replaced.
fn example(name: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = program::read(&format!("dsl-examples/{name}.train"));
    for (from, to) in replaced {
        assert!(text.contains(from), "{name} does not say `{from}`");
        text = text.replace(from, to);
    }
    text
}

/// The demo with sizes that the emulator executes in seconds.
const SMALL_GPT: [(&str, &str); 4] = [
    ("width = 192", "width = 24"),
    ("depth = 4", "depth = 2"),
    ("context = 128", "context = 72"),
    ("batch 16", "batch 2"),
];
