//! What the kernels of an artifact ask of a CUDA device.

use super::{output, table::Table};
use serde_json::json;
use std::collections::BTreeMap;
use trainc_runtime::artifact::{Artifact, BlockSpec, Isa, KernelSpec, StageSpec, Variant};

/// Registers of a multiprocessor, and of a thread at most.
const REGISTERS: u32 = 65_536;
const MOST_REGISTERS: u32 = 255;

/// One launch of a kernel.
struct Grid<'a> {
    kernel: &'a KernelSpec,
    stage: &'a StageSpec,
    block: BlockSpec,
    /// What a thread may use of them: the driver's assembler decides how many it does.
    most_registers: u32,
}

/// The grids of each variant for devices.
fn variants(artifact: &Artifact) -> Vec<(Isa, Vec<Grid<'_>>)> {
    let variants = artifact.manifest.variants.iter().zip(&artifact.code);
    let of_devices = variants.filter(|(variant, _)| variant.isa.is_cuda());
    of_devices.map(|(variant, (_, ptx))| (variant.isa, grids(variant, ptx))).collect()
}

fn grids<'a>(variant: &'a Variant, ptx: &[Vec<u8>]) -> Vec<Grid<'a>> {
    let together = blocks_together(ptx);
    let stages = variant.kernels.iter().flat_map(|kernel| kernel.stages.iter().map(move |stage| (kernel, stage)));
    let grid = |(kernel, stage): (&'a KernelSpec, &'a StageSpec)| {
        let block = stage.block?;
        let threads = block.threads * together.get(&stage.symbol).unwrap_or(&1);
        Some(Grid { kernel, stage, block, most_registers: (REGISTERS / threads / 8 * 8).min(MOST_REGISTERS) })
    };
    stages.filter_map(grid).collect()
}

/// The kernels of each variant for devices, one row a grid; empty if there is none.
pub fn tables(artifact: &Artifact) -> String {
    variants(artifact).iter().map(|(isa, grids)| format!("\n{isa:?}\n{}", table(grids))).collect()
}

fn table(grids: &[Grid]) -> String {
    let mut table = Table::new(&["entry", "grid", "block", "shared", "registers", "arguments", "kernel"]);
    for grid in grids {
        table.row([
            grid.stage.symbol.clone(),
            grid.stage.tiles.to_string(),
            grid.block.threads.to_string(),
            output::bytes(grid.block.shared_bytes.into()),
            format!("at most {}", grid.most_registers),
            arguments(grid.kernel),
            grid.kernel.label.clone(),
        ]);
    }
    table.render()
}

/// The same as JSON.
pub fn facts(artifact: &Artifact) -> serde_json::Value {
    let of = |grid: &Grid| {
        json!({
            "entry": grid.stage.symbol,
            "kernel": grid.kernel.label,
            "grid": grid.stage.tiles,
            "block": grid.block.threads,
            "shared_bytes": grid.block.shared_bytes,
            "most_registers": grid.most_registers,
            "buffer_bytes": grid.kernel.buffer_bytes,
        })
    };
    let variants = variants(artifact);
    let facts =
        variants.iter().map(|(isa, grids)| json!({ "isa": isa, "grids": grids.iter().map(of).collect::<Vec<_>>() }));
    facts.collect()
}

/// Sizes of the buffers in order, equal neighbours together; the number of the instance comes last.
fn arguments(kernel: &KernelSpec) -> String {
    let runs = kernel.buffer_bytes.chunk_by(|a, b| a == b);
    let buffers = runs.map(|run| match run {
        [bytes] => output::bytes(*bytes),
        _ => format!("{} x {}", run.len(), output::bytes(run[0])),
    });
    buffers.chain(["instance".into()]).collect::<Vec<_>>().join(", ")
}

/// Of each entry, how many blocks must fit a multiprocessor at once, where the code says so.
fn blocks_together(ptx: &[Vec<u8>]) -> BTreeMap<String, u32> {
    let texts: Vec<_> = ptx.iter().map(|object| String::from_utf8_lossy(object)).collect();
    let (mut found, mut entry) = (BTreeMap::new(), String::new());
    for line in texts.iter().flat_map(|text| text.lines()).map(str::trim) {
        if let Some(rest) = line.strip_prefix(".visible .entry ") {
            entry = rest.trim_end_matches('(').to_owned();
        }
        if let Some(blocks) = line.strip_prefix(".minnctapersm ").and_then(|number| number.parse().ok()) {
            found.insert(entry.clone(), blocks);
        }
    }
    found
}
