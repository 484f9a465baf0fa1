//! The standard library against PyTorch: logits, gradients and ten AdamW updates in f64, by the reference interpreter.

use std::collections::HashMap;
use trainc::{
    graph::{Bindings, Output, Tensor, TensorType, interpret},
    program::Program,
};
use trainc_runtime::artifact::Init;
use trainc_tests::{
    torch::{self, Golden},
    vectors::relative_error,
};

fn program(name: &str) -> Program {
    let text = trainc_tests::program::read(&format!("tests/programs/{name}.train"));
    trainc_tests::program::check(name, &text, &[]).unwrap_or_else(|found| panic!("{found}"))
}

/// Trains ten steps and compares everything that PyTorch wrote down.
fn agrees_with_pytorch(name: &str, parameters: &torch::Names) {
    let (program, golden) = (program(name), Golden::load(name));
    let ours: Vec<&str> = program.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let theirs: HashMap<&str, &str> = parameters.iter().copied().collect();
    assert_eq!(ours.len(), theirs.len(), "{ours:?}");
    let mut bindings = Bindings { steps: 10, ..Bindings::default() };
    for (index, field) in ["x", "y"].iter().enumerate() {
        let (shape, data) = golden.tensor(field);
        let integer = program.inputs[index].dtype == trainc_runtime::artifact::DType::I32;
        let ty = if integer { TensorType::i32(shape) } else { TensorType::f32(shape) };
        bindings.inputs.insert(index as u32, Tensor::new(ty, data.to_vec()));
    }
    for (index, parameter) in program.parameters.iter().enumerate() {
        let data = golden.numbers(&format!("init.{}", theirs[parameter.name.as_str()]));
        bindings.parameters.insert(index as u32, Tensor::f32(&parameter.shape, data.to_vec()));
    }
    for (index, state) in program.states.iter().enumerate() {
        let Init::Constant { value } = state.init else { panic!("{} starts from a constant", state.name) };
        bindings.states.insert(index as u32, Tensor::full(TensorType::f32(state.shape.clone()), value.into()));
    }
    for (step, expected) in golden.losses.iter().enumerate().take(10) {
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
        let data = golden.numbers(&format!("after10.{}", theirs[parameter.name.as_str()]));
        let found = relative_error(&bindings.parameters[&(index as u32)].data, data);
        assert!(found < 1e-6, "{name}: {} after ten updates: {found}", parameter.name);
    }
}

/// After one update the first moment of AdamW is (1 - beta1) times the gradient.
fn first_moments(program: &Program, golden: &Golden, theirs: &HashMap<&str, &str>, states: &HashMap<u32, Tensor>) {
    for (index, state) in program.states.iter().enumerate() {
        let Some(parameter) = state.name.strip_prefix("adamw.m.") else { continue };
        let gradient: Vec<f64> = states[&(index as u32)].data.iter().map(|m| m / (1.0 - 0.9)).collect();
        let found = relative_error(&gradient, golden.numbers(&format!("grad.{}", theirs[parameter])));
        assert!(found < 1e-7, "gradient of {parameter}: {found}");
    }
}

#[test]
fn a_gpt_agrees_with_pytorch() {
    agrees_with_pytorch("gpt", torch::GPT);
}

#[test]
fn a_llama_agrees_with_pytorch() {
    agrees_with_pytorch("llama", torch::LLAMA);
}

#[test]
fn an_image_network_agrees_with_pytorch() {
    agrees_with_pytorch("cnn", torch::CNN);
}
