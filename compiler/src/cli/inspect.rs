//! `trainc inspect`. It runs nothing of what it shows: an artifact is machine code, to be trusted before it is run.

use super::{arguments::Inspect, checkpoint, device_code, failure::Failure, output, run, table::Table};
use serde_json::json;
use trainc_runtime::{
    RunDirectory,
    artifact::{Artifact, TensorKind},
    checkpoint::Checkpoints,
};

/// Prints what an artifact or a run directory holds.
pub fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let path = &arguments.path;
    if checkpoint::is_checkpoint(path) {
        return checkpoint::inspect(path, arguments.json);
    }
    let artifact = if path.is_dir() {
        if !RunDirectory::exists(path) {
            return Err(Failure::misuse(checkpoint::neither(path)));
        }
        RunDirectory::read(path).map_err(run::of_runtime)?.0
    } else {
        Artifact::read(&arguments.path).map_err(|error| run::of_runtime(error.into()))?
    };
    output::text(format_args!("{}{}", describe(&artifact), device_code::tables(&artifact)));
    if arguments.path.is_dir() {
        output::text(checkpoints(arguments)?);
    }
    if arguments.json {
        output::json(&facts(&artifact));
    }
    Ok(())
}

fn describe(artifact: &Artifact) -> String {
    let manifest = &artifact.manifest;
    let mut tensors = Table::new(&["tensor", "kind", "shape", "bytes"]);
    for tensor in &manifest.tensors {
        let kind = match &tensor.kind {
            TensorKind::Parameter { trainable: true, .. } => "parameter",
            TensorKind::Parameter { trainable: false, .. } => "frozen parameter",
            TensorKind::State => "state",
        };
        let bytes = tensor.shape.iter().product::<u64>() * tensor.dtype.bytes();
        tensors.row([tensor.name.clone(), kind.into(), format!("{:?}", tensor.shape), bytes.to_string()]);
    }
    let mut entries = Table::new(&["entry", "launches", "inputs", "outputs"]);
    for entry in &manifest.entries {
        let inputs: Vec<&str> = entry.inputs.iter().map(|input| input.name.as_str()).collect();
        let outputs: Vec<&str> = entry.outputs.iter().map(|output| output.name.as_str()).collect();
        entries.row([entry.name.clone(), entry.launches.len().to_string(), inputs.join(", "), outputs.join(", ")]);
    }
    let variants: Vec<String> = manifest
        .variants
        .iter()
        .map(|variant| format!("{:?} ({} kernels)", variant.isa, variant.kernels.len()))
        .collect();
    format!(
        "{}, compiled by trainc {}, program {}\n{}, seed {}, arena {}, code for {}\nRun it only if you trust where it comes from: it is machine code.\n\n{}\n{}",
        manifest.name,
        manifest.compiler,
        &manifest.program_digest.get(..16).unwrap_or(&manifest.program_digest),
        manifest.train.steps,
        manifest.train.seed,
        output::bytes(manifest.arena_bytes),
        variants.join(", "),
        entries.render(),
        tensors.render(),
    )
}

fn checkpoints(arguments: &Inspect) -> Result<String, Failure> {
    let list = Checkpoints::new(arguments.path.join("checkpoints"), 0).list();
    let list = list.map_err(|error| run::of_runtime(error.into()))?;
    let names: Vec<String> =
        list.iter().filter_map(|(_, path)| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    Ok(format!("\ncheckpoints: {}\n", if names.is_empty() { "none".into() } else { names.join(", ") }))
}

fn facts(artifact: &Artifact) -> serde_json::Value {
    let manifest = &artifact.manifest;
    json!({
        "name": manifest.name,
        "compiler": manifest.compiler,
        "program_digest": manifest.program_digest,
        "arena_bytes": manifest.arena_bytes,
        "tensors": manifest.tensors,
        "entries": manifest.entries.iter().map(|entry| (entry.name.clone(), entry.launches.len().into()))
            .collect::<serde_json::Map<_, _>>(),
        "train": manifest.train,
        "devices": device_code::facts(artifact),
    })
}
