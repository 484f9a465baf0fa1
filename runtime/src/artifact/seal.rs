//! Seals of kernels: what machine code was made for, written beside it when it is generated.
//!
//! Generated code trusts the sizes that it was made for and cannot look at those of a manifest. A manifest with smaller
//! buffers than the code's would pass every check against the arena and still make the code write behind its end. So a
//! digest of these sizes stands in the code section, and a manifest that says something else is refused.

use super::{KernelSpec, StageSpec};

/// Digest (blake3) of what one kernel's code was made for.
pub type Seal = [u8; 32];

/// The seals of these kernels, in order.
pub fn seal(kernels: &[KernelSpec]) -> Vec<Seal> {
    kernels.iter().map(of_kernel).collect()
}

/// Labels are for people and do not count. The alignment of an argument follows from its size and from whether a stage
/// has a thread block, so that it needs no number of its own.
fn of_kernel(kernel: &KernelSpec) -> Seal {
    let mut hasher = blake3::Hasher::new();
    number(&mut hasher, kernel.scratch_bytes);
    number(&mut hasher, kernel.buffer_bytes.len() as u64);
    kernel.buffer_bytes.iter().for_each(|&bytes| number(&mut hasher, bytes));
    number(&mut hasher, kernel.stages.len() as u64);
    kernel.stages.iter().for_each(|stage| of_stage(&mut hasher, stage));
    *hasher.finalize().as_bytes()
}

/// A stage without a thread block counts as one of no threads, which no device could launch.
fn of_stage(hasher: &mut blake3::Hasher, stage: &StageSpec) {
    number(hasher, stage.symbol.len() as u64);
    hasher.update(stage.symbol.as_bytes());
    number(hasher, stage.tiles);
    let (threads, shared) = stage.block.map_or((0, 0), |block| (block.threads, block.shared_bytes));
    number(hasher, threads.into());
    number(hasher, shared.into());
}

fn number(hasher: &mut blake3::Hasher, number: u64) {
    hasher.update(&number.to_le_bytes());
}
