//! What a launch computes. [`ir`] describes kernels as plain data, free of any target; the rest of the crate lowers
//! them through MLIR to machine code. This is the only crate that knows MLIR and LLVM.
//!
//! [`compile`] is the entry: kernels in, object code and launch specifications out. [`reference`](mod@reference) is the
//! slow, obvious interpreter that every kernel is tested against.

mod attention;
mod caches;
mod codegen;
mod compile;
mod cuda;
mod emit;
mod facts;
mod gemm;
pub mod ir;
mod micro;
mod nest;
pub mod reference;
mod stage;

pub use caches::Caches;
pub use codegen::CodegenError;
pub use compile::{
    Compiled, Options, Target, assembly, compile, device_stages, host_isa, lower_to_mlir, may_join_a_batch,
    workspace_bytes,
};
pub use cuda::tensor_precision;
pub use facts::{Facts, kernel_facts};
