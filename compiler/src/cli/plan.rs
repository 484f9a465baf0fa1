//! `trainc plan`: the launches of an entry with what each computes and moves.

use super::{arguments::Plan, device_plan, failure::Failure, output, sources, table::Table, target};
use serde_json::json;
use trainc::{
    compile::Compilation,
    schedule::{EntryReport, LaunchReport},
};

/// Prints the launch table of an entry, and its totals.
pub fn plan(arguments: &Plan) -> Result<(), Failure> {
    let (target, isas) = target::parse(&arguments.target)?;
    let (compilation, _, _) = sources::compile_for(&arguments.program, target)?;
    let entries = &compilation.plan.report.entries;
    let Some(entry) = entries.iter().find(|entry| entry.name == arguments.entry) else {
        let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        return Err(Failure::misuse(format!("no entry {}; this program has {}", arguments.entry, known.join(", "))));
    };
    if target == trainc_kernels::Target::Cuda {
        let plan = device_plan::DevicePlan::new(&compilation, entry, isas[0])?;
        output::text(format_args!("{}\n{}{}", plan.table(), totals(&compilation, entry), plan.totals()));
        if arguments.json {
            let mut facts = facts(&compilation, entry);
            facts["device"] = plan.json();
            output::json(&facts);
        }
        return Ok(());
    }
    output::text(format_args!("{}\n{}", launches(&compilation, entry), totals(&compilation, entry)));
    if arguments.json {
        output::json(&facts(&compilation, entry));
    }
    Ok(())
}

fn launches(compilation: &Compilation, entry: &EntryReport) -> String {
    let mut table = Table::new(&["#", "in", "i", "kernel", "flops", "read", "written", "flops/byte", "arguments"]);
    for (number, launch) in entry.launches.iter().enumerate() {
        table.row([
            number.to_string(),
            launch.group.clone(),
            launch.instance.to_string(),
            compilation.plan.kernels[launch.kernel as usize].label.clone(),
            output::count(launch.facts.flops as f64),
            output::bytes(launch.facts.bytes_read),
            output::bytes(launch.facts.bytes_written),
            format!("{:.1}", intensity(launch)),
            launch.buffers.join(", "),
        ]);
    }
    table.render()
}

/// Operations per byte moved.
pub fn intensity(launch: &LaunchReport) -> f64 {
    launch.facts.flops as f64 / (launch.facts.bytes_read + launch.facts.bytes_written).max(1) as f64
}

fn totals(compilation: &Compilation, entry: &EntryReport) -> String {
    let totals = &entry.totals;
    let recomputed = if entry.recomputed.is_empty() {
        String::new()
    } else {
        format!("recomputed in backward: {}\n", entry.recomputed.join(", "))
    };
    format!(
        "{} launches of {} kernels: {} FLOPs, {} read, {} written\n\
         arena {}: {} persistent, {} for `{}` (inputs {}, {} kept from forward for backward)\n{recomputed}",
        entry.launches.len(),
        compilation.plan.kernels.len(),
        output::count(totals.flops as f64),
        output::bytes(totals.bytes_read),
        output::bytes(totals.bytes_written),
        output::bytes(compilation.plan.arena_bytes),
        output::bytes(compilation.plan.report.persistent_bytes),
        output::bytes(entry.region_bytes),
        entry.name,
        output::bytes(entry.input_bytes),
        output::bytes(entry.saved_bytes),
    )
}

fn facts(compilation: &Compilation, entry: &EntryReport) -> serde_json::Value {
    let launch = |launch: &LaunchReport| {
        json!({
            "kernel": launch.kernel,
            "label": compilation.plan.kernels[launch.kernel as usize].label,
            "group": launch.group,
            "instance": launch.instance,
            "flops": launch.facts.flops,
            "bytes_read": launch.facts.bytes_read,
            "bytes_written": launch.facts.bytes_written,
        })
    };
    json!({
        "entry": entry.name,
        "arena_bytes": compilation.plan.arena_bytes,
        "persistent_bytes": compilation.plan.report.persistent_bytes,
        "region_bytes": entry.region_bytes,
        "saved_bytes": entry.saved_bytes,
        "recomputed": entry.recomputed,
        "launches": entry.launches.iter().map(launch).collect::<Vec<_>>(),
    })
}
