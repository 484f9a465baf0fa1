//! Everything that can go wrong while running, sorted by who can do something about it.

use crate::artifact::ArtifactError;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::device::{CudaError, DeviceError};
use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The machine cannot execute it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A checkpoint cannot be written or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of the run's directory.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// What has been spent cannot be computed.
    #[error("the privacy account: {0}")]
    Privacy(#[from] crate::privacy::Error),
    /// The guarantee is for other data.
    #[error(
        "the privacy guarantee is for {promised} training records, but the data have {found}: noise and sampling would be wrong; \
         compile the program for these data, or give it those that it was compiled for"
    )]
    Records {
        /// What the program was compiled for.
        promised: u64,
        /// What the data have.
        found: u64,
    },
    /// A run would continue with other data than it began with.
    #[error(
        "the data are not those that the run was trained on: {difference}; records that were held out may be trained on now. \
         Put the files back, or accept them as they are with `--data-changed`"
    )]
    DataChanged {
        /// What is different.
        difference: String,
    },
    /// There is no key for secure noise.
    #[error("the operating system has no random numbers for secure noise: {0}")]
    Randomness(#[from] getrandom::Error),
    /// The numbers have left the realm of numbers.
    #[error("{what} is {value} at step {step}: the run has diverged")]
    Diverged {
        /// `the loss`, or a tensor.
        what: String,
        /// NaN or an infinity.
        value: f64,
        /// The update that showed it, counted from 1.
        step: u32,
    },
    /// The schedule gives a rate that no optimizer can use.
    #[error("the learning rate is {value} at step {step}: the schedule must give a finite rate of at least 0")]
    Rate {
        /// Negative, an infinity, or NaN.
        value: f64,
        /// The update, counted from 1.
        step: u32,
    },
    /// The caller asked for something that is not there or makes no sense.
    #[error("{0}")]
    Misuse(String),
}

impl From<CudaError> for Error {
    fn from(error: CudaError) -> Self {
        Self::Device(error.into())
    }
}

impl Error {
    /// The exit code that a command line should end with: 2 for misuse, 3 for a run that failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Misuse(_) => 2,
            _ => 3,
        }
    }

    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn misuse<T>(text: impl Into<String>) -> Result<T> {
        Err(Self::Misuse(text.into()))
    }
}
