//! Whole programs on an emulated CUDA device, through the driver calls of the runtime, next to the processor.
//!
//! Each test starts itself again as a child that finds the emulated driver; the child trains on both machines and compares,
//! the parent reads what the emulator has to say. With `TRAINC_ON_GPU` set (`tests/on_gpu.sh` does) the same comparisons run
//! on the machine's own device instead, of course without the emulator's checks.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use trainc_kernels::{Target, host_isa};
use trainc_runtime::{
    Batch, Options, RunDirectory, Session, Values,
    artifact::{Artifact, DType, InputBinding, Isa},
    device::Place,
    load_newest, train,
};
use trainc_tests::{program, traces::Recorded};

/// Set in the child.
const CHILD: &str = "TRAINC_DEVICE_TEST_CHILD";
/// Set by whoever has a device.
const ON_GPU: &str = "TRAINC_ON_GPU";
const STEPS: u32 = 5;

/// How close the two machines must come.
#[derive(Clone, Copy)]
enum Bound {
    /// The order of every reduction is the same.
    Bits,
    /// Relative difference of losses, and of all parameters as one vector.
    Relative(f64),
}

/// Trains a program in a child on both machines; the emulator must not complain. Returns its report.
fn compared(test: &str, name: &str, text: &str, bound: Bound) -> Option<Vec<serde_json::Value>> {
    clean(test, || compare(name, text, bound))
}

/// Does something in a child that has a device; the emulator must not complain. Returns its report.
fn clean(test: &str, work: impl FnOnce()) -> Option<Vec<serde_json::Value>> {
    if std::env::var_os(CHILD).is_some() || std::env::var_os(ON_GPU).is_some() {
        work();
        return None;
    }
    let report = report_of(test, &[]);
    let violations: Vec<_> = report.iter().filter(|line| line["kind"] == "violation").collect();
    assert!(violations.is_empty(), "{violations:#?}");
    Some(report)
}

/// Runs a test of this file in a child process over the emulated driver; the child must succeed.
fn report_of(test: &str, settings: &[(&str, &str)]) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    let (name, libraries) = trainc_libcuda::environment().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture"]).env(CHILD, "1").env(name, libraries);
    child.env(trainc_libcuda::config::REPORT, &report).envs(settings.iter().copied());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let lines = std::fs::read_to_string(&report).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
    for step in 0..STEPS {
        let batch = batch(&cpu, step);
        let expected: Vec<(String, f64)> = cpu.step_with(&batch).unwrap().iter().map(owned).collect();
        let actual: Vec<(String, f64)> = device.step_with(&batch).unwrap().iter().map(owned).collect();
        for ((what, expected), (_, actual)) in expected.iter().zip(&actual) {
            let close = match bound {
                Bound::Bits => actual == expected,
                Bound::Relative(bound) => (actual - expected).abs() <= bound * expected.abs().max(1e-3),
            };
            assert!(close, "{name}, step {step}: {what} is {actual} on the device, {expected} on the processor");
        }
    }
    let distance = distance(&cpu, &device);
    let most = if let Bound::Relative(bound) = bound { 10.0 * bound } else { 0.0 };
    assert!(distance <= most, "{name}: parameters and states differ by {distance:e}");
    println!("{name}: difference of all tensors {distance:e}");
}

fn owned((name, value): (&str, f64)) -> (String, f64) {
    (name.to_owned(), value)
}

/// Relative distance of all tensors of the sessions, as vectors.
fn distance(a: &Session, b: &Session) -> f64 {
    let (mut difference, mut size) = (0.0, 0.0);
    for tensor in a.tensors() {
        let [a, b] = [a, b].map(|session| match session.tensor(&tensor.name).unwrap() {
            Values::Floats(values) => values,
            Values::Integers(values) => values.into_iter().map(|value| value as f32).collect(),
        });
        for (a, b) in a.into_iter().zip(b).map(|(a, b)| (f64::from(a), f64::from(b))) {
            difference += (a - b) * (a - b);
            size += a * a;
        }
    }
    (difference / size).sqrt()
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

#[test]
fn linear_regression_takes_the_same_steps_bit_for_bit() {
    let text = example("linear_regression", &[]);
    compared("linear_regression_takes_the_same_steps_bit_for_bit", "line", &text, Bound::Bits);
}

#[test]
fn an_own_optimizer_takes_the_same_steps_bit_for_bit() {
    let text = example("own_optimizer", &[]);
    compared("an_own_optimizer_takes_the_same_steps_bit_for_bit", "own_optimizer", &text, Bound::Bits);
}

#[test]
fn an_own_layer_takes_the_same_steps() {
    compared("an_own_layer_takes_the_same_steps", "own_layer", &example("own_layer", &[]), Bound::Relative(1e-5));
}

#[test]
fn a_perceptron_with_dropout_takes_the_same_steps() {
    let text = example("mlp_digits", &[]);
    compared("a_perceptron_with_dropout_takes_the_same_steps", "mlp", &text, Bound::Relative(1e-5));
}

#[test]
fn a_convolutional_network_takes_the_same_steps() {
    let text = example("cnn_digits", &[("batch 64", "batch 16")]);
    compared("a_convolutional_network_takes_the_same_steps", "cnn", &text, Bound::Relative(1e-4));
}

/// The demo with sizes that the emulator executes in seconds.
const SMALL_GPT: [(&str, &str); 4] = [
    ("width = 192", "width = 24"),
    ("depth = 4", "depth = 2"),
    ("context = 128", "context = 72"),
    ("batch 16", "batch 2"),
];

#[test]
fn a_transformer_takes_the_same_steps() {
    let text = example("gpt_rust", &SMALL_GPT);
    let report = compared("a_transformer_takes_the_same_steps", "gpt", &text, Bound::Relative(1e-4));
    if let Some(report) = report {
        let graphs = report.iter().filter(|line| line["kind"] == "graph").count();
        assert_eq!(graphs, STEPS as usize, "each step is one graph");
    }
}

#[test]
fn a_transformer_with_shared_heads_takes_the_same_steps() {
    let sizes = [("batch 16", "batch 2"), ("context = 128", "context = 40"), ("depth = 4", "depth = 2")];
    let text =
        example("llama_small", &sizes).replace("width = 192", "width = 24").replace("hidden = 512", "hidden = 40");
    compared("a_transformer_with_shared_heads_takes_the_same_steps", "llama", &text, Bound::Relative(1e-4));
}

#[test]
fn products_in_half_precision_run_on_tensor_cores() {
    let text = example("gpt_rust", &SMALL_GPT).replace("batch 2", "batch 2  precision bf16");
    let report =
        compared("products_in_half_precision_run_on_tensor_cores", "gpt in bf16", &text, Bound::Relative(2e-2));
    if let Some(report) = report {
        let macs: u64 = report.iter().filter_map(|line| line["tensor_macs"].as_u64()).sum();
        assert!(macs > 0, "no product ran on tensor cores");
    }
}

/// A private example with a smaller model and batch; its noise by the quicker accountant.
fn private_example(name: &str) -> String {
    example(
        name,
        &[("hidden = 64", "hidden = 12"), ("batch 256", "batch 16"), ("clip 1.0", "clip 1.0  accountant rdp")],
    )
}

#[test]
fn private_training_takes_the_same_steps_with_and_without_filters() {
    clean("private_training_takes_the_same_steps_with_and_without_filters", || {
        for name in ["dp_digits", "doppler", "disk"] {
            compare(name, &private_example(name), Bound::Relative(1e-5));
        }
    });
}

/// Copies go by two streams: one for what fits a small buffer, one for the rest.
#[test]
fn what_is_written_last_is_what_is_read() {
    clean("what_is_written_last_is_what_is_read", || {
        let text = example("linear_regression", &[]);
        let mut session = opened("line", compiled("line", &text, Target::Cuda, Isa::Sm80), Place::Cuda(0));
        let name = session.tensors()[0].name.clone();
        for number in 0..1000 {
            let values = vec![number as f32; 3];
            session.set_tensor(&name, &values.clone().into()).unwrap();
            if number % 7 == 0 {
                assert_eq!(session.tensor(&name).unwrap(), values.into(), "after {number} writes");
            }
        }
    });
}

/// Recorded runs of each method, optimizer and way to clip; the processor repeats all of them.
const TRACES: [&str; 8] = [
    "dpsgd_noise",
    "dpsgd_auto_s_noise",
    "doppler2_noise",
    "doppler1_adamw_noise",
    "dpadambc_noise",
    "disk_noise",
    "disk_onepoint_noise",
    "disk_adamw_noise",
];

#[test]
fn recorded_private_runs_are_repeated() {
    let test = "recorded_private_runs_are_repeated";
    clean(test, || {
        let recorded = Recorded::read();
        for trace in recorded.traces().iter().filter(|trace| TRACES.contains(&trace.name())) {
            let name = trace.shown();
            let artifact = program::artifact_of(&name, trace.replayed().program, Target::Cuda, Isa::Sm80);
            let distance = trace.distance(&mut opened(&name, artifact, Place::Cuda(0)));
            println!("{name}: {distance:e}");
            assert!(distance <= trace.tolerance_of_f32(), "{name}: {distance:e} from the record");
        }
    });
}

/// What a device does to a session that it fails.
fn failure(test: &str, settings: &[(&str, &str)], expected: &str) {
    if std::env::var_os(CHILD).is_none() {
        // A real driver takes no settings.
        if std::env::var_os(ON_GPU).is_none() {
            report_of(test, settings);
        }
        return;
    }
    let text = example("linear_regression", &[]);
    let artifact = compiled("line", &text, Target::Cuda, Isa::Sm80);
    let options = Options { device: Place::Cuda(0), ..Options::default() };
    let error = Session::new(artifact, &options)
        .and_then(|mut session| {
            for step in 0..STEPS {
                let batch = batch(&session, step);
                session.step_with(&batch)?;
            }
            Ok(())
        })
        .expect_err("the device fails");
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn an_old_driver_is_named_with_the_one_that_is_needed() {
    let settings = [(trainc_libcuda::config::DRIVER_VERSION, "11080")];
    failure("an_old_driver_is_named_with_the_one_that_is_needed", &settings, "needs NVIDIA driver 525");
}

#[test]
fn an_old_device_is_named_with_its_capability() {
    let settings = [(trainc_libcuda::config::CAPABILITY, "75")];
    failure("an_old_device_is_named_with_its_capability", &settings, "has compute capability 7.5");
}

#[test]
fn too_little_memory_is_an_error_with_sizes() {
    let settings = [(trainc_libcuda::config::MEMORY, "512")];
    failure("too_little_memory_is_an_error_with_sizes", &settings, "make the batch or the model smaller");
}

#[test]
fn a_missing_device_is_an_error() {
    failure("a_missing_device_is_an_error", &[(trainc_libcuda::config::DEVICES, "0")], "there is no CUDA device 0");
}

/// The processor goes on from what a run on a device left when the device was lost.
#[test]
fn the_last_checkpoint_survives_a_lost_device() {
    let test = "the_last_checkpoint_survives_a_lost_device";
    if std::env::var_os(CHILD).is_none() {
        if std::env::var_os(ON_GPU).is_none() {
            report_of(test, &[(trainc_libcuda::config::LOSE_AFTER, "30")]);
        }
        return;
    }
    let text = example("linear_regression", &[("steps 200  batch 16", "steps 40  batch 16\n    checkpoint every 3")]);
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { base: Some(trainc_tests::root().join("dsl-examples")), device: Place::Cuda(0), ..Options::default() };
    let artifact = compiled("line", &text, Target::Cuda, Isa::Sm80);
    let directory = RunDirectory::create(folder.path(), &artifact, &options).unwrap();
    let mut session = Session::new(artifact, &options).unwrap();
    let error = train(&mut session, Some(&directory), &mut (), &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("the device failed while"), "{error}");
    let (step, _) = directory.newest_checkpoint().expect("a checkpoint was written before");
    assert!(step >= 3 && step % 3 == 0, "after step {step}");
    let on_cpu = Options { device: Place::Cpu, ..options };
    let mut session = Session::new(compiled("line", &text, Target::Cpu, host_isa()), &on_cpu).unwrap();
    assert_eq!(load_newest(folder.path(), &mut session).unwrap(), step);
    session.step().unwrap();
}

#[test]
fn a_lost_device_ends_the_run() {
    failure("a_lost_device_ends_the_run", &[(trainc_libcuda::config::LOSE_AFTER, "6")], "the device failed while");
}
