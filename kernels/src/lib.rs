//! What a launch computes. [`ir`] describes kernels as plain data, free of any target; the rest of the crate lowers
//! them to MLIR, as text. A [`Backend`] makes machine code of that; nothing here is linked with MLIR or LLVM.
//!
//! [`compile`] is the entry: kernels in, object code and launch specifications out. [`reference`](mod@reference) is the
//! slow, obvious interpreter that every kernel is tested against.

mod attention;
mod backend;
mod caches;
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

pub use backend::{Backend, CodegenError, Form};
pub use caches::Caches;
pub use compile::{
    Compiled, Options, Target, assembly, compile, device_stages, host_isa, lower_to_mlir, may_join_a_batch,
    workspace_bytes,
};
pub use cuda::tensor_precision;
pub use facts::{Facts, kernel_facts};
