//! Layers and losses of the standard library by themselves: the gradient that a step takes against differences of its loss.

use super::private::{ROWS, bindings, checked, draws, movement, text};
use trainc::graph::{Bindings, Output, Tensor, interpret};
use trainc::program::Program;

/// A model of each layer that no larger test singles out, with its loss.
const LAYERS: &[(&str, &str, &str)] = &[
    ("convolution", "input x: [batch, 2, 6, 6]\n    output z = flatten(tanh(conv2d(x, 3)))", "mean(z^2)"),
    (
        "strided and padded convolution",
        "input x: [batch, 2, 7, 7]\n    output z = flatten(tanh(conv2d(x, 3, stride = 2, padding = 1)))",
        "mean(z^2)",
    ),
    (
        "pooling",
        "input x: [batch, 1, 8, 8]\n    output z = flatten(average_pool(max_pool(conv2d(x, 2, padding = 1))))",
        "mean(z^2)",
    ),
    (
        "binary cross entropy",
        "input x: [batch, 5]\n    input y: [batch, 2]\n    output z = linear(x, 2)",
        "binary_cross_entropy(z, y)",
    ),
    (
        "cross entropy with smoothing",
        "input x: [batch, 5]\n    input y: int[batch]\n    output z = linear(x, 4)",
        "cross_entropy(z, y, smoothing = 0.2)",
    ),
    (
        "cross entropy without one class",
        "input x: [batch, 5]\n    input y: int[batch]\n    output z = linear(x, 4)",
        "cross_entropy(z, y, ignore = 0)",
    ),
    ("norms", "input x: [batch, 3, 6]\n    output z = rms_norm(linear(layer_norm(x), 6))", "mean(z^2 * z)"),
    (
        "sliding-window attention",
        "input x: [batch, 6, 8]\n    output z = attention(x, 2, causal, window = 3, rotate = rope)",
        "mean(z^2)",
    ),
    ("full attention", "input x: [batch, 5, 8]\n    output z = attention(x, 4, full)", "mean(z^2)"),
    (
        "gated and plain feed-forward",
        "input x: [batch, 3, 4]\n    output z = swiglu(ffn(x, act = gelu_exact), hidden = 5)",
        "mean(z^2)",
    ),
];

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
    for (name, model, loss) in LAYERS {
        let model = format!("model Net() {{\n    {model}\n}}");
        let program = checked(name, &text(&model, &format!("model Net() loss {loss}"), "", ROWS));
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
