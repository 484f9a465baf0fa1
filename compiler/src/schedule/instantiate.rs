//! From kernels per region to launches over instances, with the buffers that they pass to each other.

use super::{
    arena::Lifetime,
    batch,
    build::{Template, add, fill},
    dag::{Dag, Home, Id, Node, Tensor},
    lower::{Key, Values},
    order::{Grouping, Step},
    regions::{RegionId, Regions},
};
use crate::graph::{Op, Output};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use trainc_kernels::{
    Target,
    ir::{DType, Kernel},
};

/// Instances whose values are added one by one to their sum.
const ADDED_ONE_BY_ONE: u64 = 256;

/// Where an argument lies, before the arena is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Control,
    /// Byte offset in a persistent tensor.
    Tensor(Tensor, u64),
    /// Byte offset in a buffer of the entry.
    Buffer(usize, u64),
}

impl Place {
    fn shifted(self, bytes: u64) -> Place {
        match self {
            Place::Control => Place::Control,
            Place::Tensor(tensor, offset) => Place::Tensor(tensor, offset + bytes),
            Place::Buffer(buffer, offset) => Place::Buffer(buffer, offset + bytes),
        }
    }
}

/// A launch whose arguments are not yet offsets.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub kernel: usize,
    pub args: Vec<Place>,
    pub instance: u64,
    pub region: RegionId,
}

/// What a buffer of an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Input(u32),
    /// Of a node in an instance.
    Value(Id, u64),
    /// Of a sum of instances, what those since it was last added to have added.
    Partial(Id),
    /// Working memory of a kernel of a node in an instance, numbered.
    Temporary(Id, u32, u64),
    /// Working memory of a launch.
    Workspace(usize),
}

/// The launches of one entry.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub calls: Vec<Call>,
    pub buffers: Vec<(Content, Lifetime)>,
    /// Buffers with values of one pass over the instances that another one reads.
    pub saved: BTreeSet<usize>,
    /// Inputs with their buffers.
    pub inputs: BTreeMap<u32, (usize, DType, Vec<u64>)>,
    /// Reports with their places.
    pub reports: Vec<(String, Place, DType, Vec<u64>)>,
}

/// Distinct kernels, in order of first use.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernels {
    pub list: Vec<Kernel>,
    /// What they will be compiled for.
    pub target: Target,
    known: HashMap<Kernel, usize>,
}

impl Kernels {
    pub fn new(target: Target) -> Self {
        Self { target, ..Self::default() }
    }

    fn intern(&mut self, kernel: &Kernel) -> usize {
        if let Some(&known) = self.known.get(kernel) {
            return known;
        }
        self.known.insert(kernel.clone(), self.list.len());
        self.list.push(kernel.clone());
        self.list.len() - 1
    }
}

/// Unrolls an entry.
pub(super) fn instantiate(values: &Values, regions: &Regions, grouping: &Grouping, kernels: &mut Kernels) -> Calls {
    let mut unrolling = Unrolling {
        values,
        regions,
        grouping,
        kernels,
        numbers: BTreeMap::new(),
        partial: BTreeSet::new(),
        calls: empty(),
    };
    unrolling.inputs();
    unrolling.region(0, 0);
    unrolling.reports();
    unrolling.calls
}

fn empty() -> Calls {
    Calls {
        calls: Vec::new(),
        buffers: Vec::new(),
        saved: BTreeSet::new(),
        inputs: BTreeMap::new(),
        reports: Vec::new(),
    }
}

struct Unrolling<'a> {
    values: &'a Values<'a>,
    regions: &'a Regions,
    grouping: &'a Grouping,
    kernels: &'a mut Kernels,
    numbers: BTreeMap<Content, usize>,
    /// Sums of instances to whose partial sums instances add now.
    partial: BTreeSet<Id>,
    calls: Calls,
}

impl<'a> Unrolling<'a> {
    fn dag(&self) -> &'a Dag {
        self.values.dag
    }

    /// Inputs are there before the first launch.
    fn inputs(&mut self) {
        for node in &self.dag().nodes {
            if let Op::Input { index, ty } = &node.op {
                let buffer = self.buffer(Content::Input(*index), node.bytes(), 0);
                self.calls.inputs.insert(*index, (buffer, node.dtype, ty.shape.clone()));
            }
        }
    }

    fn region(&mut self, region: RegionId, instance: u64) {
        let grouping = self.grouping;
        for step in &grouping.order[region] {
            match step {
                Step::Kernels(kernels) => {
                    kernels.iter().for_each(|template| self.launch(template, region, instance));
                }
                Step::Loop(inner) => self.instances(*inner),
            }
        }
    }

    /// All instances of a region, after the sums that they add to are set to 0. Many instances add to partial sums, and these to
    /// the sums: rounding errors grow with additions that follow each other.
    fn instances(&mut self, region: RegionId) {
        let grouping = self.grouping;
        let here = grouping.groups.iter().filter(|group| group.region == region);
        let sums: Vec<Id> = here.flat_map(|group| group.wanted.summed.values().flatten()).copied().collect();
        let count = self.dag().scopes[self.regions.list[region].scope].count;
        self.for_sums(&sums, |node, key| fill(key, node.dtype, &node.shape));
        if sums.is_empty() || count <= ADDED_ONE_BY_ONE {
            return (0..count).for_each(|step| self.instance(region, step));
        }
        let piece = (count - 1).isqrt() + 1;
        for first in (0..count).step_by(piece as usize) {
            self.partial.extend(&sums);
            self.for_sums(&sums, |node, key| fill(key, node.dtype, &node.shape));
            (first..count.min(first + piece)).for_each(|step| self.instance(region, step));
            self.partial.retain(|sum| !sums.contains(sum));
            self.for_sums(&sums, |node, key| {
                let Key::Node(id) = key else { unreachable!("sums are nodes") };
                add(key, Key::Partial(id), node.dtype, &node.shape)
            });
        }
    }

    /// The instance that is number `step` in the order of the region.
    fn instance(&mut self, region: RegionId, step: u64) {
        let list = &self.regions.list;
        let count = self.dag().scopes[list[region].scope].count;
        let instance = if list[region].reversed() { count - 1 - step } else { step };
        self.region(region, instance);
    }

    /// Launches a kernel for each sum of instances.
    fn for_sums(&mut self, sums: &[Id], kernel: impl Fn(&Node, Key) -> Template) {
        let templates: Vec<Template> = sums.iter().map(|&sum| kernel(&self.dag().nodes[sum], Key::Node(sum))).collect();
        batch::together(&templates).iter().for_each(|template| self.launch(template, 0, 0));
    }

    fn launch(&mut self, template: &Template, region: RegionId, instance: u64) {
        let now = self.calls.calls.len();
        let kernel = self.kernels.intern(&template.kernel);
        let mut args: Vec<Place> = template.args.iter().map(|&key| self.place(key, instance)).collect();
        let workspace = trainc_kernels::workspace_bytes(&template.kernel, self.kernels.target);
        if workspace > 0 {
            args.push(Place::Buffer(self.buffer(Content::Workspace(now), workspace, now), 0));
        }
        for arg in &args {
            if let Place::Buffer(buffer, _) = arg {
                self.calls.buffers[*buffer].1.last = now;
                self.calls.saved.extend(Some(*buffer).filter(|&buffer| self.crosses_passes(buffer, region)));
            }
        }
        self.calls.calls.push(Call { kernel, args, instance, region });
    }

    /// Whether a region uses a value of another pass of its scope.
    fn crosses_passes(&self, buffer: usize, region: RegionId) -> bool {
        match self.calls.buffers[buffer].0 {
            Content::Value(id, _) => {
                let scope = self.dag().nodes[id].scope;
                scope != 0 && scope == self.regions.list[region].scope && self.regions.of[id] != region
            }
            _ => false,
        }
    }

    fn place(&mut self, key: Key, instance: u64) -> Place {
        match key {
            Key::Control => Place::Control,
            Key::Tensor(tensor) => Place::Tensor(tensor, 0),
            Key::Slice(tensor, bytes) => Place::Tensor(tensor, instance * bytes),
            Key::Input(index) => Place::Buffer(self.numbers[&Content::Input(index)], 0),
            Key::Node(id) if self.partial.contains(&id) => self.partial_sum(id),
            Key::Node(id) => self.value(id, instance),
            Key::Partial(id) => self.partial_sum(id),
            Key::Temporary(id, number) => {
                let elements = self.temporary_elements(id, number);
                let now = self.calls.calls.len();
                Place::Buffer(
                    self.buffer(Content::Temporary(id, number, instance), elements * DType::F32.bytes(), now),
                    0,
                )
            }
        }
    }

    fn partial_sum(&mut self, sum: Id) -> Place {
        let (bytes, now) = (self.dag().nodes[sum].bytes(), self.calls.calls.len());
        Place::Buffer(self.buffer(Content::Partial(sum), bytes, now), 0)
    }

    /// Size of a result of attention that nobody reads (as queries or keys), or of its working memory (one per row).
    fn temporary_elements(&self, id: Id, number: u32) -> u64 {
        let shape = |operand: usize| &self.dag().nodes[self.dag().nodes[id].operands[operand]].shape;
        match number {
            1 | 2 => shape(1).iter().product(),
            _ => shape(0)[..3].iter().product(),
        }
    }

    /// Where the value of a node lies in an instance of its scope.
    fn value(&mut self, mut id: Id, mut instance: u64) -> Place {
        loop {
            let node = &self.dag().nodes[id];
            if node.scope == 0 {
                instance = 0;
            }
            match (&node.op, self.dag().homes.get(&id)) {
                (_, Some(Home::Slice(stack))) => {
                    return self.value(*stack, 0).shifted(instance * self.values.bytes(id));
                }
                (_, Some(Home::Under(user))) => id = *user,
                (Op::Carry { .. }, _) => (id, instance) = self.received(id, instance),
                (Op::Last, _) => (id, instance) = self.left(node.operands[0]),
                (Op::Layer { .. }, _) => {
                    let whole = self.dag().storage(node.operands[0]);
                    return self.value(whole, 0).shifted(instance * self.values.bytes(id));
                }
                _ => match self.values.key(id) {
                    Key::Node(id) => {
                        let (bytes, now) = (self.values.bytes(id), self.calls.calls.len());
                        return Place::Buffer(self.buffer(Content::Value(id, instance), bytes, now), 0);
                    }
                    key => return self.place(key, 0),
                },
            }
        }
    }

    /// The value that an instance receives through a carry, with the instance that it comes from.
    fn received(&self, carry: Id, instance: u64) -> (Id, u64) {
        let dag = self.dag();
        let last = dag.scopes[dag.nodes[carry].scope].count - 1;
        let carried = &dag.carries[&carry];
        match (carried.reversed, instance) {
            (false, 0) => (dag.storage(carried.init), 0),
            (true, instance) if instance == last => (dag.storage(carried.init), 0),
            (false, instance) => (dag.storage(carried.next), instance - 1),
            (true, instance) => (dag.storage(carried.next), instance + 1),
        }
    }

    /// The value that a carry leaves, with the instance that it comes from.
    fn left(&self, carry: Id) -> (Id, u64) {
        let dag = self.dag();
        let last = dag.scopes[dag.nodes[carry].scope].count - 1;
        let carried = &dag.carries[&carry];
        (dag.storage(carried.next), if carried.reversed { 0 } else { last })
    }

    fn buffer(&mut self, content: Content, bytes: u64, now: usize) -> usize {
        let buffers = &mut self.calls.buffers;
        *self.numbers.entry(content).or_insert_with(|| {
            buffers.push((content, Lifetime { bytes, first: now, last: now }));
            buffers.len() - 1
        })
    }

    /// Reports stay where they are until the next call.
    fn reports(&mut self) {
        let end = self.calls.calls.len();
        for (output, id) in &self.dag().outputs {
            let Output::Report(name) = output else { continue };
            let place = self.value(self.dag().storage(*id), 0);
            if let Place::Buffer(buffer, _) = place {
                self.calls.buffers[buffer].1.last = end;
            }
            // The value may lie in storage of another shape with the same elements.
            let node = &self.dag().nodes[*id];
            self.calls.reports.push((name.clone(), place, node.dtype, node.shape.clone()));
        }
    }
}
