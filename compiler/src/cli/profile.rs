//! Where the time of a step goes: recorded stages, summed by kernel or written as a trace.

use super::{output, table::Table};
use serde_json::{Value, json};
use trainc_kernels::Facts;
use trainc_runtime::{Session, artifact::Launch, device::StageTime};

/// Kernels that a profile lists by name; the rest are one line.
const LISTED: usize = 24;

/// All launches of one kernel in a step.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The kernel's label.
    pub label: String,
    /// Launches in a step.
    pub launches: u64,
    /// Nanoseconds from the first stage's begin to the last one's end, over all launches.
    pub time: u64,
    /// Of these, those between the first and the last thread's end: imbalance.
    pub uneven: u64,
    /// Of these, those in stages before the last: packing, first halves of reductions.
    pub preparing: u64,
    /// Work and traffic of all launches, if known.
    pub facts: Facts,
}

/// Sums the stages of the last step by kernel, the costliest first. `facts` are those of the kernels, in order; empty if
/// the program came as an artifact.
pub fn by_kernel(session: &Session, facts: &[Facts]) -> Vec<Group> {
    let device = session.device();
    let kernels = session.manifest().variants.iter().find(|variant| variant.isa == device.isa());
    let kernels = &kernels.expect("the loaded code is a variant").kernels;
    let launches = launches(session);
    let mut groups = vec![Group::default(); kernels.len()];
    for stage in device.recorded() {
        let number = launches[stage.launch as usize].kernel as usize;
        let (group, kernel) = (&mut groups[number], &kernels[number]);
        group.label.clone_from(&kernel.label);
        group.time += stage.end - stage.begin;
        group.uneven += stage.finished[1].saturating_sub(stage.finished[0]);
        if stage.stage as usize + 1 < kernel.stages.len() {
            group.preparing += stage.end - stage.begin;
            continue;
        }
        group.launches += 1;
        let known = facts.get(number).copied().unwrap_or_default();
        group.facts.flops += known.flops;
        group.facts.bytes_read += known.bytes_read;
        group.facts.bytes_written += known.bytes_written;
    }
    groups.retain(|group| group.launches > 0);
    groups.sort_by_key(|group| std::cmp::Reverse(group.time));
    groups
}

fn launches(session: &Session) -> &[Launch] {
    session.manifest().entry("step").map_or(&[], |entry| &entry.launches)
}

/// The profile as a table.
pub fn render(groups: &[Group]) -> String {
    let total: u64 = groups.iter().map(|group| group.time).sum();
    let mut table =
        Table::new(&["ms", "%", "launches", "GFLOP/s", "GB/s", "preparing %", "uneven %", "written", "kernel"]);
    let (listed, rest) = groups.split_at(groups.len().min(LISTED));
    let others = rest.iter().fold(Group::default(), |sum, group| Group {
        label: format!("{} other kernels", rest.len()),
        launches: sum.launches + group.launches,
        time: sum.time + group.time,
        uneven: sum.uneven + group.uneven,
        preparing: sum.preparing + group.preparing,
        facts: Facts {
            flops: sum.facts.flops + group.facts.flops,
            bytes_read: sum.facts.bytes_read + group.facts.bytes_read,
            bytes_written: sum.facts.bytes_written + group.facts.bytes_written,
        },
    });
    for group in listed.iter().chain((!rest.is_empty()).then_some(&others)) {
        let share = |part: u64| 100.0 * part as f64 / group.time.max(1) as f64;
        table.row([
            format!("{:.3}", group.time as f64 / 1e6),
            format!("{:.1}", 100.0 * group.time as f64 / total.max(1) as f64),
            group.launches.to_string(),
            format!("{:.1}", group.facts.flops as f64 / group.time.max(1) as f64),
            format!("{:.1}", bytes(&group.facts) as f64 / group.time.max(1) as f64),
            format!("{:.0}", share(group.preparing)),
            format!("{:.0}", share(group.uneven)),
            output::bytes(group.facts.bytes_written),
            group.label.clone(),
        ]);
    }
    table.render()
}

fn bytes(facts: &Facts) -> u64 {
    facts.bytes_read + facts.bytes_written
}

/// The profile as data.
pub fn facts(groups: &[Group]) -> Value {
    let group = |group: &Group| {
        json!({
            "kernel": group.label,
            "launches": group.launches,
            "ms": group.time as f64 / 1e6,
            "uneven_ms": group.uneven as f64 / 1e6,
            "preparing_ms": group.preparing as f64 / 1e6,
            "flops": group.facts.flops,
            "bytes": bytes(&group.facts),
        })
    };
    groups.iter().map(group).collect()
}

/// The last step in Chrome's trace format (`chrome://tracing`, Perfetto): a line of stages, times in microseconds.
pub fn trace(session: &Session) -> Value {
    let device = session.device();
    let kernels = session.manifest().variants.iter().find(|variant| variant.isa == device.isa());
    let kernels = &kernels.expect("the loaded code is a variant").kernels;
    let launches = launches(session);
    let event = |stage: &StageTime| {
        let launch = &launches[stage.launch as usize];
        json!({
            "name": kernels[launch.kernel as usize].label,
            "cat": "stage",
            "ph": "X",
            "pid": 0,
            "tid": 0,
            "ts": stage.begin as f64 / 1e3,
            "dur": (stage.end - stage.begin) as f64 / 1e3,
            "args": {
                "launch": stage.launch,
                "kernel": launch.kernel,
                "stage": stage.stage,
                "instance": launch.instance,
                "uneven_us": stage.finished[1].saturating_sub(stage.finished[0]) as f64 / 1e3,
            },
        })
    };
    json!({ "traceEvents": device.recorded().iter().map(event).collect::<Vec<_>>(), "displayTimeUnit": "ms" })
}
