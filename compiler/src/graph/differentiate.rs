//! Reverse-mode differentiation on the graph.
//!
//! Nodes are visited in reverse order of computation; each visit adds up what its users sent, and sends on to the
//! operands. Only nodes on a path from `wrt` to the outputs are visited.
//!
//! The gradient of a node of a scope is a node of the same scope: in instance i it is the gradient of that instance.
//! Where values cross instances, gradients cross them the other way:
//!
//! * what flows back into the `next` of a carry is itself a carry that runs the other way. It starts from the gradient
//!   of [`Op::Last`]; an instance hands on the gradient of what it received; in the end this is the gradient of `init`;
//! * what instances send to a root node is summed over them, in their order.

use super::{
    Graph, Node, NodeId, Op, ScopeId,
    ops::{self, Call},
    per_sample,
    samples::Samples,
};
use std::fmt;

/// An operation through which a gradient would have to flow and cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDifferentiable {
    /// Where.
    pub node: NodeId,
    /// Name of the operation.
    pub operation: &'static str,
}

impl fmt::Display for NotDifferentiable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no gradient flows through {}", self.operation)
    }
}

impl std::error::Error for NotDifferentiable {}

/// Gradients of a scalar. `None` where the loss does not depend on the node.
///
/// # Errors
/// If a path to the loss leads through an operation that is made after differentiation.
///
/// # Panics
/// If the loss is not a scalar root node.
pub fn differentiate(
    graph: &mut Graph,
    loss: NodeId,
    wrt: &[NodeId],
) -> Result<Vec<Option<NodeId>>, NotDifferentiable> {
    assert!(graph.shape(loss).is_empty(), "internal: a loss is a scalar");
    let one = graph.constant(1.0);
    vjp(graph, &[(loss, one)], wrt)
}

/// Vector-Jacobian product: the gradient, with respect to each node of `wrt`, of the sum of all outputs times their
/// seeds. Outputs and seeds are root nodes of equal shapes.
///
/// # Errors
/// As [`differentiate`].
pub fn vjp(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
) -> Result<Vec<Option<NodeId>>, NotDifferentiable> {
    backward(graph, outputs, wrt, None)
}

/// The gradients of each sample: of the sum of all outputs times their seeds, with the samples kept apart. The gradient
/// of a node of `wrt` that all samples share has their axis in front: `[count, ...]`. See [`per_sample`].
///
/// # Errors
/// As [`differentiate`].
pub fn per_sample_vjp(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
    samples: &Samples,
) -> Result<Vec<Option<NodeId>>, NotDifferentiable> {
    backward(graph, outputs, wrt, Some(samples))
}

fn backward(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
    samples: Option<&Samples>,
) -> Result<Vec<Option<NodeId>>, NotDifferentiable> {
    let components = graph.components();
    let active = active_nodes(graph, &components, outputs, wrt);
    let mut backward = Backward::new(graph, active, samples);
    for &(output, seed) in outputs {
        backward.send(output, ScopeId::ROOT, seed);
    }
    for component in components.iter().rev() {
        backward.component(component)?;
    }
    Ok(wrt.iter().map(|node| backward.gradients[node.index()]).collect())
}

/// Which nodes lie on a path from `wrt` to an output along which a gradient can flow.
fn active_nodes(graph: &Graph, components: &[Vec<NodeId>], outputs: &[(NodeId, NodeId)], wrt: &[NodeId]) -> Vec<bool> {
    let sources: Vec<Vec<NodeId>> = graph.ids().map(|node| differentiable_sources(graph, node)).collect();
    let mut varied = vec![false; graph.len()];
    wrt.iter().for_each(|node| varied[node.index()] = true);
    for component in components {
        settle(component, |node| {
            let reached = sources[node.index()].iter().any(|source| varied[source.index()]);
            reached && !std::mem::replace(&mut varied[node.index()], true)
        });
    }
    let mut useful = vec![false; graph.len()];
    outputs.iter().for_each(|(node, _)| useful[node.index()] = true);
    for component in components.iter().rev() {
        settle(component, |node| {
            let sources = if useful[node.index()] { sources[node.index()].as_slice() } else { &[] };
            sources.iter().fold(false, |news, source| !std::mem::replace(&mut useful[source.index()], true) | news)
        });
    }
    varied.into_iter().zip(useful).map(|(varied, useful)| varied && useful).collect()
}

/// Visits the nodes of a component until there is no news; once, if it is not a loop.
fn settle(component: &[NodeId], mut visit: impl FnMut(NodeId) -> bool) {
    while component.iter().fold(false, |news, &node| visit(node) | news) && component.len() > 1 {}
}

/// The nodes whose values a node's value depends on differentiably.
fn differentiable_sources(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    let op = &graph.node(node).op;
    let operands = graph.operands(node);
    match op {
        Op::Carry { .. } => graph.awaits(node),
        Op::Last => graph.carry(operands[0]).next.into_iter().collect(),
        _ => {
            let rule = ops::rule(op);
            (0..operands.len()).filter(|&i| rule.passes_gradient(i)).map(|i| operands[i]).collect()
        }
    }
}

/// The state of one differentiation. Vectors are indexed by the nodes that were there before it.
struct Backward<'g> {
    graph: &'g mut Graph,
    /// Where samples lie, if their gradients are kept apart.
    samples: Option<&'g Samples>,
    active: Vec<bool>,
    /// What users have sent, with the scope they live in: there the term stands once per instance.
    terms: Vec<Vec<(ScopeId, NodeId)>>,
    /// Gradients of the [`Op::Last`] of carries.
    last: Vec<Option<NodeId>>,
    /// Sums of the terms of nodes that were visited.
    gradients: Vec<Option<NodeId>>,
    /// The carries that run against carries.
    reversed: Vec<Option<NodeId>>,
    /// The carries whose `next` is a node.
    carries: Vec<Vec<NodeId>>,
}

impl<'g> Backward<'g> {
    fn new(graph: &'g mut Graph, active: Vec<bool>, samples: Option<&'g Samples>) -> Self {
        let size = graph.len();
        let mut carries = vec![Vec::new(); size];
        for carry in graph.scopes().flat_map(|(_, scope)| &scope.carries) {
            if let Some(next) = carry.next {
                carries[next.index()].push(carry.node);
            }
        }
        let none = || vec![None; size];
        Self {
            graph,
            samples,
            active,
            terms: vec![Vec::new(); size],
            last: none(),
            gradients: none(),
            reversed: none(),
            carries,
        }
    }

    fn send(&mut self, to: NodeId, from: ScopeId, term: NodeId) {
        debug_assert!(
            self.samples.is_some() || self.graph.node(to).ty == self.graph.node(term).ty,
            "a gradient has the type of its value"
        );
        self.terms[to.index()].push((from, term));
    }

    fn component(&mut self, nodes: &[NodeId]) -> Result<(), NotDifferentiable> {
        for &node in nodes {
            self.receive_from_carries(node);
        }
        for &node in nodes.iter().rev() {
            self.visit(node)?;
        }
        Ok(())
    }

    /// Sends to a node what comes back through the carries that hand it on.
    fn receive_from_carries(&mut self, next: NodeId) {
        if !self.active[next.index()] {
            return;
        }
        for carry in self.carries[next.index()].clone() {
            if self.active[carry.index()] || self.last[carry.index()].is_some() {
                let reversed = self.reversed(carry);
                self.send(next, self.graph.node(carry).scope, reversed);
            }
        }
    }

    fn visit(&mut self, node: NodeId) -> Result<(), NotDifferentiable> {
        if !self.active[node.index()] {
            return Ok(());
        }
        let Some(gradient) = self.sum_of_terms(node) else { return Ok(()) };
        self.gradients[node.index()] = Some(gradient);
        let first_new = self.graph.len();
        match self.graph.node(node).op {
            Op::Carry { .. } => self.close(node, gradient),
            Op::Last => self.leave(node, gradient),
            _ => self.send_to_operands(node, gradient)?,
        }
        let span = self.graph.node(node).span;
        (first_new..self.graph.len()).for_each(|new| self.graph.set_span(NodeId::new(new), span));
        Ok(())
    }

    /// The gradient of a node, in the order in which its parts arrived: first those that stand once per instance of
    /// the node, then, for a root node, those of each scope that uses it.
    fn sum_of_terms(&mut self, node: NodeId) -> Option<NodeId> {
        let terms = std::mem::take(&mut self.terms[node.index()]);
        let crosses = |from: ScopeId| from != ScopeId::ROOT && self.graph.node(node).scope == ScopeId::ROOT;
        let (foreign, own): (Vec<_>, Vec<_>) = terms.into_iter().partition(|&(from, _)| crosses(from));
        let mut scopes: Vec<ScopeId> = foreign.iter().map(|&(from, _)| from).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let mut sum = self.add_up(own.into_iter().map(|(_, term)| term));
        for scope in scopes {
            let of_scope = foreign.iter().filter(|&&(from, _)| from == scope).map(|&(_, term)| term);
            let of_instance = self.add_up(of_scope).expect("a scope that sent a term");
            let of_all = self.over_instances(scope, of_instance);
            sum = self.add_up(sum.into_iter().chain([of_all]));
        }
        sum
    }

    fn add_up(&mut self, terms: impl Iterator<Item = NodeId>) -> Option<NodeId> {
        terms.reduce(|sum, term| self.graph.plus(sum, term))
    }

    /// The sum of a value over the instances of a scope; the value may be the same in all of them.
    fn over_instances(&mut self, scope: ScopeId, term: NodeId) -> NodeId {
        if self.graph.node(term).scope != ScopeId::ROOT {
            return self.graph.add(Op::SumInstances, &[term]);
        }
        let count = self.graph.full_like(self.graph.scope(scope).count as f64, term);
        self.graph.product(term, count)
    }

    fn send_to_operands(&mut self, node: NodeId, seed: NodeId) -> Result<(), NotDifferentiable> {
        let Node { op, scope, .. } = self.graph.node(node).clone();
        let operands = self.graph.operands(node);
        let rule = ops::rule(&op);
        // The gradient of a layer is that of the whole stack.
        let scope = if matches!(op, Op::Layer { .. }) { ScopeId::ROOT } else { scope };
        for (position, &operand) in operands.iter().enumerate() {
            if !self.active[operand.index()] || !rule.passes_gradient(position) {
                continue;
            }
            let term = match self.samples {
                Some(samples) => per_sample::term(self.graph, samples, node, position, seed),
                None => {
                    let mut call = Call { graph: self.graph, node, operands: operands.clone(), seed };
                    rule.gradient(&mut call, position)
                }
            };
            let Some(term) = term else { return Err(NotDifferentiable { node, operation: op.name() }) };
            self.send(operand, scope, term);
        }
        Ok(())
    }

    /// A gradient of 0 of a node.
    fn nothing(&mut self, node: NodeId) -> NodeId {
        match self.samples {
            Some(samples) => per_sample::nothing(self.graph, samples, node),
            None => self.graph.full_like(0.0, node),
        }
    }

    /// Keeps the gradient of a carry's [`Op::Last`].
    fn leave(&mut self, node: NodeId, gradient: NodeId) {
        let carry = self.graph.operands(node)[0].index();
        self.last[carry] = self.add_up(self.last[carry].into_iter().chain([gradient]));
    }

    /// Closes the carry that runs against this one, whose gradient is now known.
    fn close(&mut self, carry: NodeId, gradient: NodeId) {
        let is_active = |node: NodeId| self.active[node.index()];
        let init = Some(self.graph.carry(carry).init).filter(|&init| is_active(init));
        if init.is_none() && !self.graph.carry(carry).next.is_some_and(is_active) {
            return;
        }
        let reversed = self.reversed(carry);
        self.graph.set_next(reversed, gradient);
        if let Some(init) = init {
            let first = self.graph.add(Op::Last, &[reversed]);
            self.send(init, ScopeId::ROOT, first);
        }
    }

    /// The carry that runs against this one. All [`Op::Last`] of this one have been visited.
    fn reversed(&mut self, carry: NodeId) -> NodeId {
        if let Some(reversed) = self.reversed[carry.index()] {
            return reversed;
        }
        let scope = self.graph.node(carry).scope;
        let direction = self.graph.carry(carry).reversed;
        let init = self.last[carry.index()].unwrap_or_else(|| self.nothing(carry));
        let reversed = self.graph.add_carry(scope, init, !direction);
        if !self.active[carry.index()] {
            let nothing = self.nothing(carry);
            self.graph.set_next(reversed, nothing);
        }
        self.reversed[carry.index()] = Some(reversed);
        reversed
    }
}
