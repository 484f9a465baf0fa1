//! Which kernels run together in a loop over instances.
//!
//! The body of a repeat runs in *passes* over its instances: pass 0 in ascending order, pass 1 in descending order, and so
//! on in turn. A value belongs to the earliest pass in which all that it needs is known: forward values to pass 0; what
//! depends on a reversed carry, or on a root value that depends on the end of pass 0 (the loss), to pass 1. The root is
//! one region, in which the passes stand as single steps.

use super::dag::{Dag, Id};
use crate::graph::Op;
use std::collections::BTreeMap;

/// Rounds after which passes must have settled; each round lifts some value to a later pass.
const MAX_ROUNDS: usize = 64;

/// A region's position in [`Regions::list`].
pub(super) type RegionId = usize;

/// One pass over the instances of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Region {
    pub scope: usize,
    pub pass: u32,
}

impl Region {
    /// Whether this is an earlier pass of the same scope.
    pub fn comes_before(self, other: Region) -> bool {
        self.scope == other.scope && self.pass < other.pass
    }

    /// Whether instances run from the last to the first.
    pub fn reversed(self) -> bool {
        self.pass % 2 == 1
    }
}

/// The region of every node.
#[derive(Clone, Debug)]
pub(super) struct Regions {
    /// All regions in use, the root first.
    pub list: Vec<Region>,
    /// By node.
    pub of: Vec<RegionId>,
    /// By node: for each scope, how many of its passes must have run before the value is known.
    pub after: Vec<Vec<u32>>,
}

/// Assigns regions. `None` if carries depend on each other in a way that no order of passes satisfies.
pub(super) fn assign(dag: &Dag) -> Option<Regions> {
    let mut passes = Passes::new(dag);
    for _ in 0..MAX_ROUNDS {
        if !passes.round(dag) {
            return Some(passes.regions(dag));
        }
    }
    None
}

struct Passes {
    pass: Vec<u32>,
    after: Vec<Vec<u32>>,
    /// As `after`, for whole regions: what leaves a region waits for all that runs in it.
    after_region: BTreeMap<Region, Vec<u32>>,
}

impl Passes {
    fn new(dag: &Dag) -> Passes {
        let pass = dag.nodes.iter().map(|node| node.earliest).collect();
        let after = vec![vec![0; dag.scopes.len()]; dag.nodes.len()];
        Passes { pass, after, after_region: BTreeMap::new() }
    }

    /// Whether anything moved.
    fn round(&mut self, dag: &Dag) -> bool {
        let mut moved = false;
        for id in 0..dag.nodes.len() {
            let (pass, after) = self.settle(dag, id);
            moved |= pass != self.pass[id] || after != self.after[id];
            self.pass[id] = pass;
            raise(self.after_region.entry(Region { scope: dag.nodes[id].scope, pass }).or_default(), &after);
            self.after[id] = after;
        }
        moved
    }

    fn settle(&self, dag: &Dag, id: Id) -> (u32, Vec<u32>) {
        let node = &dag.nodes[id];
        let mut after = self.after[id].clone();
        let mut pass = self.pass[id];
        let mut sources = node.operands.clone();
        if let Some(carry) = dag.carries.get(&id) {
            sources.push(carry.next);
        }
        for &source in &sources {
            raise(&mut after, &self.after[source]);
            match dag.nodes[source].scope {
                0 => pass = pass.max(after[node.scope]),
                scope if scope == node.scope => pass = pass.max(self.pass[source]),
                scope => {
                    let region = Region { scope, pass: self.pass[source] };
                    after[scope] = after[scope].max(region.pass + 1);
                    raise(&mut after, self.after_region.get(&region).map_or(&[], Vec::as_slice));
                }
            }
        }
        if let Some(carry) = dag.carries.get(&id) {
            pass += u32::from((pass % 2 == 1) != carry.reversed);
        }
        (if node.scope == 0 { 0 } else { pass }, after)
    }

    fn regions(self, dag: &Dag) -> Regions {
        let region = |id: Id| Region { scope: dag.nodes[id].scope, pass: self.pass[id] };
        let mut list: Vec<Region> = (0..dag.nodes.len()).map(region).collect();
        list.push(Region { scope: 0, pass: 0 });
        list.sort_unstable();
        list.dedup();
        let of = (0..dag.nodes.len()).map(|id| list.binary_search(&region(id)).expect("listed above")).collect();
        Regions { list, of, after: self.after }
    }
}

/// The larger of each two numbers; missing ones are 0.
fn raise(own: &mut Vec<u32>, other: &[u32]) {
    own.resize(own.len().max(other.len()), 0);
    for (own, other) in own.iter_mut().zip(other) {
        *own = (*own).max(*other);
    }
}

/// Whether a node only hands on what a scope's passes have left.
pub(super) fn leaves_scope(op: &Op) -> bool {
    matches!(op, Op::Last | Op::Stack { .. } | Op::SumInstances)
}
