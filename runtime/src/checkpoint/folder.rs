//! The folder in which a run keeps its checkpoints.

use super::{CheckpointError, Opened, open};
use std::fs;
use std::path::{Path, PathBuf};

/// Checkpoints of one run, named by step.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: u32,
}

impl Checkpoints {
    /// Those in `folder`, of which the last `keep` stay (0: all).
    pub fn new(folder: impl Into<PathBuf>, keep: u32) -> Self {
        Self { folder: folder.into(), keep }
    }

    /// Where the checkpoint after `step` updates goes.
    pub fn path(&self, step: u32) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }

    /// All complete checkpoints, oldest first. A missing folder has none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<(u32, PathBuf)>, CheckpointError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.io(error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| self.io(error))?.path();
            found.extend(step_of(&path).map(|step| (step, path)));
        }
        found.sort();
        Ok(found)
    }

    /// The newest checkpoint that is intact, of the step that its name says, and `fits`, and why newer ones were passed
    /// over.
    ///
    /// # Errors
    /// When there are checkpoints but none can be used: the newest one's fault.
    pub fn latest(
        &self,
        fits: impl Fn(&Opened) -> Result<(), CheckpointError>,
    ) -> Result<Option<(Opened, Vec<CheckpointError>)>, CheckpointError> {
        let mut faults = Vec::new();
        for (step, path) in self.list()?.into_iter().rev() {
            let opened = open(&path).and_then(|opened| opened.check_step(step).map(|()| opened));
            match opened.and_then(|opened| fits(&opened).map(|()| opened)) {
                Ok(opened) => return Ok(Some((opened, faults))),
                Err(fault) => faults.push(fault),
            }
        }
        faults.into_iter().next().map_or(Ok(None), Err)
    }

    /// Removes what is beyond the number to keep, oldest first, and remains of interrupted writes.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn tidy(&self) -> Result<(), CheckpointError> {
        let all = self.list()?;
        let surplus = if self.keep == 0 { 0 } else { all.len().saturating_sub(self.keep as usize) };
        for (_, path) in &all[..surplus] {
            fs::remove_dir_all(path).map_err(|error| CheckpointError::Io { path: path.clone(), error })?;
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".step-") && (name.ends_with(".partial") || name.ends_with(".replaced")) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|error| CheckpointError::Io { path, error })?;
            }
        }
        Ok(())
    }

    fn io(&self, error: std::io::Error) -> CheckpointError {
        CheckpointError::Io { path: self.folder.clone(), error }
    }
}

fn step_of(path: &Path) -> Option<u32> {
    let step = path.file_name()?.to_str()?.strip_prefix("step-")?;
    (path.is_dir() && step.len() >= 6).then(|| step.parse().ok())?
}
