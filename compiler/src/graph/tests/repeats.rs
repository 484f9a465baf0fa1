//! Repeats: forward and backward as if unrolled.

use super::*;
use trainc_kernels::ir::{Precision, Unary};

const WIDTH: u64 = 3;
const COUNT: u64 = 3;

/// `x + tanh(x w) b`.
fn residual(graph: &mut Graph, x: NodeId, w: NodeId, b: NodeId) -> NodeId {
    let inner = graph.contract(x, w, [&[0, 1], &[1, 2], &[0, 2]], Precision::F32);
    let inner = graph.unary(Unary::Tanh, inner);
    let b = graph.broadcast_to_leading(b, &[2, WIDTH]);
    let inner = graph.times(inner, b);
    graph.plus(x, inner)
}

fn repeated(graph: &mut Graph, [x, w, b]: [NodeId; 3]) -> NodeId {
    let scope = graph.add_scope("block", COUNT);
    let carry = graph.add_carry(scope, x, false);
    let w = graph.add(Op::Layer { scope }, &[w]);
    let next = residual(graph, carry, w, b);
    graph.set_next(carry, next);
    graph.add(Op::Last, &[carry])
}

fn unrolled(graph: &mut Graph, [mut x, w, b]: [NodeId; 3]) -> NodeId {
    for start in 0..COUNT {
        let slice = graph.slice(w, 0, start, 1);
        let w = graph.reshape(slice, &[WIDTH, WIDTH]);
        x = residual(graph, x, w, b);
    }
    x
}

/// x, the stacked w, and a b that all instances share.
const SHAPES: [&[u64]; 3] = [&[2, WIDTH], &[COUNT, WIDTH, WIDTH], &[WIDTH]];

#[test]
fn a_block_repeated_three_times_equals_its_unrolling_forward_and_backward() {
    let results = [repeated, unrolled].map(|build| {
        let mut problem = problem(&SHAPES, |graph, p| build(graph, [p[0], p[1], p[2]]));
        let gradients = differentiate(&mut problem.graph, problem.loss, &problem.parameters).expect("differentiable");
        let nodes = gradients.into_iter().flatten().chain([problem.loss]);
        nodes.map(|node| value(&problem.graph, &problem.bindings, node)).collect::<Vec<_>>()
    });
    assert_eq!(results[0].len(), 4, "three gradients and the loss");
    for (a, b) in results[0].iter().zip(&results[1]) {
        assert!(distance(&a.data, &b.data) < 1e-12, "{a:?} and {b:?}");
    }
}

#[test]
fn the_gradient_of_a_repeated_block_agrees_with_differences() {
    check_gradients("repeated", problem(&SHAPES, |graph, p| repeated(graph, [p[0], p[1], p[2]])));
}
