//! What artifacts run on. A device owns the arena and the code and executes tables of launches; everything above it
//! sees bytes at offsets.

mod arena;
mod ceilings;
mod cpu;
mod cuda;
pub mod float;
mod pool;
mod timeline;

pub use arena::Arena;
pub use ceilings::Ceilings;
pub use cpu::{Cpu, supported};
pub use cuda::{Cuda, CudaError};
pub use pool::{Pool, share};
pub use timeline::StageTime;

use crate::artifact::{Artifact, Entry, InputBinding, Isa};
use crate::code::CodeError;
use std::borrow::Cow;
use std::io;

/// Which machine executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of that number.
    Cuda(u32),
}

/// A machine with one artifact's code loaded and its arena allocated.
pub enum Device {
    /// The processor.
    Cpu(Cpu),
    /// A CUDA device.
    Cuda(Cuda),
}

impl Device {
    /// The instruction set of the loaded code.
    pub fn isa(&self) -> Isa {
        match self {
            Device::Cpu(cpu) => cpu.isa(),
            Device::Cuda(cuda) => cuda.isa(),
        }
    }

    /// Number of threads that this process uses: for a device one.
    pub fn threads(&self) -> usize {
        match self {
            Device::Cpu(cpu) => cpu.threads(),
            Device::Cuda(_) => 1,
        }
    }

    /// What executes, in words.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => format!("{} threads", cpu.threads()),
            Device::Cuda(cuda) => cuda.name().to_owned(),
        }
    }

    /// Records the stages of all runs from now on, each run replacing the one before; or no longer. Of CUDA devices nothing is
    /// recorded.
    pub fn record(&mut self, on: bool) {
        if let Device::Cpu(cpu) = self {
            cpu.record(on);
        }
    }

    /// The stages of the last recorded run, in order.
    pub fn recorded(&self) -> &[StageTime] {
        match self {
            Device::Cpu(cpu) => cpu.recorded(),
            Device::Cuda(_) => &[],
        }
    }

    /// Bytes of the arena, after all that was run.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Result<Cow<'_, [u8]>, DeviceError> {
        match self {
            Device::Cpu(cpu) => Ok(Cow::Borrowed(cpu.arena().slice(offset, bytes))),
            Device::Cuda(cuda) => Ok(Cow::Owned(cuda.read(offset, bytes)?)),
        }
    }

    /// Has bytes of the arena written by `fill`; all of them.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        bytes: u64,
        fill: impl FnOnce(&mut [u8]) -> crate::Result<()>,
    ) -> crate::Result<()> {
        match self {
            Device::Cpu(cpu) => fill(cpu.arena_mut().slice_mut(offset, bytes)),
            Device::Cuda(cuda) => cuda.write(offset, bytes, fill),
        }
    }

    /// Has rows of the arena written by all threads: `fill` is given the number of its first row and whole rows.
    pub(crate) fn write_rows(
        &mut self,
        offset: u64,
        bytes: u64,
        row_bytes: u64,
        fill: impl Fn(u64, &mut [u8]) -> crate::Result<()> + Sync,
    ) -> crate::Result<()> {
        match self {
            Device::Cpu(cpu) => cpu.write_rows(offset, bytes, row_bytes, &fill),
            Device::Cuda(cuda) => cuda.write(offset, bytes, |out| fill(0, out)),
        }
    }

    /// Has a batch brought to the device while it works; `fill` writes each input. Whether the device does such a thing.
    pub(crate) fn send_ahead(
        &mut self,
        entry: &Entry,
        fill: impl FnMut(&InputBinding, &mut [u8]) -> crate::Result<()>,
    ) -> crate::Result<bool> {
        match self {
            Device::Cpu(_) => Ok(false),
            Device::Cuda(cuda) => cuda.send_ahead(entry, fill),
        }
    }

    /// Has the entry read the batch that was sent for it.
    pub(crate) fn take_ahead(&mut self, entry: &Entry) -> Result<(), DeviceError> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Cuda(cuda) => Ok(cuda.take_ahead(entry)?),
        }
    }

    /// Executes an entry of the artifact that the device was made for.
    pub(crate) fn run(&mut self, entry: &Entry) -> Result<(), DeviceError> {
        match self {
            Device::Cpu(cpu) => cpu.run(&entry.launches),
            Device::Cuda(cuda) => cuda.run(entry)?,
        }
        Ok(())
    }
}

impl Place {
    /// Loads an artifact; `threads` and `wanted` are those of [`crate::Options`].
    pub(crate) fn open(self, artifact: &Artifact, threads: usize, wanted: Option<Isa>) -> Result<Device, DeviceError> {
        match self {
            Place::Cpu => Cpu::new(artifact, threads, wanted).map(Device::Cpu),
            Place::Cuda(number) => Cuda::new(artifact, number, wanted).map(Device::Cuda),
        }
    }
}

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
    #[error(
        "cannot start {threads} threads: {error}; the number of processes or the memory is limited (`ulimit -u`, `ulimit -v`), and `--threads 1` needs no other thread"
    )]
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
    /// The artifact was compiled for the other kind of machine.
    #[error("the artifact holds code for {}: {}", list(available), other_machine(available))]
    OtherTarget {
        /// What the artifact holds.
        available: Vec<Isa>,
    },
    /// A CUDA device, or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The machine code was refused.
    #[error(transparent)]
    Code(#[from] CodeError),
}

/// What to do with an artifact for another kind of machine.
fn other_machine(isas: &[Isa]) -> &'static str {
    match isas.iter().all(|isa| isa.is_cuda()) {
        true => "run it with --device cuda, or compile it with --target cpu",
        false => "run it with --device cpu, or compile it with --target cuda",
    }
}

fn list(isas: &[Isa]) -> String {
    isas.iter().map(|isa| format!("{isa:?}")).collect::<Vec<_>>().join(", ")
}
