//! Private training against its definition: the gradient of each sample from a batch of one, bounded, and added up.

use std::collections::HashMap;
use trainc::graph::{Bindings, Output, Tensor, TensorType, interpret};
use trainc::program::{InputKind, Program};
use trainc_runtime::artifact::{DType, Init};
use trainc_tests::{
    program::check,
    vectors::{difference, norm},
};

pub(super) const ROWS: usize = 4;

/// Models with every kind of layer: the head of a program, and what `train` says of the model and its loss.
const MODELS: &[(&str, &str, &str)] = &[
    (
        "a feed-forward network",
        "model Net() {
            input x: [batch, 6]
            input y: int[batch]
            output logits = linear(relu(linear(x, 5)), 3)
        }",
        "model Net() loss cross_entropy(logits, y)",
    ),
    (
        "sequences, norms and gains",
        "model Net() {
            input x: [batch, 5, 6]
            input y: [batch, 5, 2]
            output z = linear(rms_norm(gelu(linear(layer_norm(x), 4))), 2)
        }",
        "model Net() loss mse(z, y)",
    ),
    (
        "a tied GPT",
        "model Net() {
            input tokens: int[batch, 7]
            param wte: [11, 8] ~ normal(0.5) role embeddings
            x = wte[tokens[b, t], d] + positions(7, 8)
            repeat 3 {
                x = x + attention(layer_norm(x), 2, causal)
                x = x + ffn(layer_norm(x), hidden = 12)
            }
            y = layer_norm(x)
            output logits = sum[d](y[b, t, d] * wte[v, d])
        }",
        "model Net() loss cross_entropy(logits, next(tokens))",
    ),
    (
        "a Llama",
        "model Net() {
            input tokens: int[batch, 6]
            x = embedding(tokens, 9, 8)
            repeat 2 {
                x = x + grouped_attention(rms_norm(x), 4, 2, rotate = rope)
                x = x + swiglu(rms_norm(x), hidden = 10)
            }
            output logits = head(rms_norm(x), 9)
        }",
        "model Net() loss cross_entropy(logits, next(tokens), smoothing = 0.1)",
    ),
    (
        "an image network",
        "model Net() {
            input x: [batch, 1, 8, 8]
            input y: int[batch]
            a = max_pool(relu(conv2d(x, 3, padding = 1)))
            b = average_pool(relu(conv2d(a, 4, padding = 1)))
            output logits = linear(flatten(b), 5)
        }",
        "model Net() loss cross_entropy(logits, y)",
    ),
    (
        "a matrix used twice, and one that is frozen",
        "model Net() {
            input x: [batch, 6]
            input y: [batch, 6]
            param w: [6 | 6] ~ normal(0.5)
            a = tanh(sum[d](x[b, d] * w[o, d]))
            c = tanh(sum[d](a[b, d] * w[o, d]))
            output z = linear(c, 6)
        }",
        "model Net() loss mse(z, y) freeze \"linear.*\"",
    ),
];

pub(super) fn text(model: &str, train: &str, private: &str, batch: usize) -> String {
    let train = train.replace(" loss", "\n    loss").replace(" freeze", "\n    freeze");
    format!(
        "use std\n{model}\ntrain {{\n    {train}\n    optimizer sgd\n    schedule constant(1)\n    steps 1  batch {batch}\n    {private}\n}}\n"
    )
}

/// Numbers in (-1, 1).
pub(super) fn draws(stream: u32, count: usize) -> Vec<f64> {
    let draw = trainc_runtime::philox::Draw { seed: 3, stream, step: 0, instance: 0 };
    (0..count as u32).map(|i| 2.0 * f64::from(draw.uniform(i)) - 1.0).collect()
}

fn elements(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

/// Inputs for rows `first..first + rows` of the batch, and parameters that are the same for every batch.
pub(super) fn bindings(program: &Program, first: usize, rows: usize, mask: &[f64]) -> Bindings {
    let mut bindings = Bindings { steps: 1, ..Bindings::default() };
    for id in program.step.ids() {
        let trainc::graph::Op::Input { index, ty } = &program.step.node(id).op else { continue };
        let input = &program.inputs[*index as usize];
        if input.kind == InputKind::Mask {
            bindings.inputs.insert(*index, Tensor::f32(&ty.shape, mask.to_vec()));
            continue;
        }
        let record = elements(&ty.shape[1..]);
        let all = draws(50 + *index, record * ROWS);
        let below = f64::from(input.below.unwrap_or(2) as u32);
        let value = |x: &f64| if ty.dtype == DType::I32 { ((x + 1.0) / 2.0 * below).floor() } else { *x };
        let data = all[first * record..(first + rows) * record].iter().map(value).collect();
        bindings.inputs.insert(*index, Tensor::new(ty.clone(), data));
    }
    for (index, parameter) in (0..).zip(&program.parameters) {
        let data = draws(index, elements(&parameter.shape)).iter().map(|x| 0.7 * x).collect();
        bindings.parameters.insert(index, Tensor::f32(&parameter.shape, data));
    }
    for (index, state) in (0..).zip(&program.states) {
        let Init::Constant { value } = state.init else { panic!("{} starts from a constant", state.name) };
        bindings.states.insert(index, Tensor::full(TensorType::f32(state.shape.clone()), value.into()));
    }
    bindings
}

/// By how much a step moves each parameter, downwards.
pub(super) fn movement(program: &Program, bindings: &Bindings) -> HashMap<u32, Vec<f64>> {
    let mut run = interpret(&program.step, bindings).expect("the step can be evaluated");
    let mut moved = HashMap::new();
    for (output, _) in program.step.outputs() {
        if let Output::Parameter(index) = output {
            let after = run.output(output).expect("evaluated").data.clone();
            let before = &bindings.parameters[index].data;
            moved.insert(*index, before.iter().zip(after).map(|(before, after)| before - after).collect());
        }
    }
    moved
}

pub(super) fn checked(name: &str, text: &str) -> Program {
    check(name, text, &[]).unwrap_or_else(|found| panic!("{name}: {found}\n{text}"))
}

/// Ways to clip, with the factor of a sample's gradient by parameter that they mean.
type Factor = fn(&Program, &HashMap<u32, Vec<f64>>) -> HashMap<u32, Vec<f64>>;

const NORM: f64 = 0.3;

/// Factors on all elements of a parameter, which depend on the norm of parts of the gradient.
fn by_parts(
    program: &Program,
    gradient: &HashMap<u32, Vec<f64>>,
    part_of: impl Fn(&trainc::program::Parameter, u64) -> String,
    factor: impl Fn(f64, f64) -> f64,
) -> HashMap<u32, Vec<f64>> {
    let mut squares: HashMap<String, f64> = HashMap::new();
    let instances = |index: &u32| {
        let parameter = &program.parameters[*index as usize];
        (parameter, if parameter.stacked { parameter.shape[0] } else { 1 })
    };
    for (index, values) in gradient {
        let (parameter, count) = instances(index);
        for (instance, values) in (0..count).zip(values.chunks(values.len() / count as usize)) {
            *squares.entry(part_of(parameter, instance)).or_default() += values.iter().map(|x| x * x).sum::<f64>();
        }
    }
    let norm = NORM / (squares.len() as f64).sqrt();
    let of = |index: &u32, values: &Vec<f64>| {
        let (parameter, count) = instances(index);
        let size = values.len() / count as usize;
        let factors = (0..count).map(|instance| factor(squares[&part_of(parameter, instance)].sqrt(), norm));
        factors.flat_map(|factor| std::iter::repeat_n(factor, size)).collect()
    };
    gradient.iter().map(|(index, values)| (*index, of(index, values))).collect()
}

fn flat(n: f64, norm: f64) -> f64 {
    (norm / n).min(1.0)
}

fn layer(parameter: &trainc::program::Parameter, instance: u64) -> String {
    let path = parameter.name.rsplit_once('.').map_or("", |(layer, _)| layer);
    format!("{path}#{}", if parameter.stacked { instance } else { 0 })
}

const CLIPS: &[(&str, Factor)] = &[
    ("flat", |p, g| by_parts(p, g, |_, _| String::new(), flat)),
    ("automatic", |p, g| by_parts(p, g, |_, _| String::new(), |n, c| c / (n + 0.01))),
    ("automatic 0", |p, g| by_parts(p, g, |_, _| String::new(), |n, c| c / n)),
    ("per_layer", |p, g| by_parts(p, g, layer, flat)),
    ("automatic per_group (norms, biases)", |p, g| {
        let group = |parameter: &trainc::program::Parameter, _: u64| {
            let has = |role: &str| parameter.roles.iter().any(|own| own == role);
            (if has("norms") {
                "norms"
            } else if has("biases") {
                "biases"
            } else {
                ""
            })
            .to_string()
        };
        by_parts(p, g, group, |n, c| c / (n + 0.01))
    }),
];

fn distance(found: &[f64], expected: &[f64]) -> f64 {
    norm(&difference(found, expected)) / norm(expected).max(1e-12)
}

#[test]
fn a_private_step_is_the_sum_of_clipped_gradients_of_batches_of_one() {
    for (name, model, train) in MODELS {
        let alone = checked(name, &text(model, train, "", 1));
        let gradients: Vec<HashMap<u32, Vec<f64>>> =
            (0..ROWS).map(|row| movement(&alone, &bindings(&alone, row, 1, &[]))).collect();
        for (clip, factors) in CLIPS {
            let has = |role: &str| alone.parameters.iter().any(|p| p.roles.iter().any(|own| own == role));
            if clip.contains("per_group") && !(has("norms") && has("biases")) {
                continue;
            }
            let private = format!("private {{ noise_multiplier 1e-13  clip {NORM} {clip}  records 100  rows {ROWS} }}");
            let program = checked(name, &text(model, train, &private, ROWS));
            let mask = [1.0, 1.0, 0.0, 1.0];
            let found = movement(&program, &bindings(&program, 0, ROWS, &mask));
            let mut expected: HashMap<u32, Vec<f64>> = HashMap::new();
            for (gradient, mask) in gradients.iter().zip(mask) {
                let factors = factors(&alone, gradient);
                for (index, values) in gradient {
                    let sum = expected.entry(*index).or_insert_with(|| vec![0.0; values.len()]);
                    let terms = values.iter().zip(&factors[index]).map(|(g, f)| mask * f * g / ROWS as f64);
                    sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                }
            }
            assert_eq!(found.len(), expected.len(), "{name}: the same parameters move");
            for (index, expected) in &expected {
                let error = distance(&found[index], expected);
                let parameter = &program.parameters[*index as usize].name;
                assert!(error < 1e-10, "{name}, clip {clip}, {parameter}: error {error}");
            }
        }
    }
}

/// What the data have for each field of a batch: of a sequence, as many numbers more as the program looks ahead.
fn fed(program: &Program) -> HashMap<String, (usize, Vec<f64>)> {
    let mut fields: HashMap<String, (usize, Vec<f64>)> = HashMap::new();
    for id in program.step.ids() {
        let trainc::graph::Op::Input { index, ty } = &program.step.node(id).op else { continue };
        let input = &program.inputs[*index as usize];
        if input.kind == InputKind::Field {
            let ahead = program.inputs.iter().filter(|other| other.field == input.field).map(|other| other.shift).max();
            let record = elements(&ty.shape[1..]) + ahead.unwrap_or(0) as usize;
            let below = f64::from(input.below.unwrap_or(2) as u32);
            let value = |x: &f64| if ty.dtype == DType::I32 { ((x + 1.0) / 2.0 * below).floor() } else { *x };
            let values = draws(80 + input.field.len() as u32, record * ROWS).iter().map(value).collect();
            fields.insert(input.field.clone(), (record, values));
        }
    }
    fields
}

/// The same for the interpreter.
fn bound(program: &Program, fields: &HashMap<String, (usize, Vec<f64>)>) -> Bindings {
    let mut bindings = bindings(program, 0, ROWS, &[1.0; ROWS]);
    for (index, tensor) in &mut bindings.inputs {
        let input = &program.inputs[*index as usize];
        if let Some((record, values)) = fields.get(&input.field) {
            let own = tensor.data.len() / ROWS;
            let start = |row: usize| row * record + input.shift as usize;
            tensor.data = (0..ROWS).flat_map(|row| values[start(row)..start(row) + own].to_vec()).collect();
        }
    }
    for tensor in bindings.parameters.values_mut().chain(bindings.inputs.values_mut()) {
        *tensor = tensor.map(|x| f64::from(x as f32));
    }
    bindings
}

#[test]
fn compiled_private_steps_agree_with_the_interpreter() {
    for (name, model, train) in MODELS {
        for clip in ["flat", "per_layer"] {
            let private = format!("private {{ noise_multiplier 1e-13  clip {NORM} {clip}  records 100  rows {ROWS} }}");
            let text = text(model, train, &private, ROWS);
            let program = checked(name, &text);
            let fields = fed(&program);
            let bindings = bound(&program, &fields);
            let mut session = trainc_tests::program::session(name, &text, &[], &Default::default());
            for (index, parameter) in (0..).zip(&program.parameters) {
                let values: Vec<f32> = bindings.parameters[&index].data.iter().map(|&x| x as f32).collect();
                session.set_tensor(&parameter.name, &values.into()).expect("the parameter is there");
            }
            let integer = |field: &str| program.inputs.iter().any(|i| i.field == field && i.dtype == DType::I32);
            let batch = fields.iter().fold(trainc_runtime::Batch::new(), |batch, (field, (_, values))| {
                if integer(field) {
                    batch.with(field, values.iter().map(|&x| x as i32).collect::<Vec<i32>>())
                } else {
                    batch.with(field, values.iter().map(|&x| x as f32).collect::<Vec<f32>>())
                }
            });
            session.step_with(&batch).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            for (index, movement) in movement(&program, &bindings) {
                let after = trainc_tests::program::floats(&session, &program.parameters[index as usize].name);
                let before = &bindings.parameters[&index].data;
                found.extend(before.iter().zip(after).map(|(before, after)| before - after));
                expected.extend(movement);
            }
            let error = distance(&found, &expected);
            assert!(error < 1e-5, "{name}, {clip}: error {error}");
        }
    }
}
