//! Values against numbers made by hand, gradients against central differences.

mod operations;
mod page;
mod per_sample;
mod random;
mod repeats;
mod rows;
mod substitution;

use super::*;
use trainc_kernels::ir::Generator;

/// Parameters of these shapes and a scalar made from them.
struct Problem {
    graph: Graph,
    bindings: Bindings,
    parameters: Vec<NodeId>,
    loss: NodeId,
}

/// Numbers in `(-1, 1)` that differ for each stream.
fn noise(stream: u32, shape: &[u64]) -> Tensor {
    let draw = trainc_runtime::philox::Draw { seed: 7, stream, step: 0, instance: 0 };
    let ty = TensorType::f32(shape);
    let data = (0..ty.elements() as u32).map(|i| 2.0 * f64::from(draw.uniform(i)) - 1.0).collect();
    Tensor::new(ty, data)
}

/// A graph on parameters of these shapes, bound to noise.
fn problem(shapes: &[&[u64]], build: impl FnOnce(&mut Graph, &[NodeId]) -> NodeId) -> Problem {
    let mut graph = Graph::new("test");
    let mut bindings = Bindings { steps: 10, step: 3, seed: 5, ..Bindings::default() };
    let mut parameters = Vec::new();
    for (index, shape) in (0..).zip(shapes) {
        parameters.push(graph.add(Op::Parameter { index, shape: shape.to_vec() }, &[]));
        bindings.parameters.insert(index, noise(index, shape));
    }
    let result = build(&mut graph, &parameters);
    let loss = weighted_sum(&mut graph, result);
    Problem { graph, bindings, parameters, loss }
}

/// A scalar that depends on each element differently.
fn weighted_sum(graph: &mut Graph, x: NodeId) -> NodeId {
    let shape = graph.shape(x).to_vec();
    let weights = graph.add(Op::Random { generator: Generator::Philox, stream: 999, shape, scope: ScopeId::ROOT }, &[]);
    let product = graph.times(x, weights);
    graph.sum_all(product)
}

fn value(graph: &Graph, bindings: &Bindings, node: NodeId) -> Tensor {
    Evaluation::new(graph, bindings).value(node, 0).expect("the graph is closed and bound").clone()
}

/// Central differences of the loss by each element of a parameter.
fn differences(problem: &mut Problem, index: u32) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let base = problem.bindings.parameters[&index].clone();
    let mut slopes = Vec::new();
    for i in 0..base.data.len() {
        let mut at = |shift: f64| {
            let mut moved = base.clone();
            moved.data[i] += shift;
            problem.bindings.parameters.insert(index, moved);
            value(&problem.graph, &problem.bindings, problem.loss).scalar()
        };
        slopes.push((at(STEP) - at(-STEP)) / (2.0 * STEP));
    }
    problem.bindings.parameters.insert(index, base);
    slopes
}

fn norm(x: impl IntoIterator<Item = f64>) -> f64 {
    x.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(a, b)| a - b)) / norm(b.iter().copied()).max(1e-3)
}

/// The gradients agree with central differences; a missing one means that the differences are 0.
fn check_gradients(name: &str, mut problem: Problem) {
    let gradients = differentiate(&mut problem.graph, problem.loss, &problem.parameters).expect("differentiable");
    for (index, gradient) in (0..).zip(gradients) {
        let expected = differences(&mut problem, index);
        let found = match gradient {
            Some(node) => value(&problem.graph, &problem.bindings, node).data,
            None => vec![0.0; expected.len()],
        };
        let error = distance(&found, &expected);
        assert!(error < 1e-6, "{name}: parameter {index}: error {error}: {found:?}, by differences {expected:?}");
    }
}
