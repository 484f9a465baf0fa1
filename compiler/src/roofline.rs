//! What a launch would take on a device if nothing but its peaks limited it (Williams, Waterman and Patterson, "Roofline",
//! 2009). A model from data sheets, not a measurement: no launch is faster, most are slower.

use trainc_kernels::{
    Facts,
    ir::{Kernel, Precision},
    tensor_precision,
};
use trainc_runtime::artifact::Isa;

/// Peaks of a device, from its data sheet; matrix rates without sparsity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// The product.
    pub name: &'static str,
    /// FLOP/s of tensor cores on bf16 with sums in f32; on tf32 half as many.
    pub tensor: f64,
    /// FLOP/s of fused multiply-adds in f32.
    pub scalar: f64,
    /// Bytes per second of memory.
    pub bandwidth: f64,
}

/// Seconds between two launches of one graph. An assumption.
pub const LAUNCH: f64 = 1e-6;

impl Device {
    /// A typical device for an instruction set; `None` for processors.
    pub fn typical(isa: Isa) -> Option<Device> {
        let device = |name, tensor: f64, scalar: f64, bandwidth: f64| {
            Some(Device { name, tensor: tensor * 1e12, scalar: scalar * 1e12, bandwidth: bandwidth * 1e9 })
        };
        match isa {
            Isa::Sm80 => device("A100 SXM 80 GB", 312.0, 19.5, 2039.0),
            Isa::Sm86 => device("RTX 3090", 71.0, 35.6, 936.0),
            Isa::Sm89 => device("RTX 4090", 165.2, 82.6, 1008.0),
            Isa::Sm90 => device("H100 SXM", 989.0, 66.9, 3350.0),
            Isa::Sm100 => device("B200", 2250.0, 75.0, 8000.0),
            Isa::Sm120 => device("RTX 5090", 209.5, 104.8, 1792.0),
            Isa::X86V3 | Isa::X86V4 | Isa::X86V4Bf16 => None,
        }
    }

    /// Seconds of a launch of `grids` grids: the longer of computing and moving, and the launches themselves.
    pub fn seconds(&self, kernel: &Kernel, facts: &Facts, grids: usize) -> f64 {
        let peak = match tensor_precision(kernel) {
            None | Some(Precision::F32) => self.scalar,
            Some(Precision::Tf32) => self.tensor / 2.0,
            Some(Precision::Bf16) => self.tensor,
        };
        let moved = (facts.bytes_read + facts.bytes_written) as f64;
        (facts.flops as f64 / peak).max(moved / self.bandwidth) + LAUNCH * grids as f64
    }
}
