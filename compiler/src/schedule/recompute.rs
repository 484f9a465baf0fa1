//! Trading time for memory: forward values that the backward pass computes again instead of finding them in memory.

use super::{
    Persistent, Plan, Request, ScheduleError, assemble,
    dag::{Choices, Dag, Id, Node, is_place},
    group, regions,
    select::{self, Class, class},
};
use crate::graph::{Graph, NodeId, Op};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::Target;

/// A plan whose arena is within a budget, with as little recomputed as that takes.
///
/// Candidates are ordered by the work that a byte costs; the shortest prefix that fits is found by bisection.
///
/// # Errors
/// If recomputing all of them is not enough.
pub(super) fn within(request: &Request, persistent: &Persistent, budget: u64) -> Result<Plan, ScheduleError> {
    let candidates = candidates(request);
    let attempt = |count: usize| assemble(request, persistent, choices(request, &candidates[..count]));
    let plan = attempt(0)?;
    if plan.arena_bytes <= budget {
        return Ok(plan);
    }
    let mut best = attempt(candidates.len())?;
    if best.arena_bytes > budget {
        let needed = best.arena_bytes.min(plan.arena_bytes);
        return Err(ScheduleError::OverBudget { needed, budget, persistent: persistent.bytes });
    }
    let (mut too_few, mut enough) = (0, candidates.len());
    while too_few + 1 < enough {
        let middle = (too_few + enough) / 2;
        let plan = attempt(middle)?;
        if plan.arena_bytes <= budget {
            (enough, best) = (middle, plan);
        } else {
            too_few = middle;
        }
    }
    Ok(best)
}

/// A forward value that waits in memory for a later pass.
struct Candidate {
    /// Position in [`Request::entries`].
    entry: usize,
    /// Operations per byte that recomputing it costs.
    cost: u64,
    node: NodeId,
}

fn candidates(request: &Request) -> Vec<Candidate> {
    let graphs = request.entries.iter().enumerate();
    let of_entry = |(entry, (_, graph)): (usize, &(&str, &Graph))| candidates_of(entry, graph, request.target);
    let mut all: Vec<Candidate> = graphs.flat_map(of_entry).collect();
    all.sort_by_key(|candidate| (candidate.cost, candidate.entry, candidate.node));
    all
}

fn candidates_of(entry: usize, graph: &Graph, target: Target) -> Vec<Candidate> {
    let dag = Dag::new(graph, &Choices::of(target));
    let Some(regions) = regions::assign(&dag) else { return Vec::new() };
    let values = select::select(&dag);
    let reads = group::reads(&values);
    let pass = |id: Id| regions.list[regions.of[id]].pass;
    let mut waiting: BTreeMap<NodeId, Candidate> = BTreeMap::new();
    for user in (0..dag.nodes.len()).filter(|&id| values.computed[id]) {
        for &id in &reads[user] {
            let node = &dag.nodes[id];
            let waits =
                values.computed[id] && node.scope != 0 && node.scope == dag.nodes[user].scope && pass(id) < pass(user);
            if waits && !node.stored {
                let cost = operations_per_byte(&dag, id);
                waiting.insert(node.origin, Candidate { entry, cost, node: node.origin });
            }
        }
    }
    waiting.into_values().collect()
}

/// About how many operations a byte of a value costs.
fn operations_per_byte(dag: &Dag, id: Id) -> u64 {
    let node = &dag.nodes[id];
    let extent = |operand: usize| dag.nodes[node.operands[operand]].elements();
    match class(dag, id) {
        Class::Product => {
            // sqrt(|a| |b| / |out|) is the extent of what is summed, up to batch axes.
            let summed = extent(0) as u128 * extent(1) as u128 / u128::from(node.elements().max(1));
            summed.isqrt() as u64 / 2
        }
        Class::Reduction => extent(0) / node.elements().max(1) / 4,
        Class::Attention => 4 * node.shape.get(2).copied().unwrap_or(1),
        _ => 1,
    }
}

fn choices(request: &Request, recomputed: &[Candidate]) -> Vec<Choices> {
    let entries = request.entries.iter().enumerate();
    let of_entry = |(entry, (_, graph)): (usize, &(&str, &Graph))| {
        let mine = recomputed.iter().filter(|candidate| candidate.entry == entry);
        let recomputed: BTreeSet<NodeId> = mine.map(|candidate| candidate.node).collect();
        let kept = if recomputed.is_empty() { BTreeSet::new() } else { in_memory(graph, request.target) };
        Choices { recomputed, kept, ..Choices::of(request.target) }
    };
    entries.map(of_entry).collect()
}

/// Nodes that are computed into memory when nothing is recomputed.
fn in_memory(graph: &Graph, target: Target) -> BTreeSet<NodeId> {
    let dag = Dag::new(graph, &Choices::of(target));
    let values = select::select(&dag);
    (0..dag.nodes.len()).filter(|&id| values.computed[id]).map(|id| dag.nodes[id].origin).collect()
}

/// The graph in which later passes compute the values `recomputed` for themselves, from what is `kept` in memory.
pub(super) fn cloned(dag: &Dag, recomputed: &BTreeSet<NodeId>, kept: &BTreeSet<NodeId>) -> Dag {
    let Some(regions) = regions::assign(dag) else { return dag.clone() };
    let pass: Vec<u32> = regions.of.iter().map(|&region| regions.list[region].pass).collect();
    let mut cloning = Cloning { old: dag, pass, recomputed, kept, moved: Vec::new(), clones: BTreeMap::new() };
    let mut new = Dag { scopes: dag.scopes.clone(), ..Dag::default() };
    for (id, node) in dag.nodes.iter().enumerate() {
        let operands = node.operands.iter().map(|&operand| cloning.operand(&mut new, id, operand)).collect();
        let position = new.push(Node { operands, ..node.clone() });
        cloning.moved.push(position);
    }
    new.adopt(dag, &cloning.moved);
    new
}

struct Cloning<'a> {
    old: &'a Dag,
    pass: Vec<u32>,
    recomputed: &'a BTreeSet<NodeId>,
    kept: &'a BTreeSet<NodeId>,
    moved: Vec<Id>,
    /// By old node and pass.
    clones: BTreeMap<(Id, u32), Id>,
}

impl Cloning<'_> {
    /// What stands for `operand` where `user` uses it.
    fn operand(&mut self, new: &mut Dag, user: Id, operand: Id) -> Id {
        let (scope, pass) = (self.old.nodes[user].scope, self.pass[user]);
        self.version(new, operand, scope, pass)
    }

    /// The version of a value that a pass of a scope uses: that of an earlier pass if it is kept, else its own.
    fn version(&mut self, new: &mut Dag, id: Id, scope: usize, pass: u32) -> Id {
        let node = &self.old.nodes[id];
        let elsewhere = node.scope != scope || scope == 0 || self.pass[id] >= pass;
        // A further result goes with the operation that it is a result of.
        let source = if let Op::Project { .. } = node.op { &self.old.nodes[node.operands[0]] } else { node };
        let kept = self.kept.contains(&source.origin) && !self.recomputed.contains(&source.origin);
        let in_memory = is_place(&source.op) || kept;
        if elsewhere || in_memory {
            return self.moved[id];
        }
        if let Some(&clone) = self.clones.get(&(id, pass)) {
            return clone;
        }
        let operands = node.operands.iter().map(|&operand| self.version(new, operand, scope, pass)).collect();
        let clone = new.push(Node { operands, earliest: pass, ..node.clone() });
        self.clones.insert((id, pass), clone);
        clone
    }
}
