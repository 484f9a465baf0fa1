//! Compiled code against PyTorch (float64): gradients and ten AdamW updates in f32. The same programs are compared in
//! f64 by the reference interpreter in `standard_library.rs`; see `golden/torch/make.py`.

use safetensors::{Dtype, SafeTensors};
use trainc_runtime::{Batch, Options, Session, Values};
use trainc_tests::program::{self, floats};

/// 1 - beta1: after one update from zero, the first moment is this times the gradient.
const FIRST_MOMENT: f64 = 0.1;

struct Golden {
    bytes: Vec<u8>,
    losses: Vec<f64>,
}

impl Golden {
    fn load(name: &str) -> Self {
        let folder = trainc_tests::root().join("tests/golden/torch");
        let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).expect("the golden file");
        let losses = std::fs::read_to_string(folder.join("losses.json")).expect("the losses");
        let losses: serde_json::Value = serde_json::from_str(&losses).expect("JSON");
        let losses = losses[name]["losses"].as_array().expect("a list").iter().map(|loss| loss.as_f64().unwrap());
        Self { bytes, losses: losses.collect() }
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::F64 => data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            _ => data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        }
    }

    fn reals(&self, key: &str) -> Values {
        Values::Floats(self.numbers(key).into_iter().map(|value| value as f32).collect())
    }

    fn integers(&self, key: &str) -> Values {
        Values::Integers(self.numbers(key).into_iter().map(|value| value as i32).collect())
    }
}

/// `|a - b| / |b|` in the Euclidean norm.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

/// Our paths of parameters with the golden file's names, and the fields of a batch.
fn check(name: &str, parameters: &[(&str, &str)], batch: fn(&Golden) -> Batch) {
    let golden = Golden::load(name);
    let text = program::read(&format!("tests/programs/{name}.train"));
    let mut session = program::session(name, &text, &[], &Options::default());
    for (ours, theirs) in parameters {
        session.set_tensor(ours, &golden.reals(&format!("init.{theirs}"))).unwrap();
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
        parameters.iter().flat_map(|(_, theirs)| golden.numbers(&format!("after10.{theirs}"))).collect();
    let error = relative_error(&ours, &theirs);
    assert!(error < 1e-3, "{name}: parameters after ten updates: relative error {error:e}");
}

fn check_gradients(session: &Session, golden: &Golden, parameters: &[(&str, &str)]) {
    for (ours, theirs) in parameters {
        let moment = floats(session, &format!("adamw.m.{ours}"));
        let gradient: Vec<f64> = moment.into_iter().map(|moment| moment / FIRST_MOMENT).collect();
        let error = relative_error(&gradient, &golden.numbers(&format!("grad.{theirs}")));
        assert!(error < 1e-5, "gradient of {ours}: relative error {error:e}");
    }
}

fn tokens(golden: &Golden) -> Batch {
    Batch::new().with("tokens", golden.integers("x")).with("targets", golden.integers("y"))
}

#[test]
fn a_compiled_gpt_agrees_with_pytorch() {
    let parameters = [
        ("wte", "wte"),
        ("positions.table", "wpe"),
        ("block.layer_norm.gain", "ln1w"),
        ("block.layer_norm.bias", "ln1b"),
        ("block.attention.qkv", "qkvw"),
        ("block.attention.head_offset.bias", "qkvb"),
        ("block.attention.out", "projw"),
        ("block.attention.offset.bias", "projb"),
        ("block.layer_norm_2.gain", "ln2w"),
        ("block.layer_norm_2.bias", "ln2b"),
        ("block.ffn.linear.w", "fcw"),
        ("block.ffn.linear.offset.bias", "fcb"),
        ("block.ffn.linear_2.w", "fc2w"),
        ("block.ffn.linear_2.offset.bias", "fc2b"),
        ("layer_norm.gain", "lnfw"),
        ("layer_norm.bias", "lnfb"),
    ];
    check("gpt", &parameters, tokens);
}

#[test]
fn a_compiled_llama_agrees_with_pytorch() {
    let parameters = [
        ("embedding.table", "embed"),
        ("block.rms_norm.gain", "norm1"),
        ("block.grouped_attention.query", "wq"),
        ("block.grouped_attention.key", "wk"),
        ("block.grouped_attention.value", "wv"),
        ("block.grouped_attention.out", "wo"),
        ("block.rms_norm_2.gain", "norm2"),
        ("block.swiglu.gate", "gate"),
        ("block.swiglu.up", "up"),
        ("block.swiglu.down", "down"),
        ("rms_norm.gain", "normf"),
        ("head.w", "head"),
    ];
    check("llama", &parameters, tokens);
}

#[test]
fn a_compiled_image_network_agrees_with_pytorch() {
    let parameters = [
        ("conv2d.kernel", "c1w"),
        ("conv2d.channel_offset.bias", "c1b"),
        ("conv2d_2.kernel", "c2w"),
        ("conv2d_2.channel_offset.bias", "c2b"),
        ("linear.w", "fw"),
        ("linear.offset.bias", "fb"),
    ];
    check("cnn", &parameters, |golden| Batch::new().with("x", golden.reals("x")).with("y", golden.integers("y")));
}
