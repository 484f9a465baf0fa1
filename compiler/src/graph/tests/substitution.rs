//! Substitution: the copy computes what the original computes on other values.

use super::{repeats::cases, *};
use trainc_kernels::ir::{Generator, Unary};

/// `p + 0.3 sin(p)` for each parameter: a point that depends on what it replaces.
fn points(graph: &mut Graph, parameters: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let mut pairs = Vec::new();
    for &parameter in parameters {
        let sine = graph.unary(Unary::Sin, parameter);
        let shift = graph.scale(sine, 0.3);
        pairs.push((parameter, graph.plus(parameter, shift)));
    }
    pairs
}

/// The value of a node when the parameters are bound to the values that these nodes have now.
fn moved_value(problem: &Problem, node: NodeId, pairs: &[(NodeId, NodeId)]) -> Tensor {
    let mut bindings = problem.bindings.clone();
    for &(parameter, point) in pairs {
        let Op::Parameter { index, .. } = problem.graph.node(parameter).op else {
            panic!("pairs begin with parameters")
        };
        bindings.parameters.insert(index, value(&problem.graph, &problem.bindings, point));
    }
    value(&problem.graph, &bindings, node)
}

/// Loss and gradients of the copy are those of the original where the replacements are, also next to the original's.
fn check(name: &str, mut problem: Problem) {
    let pairs = points(&mut problem.graph, &problem.parameters);
    let expected: Vec<Tensor> = {
        let mut original = Problem { graph: problem.graph.clone(), ..problem };
        let gradients =
            differentiate(&mut original.graph, original.loss, &original.parameters).expect("differentiable");
        let nodes: Vec<NodeId> = gradients.into_iter().flatten().chain([original.loss]).collect();
        let values = nodes.iter().map(|&node| moved_value(&original, node, &pairs)).collect();
        problem = Problem { graph: problem.graph, ..original };
        values
    };
    let loss = substitute(&mut problem.graph, &pairs, &[problem.loss]).of(problem.loss);
    assert_ne!(loss, problem.loss, "{name}: the loss depends on the parameters");
    let moved: Vec<NodeId> = pairs.iter().map(|&(_, point)| point).collect();
    let there = differentiate(&mut problem.graph, loss, &moved).expect("differentiable");
    differentiate(&mut problem.graph, problem.loss, &problem.parameters).expect("differentiable");
    problem.graph.verify().unwrap_or_else(|error| panic!("{name}: {error}"));
    let found: Vec<Tensor> =
        there.into_iter().flatten().chain([loss]).map(|node| value(&problem.graph, &problem.bindings, node)).collect();
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(distance(&found.data, &expected.data) < 1e-12, "{name}: {found:?}, by the original {expected:?}");
    }
}

#[test]
fn repeats_of_every_kind_are_computed_at_another_point() {
    for (name, build) in cases() {
        check(name, problem(&[&[2], &[4, 2], &[2]], build));
    }
}

#[test]
fn random_graphs_are_computed_at_another_point() {
    let mut checked = 0;
    for seed in 0..100 {
        let arbitrary::Sample { graph, bindings, parameters, loss } = arbitrary::sample(seed, 8);
        let depends = {
            let mut graph = graph.clone();
            differentiate(&mut graph, loss, &parameters).expect("differentiable").iter().any(Option::is_some)
        };
        if depends {
            check(&format!("seed {seed}"), Problem { graph, bindings, parameters, loss });
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} graphs depend on their parameters");
}

/// A repeat whose instances drop values at random.
fn with_dropout(graph: &mut Graph, p: &[NodeId]) -> NodeId {
    let scope = graph.add_scope("block", 4);
    let carry = graph.add_carry(scope, p[0], false);
    let layer = graph.add(Op::Layer { scope }, &[p[1]]);
    let mask = graph.add(Op::Random { generator: Generator::Philox, stream: 17, shape: vec![2], scope }, &[]);
    let product = graph.times(layer, mask);
    let sum = graph.plus(carry, product);
    let next = graph.unary(Unary::Tanh, sum);
    graph.set_next(carry, next);
    graph.add(Op::Last, &[carry])
}

#[test]
fn both_points_see_the_same_draws_in_the_same_scope() {
    let build = || problem(&[&[2], &[4, 2]], with_dropout);
    check("dropout", build());
    let mut problem = build();
    let pairs = points(&mut problem.graph, &problem.parameters);
    substitute(&mut problem.graph, &pairs, &[problem.loss]);
    let draws = |graph: &Graph| graph.ids().filter(|&n| matches!(graph.node(n).op, Op::Random { .. })).count();
    assert_eq!(draws(&problem.graph), 2, "the mask and the weights of the loss, each once");
    let (_, block) = problem.graph.scopes().nth(1).expect("the repeat");
    assert_eq!((problem.graph.scopes().count(), block.carries.len()), (2, 2), "two carries in one scope");
}

#[test]
fn what_does_not_depend_on_a_replaced_node_is_shared() {
    let mut graph = Graph::new("test");
    let [a, b] = [0, 1].map(|index| graph.add(Op::Parameter { index, shape: vec![2] }, &[]));
    let shared = graph.unary(Unary::Sin, b);
    let product = graph.times(a, shared);
    let unwanted = graph.unary(Unary::Cos, product);
    let two = graph.full_like(2.0, a);
    let before = graph.len();
    let places = substitute(&mut graph, &[(a, two)], &[product]);
    assert_eq!((places.of(a), places.of(shared), places.of(unwanted)), (two, shared, unwanted));
    assert_eq!(graph.operands(places.of(product)), [two, shared]);
    assert_eq!(graph.len(), before + 1, "one copy");
}
