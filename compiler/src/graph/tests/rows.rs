//! Rows in chunks give what they give at once.

use super::*;
use trainc_kernels::ir::{Binary, Precision, ReduceKind, Unary};

const CONTEXT: u64 = 6;
const WIDTH: u64 = 3;
const CLASSES: u64 = 40;

/// What is done with logits `[batch, CONTEXT, CLASSES]` to give a loss.
type Loss = fn(&mut Graph, NodeId) -> NodeId;

/// Numbers of the classes that are meant, `[batch, CONTEXT]`.
fn targets(graph: &mut Graph, logits: NodeId) -> NodeId {
    let shape = &graph.shape(logits)[..2];
    graph.add(Op::Input { index: 0, ty: TensorType::i32(shape) }, &[])
}

/// A number for each row, copied along its classes.
fn spread(graph: &mut Graph, rows: NodeId) -> NodeId {
    let shape = [graph.shape(rows), &[CLASSES]].concat();
    graph.broadcast(rows, &[0, 1], &shape)
}

/// Log of the sum of exponentials of each row.
fn log_total(graph: &mut Graph, logits: NodeId) -> NodeId {
    let most = graph.reduce(ReduceKind::Max, logits, &[2]);
    let most = graph.add(Op::StopGradient, &[most]);
    let wide = spread(graph, most);
    let z = graph.minus(logits, wide);
    let e = graph.unary(Unary::Exp, z);
    let total = graph.sum(e, &[2]);
    let log = graph.unary(Unary::Log, total);
    graph.plus(log, most)
}

/// Negative log-likelihood of each position.
fn surprise(graph: &mut Graph, logits: NodeId) -> NodeId {
    let targets = targets(graph, logits);
    // The classes come first, as they do in what the checker writes.
    let shape = [&[CLASSES], graph.shape(targets)].concat();
    let class = graph.add(Op::Iota { axis: 0, shape: shape.clone() }, &[]);
    let wanted = graph.broadcast(targets, &[1, 2], &shape);
    let hit = graph.binary(Binary::Equal, class, wanted);
    let hit = graph.permute(hit, &[1, 2, 0]);
    let nothing = graph.full_like(0.0, logits);
    let picked = graph.select(hit, logits, nothing);
    let picked = graph.sum(picked, &[2]);
    let total = log_total(graph, logits);
    graph.minus(total, picked)
}

fn mean(graph: &mut Graph, x: NodeId) -> NodeId {
    let count = graph.node(x).ty.elements();
    let sum = graph.sum_all(x);
    graph.scale(sum, 1.0 / count as f64)
}

/// Mean over the positions whose target is not 0.
fn masked(graph: &mut Graph, logits: NodeId) -> NodeId {
    let loss = surprise(graph, logits);
    let targets = targets(graph, logits);
    let zero = graph.full_like(0.0, targets);
    let counts = graph.binary(Binary::Less, zero, targets);
    let kept = graph.times(loss, counts);
    let (kept, counts) = (graph.sum_all(kept), graph.sum_all(counts));
    graph.over(kept, counts)
}

/// Cross entropy, a share of it spread over all classes, and the square of each row's log total.
fn smoothed(graph: &mut Graph, logits: NodeId) -> NodeId {
    let surprise = surprise(graph, logits);
    let total = log_total(graph, logits);
    let sum = graph.sum(logits, &[2]);
    let average = graph.scale(sum, 0.1 / CLASSES as f64);
    let square = graph.times(total, total);
    let square = graph.scale(square, 1e-2);
    let loss = graph.minus(surprise, average);
    let loss = graph.plus(loss, square);
    mean(graph, loss)
}

fn plain(graph: &mut Graph, logits: NodeId) -> NodeId {
    let loss = surprise(graph, logits);
    mean(graph, loss)
}

const LOSSES: [(&str, Loss); 3] = [("plain", plain), ("masked", masked), ("smoothed", smoothed)];

/// A head on hidden states, with the gradients of both, the mean of the loss and how many rows are right.
fn head(batch: u64, loss: Loss) -> Problem {
    let mut graph = Graph::new("test");
    let shapes: [&[u64]; 2] = [&[batch, CONTEXT, WIDTH], &[CLASSES, WIDTH]];
    let mut bindings = Bindings::default();
    let mut parameters = Vec::new();
    for (index, shape) in (0..).zip(shapes) {
        parameters.push(graph.add(Op::Parameter { index, shape: shape.to_vec() }, &[]));
        bindings.parameters.insert(index, noise(index, shape));
    }
    let classes = (0..batch * CONTEXT).map(|i| (i * i % CLASSES) as f64).collect();
    bindings.inputs.insert(0, Tensor::new(TensorType::i32([batch, CONTEXT]), classes));
    let logits = graph.contract(parameters[0], parameters[1], [&[0, 1, 2], &[3, 2], &[0, 1, 3]], Precision::F32);
    let loss = loss(&mut graph, logits);
    let best = graph.add(Op::Reduce { kind: ReduceKind::ArgMax, axes: vec![2] }, &[logits]);
    graph.set_output(Output::Report("best".into()), best);
    graph.set_output(Output::Report("loss".into()), loss);
    let gradients = differentiate(&mut graph, loss, &parameters).expect("differentiable");
    for (index, gradient) in (0..).zip(gradients) {
        graph.set_output(Output::Parameter(index), gradient.expect("both matter"));
    }
    Problem { graph, bindings, parameters, loss }
}

/// Both graphs yield the same, up to the rounding of sums.
fn agree(name: &str, bindings: &Bindings, [whole, chunked]: [&Graph; 2]) {
    chunked.verify().unwrap_or_else(|error| panic!("{name}: {error}\n{chunked}"));
    for ((output, one), (other_output, other)) in whole.outputs().iter().zip(chunked.outputs()) {
        assert_eq!(output, other_output);
        let (one, other) = (value(whole, bindings, *one), value(chunked, bindings, *other));
        assert_eq!(one.ty, other.ty, "{name}: {output:?}");
        let scale = one.data.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * scale || a == b || (a.is_nan() && b.is_nan());
        assert!(one.data.iter().zip(&other.data).all(close), "{name}: {output:?}: {:?} {:?}", one.data, other.data);
    }
}

/// Elements of the largest value that exists at once outside of other repeats.
fn largest(graph: &Graph) -> u64 {
    graph.ids().map(|id| graph.node(id).ty.elements()).max().expect("not empty")
}

#[test]
fn losses_and_their_gradients_are_the_same_in_chunks() {
    // Chunks are whole sequences if these can be shared out, else parts of all sequences.
    for (batch, counts) in [(4, vec![2, 4]), (7, vec![7]), (11, vec![2, 3, 6]), (1, vec![2])] {
        for (name, loss) in LOSSES {
            let Problem { graph, bindings, .. } = head(batch, loss);
            let rows = Rows::largest(&graph, 0).expect("the logits");
            assert_eq!(rows.counts(&graph), counts, "{name}, batch {batch}");
            for count in rows.counts(&graph) {
                let chunked = rows.chunked(&graph, count);
                agree(name, &bindings, [&graph, &chunked]);
                assert_eq!(
                    largest(&chunked),
                    batch * CONTEXT * CLASSES / count,
                    "{name}: no value of all rows is left"
                );
            }
        }
    }
}

#[test]
fn rows_that_others_read_stay() {
    let mut problem = head(4, plain);
    let logits = problem.graph.ids().find(|&id| matches!(problem.graph.node(id).op, Op::Contract(_)));
    problem.graph.set_output(Output::Report("logits".into()), logits.expect("there are logits"));
    assert!(Rows::largest(&problem.graph, 0).is_none());
}

#[test]
fn a_norm_over_the_batch_keeps_rows_together() {
    let coupled: Loss = |graph, logits| {
        let square = graph.times(logits, logits);
        let over_rows = graph.sum(square, &[0, 1]);
        let root = graph.unary(Unary::Sqrt, over_rows);
        let wide = graph.broadcast(root, &[2], &[4, CONTEXT, CLASSES]);
        let normal = graph.over(logits, wide);
        plain(graph, normal)
    };
    assert!(Rows::largest(&head(4, coupled).graph, 0).is_none());
}

#[test]
fn a_value_below_the_limit_stays() {
    let graph = head(4, plain).graph;
    let bytes = 4 * 4 * CONTEXT * CLASSES;
    assert!(Rows::largest(&graph, bytes).is_some() && Rows::largest(&graph, bytes + 1).is_none());
}

#[test]
fn random_graphs_are_the_same_in_chunks() {
    let mut cut = 0;
    for seed in 0..200 {
        let mut sample = arbitrary::sample(seed, 12);
        let gradients = differentiate(&mut sample.graph, sample.loss, &sample.parameters).expect("differentiable");
        for (index, gradient) in gradients.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                sample.graph.set_output(Output::Report(format!("gradient {index}")), gradient);
            }
        }
        if let Some(rows) = Rows::largest(&sample.graph, 0) {
            for count in rows.counts(&sample.graph) {
                let chunked = rows.chunked(&sample.graph, count);
                agree(&format!("seed {seed}, {count} chunks"), &sample.bindings, [&sample.graph, &chunked]);
                cut += 1;
            }
        }
    }
    assert!(cut >= 10, "only {cut} graphs had rows to cut");
}
