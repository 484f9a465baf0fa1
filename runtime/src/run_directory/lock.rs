//! The lock of a run's directory: one process at a time is at work in it.

use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file that is locked. It stays when its run is replaced.
pub(super) const LOCK: &str = ".lock";

/// Held until it is dropped, or until the process ends, however it ends. The lock belongs to the file and not to its
/// name, so a directory that is renamed stays locked.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Claims `folder`, in which the run called `run` lies or is set up.
    ///
    /// # Errors
    /// When another process has claimed it, or from the file system.
    pub(super) fn take(folder: &Path, run: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let file = File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => Ok(Self { _file: file }),
            Ok(()) | Err(TryLockError::WouldBlock) => {
                Error::misuse(format!("another process is training in {}", run.display()))
            }
            Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
        }
    }
}

/// Whether the name still leads to the file: what another process has set up meanwhile has got its final name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |data: fs::Metadata| (data.dev(), data.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => identity(held) == identity(named),
        _ => false,
    }
}
