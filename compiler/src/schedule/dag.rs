//! The schedule's own copy of a graph: only what the outputs need, with operands inline, open to insertion.
//!
//! Ids are positions and grow from operands to users. Preparing a graph makes it schedulable without further cases:
//! whatever must lie in a buffer of its own is marked `stored`, sums of whole tensors are cut into chunks that can run in
//! parallel, and a scatter that is added to a fresh value accumulates onto it.

use super::pack::{self, Part};
use crate::graph::{Class, Graph, NodeId, Op, Output, ScopeId};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::{
    Target,
    ir::{Binary, DType, ReduceKind},
};

/// A node's position in a [`Dag`].
pub(super) type Id = usize;

/// Whole tensors are reduced in blocks of trailing axes with at least this many elements.
const BLOCK: u64 = 256;
/// A single axis is cut into chunks if it has at least this many elements.
const CHUNKED_FROM: u64 = 1 << 14;
/// Fewest elements of a slice for which launches in every instance are worth the traffic and memory of the stack. Unit tests
/// interpret what is scheduled: their tensors are small.
const CONSUMED_FROM: u64 = if cfg!(test) { 1 << 10 } else { 1 << 16 };
/// Most chunks of a single axis: enough for any number of threads, few enough to add up in one go.
const MAX_CHUNKS: u64 = 256;

/// An operation and what the schedule must know of it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The operation. A [`Op::Scatter`] may have a third operand: the value that it accumulates onto.
    pub op: Op,
    pub dtype: DType,
    pub shape: Vec<u64>,
    /// 0 is the root.
    pub scope: usize,
    pub operands: Vec<Id>,
    /// The pass of its scope before which it is not computed; see [`super::regions`].
    pub earliest: u32,
    /// Computed into a buffer, in row-major order, even if it were an index map of its users.
    pub stored: bool,
    /// The node of the graph that it comes from.
    pub origin: NodeId,
}

impl Node {
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }

    /// Whether it exists without being computed by a kernel of its own: what is read here lies somewhere already.
    pub fn is_buffer(&self) -> bool {
        self.op.facts().class == Class::Buffer
    }
}

#[derive(Clone, Debug)]
pub(super) struct Carry {
    pub init: Id,
    pub next: Id,
    pub reversed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub name: String,
    pub count: u64,
}

/// A graph, prepared for scheduling.
#[derive(Clone, Debug, Default)]
pub(super) struct Dag {
    pub nodes: Vec<Node>,
    pub scopes: Vec<Scope>,
    /// By [`Op::Carry`] node.
    pub carries: BTreeMap<Id, Carry>,
    pub outputs: Vec<(Output, Id)>,
    /// Where a value lies, if not in a buffer of its own.
    pub homes: BTreeMap<Id, Home>,
    /// Results of attention that are written as parts of another value.
    pub parts: BTreeMap<Id, Part>,
    /// Copies into tensors whose old value others still need: they share no kernel.
    pub late: BTreeSet<Id>,
}

/// A place for a value that is not a buffer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Its instance's slice of this [`Op::Stack`].
    Slice(Id),
    /// The buffer of this node, which accumulates onto it.
    Under(Id),
    /// The persistent tensor that it is the new value of.
    Tensor(Tensor),
}

/// A persistent tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tensor {
    /// By index into [`crate::program::Program::parameters`].
    Parameter(u32),
    /// By index into [`crate::program::Program::states`].
    State(u32),
}

impl Tensor {
    /// The tensor that an output is the new value of.
    pub fn of(output: &Output) -> Option<Tensor> {
        match output {
            Output::Parameter(index) => Some(Tensor::Parameter(*index)),
            Output::State(index) => Some(Tensor::State(*index)),
            Output::Report(_) => None,
        }
    }
}

/// How to prepare a graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    /// Fewest elements of a slice for which a stack is used up in its repeat; `None` if all are left to the root.
    pub consumed_from: Option<u64>,
    /// Tensors that are updated in the root, since updating a slice in its repeat would overwrite what is needed.
    pub rooted: BTreeSet<Tensor>,
    /// Tensors whose new value is computed elsewhere and copied, since updating in place would overwrite what is needed.
    pub copied: BTreeSet<Tensor>,
    /// Forward values that are computed again in the pass that needs them, by node of the graph.
    pub recomputed: BTreeSet<NodeId>,
    /// Values that lie in memory when nothing is recomputed.
    pub kept: BTreeSet<NodeId>,
    /// Whether all values are kept in f32: for comparison, since the types in memory change no result.
    pub wide: bool,
}

impl Choices {
    /// What is chosen before anything is known of the graph.
    pub fn of(target: Target) -> Choices {
        // On a device a launch for each instance would cost more than the traffic that it saves.
        let consumed_from = (target == Target::Cpu).then_some(CONSUMED_FROM);
        Choices { consumed_from, ..Choices::default() }
    }

    /// Takes note of tensors that cannot be updated where they were to be: each is updated in the root, or else copied.
    pub fn give_way(&mut self, conflicts: BTreeSet<Tensor>) {
        let known = self.copied.len() + self.rooted.len();
        for tensor in conflicts {
            if self.consumed_from.is_none() || !self.rooted.insert(tensor) {
                self.copied.insert(tensor);
            }
        }
        assert!(self.copied.len() + self.rooted.len() > known, "internal: a copied tensor still conflicts");
    }
}

impl Dag {
    /// Copies what the outputs of `graph` need and prepares it.
    pub fn new(graph: &Graph, choices: &Choices) -> Dag {
        let mut dag = super::consume::consumed(Dag::import(graph).rebuilt(chunk_sums), choices);
        if !choices.recomputed.is_empty() {
            dag = super::recompute::cloned(&dag, &choices.recomputed, &choices.kept);
        }
        dag = dag.rebuilt(stage_exits);
        dag.accumulate_scatters();
        pack::pack(&mut dag);
        dag.store_what_scopes_need();
        dag.store_outputs(choices);
        dag
    }

    fn import(graph: &Graph) -> Dag {
        let live = graph.live();
        let scopes = graph.scopes().map(|(_, scope)| Scope { name: scope.name.clone(), count: scope.count });
        let mut dag = Dag { scopes: scopes.collect(), ..Dag::default() };
        let mut moved: BTreeMap<NodeId, Id> = BTreeMap::new();
        for id in graph.ids().filter(|id| live[id.index()]) {
            let operands = graph.operands(id).iter().map(|operand| moved[operand]).collect();
            moved.insert(id, dag.nodes.len());
            dag.nodes.push(imported(graph, id, operands));
        }
        for (&id, &position) in moved.iter().filter(|(id, _)| matches!(graph.node(**id).op, Op::Carry { .. })) {
            let carry = graph.carry(id);
            let next = carry.next.expect("every carry of a finished graph is closed");
            let carry = Carry { init: moved[&carry.init], next: moved[&next], reversed: carry.reversed };
            dag.carries.insert(position, carry);
        }
        dag.outputs = graph.outputs().iter().map(|(output, id)| (output.clone(), moved[id])).collect();
        dag
    }

    /// The same graph with each node put in by `insert`, which is given the new graph and the node with its operands
    /// there, and says which node now stands for it.
    pub fn rebuilt(&self, mut insert: impl FnMut(&mut Dag, Node) -> Id) -> Dag {
        let mut dag = Dag { scopes: self.scopes.clone(), ..Dag::default() };
        let mut moved: Vec<Id> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let operands = node.operands.iter().map(|&operand| moved[operand]).collect();
            let new = insert(&mut dag, Node { operands, ..node.clone() });
            moved.push(new);
        }
        dag.adopt(self, &moved);
        dag
    }

    /// Takes over carries and outputs of the graph that this one was made from.
    pub fn adopt(&mut self, old: &Dag, moved: &[Id]) {
        let carry = |carry: &Carry| Carry { init: moved[carry.init], next: moved[carry.next], ..carry.clone() };
        self.carries = old.carries.iter().map(|(&node, old)| (moved[node], carry(old))).collect();
        self.outputs = old.outputs.iter().map(|(output, id)| (output.clone(), moved[*id])).collect();
    }

    /// Adds a node.
    pub fn push(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Users by node, ascending, each once.
    pub fn users(&self) -> Vec<Vec<Id>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            let operands: BTreeSet<Id> = node.operands.iter().copied().collect();
            operands.into_iter().for_each(|operand| users[operand].push(id));
        }
        users
    }

    /// Nodes that outputs and carries name.
    pub fn named(&self) -> BTreeSet<Id> {
        let carried = self.carries.values().flat_map(|carry| [carry.init, carry.next]);
        self.outputs.iter().map(|(_, id)| *id).chain(carried).collect()
    }

    /// The node in whose buffer a value lies, row-major: through operations that only rename shapes.
    pub fn storage(&self, mut id: Id) -> Id {
        while matches!(self.nodes[id].op, Op::Reshape { .. } | Op::StopGradient) && !self.nodes[id].stored {
            id = self.nodes[id].operands[0];
        }
        id
    }

    /// `a + scatter(ids, updates)` becomes a scatter onto `a`, where nothing else needs the two.
    fn accumulate_scatters(&mut self) {
        let users = self.users();
        let needed = self.named();
        let alone = |id: Id| users[id].len() == 1 && !needed.contains(&id);
        for id in 0..self.nodes.len() {
            let [a, b] = self.nodes[id].operands[..] else { continue };
            if self.nodes[id].op != Op::Binary(Binary::Add) || a == b {
                continue;
            }
            let is_scatter =
                |x: Id| matches!(self.nodes[x].op, Op::Scatter { .. }) && self.nodes[x].operands.len() == 2;
            let (scatter, base) = if is_scatter(b) { (b, a) } else { (a, b) };
            let fresh = matches!(self.nodes[base].op, Op::Contract(_) | Op::Scatter { .. } | Op::SumInstances);
            let together =
                self.nodes[base].scope == self.nodes[id].scope && self.nodes[scatter].scope == self.nodes[id].scope;
            if is_scatter(scatter) && fresh && together && alone(scatter) && alone(base) {
                self.nodes[id].op = self.nodes[scatter].op.clone();
                self.nodes[id].operands = [&self.nodes[scatter].operands[..], &[base]].concat();
                self.nodes[base].stored |= !self.nodes[base].is_buffer();
                self.nodes[scatter].op = Op::constant(0.0);
                self.nodes[scatter].operands.clear();
                self.homes.insert(base, Home::Under(id));
            }
        }
    }

    /// Marks what must lie in a buffer because others refer to the buffer: initial, carried and sliced values.
    fn store_what_scopes_need(&mut self) {
        let carried: Vec<Id> = self.carries.values().flat_map(|carry| [carry.init, carry.next]).collect();
        let is_layer = |node: &&Node| matches!(node.op, Op::Layer { .. });
        let sliced: Vec<Id> = self.nodes.iter().filter(is_layer).map(|node| node.operands[0]).collect();
        carried.into_iter().chain(sliced).for_each(|id| self.store(id));
    }

    fn store(&mut self, id: Id) {
        let storage = self.storage(id);
        if !self.nodes[storage].is_buffer() {
            self.nodes[storage].stored = true;
        }
    }

    /// Gives every output a buffer: new values of tensors that of the tensor itself, unless they are to be copied.
    fn store_outputs(&mut self, choices: &Choices) {
        for position in 0..self.outputs.len() {
            let (output, id) = self.outputs[position].clone();
            let mut storage = self.storage(id);
            let tensor = Tensor::of(&output);
            if tensor.is_some() && tensor == self.tensor(storage) {
                continue;
            }
            let is_stack = matches!(self.nodes[storage].op, Op::Stack { .. });
            let taken = self.homes.contains_key(&storage) || (self.nodes[storage].is_buffer() && !is_stack);
            let copied = tensor.is_some_and(|tensor| choices.copied.contains(&tensor) || taken);
            let fleeting = tensor.is_none()
                && matches!(self.nodes[storage].op, Op::Parameter { .. } | Op::State { .. } | Op::Input { .. });
            // In a buffer, for the kernel that copies must not compute it from elements that it has overwritten. What is the
            // old value of another tensor may itself be overwritten first.
            if tensor.is_some_and(|tensor| choices.copied.contains(&tensor)) && self.nodes[storage].is_buffer() {
                storage = self.copy(storage);
            } else if copied {
                self.store(storage);
            }
            let value = if copied || fleeting { self.copy(storage) } else { storage };
            self.store(value);
            self.outputs[position].1 = value;
            if let Some(tensor) = tensor {
                self.homes.insert(value, Home::Tensor(tensor));
                self.late.extend(Some(value).filter(|_| choices.copied.contains(&tensor)));
            }
        }
    }

    /// Adds a node that computes a copy of a value.
    fn copy(&mut self, id: Id) -> Id {
        let node = Node { op: Op::StopGradient, operands: vec![id], stored: true, ..self.nodes[id].clone() };
        self.push(node)
    }

    /// The persistent tensor that a computed value overwrites, whole or by its instance's slice.
    pub fn updated(&self, id: Id) -> Option<Tensor> {
        match *self.homes.get(&id)? {
            Home::Tensor(tensor) => Some(tensor),
            Home::Slice(stack) => self.updated(stack),
            Home::Under(_) => None,
        }
    }

    /// The persistent tensor whose slice a node reads.
    pub fn sliced(&self, id: Id) -> Option<Tensor> {
        let is_layer = matches!(self.nodes[id].op, Op::Layer { .. });
        is_layer.then(|| self.tensor(self.storage(self.nodes[id].operands[0])))?
    }

    /// The persistent tensor that a node reads.
    pub fn tensor(&self, id: Id) -> Option<Tensor> {
        match self.nodes[id].op {
            Op::Parameter { index, .. } => Some(Tensor::Parameter(index)),
            Op::State { index, .. } => Some(Tensor::State(index)),
            _ => None,
        }
    }
}

fn imported(graph: &Graph, id: NodeId, operands: Vec<Id>) -> Node {
    let node = graph.node(id);
    let ScopeId(scope) = node.scope;
    Node {
        op: node.op.clone(),
        dtype: node.ty.dtype,
        shape: node.ty.shape.clone(),
        scope: scope as usize,
        operands,
        earliest: 0,
        stored: false,
        origin: id,
    }
}

/// Cuts a sum or maximum of all elements in two: of each block, and of the blocks. The first axis is never part of a
/// block, so that depth, which is the first axis of stacked tensors, does not decide which kernels there are.
fn chunk_sums(dag: &mut Dag, node: Node) -> Id {
    let Op::Reduce { kind, axes } = &node.op else { return dag.push(node) };
    let shape = dag.nodes[node.operands[0]].shape.clone();
    if axes.len() != shape.len() || *kind == ReduceKind::ArgMax {
        return dag.push(node);
    }
    let (operand, shape) = if shape.len() == 1 { chunked(dag, node.operands[0]) } else { (node.operands[0], shape) };
    let is_block = |first: &usize| shape[*first..].iter().product::<u64>() >= BLOCK;
    let Some(first) = (1..shape.len()).rev().find(is_block) else { return dag.push(node) };
    let reduce = |axes: std::ops::Range<usize>| Op::Reduce { kind: *kind, axes: axes.collect() };
    let blocks = shape[..first].to_vec();
    let op = reduce(first..shape.len());
    let blocks = dag.push(Node { op, shape: blocks, operands: vec![operand], ..node.clone() });
    dag.push(Node { op: reduce(0..first), operands: vec![blocks], ..node.clone() })
}

/// A long vector as chunks of equal length, if it has a suitable divisor.
fn chunked(dag: &mut Dag, id: Id) -> (Id, Vec<u64>) {
    let vector = dag.nodes[id].clone();
    let elements = vector.elements();
    let chunks = (1..=MAX_CHUNKS).rev().find(|&chunks| elements.is_multiple_of(chunks)).unwrap_or(1);
    if elements < CHUNKED_FROM || chunks == 1 {
        return (id, vector.shape);
    }
    let shape = vec![chunks, elements / chunks];
    let op = Op::Reshape { shape: shape.clone() };
    let reshaped = Node { op, shape: shape.clone(), stored: false, operands: vec![id], ..vector };
    (dag.push(reshaped), shape)
}

/// Has stacked values computed straight into the stack, and summed ones by a kernel that adds them up.
fn stage_exits(dag: &mut Dag, mut node: Node) -> Id {
    if !matches!(node.op, Op::Stack { .. } | Op::SumInstances) {
        return dag.push(node);
    }
    let storage = dag.storage(node.operands[0]);
    let stacked = matches!(node.op, Op::Stack { .. });
    let taken = dag.nodes[storage].is_buffer() || (stacked && dag.homes.contains_key(&storage));
    let value = if taken { dag.copy(storage) } else { storage };
    dag.nodes[value].stored = true;
    node.operands = vec![value];
    let exit = dag.push(node);
    if stacked {
        dag.homes.insert(value, Home::Slice(exit));
    }
    exit
}
