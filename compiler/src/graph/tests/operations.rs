//! Each operation against numbers made by hand, its gradient against differences, its errors in words.

use super::*;
use trainc_kernels::ir::{Binary, Generator, Precision, ReduceKind, Unary};

/// The value of an operation on bound operands.
fn apply(op: Op, operands: &[Tensor]) -> Tensor {
    let mut graph = Graph::new("test");
    let mut bindings = Bindings { step: 3, steps: 10, seed: 5, ..Bindings::default() };
    let mut nodes = Vec::new();
    for (index, operand) in (0..).zip(operands) {
        nodes.push(graph.add(Op::Input { index, ty: operand.ty.clone() }, &[]));
        bindings.inputs.insert(index, operand.clone());
    }
    let node = graph.try_add(op, &nodes, None).expect("well-typed");
    graph.verify().expect("a graph of one operation");
    value(&graph, &bindings, node)
}

fn f32(shape: &[u64], data: &[f64]) -> Tensor {
    Tensor::f32(shape, data.to_vec())
}

/// 0, 1, 2, ...
fn count(shape: &[u64]) -> Tensor {
    let ty = TensorType::f32(shape);
    let data = (0..ty.elements()).map(|i| i as f64).collect();
    Tensor::new(ty, data)
}

fn contraction(lhs: &[u8], rhs: &[u8], out: &[u8], precision: Precision) -> Op {
    Op::Contract(Contraction { lhs: lhs.to_vec(), rhs: rhs.to_vec(), out: out.to_vec(), precision })
}

#[test]
fn leaves_have_the_bound_values() {
    assert_eq!(apply(Op::constant(2.5), &[]), f32(&[], &[2.5]));
    assert_eq!(apply(Op::Iota { axis: 1, shape: vec![2, 3] }, &[]), Tensor::i32(&[2, 3], &[0, 1, 2, 0, 1, 2]));
    assert_eq!(apply(Op::Control(ControlField::Step), &[]), Tensor::i32(&[], &[3]));
    assert_eq!(apply(Op::Control(ControlField::Steps), &[]), Tensor::i32(&[], &[10]));
    let draws =
        apply(Op::Random { generator: Generator::Philox, stream: 4, shape: vec![5], scope: ScopeId::ROOT }, &[]);
    let draw = trainc_runtime::philox::Draw { seed: 5, stream: 4, step: 3, instance: 0 };
    assert_eq!(draws.data[4], f64::from(draw.uniform(4)));
}

#[test]
fn functions_of_elements_are_those_of_the_reference() {
    let (a, b) = (f32(&[3], &[-1.0, 2.0, 0.5]), f32(&[3], &[2.0, 2.0, -3.0]));
    let pairs = [
        (Binary::Add, [1.0, 4.0, -2.5]),
        (Binary::Sub, [-3.0, 0.0, 3.5]),
        (Binary::Max, [2.0, 2.0, 0.5]),
        (Binary::Less, [1.0, 0.0, 0.0]),
        (Binary::LessEqual, [1.0, 1.0, 0.0]),
        (Binary::Equal, [0.0, 1.0, 0.0]),
    ];
    for (function, expected) in pairs {
        assert_eq!(apply(Op::Binary(function), &[a.clone(), b.clone()]), f32(&[3], &expected), "{function:?}");
    }
    assert_eq!(apply(Op::Unary(Unary::Abs), std::slice::from_ref(&a)), f32(&[3], &[1.0, 2.0, 0.5]));
    assert_eq!(apply(Op::Select, &[f32(&[3], &[0.0, 1.0, -1.0]), a.clone(), b]), f32(&[3], &[2.0, 2.0, 0.5]));
    assert_eq!(apply(Op::ToInteger, &[f32(&[3], &[-1.7, 2.9, 1e20])]), Tensor::i32(&[3], &[-1, 2, i32::MAX]));
    assert_eq!(apply(Op::ToFloat, &[Tensor::i32(&[1], &[7])]), f32(&[1], &[7.0]));
    assert_eq!(apply(Op::StopGradient, std::slice::from_ref(&a)), a);
    let wrapped = apply(Op::Binary(Binary::Mul), &[Tensor::i32(&[1], &[i32::MAX]), Tensor::i32(&[1], &[i32::MAX])]);
    assert_eq!(wrapped, Tensor::i32(&[1], &[1]));
}

#[test]
fn movements_place_elements() {
    let x = count(&[2, 3]);
    let broadcast = apply(Op::Broadcast { axes: vec![0, 2], shape: vec![2, 2, 3] }, std::slice::from_ref(&x));
    assert_eq!(broadcast.data, [0., 1., 2., 0., 1., 2., 3., 4., 5., 3., 4., 5.]);
    assert_eq!(apply(Op::Reshape { shape: vec![3, 2] }, std::slice::from_ref(&x)), count(&[3, 2]));
    assert_eq!(
        apply(Op::Permute { axes: vec![1, 0] }, std::slice::from_ref(&x)),
        f32(&[3, 2], &[0., 3., 1., 4., 2., 5.])
    );
    assert_eq!(
        apply(Op::Slice { axis: 1, start: 1, length: 2 }, std::slice::from_ref(&x)),
        f32(&[2, 2], &[1., 2., 4., 5.])
    );
    let padded = apply(Op::Pad { axis: 1, before: 1, after: 0 }, std::slice::from_ref(&x));
    assert_eq!(padded, f32(&[2, 4], &[0., 0., 1., 2., 0., 3., 4., 5.]));
    let joined = apply(Op::Concat { axis: 1 }, &[f32(&[2, 1], &[8., 9.]), x.clone()]);
    assert_eq!(joined, f32(&[2, 4], &[8., 0., 1., 2., 9., 3., 4., 5.]));
    let windows = apply(Op::Window { axis: 0, size: 2, stride: 1 }, &[count(&[4])]);
    assert_eq!(windows, f32(&[3, 2], &[0., 1., 1., 2., 2., 3.]));
    let unwindowed = apply(Op::Unwindow { axis: 0, stride: 1, extent: 4 }, &[windows]);
    assert_eq!(unwindowed, f32(&[4], &[0., 2., 4., 3.]));
    let ids = Tensor::i32(&[3], &[1, 0, 1]);
    let gathered = apply(Op::Gather, &[x, ids.clone()]);
    assert_eq!(gathered, f32(&[3, 3], &[3., 4., 5., 0., 1., 2., 3., 4., 5.]));
    let scattered = apply(Op::Scatter { rows: 3 }, &[ids, gathered]);
    assert_eq!(scattered, f32(&[3, 3], &[0., 1., 2., 6., 8., 10., 0., 0., 0.]));
}

#[test]
fn reductions_and_contractions_sum_over_what_vanishes() {
    let x = f32(&[2, 3], &[1., 7., 2., 7., 0., 7.]);
    let reduce = |kind, axes: &[usize]| apply(Op::Reduce { kind, axes: axes.to_vec() }, std::slice::from_ref(&x));
    assert_eq!(reduce(ReduceKind::Sum, &[1]), f32(&[2], &[10., 14.]));
    assert_eq!(reduce(ReduceKind::Max, &[0]), f32(&[3], &[7., 7., 7.]));
    assert_eq!(reduce(ReduceKind::ArgMax, &[1]), Tensor::i32(&[2], &[1, 0]));
    assert_eq!(reduce(ReduceKind::ArgMax, &[0, 1]), Tensor::i32(&[], &[1]));
    let (a, b) = (count(&[2, 3]), count(&[3, 2]));
    let product = apply(contraction(&[0, 1], &[1, 2], &[2, 0], Precision::F32), &[a, b]);
    assert_eq!(product, f32(&[2, 2], &[10., 28., 13., 40.]), "the transposed product");
    let rounded = apply(contraction(&[], &[0], &[0], Precision::Bf16), &[f32(&[], &[1.00390625]), f32(&[1], &[2.0])]);
    assert_eq!(rounded, f32(&[1], &[2.0]), "1 + 2^-8 is a tie in bfloat16, and goes to even");
    let tie = 1.0 + 2.0f64.powi(-11);
    let rounded = apply(contraction(&[], &[0], &[0], Precision::Tf32), &[f32(&[], &[tie]), f32(&[1], &[-tie])]);
    let away = 1.0 + 2.0f64.powi(-10);
    assert_eq!(rounded, f32(&[1], &[-away * away]), "ties in tf32 go away from zero");
}

/// Builds a value from parameters.
type Case = (&'static str, Vec<&'static [u64]>, Box<dyn Fn(&mut Graph, &[NodeId]) -> NodeId>);

fn case(
    name: &'static str,
    shapes: &[&'static [u64]],
    build: impl Fn(&mut Graph, &[NodeId]) -> NodeId + 'static,
) -> Case {
    (name, shapes.to_vec(), Box::new(build))
}

fn ids(graph: &mut Graph) -> NodeId {
    let index = graph.add(Op::Iota { axis: 0, shape: vec![4] }, &[]);
    let bound = graph.full_like(2.0, index);
    graph.binary(Binary::Min, index, bound)
}

fn cases() -> Vec<Case> {
    let reduce = |kind, axes: &'static [usize]| move |g: &mut Graph, p: &[NodeId]| g.reduce(kind, p[0], axes);
    let op = |op: Op| move |g: &mut Graph, p: &[NodeId]| g.add(op.clone(), p);
    vec![
        case("select", &[&[4], &[4], &[4]], |g, p| {
            let condition = g.binary(Binary::Less, p[0], p[1]);
            g.select(condition, p[1], p[2])
        }),
        case("constant power", &[&[3]], |g, p| {
            let (shift, two) = (g.full_like(2.0, p[0]), g.full_like(2.0, p[0]));
            let base = g.plus(p[0], shift);
            g.binary(Binary::Pow, base, two)
        }),
        case("broadcast", &[&[2, 3]], op(Op::Broadcast { axes: vec![1, 2], shape: vec![4, 2, 3] })),
        case("reshape", &[&[2, 3]], op(Op::Reshape { shape: vec![6] })),
        case("permute", &[&[2, 3, 4]], op(Op::Permute { axes: vec![2, 0, 1] })),
        case("slice", &[&[2, 5]], op(Op::Slice { axis: 1, start: 1, length: 3 })),
        case("pad", &[&[2, 5]], op(Op::Pad { axis: 0, before: 1, after: 2 })),
        case("concat", &[&[2, 5], &[2, 1], &[2, 2]], op(Op::Concat { axis: 1 })),
        case("window", &[&[2, 7]], op(Op::Window { axis: 1, size: 3, stride: 2 })),
        case("window with a rest", &[&[8]], op(Op::Window { axis: 0, size: 3, stride: 2 })),
        case("unwindow", &[&[3, 3, 2]], op(Op::Unwindow { axis: 0, stride: 2, extent: 8 })),
        case("gather", &[&[3, 2]], |g, p| {
            let ids = ids(g);
            g.add(Op::Gather, &[p[0], ids])
        }),
        case("scatter", &[&[4, 2]], |g, p| {
            let ids = ids(g);
            g.add(Op::Scatter { rows: 3 }, &[ids, p[0]])
        }),
        case("sum", &[&[2, 3, 2]], reduce(ReduceKind::Sum, &[0, 2])),
        case("max", &[&[2, 3, 4]], reduce(ReduceKind::Max, &[1])),
        case("max over two axes", &[&[2, 3, 4]], reduce(ReduceKind::Max, &[0, 2])),
        case("matrix product", &[&[2, 3], &[3, 4]], op(contraction(&[0, 1], &[1, 2], &[0, 2], Precision::F32))),
        case("batched", &[&[5, 2, 3], &[4, 5, 3]], op(contraction(&[7, 1, 2], &[3, 7, 2], &[3, 7, 1], Precision::F32))),
        case("outer product", &[&[2], &[3]], op(contraction(&[0], &[1], &[1, 0], Precision::F32))),
        case("inner product", &[&[2, 3], &[3, 2]], op(contraction(&[0, 1], &[1, 0], &[], Precision::F32))),
        case("squared", &[&[3]], |g, p| g.times(p[0], p[0])),
    ]
}

#[test]
fn the_gradient_of_each_operation_agrees_with_differences() {
    for (name, shapes, build) in cases() {
        check_gradients(name, problem(&shapes, build));
    }
    use Unary::*;
    for function in [Neg, Abs, Exp, Log, Sqrt, Rsqrt, Reciprocal, Tanh, Sigmoid, Softplus, Sin, Cos, Sign, Floor, Erf] {
        let build = |g: &mut Graph, p: &[NodeId]| {
            let two = g.full_like(2.0, p[0]);
            let x = g.plus(p[0], two);
            g.unary(function, x)
        };
        check_gradients(&format!("{function:?}"), problem(&[&[7]], build));
    }
    for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min, Binary::Pow] {
        let build = |g: &mut Graph, p: &[NodeId]| {
            let two = g.full_like(2.0, p[0]);
            let (a, b) = (g.plus(p[0], two), g.plus(p[1], two));
            g.binary(function, a, b)
        };
        check_gradients(&format!("{function:?}"), problem(&[&[7], &[7]], build));
    }
}

#[test]
fn no_gradient_flows_through_what_is_constant_between_jumps() {
    let stops: [fn(&mut Graph, NodeId) -> NodeId; 5] = [
        |g, x| g.add(Op::StopGradient, &[x]),
        |g, x| g.unary(Unary::Floor, x),
        |g, x| g.binary(Binary::Less, x, x),
        |g, x| {
            let integer = g.add(Op::ToInteger, &[x]);
            g.add(Op::ToFloat, &[integer])
        },
        |g, x| {
            let position = g.reduce(ReduceKind::ArgMax, x, &[0]);
            g.add(Op::ToFloat, &[position])
        },
    ];
    for stop in stops {
        let Problem { mut graph, parameters, loss, .. } = problem(&[&[3]], |g, p| stop(g, p[0]));
        let before = graph.len();
        assert_eq!(differentiate(&mut graph, loss, &parameters), Ok(vec![None]));
        assert_eq!(graph.len(), before + 1, "nothing but the seed is built");
    }
}

#[test]
fn the_gradient_at_kinks_is_that_of_one_side() {
    let at = |build: fn(&mut Graph, NodeId) -> NodeId, x: &[f64]| {
        let mut graph = Graph::new("test");
        let parameter = graph.add(Op::Parameter { index: 0, shape: vec![x.len() as u64] }, &[]);
        let y = build(&mut graph, parameter);
        let loss = graph.sum_all(y);
        let gradient = differentiate(&mut graph, loss, &[parameter]).expect("differentiable")[0].expect("a path");
        let parameters = [(0, f32(&[x.len() as u64], x))].into();
        value(&graph, &Bindings { parameters, ..Bindings::default() }, gradient).data
    };
    let relu = |g: &mut Graph, x| {
        let zero = g.full_like(0.0, x);
        g.binary(Binary::Max, x, zero)
    };
    assert_eq!(at(relu, &[-1.0, 0.0, 2.0]), [0.0, 0.0, 1.0]);
    assert_eq!(at(|g, x| g.reduce(ReduceKind::Max, x, &[0]), &[1.0, 3.0, 3.0]), [0.0, 1.0, 0.0]);
    assert_eq!(at(|g, x| g.unary(Unary::Abs, x), &[-2.0, 0.0]), [-1.0, 0.0]);
    let square = |g: &mut Graph, x| {
        let two = g.full_like(2.0, x);
        g.binary(Binary::Pow, x, two)
    };
    assert_eq!(at(square, &[0.0, 3.0]), [0.0, 6.0]);
    let above = |g: &mut Graph, x| {
        let one = g.full_like(1.0, x);
        g.binary(Binary::Max, one, x)
    };
    assert_eq!(at(above, &[0.0, 1.0, 2.0]), [0.0, 0.0, 1.0], "on whichever side the constant stands");
}

/// `max(x, y) = (x + y + |x - y|) / 2` and `min(x, y) = x + y - max(x, y)`, as values and as gradients, where x is y and elsewhere.
#[test]
fn equal_operands_of_max_and_min_share_the_gradient() {
    let gradients = |function: fn(&mut Graph, NodeId, NodeId) -> NodeId| {
        let mut graph = Graph::new("test");
        let [x, y] = [0, 1].map(|index| graph.add(Op::Parameter { index, shape: vec![3] }, &[]));
        let result = function(&mut graph, x, y);
        let loss = graph.sum_all(result);
        let by = differentiate(&mut graph, loss, &[x, y]).expect("differentiable");
        let parameters = [(0, f32(&[3], &[1.0, 2.0, 3.0])), (1, f32(&[3], &[2.0, 2.0, 2.0]))].into();
        let bindings = Bindings { parameters, ..Bindings::default() };
        [0, 1].map(|i: usize| value(&graph, &bindings, by[i].expect("a path")).data)
    };
    let by_magnitude = |g: &mut Graph, x, y| {
        let (sum, difference) = (g.plus(x, y), g.minus(x, y));
        let distance = g.unary(Unary::Abs, difference);
        let twice = g.plus(sum, distance);
        g.scale(twice, 0.5)
    };
    let expected = [vec![0.0, 0.5, 1.0], vec![1.0, 0.5, 0.0]];
    assert_eq!(gradients(by_magnitude), expected);
    assert_eq!(gradients(|g, x, y| g.binary(Binary::Max, x, y)), expected);
    let [by_x, by_y] = gradients(|g, x, y| g.binary(Binary::Min, x, y));
    assert_eq!([by_y, by_x], expected);
}

/// The square of 1e200 is infinite, and the tangent's gradient there 0.
#[test]
fn a_power_passes_nothing_on_where_it_is_given_nothing() {
    let mut graph = Graph::new("test");
    let x = graph.add(Op::Parameter { index: 0, shape: vec![2] }, &[]);
    let three = graph.full_like(3.0, x);
    let cube = graph.binary(Binary::Pow, x, three);
    let bounded = graph.unary(Unary::Tanh, cube);
    let loss = graph.sum_all(bounded);
    let gradient = differentiate(&mut graph, loss, &[x]).expect("differentiable")[0].expect("a path");
    let parameters = [(0, f32(&[2], &[1e200, -1e200]))].into();
    assert_eq!(value(&graph, &Bindings { parameters, ..Bindings::default() }, gradient).data, [0.0, 0.0]);
}

#[test]
fn errors_say_what_was_given_and_what_is_needed() {
    let (a, b, i) = (TensorType::f32([2, 3]), TensorType::f32([3, 2]), TensorType::i32([2, 3]));
    let refused = |op: Op, operands: &[&TensorType]| op.infer(operands).expect_err("ill-typed").0;
    let add = Op::Binary(Binary::Add);
    assert_eq!(
        refused(add.clone(), &[&a, &b]),
        "+ needs two values of one type, and these are f32[2, 3] and f32[3, 2]"
    );
    assert_eq!(refused(add, &[&a]), "+ takes 2 operands");
    assert_eq!(refused(Op::Unary(Unary::Exp), &[&i]), "exp needs f32, and this is i32[2, 3]");
    assert_eq!(refused(Op::Reshape { shape: vec![4] }, &[&a]), "reshape of f32[2, 3] (6 elements) to [4] (4)");
    assert_eq!(
        refused(Op::Slice { axis: 2, start: 0, length: 1 }, &[&a]),
        "slice along axis 2, but f32[2, 3] has 2 axes"
    );
    let slice = Op::Slice { axis: 0, start: u64::MAX, length: 2 };
    assert_eq!(refused(slice, &[&a]), format!("slice of 2 from {} along axis 0 of f32[2, 3], which has 2", u64::MAX));
    let product = contraction(&[0, 1], &[1, 2], &[0, 2], Precision::F32);
    assert_eq!(refused(product, &[&a, &a]), "contraction: label 1 has extents 3 and 2");
    let huge = Op::Broadcast { axes: vec![], shape: vec![1 << 20, 1 << 20] };
    assert_eq!(
        refused(huge, &[&TensorType::f32([])]),
        "f32[1048576, 1048576] is too large: a tensor has fewer than 2^40 elements"
    );
    let overflow = Op::Parameter { index: 0, shape: vec![u64::MAX, 3] };
    assert!(refused(overflow, &[]).contains("too large"));
    assert!(refused(Op::Pad { axis: 0, before: u64::MAX, after: 1 }, &[&a]).contains("too large"));
    assert_eq!(refused(Op::Iota { axis: 0, shape: vec![0] }, &[]), "i32[0] has an axis without elements");
}

/// softmax(mask(scale q k^T)) v in primitive operations, one key head for each two query heads.
fn attention_by_definition(graph: &mut Graph, p: &[NodeId], scale: f64) -> NodeId {
    let q = graph.reshape(p[0], &[2, 2, 2, 4, 3]);
    let scores = graph.contract(q, p[1], [&[0, 1, 2, 3, 5], &[0, 1, 4, 5], &[0, 1, 2, 3, 4]], Precision::F32);
    let scores = graph.scale(scores, scale);
    let shape = graph.shape(scores).to_vec();
    let [query, key] = [3, 4].map(|axis| graph.add(Op::Iota { axis, shape: shape.clone() }, &[]));
    let (sees, hidden) = (graph.binary(Binary::LessEqual, key, query), graph.full(-1e30, &shape));
    let masked = graph.select(sees, scores, hidden);
    let highest = graph.reduce(ReduceKind::Max, masked, &[4]);
    let highest = graph.add(Op::StopGradient, &[highest]);
    let highest = graph.broadcast_along(highest, &[4], &shape);
    let shifted = graph.minus(masked, highest);
    let weights = graph.unary(Unary::Exp, shifted);
    let sum = graph.sum(weights, &[4]);
    let sum = graph.broadcast_along(sum, &[4], &shape);
    let weights = graph.over(weights, sum);
    let result = graph.contract(weights, p[2], [&[0, 1, 2, 3, 4], &[0, 1, 4, 5], &[0, 1, 2, 3, 5]], Precision::F32);
    graph.reshape(result, &[2, 4, 4, 3])
}

#[test]
fn attention_and_its_gradient_are_those_of_the_primitive_definition() {
    let shapes: [&[u64]; 3] = [&[2, 4, 4, 3], &[2, 2, 4, 3], &[2, 2, 4, 3]];
    let spec = AttentionSpec { scale: 0.7.into(), mask: Mask::Causal, precision: Precision::F32 };
    let mut fused = None;
    let Problem { mut graph, bindings, parameters: p, loss } = problem(&shapes, |graph, p| {
        fused = Some(graph.add(Op::Attention(spec), p));
        attention_by_definition(graph, p, 0.7)
    });
    let fused = fused.expect("built");
    let lse = graph.project(fused, 1);
    let primitive = graph.operands(graph.operands(loss)[0])[0];
    assert!(distance(&value(&graph, &bindings, fused).data, &value(&graph, &bindings, primitive).data) < 1e-14);
    let expected = differentiate(&mut graph, loss, &p).expect("differentiable");
    let seed = graph.operands(graph.operands(loss)[0])[1];
    let dq = graph.add(Op::AttentionBackward(spec), &[p[0], p[1], p[2], fused, lse, seed]);
    let found = [dq, graph.project(dq, 1), graph.project(dq, 2)];
    graph.verify().expect("well-formed");
    for (found, expected) in found.into_iter().zip(expected) {
        let expected = value(&graph, &bindings, expected.expect("a path"));
        assert!(distance(&value(&graph, &bindings, found).data, &expected.data) < 1e-13);
    }
    assert!(differentiate(&mut graph, loss, &[fused]).expect("no path").iter().all(Option::is_none));
    let through = graph.sum_all(fused);
    let refused = differentiate(&mut graph, through, &p).expect_err("fused operations have no gradient");
    assert_eq!(refused.to_string(), "no gradient flows through Attention");
}

#[test]
fn work_is_counted_as_the_field_counts_it() {
    let mut graph = Graph::new("test");
    let (a, b) = (graph.full(1.0, &[2, 3]), graph.full(1.0, &[3, 4]));
    let product = graph.contract(a, b, [&[0, 1], &[1, 2], &[0, 2]], Precision::F32);
    let sum = graph.sum_all(product);
    assert_eq!(graph.work(product), Work { products: 2 * 2 * 3 * 4, elementwise: 0 });
    assert_eq!(graph.work(sum), Work { products: 0, elementwise: 8 });
    assert_eq!(graph.total_work(), Work { products: 48, elementwise: 8 });
}
