//! The interpreter's own truth: every instruction against values computed by hand from the PTX ISA, and a planted fault of
//! each kind.

mod conversions;
mod faults;
mod floats;
mod integers;
mod llvm;
mod matrices;
mod memory;
mod support;
mod text;
mod warps;
