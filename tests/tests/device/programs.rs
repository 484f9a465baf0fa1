//! Examples at small sizes take the steps that they take on the processor.

use super::{Bound, SMALL_GPT, STEPS, clean, compared, compiled, everything, example, opened};
use trainc_kernels::{Target, host_isa};
use trainc_libcuda::child::of_kind;
use trainc_runtime::{Options, Session, artifact::Isa, device::Place};

#[test]
fn linear_regression_takes_the_same_steps_bit_for_bit() {
    let text = example("linear_regression", &[]);
    compared("programs::linear_regression_takes_the_same_steps_bit_for_bit", "line", &text, Bound::Bits);
}

#[test]
fn an_own_optimizer_takes_the_same_steps_bit_for_bit() {
    let text = example("own_optimizer", &[]);
    compared("programs::an_own_optimizer_takes_the_same_steps_bit_for_bit", "own_optimizer", &text, Bound::Bits);
}

#[test]
fn an_own_filter_takes_the_same_steps() {
    let text = example("own_filter", &[]);
    compared("programs::an_own_filter_takes_the_same_steps", "own_filter", &text, Bound::Relative(1e-5));
}

#[test]
fn an_own_layer_takes_the_same_steps() {
    compared(
        "programs::an_own_layer_takes_the_same_steps",
        "own_layer",
        &example("own_layer", &[]),
        Bound::Relative(1e-5),
    );
}

#[test]
fn a_perceptron_with_dropout_takes_the_same_steps() {
    let text = example("mlp_digits", &[]);
    compared("programs::a_perceptron_with_dropout_takes_the_same_steps", "mlp", &text, Bound::Relative(1e-5));
}

#[test]
fn a_convolutional_network_takes_the_same_steps() {
    let text = example("cnn_digits", &[("batch 64", "batch 16")]);
    compared("programs::a_convolutional_network_takes_the_same_steps", "cnn", &text, Bound::Relative(1e-4));
}

#[test]
fn a_transformer_takes_the_same_steps() {
    let text = example("gpt_rust", &SMALL_GPT);
    let report = compared("programs::a_transformer_takes_the_same_steps", "gpt", &text, Bound::Relative(1e-4));
    if let Some(report) = report {
        let graphs = report.iter().filter(|line| line["kind"] == "graph").count();
        assert_eq!(graphs, STEPS as usize + 2, "each step is one graph, and so are evaluation and conclusion");
    }
}

#[test]
fn a_transformer_with_a_tied_head_takes_the_same_steps() {
    let sizes = [
        ("width = 768", "width = 24"),
        ("depth = 12", "depth = 2"),
        ("vocab = 50257, heads = 12, context = 1024", "vocab = 301, heads = 3, context = 40"),
        ("batch 4  precision bf16", "batch 2"),
        ("warmup = 2000 steps", "warmup = 2 steps"),
    ];
    let text = example("gpt2_124m", &sizes);
    compared("programs::a_transformer_with_a_tied_head_takes_the_same_steps", "gpt2", &text, Bound::Relative(1e-4));
}

#[test]
fn a_transformer_with_shared_heads_takes_the_same_steps() {
    let sizes = [("batch 16", "batch 2"), ("context = 128", "context = 40"), ("depth = 4", "depth = 2")];
    let text =
        example("llama_small", &sizes).replace("width = 192", "width = 24").replace("hidden = 512", "hidden = 40");
    compared("programs::a_transformer_with_shared_heads_takes_the_same_steps", "llama", &text, Bound::Relative(1e-4));
}

#[test]
fn products_in_tf32_run_on_tensor_cores() {
    let text = example("gpt_rust", &SMALL_GPT).replace("batch 2", "batch 2  precision tf32");
    let test = "programs::products_in_tf32_run_on_tensor_cores";
    if let Some(report) = compared(test, "gpt in tf32", &text, Bound::Relative(2e-3)) {
        assert!(tensor_macs(&report) > 0, "no product ran on tensor cores");
    }
}

fn tensor_macs(report: &[serde_json::Value]) -> u64 {
    report.iter().filter_map(|line| line["tensor_macs"].as_u64()).sum()
}

#[test]
fn products_in_half_precision_run_on_tensor_cores() {
    let text = example("gpt_rust", &SMALL_GPT).replace("batch 2", "batch 2  precision bf16");
    let report = compared(
        "programs::products_in_half_precision_run_on_tensor_cores",
        "gpt in bf16",
        &text,
        Bound::Relative(2e-2),
    );
    if let Some(report) = report {
        assert!(tensor_macs(&report) > 0, "no product ran on tensor cores");
    }
}

/// Copies go by two streams: one for what fits a small buffer, one for the rest.
#[test]
fn what_is_written_last_is_what_is_read() {
    clean("programs::what_is_written_last_is_what_is_read", || {
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

/// Batches of the program's own data travel while the step before runs; what comes between two steps does not mix them up.
#[test]
fn batches_that_travel_ahead_are_those_of_their_steps() {
    let test = "programs::batches_that_travel_ahead_are_those_of_their_steps";
    if let Some(report) = clean(test, own_data_on_both_machines) {
        let leaks = of_kind(&report, "leak");
        assert!(leaks.iter().all(|leak| leak["what"] == "modules"), "{leaks:#?}");
    }
}

fn own_data_on_both_machines() {
    let text = example("linear_regression", &[]);
    let base = Some(trainc_tests::root().join("dsl-examples"));
    let open = |target, isa, device| {
        // Nothing is sent behind the last step: a copy that its batch does not wait for shows there.
        let options = Options { base: base.clone(), device, steps: Some(24), ..Options::default() };
        Session::new(compiled("line", &text, target, isa), &options).unwrap()
    };
    let mut cpu = open(Target::Cpu, host_isa(), Place::Cpu);
    let mut device = open(Target::Cuda, Isa::Sm80, Place::Cuda(0));
    for step in 0..24 {
        let losses = [&mut cpu, &mut device].map(|session| session.step().unwrap().loss());
        assert!(losses[0] == losses[1], "step {step}: {losses:?}");
        if step % 8 == 5 {
            let held_out = [&mut cpu, &mut device].map(|session| session.evaluate().unwrap().unwrap().loss());
            assert!((held_out[0] - held_out[1]).abs() <= 1e-6 * held_out[0], "after step {step}: {held_out:?}");
        }
    }
    assert!(everything(&cpu) == everything(&device), "other parameters");
}
