//! Runs decoded kernels: a grid of blocks, one after another; in each, warps of 32 lanes in lockstep.

mod async_copy;
mod barrier;
mod collective;
mod control;
pub mod counters;
mod float_lanes;
mod integer_lanes;
mod machine;
mod mma;
mod order;
mod sparse_metadata;
mod step;
mod transfer;
pub mod violation;
mod warp;

use self::counters::Counters;
use self::machine::Machine;
use self::violation::{Violation, ViolationKind};
use crate::decode::program::Kernel;
use crate::float::approximate::Approximation;
use crate::memory::global::GlobalMemory;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shuffles the order of blocks and of warps; without a seed both ascend.
    pub seed: Option<u64>,
    /// What approximate instructions return.
    pub approximation: Approximation,
    /// Whether lanes of one warp race unless `bar.warp.sync` or a block barrier orders them.
    pub warp_races: bool,
    /// Warp instructions after which a launch counts as endless.
    pub max_instructions: u64,
    /// Violations after which a launch stops.
    pub max_violations: usize,
    /// Dynamic and static shared memory together that a block may have.
    pub max_shared_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: None,
            approximation: Approximation::Rounded,
            warp_races: true,
            max_instructions: 1 << 36,
            max_violations: 16,
            max_shared_bytes: 163 << 10,
        }
    }
}

/// Extents of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u64,
}

/// What a launch did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What went wrong; the results are meaningless unless this is empty.
    pub violations: Vec<Violation>,
    /// What was counted.
    pub counters: Counters,
}

/// Launches a kernel. `params` is the parameter block ([`Kernel::params`] gives its layout), `variables` holds the addresses
/// of the module's variables.
pub fn launch(
    kernel: &Kernel,
    geometry: Geometry,
    params: &[u8],
    variables: &[u64],
    memory: &mut GlobalMemory,
    options: &Options,
) -> Report {
    if let Err(detail) = check_launch(kernel, geometry, params, options) {
        let violation = Violation {
            kind: ViolationKind::BadLaunch,
            kernel: kernel.name.clone(),
            line: 0,
            instruction: String::new(),
            block: [0; 3],
            thread: [0; 3],
            address: None,
            bytes: 0,
            detail,
        };
        return Report { violations: vec![violation], counters: Counters::default() };
    }
    Machine::new(kernel, geometry, params, variables, memory, options).run()
}

/// Limits of sm_80 and of the kernel's own declarations.
fn check_launch(kernel: &Kernel, geometry: Geometry, params: &[u8], options: &Options) -> Result<(), String> {
    let [gx, gy, gz] = geometry.grid;
    let [bx, by, bz] = geometry.block;
    if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65535 || gz > 65535 {
        return Err(format!("the grid ({gx}, {gy}, {gz}) is outside (1..=2147483647, 1..=65535, 1..=65535)"));
    }
    let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
    if threads == 0 || threads > 1024 || bz > 64 {
        return Err(format!("the block ({bx}, {by}, {bz}) must have 1 to 1024 threads, z at most 64"));
    }
    if let Some(most) = kernel.max_threads
        && threads > most
    {
        return Err(format!("{threads} threads per block, but the kernel is built for {most} (.maxntid)"));
    }
    if let Some(required) = kernel.required_threads
        && required != geometry.block
    {
        return Err(format!("the block must be {required:?} (.reqntid)"));
    }
    let shared = kernel.shared_bytes.next_multiple_of(kernel.dynamic_align).saturating_add(geometry.dynamic_shared);
    if shared > options.max_shared_bytes {
        let most = options.max_shared_bytes;
        return Err(format!("{shared} bytes of shared memory, but a block may have {most}"));
    }
    if params.len() != kernel.param_bytes {
        return Err(format!("{} bytes of parameters instead of {}", params.len(), kernel.param_bytes));
    }
    Ok(())
}
