//! What a launch computes. [`ir`] describes kernels as plain data, free of any target; the rest of the crate lowers
//! them through MLIR to machine code. This is the only crate that knows MLIR and LLVM.

pub mod ir;
