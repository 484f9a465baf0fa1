//! From graphs to a plan: which kernels run, in which order, on which bytes of one arena.
//!
//! The way of an entry (`step`, `evaluate`, `generate`), each stage one module:
//!
//! * [`chunks`]: the graph in which rows of a large value are computed some at a time, where that saves memory;
//! * [`dag`], on [`pack`]: a copy of the live graph, with what must lie in memory marked;
//! * [`consume`]: which root values of all instances are computed in the repeat instead, instance by instance;
//! * [`regions`]: which values belong to which pass over the instances of a repeat;
//! * [`select`]: which values are computed into memory and which are recomputed by their users;
//! * [`storage`]: which of them are kept in bf16;
//! * [`sink`]: which forward values only the backward pass computes;
//! * [`group`]: which computed values share a kernel; decided per region, once for all instances;
//! * [`order`]: in which order kernels run, and ([`batch`]) which of them in one launch;
//! * [`build`], on [`lower`], [`domain`] and [`refine`]: the kernels themselves;
//! * [`instantiate`]: launches over instances, and the lifetimes of buffers;
//! * [`arena`]: where buffers lie.
//!
//! [`recompute`] changes the graph before all this: for what costs next to nothing, and for a budget. Everything is a pure
//! function of the request.

mod arena;
mod batch;
mod build;
mod chunks;
mod consume;
mod coords;
mod dag;
mod domain;
mod group;
mod instantiate;
mod lower;
mod order;
mod pack;
mod recompute;
mod refine;
mod regions;
mod report;
mod select;
mod sink;
mod storage;

pub use report::{EntryReport, LaunchReport, Report};

use crate::{
    graph::Graph,
    program::{Input, InputKind, Program},
};
use arena::Placement;
use dag::{Choices, Dag, Tensor};
use instantiate::{Calls, Kernels, Place};
use order::Grouping;
use std::{collections::BTreeMap, fmt};
use trainc_kernels::{
    Target,
    ir::{DType, Kernel},
};
use trainc_runtime::{
    abi::BUFFER_ALIGNMENT,
    artifact::{
        Entry, InputBinding, Launch, MaskBinding, OutputBinding, TensorKind, TensorSpec, TotalBinding, TotalOf,
        total_name,
    },
};

/// What to schedule.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Parameters, states and inputs.
    pub program: &'a Program,
    /// Rewritten graphs by the name of their entry.
    pub entries: &'a [(&'a str, &'a Graph)],
    /// Most bytes that the arena may have.
    pub memory_budget: Option<u64>,
    /// What the kernels will be compiled for: it decides how much working memory they need.
    pub target: Target,
}

/// A scheduled program.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Distinct kernels of all entries; [`Launch::kernel`] counts into this.
    pub kernels: Vec<Kernel>,
    /// Parameters, then states, with their places in the arena.
    pub tensors: Vec<TensorSpec>,
    /// The launch tables.
    pub entries: Vec<Entry>,
    /// Size of the arena.
    pub arena_bytes: u64,
    /// Where the control block lies.
    pub control_offset: u64,
    /// What the plan costs and why it is as large as it is.
    pub report: Report,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// The arena does not fit the budget even if all is recomputed that can be.
    OverBudget {
        /// Smallest arena found, in bytes.
        needed: u64,
        /// The budget in bytes.
        budget: u64,
        /// What of it are parameters and states.
        persistent: u64,
    },
    /// Carried values wait for each other across passes.
    Cyclic {
        /// The entry.
        entry: String,
    },
    /// The instances of repeats are more launches than a plan may hold.
    TooManyLaunches {
        /// The entry.
        entry: String,
        /// How many it would have.
        launches: u64,
        /// The largest number of instances.
        instances: u64,
    },
    /// A kernel breaks a rule of the kernel IR: the graph has something that the schedule cannot express.
    Malformed {
        /// The kernel.
        label: String,
        /// The rule.
        reason: String,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::OverBudget { needed, budget, persistent } => write!(
                formatter,
                "the arena needs {needed} bytes, {} more than the budget of {budget}; parameters and states alone are {persistent}",
                needed.saturating_sub(*budget)
            ),
            ScheduleError::Cyclic { entry } => write!(formatter, "repeats of `{entry}` wait for each other"),
            ScheduleError::TooManyLaunches { entry, launches, instances } => write!(
                formatter,
                "`{entry}` would be {launches} launches of kernels, more than the {MAX_LAUNCHES} that a plan may hold: a repeat counts \
                 {instances} instances. Make it shorter"
            ),
            ScheduleError::Malformed { label, reason } => write!(formatter, "kernel `{label}`: {reason}"),
        }
    }
}

impl std::error::Error for ScheduleError {}

/// Most launches of an entry: a plan lists them all, and so does the artifact. A repeat of 5000 layers fits.
pub const MAX_LAUNCHES: u64 = 1 << 18;

/// Plans a program.
///
/// # Errors
/// If the budget cannot be met, or a graph cannot be expressed.
pub fn schedule(request: &Request) -> Result<Plan, ScheduleError> {
    let persistent = Persistent::new(request.program);
    let graphs = chunks::chosen(request, &persistent)?;
    let names = request.entries.iter().map(|(name, _)| *name);
    let entries: Vec<(&str, &Graph)> = names.zip(graphs.iter().map(|graph| &**graph)).collect();
    let request = &Request { entries: &entries, ..*request };
    let plan = recompute::within(request, &persistent, request.memory_budget.unwrap_or(u64::MAX))?;
    for kernel in &plan.kernels {
        kernel.verify().map_err(|reason| ScheduleError::Malformed { label: kernel.label.clone(), reason })?;
    }
    Ok(plan)
}

/// The plan for given choices per entry.
fn assemble(request: &Request, persistent: &Persistent, choices: Vec<Choices>) -> Result<Plan, ScheduleError> {
    let mut kernels = Kernels::new(request.target);
    let mut entries = Vec::new();
    let mut reports = Vec::new();
    let mut arena_bytes = persistent.bytes;
    for (&(name, graph), choices) in request.entries.iter().zip(choices) {
        let scheduled = entry(name, graph, choices, &mut kernels)?;
        let placement = scheduled.placement();
        arena_bytes = arena_bytes.max(persistent.bytes + placement.bytes);
        reports.push(report::entry(name, &scheduled, &placement, &kernels, request.program));
        entries.push(persistent.bind(name, &scheduled.calls, &placement, &request.program.inputs));
    }
    let report = Report { persistent_bytes: persistent.bytes, recomputed_for_budget: 0, entries: reports };
    let tensors = persistent.tensors.clone();
    Ok(Plan { kernels: kernels.list, tensors, entries, arena_bytes, control_offset: CONTROL_OFFSET, report })
}

/// An entry with all decisions made.
struct Scheduled {
    dag: Dag,
    regions: regions::Regions,
    calls: Calls,
    recomputed: std::collections::BTreeSet<crate::graph::NodeId>,
}

impl Scheduled {
    /// Where its buffers lie, behind parameters and states.
    fn placement(&self) -> Placement {
        let lifetimes: Vec<arena::Lifetime> = self.calls.buffers.iter().map(|(_, lifetime)| *lifetime).collect();
        let placement = arena::place(&lifetimes);
        debug_assert_eq!(arena::clash(&lifetimes, &placement), None);
        placement
    }
}

/// Schedules one entry; updates in place whatever can be.
fn entry(name: &str, graph: &Graph, mut choices: Choices, kernels: &mut Kernels) -> Result<Scheduled, ScheduleError> {
    loop {
        let dag = Dag::new(graph, &choices);
        let mut regions = regions::assign(&dag).ok_or_else(|| ScheduleError::Cyclic { entry: name.into() })?;
        let mut values = select::select(&dag);
        if !choices.wide {
            values.stored = storage::assign(&values);
        }
        sink::sink(&values, &mut regions);
        match group::group(&values, &regions) {
            Ok(grouping) => {
                within_launches(name, &dag, &regions, &grouping)?;
                let calls = instantiate::instantiate(&values, &regions, &grouping, kernels);
                return Ok(Scheduled { calls, regions, recomputed: choices.recomputed, dag });
            }
            Err(conflicts) => choices.give_way(conflicts),
        }
    }
}

/// Refuses an entry before its instances are written out.
fn within_launches(
    name: &str,
    dag: &Dag,
    regions: &regions::Regions,
    grouping: &Grouping,
) -> Result<(), ScheduleError> {
    let count = |region: &regions::Region| dag.scopes[region.scope].count;
    let launches =
        regions.list.iter().zip(grouping.kernels()).map(|(region, kernels)| kernels as u64 * count(region)).sum();
    let instances = regions.list.iter().map(count).max().unwrap_or(1);
    match launches <= MAX_LAUNCHES {
        true => Ok(()),
        false => Err(ScheduleError::TooManyLaunches { entry: name.into(), launches, instances }),
    }
}

/// The control block comes first.
const CONTROL_OFFSET: u64 = 0;
/// Bytes of the control block in the arena.
const CONTROL_BYTES: u64 = BUFFER_ALIGNMENT;

/// Parameters and states, at the start of the arena.
struct Persistent {
    tensors: Vec<TensorSpec>,
    offsets: BTreeMap<Tensor, u64>,
    bytes: u64,
}

impl Persistent {
    fn new(program: &Program) -> Persistent {
        let mut persistent =
            Persistent { tensors: Vec::new(), offsets: BTreeMap::new(), bytes: CONTROL_OFFSET + CONTROL_BYTES };
        for (index, parameter) in (0..).zip(&program.parameters) {
            let kind = TensorKind::Parameter { roles: parameter.roles.clone(), trainable: parameter.trainable };
            let spec = (parameter.name.clone(), parameter.shape.clone(), parameter.init.clone(), kind);
            persistent.add(Tensor::Parameter(index), spec);
        }
        for (index, state) in (0..).zip(&program.states) {
            let spec = (state.name.clone(), state.shape.clone(), state.init.clone(), TensorKind::State);
            persistent.add(Tensor::State(index), spec);
        }
        persistent
    }

    fn add(
        &mut self,
        tensor: Tensor,
        (name, shape, init, kind): (String, Vec<u64>, trainc_runtime::artifact::Init, TensorKind),
    ) {
        let bytes = shape.iter().product::<u64>() * DType::F32.bytes();
        self.offsets.insert(tensor, self.bytes);
        self.tensors.push(TensorSpec { name, dtype: DType::F32, shape, offset: self.bytes, kind, init });
        self.bytes += arena::aligned(bytes);
    }

    /// The byte offset in the arena of a place.
    fn offset(&self, place: Place, placement: &Placement) -> u64 {
        match place {
            Place::Control => CONTROL_OFFSET,
            Place::Tensor(tensor, offset) => self.offsets[&tensor] + offset,
            Place::Buffer(buffer, offset) => self.bytes + placement.offsets[buffer] + offset,
        }
    }

    /// The launch table of an entry.
    fn bind(&self, name: &str, calls: &Calls, placement: &Placement, inputs: &[Input]) -> Entry {
        let fed = |index: &u32| inputs[*index as usize].kind;
        let input = |(&index, (buffer, dtype, shape)): (&u32, &(usize, DType, Vec<u64>))| {
            let input = &inputs[index as usize];
            InputBinding {
                name: input.name.clone(),
                field: input.field.clone(),
                shift: input.shift,
                dtype: *dtype,
                shape: shape.clone(),
                offset: self.offset(Place::Buffer(*buffer, 0), placement),
                below: input.below,
            }
        };
        let total = |(index, (buffer, _, shape)): (&u32, &(usize, DType, Vec<u64>))| {
            let of = match fed(index) {
                InputKind::Records => TotalOf::Records,
                InputKind::Total(number) => TotalOf::Output(total_name(number)),
                InputKind::Field | InputKind::Mask => return None,
            };
            let offset = self.offset(Place::Buffer(*buffer, 0), placement);
            Some(TotalBinding { of, shape: shape.clone(), offset })
        };
        let launch = |call: &instantiate::Call| Launch {
            kernel: call.kernel as u32,
            args: call.args.iter().map(|&place| self.offset(place, placement)).collect(),
            instance: call.instance as u32,
        };
        let output = |(name, place, dtype, shape): &(String, Place, DType, Vec<u64>)| OutputBinding {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            offset: self.offset(*place, placement),
        };
        Entry {
            name: name.into(),
            inputs: calls.inputs.iter().filter(|(index, _)| fed(index) == InputKind::Field).map(input).collect(),
            mask: calls.inputs.iter().find(|(index, _)| fed(index) == InputKind::Mask).map(
                |(_, (buffer, _, shape))| MaskBinding {
                    offset: self.offset(Place::Buffer(*buffer, 0), placement),
                    rows: shape[0],
                },
            ),
            totals: calls.inputs.iter().filter_map(total).collect(),
            outputs: calls.reports.iter().map(output).collect(),
            launches: calls.calls.iter().map(launch).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
