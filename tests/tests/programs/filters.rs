//! Gradient filters in whole programs: what compiled steps compute, and what they cost.

use super::generated::compare;
use trainc::graph::{Bindings, Evaluation, Output, Tensor};
use trainc_tests::program;

/// A network with a repeat and dropout, one filter, one optimizer.
fn network(filter: &str, optimizer: &str) -> String {
    format!(
        "use std

filter ahead(far) {{
    state d = 0
    sample gradient(p + far * d)
    x = p
    update
    d <- p - x
}}

filter delayed(lag) {{
    state past[lag] = 0, one = 1, other = 2
    grad <- (1 + 0.1 * one) * grad + 0.3 * past[lag - 1]
    k = lag - 1
    repeat lag {{
        past[k] <- if k > 0 then past[k - 1] else grad
        k = k - 1
    }}
    before = one
    one <- other
    other <- before
}}

filter even(p: [m, n], far = 0.5) {{
    state d = 0, rows: [m] = 0
    sample 2 * gradient(p + far * d) - gradient(p)
    rows <- 0.9 * rows + 0.1 * mean[j](grad[.., i, j]^2)
    grad <- grad[.., i, j] / (0.1 + sqrt(rows[.., i]))
    before = p
    update
    d <- p - before
}}

model Net() {{
    input x: [batch, 7]
    input y: [batch, 1]
    repeat 3 {{
        x = x + dropout(tanh(linear(layer_norm(x), 7)), 30%)
    }}
    output prediction = linear(x, 1)
}}

train {{
    model Net()
    loss mse(prediction, y)
    optimizer {optimizer}
    {filter}
    schedule linear_decay(0.05, warmup = 10%)
    clip 1.0
    steps 10  batch 9
}}
"
    )
}

const FILTERS: [&str; 11] = [
    "filter even",
    "filter lowpass",
    "filter lowpass(order = 2)",
    "filter lowpass(a = [-1.98342955, 0.98549544], b = [0.00016332, 0.00032665, 0.00016332])",
    "filter lowpass(a = [], b = [0.5, 0.3, 0.2])",
    "filter kalman",
    "filter kalman(kappa = 0.5, gamma = 1)",
    "filter kalman(kappa = 0.5, gamma = 0.7)",
    "filter kalman(kappa = 0.6, gamma = -1)",
    "filter ahead(far = 0.5)",
    "filter delayed(lag = 3)",
];

/// f32 rounding in five updates, which optimizers of Adam's kind enlarge.
const TOLERANCE: f64 = 5e-5;

#[test]
fn five_compiled_steps_agree_with_the_interpreter() {
    let optimizers = ["sgd", "filtered_adam(floor = 0.1)", "momentum", "dp_adam(floor = 1e-4, deviation = 0.01)"];
    for (filter, optimizer) in FILTERS.into_iter().zip(optimizers.into_iter().cycle()) {
        let text = network(filter, optimizer);
        compare(&text, 5, TOLERANCE).unwrap_or_else(|error| panic!("{filter}, {optimizer}: {error}"));
    }
}

/// The new parameters after a step of the interpreter from made-up values, with the states as one step has left them.
fn after_two_steps(filter: &str) -> Vec<Vec<f64>> {
    let program = program::check("filters", &network(filter, "sgd"), &[]).unwrap_or_else(|found| panic!("{found}"));
    let filled = |index: usize, shape: &[u64]| {
        let count = shape.iter().product::<u64>();
        let data = (0..count).map(|i| trainc_runtime::data::unit(index as u64, i) - 0.5).collect();
        Tensor::f32(shape, data)
    };
    let mut bindings = Bindings { steps: 10, ..Bindings::default() };
    for (index, parameter) in program.parameters.iter().enumerate() {
        bindings.parameters.insert(index as u32, filled(index, &parameter.shape));
    }
    for (index, state) in (0..).zip(&program.states) {
        bindings
            .states
            .insert(index, Tensor::f32(&state.shape, vec![0.0; state.shape.iter().product::<u64>() as usize]));
    }
    for (index, input) in program.inputs.iter().enumerate() {
        bindings.inputs.insert(index as u32, filled(50 + index, if input.name == "x" { &[9, 7] } else { &[9, 1] }));
    }
    for step in 1..=2 {
        let mut next = bindings.clone();
        let mut evaluation = Evaluation::new(&program.step, &bindings);
        for (output, _) in program.step.outputs() {
            let value = evaluation.output(output).unwrap().clone();
            match output {
                Output::Parameter(index) => drop(next.parameters.insert(*index, value)),
                Output::State(index) => drop(next.states.insert(*index, value)),
                Output::Report(_) => {}
            }
        }
        bindings = Bindings { step, ..next };
    }
    (0..program.parameters.len() as u32).map(|index| bindings.parameters[&index].data.clone()).collect()
}

#[test]
fn a_gain_of_1_and_a_single_coefficient_are_no_filter_bit_for_bit() {
    let plain = after_two_steps("");
    for filter in
        ["filter kalman(kappa = 1)", "filter kalman(kappa = 1, gamma = -1)", "filter lowpass(a = [], b = [1])"]
    {
        assert_eq!(after_two_steps(filter), plain, "{filter}");
    }
    assert_ne!(after_two_steps("filter kalman"), plain);
    // A constant factor goes away again, up to rounding.
    let halved = after_two_steps("filter lowpass(a = [], b = [0.5])");
    for (found, expected) in halved.iter().flatten().zip(plain.iter().flatten()) {
        assert!((found - expected).abs() < 1e-15, "{found} and {expected}");
    }
}

#[test]
fn compiled_steps_with_a_gain_of_1_are_those_without_a_filter_bit_for_bit() {
    let trained = |filter: &str| {
        let text = network(filter, "adamw");
        let mut session = program::session("filters", &text, &[], &trainc_runtime::Options::default());
        let floats = |count: u64, stream| {
            trainc_runtime::Values::Floats((0..count).map(|i| trainc_runtime::data::unit(stream, i) as f32).collect())
        };
        for step in 0..3 {
            let batch = trainc_runtime::Batch::new().with("x", floats(63, step)).with("y", floats(9, 100 + step));
            session.step_with(&batch).unwrap();
        }
        let names = ["linear.w", "block.linear.w", "block.layer_norm.gain"];
        names.map(|name| program::floats(&session, name))
    };
    assert_eq!(trained("filter kalman(kappa = 1)"), trained(""));
}

#[test]
fn a_second_gradient_is_taken_only_where_it_matters() {
    // What `trainc check --json` reports.
    let [plain, lowpass, one, two] =
        ["", "filter lowpass", "filter kalman(kappa = 0.5, gamma = 1)", "filter kalman(kappa = 0.5, gamma = 0.7)"]
            .map(|filter| program::compile("filters", &wide(filter), &[]).summary());
    let times = |filtered: u64, plain: u64| filtered as f64 / plain as f64;
    assert!(times(lowpass.flops_per_step, plain.flops_per_step) < 1.02);
    assert!(times(one.flops_per_step, plain.flops_per_step) < 1.05);
    assert!(times(two.flops_per_step, plain.flops_per_step) > 1.8);
    assert!(one.launches_per_step < plain.launches_per_step + 6, "{} launches", one.launches_per_step);
    assert!(two.launches_per_step > plain.launches_per_step + 6, "{} launches", two.launches_per_step);
}

/// A network in which gradients are most of the work.
fn wide(filter: &str) -> String {
    network(filter, "sgd").replace("batch 9", "batch 64")
}
