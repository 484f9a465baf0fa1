//! Samples: which axis of a value counts the samples of the batch, and whether samples meet.
//!
//! Training that treats samples one by one (private training clips each one's gradient) needs to know, of each value that
//! the loss is made of, whether it is the same for all samples, has an axis along which samples lie, or is a sum over them.
//! Samples may meet in sums alone, and such sums may only be added, scaled and summed further: then the loss is a sum of
//! what each sample adds to it. Anything else (statistics over the batch, a division by a number of tokens that depends on
//! the batch) couples samples, and no gradient is that of one sample.

use super::{
    Graph, NodeId, Op, ScopeId,
    lift::{lift, moved},
};
use std::collections::HashMap;
use trainc_kernels::ir::{Binary, ReduceKind, Unary};

/// What a value is to the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The same for all samples.
    Shared,
    /// Samples lie along this axis.
    Axis(usize),
    /// The sum of what each sample adds.
    Summed,
}

/// Samples meet, in a way that is not a sum, or leave their axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coupled {
    /// Where.
    pub node: NodeId,
    /// How, for people: `... samples`.
    pub reason: &'static str,
}

/// The place of samples in all values that a loss is made of.
#[derive(Clone, Debug)]
pub struct Samples {
    places: Vec<Place>,
    /// Number of samples in the batch.
    pub count: u64,
}

impl Samples {
    /// Follows the samples from the inputs, whose first axis counts them, to the loss.
    ///
    /// # Errors
    /// Where samples are coupled.
    pub fn trace(graph: &Graph, loss: NodeId, count: u64) -> Result<Samples, Coupled> {
        let needed = graph.needed_by([loss]);
        let mut samples = Samples { places: vec![Place::Shared; graph.len()], count };
        for component in graph.components() {
            let component: Vec<NodeId> = component.into_iter().filter(|node| needed[node.index()]).collect();
            while samples.settle(graph, &component)? && component.len() > 1 {}
        }
        if samples.of(loss) == Place::Shared {
            return Err(Coupled { node: loss, reason: "does not depend on the samples" });
        }
        samples.align(graph, graph.ids().filter(|node| needed[node.index()]))?;
        Ok(samples)
    }

    /// Places that have been followed elsewhere.
    pub(super) fn known(places: Vec<Place>, count: u64) -> Samples {
        Samples { places, count }
    }

    /// The place of samples in a value.
    pub fn of(&self, node: NodeId) -> Place {
        self.places.get(node.index()).copied().unwrap_or(Place::Shared)
    }

    /// What each sample adds to a value that is [`Place::Summed`]: `[count, ...]`.
    pub fn shares(&mut self, graph: &mut Graph, node: NodeId) -> NodeId {
        let first_new = self.places.len();
        let share = self.share(graph, node, &mut HashMap::new());
        for new in (first_new..graph.len()).map(NodeId::new) {
            let place = self.derived(graph, new).unwrap_or_else(|reason| panic!("internal: a share {reason}"));
            self.places.push(place);
        }
        let aligned = self.align(graph, (first_new..graph.len()).map(NodeId::new));
        aligned.unwrap_or_else(|coupled| panic!("internal: a share {}", coupled.reason));
        share
    }

    fn share(&self, graph: &mut Graph, node: NodeId, known: &mut HashMap<NodeId, NodeId>) -> NodeId {
        if let Some(&share) = known.get(&node) {
            return share;
        }
        let (op, operands) = (graph.node(node).op.clone(), graph.operands(node));
        let first_new = graph.len();
        let share = match (&op, self.of(operands[0]), operands.get(1).map(|x| self.of(*x))) {
            (Op::Reduce { axes, .. }, Place::Axis(samples), _) => {
                let rest: Vec<usize> = axes.iter().copied().filter(|&axis| axis != samples).collect();
                let sum = graph.sum(operands[0], &rest);
                moved(graph, sum, samples - rest.iter().filter(|&&axis| axis < samples).count(), 0)
            }
            (Op::Contract(labels), Place::Axis(samples), _) => kept(graph, labels, labels.lhs[samples], &operands),
            (Op::Contract(labels), _, Some(Place::Axis(samples))) => {
                kept(graph, labels, labels.rhs[samples], &operands)
            }
            _ => {
                let mut lifted = Vec::new();
                for &operand in &operands {
                    let summed = self.of(operand) == Place::Summed;
                    lifted.push(if summed { (self.share(graph, operand, known), true) } else { (operand, false) });
                }
                lift(graph, &op, &lifted, self.count).unwrap_or_else(|| panic!("internal: sums lead through {op:?}"))
            }
        };
        let span = graph.node(node).span;
        (first_new..graph.len()).for_each(|new| graph.set_span(NodeId::new(new), span));
        known.insert(node, share);
        share
    }

    /// Derives the places of some nodes from their operands; whether one has changed.
    fn settle(&mut self, graph: &Graph, nodes: &[NodeId]) -> Result<bool, Coupled> {
        let mut changed = false;
        for &node in nodes {
            let place = self.derived(graph, node).map_err(|reason| Coupled { node, reason })?;
            changed |= std::mem::replace(&mut self.places[node.index()], place) != place;
        }
        Ok(changed)
    }

    fn derived(&self, graph: &Graph, node: NodeId) -> Result<Place, &'static str> {
        if let Op::Input { .. } = graph.node(node).op {
            return Ok(Place::Axis(0));
        }
        let operands: Vec<NodeId> = match graph.node(node).op {
            Op::Carry { .. } => graph.awaits(node),
            _ => graph.operands(node),
        };
        let places: Vec<Place> = operands.iter().map(|&operand| self.of(operand)).collect();
        if places.iter().all(|&place| place == Place::Shared) {
            return Ok(Place::Shared);
        }
        if places.contains(&Place::Summed) {
            return after_sum(&graph.node(node).op, &places);
        }
        Step { graph, op: &graph.node(node).op, operands: &operands }.forward(&places, graph.shape(node))
    }

    /// Values that are the same for all samples, but are copied along the samples' axis to meet them, have that axis too.
    fn align(&mut self, graph: &Graph, nodes: impl DoubleEndedIterator<Item = NodeId>) -> Result<(), Coupled> {
        for node in nodes.rev() {
            let Place::Axis(axis) = self.of(node) else { continue };
            for (position, operand) in graph.awaits(node).into_iter().enumerate() {
                let Some(axis) = operand_axis(graph, node, position, axis) else { continue };
                match self.of(operand) {
                    Place::Shared => self.places[operand.index()] = Place::Axis(axis),
                    Place::Axis(other) if other != axis && is_learned(graph, operand) => {
                        return Err(Coupled { node: operand, reason: MIXED });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether a value depends on parameters.
fn is_learned(graph: &Graph, node: NodeId) -> bool {
    let needed = graph.needed_by([node]);
    graph.ids().any(|id| needed[id.index()] && matches!(graph.node(id).op, Op::Parameter { .. }))
}

/// A contraction with the summed label of the samples kept, in front.
fn kept(graph: &mut Graph, labels: &super::Contraction, sample: u8, operands: &[NodeId]) -> NodeId {
    let out = [&[sample], labels.out.as_slice()].concat();
    graph.add(Op::Contract(super::Contraction { out, ..labels.clone() }), operands)
}

/// Sums over samples may be added, scaled, placed and summed further.
pub(super) fn after_sum(op: &Op, places: &[Place]) -> Result<Place, &'static str> {
    let one = |place: Place| places.iter().filter(|&&other| other == place).count() == 1;
    let linear = match op {
        Op::Unary(Unary::Neg) | Op::Reshape { .. } | Op::Permute { .. } | Op::Broadcast { .. } => true,
        Op::Slice { .. } | Op::Pad { .. } | Op::SumInstances | Op::Reduce { kind: ReduceKind::Sum, .. } => true,
        Op::Binary(Binary::Add | Binary::Sub) if one(Place::Shared) => {
            return Err("adds what belongs to no one of the samples");
        }
        Op::Binary(Binary::Add | Binary::Sub) => places == [Place::Summed; 2],
        Op::Binary(Binary::Mul) => one(Place::Summed) && one(Place::Shared),
        Op::Binary(Binary::Div) => places == [Place::Summed, Place::Shared],
        _ => false,
    };
    if linear { Ok(Place::Summed) } else { Err("is no sum over the samples") }
}

/// An operation of which some operands have an axis of samples.
pub(super) struct Step<'a> {
    pub graph: &'a Graph,
    pub op: &'a Op,
    pub operands: &'a [NodeId],
}

/// Why no axis of the result counts samples.
const LOST: &str = "leaves no axis that counts the samples";
/// Why the result is no one sample's.
const MIXED: &str = "mixes the samples";

impl Step<'_> {
    fn rank(&self, operand: usize) -> usize {
        self.graph.shape(self.operands[operand]).len()
    }

    /// The place of samples in the result.
    pub fn forward(&self, places: &[Place], shape: &[u64]) -> Result<Place, &'static str> {
        let axes: Vec<Option<usize>> = places
            .iter()
            .map(|place| match place {
                Place::Axis(axis) => Some(*axis),
                _ => None,
            })
            .collect();
        match self.op {
            Op::Contract(labels) => contracted(labels, &axes),
            Op::Gather => self.gathered(&axes),
            Op::Reduce { kind: ReduceKind::Sum, axes: summed } if axes[0].is_some_and(|a| summed.contains(&a)) => {
                Ok(Place::Summed)
            }
            _ => {
                let mut found = axes.into_iter().flatten();
                let axis = found.next().expect("some operand has samples");
                if found.any(|other| other != axis) { Err(MIXED) } else { self.moved(axis, shape).map(Place::Axis) }
            }
        }
    }

    /// Where the axis of the first operand that has samples goes.
    fn moved(&self, axis: usize, shape: &[u64]) -> Result<usize, &'static str> {
        let unless = |at: bool, axis: usize| if at { Err(MIXED) } else { Ok(axis) };
        match self.op {
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::ToFloat | Op::ToInteger | Op::StopGradient => Ok(axis),
            Op::Carry { .. } | Op::Last | Op::SumInstances => Ok(axis),
            Op::Broadcast { axes, .. } => Ok(axes[axis]),
            Op::Reshape { .. } => same_axis(self.graph.shape(self.operands[0]), axis, shape).ok_or(LOST),
            Op::Permute { axes } => axes.iter().position(|&from| from == axis).ok_or(LOST),
            Op::Slice { axis: at, .. } | Op::Pad { axis: at, .. } | Op::Concat { axis: at } => {
                unless(*at == axis, axis)
            }
            Op::Window { axis: at, .. } => unless(*at == axis, if axis > *at { axis + 1 } else { axis }),
            Op::Unwindow { axis: at, .. } => {
                unless(axis == *at || axis == at + 1, if axis > *at { axis - 1 } else { axis })
            }
            Op::Reduce { axes, .. } => {
                unless(axes.contains(&axis), axis - axes.iter().filter(|&&gone| gone < axis).count())
            }
            Op::Layer { .. } => axis.checked_sub(1).ok_or(LOST),
            Op::Stack { .. } => Ok(axis + 1),
            _ => Err(LOST),
        }
    }

    fn gathered(&self, axes: &[Option<usize>]) -> Result<Place, &'static str> {
        match (axes[0], axes[1]) {
            (None, Some(ids)) => Ok(Place::Axis(ids)),
            (Some(table), None) if table > 0 => Ok(Place::Axis(self.rank(1) + table - 1)),
            _ => Err(MIXED),
        }
    }
}

fn contracted(labels: &super::Contraction, axes: &[Option<usize>]) -> Result<Place, &'static str> {
    let of = |own: &[u8], axis: Option<usize>| axis.map(|axis| own[axis]);
    let (left, right) = (of(&labels.lhs, axes[0]), of(&labels.rhs, axes[1]));
    let label = left.or(right).expect("some operand has samples");
    if left.is_some() && right.is_some() && left != right {
        return Err(MIXED);
    }
    Ok(labels.out.iter().position(|&out| out == label).map_or(Place::Summed, Place::Axis))
}

/// The axis of the other shape of equal size that is this axis: as long, with as many elements before it.
fn same_axis(from: &[u64], axis: usize, to: &[u64]) -> Option<usize> {
    let before = |shape: &[u64], axis: usize| shape[..axis].iter().product::<u64>();
    (0..to.len()).find(|&other| to[other] == from[axis] && before(to, other) == before(from, axis))
}

/// Which axis of an operand becomes this axis of the result; `None` if the operand is copied along it.
pub(super) fn operand_axis(graph: &Graph, node: NodeId, position: usize, axis: usize) -> Option<usize> {
    let operand = graph.awaits(node)[position];
    match &graph.node(node).op {
        Op::Broadcast { axes, .. } => axes.iter().position(|&to| to == axis),
        Op::Reshape { .. } => same_axis(graph.shape(node), axis, graph.shape(operand)),
        Op::Permute { axes } => Some(axes[axis]),
        Op::Window { axis: at, .. } => Some(if axis > *at { axis - 1 } else { axis }),
        Op::Unwindow { axis: at, .. } => Some(if axis > *at { axis + 1 } else { axis }),
        Op::Reduce { axes, .. } => (0..graph.shape(operand).len()).filter(|at| !axes.contains(at)).nth(axis),
        Op::Contract(labels) => {
            let own = if position == 0 { &labels.lhs } else { &labels.rhs };
            own.iter().position(|&label| label == labels.out[axis])
        }
        Op::Gather if position == 1 => (axis < graph.shape(operand).len()).then_some(axis),
        Op::Gather => {
            let ids = graph.shape(graph.operands(node)[1]).len();
            (axis >= ids).then(|| axis + 1 - ids)
        }
        Op::Layer { .. } => Some(axis + 1).filter(|_| graph.node(operand).scope == ScopeId::ROOT),
        Op::Stack { .. } => axis.checked_sub(1),
        Op::Scatter { .. } | Op::Random { .. } => None,
        _ => Some(axis),
    }
}
