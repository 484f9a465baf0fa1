//! The directory of a run.
//!
//! ```text
//! DIR/program.trainx   the artifact
//! DIR/run.json         the options it was started with
//! DIR/metrics.jsonl    a line per step
//! DIR/summary.json     how it ended
//! DIR/checkpoints/     see [`crate::checkpoint`]
//! DIR/tensorboard/     event files
//! ```

use crate::artifact::Artifact;
use crate::atomic;
use crate::checkpoint::Checkpoints;
use crate::error::{Error, Result};
use crate::report::{EventFile, MetricsFile, Observer, Summary};
use crate::session::{Options, Session};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

const PROGRAM: &str = "program.trainx";
const SETTINGS: &str = "run.json";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";

/// A run's directory, held by this process alone.
pub struct RunDirectory {
    path: PathBuf,
    checkpoints: Checkpoints,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

/// The options that a run keeps when it continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    seed: u64,
    /// The horizon in updates; null until the data has said how long an epoch is.
    steps: Option<u32>,
    base: PathBuf,
}

impl Settings {
    fn read(run: &Path) -> Result<Self> {
        let file = run.join(SETTINGS);
        let json = fs::read(&file).map_err(Error::io(&file))?;
        serde_json::from_slice(&json).map_err(|error| Error::io(&file)(std::io::Error::other(error)))
    }

    fn write(&self, run: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).expect("plain data");
        json.push(b'\n');
        let file = run.join(SETTINGS);
        atomic::write_file(&file, &json).map_err(Error::io(&file))
    }
}

impl RunDirectory {
    /// Begins a run: creates the directory and stores the program and its options in it.
    ///
    /// # Errors
    /// When the directory already holds a run, or cannot be written.
    pub fn create(path: impl AsRef<Path>, artifact: &Artifact, options: &Options) -> Result<Self> {
        let path = path.as_ref();
        fs::create_dir_all(path).map_err(Error::io(path))?;
        if path.join(SETTINGS).exists() {
            let shown = path.display();
            return Error::misuse(format!("{shown} already holds a run: resume it, or choose another directory"));
        }
        let base = options.base.clone().unwrap_or_else(|| PathBuf::from("."));
        let settings = Settings {
            seed: options.seed.unwrap_or(artifact.manifest.train.seed),
            steps: options.steps,
            base: fs::canonicalize(&base).map_err(Error::io(&base))?,
        };
        let directory = Self::lock(path, artifact)?;
        artifact.write(path.join(PROGRAM))?;
        settings.write(path)?;
        Ok(directory)
    }

    /// Keeps the horizon in updates that the run began with, for when it continues: the data may have grown by then.
    pub(crate) fn fix_horizon(&self, steps: u32) -> Result<()> {
        let settings = Settings::read(&self.path)?;
        if settings.steps == Some(steps) {
            return Ok(());
        }
        Settings { steps: Some(steps), ..settings }.write(&self.path)
    }

    /// Opens the directory of an earlier run, with its program and the options to continue with.
    ///
    /// # Errors
    /// When it holds no run, or another process is at work in it.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Artifact, Options)> {
        let path = path.as_ref();
        let (artifact, options) = Self::read(path)?;
        Ok((Self::lock(path, &artifact)?, artifact, options))
    }

    /// Reads the program and the options of a run that may be going on, without claiming the directory.
    ///
    /// # Errors
    /// When it holds no run.
    pub fn read(path: impl AsRef<Path>) -> Result<(Artifact, Options)> {
        let path = path.as_ref();
        let file = path.join(SETTINGS);
        if !file.exists() {
            return Error::misuse(format!("{} holds no run", path.display()));
        }
        let settings = Settings::read(path)?;
        let artifact = Artifact::read(path.join(PROGRAM))?;
        let options = Options {
            seed: Some(settings.seed),
            steps: settings.steps,
            base: Some(settings.base),
            ..Options::default()
        };
        Ok((artifact, options))
    }

    fn lock(path: &Path, artifact: &Artifact) -> Result<Self> {
        let file = path.join(".lock");
        let lock = File::create(&file).map_err(Error::io(&file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Error::misuse(format!("another process is training in {}", path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(&file)(error)),
        }
        let checkpoints = checkpoints(path, artifact.manifest.train.keep);
        Ok(Self { path: path.to_owned(), checkpoints, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Puts a session where the run left off: at its newest usable checkpoint, or at the beginning if none was
    /// written. The observer hears of checkpoints that had to be passed over. Returns the step to continue with.
    ///
    /// # Errors
    /// When there are checkpoints but none is usable.
    pub fn restore(&self, session: &mut Session, observer: &mut dyn Observer) -> Result<u32> {
        restore(&self.checkpoints, session, observer)
    }

    /// The newest checkpoint: what is safe on disk.
    pub fn newest_checkpoint(&self) -> Option<(u32, PathBuf)> {
        self.checkpoints.list().ok()?.pop()
    }

    pub(crate) fn metrics(&self, step: u32) -> Result<MetricsFile> {
        let file = self.path.join(METRICS);
        MetricsFile::open(&file, step).map_err(Error::io(&file))
    }

    pub(crate) fn events(&self) -> Result<EventFile> {
        let folder = self.path.join("tensorboard");
        EventFile::create(&folder).map_err(Error::io(&folder))
    }

    pub(crate) fn io(&self, file: &str) -> impl FnOnce(std::io::Error) -> Error {
        Error::io(self.path.join(file))
    }

    pub(crate) fn write_summary(&self, summary: &Summary) -> Result<()> {
        let file = self.path.join(SUMMARY);
        summary.write(&file).map_err(Error::io(&file))
    }
}

/// Loads the newest usable checkpoint of a run's directory, for evaluation or generation beside a run.
///
/// # Errors
/// When there is no usable checkpoint.
pub fn load_newest(path: impl AsRef<Path>, session: &mut Session) -> Result<u32> {
    let path = path.as_ref();
    let checkpoints = checkpoints(path, 0);
    if checkpoints.list()?.is_empty() {
        return Error::misuse(format!("{} has no checkpoint yet", path.display()));
    }
    restore(&checkpoints, session, &mut ())
}

fn checkpoints(path: &Path, keep: u32) -> Checkpoints {
    Checkpoints::new(path.join("checkpoints"), keep)
}

fn restore(checkpoints: &Checkpoints, session: &mut Session, observer: &mut dyn Observer) -> Result<u32> {
    let Some((opened, faults)) = checkpoints.latest(session.manifest())? else { return Ok(0) };
    for fault in faults {
        observer.warned(&format!("{fault}; an older checkpoint is used"));
    }
    session.restore(&opened)?;
    Ok(session.steps_done())
}
