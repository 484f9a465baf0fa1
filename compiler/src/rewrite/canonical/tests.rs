//! Canonical forms, by their text. That they keep the meaning is tested on random graphs with the interpreter.

use super::*;
use trainc_kernels::ir::{ReduceKind, Unary};

fn input(graph: &mut Graph, index: u32, shape: &[u64]) -> NodeId {
    graph.add(Op::Input { index, ty: TensorType::f32(shape) }, &[])
}

/// The canonical form of an expression as nested text.
fn canonical(build: impl FnOnce(&mut Graph) -> NodeId) -> String {
    let mut graph = Graph::new("test");
    let root = build(&mut graph);
    graph.set_output(Output::Report("y".into()), root);
    let canonical = canonicalise(&graph, Precision::F32);
    text(&canonical, canonical.outputs()[0].1)
}

fn text(graph: &Graph, node: NodeId) -> String {
    let operands: Vec<String> = graph.operands(node).iter().map(|x| text(graph, *x)).collect();
    let head = match &graph.node(node).op {
        Op::Input { index, .. } => return format!("x{index}"),
        Op::Constant { value, .. } => return format!("{}", value.get()),
        Op::Unary(f) => format!("{f:?}").to_lowercase(),
        Op::Binary(f) => format!("{f:?}").to_lowercase(),
        Op::Broadcast { axes, shape } => format!("broadcast{axes:?}{shape:?}"),
        Op::Permute { axes } => format!("permute{axes:?}"),
        Op::Reshape { shape } => format!("reshape{shape:?}"),
        Op::Slice { axis, start, length } => format!("slice{axis}[{start}+{length}]"),
        Op::Concat { axis } => format!("concat{axis}"),
        Op::Reduce { kind, axes } => format!("{kind:?}{axes:?}").to_lowercase(),
        Op::Contract(c) => format!("contract{:?}{:?}{:?}", c.lhs, c.rhs, c.out),
        other => format!("{other:?}"),
    };
    format!("{head}({})", operands.join(" ")).replace(", ", ",")
}

#[test]
fn chains_of_shape_operations_become_one() {
    let twice = canonical(|g| {
        let x = input(g, 0, &[2, 3, 4]);
        let x = g.permute(x, &[2, 0, 1]);
        g.permute(x, &[0, 2, 1])
    });
    assert_eq!(twice, "permute[2,1,0](x0)");
    let back = canonical(|g| {
        let x = input(g, 0, &[2, 3, 4]);
        let x = g.reshape(x, &[6, 4]);
        g.reshape(x, &[2, 3, 4])
    });
    assert_eq!(back, "x0");
    let units = canonical(|g| {
        let x = input(g, 0, &[2, 3]);
        let x = g.reshape(x, &[2, 1, 3]);
        g.broadcast(x, &[0, 1, 2], &[2, 1, 3, 4])
    });
    assert_eq!(units, "broadcast[0,2][2,1,3,4](x0)");
    let below = canonical(|g| {
        let x = input(g, 0, &[2, 3]);
        let x = g.broadcast(x, &[0, 2], &[2, 5, 3]);
        g.permute(x, &[2, 1, 0])
    });
    assert_eq!(below, "broadcast[0,2][3,5,2](permute[1,0](x0))");
}

#[test]
fn arithmetic_with_constants_is_done_once() {
    let scaled = canonical(|g| {
        let x = input(g, 0, &[2, 3]);
        let x = g.scale(x, 2.0);
        let four = g.full_like(4.0, x);
        let x = g.over(x, four);
        let zero = g.full_like(0.0, x);
        g.plus(zero, x)
    });
    assert_eq!(scaled, "mul(x0 broadcast[][2,3](0.5))");
    let power = |exponent: f64| {
        canonical(|g| {
            let x = input(g, 0, &[2]);
            let exponent = g.full_like(exponent, x);
            g.binary(Binary::Pow, x, exponent)
        })
    };
    assert_eq!(power(3.0), "mul(mul(x0 x0) x0)");
    assert_eq!(power(4.0), "mul(mul(x0 x0) mul(x0 x0))");
    assert_eq!(power(5.0), "mul(mul(mul(mul(x0 x0) x0) x0) x0)");
    let signs = canonical(|g| {
        let (x, y) = (input(g, 0, &[2]), input(g, 1, &[2]));
        let minus = g.unary(Unary::Neg, x);
        let product = g.times(minus, y);
        g.plus(y, product)
    });
    assert_eq!(signs, "sub(x1 mul(x0 x1))");
}

#[test]
fn sums_of_products_become_contractions_that_absorb_permutations() {
    let product = canonical(|g| {
        let (x, y) = (input(g, 0, &[2, 3]), input(g, 1, &[4, 3]));
        let x = g.broadcast(x, &[0, 2], &[2, 4, 3]);
        let y = g.broadcast(y, &[1, 2], &[2, 4, 3]);
        let product = g.times(x, y);
        g.sum(product, &[2])
    });
    assert_eq!(product, "contract[0,2][1,2][0,1](x0 x1)");
    let permuted = canonical(|g| {
        let (x, y) = (input(g, 0, &[2, 3]), input(g, 1, &[4, 3]));
        let y = g.permute(y, &[1, 0]);
        g.contract(x, y, [&[0, 1], &[1, 2], &[0, 2]], Precision::F32)
    });
    assert_eq!(permuted, "contract[0,1][2,1][0,2](x0 x1)");
    let dot = canonical(|g| {
        let (x, y) = (input(g, 0, &[2, 3]), input(g, 1, &[2, 3]));
        g.contract(x, y, [&[0, 1], &[0, 1], &[0]], Precision::F32)
    });
    assert_eq!(dot, "sum[1](mul(x0 x1))");
}

#[test]
fn a_constant_factor_leaves_sums_and_contractions() {
    let mean = canonical(|g| {
        let x = input(g, 0, &[2, 3]);
        let y = g.scale(x, 2.0);
        g.reduce(ReduceKind::Sum, y, &[1])
    });
    assert_eq!(mean, "mul(sum[1](x0) broadcast[][2](2))");
    let scores = canonical(|g| {
        let (x, y) = (input(g, 0, &[2, 3]), input(g, 1, &[4, 3]));
        let x = g.scale(x, 0.5);
        g.contract(x, y, [&[0, 1], &[2, 1], &[0, 2]], Precision::F32)
    });
    assert_eq!(scores, "mul(contract[0,1][2,1][0,2](x0 x1) broadcast[][2,4](0.5))");
}

#[test]
fn gradients_of_slices_become_a_concatenation() {
    let joined = canonical(|g| {
        let parts = [input(g, 0, &[1, 4]), input(g, 1, &[1, 4]), input(g, 2, &[1, 4])];
        let pad = |g: &mut Graph, i: u64| g.add(Op::Pad { axis: 0, before: i, after: 2 - i }, &[parts[i as usize]]);
        let (last, middle) = (pad(g, 2), pad(g, 1));
        let sum = g.plus(last, middle);
        let first = pad(g, 0);
        g.plus(sum, first)
    });
    assert_eq!(joined, "concat0(x0 x1 x2)");
}

#[test]
fn equal_expressions_and_dead_ones_are_not_computed() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, 0, &[2]);
    let y = input(&mut graph, 1, &[2]);
    let sums = [graph.plus(x, y), graph.plus(y, x)];
    let product = graph.times(sums[0], sums[1]);
    let unused = graph.unary(Unary::Exp, product);
    graph.unary(Unary::Log, unused);
    graph.set_output(Output::Report("y".into()), product);
    assert_eq!(canonicalise(&graph, Precision::F32).len(), 4);
}

#[test]
fn what_does_not_change_between_instances_leaves_the_repeat() {
    let mut graph = Graph::new("test");
    let x = input(&mut graph, 0, &[2]);
    let scope = graph.add_scope("block", 5);
    let dead = graph.add_carry(scope, x, false);
    let carry = graph.add_carry(scope, x, false);
    let constant = graph.add_carry(scope, x, false);
    let sum = graph.plus(carry, constant);
    let zero = graph.full_like(0.0, carry);
    let nothing = graph.times(carry, zero);
    for (carry, next) in [(dead, dead), (carry, sum), (constant, constant)] {
        graph.set_next(carry, next);
    }
    let outputs =
        [graph.add(Op::Last, &[carry]), graph.add(Op::SumInstances, &[nothing]), graph.add(Op::Last, &[constant])];
    for (i, node) in outputs.into_iter().enumerate() {
        graph.set_output(Output::Report(format!("{i}")), node);
    }
    let canonical = canonicalise(&graph, Precision::F32);
    let texts: Vec<String> = canonical.outputs().iter().map(|&(_, node)| text(&canonical, node)).collect();
    assert_eq!(canonical.scope(scope).carries.len(), 1);
    assert_eq!(texts[1..], ["broadcast[][2](0)", "x0"]);
}
