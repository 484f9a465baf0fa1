//! The dataflow graph: few primitive operations on typed tensors, kept in a petgraph DAG.
//!
//! A training step is one graph. Values are pure: parameters and state are read at the start of the step and their new
//! values are outputs; where they are stored, and that they are updated in place, is decided by the schedule.
//!
//! # Repeats
//!
//! A `repeat` is not unrolled. Its nodes live in a [`Scope`] and stand for `count` instances each, numbered from 0:
//!
//! * [`Op::Layer`] reads slice i of a stacked tensor `[count, ...]` in instance i;
//! * [`Op::Carry`] is what an instance receives from the one before: `init` in the first, else `next` of the
//!   previous instance (of the following one if the carry is `reversed`, as in backward passes);
//! * a node in a scope may use any root node directly (the same value in every instance);
//! * out of a scope lead only [`Op::Last`] (the `next` of a carry after the last instance; after instance 0
//!   if it is reversed), [`Op::Stack`] (all
//!   instances, stacked) and [`Op::SumInstances`] (their sum, in the order of instances).
//!
//! Nested repeats are unrolled into the body of the outer one when the graph is built. So the graph's size, and all work
//! on it, is independent of depth.

mod builder;
mod differentiate;
mod display;
mod facts;
mod interpret;
mod lift;
mod op;
mod ops;
mod order;
mod per_sample;
mod prune;
mod rows;
mod samples;
mod substitute;
mod tensor;
mod totals;
mod value;
mod verify;
mod work;

pub use differentiate::{NotDifferentiable, differentiate, per_sample_vjp, vjp};
pub use facts::{Arithmetic, Class, Facts, Moves, Traffic};
pub use interpret::{Bindings, Evaluation, InterpretError, Rounding, interpret};
pub use op::{AttentionSpec, Contraction, ControlField, Mask, Op};
pub use ops::{Doc, docs};
pub use rows::Rows;
pub use samples::{Coupled, Place, Samples};
pub use substitute::{Substitution, substitute};
pub use tensor::{MAX_ELEMENTS, MAX_RANK, Real, ShapeError, TensorType};
pub use totals::{Split, Twin, split};
pub use value::Tensor;
pub use work::Work;

#[cfg(test)]
pub mod arbitrary;
#[cfg(test)]
mod tests;

use crate::source::Span;
use petgraph::{Direction, graph::DiGraph, visit::EdgeRef};
use std::collections::BTreeSet;

/// A node of a [`Graph`]. Ids grow along the edges: operands have smaller ids than their users.
pub type NodeId = petgraph::graph::NodeIndex<u32>;

/// Which scope a node lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub u32);

impl ScopeId {
    /// The scope outside all repeats.
    pub const ROOT: ScopeId = ScopeId(0);
}

/// A set of nodes that run once per instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// For people, e.g. `block`; the root is called `step`, `evaluate`, `generate`.
    pub name: String,
    /// Number of instances; 1 for the root.
    pub count: u64,
    /// Values handed from instance to instance.
    pub carries: Vec<Carry>,
}

/// A value handed from one instance of a scope to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carry {
    /// The [`Op::Carry`] node: what an instance receives.
    pub node: NodeId,
    /// What the first instance receives (the last one if `reversed`); a root node.
    pub init: NodeId,
    /// What an instance hands on; a node of the scope or of the root. `None` only while the scope is being built.
    pub next: Option<NodeId>,
    /// Instances run from `count - 1` down to 0.
    pub reversed: bool,
}

/// A node: one operation and what is known of its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Type of the result (of the first one, for operations with several; see [`Op::Project`]).
    pub ty: TensorType,
    /// Where it lives.
    pub scope: ScopeId,
    /// The source it comes from.
    pub span: Option<Span>,
}

/// What a graph yields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// The new value of a parameter (index into [`crate::program::Program::parameters`]).
    Parameter(u32),
    /// The new value of a state (index into [`crate::program::Program::states`]).
    State(u32),
    /// Something the host reads: `loss`, `grad_norm`, `rate`, a metric, `logits`.
    Report(String),
}

/// A dataflow graph. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Graph {
    dag: DiGraph<Node, u32>,
    scopes: Vec<Scope>,
    outputs: Vec<(Output, NodeId)>,
}

impl Graph {
    /// An empty graph whose root scope has this name.
    pub fn new(name: impl Into<String>) -> Self {
        let root = Scope { name: name.into(), count: 1, carries: Vec::new() };
        Self { dag: DiGraph::new(), scopes: vec![root], outputs: Vec::new() }
    }

    /// Adds an operation on operands that are in the graph, inferring type and scope.
    ///
    /// # Errors
    /// If the operation does not apply to these operand types.
    pub fn try_add(&mut self, op: Op, operands: &[NodeId], span: Option<Span>) -> Result<NodeId, ShapeError> {
        let ty = self.type_of(&op, operands)?;
        let scope = self.scope_of(&op, operands);
        let node = self.dag.add_node(Node { op, ty, scope, span });
        for (position, &operand) in operands.iter().enumerate() {
            self.dag.add_edge(operand, node, position as u32);
        }
        Ok(node)
    }

    /// Adds an operation that is known to apply; panics otherwise. For passes that build on checked graphs.
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let shown = format!("{op:?}");
        self.try_add(op, operands, None).unwrap_or_else(|error| panic!("internal: {shown}: {error}"))
    }

    /// Type of an operation's result on operands that are in the graph.
    fn type_of(&self, op: &Op, operands: &[NodeId]) -> Result<TensorType, ShapeError> {
        match op {
            Op::Project { index } => self.projected_type(*index, operands),
            _ => op.infer(&self.types(operands)),
        }
    }

    fn types(&self, nodes: &[NodeId]) -> Vec<&TensorType> {
        nodes.iter().map(|&node| &self.node(node).ty).collect()
    }

    fn projected_type(&self, index: u32, operands: &[NodeId]) -> Result<TensorType, ShapeError> {
        let &[whole] = operands else { return Err(ShapeError("project takes 1 operand".into())) };
        let results = self.node(whole).op.results(&self.types(&self.operands(whole)))?;
        let name = self.node(whole).op.name();
        results.into_iter().nth(index as usize).ok_or_else(|| ShapeError(format!("{name} has no result {index}")))
    }

    /// Where a node lives: in the scope of its operands, unless it leads into or out of one.
    fn scope_of(&self, op: &Op, operands: &[NodeId]) -> ScopeId {
        match op {
            Op::Layer { scope } | Op::Carry { scope, .. } | Op::Random { scope, .. } => *scope,
            Op::Last | Op::Stack { .. } | Op::SumInstances => ScopeId::ROOT,
            _ => operands.iter().map(|&operand| self.node(operand).scope).max().unwrap_or(ScopeId::ROOT),
        }
    }

    /// Opens a scope of `count` instances.
    pub fn add_scope(&mut self, name: impl Into<String>, count: u64) -> ScopeId {
        self.scopes.push(Scope { name: name.into(), count, carries: Vec::new() });
        ScopeId(self.scopes.len() as u32 - 1)
    }

    /// Adds a carried value; its `next` is set by [`Graph::set_next`] when the body is built.
    pub fn add_carry(&mut self, scope: ScopeId, init: NodeId, reversed: bool) -> NodeId {
        let index = self.scopes[scope.0 as usize].carries.len() as u32;
        let node = self.add(Op::Carry { scope, index }, &[init]);
        self.scopes[scope.0 as usize].carries.push(Carry { node, init, next: None, reversed });
        node
    }

    /// Closes a carry: says what an instance hands on.
    pub fn set_next(&mut self, carry: NodeId, next: NodeId) {
        let Op::Carry { scope, index } = self.node(carry).op else { panic!("internal: not a carry: {carry:?}") };
        self.scopes[scope.0 as usize].carries[index as usize].next = Some(next);
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id]
    }

    /// Shape of a node's result.
    pub fn shape(&self, id: NodeId) -> &[u64] {
        &self.node(id).ty.shape
    }

    /// Operands of a node, in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(u32, NodeId)> =
            self.dag.edges_directed(id, Direction::Incoming).map(|edge| (*edge.weight(), edge.source())).collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, operand)| operand).collect()
    }

    /// Nodes that use this one as an operand, ascending, each once. Carries' `next` and outputs are not among them.
    pub fn users(&self, id: NodeId) -> Vec<NodeId> {
        let mut users: Vec<NodeId> = self.dag.neighbors_directed(id, Direction::Outgoing).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// All ids, operands before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.dag.node_count() as u32).map(NodeId::from)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.dag.node_count() == 0
    }

    /// All scopes, the root first.
    pub fn scopes(&self) -> impl Iterator<Item = (ScopeId, &Scope)> {
        self.scopes.iter().enumerate().map(|(i, scope)| (ScopeId(i as u32), scope))
    }

    /// The scope with this id.
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.0 as usize]
    }

    /// The carry that an [`Op::Carry`] node belongs to.
    pub fn carry(&self, node: NodeId) -> &Carry {
        let Op::Carry { scope, index } = self.node(node).op else { panic!("internal: not a carry: {node:?}") };
        &self.scope(scope).carries[index as usize]
    }

    /// What the graph yields, in order of declaration.
    pub fn outputs(&self) -> &[(Output, NodeId)] {
        &self.outputs
    }

    /// The nodes of the outputs.
    pub fn output_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.outputs.iter().map(|&(_, node)| node)
    }

    /// Nodes that outputs and carries name.
    pub fn named(&self) -> BTreeSet<NodeId> {
        let carries = self.scopes.iter().flat_map(|scope| &scope.carries);
        self.output_nodes().chain(carries.flat_map(|carry| [Some(carry.init), carry.next]).flatten()).collect()
    }

    /// Declares an output; a later declaration of the same output replaces an earlier one.
    pub fn set_output(&mut self, output: Output, node: NodeId) {
        match self.outputs.iter_mut().find(|(known, _)| *known == output) {
            Some(entry) => entry.1 = node,
            None => self.outputs.push((output, node)),
        }
    }

    /// The node of an output.
    pub fn output(&self, output: &Output) -> Option<NodeId> {
        self.outputs.iter().find(|(known, _)| known == output).map(|&(_, node)| node)
    }

    /// The graph of these outputs alone, without what none of them needs.
    pub fn yielding(&self, outputs: Vec<(Output, NodeId)>) -> Graph {
        Graph { outputs, ..self.clone() }.prune().0
    }

    /// The graph under another name.
    pub fn renamed(mut self, name: &str) -> Graph {
        self.scopes[0].name = name.into();
        self
    }

    /// The underlying petgraph DAG, for its algorithms. Edge weights are operand positions.
    pub fn dag(&self) -> &DiGraph<Node, u32> {
        &self.dag
    }

    /// Remembers the source of a node.
    pub fn set_span(&mut self, id: NodeId, span: Option<Span>) {
        self.dag[id].span = span;
    }
}
