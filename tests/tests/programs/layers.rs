//! Layers and losses of the standard library by themselves: the gradient that a step takes against differences of its loss.

use super::private::{bindings, checked, draws, movement};
use trainc::{
    graph::{Bindings, Output, Tensor, interpret},
    program::Program,
};
use trainc_tests::{
    layers::{LAYERS, ROWS},
    library::definitions,
};

/// The loss with the parameters moved along a direction.
fn loss_at(program: &Program, bindings: &Bindings, direction: &[Vec<f64>], shift: f64) -> f64 {
    let mut moved = bindings.clone();
    for (index, along) in (0..).zip(direction) {
        let before = &bindings.parameters[&index];
        let data = before.data.iter().zip(along).map(|(x, d)| x + shift * d).collect();
        moved.parameters.insert(index, Tensor::new(before.ty.clone(), data));
    }
    let mut run = interpret(&program.step, &moved).expect("the step can be evaluated");
    run.output(&Output::Report("loss".into())).expect("the loss is reported").scalar()
}

#[test]
fn gradients_of_single_layers_agree_with_differences() {
    const STEP: f64 = 1e-5;
    for layer in LAYERS {
        let name = layer.name;
        let program = checked(name, &layer.program(1.0));
        let bindings = bindings(&program, 0, ROWS, &[]);
        let gradient = movement(&program, &bindings);
        let shapes = program.parameters.iter().map(|parameter| parameter.shape.iter().product::<u64>() as usize);
        let direction: Vec<Vec<f64>> = (300..).zip(shapes).map(|(stream, count)| draws(stream, count)).collect();
        let terms = (0..).zip(&direction).flat_map(|(index, along)| gradient[&index].iter().zip(along));
        let found: f64 = terms.map(|(g, d)| g * d).sum();
        let [above, below] = [STEP, -STEP].map(|shift| loss_at(&program, &bindings, &direction, shift));
        let expected = (above - below) / (2.0 * STEP);
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-2), "{name}: {found}, not {expected}");
    }
}

/// Layers, activations, pooling and losses: each is in one of the programs, or in a definition that is.
#[test]
fn every_layer_and_loss_of_the_library_is_in_a_program() {
    let files = ["activations", "attention", "convolution", "layers", "losses"];
    let found = files.iter().flat_map(|file| definitions(file));
    let mut missing: Vec<(String, String)> = found.map(|(definition, text)| (definition.name.text, text)).collect();
    let mut text: String = LAYERS.iter().map(|layer| layer.program(1.0)).collect();
    loop {
        let (found, left): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(name, _)| mentions(&text, name));
        missing = left;
        if found.is_empty() {
            break;
        }
        found.iter().for_each(|(_, source)| text.push_str(source));
    }
    let missing: Vec<String> = missing.into_iter().map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "in no program: {missing:?}");
}

/// Whether a word stands in a text.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}
