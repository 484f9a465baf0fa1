//! The same computation from other values: copies of what depends on some nodes, with these replaced.
//!
//! A copy lives in the scope of its original. So what is computed twice in a repeat (a gradient at two points, say) meets
//! itself instance by instance, and a sum of the two needs no value of all instances. A carry is copied together with
//! what it hands on: the copy is a carry of its own beside the first one. What does not depend on a replaced node is
//! shared, draws among them: both computations see the same random numbers.

use super::{Graph, NodeId, Op};

/// Where nodes went; see [`substitute`].
#[derive(Clone, Debug)]
pub struct Substitution {
    places: Vec<Option<NodeId>>,
}

impl Substitution {
    /// What stands for a node: its replacement, its copy, or itself if it depends on nothing that was replaced.
    pub fn of(&self, node: NodeId) -> NodeId {
        self.places.get(node.index()).copied().flatten().unwrap_or(node)
    }
}

/// Copies what `wanted` depends on and what in turn depends on the first node of a pair, with the second node of the
/// pair in its place. Both have one type and live in one scope. Replacements themselves are not copied: they may depend
/// on what they replace.
///
/// # Panics
/// If type or scope of a replacement differ from what it replaces.
pub fn substitute(graph: &mut Graph, pairs: &[(NodeId, NodeId)], wanted: &[NodeId]) -> Substitution {
    let mut places: Vec<Option<NodeId>> = vec![None; graph.len()];
    for &(old, new) in pairs {
        let (before, after) = (graph.node(old), graph.node(new));
        assert_eq!((&before.ty, before.scope), (&after.ty, after.scope), "internal: a replacement is of the same type");
        places[old.index()] = Some(new);
    }
    let copied = dependents(graph, &places, wanted);
    for &node in &copied {
        places[node.index()] = Some(copy(graph, node, &places));
    }
    let substitution = Substitution { places };
    for node in copied {
        if matches!(graph.node(node).op, Op::Carry { .. })
            && let Some(next) = graph.carry(node).next
        {
            graph.set_next(substitution.of(node), substitution.of(next));
        }
    }
    substitution
}

/// The nodes that `wanted` needs and whose values change with a replacement, ascending.
pub(super) fn dependents(graph: &Graph, replaced: &[Option<NodeId>], wanted: &[NodeId]) -> Vec<NodeId> {
    let needed = needed(graph, replaced, wanted);
    let mut changes = vec![false; graph.len()];
    // A carry may depend on a `next` behind it, so that news can run against the order of ids.
    let mut news = true;
    while std::mem::take(&mut news) {
        for &node in &needed {
            let reached = |node: NodeId| changes[node.index()] || replaced[node.index()].is_some();
            if !changes[node.index()] && graph.awaits(node).into_iter().any(reached) {
                changes[node.index()] = true;
                news = true;
            }
        }
    }
    needed.into_iter().filter(|node| changes[node.index()]).collect()
}

/// What `wanted` depends on, without what is replaced, ascending.
fn needed(graph: &Graph, replaced: &[Option<NodeId>], wanted: &[NodeId]) -> Vec<NodeId> {
    let mut met = vec![false; graph.len()];
    let mut pending = wanted.to_vec();
    while let Some(node) = pending.pop() {
        if replaced[node.index()].is_none() && !std::mem::replace(&mut met[node.index()], true) {
            pending.extend(graph.awaits(node));
        }
    }
    graph.ids().filter(|node| met[node.index()]).collect()
}

fn copy(graph: &mut Graph, node: NodeId, places: &[Option<NodeId>]) -> NodeId {
    let operands: Vec<NodeId> =
        graph.operands(node).into_iter().map(|operand| places[operand.index()].unwrap_or(operand)).collect();
    let (op, span) = (graph.node(node).op.clone(), graph.node(node).span);
    let new = match op {
        Op::Carry { scope, .. } => graph.add_carry(scope, operands[0], graph.carry(node).reversed),
        op => graph.add(op, &operands),
    };
    graph.set_span(new, span);
    new
}
