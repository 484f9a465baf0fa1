//! Canonicalisation: the destructive part of rewriting, before any e-graph.
//!
//! Here belong the equalities that never need a choice: dead code, common subexpressions, constants, zeros and ones,
//! chains of shape operations, shape operations that a contraction absorbs in its labels. The result is smaller, costs
//! nothing to find, and gives the rules of the e-graph fewer forms to recognise.
//!
//! Every operation goes through [`Builder::build`], which returns an equal node in canonical form; since operands are
//! canonical already, one pass over a graph does nearly all, and passes are repeated until nothing changes.
//!
//! Sums are kept as written: addition is neither commuted nor reassociated (a residual stream is a sum as long as the
//! network is deep, and its rearrangements are exponentially many).

mod arithmetic;
mod contraction;
mod reduction;
mod shape;

use crate::{
    graph::{Graph, NodeId, Op, Output, ScopeId, TensorType},
    source::Span,
};
use std::collections::HashMap;
use trainc_kernels::ir::{Binary, Precision};

/// Passes over the graph after which canonicalisation gives up looking for a fixed point. Two suffice for all graphs seen;
/// what a further pass would find is only an opportunity missed.
const MOST_PASSES: usize = 8;

/// The canonical graph equal to this one. `precision` is what newly recognised contractions round their factors to.
pub fn canonicalise(graph: &Graph, precision: Precision) -> Graph {
    let mut current = rebuild(graph, precision);
    for _ in 1..MOST_PASSES {
        let next = rebuild(&current, precision);
        let fixed = same(&current, &next);
        current = next;
        if fixed {
            break;
        }
    }
    current
}

fn same(a: &Graph, b: &Graph) -> bool {
    a.len() == b.len() && a.ids().all(|id| a.node(id).op == b.node(id).op && a.operands(id) == b.operands(id))
}

/// Copies what is alive through the builder.
fn rebuild(graph: &Graph, precision: Precision) -> Graph {
    let live = graph.live();
    let mut builder = Builder::new(graph, precision);
    let mut images: Vec<Option<NodeId>> = vec![None; graph.len()];
    let mut open = Vec::new();
    for id in graph.ids().filter(|id| live[id.index()]) {
        let operands: Vec<NodeId> = graph.operands(id).iter().map(|x| image(&images, *x)).collect();
        builder.span = graph.node(id).span;
        images[id.index()] = Some(match graph.node(id).op {
            Op::Carry { .. } if graph.carry(id).next == Some(id) => operands[0],
            Op::Carry { scope, .. } => {
                let carry = builder.carry(scope, operands[0], graph.carry(id).reversed);
                open.push((carry, graph.carry(id).next));
                carry
            }
            Op::SumInstances => builder.sum_instances(operands[0], instances(graph, graph.operands(id)[0])),
            _ => builder.build(graph.node(id).op.clone(), &operands),
        });
    }
    for (carry, next) in open {
        let next = next.unwrap_or_else(|| panic!("internal: carry without next"));
        builder.graph.set_next(carry, image(&images, next));
    }
    builder.finish(graph.outputs().iter().map(|(output, node)| (output.clone(), image(&images, *node))))
}

fn image(images: &[Option<NodeId>], node: NodeId) -> NodeId {
    images[node.index()].unwrap_or_else(|| panic!("internal: {node:?} used before it is built"))
}

/// Number of instances of the scope that a node lives in.
pub(super) fn instances(graph: &Graph, node: NodeId) -> u64 {
    graph.scope(graph.node(node).scope).count
}

/// Builds a graph whose nodes are canonical: asked for an operation, it returns a node that is equal to it, known
/// already where possible.
pub(super) struct Builder {
    pub(super) graph: Graph,
    known: HashMap<(Op, Vec<NodeId>), NodeId>,
    /// Where the operations asked for come from.
    pub(super) span: Option<Span>,
    precision: Precision,
}

impl Builder {
    /// An empty graph with the scopes of `template`.
    pub(super) fn new(template: &Graph, precision: Precision) -> Self {
        let mut graph = Graph::new(template.scope(ScopeId::ROOT).name.clone());
        for (_, scope) in template.scopes().skip(1) {
            graph.add_scope(scope.name.clone(), scope.count);
        }
        Self { graph, known: HashMap::new(), span: None, precision }
    }

    /// Declares the outputs and hands the graph over.
    pub(super) fn finish(mut self, outputs: impl Iterator<Item = (Output, NodeId)>) -> Graph {
        for (output, node) in outputs {
            self.graph.set_output(output, node);
        }
        self.graph
    }

    /// A canonical node equal to `op` on these operands.
    pub(super) fn build(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        if let Some(known) = self.lookup(&op, operands) {
            return known;
        }
        let node = self.simplify(&op, operands).unwrap_or_else(|| self.insert(op.clone(), operands));
        self.known.insert((op, operands.to_vec()), node);
        node
    }

    /// A carried value; two are never one, since what they become is not known yet.
    pub(super) fn carry(&mut self, scope: ScopeId, init: NodeId, reversed: bool) -> NodeId {
        let carry = self.graph.add_carry(scope, init, reversed);
        self.graph.set_span(carry, self.span);
        carry
    }

    /// The sum over `count` instances of a value that may have turned out to be one for all of them.
    pub(super) fn sum_instances(&mut self, value: NodeId, count: u64) -> NodeId {
        if self.graph.node(value).scope != ScopeId::ROOT {
            return self.build(Op::SumInstances, &[value]);
        }
        let count = self.fill(count as f64, &self.ty(value));
        self.build(Op::Binary(Binary::Mul), &[value, count])
    }

    fn insert(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        let node = self.graph.add(op, operands);
        self.graph.set_span(node, self.span);
        node
    }

    fn lookup(&self, op: &Op, operands: &[NodeId]) -> Option<NodeId> {
        let key = (op.clone(), operands.to_vec());
        self.known.get(&key).copied().or_else(|| {
            let &[x, y] = operands else { return None };
            commutes(op).then(|| self.known.get(&(key.0, vec![y, x])).copied()).flatten()
        })
    }

    /// An equal node in simpler form, if this operation on canonical operands is not canonical.
    fn simplify(&mut self, op: &Op, x: &[NodeId]) -> Option<NodeId> {
        match op {
            Op::StopGradient => Some(x[0]),
            Op::Unary(f) => self.unary(*f, x[0]),
            Op::Binary(f) => self.binary(*f, x[0], x[1]),
            Op::Select => self.select(x[0], x[1], x[2]),
            Op::ToFloat | Op::ToInteger => self.convert(op, x[0]),
            Op::Broadcast { axes, shape } => self.broadcast(axes, shape, x[0]),
            Op::Reshape { shape } => self.reshape(shape, x[0]),
            Op::Permute { axes } => self.permute(axes, x[0]),
            Op::Slice { axis, start, length } => self.slice(*axis, *start, *length, x[0]),
            Op::Pad { axis, before, after } => self.pad(*axis, *before, *after, x[0]),
            Op::Concat { axis } => self.concat(*axis, x),
            Op::Reduce { kind, axes } => self.reduce(*kind, axes, x[0]),
            Op::Contract(contraction) => self.contract(contraction, x[0], x[1]),
            Op::Stack { count } => self.stack(*count, x[0]),
            Op::Last => self.last(x[0]),
            _ => None,
        }
    }

    /// A value that all instances share, stacked, is a broadcast.
    fn stack(&mut self, count: u64, value: NodeId) -> Option<NodeId> {
        if self.graph.node(value).scope != ScopeId::ROOT {
            return None;
        }
        let axes = (1..=self.graph.shape(value).len()).collect();
        let shape = std::iter::once(count).chain(self.graph.shape(value).iter().copied()).collect();
        Some(self.build(Op::Broadcast { axes, shape }, &[value]))
    }

    /// The last of a carry that turned out to keep its initial value.
    fn last(&self, carry: NodeId) -> Option<NodeId> {
        (!matches!(self.graph.node(carry).op, Op::Carry { .. })).then_some(carry)
    }

    fn ty(&self, node: NodeId) -> TensorType {
        self.graph.node(node).ty.clone()
    }

    fn op(&self, node: NodeId) -> &Op {
        &self.graph.node(node).op
    }

    fn shape(&self, node: NodeId) -> &[u64] {
        self.graph.shape(node)
    }

    /// The only operand of a node.
    fn operand(&self, node: NodeId) -> NodeId {
        self.graph.operands(node)[0]
    }

    /// The tensor whose elements all have this value.
    fn fill(&mut self, value: f64, ty: &TensorType) -> NodeId {
        let constant = self.build(Op::Constant { value: value.into(), dtype: ty.dtype }, &[]);
        self.build(Op::Broadcast { axes: Vec::new(), shape: ty.shape.clone() }, &[constant])
    }

    /// The one value of all elements, if that is known.
    fn uniform(&self, node: NodeId) -> Option<f64> {
        match self.op(node) {
            Op::Constant { value, .. } => Some(value.get()),
            Op::Broadcast { axes, .. } if axes.is_empty() => self.uniform(self.operand(node)),
            _ => None,
        }
    }

    /// The operand and axes of a node that is a broadcast.
    fn as_broadcast(&self, node: NodeId) -> Option<(Vec<usize>, NodeId)> {
        match self.op(node) {
            Op::Broadcast { axes, .. } => Some((axes.clone(), self.operand(node))),
            _ => None,
        }
    }
}

/// Whether `f(x, y) = f(y, x)` bit for bit.
fn commutes(op: &Op) -> bool {
    matches!(op, Op::Binary(Binary::Add | Binary::Mul | Binary::Max | Binary::Min | Binary::Equal))
}

#[cfg(test)]
mod tests;
