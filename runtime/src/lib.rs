//! Executes trainc artifacts: loads and verifies them, plans nothing, allocates once, feeds, launches, checkpoints and
//! reports. This crate knows neither LLVM nor e-graphs; it owns the artifact format ([`artifact`]).

pub mod abi;
pub mod artifact;
pub mod atomic;
pub mod checkpoint;
pub mod code;
pub mod data;
pub mod device;
mod error;
mod float_check;
mod init;
pub mod memory;
mod numbers;
pub mod philox;
pub mod report;
mod run_directory;
mod session;
mod train;

pub use error::{Error, Result};
pub use numbers::{Numbers, Values};
pub use run_directory::{RunDirectory, load_newest};
pub use session::{Batch, GenerateOptions, Options, Session};
pub use train::{Outcome, train};
