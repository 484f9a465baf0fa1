//! Gradients of single samples: what flows back to weights, kept apart by sample.
//!
//! Where values with an axis of samples meet values that all samples share (a matrix that multiplies every sample, a bias
//! copied along the batch, a table in which every sample looks up), ordinary differentiation sums over the samples. Here
//! that axis is kept and becomes the first; from there on, down to the parameters, gradients are [lifted](super::lift). All
//! else is differentiated as ever, so the forward computation is the very one of ordinary training.
//!
//! Nothing here is meant to be computed as it stands: the gradient of a matrix for each sample takes as many numbers as
//! the matrix has, times the batch. Rules of the e-graph find equal ways to norms and weighted sums that do without.

use super::{
    Contraction, Graph, NodeId, Op,
    lift::{lift, moved, spread},
    ops::{self, Call},
    samples::{Place, Samples},
};
use std::collections::HashMap;
use trainc_kernels::ir::{Binary, Precision};
use trainc_runtime::artifact::DType;

/// What flows from a node back to one of its operands, if samples are kept apart. `None` if it is not known how.
pub(super) fn term(
    graph: &mut Graph,
    samples: &Samples,
    node: NodeId,
    position: usize,
    seed: NodeId,
) -> Option<NodeId> {
    let operand = graph.operands(node)[position];
    match (samples.of(node), samples.of(operand)) {
        (Place::Axis(_), Place::Axis(_)) => ordinary(graph, node, position, seed),
        (Place::Axis(axis), Place::Shared) => met(graph, node, position, axis, seed),
        (Place::Shared, Place::Shared) => lifted(graph, samples.count, node, position, seed),
        _ => None,
    }
}

fn ordinary(graph: &mut Graph, node: NodeId, position: usize, seed: NodeId) -> Option<NodeId> {
    let op = graph.node(node).op.clone();
    let operands = graph.operands(node);
    ops::rule(&op).gradient(&mut Call { graph, node, operands, seed }, position)
}

/// Where a value that all samples share meets samples that lie along `axis` of the result.
fn met(graph: &mut Graph, node: NodeId, position: usize, axis: usize, seed: NodeId) -> Option<NodeId> {
    let operands = graph.operands(node);
    match graph.node(node).op.clone() {
        Op::Broadcast { axes, .. } => {
            let copied = (0..graph.shape(node).len()).filter(|at| !axes.contains(at) && *at != axis);
            let sum = graph.total(seed, &copied.collect::<Vec<usize>>());
            Some(moved(graph, sum, axes.iter().filter(|&&at| at < axis).count(), 0))
        }
        Op::Contract(Contraction { lhs, rhs, out, precision }) => {
            let kept = |own: &[u8]| [&[out[axis]], own].concat();
            Some(match position {
                0 => graph.contract(seed, operands[1], [&out, &rhs, &kept(&lhs)], precision),
                _ => graph.contract(operands[0], seed, [&lhs, &out, &kept(&rhs)], precision),
            })
        }
        Op::Gather => Some(looked_up(graph, operands[0], operands[1], axis, seed)),
        _ => None,
    }
}

/// The gradient of a table for each sample, as a product with a matrix that has a 1 where a row was looked up.
fn looked_up(graph: &mut Graph, table: NodeId, ids: NodeId, axis: usize, seed: NodeId) -> NodeId {
    let rows = graph.shape(table)[0];
    let shape = [graph.shape(ids), &[rows]].concat();
    let rank = graph.shape(ids).len();
    let chosen = graph.broadcast(ids, &(0..rank).collect::<Vec<usize>>(), &shape);
    let row = graph.add(Op::Iota { axis: rank, shape }, &[]);
    let hit = graph.binary(Binary::Equal, chosen, row);
    let labels = |range: std::ops::Range<usize>| range.map(|label| label as u8).collect::<Vec<u8>>();
    let lhs = labels(0..rank + 1);
    let inner = labels(rank + 1..rank + graph.shape(table).len());
    let rhs = [labels(0..rank), inner.clone()].concat();
    let out = [vec![axis as u8, rank as u8], inner].concat();
    graph.contract(hit, seed, [&lhs, &rhs, &out], Precision::F32)
}

/// Between values that all samples share: the ordinary gradient, for each sample.
fn lifted(graph: &mut Graph, count: u64, node: NodeId, position: usize, seed: NodeId) -> Option<NodeId> {
    let stand_in = graph.add(Op::StopGradient, &[node]);
    let first_new = graph.len();
    let term = ordinary(graph, node, position, stand_in)?;
    let mut images = HashMap::from([(stand_in, seed)]);
    for new in (first_new..graph.len()).map(NodeId::new) {
        let operands: Vec<(NodeId, bool)> = graph
            .operands(new)
            .into_iter()
            .map(|operand| images.get(&operand).map_or((operand, false), |&image| (image, true)))
            .collect();
        if operands.iter().any(|&(_, lifted)| lifted) {
            let op = graph.node(new).op.clone();
            let image = lift(graph, &op, &operands, count)?;
            images.insert(new, image);
        }
    }
    Some(match images.get(&term) {
        Some(&image) => image,
        None => spread(graph, (term, false), count),
    })
}

/// A gradient of 0 of a node.
pub(super) fn nothing(graph: &mut Graph, samples: &Samples, node: NodeId) -> NodeId {
    let zero = graph.full_like(0.0, node);
    debug_assert_eq!(graph.node(node).ty.dtype, DType::F32, "gradients are f32");
    if samples.of(node) == Place::Shared { spread(graph, (zero, false), samples.count) } else { zero }
}
