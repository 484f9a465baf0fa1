//! Trading time for memory: forward values that the backward pass computes again instead of finding them in memory.
//!
//! All values that wait for a later pass are ordered by the work that each byte costs. The first of them, as long as their
//! work together is negligible, are always computed again; a budget takes as many more as it needs.

use super::{
    Persistent, Plan, Request, ScheduleError, assemble,
    build::{self, Kind, Wanted},
    dag::{Choices, Dag, Id, Node},
    domain::Domain,
    group,
    lower::Values,
    regions,
    select::{self, class},
    sink::{self, Later},
};
use crate::graph::{Class, NodeId, Op};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::kernel_facts;

/// Work is counted in operations of matrix products. A byte of traffic takes as long as this many: two cores with AVX-512
/// reach 235 GFLOP/s and 78 GB/s.
const WORK_PER_BYTE: u64 = 3;
/// An operation outside of matrix products, functions such as tanh among them, takes as long as this many.
const WORK_PER_OPERATION: u64 = 4;
/// The share of an entry's work, one in so many, that is done twice without being asked.
const NEGLIGIBLE: u64 = 64;
/// Costs are in this fraction of an operation per byte.
const RESOLUTION: u128 = 1 << 10;

/// A plan whose arena is within a budget, with no more recomputed than that takes; what costs next to nothing always is.
///
/// Candidates are ordered by the work that a byte costs; the shortest prefix that fits is found by bisection.
///
/// # Errors
/// If recomputing all of them is not enough, or a graph cannot be expressed.
pub(super) fn within(request: &Request, persistent: &Persistent, budget: u64) -> Result<Plan, ScheduleError> {
    let Candidates { list, negligible, kept } = candidates(request);
    let attempt = |count: usize| {
        let mut plan = assemble(request, persistent, choices(request, &list[..count], &kept))?;
        plan.report.recomputed_for_budget = count - negligible;
        Ok(plan)
    };
    let (mut too_few, mut enough) = (negligible, list.len());
    let plan = attempt(too_few)?;
    if plan.arena_bytes <= budget {
        return Ok(plan);
    }
    let mut best = attempt(enough)?;
    if best.arena_bytes > budget {
        let needed = best.arena_bytes.min(plan.arena_bytes);
        return Err(ScheduleError::OverBudget { needed, budget, persistent: persistent.bytes });
    }
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
    node: NodeId,
    /// What computing it again in all instances takes.
    work: u64,
    /// Bytes that it frees in an instance, less those that would have to wait in its stead.
    gain: u64,
    /// Whether it is element-wise, so that its kernel can join others and it costs no launch.
    joins: bool,
}

impl Candidate {
    /// Whether its work fits into what is left of a negligible amount, from which it is taken.
    fn is_negligible(&self, left: &mut u64) -> bool {
        let fits = self.joins && self.gain > 0 && self.work <= *left;
        *left -= if fits { self.work } else { 0 };
        fits
    }

    fn cost(&self) -> u128 {
        u128::from(self.work) * RESOLUTION / u128::from(self.gain.max(1))
    }
}

/// What can be recomputed.
struct Candidates {
    list: Vec<Candidate>,
    /// How many of them, in front, always are.
    negligible: usize,
    /// By entry, the nodes that are computed into memory when nothing is recomputed.
    kept: Vec<BTreeSet<NodeId>>,
}

fn candidates(request: &Request) -> Candidates {
    let (mut all, mut kept) = (Vec::new(), Vec::new());
    for (entry, (_, graph)) in request.entries.iter().enumerate() {
        let dag = Dag::new(graph, &Choices::of(request.target));
        let values = select::select(&dag);
        let computed = (0..dag.nodes.len()).filter(|&id| values.computed[id]);
        kept.push(computed.map(|id| dag.nodes[id].origin).collect());
        all.extend(waiting(entry, &values));
    }
    all.sort_by_key(|candidate| (candidate.cost(), candidate.entry, candidate.node));
    let mut left: Vec<u64> =
        request.entries.iter().map(|(_, graph)| graph.total_work().products / NEGLIGIBLE).collect();
    let (first, rest): (Vec<Candidate>, Vec<Candidate>) =
        all.into_iter().partition(|candidate| candidate.is_negligible(&mut left[candidate.entry]));
    Candidates { negligible: first.len(), list: first.into_iter().chain(rest).collect(), kept }
}

/// The values of an entry that wait for a later pass.
fn waiting(entry: usize, values: &Values) -> Vec<Candidate> {
    let dag = values.dag;
    let Some(regions) = regions::assign(dag) else { return Vec::new() };
    let reads = group::reads(values);
    let readers = sink::readers(values, &reads);
    let pass = |id: Id| regions.list[regions.of[id]].pass;
    let candidate = |id: Id| {
        let node = &dag.nodes[id];
        let waits = |&user: &Id| dag.nodes[user].scope == node.scope && pass(id) < pass(user);
        let later = readers[id].iter().copied().filter(waits).map(pass).min()?;
        let work = (!node.stored && node.scope != 0).then(|| work(values, id))??;
        let later = Later { values, regions: &regions, readers: &readers, id, pass: later };
        let gain = values.bytes(id).saturating_sub(later.waiting(&reads[id]));
        let (work, joins) = (work * dag.scopes[node.scope].count, class(dag, id) == Class::Element);
        Some(Candidate { entry, node: node.origin, work, gain, joins })
    };
    let computed = (0..dag.nodes.len()).filter(|&id| values.computed[id]);
    let by_node: BTreeMap<NodeId, Candidate> =
        computed.filter_map(candidate).map(|found| (found.node, found)).collect();
    by_node.into_values().collect()
}

/// What computing a value alone, from what lies in memory, takes in an instance.
fn work(values: &Values, id: Id) -> Option<u64> {
    let kind = Kind::of(values.dag, id);
    let wanted = Wanted { stored: BTreeSet::from([id]), ..Wanted::default() };
    let kernels = build::kernels(values, kind, &[id], &Domain::of(values.dag, id), &wanted).ok()?;
    let per_operation = if matches!(kind, Kind::Product(_)) { 1 } else { WORK_PER_OPERATION };
    let of_kernel = |template: &build::Template| {
        let facts = kernel_facts(&template.kernel);
        facts.flops * per_operation + (facts.bytes_read + facts.bytes_written) * WORK_PER_BYTE
    };
    Some(kernels.iter().map(of_kernel).sum())
}

fn choices(request: &Request, recomputed: &[Candidate], kept: &[BTreeSet<NodeId>]) -> Vec<Choices> {
    let of_entry = |(entry, kept): (usize, &BTreeSet<NodeId>)| {
        let mine = recomputed.iter().filter(|candidate| candidate.entry == entry);
        let recomputed = mine.map(|candidate| candidate.node).collect();
        Choices { recomputed, kept: kept.clone(), ..Choices::of(request.target) }
    };
    kept.iter().enumerate().map(of_entry).collect()
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
        let in_memory = source.is_buffer() || kept;
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
