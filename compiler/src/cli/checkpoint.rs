//! Checkpoints as they are given on the command line.

use super::{failure::Failure, output, run::of_runtime, table::Table};
use serde_json::json;
use std::path::{Path, PathBuf};
use trainc_runtime::{
    RunDirectory,
    checkpoint::{self, Checkpoints, Opened},
};

/// The checkpoint that a path names: the newest of a run directory, or the path itself.
///
/// # Errors
/// [`Failure::Misuse`] if it names neither.
pub fn named_by(path: &Path) -> Result<PathBuf, Failure> {
    if RunDirectory::exists(path) {
        let list = Checkpoints::new(path.join("checkpoints"), 1).list();
        let newest = list.map_err(|error| of_runtime(error.into()))?.pop();
        let none = || Failure::misuse(format!("the run in {} has no checkpoint yet", path.display()));
        return newest.map(|(_, checkpoint)| checkpoint).ok_or_else(none);
    }
    if is_checkpoint(path) { Ok(path.to_owned()) } else { Err(Failure::misuse(neither(path))) }
}

/// Whether a directory looks like a checkpoint, damaged or not.
pub fn is_checkpoint(path: &Path) -> bool {
    checkpoint::FILES.iter().any(|file| path.join(file).is_file())
}

/// Why a path names neither a run nor a checkpoint.
pub fn neither(path: &Path) -> String {
    let shown = path.display();
    let wanted = "give a run directory, or a checkpoint: a directory `step-...` with `tensors.safetensors`, `state.json` and \
                  `B3SUMS`";
    match path.parent().filter(|parent| is_checkpoint(parent)) {
        _ if !path.exists() => format!("there is no {shown}; {wanted}"),
        Some(parent) if path.is_file() => format!("{shown} is a file of a checkpoint; give {}", parent.display()),
        _ if path.is_file() => format!("{shown} is a file; {wanted}"),
        _ => format!("{shown} holds neither a run nor a checkpoint; {wanted}"),
    }
}

/// Prints what a checkpoint holds.
///
/// # Errors
/// When it is damaged.
pub fn inspect(path: &Path, json: bool) -> Result<(), Failure> {
    let opened = checkpoint::open(path).map_err(|error| of_runtime(error.into()))?;
    output::text(describe(&opened));
    if json {
        output::json(&facts(&opened));
    }
    Ok(())
}

fn describe(opened: &Opened) -> String {
    let state = opened.state();
    let mut tensors = Table::new(&["tensor", "type", "shape"]);
    for (name, dtype, shape) in opened.tensors() {
        tensors.row([name.to_owned(), dtype, format!("{shape:?}")]);
    }
    let numbers: Vec<String> = state.numbers.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let controllers: String =
        state.controllers.iter().map(|(name, controller)| format!("{name}: {controller}\n")).collect();
    format!(
        "{} after step {}, seed {}, {} records read, program {}\nlast step: {}\n{controllers}\n{}",
        state.program,
        state.step,
        state.seed,
        state.position,
        state.program_digest.get(..16).unwrap_or(&state.program_digest),
        numbers.join(", "),
        tensors.render(),
    )
}

fn facts(opened: &Opened) -> serde_json::Value {
    let tensor =
        |(name, dtype, shape): (&str, String, &[usize])| (name.to_owned(), json!({ "type": dtype, "shape": shape }));
    json!({
        "state": opened.state(),
        "tensors": opened.tensors().map(tensor).collect::<serde_json::Map<_, _>>(),
    })
}
