//! Compiled code against PyTorch (float64): gradients and ten AdamW updates in f32. The same programs are compared in
//! f64 by the reference interpreter in `standard_library.rs`; see `golden/torch/make.py`.

use trainc_runtime::{Batch, Options, Session, Values};
use trainc_tests::{
    program::{self, floats},
    torch::{self, Golden},
    vectors::relative_error,
};

/// 1 - beta1: after one update from zero, the first moment is this times the gradient.
const FIRST_MOMENT: f64 = 0.1;

fn reals(golden: &Golden, key: &str) -> Values {
    Values::Floats(golden.numbers(key).iter().map(|&value| value as f32).collect())
}

fn integers(golden: &Golden, key: &str) -> Values {
    Values::Integers(golden.numbers(key).iter().map(|&value| value as i32).collect())
}

/// Trains ten steps and compares; `batch` says which fields the record's inputs are.
fn check(name: &str, parameters: &torch::Names, batch: fn(&Golden) -> Batch) {
    let golden = Golden::load(name);
    let text = program::read(&format!("tests/programs/{name}.train"));
    let mut session = program::session(name, &text, &[], &Options::default());
    for (ours, theirs) in parameters {
        session.set_tensor(ours, &reals(&golden, &format!("init.{theirs}"))).unwrap();
    }
    let batch = batch(&golden);
    for (step, expected) in golden.losses.iter().enumerate().take(10) {
        let loss = session.step_with(&batch).unwrap().loss();
        assert!((loss / expected - 1.0).abs() < 1e-4, "{name}, step {step}: loss {loss}, PyTorch {expected}");
        if step == 0 {
            check_gradients(&session, &golden, parameters);
        }
    }
    // All parameters as one vector: where a gradient is exactly zero (a key's bias moves no softmax), AdamW turns the
    // last bits of f32 into whole updates, in PyTorch as here.
    let ours: Vec<f64> = parameters.iter().flat_map(|(ours, _)| floats(&session, ours)).collect();
    let theirs: Vec<f64> =
        parameters.iter().flat_map(|(_, theirs)| golden.numbers(&format!("after10.{theirs}"))).copied().collect();
    let error = relative_error(&ours, &theirs);
    assert!(error < 1e-3, "{name}: parameters after ten updates: relative error {error:e}");
}

fn check_gradients(session: &Session, golden: &Golden, parameters: &torch::Names) {
    for (ours, theirs) in parameters {
        let moment = floats(session, &format!("adamw.m.{ours}"));
        let gradient: Vec<f64> = moment.into_iter().map(|moment| moment / FIRST_MOMENT).collect();
        let error = relative_error(&gradient, golden.numbers(&format!("grad.{theirs}")));
        assert!(error < 1e-5, "gradient of {ours}: relative error {error:e}");
    }
}

fn tokens(golden: &Golden) -> Batch {
    Batch::new().with("tokens", integers(golden, "x")).with("targets", integers(golden, "y"))
}

#[test]
fn a_compiled_gpt_agrees_with_pytorch() {
    check("gpt", torch::GPT, tokens);
}

#[test]
fn a_compiled_llama_agrees_with_pytorch() {
    check("llama", torch::LLAMA, tokens);
}

#[test]
fn a_compiled_image_network_agrees_with_pytorch() {
    check("cnn", torch::CNN, |golden| Batch::new().with("x", reals(golden, "x")).with("y", integers(golden, "y")));
}
