//! Lifting: an operation on single values, done for every sample at once.
//!
//! A lifted value has one more axis in front, which counts samples; the rest is the value of a sample. What is the same for
//! all samples is not lifted. This is what other systems call a vectorising map, for the operations through which the
//! gradients of weights flow.

use super::{Contraction, Graph, NodeId, Op};

/// An operand: a node, and whether it is lifted.
pub(super) type Operand = (NodeId, bool);

/// The lifted result of an operation of which some operand is lifted, for `count` samples. `None` if the operation is not
/// one that gradients of weights, or sums over samples, lead through.
pub(super) fn lift(graph: &mut Graph, op: &Op, operands: &[Operand], count: u64) -> Option<NodeId> {
    debug_assert!(operands.iter().any(|&(_, lifted)| lifted), "some operand is lifted");
    let op = match op {
        Op::Unary(_) | Op::ToFloat | Op::ToInteger | Op::StopGradient | Op::SumInstances => op.clone(),
        Op::Binary(_) | Op::Select => return Some(together(graph, op.clone(), operands, count)),
        Op::Concat { axis } => return Some(together(graph, Op::Concat { axis: axis + 1 }, operands, count)),
        Op::Contract(labels) => return Some(contract(graph, labels, operands)),
        Op::Gather => return gather(graph, operands),
        Op::Scatter { rows } => return scatter(graph, *rows, operands),
        Op::Stack { count: instances } => {
            let stack = graph.add(Op::Stack { count: *instances }, &[operands[0].0]);
            return Some(moved(graph, stack, 1, 0));
        }
        Op::Layer { scope } => {
            let stacked = moved(graph, operands[0].0, 1, 0);
            return Some(graph.add(Op::Layer { scope: *scope }, &[stacked]));
        }
        _ => behind_samples(op, count)?,
    };
    Some(graph.add(op, &[operands[0].0]))
}

/// An operation of one operand that acts on the axes behind the first.
fn behind_samples(op: &Op, count: u64) -> Option<Op> {
    let behind = |axes: &[usize]| axes.iter().map(|axis| axis + 1).collect::<Vec<usize>>();
    let first = |axes: &[usize]| [vec![0], behind(axes)].concat();
    let shape = |shape: &[u64]| [&[count], shape].concat();
    Some(match op {
        Op::Broadcast { axes, shape: own } => Op::Broadcast { axes: first(axes), shape: shape(own) },
        Op::Reshape { shape: own } => Op::Reshape { shape: shape(own) },
        Op::Permute { axes } => Op::Permute { axes: first(axes) },
        Op::Reduce { kind, axes } => Op::Reduce { kind: *kind, axes: behind(axes) },
        &Op::Slice { axis, start, length } => Op::Slice { axis: axis + 1, start, length },
        &Op::Pad { axis, before, after } => Op::Pad { axis: axis + 1, before, after },
        &Op::Window { axis, size, stride } => Op::Window { axis: axis + 1, size, stride },
        &Op::Unwindow { axis, stride, extent } => Op::Unwindow { axis: axis + 1, stride, extent },
        _ => return None,
    })
}

/// An operation on operands of one shape: those that are the same for all samples are copied.
fn together(graph: &mut Graph, op: Op, operands: &[Operand], count: u64) -> NodeId {
    let operands: Vec<NodeId> = operands.iter().map(|&operand| spread(graph, operand, count)).collect();
    graph.add(op, &operands)
}

/// An operand, lifted if it is not.
pub(super) fn spread(graph: &mut Graph, (node, lifted): Operand, count: u64) -> NodeId {
    if lifted {
        return node;
    }
    let shape = [&[count], graph.shape(node)].concat();
    graph.broadcast_to_leading(node, &shape)
}

fn contract(graph: &mut Graph, labels: &Contraction, operands: &[Operand]) -> NodeId {
    let sample = free_label(labels);
    let labelled = |own: &[u8], lifted: bool| if lifted { [&[sample], own].concat() } else { own.to_vec() };
    let lifted = Contraction {
        lhs: labelled(&labels.lhs, operands[0].1),
        rhs: labelled(&labels.rhs, operands[1].1),
        out: labelled(&labels.out, true),
        precision: labels.precision,
    };
    graph.add(Op::Contract(lifted), &[operands[0].0, operands[1].0])
}

fn free_label(labels: &Contraction) -> u8 {
    let taken = |label: &u8| labels.lhs.contains(label) || labels.rhs.contains(label);
    (0..=u8::MAX).find(|label| !taken(label)).expect("fewer axes than labels")
}

/// Of a table for each sample.
fn gather(graph: &mut Graph, operands: &[Operand]) -> Option<NodeId> {
    let &[(table, true), (ids, false)] = operands else { return None };
    let table = moved(graph, table, 0, 1);
    let rank = graph.shape(ids).len();
    let rows = graph.add(Op::Gather, &[table, ids]);
    Some(moved(graph, rows, rank, 0))
}

/// Of updates for each sample.
fn scatter(graph: &mut Graph, rows: u64, operands: &[Operand]) -> Option<NodeId> {
    let &[(ids, false), (updates, true)] = operands else { return None };
    let rank = graph.shape(ids).len();
    let updates = moved(graph, updates, 0, rank);
    let sums = graph.add(Op::Scatter { rows }, &[ids, updates]);
    Some(moved(graph, sums, 1, 0))
}

/// The tensor with an axis moved to another place.
pub(super) fn moved(graph: &mut Graph, node: NodeId, from: usize, to: usize) -> NodeId {
    let mut axes: Vec<usize> = (0..graph.shape(node).len()).filter(|&axis| axis != from).collect();
    axes.insert(to, from);
    graph.permute(node, &axes)
}
