//! Gradients and ten AdamW steps against PyTorch (float64), see `fixtures/torch_fixtures.py`.

use safetensors::{Dtype, SafeTensors};
use trainc_runtime::{Batch, Options, Session, Values};
use trainc_tests::program;

/// A rate that is a power of two, so that `(before - after) / rate` recovers the gradient to the last bits.
const PROBE_RATE: f64 = 1024.0;

struct Fixture {
    bytes: Vec<u8>,
    losses: Vec<f64>,
}

impl Fixture {
    fn load(name: &str) -> Self {
        let folder = trainc_tests::root().join("tests/fixtures");
        let bytes = std::fs::read(folder.join(format!("torch_{name}.safetensors"))).expect("the fixture is there");
        let losses = std::fs::read_to_string(folder.join("torch_losses.json")).expect("the losses are there");
        let losses: serde_json::Value = serde_json::from_str(&losses).expect("JSON");
        let losses = losses[name]["losses"].as_array().expect("a list").iter().map(|loss| loss.as_f64().unwrap());
        Self { bytes, losses: losses.collect() }
    }

    fn floats(&self, key: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = tensors.tensor(key).unwrap_or_else(|error| panic!("{key}: {error}"));
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::F64 => data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{key}: {other:?}"),
        }
    }

    fn reals(&self, key: &str) -> Values {
        Values::Floats(self.floats(key).into_iter().map(|value| value as f32).collect())
    }

    fn integers(&self, key: &str) -> Values {
        Values::Integers(self.floats(key).into_iter().map(|value| value as i32).collect())
    }
}

/// A model that PyTorch and we both know.
struct Case {
    name: &'static str,
    /// Our path of a parameter, and the fixture's name of it.
    parameters: &'static [(&'static str, &'static str)],
    batch: fn(&Fixture) -> Batch,
}

fn open(case: &Case, fixture: &Fixture, optimizer: &str) -> Session {
    let text = program::read(&format!("tests/programs/torch_{}.train", case.name)).replace("OPTIMIZER", optimizer);
    let mut session = program::session(case.name, &text, &[], &Options::default());
    for (ours, theirs) in case.parameters {
        session.set_tensor(ours, &fixture.reals(&format!("init.{theirs}"))).unwrap();
    }
    session
}

fn floats(session: &Session, name: &str) -> Vec<f64> {
    match session.tensor(name).unwrap() {
        Values::Floats(values) => values.into_iter().map(f64::from).collect(),
        Values::Integers(_) => panic!("{name} holds integers"),
    }
}

fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

fn check_gradients(case: &Case) {
    let fixture = Fixture::load(case.name);
    let mut session = open(case, &fixture, &format!("optimizer sgd()\n    schedule constant({PROBE_RATE})"));
    let loss = session.step_with(&(case.batch)(&fixture)).unwrap().loss();
    assert!((loss / fixture.losses[0] - 1.0).abs() < 1e-5, "{}: loss {loss}, PyTorch {}", case.name, fixture.losses[0]);
    for (ours, theirs) in case.parameters {
        let before = fixture.floats(&format!("init.{theirs}"));
        let after = floats(&session, ours);
        let gradient: Vec<f64> = before.iter().zip(&after).map(|(b, a)| (b - a) / PROBE_RATE).collect();
        let error = relative_error(&gradient, &fixture.floats(&format!("grad.{theirs}")));
        assert!(error < 1e-5, "{}: gradient of {ours}: relative error {error:e}", case.name);
    }
}

fn check_training(case: &Case) {
    let fixture = Fixture::load(case.name);
    let adamw = "optimizer adamw(betas = (0.9, 0.95), eps = 1e-8, weight_decay = 0.1)\n    schedule constant(1e-3)";
    let mut session = open(case, &fixture, adamw);
    for (step, expected) in fixture.losses.iter().enumerate().take(10) {
        let loss = session.step_with(&(case.batch)(&fixture)).unwrap().loss();
        assert!((loss / expected - 1.0).abs() < 1e-4, "{}: step {step}: loss {loss}, PyTorch {expected}", case.name);
    }
    for (ours, theirs) in case.parameters {
        let error = relative_error(&floats(&session, ours), &fixture.floats(&format!("after10.{theirs}")));
        assert!(error < 1e-4, "{}: {ours} after ten steps: relative error {error:e}", case.name);
    }
}

fn tokens(fixture: &Fixture) -> Batch {
    Batch::new().with("tokens", fixture.integers("x")).with("next(tokens)", fixture.integers("y"))
}

const GPT: Case = Case {
    name: "gpt",
    parameters: &[
        ("wte", "wte"),
        ("positions.table", "wpe"),
        ("block.layer_norm.gain", "ln1w"),
        ("block.layer_norm.bias", "ln1b"),
        ("block.attention.qkv", "qkvw"),
        ("block.attention.qkv_bias", "qkvb"),
        ("block.attention.out", "projw"),
        ("block.attention.out_bias", "projb"),
        ("block.layer_norm_2.gain", "ln2w"),
        ("block.layer_norm_2.bias", "ln2b"),
        ("block.ffn.up", "fcw"),
        ("block.ffn.up_bias", "fcb"),
        ("block.ffn.down", "fc2w"),
        ("block.ffn.down_bias", "fc2b"),
        ("layer_norm.gain", "lnfw"),
        ("layer_norm.bias", "lnfb"),
    ],
    batch: tokens,
};

const LLAMA: Case = Case {
    name: "llama",
    parameters: &[
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
        ("linear.weight", "head"),
    ],
    batch: tokens,
};

const CNN: Case = Case {
    name: "cnn",
    parameters: &[
        ("conv2d.weight", "c1w"),
        ("conv2d.bias", "c1b"),
        ("conv2d_2.weight", "c2w"),
        ("conv2d_2.bias", "c2b"),
        ("linear.weight", "fw"),
        ("linear.bias", "fb"),
    ],
    batch: |fixture| Batch::new().with("image", fixture.reals("x")).with("label", fixture.integers("y")),
};

#[test]
fn gradients_of_a_gpt_equal_pytorch() {
    check_gradients(&GPT);
}

#[test]
fn gradients_of_a_llama_equal_pytorch() {
    check_gradients(&LLAMA);
}

#[test]
fn gradients_of_a_cnn_equal_pytorch() {
    check_gradients(&CNN);
}

#[test]
fn ten_adamw_steps_of_a_gpt_equal_pytorch() {
    check_training(&GPT);
}

#[test]
fn ten_adamw_steps_of_a_llama_equal_pytorch() {
    check_training(&LLAMA);
}

#[test]
fn ten_adamw_steps_of_a_cnn_equal_pytorch() {
    check_training(&CNN);
}
