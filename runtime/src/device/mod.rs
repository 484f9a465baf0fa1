//! What artifacts run on. A device owns the arena and the code and executes tables of launches; everything above it
//! sees bytes at offsets.

mod arena;
mod ceilings;
mod cpu;
pub mod float;
mod pool;
mod timeline;

pub use arena::Arena;
pub use ceilings::Ceilings;
pub use cpu::{Cpu, supported};
pub use pool::{Pool, share};
pub use timeline::StageTime;

use crate::artifact::Isa;
use crate::code::CodeError;
use std::io;

/// Why a device could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The arena or the threads' private memory does not fit.
    #[error("the program needs {:.1} MB for {what}, and the system refuses: {error}", *bytes as f64 / 1e6)]
    Memory {
        /// `its arena` or `the threads' scratch`.
        what: &'static str,
        /// How much was asked for.
        bytes: u64,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {error}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's answer.
        #[source]
        error: io::Error,
    },
    /// No code for this processor.
    #[error("the artifact holds code for {}, and this processor has none of them", list(available))]
    NoVariant {
        /// What the artifact holds.
        available: Vec<Isa>,
    },
    /// The asked-for code is not in the artifact or not for this processor.
    #[error("{wanted:?} is not in the artifact or not supported by this processor")]
    VariantUnavailable {
        /// What was asked for.
        wanted: Isa,
    },
    /// The machine code was refused.
    #[error(transparent)]
    Code(#[from] CodeError),
}

fn list(isas: &[Isa]) -> String {
    isas.iter().map(|isa| format!("{isa:?}")).collect::<Vec<_>>().join(", ")
}
