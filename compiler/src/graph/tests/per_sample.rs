//! Gradients kept apart by sample, against the gradients of batches of one.

use super::*;
use trainc_kernels::ir::{Binary, Precision, Unary};
use trainc_runtime::artifact::DType;

const BATCH: u64 = 3;
const TIME: u64 = 4;
const WIDTH: u64 = 6;
const WORDS: u64 = 5;

/// A loss over a batch of `batch` samples, made from numbers `x [batch, TIME, WIDTH]`, words `[batch, TIME]` and parameters.
type Loss = fn(&mut Graph, NodeId, NodeId, &[NodeId]) -> NodeId;

struct Case {
    name: &'static str,
    shapes: &'static [&'static [u64]],
    loss: Loss,
}

/// The mean over all elements.
fn mean(graph: &mut Graph, x: NodeId) -> NodeId {
    let count = graph.node(x).ty.elements() as f64;
    let sum = graph.sum_all(x);
    let count = graph.constant(count);
    graph.over(sum, count)
}

fn squared(graph: &mut Graph, x: NodeId) -> NodeId {
    let y = graph.unary(Unary::Tanh, x);
    let y = graph.times(y, x);
    mean(graph, y)
}

/// `x [b, t, d] w [o, d] -> [b, t, o]`.
fn linear(graph: &mut Graph, x: NodeId, w: NodeId) -> NodeId {
    graph.contract(x, w, [&[0, 1, 2], &[3, 2], &[0, 1, 3]], Precision::F32)
}

fn along_rows(graph: &mut Graph, b: NodeId, like: NodeId) -> NodeId {
    let shape = graph.shape(like).to_vec();
    graph.broadcast_to_leading(b, &shape)
}

const CASES: &[Case] = &[
    Case {
        name: "linear and bias",
        shapes: &[&[WIDTH, WIDTH], &[WIDTH]],
        loss: |g, x, _, p| {
            let y = linear(g, x, p[0]);
            let b = along_rows(g, p[1], y);
            let y = g.plus(y, b);
            squared(g, y)
        },
    },
    Case {
        name: "a gain through a function of it",
        shapes: &[&[WIDTH]],
        loss: |g, x, _, p| {
            let gain = g.unary(Unary::Exp, p[0]);
            let gain = along_rows(g, gain, x);
            let gain = g.unary(Unary::Tanh, gain);
            let y = g.times(x, gain);
            squared(g, y)
        },
    },
    Case {
        name: "a normalised, permuted and reshaped matrix",
        shapes: &[&[2, WIDTH, WIDTH / 2]],
        loss: |g, x, _, p| {
            let square = g.times(p[0], p[0]);
            let total = g.sum_all(square);
            let norm = g.unary(Unary::Sqrt, total);
            let norm = g.broadcast(norm, &[], &[2, WIDTH, WIDTH / 2]);
            let w = g.over(p[0], norm);
            let w = g.permute(w, &[1, 2, 0]);
            let w = g.reshape(w, &[WIDTH, WIDTH]);
            let y = linear(g, x, w);
            squared(g, y)
        },
    },
    Case {
        name: "a tied embedding with positions",
        shapes: &[&[WORDS, WIDTH], &[TIME + 2, WIDTH]],
        loss: |g, _, words, p| {
            let x = g.add(Op::Gather, &[p[0], words]);
            let rows = g.slice(p[1], 0, 0, TIME);
            let positions = along_rows(g, rows, x);
            let x = g.plus(x, positions);
            let logits = linear(g, x, p[0]);
            squared(g, logits)
        },
    },
    Case {
        name: "a product of matrices, and a matrix of rows looked up in another",
        shapes: &[&[WIDTH, 2], &[2, WIDTH], &[3, WIDTH]],
        loss: |g, x, _, p| {
            let w = g.contract(p[0], p[1], [&[0, 1], &[1, 2], &[0, 2]], Precision::F32);
            let iota = g.add(Op::Iota { axis: 0, shape: vec![3] }, &[]);
            let rows = g.add(Op::Gather, &[p[2], iota]);
            let both = g.add(Op::Concat { axis: 0 }, &[w, rows]);
            let y = linear(g, x, both);
            squared(g, y)
        },
    },
    Case {
        name: "windows, as convolution has them",
        shapes: &[&[2, 2, WIDTH]],
        loss: |g, x, _, p| {
            let padded = g.add(Op::Pad { axis: 1, before: 1, after: 0 }, &[x]);
            let windows = g.add(Op::Window { axis: 1, size: 2, stride: 1 }, &[padded]);
            let y = g.contract(windows, p[0], [&[0, 1, 2, 3], &[4, 2, 3], &[0, 1, 4]], Precision::F32);
            squared(g, y)
        },
    },
    Case {
        name: "a repeat with matrices of its own, a shared one and a learned beginning",
        shapes: &[&[3, WIDTH, WIDTH], &[WIDTH, WIDTH], &[WIDTH], &[3, WIDTH]],
        loss: |g, x, _, p| {
            let start = along_rows(g, p[2], x);
            let start = g.plus(x, start);
            let scope = g.add_scope("block", 3);
            let carry = g.add_carry(scope, start, false);
            let [own, gain] = [p[0], p[3]].map(|stacked| g.add(Op::Layer { scope }, &[stacked]));
            let y = linear(g, carry, own);
            let gain = along_rows(g, gain, y);
            let y = g.times(y, gain);
            let y = linear(g, y, p[1]);
            let y = g.unary(Unary::Tanh, y);
            let next = g.plus(carry, y);
            g.set_next(carry, next);
            let last = g.add(Op::Last, &[carry]);
            squared(g, last)
        },
    },
    Case {
        name: "a contraction to one number, and sums of several parts",
        shapes: &[&[WIDTH, WIDTH], &[WIDTH]],
        loss: |g, x, _, p| {
            let y = linear(g, x, p[0]);
            let shape = g.shape(y).to_vec();
            let elements = shape.iter().product::<u64>() as f64;
            let whole = g.contract(y, x, [&[0, 1, 2], &[0, 1, 2], &[]], Precision::F32);
            let b = g.broadcast_to_leading(p[1], &shape);
            let other = g.times(y, b);
            let per_feature = g.sum(other, &[0, 1]);
            let other = g.sum_all(per_feature);
            let both = g.plus(whole, other);
            g.scale(both, 1.0 / elements)
        },
    },
];

fn input(graph: &mut Graph, index: u32, ty: TensorType) -> NodeId {
    graph.add(Op::Input { index, ty }, &[])
}

/// A case on a batch: the graph, its parameters where samples' gradients are wanted, and its loss.
fn built(case: &Case, batch: u64) -> (Graph, Vec<NodeId>, NodeId) {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, 0, TensorType::f32(vec![batch, TIME, WIDTH]));
    let words = input(&mut graph, 1, TensorType::i32(vec![batch, TIME]));
    let parameters: Vec<NodeId> = (0..)
        .zip(case.shapes)
        .map(|(index, shape)| graph.add(Op::Parameter { index, shape: shape.to_vec() }, &[]))
        .collect();
    let loss = (case.loss)(&mut graph, x, words, &parameters);
    (graph, parameters, loss)
}

/// The samples `first, first + 1, ...` of a batch, and parameters.
fn bound(case: &Case, first: u64, batch: u64) -> Bindings {
    let mut bindings = Bindings::default();
    let whole = noise(70, &[BATCH, TIME, WIDTH]);
    let part = |size: u64| (first * size) as usize..((first + batch) * size) as usize;
    bindings.inputs.insert(0, Tensor::f32(&[batch, TIME, WIDTH], whole.data[part(TIME * WIDTH)].to_vec()));
    let words: Vec<i32> = (0..(BATCH * TIME) as i32).map(|i| (i * i + 1) % WORDS as i32).collect();
    bindings.inputs.insert(1, Tensor::i32(&[batch, TIME], &words[part(TIME)]));
    for (index, shape) in (0..).zip(case.shapes) {
        bindings.parameters.insert(index, noise(index, shape));
    }
    bindings
}

/// Where the gradient of a parameter is kept apart by sample: at its layers, or at itself.
fn sites(graph: &Graph, parameter: NodeId) -> Vec<NodeId> {
    let layers: Vec<NodeId> =
        graph.users(parameter).into_iter().filter(|user| matches!(graph.node(*user).op, Op::Layer { .. })).collect();
    if layers.is_empty() { vec![parameter] } else { layers }
}

#[test]
fn the_gradient_of_each_sample_is_that_of_a_batch_of_one() {
    for case in CASES {
        let (mut graph, parameters, loss) = built(case, BATCH);
        let mut samples =
            Samples::trace(&graph, loss, BATCH).unwrap_or_else(|coupled| panic!("{}: {coupled:?}", case.name));
        let losses = samples.shares(&mut graph, loss);
        let seed = graph.full_like(BATCH as f64, losses);
        let wrt: Vec<NodeId> = parameters.iter().flat_map(|&parameter| sites(&graph, parameter)).collect();
        let gradients = per_sample_vjp(&mut graph, &[(losses, seed)], &wrt, &samples).expect("differentiable");
        graph.verify().unwrap_or_else(|error| panic!("{}: {error}\n{graph}", case.name));
        let bindings = bound(case, 0, BATCH);
        let found = losses_and_gradients(&graph, &bindings, losses, &gradients);
        for sample in 0..BATCH {
            let expected = of_one_sample(case, sample);
            for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let size = expected.len();
                let found = &found[sample as usize * size..][..size];
                let error = distance(found, expected);
                assert!(error < 1e-12, "{}, sample {sample}, {number}: {found:?} instead of {expected:?}", case.name);
            }
        }
    }
}

/// Losses times the batch, then gradients; sample by sample, of a repeat instance by instance.
fn losses_and_gradients(
    graph: &Graph,
    bindings: &Bindings,
    losses: NodeId,
    gradients: &[Option<NodeId>],
) -> Vec<Vec<f64>> {
    let mut all = vec![value(graph, bindings, losses).data.iter().map(|loss| loss * BATCH as f64).collect()];
    for gradient in gradients {
        let gradient = gradient.expect("every parameter matters");
        let count = graph.scope(graph.node(gradient).scope).count;
        let mut evaluation = Evaluation::new(graph, bindings);
        let mut values = Vec::new();
        for instance in 0..count {
            values.push(evaluation.value(gradient, instance).expect("bound").data.clone());
        }
        let size = values[0].len() / BATCH as usize;
        let of = |sample: usize| values.iter().flat_map(move |value| value[sample * size..][..size].to_vec());
        all.push((0..BATCH as usize).flat_map(of).collect());
    }
    all
}

fn of_one_sample(case: &Case, sample: u64) -> Vec<Vec<f64>> {
    let (mut graph, parameters, loss) = built(case, 1);
    let gradients = differentiate(&mut graph, loss, &parameters).expect("differentiable");
    let bindings = bound(case, sample, 1);
    let nodes = std::iter::once(loss).chain(gradients.into_iter().flatten());
    nodes.map(|node| value(&graph, &bindings, node).data).collect()
}

#[test]
fn samples_that_meet_in_anything_but_sums_are_found() {
    let cases: &[(&str, Loss)] = &[
        ("mixes the samples", |g, x, _, _| {
            let y = g.reduce(trainc_kernels::ir::ReduceKind::Max, x, &[0]);
            g.sum_all(y)
        }),
        ("is no sum over the samples", |g, x, _, _| {
            let centre = g.sum(x, &[0]);
            let shape = g.shape(x).to_vec();
            let centre = g.broadcast_to_leading(centre, &shape);
            let y = g.minus(x, centre);
            squared(g, y)
        }),
        ("is no sum over the samples", |g, x, _, _| {
            let total = mean(g, x);
            g.unary(Unary::Exp, total)
        }),
        ("leaves no axis that counts the samples", |g, x, _, _| {
            let y = g.reshape(x, &[BATCH * TIME, WIDTH]);
            squared(g, y)
        }),
        ("mixes the samples", |g, x, _, _| {
            let y = g.contract(x, x, [&[0, 1, 2], &[3, 1, 2], &[0, 3]], Precision::F32);
            squared(g, y)
        }),
        ("adds what belongs to no one of the samples", |g, x, _, p| {
            let (data, penalty) = (mean(g, x), squared(g, p[0]));
            g.plus(data, penalty)
        }),
        ("does not depend on the samples", |g, _, _, p| squared(g, p[0])),
    ];
    for (reason, loss) in cases {
        let case = Case { name: reason, shapes: &[&[WIDTH]], loss: *loss };
        let (graph, _, loss) = built(&case, BATCH);
        let coupled = Samples::trace(&graph, loss, BATCH).expect_err("samples are coupled");
        assert_eq!(coupled.reason, *reason, "{graph}");
    }
}

#[test]
fn what_is_the_same_for_all_samples_may_be_compared_with_indices() {
    let (mut graph, _, _) = built(&CASES[0], BATCH);
    let iota = graph.add(Op::Iota { axis: 0, shape: vec![TIME] }, &[]);
    let two = graph.add(Op::Constant { value: 2.0.into(), dtype: DType::I32 }, &[]);
    let two = graph.broadcast(two, &[], &[TIME]);
    let early = graph.binary(Binary::Less, iota, two);
    let x = NodeId::from(0);
    let shape = graph.shape(x).to_vec();
    let early = graph.broadcast(early, &[1], &shape);
    let zero = graph.full_like(0.0, x);
    let y = graph.select(early, x, zero);
    let loss = mean(&mut graph, y);
    let samples = Samples::trace(&graph, loss, BATCH).expect("samples are apart");
    assert_eq!((samples.of(early), samples.of(y)), (Place::Axis(0), Place::Axis(0)));
}
