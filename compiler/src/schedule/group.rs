//! Grouping computed values into kernels.
//!
//! Every computed value starts as a group of its own. Groups are fused along the edges between them, then with groups that
//! read the same large value, whenever one kernel can compute both (decided by lowering them together) and no path leads
//! from one through a third group to the other. [`order`] then puts them in order.

use super::{
    build::{self, Kind, Template, Wanted},
    dag::{Id, Tensor},
    domain::Domain,
    lower::Values,
    order::{self, Grouping},
    regions::{RegionId, Regions, leaves_scope},
};
use crate::graph::Op;
use std::collections::{BTreeMap, BTreeSet};

/// Values that one kernel (for scatters, two) computes.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub region: RegionId,
    pub kind: Kind,
    /// Ascending.
    pub members: Vec<Id>,
    pub domain: Domain,
    /// Set when grouping is done.
    pub kernels: Vec<Template>,
    /// What its kernels leave in memory.
    pub wanted: Wanted,
}

/// Tensors that cannot be updated in place.
pub(super) type Conflicts = BTreeSet<Tensor>;

/// Groups the computed values. If some tensors cannot be updated in place, says which.
pub(super) fn group(values: &Values, regions: &Regions) -> Result<Grouping, Conflicts> {
    let mut fusion = Fusion::new(values, regions);
    fusion.along_edges();
    fusion.siblings();
    fusion.finish()
}

/// Groups that must run before a group.
#[derive(Default)]
struct Sources {
    /// Whose values it reads.
    direct: BTreeSet<usize>,
    /// Whose values a loop reads that it waits for.
    looped: BTreeSet<usize>,
}

pub(super) struct Fusion<'a> {
    pub values: &'a Values<'a>,
    pub regions: &'a Regions,
    pub groups: Vec<Option<Group>>,
    /// By computed node: its group.
    pub of: BTreeMap<Id, usize>,
    /// By node: values in memory that its computation reads.
    reads: Vec<BTreeSet<Id>>,
    /// By region: root values that its kernels read or are handed.
    pub entering: Vec<BTreeSet<Id>>,
}

impl<'a> Fusion<'a> {
    fn new(values: &'a Values<'a>, regions: &'a Regions) -> Self {
        let dag = values.dag;
        let reads = reads(values);
        let entering = (0..regions.list.len()).map(|region| root_reads(values, regions, &reads, region)).collect();
        let mut fusion = Fusion { values, regions, groups: Vec::new(), of: BTreeMap::new(), reads, entering };
        for id in (0..dag.nodes.len()).filter(|&id| values.computed[id]) {
            fusion.of.insert(id, fusion.groups.len());
            fusion.groups.push(Some(Group {
                region: regions.of[id],
                kind: Kind::of(dag, id),
                members: vec![id],
                domain: Domain::of(dag, id),
                kernels: Vec::new(),
                wanted: Wanted::default(),
            }));
        }
        fusion
    }

    pub fn group(&self, position: usize) -> &Group {
        self.groups[position].as_ref().expect("a group that is still there")
    }

    /// Fuses each value with what it is computed from.
    fn along_edges(&mut self) {
        let computed: Vec<Id> = self.of.keys().copied().collect();
        for id in computed {
            for read in self.reads[id].clone().into_iter().rev() {
                if let Some(&producer) = self.of.get(&read) {
                    self.try_fuse(producer, self.of[&id]);
                }
            }
        }
    }

    /// Fuses groups that read the same large value, and single numbers, which are not worth a launch each.
    fn siblings(&mut self) {
        let live: Vec<usize> = (0..self.groups.len()).filter(|&group| self.groups[group].is_some()).collect();
        for (position, &second) in live.iter().enumerate() {
            for &first in &live[..position] {
                let both_there = self.groups[first].is_some() && self.groups[second].is_some();
                if both_there && self.are_siblings(first, second) {
                    self.try_fuse(first, second);
                }
            }
        }
    }

    fn are_siblings(&self, first: usize, second: usize) -> bool {
        let (a, b) = (self.group(first), self.group(second));
        let (reduced_a, reduced_b) = (a.domain.reduces(), b.domain.reduces());
        let related = match (a.kind, b.kind) {
            _ if a.region != b.region => false,
            (Kind::Nest, Kind::Nest) if !reduced_a && !reduced_b => {
                return a.domain.elements() == 1 && b.domain.elements() == 1;
            }
            (Kind::Nest, Kind::Nest) => true,
            (Kind::Product(_), Kind::Nest) | (Kind::Nest, Kind::Product(_)) => !reduced_a && !reduced_b,
            _ => false,
        };
        let large = |&id: &Id| self.values.dag.nodes[id].elements() == a.domain.elements();
        related && self.reads_beside_factors(a).intersection(&self.reads_beside_factors(b)).any(large)
    }

    /// What the elements of a group are computed from, the factors of a product not among it.
    fn reads_beside_factors(&self, group: &Group) -> BTreeSet<Id> {
        let elements = group.members.iter().filter(|&&member| group.kind != Kind::Product(member));
        elements.flat_map(|&member| &self.reads[member]).copied().collect()
    }

    pub fn reads_of(&self, group: &Group) -> BTreeSet<Id> {
        group.members.iter().flat_map(|&member| &self.reads[member]).copied().collect()
    }

    /// Makes one group of two if one kernel can compute both.
    fn try_fuse(&mut self, first: usize, second: usize) {
        if first == second {
            return;
        }
        let Some(fused) = self.fused(self.group(first), self.group(second)) else { return };
        if self.leads_elsewhere(first, second) || self.leads_elsewhere(second, first) {
            return;
        }
        let everything = Wanted { stored: fused.members.iter().copied().collect(), ..Wanted::default() };
        if build::kernels(self.values, fused.kind, &fused.members, &fused.domain, &everything).is_err() {
            return;
        }
        self.of.extend(fused.members.iter().map(|&member| (member, first)));
        self.groups[first] = Some(fused);
        self.groups[second] = None;
    }

    /// The group that two would make, by kind and shape.
    fn fused(&self, a: &Group, b: &Group) -> Option<Group> {
        let late = |group: &Group| group.members.iter().any(|member| self.values.dag.late.contains(member));
        if a.region != b.region || late(a) || late(b) {
            return None;
        }
        let (kind, domain) = match (a.kind, b.kind) {
            (Kind::Nest, Kind::Nest) => (Kind::Nest, a.domain.unify(&b.domain)?),
            (Kind::Product(_), Kind::Nest) => (a.kind, a.domain.clone()),
            (Kind::Nest, Kind::Product(_)) => (b.kind, b.domain.clone()),
            _ => return None,
        };
        let product = matches!(kind, Kind::Product(_));
        // An optimizer in the epilogue of a product would wait for memory where the product computes.
        let updates = |group: &Group| group.members.iter().any(|&member| self.values.dag.updated(member).is_some());
        if product && a.region != 0 && (updates(a) || updates(b)) {
            return None;
        }
        if product && (a.domain.elements() != b.domain.elements() || a.domain.reduces() || b.domain.reduces()) {
            return None;
        }
        let mut members = [&a.members[..], &b.members].concat();
        members.sort_unstable();
        Some(Group { members, kind, domain, ..a.clone() })
    }

    /// Whether a path leads from one group through a third, or through a loop, to the other.
    fn leads_elsewhere(&self, from: usize, to: usize) -> bool {
        let Sources { mut direct, looped } = self.sources(to);
        direct.remove(&from);
        let mut seen: BTreeSet<usize> = direct.union(&looped).copied().collect();
        let mut open: Vec<usize> = seen.iter().copied().collect();
        while let Some(group) = open.pop() {
            if group == from {
                return true;
            }
            let Sources { direct, looped } = self.sources(group);
            open.extend(direct.union(&looped).copied().filter(|&source| seen.insert(source)));
        }
        false
    }

    /// Groups of the same region that must run before a group.
    fn sources(&self, position: usize) -> Sources {
        let group = self.group(position);
        let mut sources = Sources::default();
        for read in self.reads_of(group) {
            self.producers(read, group.region, &mut sources);
        }
        sources.direct.remove(&position);
        sources
    }

    /// Groups of `region` that a value in memory comes from.
    fn producers(&self, id: Id, region: RegionId, sources: &mut Sources) {
        let dag = self.values.dag;
        match &dag.nodes[id].op {
            _ if self.of.contains_key(&id) => {
                let group = self.of[&id];
                if self.group(group).region == region {
                    sources.direct.insert(group);
                }
            }
            Op::Project { .. } => self.producers(dag.nodes[id].operands[0], region, sources),
            op if leaves_scope(op) && region == 0 => {
                for entered in self.entered_by(id) {
                    sources.looped.extend(self.groups_before(entered));
                }
            }
            _ => {}
        }
    }

    /// Regions that must have run before a value that leaves a scope is known.
    pub fn entered_by(&self, id: Id) -> Vec<RegionId> {
        let after = &self.regions.after[id];
        let ran = |&region: &RegionId| {
            let region = self.regions.list[region];
            region.scope != 0 && region.pass < after[region.scope]
        };
        (1..self.regions.list.len()).filter(ran).collect()
    }

    /// Root groups whose values a region reads.
    fn groups_before(&self, region: RegionId) -> BTreeSet<usize> {
        let mut producers = BTreeSet::new();
        for id in &self.entering[region] {
            if let Some(&group) = self.of.get(id) {
                producers.insert(group);
            }
        }
        producers
    }

    fn finish(mut self) -> Result<Grouping, Conflicts> {
        let live: Vec<Group> = std::mem::take(&mut self.groups).into_iter().flatten().collect();
        self.of = live.iter().enumerate().flat_map(|(n, group)| group.members.iter().map(move |&id| (id, n))).collect();
        self.groups = live.into_iter().map(Some).collect();
        self.build_all()?;
        order::order(&self)
    }

    /// Builds the kernels of all groups.
    fn build_all(&mut self) -> Result<(), Conflicts> {
        let mut conflicts = Conflicts::new();
        let wanted = self.wanted();
        for (position, wanted) in wanted.into_iter().enumerate() {
            let group = self.group(position);
            match build::kernels(self.values, group.kind, &group.members, &group.domain, &wanted) {
                Ok(kernels) => {
                    let group = self.groups[position].as_mut().expect("a group that is still there");
                    group.kernels = kernels;
                    group.wanted = wanted;
                }
                Err(_) => conflicts.extend(self.updated_by(position)),
            }
        }
        if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
    }

    fn updated_by(&self, group: usize) -> Vec<Tensor> {
        let group = self.group(group);
        let tensors: Vec<Tensor> = group.members.iter().filter_map(|&id| self.values.dag.updated(id)).collect();
        assert!(!tensors.is_empty(), "internal: no kernel for {:?}", group.members);
        tensors
    }

    /// By group, what others read of it.
    fn wanted(&self) -> Vec<Wanted> {
        let dag = self.values.dag;
        let mut wanted = vec![Wanted::default(); self.groups.len()];
        for (&id, &group) in &self.of {
            for &read in &self.reads[id] {
                if let Some(&producer) = self.of.get(&read).filter(|&&producer| producer != group) {
                    wanted[producer].stored.insert(read);
                }
            }
            let alone = !matches!(self.group(group).kind, Kind::Nest | Kind::Product(_));
            if self.needs_buffer(id) || alone {
                wanted[group].stored.insert(id);
            }
        }
        for (id, node) in dag.nodes.iter().enumerate() {
            if node.op == Op::SumInstances {
                let summed = node.operands[0];
                wanted[self.of[&summed]].summed.entry(summed).or_default().push(id);
            }
        }
        wanted
    }

    /// Whether a computed value is referred to by its buffer.
    fn needs_buffer(&self, id: Id) -> bool {
        let dag = self.values.dag;
        let is_storage = |&other: &Id| dag.storage(other) == id;
        dag.homes.contains_key(&id)
            || dag.outputs.iter().any(|(_, output)| is_storage(output))
            || dag.carries.values().any(|carry| is_storage(&carry.init) || is_storage(&carry.next))
            || dag.nodes.iter().any(|node| matches!(node.op, Op::Layer { .. }) && is_storage(&node.operands[0]))
    }
}

/// By node, the values in memory from which it is computed.
pub(super) fn reads(values: &Values) -> Vec<BTreeSet<Id>> {
    let mut reads: Vec<BTreeSet<Id>> = Vec::with_capacity(values.dag.nodes.len());
    for node in &values.dag.nodes {
        let mut own = BTreeSet::new();
        for &operand in &node.operands {
            if values.in_memory(operand) {
                own.insert(operand);
            } else {
                own.extend(reads[operand].iter().copied());
            }
        }
        reads.push(own);
    }
    reads
}

/// Root values that the kernels of a region read or are handed.
fn root_reads(values: &Values, regions: &Regions, reads: &[BTreeSet<Id>], region: RegionId) -> BTreeSet<Id> {
    let dag = values.dag;
    let mut open: Vec<Id> = Vec::new();
    for id in (0..dag.nodes.len()).filter(|&id| regions.of[id] == region) {
        if values.computed[id] {
            open.extend(&reads[id]);
        }
        if let Some(carry) = dag.carries.get(&id) {
            open.extend([dag.storage(carry.init), dag.storage(carry.next)]);
        }
    }
    let mut result = BTreeSet::new();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        match dag.nodes[id].op {
            Op::Layer { .. } => open.push(dag.storage(dag.nodes[id].operands[0])),
            Op::Project { .. } => open.push(dag.nodes[id].operands[0]),
            _ if dag.nodes[id].scope == 0 => {
                result.insert(id);
            }
            _ => {}
        }
    }
    result
}
