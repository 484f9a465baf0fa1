//! Executes trainc artifacts: loads and verifies them, plans nothing, allocates once, feeds, launches, checkpoints and
//! reports. This crate knows neither LLVM nor e-graphs; it owns the artifact format ([`artifact`]).

pub mod abi;
pub mod artifact;
pub mod atomic;
pub mod code;
pub mod device;
pub mod memory;
pub mod philox;
