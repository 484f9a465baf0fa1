//! `trainc check`: what is known of a program before its first step.

use super::{arguments::Check, failure::Failure, output, sources, table::Table};
use std::collections::BTreeMap;
use std::path::Path;
use trainc::{
    compile::{Compilation, Summary},
    program::Parameter,
};
use trainc_runtime::{
    artifact::{Duration, PrivateSpec, Sampling},
    data::{Data, Need},
};

/// Checks a program and prints its parameters by group, its work, its memory and its launches.
pub fn check(arguments: &Check) -> Result<(), Failure> {
    let (compilation, _, _) = sources::compile(&arguments.program)?;
    output::text(report(&compilation, &horizon(&compilation, &arguments.program.base())));
    if arguments.json {
        output::json(&compilation.summary());
    }
    Ok(())
}

/// How long training is. Epochs are counted in steps too if the data can be opened.
fn horizon(compilation: &Compilation, base: &Path) -> String {
    let train = &compilation.program.train;
    let epochs = match train.steps {
        steps @ Duration::Steps(_) => return steps.to_string(),
        epochs @ Duration::Epochs { .. } => epochs,
    };
    match records(compilation, base) {
        Ok(records) => match epochs.horizon(records, train.batch) {
            Some(steps) => format!("{epochs} of {records} samples, {steps} steps"),
            None => format!("{epochs} of {records} samples, more steps than can be counted"),
        },
        Err(reason) => format!("{epochs} (the steps are counted when the data can be opened: {reason})"),
    }
}

/// Training records of the program's data.
fn records(compilation: &Compilation, base: &Path) -> Result<u64, String> {
    let data = compilation.program.data.as_ref().ok_or("the program names none")?;
    let needs = Need::of_program(&compilation.plan.entries)?;
    Ok(Data::open(data, &needs, base).map_err(|error| error.to_string())?.train_records())
}

fn report(compilation: &Compilation, horizon: &str) -> String {
    let summary = compilation.summary();
    let memory = &compilation.plan.report;
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.to_string(), value]);
    fact(
        "parameters",
        format!(
            "{} ({} trained)",
            output::count(summary.parameters as f64),
            output::count(summary.trainable_parameters as f64)
        ),
    );
    fact("FLOPs per step", output::count(summary.flops_per_step as f64));
    fact("peak memory", format!("{} ({} B)", output::bytes(summary.peak_bytes), summary.peak_bytes));
    fact("  persistent", output::bytes(memory.persistent_bytes));
    fact("  inputs and activations", output::bytes(summary.peak_bytes - memory.persistent_bytes));
    let recomputed = memory.entries.iter().find(|entry| entry.name == "step").map_or(0, |step| step.recomputed.len());
    if recomputed > 0 {
        fact("  computed again in backward", format!("{recomputed} values of each instance"));
    }
    if let Some((budget, _)) = compilation.program.train.memory {
        fact("  budget", output::bytes(budget) + &economies(compilation));
    }
    fact("launches per step", summary.launches_per_step.to_string());
    fact("distinct kernels", summary.distinct_kernels.to_string());
    for (name, value) in compilation.program.private.iter().flat_map(|private| guarantee(private, &summary)) {
        fact(name, value);
    }
    format!(
        "{}: {horizon} of {} {}\n\n{}\n{}",
        summary.name,
        compilation.program.train.items_per_step,
        compilation.program.train.item,
        groups(&compilation.program.parameters),
        facts.render().trim_start()
    )
}

/// What the memory budget has changed.
fn economies(compilation: &Compilation) -> String {
    match compilation.price_of_storing() {
        1 => String::new(),
        price => format!(", stored results priced {price} times as high"),
    }
}

/// What private training guarantees, and by what.
fn guarantee(private: &PrivateSpec, summary: &Summary) -> Vec<(&'static str, String)> {
    let privacy = summary.privacy.as_ref().expect("a private program has a summary of it");
    let spent = format!(
        "epsilon {:.4} at delta {:.2e} after all steps{}",
        privacy.epsilon,
        privacy.delta,
        private.epsilon.map_or(String::new(), |budget| format!(" (budget {budget})"))
    );
    let (drawn, holds) = match private.sampling {
        Sampling::Poisson { rate } => (format!("each with probability {rate:.6} (Poisson)"), ""),
        Sampling::Shuffled => ("in shuffled order".to_string(), ", would they be drawn at random"),
    };
    vec![
        ("privacy", spent + holds),
        ("  neighbours", "data sets of which one has a record more".to_string()),
        ("  records", format!("{}, drawn {drawn}", private.records)),
        ("  noise multiplier", format!("{} of the clipping norm {}", private.noise_multiplier, private.clip)),
        ("  noise", if private.secure { "keyed by the operating system" } else { "from the seed" }.to_string()),
    ]
}

/// Parameters by their set of roles.
fn groups(parameters: &[Parameter]) -> String {
    let mut groups: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for parameter in parameters {
        let name = if parameter.roles.is_empty() { "(no role)".into() } else { parameter.roles.join(" ") };
        let elements: u64 = parameter.shape.iter().product();
        let group = groups.entry(name).or_default();
        group.0 += 1;
        group.1 += elements;
        group.2 += if parameter.trainable { elements } else { 0 };
    }
    let mut table = Table::new(&["roles", "tensors", "parameters", "trained"]);
    for (name, (tensors, elements, trained)) in groups {
        table.row([name, tensors.to_string(), elements.to_string(), trained.to_string()]);
    }
    table.render()
}
