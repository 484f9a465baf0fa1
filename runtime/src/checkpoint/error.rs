use super::FORMAT_VERSION;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot save {}: {error} (earlier checkpoints are untouched)", path.display())]
    Write {
        /// Where it should have gone.
        path: PathBuf,
        /// What went wrong, e.g. no space left.
        #[source]
        error: io::Error,
    },
    /// The folder of checkpoints cannot be read or tidied.
    #[error("{}: {error}", path.display())]
    Io {
        /// The folder or checkpoint.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// Nothing there.
    #[error("there is no checkpoint at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Incomplete or changed since it was written.
    #[error("the checkpoint is damaged: {}: {reason}", path.display())]
    Damaged {
        /// The offending file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by another version of the runtime.
    #[error("{} has format {found}, this runtime reads format {FORMAT_VERSION}", path.display())]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// Intact, but of another program, run or step.
    #[error("{} does not belong here: {reason}", path.display())]
    Foreign {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}
