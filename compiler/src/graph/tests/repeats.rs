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

type Build = fn(&mut Graph, &[NodeId]) -> NodeId;

/// A repeat over parameters: init `[2]`, stacked `[4, 2]`, shared `[2]`. The last argument says what leads out of it.
pub fn cases() -> Vec<(&'static str, Build)> {
    fn scope(graph: &mut Graph, p: &[NodeId], reversed: bool) -> [NodeId; 3] {
        let scope = graph.add_scope("body", 4);
        let carry = graph.add_carry(scope, p[0], reversed);
        let layer = graph.add(Op::Layer { scope }, &[p[1]]);
        let product = graph.times(carry, layer);
        let sum = graph.plus(product, p[2]);
        [carry, layer, graph.unary(Unary::Sin, sum)]
    }
    vec![
        ("last", |g, p| {
            let [carry, _, next] = scope(g, p, false);
            g.set_next(carry, next);
            g.add(Op::Last, &[carry])
        }),
        ("last, reversed", |g, p| {
            let [carry, _, next] = scope(g, p, true);
            g.set_next(carry, next);
            g.add(Op::Last, &[carry])
        }),
        ("stack of what was received, and the sum of squares", |g, p| {
            let [carry, _, next] = scope(g, p, false);
            g.set_next(carry, next);
            let square = g.times(next, next);
            let (stack, sum) = (g.add(Op::Stack { count: 4 }, &[carry]), g.add(Op::SumInstances, &[square]));
            let stack = g.sum(stack, &[0]);
            g.times(stack, sum)
        }),
        ("a next that does not depend on what was received", |g, p| {
            let [carry, layer, out] = scope(g, p, false);
            g.set_next(carry, layer);
            let (last, sum) = (g.add(Op::Last, &[carry]), g.add(Op::SumInstances, &[out]));
            g.times(last, sum)
        }),
        ("a next outside the scope", |g, p| {
            let [carry, _, out] = scope(g, p, false);
            let square = g.times(p[2], p[2]);
            g.set_next(carry, square);
            let (last, sum) = (g.add(Op::Last, &[carry]), g.add(Op::SumInstances, &[out]));
            g.times(last, sum)
        }),
        ("a carry that nobody receives", |g, p| {
            let [carry, layer, _] = scope(g, p, false);
            let next = g.times(layer, layer);
            g.set_next(carry, next);
            g.add(Op::Last, &[carry])
        }),
        ("only the initial value matters", |g, p| {
            let [carry, _, out] = scope(g, p, false);
            let nothing = g.full_like(0.5, carry);
            g.set_next(carry, nothing);
            g.add(Op::SumInstances, &[out])
        }),
        ("a shift register of two carries", |g, p| {
            let [first, _, next] = scope(g, p, false);
            let home = g.node(first).scope;
            let second = g.add_carry(home, p[2], false);
            g.set_next(first, next);
            g.set_next(second, first);
            let both = g.times(second, next);
            let (sum, last) = (g.add(Op::SumInstances, &[both]), g.add(Op::Last, &[second]));
            g.plus(sum, last)
        }),
        ("two carries that feed each other, one result unused", |g, p| {
            let [first, layer, next] = scope(g, p, false);
            let home = g.node(first).scope;
            let second = g.add_carry(home, p[2], false);
            let mixed = g.times(second, layer);
            let mixed = g.plus(mixed, first);
            g.set_next(first, mixed);
            g.set_next(second, next);
            g.add(Op::Last, &[second])
        }),
        ("a shared value that is all there is to an instance", |g, p| {
            let [carry, _, next] = scope(g, p, false);
            g.set_next(carry, next);
            let sum = g.plus(carry, p[2]);
            g.add(Op::SumInstances, &[sum])
        }),
    ]
}

#[test]
fn gradients_of_repeats_agree_with_differences() {
    for (name, build) in cases() {
        let problem = problem(&[&[2], &[4, 2], &[2]], build);
        problem.graph.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
        check_gradients(name, problem);
    }
}

#[test]
fn the_gradient_of_a_gradient_agrees_with_differences() {
    for (name, build) in cases() {
        let mut problem = problem(&[&[2], &[4, 2], &[2]], build);
        let gradients = differentiate(&mut problem.graph, problem.loss, &problem.parameters).expect("differentiable");
        let gradient = gradients.into_iter().flatten().next().expect("one parameter matters");
        problem.loss = weighted_sum(&mut problem.graph, gradient);
        check_gradients(name, problem);
    }
}

#[test]
fn values_of_a_repeat_go_from_instance_to_instance() {
    let mut graph = Graph::new("test");
    let stacked = graph.add(Op::Iota { axis: 0, shape: vec![3] }, &[]);
    let stacked = graph.add(Op::ToFloat, &[stacked]);
    let start = graph.constant(1.0);
    let scope = graph.add_scope("body", 3);
    let layer = graph.add(Op::Layer { scope }, &[stacked]);
    let mut results = Vec::new();
    for reversed in [false, true] {
        let carry = graph.add_carry(scope, start, reversed);
        let doubled = graph.plus(carry, carry);
        let next = graph.plus(doubled, layer);
        graph.set_next(carry, next);
        results.push(graph.add(Op::Last, &[carry]));
        results.push(graph.add(Op::Stack { count: 3 }, &[carry]));
        results.push(graph.add(Op::SumInstances, &[carry]));
    }
    graph.verify().expect("well-formed");
    let values: Vec<Vec<f64>> =
        results.into_iter().map(|node| value(&graph, &Bindings::default(), node).data).collect();
    let expected: [&[f64]; 6] = [&[12.0], &[1.0, 2.0, 5.0], &[8.0], &[18.0], &[9.0, 4.0, 1.0], &[14.0]];
    assert_eq!(values, expected);
}

#[test]
fn a_graph_that_is_not_well_formed_is_refused() {
    let mut graph = Graph::new("test");
    let x = graph.full(1.0, &[2]);
    let scope = graph.add_scope("body", 3);
    let carry = graph.add_carry(scope, x, false);
    assert_eq!(graph.verify(), Err("carry 0 of body is not closed".into()));
    let last = graph.add(Op::Last, &[carry]);
    graph.set_next(carry, last);
    assert!(graph.verify().expect_err("circular").contains("depends on itself"));
    assert!(Evaluation::new(&graph, &Bindings::default()).value(last, 0).is_err());
    graph.set_next(carry, carry);
    assert_eq!(graph.verify(), Ok(()));
    graph.set_output(Output::Report("loss".into()), carry);
    assert!(graph.verify().expect_err("an output inside").contains("inside a scope"));
    graph.set_output(Output::Report("loss".into()), last);
    let other = graph.add_scope("other", 2);
    let foreign = graph.add_carry(other, x, false);
    graph.set_next(foreign, foreign);
    let mixed = graph.plus(carry, foreign);
    assert!(graph.verify().expect_err("two scopes").contains("operands of different scopes"), "%{}", mixed.index());
}
