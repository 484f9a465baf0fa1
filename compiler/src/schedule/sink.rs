//! Computing cheap forward values where they are used.
//!
//! An element-wise value that only a later pass over the instances reads would have to wait in memory, once for each
//! instance. If what it is computed from waits there anyway, it is computed in the later pass instead.

use super::{
    dag::Id,
    group,
    lower::Values,
    regions::{RegionId, Regions},
    select::class,
};
use crate::graph::Class;
use std::collections::BTreeSet;

/// Moves values to the pass that reads them where that does not need more memory.
pub(super) fn sink(values: &Values, regions: &mut Regions) {
    let reads = group::reads(values);
    let readers = readers(values, &reads);
    for id in (0..values.dag.nodes.len()).rev() {
        if let Some(region) = later(values, regions, &readers[id], id) {
            let later = Later { values, regions, readers: &readers, id, pass: regions.list[region].pass };
            if later.waiting(&reads[id]) <= values.bytes(id) {
                regions.of[id] = region;
            }
        }
    }
}

/// The first region that reads a value, if it is a later pass of the same scope and nothing else refers to the value.
fn later(values: &Values, regions: &Regions, readers: &BTreeSet<Id>, id: Id) -> Option<RegionId> {
    let node = &values.dag.nodes[id];
    if !values.computed[id] || node.stored || node.scope == 0 || class(values.dag, id) != Class::Element {
        return None;
    }
    let first = readers.iter().map(|&reader| regions.of[reader]).min_by_key(|&region| regions.list[region])?;
    let same_scope = readers.iter().all(|&reader| values.dag.nodes[reader].scope == node.scope);
    (same_scope && regions.list[first].pass > regions.list[regions.of[id]].pass).then_some(first)
}

/// By node, the computed values that read it from memory.
pub(super) fn readers(values: &Values, reads: &[BTreeSet<Id>]) -> Vec<BTreeSet<Id>> {
    let mut readers: Vec<BTreeSet<Id>> = vec![BTreeSet::new(); values.dag.nodes.len()];
    for id in (0..values.dag.nodes.len()).filter(|&id| values.computed[id]) {
        for &read in &reads[id] {
            readers[read].insert(id);
        }
    }
    readers
}

/// A forward value, computed in a later pass.
pub(super) struct Later<'a> {
    pub values: &'a Values<'a>,
    pub regions: &'a Regions,
    pub readers: &'a [BTreeSet<Id>],
    pub id: Id,
    pub pass: u32,
}

impl Later<'_> {
    /// Bytes of what it reads that would have to wait for nothing else.
    pub fn waiting(&self, reads: &BTreeSet<Id>) -> u64 {
        let waiting = reads.iter().filter(|&&read| self.waits_only_here(read));
        waiting.map(|&read| self.values.bytes(read)).sum()
    }

    fn waits_only_here(&self, read: Id) -> bool {
        let nodes = &self.values.dag.nodes;
        let inside = |id: Id| nodes[id].scope == nodes[self.id].scope;
        let pass = |id: Id| self.regions.list[self.regions.of[id]].pass;
        let keeps = |&reader: &Id| reader != self.id && inside(reader) && pass(reader) >= self.pass;
        self.values.computed[read] && inside(read) && !self.readers[read].iter().any(keeps)
    }
}
