//! Grouping computed values into kernels.
//!
//! Every computed value starts as a group of its own. Groups are fused along the edges between them, then with groups that
//! read the same large value, whenever one kernel can compute both (decided by lowering them together) and no path leads
//! from one through a third group to the other.

use super::{
    build::{self, Kind, Template, Wanted},
    dag::{Id, Tensor},
    domain::Domain,
    lower::Values,
    regions::{RegionId, Regions, leaves_scope},
};
use crate::graph::Op;
use std::collections::{BTreeMap, BTreeSet};

/// New values are small against those that they are computed from if these have at least this many times their bytes.
const SMALL_SHARE: u64 = 16;

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

/// A step of the root, or of one instance of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A group's kernels.
    Group(usize),
    /// All instances of a region.
    Loop(RegionId),
}

/// All groups with the order in which they run.
#[derive(Clone, Debug)]
pub(super) struct Grouping {
    pub groups: Vec<Group>,
    /// By region; the first is the root.
    pub order: Vec<Vec<Step>>,
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

struct Fusion<'a> {
    values: &'a Values<'a>,
    regions: &'a Regions,
    groups: Vec<Option<Group>>,
    /// By computed node: its group.
    of: BTreeMap<Id, usize>,
    /// By node: values in memory that its computation reads.
    reads: Vec<BTreeSet<Id>>,
    /// By region: root values that its kernels read or are handed.
    entering: Vec<BTreeSet<Id>>,
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

    fn group(&self, position: usize) -> &Group {
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

    fn reads_of(&self, group: &Group) -> BTreeSet<Id> {
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
    fn entered_by(&self, id: Id) -> Vec<RegionId> {
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

    /// Whether a group's new values are far smaller than those that it reads.
    fn frees_memory(&self, position: usize) -> bool {
        let (dag, group) = (self.values.dag, self.group(position));
        let bytes = |id: &Id| dag.nodes[*id].bytes();
        let new = group.wanted.stored.iter().filter(|&&id| dag.updated(id).is_none()).map(bytes).sum::<u64>();
        let given = |id: &&Id| self.values.computed[**id] && !group.members.contains(id);
        let read = self.reads_of(group).iter().filter(given).map(bytes).sum::<u64>();
        new * SMALL_SHARE <= read
    }

    fn finish(mut self) -> Result<Grouping, Conflicts> {
        let live: Vec<Group> = std::mem::take(&mut self.groups).into_iter().flatten().collect();
        self.of = live.iter().enumerate().flat_map(|(n, group)| group.members.iter().map(move |&id| (id, n))).collect();
        self.groups = live.into_iter().map(Some).collect();
        self.build_all()?;
        Ordering::new(&self).finish(&self)
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

/// The order of groups and loops, with edges by which each runs after what it needs and before what overwrites it.
struct Ordering {
    /// By step, what must run before it. Steps of all regions are numbered together.
    before: Vec<BTreeSet<usize>>,
    steps: Vec<Step>,
    region: Vec<RegionId>,
}

impl Ordering {
    fn new(fusion: &Fusion) -> Ordering {
        let groups = fusion.groups.len();
        let loops = fusion.regions.list.len();
        let steps: Vec<Step> = (0..groups).map(Step::Group).chain((0..loops).map(Step::Loop)).collect();
        let region = (0..groups).map(|group| fusion.group(group).region).chain((0..loops).map(|_| 0)).collect();
        let mut ordering = Ordering { before: vec![BTreeSet::new(); steps.len()], steps, region };
        for group in 0..groups {
            let reads = fusion.reads_of(fusion.group(group));
            ordering.need(fusion, group, &reads);
        }
        for region in 1..loops {
            ordering.need(fusion, groups + region, &fusion.entering[region]);
            let earlier = |&other: &RegionId| fusion.regions.list[other].comes_before(fusion.regions.list[region]);
            ordering.before[groups + region].extend((1..loops).filter(earlier).map(|other| groups + other));
        }
        ordering
    }

    /// Lets a step run after all that it reads.
    fn need(&mut self, fusion: &Fusion, step: usize, reads: &BTreeSet<Id>) {
        for &read in reads {
            for source in self.sources(fusion, read) {
                if self.region[source] == self.region[step] && source != step {
                    self.before[step].insert(source);
                }
            }
        }
    }

    /// The steps that produce a value.
    fn sources(&self, fusion: &Fusion, id: Id) -> Vec<usize> {
        let node = &fusion.values.dag.nodes[id];
        match &node.op {
            _ if fusion.of.contains_key(&id) => vec![fusion.of[&id]],
            Op::Project { .. } => self.sources(fusion, node.operands[0]),
            op if leaves_scope(op) => {
                let loops = fusion.entered_by(id).into_iter().map(|region| fusion.groups.len() + region);
                loops.collect()
            }
            _ => Vec::new(),
        }
    }

    /// Adds the edges by which tensors are read before they are overwritten, and sorts.
    fn finish(mut self, fusion: &Fusion) -> Result<Grouping, Conflicts> {
        let mut conflicts = Conflicts::new();
        for (&id, &writer) in &fusion.of {
            if let Some(tensor) = fusion.values.dag.updated(id)
                && !self.overwrite(fusion, writer, tensor)
            {
                conflicts.insert(tensor);
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let order = (0..fusion.regions.list.len()).map(|region| self.sorted(fusion, region)).collect();
        Ok(Grouping { groups: fusion.groups.iter().flatten().cloned().collect(), order })
    }

    /// Lets all readers of the old value run before the writer; false if one of them needs what the writer makes.
    fn overwrite(&mut self, fusion: &Fusion, writer: usize, tensor: Tensor) -> bool {
        let dag = fusion.values.dag;
        let old = |id: &Id| dag.tensor(*id) == Some(tensor);
        let outlives = dag.outputs.iter().any(|(output, id)| Tensor::of(output).is_none() && old(id));
        let region = self.region[writer];
        if region == 0 {
            return !outlives && self.run_before(writer, self.root_readers(fusion, writer, old));
        }
        // Each instance overwrites its own slice, so in its pass nothing may read the slices of others.
        let handed_on = |id: &Id| {
            dag.carries.get(id).is_some_and(|carry| [carry.init, carry.next].iter().any(|&id| old(&dag.storage(id))))
        };
        let of_others = |id: &Id| old(id) || handed_on(id);
        let own_slice = |id: &Id| dag.sliced(*id) == Some(tensor);
        let inside = |position: &usize| self.region[*position] == region && *position != writer;
        let reads = |position: &usize| fusion.reads_of(fusion.group(*position));
        let groups: Vec<usize> = (0..fusion.groups.len()).filter(inside).collect();
        let mixed = groups.iter().chain([&writer]).any(|position| reads(position).iter().any(of_others));
        let pass = fusion.groups.len() + region;
        let readers = groups.into_iter().filter(|position| reads(position).iter().any(own_slice)).collect();
        !outlives
            && !mixed
            && self.run_before(writer, readers)
            && self.run_before(pass, self.root_readers(fusion, pass, old))
    }

    /// Steps of the root, other than `writer`, that read a value.
    fn root_readers(&self, fusion: &Fusion, writer: usize, value: impl Fn(&Id) -> bool) -> Vec<usize> {
        let reads = |position: &usize| match self.steps[*position] {
            Step::Group(group) if self.region[*position] == 0 => fusion.reads_of(fusion.group(group)),
            Step::Loop(region) if region != 0 => fusion.entering[region].clone(),
            _ => BTreeSet::new(),
        };
        let others = (0..self.steps.len()).filter(|&position| position != writer);
        others.filter(|position| reads(position).iter().any(&value)).collect()
    }

    /// Lets steps run before another one; false if one of them needs what that one makes.
    fn run_before(&mut self, step: usize, earlier: Vec<usize>) -> bool {
        let possible = !earlier.iter().any(|&other| self.runs_after(other, step));
        self.before[step].extend(earlier.into_iter().filter(|_| possible));
        possible
    }

    fn runs_after(&self, step: usize, other: usize) -> bool {
        let mut open = vec![step];
        let mut seen = BTreeSet::from([step]);
        while let Some(step) = open.pop() {
            if step == other {
                return true;
            }
            open.extend(self.before[step].iter().copied().filter(|&before| seen.insert(before)));
        }
        false
    }

    /// The steps of a region, each after those it needs, otherwise in the order of the program. What reads much and leaves
    /// little comes as early as it can: its operands need not wait for it.
    fn sorted(&self, fusion: &Fusion, region: RegionId) -> Vec<Step> {
        let rank = |step: usize| match self.steps[step] {
            Step::Group(group) if fusion.frees_memory(group) => 0,
            Step::Group(group) => fusion.group(group).members[0],
            Step::Loop(region) => fusion.regions.of.iter().rposition(|&of| of == region).unwrap_or(0),
        };
        let mine = |&step: &usize| self.region[step] == region && self.steps[step] != Step::Loop(0);
        let mut waiting: BTreeMap<usize, usize> =
            (0..self.steps.len()).filter(mine).map(|step| (step, self.before[step].len())).collect();
        let mut after: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &step in waiting.keys() {
            self.before[step].iter().for_each(|&before| after.entry(before).or_default().push(step));
        }
        let mut ready: BTreeSet<(usize, usize)> =
            waiting.iter().filter(|(_, count)| **count == 0).map(|(&step, _)| (rank(step), step)).collect();
        let mut sorted = Vec::new();
        while let Some((_, step)) = ready.pop_first() {
            sorted.push(self.steps[step]);
            for &next in after.get(&step).into_iter().flatten() {
                let count = waiting.get_mut(&next).expect("a step of this region");
                *count -= 1;
                if *count == 0 {
                    ready.insert((rank(next), next));
                }
            }
        }
        assert_eq!(sorted.len(), waiting.len(), "internal: steps that wait for each other");
        sorted
    }
}
