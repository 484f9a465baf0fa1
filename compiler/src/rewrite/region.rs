//! Regions: what one e-graph holds.
//!
//! A region is the pure part of one scope: its operations, forward and backward jointly, since what one computes the other
//! shares. Values that enter (parameters, inputs, draws, slices of stacks, carries, results of other scopes, root values)
//! are leaves. A root value made of constants and indices alone, such as a mask, is imported as a term, and so is the copying
//! of a root value along new axes, so that rules can see what it is. A repeat's region stands for all its instances: its size does not depend on their number.

use super::language::{Egraph, Symbol, Term, Types};
use crate::graph::{Graph, NodeId, Op, ScopeId};
use egg::{EGraph, Id};
use std::collections::BTreeMap;

/// A scope's e-graph with the way back to the graph.
pub struct Region {
    /// Its scope.
    pub scope: ScopeId,
    /// The e-graph.
    pub egraph: Egraph,
    /// The graph's node behind each leaf.
    pub leaves: Vec<NodeId>,
    /// The e-graph's id (not canonical, so that explanations start from the source) of each node of the region.
    pub ids: BTreeMap<NodeId, Id>,
    /// Nodes of the region whose values are used outside of it.
    pub roots: Vec<NodeId>,
}

/// Whether an operation is a function of its operands alone, with one result.
pub fn is_term(op: &Op) -> bool {
    !matches!(
        op,
        Op::Input { .. }
            | Op::Parameter { .. }
            | Op::State { .. }
            | Op::Control(_)
            | Op::Random { .. }
            | Op::Layer { .. }
            | Op::Carry { .. }
            | Op::Last
            | Op::Stack { .. }
            | Op::SumInstances
            | Op::Attention(_)
            | Op::AttentionBackward(_)
            | Op::Project { .. }
    )
}

/// One region for each scope that has operations.
pub fn regions(graph: &Graph, live: &[bool]) -> Vec<Region> {
    let closed = closed(graph);
    let outside = used_outside(graph, live, &closed);
    let scopes: Vec<ScopeId> = graph.scopes().map(|(scope, _)| scope).collect();
    scopes.into_iter().map(|scope| Region::new(graph, scope, live, &closed, &outside)).collect()
}

/// Which nodes are made of constants and indices alone.
fn closed(graph: &Graph) -> Vec<bool> {
    let mut closed = vec![false; graph.len()];
    for id in graph.ids() {
        let known = is_term(&graph.node(id).op) && graph.node(id).scope == ScopeId::ROOT;
        closed[id.index()] = known && graph.operands(id).iter().all(|x| closed[x.index()]);
    }
    closed
}

/// Which nodes have users that are not operations of their own region, or are outputs or handed on by carries.
fn used_outside(graph: &Graph, live: &[bool], closed: &[bool]) -> Vec<bool> {
    let mut outside = vec![false; graph.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        let node = graph.node(id);
        for operand in graph.operands(id) {
            let foreign = graph.node(operand).scope != node.scope && !closed[operand.index()];
            outside[operand.index()] |= foreign || !is_term(&node.op);
            if foreign && is_copy(graph, operand) {
                outside[copied(graph, operand).index()] = true;
            }
        }
        if matches!(node.op, Op::Carry { .. })
            && let Some(next) = graph.carry(id).next
        {
            outside[next.index()] = true;
        }
    }
    for &(_, node) in graph.outputs() {
        outside[node.index()] = true;
    }
    outside
}

/// Whether a value is a root one, copied along new axes. Within a repeat such a copy is imported as a term, for rules to see
/// along which axes the value is the same: copying costs nothing.
fn is_copy(graph: &Graph, node: NodeId) -> bool {
    graph.node(node).scope == ScopeId::ROOT && matches!(graph.node(node).op, Op::Broadcast { .. })
}

/// What a copy is of.
fn copied(graph: &Graph, mut node: NodeId) -> NodeId {
    while is_copy(graph, node) {
        node = graph.operands(node)[0];
    }
    node
}

impl Region {
    fn new(graph: &Graph, scope: ScopeId, live: &[bool], closed: &[bool], outside: &[bool]) -> Self {
        let egraph = EGraph::new(Types::default()).with_explanations_enabled();
        let mut region = Self { scope, egraph, leaves: Vec::new(), ids: BTreeMap::new(), roots: Vec::new() };
        for id in graph.ids().filter(|id| live[id.index()] && graph.node(*id).scope == scope) {
            region.import(graph, id, closed);
            if outside[id.index()] && is_term(&graph.node(id).op) {
                region.roots.push(id);
            }
        }
        region.egraph.rebuild();
        region
    }

    /// The e-graph's ids of all nodes of the region.
    pub fn source(&self) -> Vec<Id> {
        self.ids.values().copied().collect()
    }

    /// The e-graph's ids of the nodes that are used outside.
    pub fn roots(&self) -> Vec<Id> {
        self.roots.iter().map(|root| self.ids[root]).collect()
    }

    /// The e-graph's id of a node, which is added if it is new. Operands within the region are there already, but for
    /// closed values of the root.
    fn import(&mut self, graph: &Graph, node: NodeId, closed: &[bool]) -> Id {
        if let Some(&id) = self.ids.get(&node) {
            return id;
        }
        let inside = graph.node(node).scope == self.scope || closed[node.index()] || is_copy(graph, node);
        let op = &graph.node(node).op;
        let term = if inside && is_term(op) {
            let operands = graph.operands(node);
            let children: Vec<Id> = operands.into_iter().map(|x| self.import(graph, x, closed)).collect();
            Term::new(Symbol::Op(op.clone()), children)
        } else {
            self.egraph.analysis.leaves.push(graph.node(node).ty.clone());
            self.leaves.push(node);
            Term::new(Symbol::Leaf(self.leaves.len() as u32 - 1), [])
        };
        let id = self.egraph.add_uncanonical(term);
        self.ids.insert(node, id);
        id
    }
}
