//! The start of a run: out of sight until it can be resumed.

use super::settings::Settings;
use super::stage::Stage;
use super::{CHECKPOINTS, PROGRAM, RunDirectory, checkpoints};
use crate::artifact::Artifact;
use crate::checkpoint::Checkpoints;
use crate::error::{Error, Result};
use crate::session::{Options, Session};
use std::path::{Path, PathBuf};

/// What becomes of an earlier run in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It stays, and there is no new one.
    Refuse,
    /// The new one takes its place. Files that are not a run's stay where they are.
    Replace,
}

/// A run that has been set up but does not show under its name yet. Dropped before [`NewRun::begin`], it leaves nothing; if
/// its process ends, however it ends, the directory holds what it held before. An earlier run is replaced in one step
/// that cannot be cut off halfway.
pub struct NewRun {
    path: PathBuf,
    settings: Settings,
    keep: u32,
    stage: Stage,
}

impl NewRun {
    /// Claims a directory and stores the program aside.
    ///
    /// # Errors
    /// When another process is at work in the directory, it holds a run that is to stay, or it cannot be written.
    pub fn prepare(path: impl AsRef<Path>, artifact: &Artifact, options: &Options, earlier: Earlier) -> Result<Self> {
        let path = path.as_ref();
        if earlier == Earlier::Refuse && RunDirectory::exists(path) {
            let shown = path.display();
            return Error::misuse(format!(
                "{shown} already holds a run: resume it, replace it (`--fresh`), or choose another directory"
            ));
        }
        let stage = Stage::open(path)?;
        let manifest = &artifact.manifest;
        let seed = options.seed.unwrap_or(manifest.train.seed);
        let base = options.base.as_deref().unwrap_or(Path::new("."));
        let settings = Settings::new(&manifest.program_digest, seed, options.steps).with_base(path, base)?;
        artifact.write(stage.folder().join(PROGRAM))?;
        Ok(Self { path: path.to_owned(), settings, keep: manifest.train.keep, stage })
    }

    /// Makes a session's parameters those that the run starts from: its program does not know them, so a checkpoint keeps
    /// them.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub fn start_from(&mut self, session: &Session) -> Result<()> {
        self.settings.adopted = true;
        session.save(Checkpoints::new(self.stage.folder().join(CHECKPOINTS), self.keep).path(0))
    }

    /// Lets the run appear under its name.
    ///
    /// # Errors
    /// From the file system.
    pub fn begin(self) -> Result<RunDirectory> {
        self.settings.write(self.stage.folder())?;
        let lock = self.stage.commit()?;
        let checkpoints = checkpoints(&self.path, self.keep);
        Ok(RunDirectory { path: self.path, checkpoints, _lock: lock })
    }
}
