//! Rows in chunks: a large value that is made by a product and used up row by row need not exist in full.
//!
//! The logits of a language model are larger than all else between two products, and so is their gradient. But softmax and
//! loss take each row by itself, the gradient of the hidden states is again one row for each, and that of the table is a
//! sum over rows. So all of it can be done for some rows at a time: a [repeat](super) over chunks, into which rows lead as
//! slices, and out of which lead stacked rows and sums over instances. Nothing here knows of logits: what matters is where
//! an axis of the product goes ([`super::Samples`] follows samples by the same rules).

use super::{
    Contraction, Graph, NodeId, Op, ScopeId,
    lift::moved,
    samples::{Place, Step, operand_axis},
    substitute::{dependents, substitute},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Most chunks that rows are cut into: each reads what all rows share once more.
const MAX_CHUNKS: u64 = 8;

/// A large value, what is made of its rows, and nothing else.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The product that makes the rows.
    head: NodeId,
    /// What can be computed for some rows at a time, with the place of rows.
    members: BTreeMap<NodeId, Place>,
    /// Members that others use.
    exits: Vec<NodeId>,
    /// How many rows there are.
    extent: u64,
}

impl Rows {
    /// The largest root value of at least `least` bytes that can be computed in chunks.
    pub fn largest(graph: &Graph, least: u64) -> Option<Rows> {
        let is_product = |id: &NodeId| {
            let node = graph.node(*id);
            node.scope == ScopeId::ROOT
                && matches!(node.op, Op::Contract(_))
                && node.ty.elements() * node.ty.dtype.bytes() >= least
        };
        let mut heads: Vec<NodeId> = graph.ids().filter(is_product).collect();
        heads.sort_by_key(|&head| (Reverse(graph.node(head).ty.elements()), head));
        heads.into_iter().find_map(|head| {
            let axes = 0..graph.shape(head).len();
            axes.filter_map(|axis| Rows::new(graph, head, axis)).find(|rows| !rows.counts(graph).is_empty())
        })
    }

    /// The numbers of chunks that are worth it, ascending. Every chunk reads each matrix that its rows meet, and adds to each
    /// sum over rows; so it has at least as many elements as these.
    pub fn counts(&self, graph: &Graph) -> Vec<u64> {
        let elements = graph.node(self.head).ty.elements();
        let shared = self.shared_elements(graph);
        let fits = |count: &u64| self.extent.is_multiple_of(*count) && elements / count >= shared;
        (2..=MAX_CHUNKS).filter(fits).collect()
    }

    /// The graph in which the rows are computed in so many chunks.
    pub fn chunked(&self, graph: &Graph, count: u64) -> Graph {
        let mut chunks = Chunks::new(self, graph, count);
        for (&member, &place) in &self.members {
            let copy = chunks.copied(member, place);
            chunks.inside.insert(member, copy);
        }
        let exits: Vec<(NodeId, NodeId)> = self.exits.iter().map(|&exit| (exit, chunks.left(exit))).collect();
        let mut graph = chunks.graph;
        let wanted: Vec<NodeId> = graph.output_nodes().collect();
        let substitution = substitute(&mut graph, &exits, &wanted);
        for (output, node) in graph.outputs().to_vec() {
            graph.set_output(output, substitution.of(node));
        }
        graph.prune().0
    }

    /// What can be computed with the rows that lie along an axis of a product, if none of the values that are as large as
    /// the product is needed by anything else.
    fn new(graph: &Graph, head: NodeId, axis: usize) -> Option<Rows> {
        let live: BTreeSet<NodeId> = dependents_of(graph, head).into_iter().collect();
        let followed = followed(graph, head, axis, &live);
        let elements = graph.node(head).ty.elements();
        let is_large =
            |id: &NodeId| matches!(followed.get(id), Some(Place::Axis(_))) && graph.node(*id).ty.elements() >= elements;
        let users = |id: NodeId| graph.users(id).into_iter().filter(|user| live.contains(user));
        let mut makes_large: BTreeSet<NodeId> = BTreeSet::new();
        for &id in followed.keys().rev() {
            if is_large(&id) || users(id).any(|user| makes_large.contains(&user)) {
                makes_large.insert(id);
            }
        }
        let uses_large = |id: NodeId| graph.operands(id).iter().any(is_large);
        let mut members = followed.clone();
        members.retain(|&id, _| makes_large.contains(&id) || uses_large(id));
        let named = graph.named();
        let leaves = |id: NodeId| named.contains(&id) || users(id).any(|user| !members.contains_key(&user));
        let exits: Vec<NodeId> = members.keys().copied().filter(|&id| leaves(id)).collect();
        let used_up = !exits.iter().any(is_large);
        used_up.then(|| Rows { head, exits, extent: graph.shape(head)[axis], members })
    }

    /// Elements of the largest matrix that is the same for all rows or a sum over them.
    fn shared_elements(&self, graph: &Graph) -> u64 {
        let elements = |id: NodeId| graph.node(id).ty.elements();
        let mut most = 0;
        for (&member, &place) in self.members.iter().filter(|(id, _)| matches!(graph.node(**id).op, Op::Contract(_))) {
            if place == Place::Summed {
                most = most.max(elements(member));
            }
            for (position, operand) in graph.operands(member).into_iter().enumerate() {
                if self.axis_in_operand(graph, member, position, place).is_none() {
                    most = most.max(elements(operand));
                }
            }
        }
        most
    }

    /// Along which axis of an operand the rows lie; `None` if it is the same for all of them.
    fn axis_in_operand(&self, graph: &Graph, node: NodeId, position: usize, place: Place) -> Option<usize> {
        let operands = graph.operands(node);
        match (&graph.node(node).op, place) {
            (_, Place::Axis(axis)) => operand_axis(graph, node, position, axis),
            (Op::Contract(Contraction { lhs, rhs, .. }), _) => {
                let labels = [lhs, rhs];
                let label = operands.iter().zip(labels).find_map(|(operand, own)| match self.members.get(operand) {
                    Some(Place::Axis(axis)) => Some(own[*axis]),
                    _ => None,
                })?;
                labels[position].iter().position(|&own| own == label)
            }
            _ => None,
        }
    }
}

/// What the outputs need that depends on a node, ascending.
fn dependents_of(graph: &Graph, head: NodeId) -> Vec<NodeId> {
    let mut replaced = vec![None; graph.len()];
    replaced[head.index()] = Some(head);
    let wanted: Vec<NodeId> = graph.output_nodes().collect();
    dependents(graph, &replaced, &wanted)
}

/// Where rows lie in what is computed of the head alone and of what does not depend on it.
fn followed(graph: &Graph, head: NodeId, axis: usize, live: &BTreeSet<NodeId>) -> BTreeMap<NodeId, Place> {
    let mut places = BTreeMap::from([(head, Place::Axis(axis))]);
    for &node in live.iter().filter(|&&node| graph.node(node).scope == ScopeId::ROOT) {
        let operands = graph.operands(node);
        let of = |operand: &NodeId| match places.get(operand) {
            None if live.contains(operand) => None,
            None => Some(Place::Shared),
            Some(Place::Summed) => None,
            known => known.copied(),
        };
        let Some(of_operands) = operands.iter().map(of).collect::<Option<Vec<Place>>>() else { continue };
        let step = Step { graph, op: &graph.node(node).op, operands: &operands };
        if let Ok(place) = step.forward(&of_operands, graph.shape(node)) {
            places.insert(node, place);
        }
    }
    places
}

/// The repeat under construction.
struct Chunks<'a> {
    rows: &'a Rows,
    /// The graph, to which the repeat is added.
    graph: Graph,
    scope: ScopeId,
    count: u64,
    /// What stands for members in the repeat.
    inside: BTreeMap<NodeId, NodeId>,
    /// What stands for other values, by the axis along which rows lie.
    entered: BTreeMap<(NodeId, usize), NodeId>,
}

impl<'a> Chunks<'a> {
    fn new(rows: &'a Rows, graph: &Graph, count: u64) -> Self {
        let mut graph = graph.clone();
        let scope = graph.add_scope("rows", count);
        Self { rows, graph, scope, count, inside: BTreeMap::new(), entered: BTreeMap::new() }
    }

    /// Rows of a chunk.
    fn extent(&self) -> u64 {
        self.rows.extent / self.count
    }

    /// The same operation on the rows of a chunk.
    fn copied(&mut self, node: NodeId, place: Place) -> NodeId {
        let operands: Vec<NodeId> =
            (0..self.graph.operands(node).len()).map(|position| self.operand(node, position, place)).collect();
        let mut op = self.graph.node(node).op.clone();
        if let (Place::Axis(axis), Op::Broadcast { shape, .. } | Op::Reshape { shape } | Op::Iota { shape, .. }) =
            (place, &mut op)
        {
            shape[axis] = self.extent();
        }
        let copy = self.graph.add(op, &operands);
        self.graph.set_span(copy, self.graph.node(node).span);
        copy
    }

    fn operand(&mut self, node: NodeId, position: usize, place: Place) -> NodeId {
        let operand = self.graph.operands(node)[position];
        if let Some(&inside) = self.inside.get(&operand) {
            return inside;
        }
        match self.rows.axis_in_operand(&self.graph, node, position, place) {
            // The rows of the head are slices, so that all members are in the repeat.
            Some(axis) if node == self.rows.head => self.sliced(operand, axis),
            Some(axis) => self.entered(operand, axis),
            None => operand,
        }
    }

    /// The rows of a value that is computed outside.
    fn entered(&mut self, node: NodeId, axis: usize) -> NodeId {
        if let Some(&known) = self.entered.get(&(node, axis)) {
            return known;
        }
        let rows = if self.is_computed_again(node, axis) {
            self.copied(node, Place::Axis(axis))
        } else {
            self.sliced(node, axis)
        };
        self.entered.insert((node, axis), rows);
        rows
    }

    /// Whether a chunk computes its rows of an outer value for itself: copies and indices, which are free, and what is made
    /// of them and is as large as the product.
    fn is_computed_again(&self, node: NodeId, axis: usize) -> bool {
        let ty = |node: NodeId| &self.graph.node(node).ty;
        match &self.graph.node(node).op {
            Op::Broadcast { .. } => true,
            Op::Iota { axis: counted, .. } => *counted != axis,
            Op::Permute { .. } | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::ToFloat | Op::ToInteger => {
                ty(node).elements() >= ty(self.rows.head).elements()
            }
            _ => false,
        }
    }

    fn sliced(&mut self, node: NodeId, axis: usize) -> NodeId {
        let front = moved(&mut self.graph, node, axis, 0);
        let shape = [&[self.count, self.extent()], &self.graph.shape(front)[1..]].concat();
        let chunks = self.graph.reshape(front, &shape);
        let chunk = self.graph.add(Op::Layer { scope: self.scope }, &[chunks]);
        moved(&mut self.graph, chunk, 0, axis)
    }

    /// What stands for a member outside: its chunks one after the other, or their sum.
    fn left(&mut self, member: NodeId) -> NodeId {
        let chunk = self.inside[&member];
        let Place::Axis(axis) = self.rows.members[&member] else {
            return self.graph.add(Op::SumInstances, &[chunk]);
        };
        let front = moved(&mut self.graph, chunk, axis, 0);
        let shape = [&[self.rows.extent], &self.graph.shape(front)[1..]].concat();
        let chunks = self.graph.add(Op::Stack { count: self.count }, &[front]);
        let whole = self.graph.reshape(chunks, &shape);
        moved(&mut self.graph, whole, 0, axis)
    }
}
