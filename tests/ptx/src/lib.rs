//! Executes PTX on the CPU, instruction by instruction, and checks every access.
//!
//! It stands in for a GPU where there is none: generated kernels are run here and compared with the CPU's results, and what a
//! GPU would hide is an error: reads of memory that was never written, accesses outside an allocation, races in shared
//! memory, barriers that not all threads reach, asynchronous copies that are not waited for.
//!
//! The way of a kernel: [`syntax`] (text to tree), [`decode`] (tree to [`decode::program::Kernel`]), [`exec`] (a launch over
//! [`memory`]). [`Device`] ties them together.

pub mod decode;
mod device;
pub mod exec;
pub mod float;
pub mod memory;
pub mod syntax;

pub use decode::Program;
pub use decode::program::Kernel;
pub use device::{Arg, Device, Loaded};
pub use exec::counters::Counters;
pub use exec::violation::{Violation, ViolationKind};
pub use exec::{Geometry, Options, Report};
pub use float::approximate::Approximation;
pub use syntax::PtxError;
