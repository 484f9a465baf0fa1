//! Every equation that saturation applies to the samples, checked by itself: on random tensors, forward and gradient, by
//! the reference interpreter; and every proof by egg's proof checker.

use super::{
    language::{SoftmaxSpec, Symbol, Term},
    mask::Mask,
    region::{Region, regions},
    samples::{self, Step, Style},
    saturate::{Equation, Limits, Value, saturate},
    tests::assert_equal,
    *,
};
use crate::graph::{Bindings, Graph, NodeId, Op, Output, TensorType, vjp};
use egg::{ENodeOrVar, Language, PatternAst, Rewrite, Var};
use std::collections::BTreeSet;
use trainc_kernels::ir::{Binary, ReduceKind, Unary};
use trainc_runtime::artifact::DType;

/// Graphs in which every rule applies, with what saturation of each region applied.
fn saturated() -> Vec<(Region, Vec<Equation>)> {
    let canonical = samples::all().into_iter().map(|(_, graph)| canonical::canonicalise(&graph, Precision::F32));
    let programs = samples::programs().into_iter().chain(samples::private_programs());
    let programs = programs.map(|(_, program)| program.step);
    let programs = programs.map(|graph| canonical::canonicalise(&graph, Precision::F32));
    let graphs = canonical.chain(programs).chain([loose_ends(), samples::viewed_gradients()]);
    let of_graph = |graph: Graph| {
        let live = graph.live();
        regions(&graph, &live).into_iter().map(|mut region| {
            let (_, equations) = saturate(&mut region.egraph, &Limits::default());
            (region, equations)
        })
    };
    graphs.flat_map(of_graph).collect()
}

/// Forms that canonicalisation removes before rules see them, but that rules leave for each other.
fn loose_ends() -> Graph {
    let mut step = Step::new();
    let x = step.input(0, TensorType::f32([2, 3, 4]));
    let w = step.input(1, TensorType::f32([5, 4]));
    let g = &mut step.graph;
    let turned = g.permute(x, &[2, 0, 1]);
    let turned = g.permute(turned, &[0, 2, 1]);
    let flat = g.reshape(x, &[6, 4]);
    let flat = g.reshape(flat, &[3, 8]);
    let product = g.contract(x, w, [&[0, 1, 2], &[3, 2], &[0, 1, 3]], Precision::F32);
    let product = g.permute(product, &[2, 0, 1]);
    let root = g.unary(Unary::Sqrt, x);
    let inverse = g.unary(Unary::Reciprocal, root);
    let ratio = g.over(x, root);
    let row = g.sum(x, &[2]);
    let row = g.broadcast(row, &[0, 1], &[2, 3, 4]);
    let share = g.over(x, row);
    let doubled = g.scale(x, 2.0);
    let doubled = g.scale(doubled, 3.0);
    for (i, node) in [turned, flat, product, inverse, ratio, share, doubled].into_iter().enumerate() {
        g.set_output(Output::Report(format!("{i}")), node);
    }
    step.graph
}

#[test]
fn every_rule_holds_on_random_tensors_forward_and_gradient() {
    let mut exercised = BTreeSet::new();
    for equation in saturated().into_iter().flat_map(|(_, equations)| equations) {
        exercised.insert(equation.rule);
        let graphs = [0, 1].map(|side| expanded(&equation, side));
        let bindings = positive(&samples::bindings(&graphs[0], 3));
        assert_equal(&graphs[0], &graphs[1], &bindings, 1e-9);
    }
    let all: BTreeSet<&str> = rules::all().map(|rule| rule.name).collect();
    assert_eq!(exercised, all, "rules that the samples exercise, and all rules");
}

/// Between 0.1 and 2: where roots, logarithms and quotients are smooth.
fn positive(bindings: &Bindings) -> Bindings {
    let mut positive = bindings.clone();
    let numbers = positive.inputs.values_mut().filter(|tensor| tensor.ty.dtype == DType::F32);
    numbers.for_each(|tensor| *tensor = tensor.map(|x| 1.05 + 0.95 * x));
    positive
}

/// One side of an equation as a graph over inputs, with its gradients where it has any.
fn expanded(equation: &Equation, side: usize) -> Graph {
    let mut graph = Graph::new(equation.name.clone());
    let variables: Vec<NodeId> =
        equation.values.iter().enumerate().map(|(i, value)| variable(&mut graph, i as u32, value)).collect();
    let nodes = build(&mut graph, &equation.sides[side], &variables);
    let root = *nodes.last().expect("a side is a term");
    graph.set_output(Output::Report("value".into()), root);
    let composite = |side: &PatternAst<Term>| side.iter().any(|node| node_kind(node).starts_with("attention"));
    if !equation.sides.iter().any(composite) {
        gradients(&mut graph, root, &variables);
    }
    graph
}

fn node_kind(node: &ENodeOrVar<Term>) -> &'static str {
    match node {
        ENodeOrVar::ENode(term) => term.symbol.kind(),
        ENodeOrVar::Var(_) => "",
    }
}

fn gradients(graph: &mut Graph, root: NodeId, variables: &[NodeId]) {
    let seed = graph.add(Op::Input { index: 1000, ty: graph.node(root).ty.clone() }, &[]);
    let is_number = |v: &NodeId| graph.node(*v).ty.dtype == DType::F32 && matches!(graph.node(*v).op, Op::Input { .. });
    let inputs: Vec<NodeId> = variables.iter().copied().filter(is_number).collect();
    let gradients = vjp(graph, &[(root, seed)], &inputs).expect("primitives have gradients");
    for (i, gradient) in gradients.into_iter().enumerate() {
        let gradient = gradient.unwrap_or_else(|| graph.full_like(0.0, inputs[i]));
        graph.set_output(Output::Report(format!("gradient {i}")), gradient);
    }
}

/// A variable: what is known of it, else an input.
fn variable(graph: &mut Graph, index: u32, value: &Value) -> NodeId {
    let ty = &value.types[0];
    match (&value.uniform, &value.mask) {
        (Some(uniform), _) => {
            let constant = graph.add(Op::Constant { value: (*uniform).into(), dtype: ty.dtype }, &[]);
            graph.broadcast(constant, &[], &ty.shape)
        }
        (None, Some(mask)) => mask_tensor(graph, mask, &ty.shape),
        _ => graph.add(Op::Input { index, ty: ty.clone() }, &[]),
    }
}

/// 1 where all borders are at most 0.
fn mask_tensor(graph: &mut Graph, mask: &Mask, shape: &[u64]) -> NodeId {
    let mut inside = graph.full(1.0, shape);
    for border in &mask.0 {
        let mut sum = graph.full(border.constant as f64, shape);
        for (&axis, &coefficient) in &border.coefficients {
            let index = graph.add(Op::Iota { axis, shape: shape.to_vec() }, &[]);
            let index = graph.add(Op::ToFloat, &[index]);
            let term = graph.scale(index, coefficient as f64);
            sum = graph.plus(sum, term);
        }
        let zero = graph.full(0.0, shape);
        let within = graph.binary(Binary::LessEqual, sum, zero);
        inside = graph.times(inside, within);
    }
    inside
}

/// Nodes for all terms of a pattern, helper terms by their definitions.
fn build(graph: &mut Graph, side: &PatternAst<Term>, variables: &[NodeId]) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = Vec::new();
    for node in side.iter() {
        let built = match node {
            ENodeOrVar::Var(name) => variables[number(*name)],
            ENodeOrVar::ENode(term) => {
                let operands: Vec<NodeId> = term.children().iter().map(|&child| nodes[usize::from(child)]).collect();
                define(graph, &term.symbol, &operands)
            }
        };
        nodes.push(built);
    }
    nodes
}

fn number(variable: Var) -> usize {
    variable.as_u32().expect("variables of equations are numbered") as usize
}

fn define(graph: &mut Graph, symbol: &Symbol, operands: &[NodeId]) -> NodeId {
    match symbol {
        Symbol::Op(op) => graph.add(op.clone(), operands),
        Symbol::Attention(spec) => graph.add(Op::Attention(*spec), operands),
        Symbol::AttentionBackward(spec) => graph.add(Op::AttentionBackward(*spec), operands),
        Symbol::Result(0) => operands[0],
        Symbol::Result(index) => graph.project(operands[0], *index),
        Symbol::Softmax(spec) => softmax(graph, spec, operands[0]),
        Symbol::SoftmaxGradient(axes) => softmax_gradient(graph, axes, operands[0], operands[1]),
        Symbol::Leaf(_) => panic!("equations have no leaves"),
    }
}

fn softmax(graph: &mut Graph, spec: &SoftmaxSpec, x: NodeId) -> NodeId {
    let shape = graph.shape(x).to_vec();
    let scaled = graph.scale(x, spec.scale.get());
    let mask = mask_tensor(graph, &spec.mask, &shape);
    let low = graph.full(f64::NEG_INFINITY, &shape);
    let seen = graph.select(mask, scaled, low);
    let highest = graph.reduce(ReduceKind::Max, seen, &spec.axes);
    let highest = graph.add(Op::StopGradient, &[highest]);
    let highest = graph.broadcast_along(highest, &spec.axes, &shape);
    let difference = graph.minus(seen, highest);
    let e = graph.unary(Unary::Exp, difference);
    let total = graph.sum(e, &spec.axes);
    let total = graph.broadcast_along(total, &spec.axes, &shape);
    graph.over(e, total)
}

fn softmax_gradient(graph: &mut Graph, axes: &[usize], p: NodeId, d_p: NodeId) -> NodeId {
    let shape = graph.shape(p).to_vec();
    let product = graph.times(p, d_p);
    let total = graph.sum(product, axes);
    let total = graph.broadcast_along(total, axes, &shape);
    let difference = graph.minus(d_p, total);
    graph.times(p, difference)
}

#[test]
fn proofs_pass_the_proof_checker() {
    let graph = canonical::canonicalise(&samples::attention_alone(Style::CAUSAL), Precision::F32);
    let live = graph.live();
    for mut region in regions(&graph, &live) {
        let (_, equations) = saturate(&mut region.egraph, &Limits::default());
        let checked: Vec<Rewrite<Term, language::Types>> = equations.iter().filter_map(as_rewrite).collect();
        let roots = region.roots();
        let extraction = extract::extract(&region.egraph, &cost::Machine::CPU, &region.source(), &roots);
        for root in roots {
            let target = explain::target(&mut region.egraph, &extraction.terms, root, &mut Default::default());
            region.egraph.explain_id_equivalence(root, target).check_proof(&checked);
        }
        assert!(equations.iter().any(|equation| equation.rule == "attention"));
    }
}

/// An equation as a rewrite of egg, whose checker needs all variables bound by the left side. (The gradient of values does
/// not depend on the values, so its equation is free in them.)
fn as_rewrite(equation: &Equation) -> Option<Rewrite<Term, language::Types>> {
    let [left, right] = equation.sides.clone().map(egg::Pattern::new);
    Rewrite::new(equation.name.as_str(), left, right).ok()
}
