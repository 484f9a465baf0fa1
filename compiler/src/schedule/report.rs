//! What a plan costs: facts about launches and memory, as data.

use super::{
    Scheduled,
    arena::Placement,
    instantiate::{Content, Kernels, Place},
};
use crate::program::Program;
use trainc_kernels::{Facts, kernel_facts};

/// What a plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Bytes of the control block, parameters and states.
    pub persistent_bytes: u64,
    /// How many values are computed again only because of the memory budget.
    pub recomputed_for_budget: usize,
    /// By entry, in the order of the request.
    pub entries: Vec<EntryReport>,
}

/// What one entry needs beyond parameters and states.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryReport {
    /// `step`, `evaluate`, `generate`.
    pub name: String,
    /// Bytes of its inputs.
    pub input_bytes: u64,
    /// Bytes of its part of the arena, inputs included; the entries share that part.
    pub region_bytes: u64,
    /// The most that is in use at any time: the part of the arena could not be smaller in this order of launches.
    pub peak_bytes: u64,
    /// Bytes of forward values that wait for the backward pass, over all instances.
    pub saved_bytes: u64,
    /// Values that the backward pass computes again: those that cost next to nothing, and more to meet a memory budget.
    pub recomputed: Vec<String>,
    /// Work and traffic of all launches together.
    pub totals: Facts,
    /// All launches, in order.
    pub launches: Vec<LaunchReport>,
}

/// One launch, for tables.
#[derive(Clone, Debug, PartialEq)]
pub struct LaunchReport {
    /// Index into [`super::Plan::kernels`].
    pub kernel: u32,
    /// The part of the program: the name of a repeat, or of the entry.
    pub group: String,
    /// Which instance of it.
    pub instance: u64,
    /// Work and traffic.
    pub facts: Facts,
    /// What the arguments hold.
    pub buffers: Vec<String>,
}

/// The report of a scheduled entry.
pub(super) fn entry(
    name: &str,
    scheduled: &Scheduled,
    placement: &Placement,
    kernels: &Kernels,
    program: &Program,
) -> EntryReport {
    let facts: Vec<Facts> = kernels.list.iter().map(kernel_facts).collect();
    let calls = &scheduled.calls;
    let lifetimes: Vec<_> = calls.buffers.iter().map(|(_, lifetime)| *lifetime).collect();
    let is_input = |content: &Content| matches!(content, Content::Input(_));
    let launches: Vec<LaunchReport> = calls
        .calls
        .iter()
        .map(|call| LaunchReport {
            kernel: call.kernel as u32,
            group: scheduled.dag.scopes[scheduled.regions.list[call.region].scope].name.clone(),
            instance: call.instance,
            facts: facts[call.kernel],
            buffers: call.args.iter().map(|&place| described(scheduled, program, place)).collect(),
        })
        .collect();
    EntryReport {
        name: name.into(),
        input_bytes: calls.buffers.iter().filter(|(content, _)| is_input(content)).map(|(_, life)| life.bytes).sum(),
        region_bytes: placement.bytes,
        peak_bytes: super::arena::peak(&lifetimes),
        saved_bytes: calls.saved.iter().map(|&buffer| calls.buffers[buffer].1.bytes).sum(),
        recomputed: recomputed(scheduled),
        totals: launches.iter().fold(Facts::default(), |sum, launch| added(sum, launch.facts)),
        launches,
    }
}

/// What is computed twice, each value once.
fn recomputed(scheduled: &Scheduled) -> Vec<String> {
    let first = |id| scheduled.dag.nodes.iter().find(|node| node.origin == id);
    let nodes = scheduled.recomputed.iter().filter_map(|&id| first(id));
    nodes.map(|node| format!("%{} {}{:?}", node.origin.index(), node.op.name(), node.shape)).collect()
}

fn added(a: Facts, b: Facts) -> Facts {
    Facts {
        flops: a.flops + b.flops,
        bytes_read: a.bytes_read + b.bytes_read,
        bytes_written: a.bytes_written + b.bytes_written,
    }
}

/// What a place holds, in words.
fn described(scheduled: &Scheduled, program: &Program, place: Place) -> String {
    use super::dag::Tensor;
    match place {
        Place::Control => "control".into(),
        Place::Tensor(Tensor::Parameter(index), _) => program.parameters[index as usize].name.clone(),
        Place::Tensor(Tensor::State(index), _) => program.states[index as usize].name.clone(),
        Place::Buffer(buffer, _) => match scheduled.calls.buffers[buffer].0 {
            Content::Input(index) => program.inputs[index as usize].name.clone(),
            Content::Value(id, instance) => {
                let node = &scheduled.dag.nodes[id];
                let scope = if node.scope == 0 { String::new() } else { format!("[{instance}]") };
                format!("%{}{scope} {}{:?}", node.origin.index(), node.op.name(), node.shape)
            }
            Content::Partial(id) | Content::Temporary(id, ..) => {
                format!("work of %{}", scheduled.dag.nodes[id].origin.index())
            }
            Content::Workspace(_) => "workspace".into(),
        },
    }
}
