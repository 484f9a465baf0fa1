//! The order of groups and loops: each after what it needs and before what overwrites it, otherwise as in the program.

use super::{
    batch,
    build::Template,
    dag::{Id, Tensor},
    group::{Conflicts, Fusion, Group},
    regions::{RegionId, leaves_scope},
};
use crate::graph::Op;
use std::collections::{BTreeMap, BTreeSet};

/// A step of the root, or of one instance of a region.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Kernels, one after the other.
    Kernels(Vec<Template>),
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

impl Grouping {
    /// By region, how many kernels an instance launches.
    pub fn kernels(&self) -> impl Iterator<Item = usize> {
        let launched = |step: &Step| if let Step::Kernels(kernels) = step { kernels.len() } else { 0 };
        self.order.iter().map(move |steps| steps.iter().map(launched).sum())
    }
}

/// Orders finished groups. If some tensors cannot be updated in place, says which.
pub(super) fn order(fusion: &Fusion) -> Result<Grouping, Conflicts> {
    Ordering::new(fusion).finish(fusion)
}

/// What must run before what. Groups and loops are numbered together: first the groups, then the loops over the instances of
/// each region.
struct Ordering {
    /// By number.
    before: Vec<BTreeSet<usize>>,
    /// By number: where it runs.
    region: Vec<RegionId>,
    /// How many groups there are.
    groups: usize,
}

impl Ordering {
    fn new(fusion: &Fusion) -> Ordering {
        let groups = fusion.groups.len();
        let loops = fusion.regions.list.len();
        let region: Vec<RegionId> =
            (0..groups).map(|group| fusion.group(group).region).chain((0..loops).map(|_| 0)).collect();
        let mut ordering = Ordering { before: vec![BTreeSet::new(); region.len()], region, groups };
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
                let loops = fusion.entered_by(id).into_iter().map(|region| self.groups + region);
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
        let order = (0..fusion.regions.list.len()).map(|region| self.steps(fusion, region)).collect();
        Ok(Grouping { groups: fusion.groups.iter().flatten().cloned().collect(), order })
    }

    /// The region whose instances a loop runs through; `None` for groups.
    fn looped(&self, number: usize) -> Option<RegionId> {
        number.checked_sub(self.groups)
    }

    /// Whether it runs in a region. The root has no loop.
    fn is_of(&self, number: usize, region: RegionId) -> bool {
        self.region[number] == region && self.looped(number) != Some(0)
    }

    /// What runs in a region.
    fn steps(&self, fusion: &Fusion, region: RegionId) -> Vec<Step> {
        let kernels = |number: usize| match self.looped(number) {
            None => &fusion.group(number).kernels[..],
            Some(_) => &[],
        };
        let slots = batch::slots(&self.sorted(fusion, region), &self.before, &kernels);
        let step = |slot: Vec<usize>| match self.looped(slot[0]) {
            Some(region) => Step::Loop(region),
            None if slot.len() == 1 => Step::Kernels(kernels(slot[0]).to_vec()),
            None => Step::Kernels(batch::together(&slot.iter().flat_map(|&n| kernels(n)).cloned().collect::<Vec<_>>())),
        };
        slots.into_iter().map(step).collect()
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
        let reads = |number: &usize| fusion.reads_of(fusion.group(*number));
        let others: Vec<usize> =
            (0..self.groups).filter(|&number| self.region[number] == region && number != writer).collect();
        let mixed = others.iter().chain([&writer]).any(|number| reads(number).iter().any(of_others));
        let pass = self.groups + region;
        let readers = others.into_iter().filter(|number| reads(number).iter().any(own_slice)).collect();
        !outlives
            && !mixed
            && self.run_before(writer, readers)
            && self.run_before(pass, self.root_readers(fusion, pass, old))
    }

    /// What of the root, other than `writer`, reads a value.
    fn root_readers(&self, fusion: &Fusion, writer: usize, value: impl Fn(&Id) -> bool) -> Vec<usize> {
        let reads = |number: usize| match self.looped(number) {
            None => fusion.reads_of(fusion.group(number)),
            Some(region) => fusion.entering[region].clone(),
        };
        let others = (0..self.region.len()).filter(|&number| self.is_of(number, 0) && number != writer);
        others.filter(|&number| reads(number).iter().any(&value)).collect()
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

    /// The groups and loops of a region, each after those it needs, otherwise in the order of the program.
    fn sorted(&self, fusion: &Fusion, region: RegionId) -> Vec<usize> {
        let rank = |number: usize| match self.looped(number) {
            None => fusion.group(number).members[0],
            Some(region) => fusion.regions.of.iter().rposition(|&of| of == region).unwrap_or(0),
        };
        let mut waiting: BTreeMap<usize, usize> = (0..self.region.len())
            .filter(|&number| self.is_of(number, region))
            .map(|number| (number, self.before[number].len()))
            .collect();
        let mut after: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &number in waiting.keys() {
            self.before[number].iter().for_each(|&before| after.entry(before).or_default().push(number));
        }
        let mut ready: BTreeSet<(usize, usize)> =
            waiting.iter().filter(|(_, count)| **count == 0).map(|(&number, _)| (rank(number), number)).collect();
        let mut sorted = Vec::new();
        while let Some((_, number)) = ready.pop_first() {
            sorted.push(number);
            for &next in after.get(&number).into_iter().flatten() {
                let count = waiting.get_mut(&next).expect("it is of this region");
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
