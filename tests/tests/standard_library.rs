//! The standard library against PyTorch: logits, gradients and ten AdamW updates in f64, by the reference interpreter.

use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashMap};
use trainc::{
    graph::{Bindings, Output, Tensor, TensorType, interpret},
    program::Program,
};
use trainc_runtime::artifact::Init;
use trainc_tests::root;

fn program(name: &str) -> Program {
    let text = trainc_tests::program::read(&format!("tests/programs/{name}.train"));
    trainc_tests::program::check(name, &text, &[]).unwrap_or_else(|found| panic!("{found}"))
}

/// Tensors of a golden file as f64.
fn golden(name: &str) -> BTreeMap<String, (Vec<u64>, Vec<f64>)> {
    let path = root().join("tests/golden/torch").join(format!("{name}.safetensors"));
    let bytes = std::fs::read(path).expect("the golden file can be read");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let numbers = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f64> {
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F64 => data.chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
            safetensors::Dtype::F32 => {
                data.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()).into()).collect()
            }
            _ => data.chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()) as f64).collect(),
        }
    };
    file.iter()
        .map(|(name, view)| (name.to_string(), (view.shape().iter().map(|&n| n as u64).collect(), numbers(&view))))
        .collect()
}

fn losses(name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(root().join("tests/golden/torch/losses.json")).expect("the losses");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json[name]["losses"].as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// `|a - b| / |b|` in the Euclidean norm.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-30)
}

/// Trains ten steps and compares everything that PyTorch wrote down.
fn agrees_with_pytorch(name: &str, inputs: [&str; 2], parameters: &[(&str, &str)]) {
    let (program, golden) = (program(name), golden(name));
    let ours: Vec<&str> = program.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let theirs: HashMap<&str, &str> = parameters.iter().copied().collect();
    assert_eq!(ours.len(), theirs.len(), "{ours:?}");
    let mut bindings = Bindings { steps: 10, ..Bindings::default() };
    for (index, field) in inputs.iter().enumerate() {
        let (shape, data) = &golden[*field];
        let integer = program.inputs[index].dtype == trainc_runtime::artifact::DType::I32;
        let ty = if integer { TensorType::i32(shape.clone()) } else { TensorType::f32(shape.clone()) };
        bindings.inputs.insert(index as u32, Tensor::new(ty, data.clone()));
    }
    for (index, parameter) in program.parameters.iter().enumerate() {
        let (_, data) = &golden[&format!("init.{}", theirs[parameter.name.as_str()])];
        bindings.parameters.insert(index as u32, Tensor::f32(&parameter.shape, data.clone()));
    }
    for (index, state) in program.states.iter().enumerate() {
        let Init::Constant { value } = state.init else { panic!("{} starts from a constant", state.name) };
        bindings.states.insert(index as u32, Tensor::full(TensorType::f32(state.shape.clone()), value.into()));
    }
    for (step, expected) in losses(name).into_iter().enumerate().take(10) {
        bindings.step = step as u32;
        let (mut parameters, mut states) = (HashMap::new(), HashMap::new());
        let mut run = interpret(&program.step, &bindings).expect("the step can be evaluated");
        for (output, _) in program.step.outputs() {
            let value = run.output(output).expect("evaluated").clone();
            match output {
                Output::Parameter(index) => drop(parameters.insert(*index, value)),
                Output::State(index) => drop(states.insert(*index, value)),
                Output::Report(report) if report == "loss" => {
                    assert!(
                        (value.data[0] - expected).abs() < 1e-9,
                        "{name}, step {step}: {} {expected}",
                        value.data[0]
                    );
                }
                Output::Report(_) => {}
            }
        }
        if step == 0 {
            first_moments(&program, &golden, &theirs, &states);
        }
        (bindings.parameters, bindings.states) = (parameters, states);
    }
    for (index, parameter) in program.parameters.iter().enumerate() {
        let (_, data) = &golden[&format!("after10.{}", theirs[parameter.name.as_str()])];
        let found = distance(&bindings.parameters[&(index as u32)].data, data);
        assert!(found < 1e-6, "{name}: {} after ten updates: {found}", parameter.name);
    }
}

/// After one update the first moment of AdamW is (1 - beta1) times the gradient.
fn first_moments(
    program: &Program,
    golden: &BTreeMap<String, (Vec<u64>, Vec<f64>)>,
    theirs: &HashMap<&str, &str>,
    states: &HashMap<u32, Tensor>,
) {
    for (index, state) in program.states.iter().enumerate() {
        let Some(parameter) = state.name.strip_prefix("adamw.m.") else { continue };
        let gradient: Vec<f64> = states[&(index as u32)].data.iter().map(|m| m / (1.0 - 0.9)).collect();
        let found = distance(&gradient, &golden[&format!("grad.{}", theirs[parameter])].1);
        assert!(found < 1e-7, "gradient of {parameter}: {found}");
    }
}

#[test]
fn a_gpt_agrees_with_pytorch() {
    agrees_with_pytorch(
        "gpt",
        ["x", "y"],
        &[
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
        ],
    );
}

#[test]
fn a_llama_agrees_with_pytorch() {
    agrees_with_pytorch(
        "llama",
        ["x", "y"],
        &[
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
        ],
    );
}

#[test]
fn an_image_network_agrees_with_pytorch() {
    agrees_with_pytorch(
        "cnn",
        ["x", "y"],
        &[
            ("conv2d.kernel", "c1w"),
            ("conv2d.channel_offset.bias", "c1b"),
            ("conv2d_2.kernel", "c2w"),
            ("conv2d_2.channel_offset.bias", "c2b"),
            ("linear.w", "fw"),
            ("linear.offset.bias", "fb"),
        ],
    );
}
