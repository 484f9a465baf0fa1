//! The directory of a run.
//!
//! ```text
//! DIR/program.trainx   the artifact
//! DIR/run.json         the options it was started with, under a digest
//! DIR/metrics.jsonl    a line per step
//! DIR/summary.json     how it ended
//! DIR/checkpoints/     see [`crate::checkpoint`]
//! DIR/tensorboard/     event files
//! DIR/.lock            locked while a process is at work in it
//! ```
//!
//! There is no run under a name before it can be resumed, and none is gone before another can: see [`NewRun`].

mod lock;
mod settings;
mod stage;
mod start;

pub use start::{Earlier, NewRun};

use crate::artifact::Artifact;
use crate::checkpoint::Checkpoints;
use crate::error::{Error, Result};
use crate::report::{EventFile, MetricsFile, Observer, Summary};
use crate::session::{Options, Session};
use lock::Lock;
use settings::{SETTINGS, Settings};
use std::path::{Path, PathBuf};

const PROGRAM: &str = "program.trainx";
const METRICS: &str = "metrics.jsonl";
const SUMMARY: &str = "summary.json";
const CHECKPOINTS: &str = "checkpoints";
const TENSORBOARD: &str = "tensorboard";

/// A run's directory, held by this process alone.
pub struct RunDirectory {
    path: PathBuf,
    checkpoints: Checkpoints,
    _lock: Lock,
}

impl RunDirectory {
    /// Begins a run: creates the directory and stores the program and its options in it.
    ///
    /// # Errors
    /// When the directory already holds a run, or cannot be written.
    pub fn create(path: impl AsRef<Path>, artifact: &Artifact, options: &Options) -> Result<Self> {
        NewRun::prepare(path, artifact, options, Earlier::Refuse)?.begin()
    }

    /// Whether a directory holds a run.
    pub fn exists(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        path.join(SETTINGS).exists() || stage::is_unsettled(path)
    }

    /// Opens the directory of an earlier run, with its program and the options to continue with.
    ///
    /// # Errors
    /// When it holds no run, or another process is at work in it.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Artifact, Options)> {
        let path = path.as_ref();
        refuse_without_run(path)?;
        let lock = Lock::take(path, path)?;
        stage::settle(path)?;
        let (artifact, options) = Self::read(path)?;
        let checkpoints = checkpoints(path, artifact.manifest.train.keep);
        Ok((Self { path: path.to_owned(), checkpoints, _lock: lock }, artifact, options))
    }

    /// Reads the program and the options of a run that may be going on, without claiming the directory.
    ///
    /// # Errors
    /// When it holds no run.
    pub fn read(path: impl AsRef<Path>) -> Result<(Artifact, Options)> {
        let path = path.as_ref();
        refuse_without_run(path)?;
        if let (true, Ok(_lock)) = (stage::is_unsettled(path), Lock::take(path, path)) {
            stage::settle(path)?;
        }
        let settings = Settings::read(path)?;
        let artifact = Artifact::read(path.join(PROGRAM))?;
        if artifact.manifest.program_digest != settings.program_digest {
            let reason = "it belongs to another program than the one beside it";
            return Err(Error::io(path.join(SETTINGS))(std::io::Error::other(reason)));
        }
        let options = Options {
            seed: Some(settings.seed),
            steps: settings.steps,
            base: Some(settings.base(path)),
            ..Options::default()
        };
        Ok((artifact, options))
    }

    /// Keeps the horizon in updates and the folder of the data for when the run continues: the data may have grown by
    /// then.
    pub(crate) fn keep(&self, steps: u32, base: &Path) -> Result<()> {
        let settings = Settings::read(&self.path)?;
        let mut kept = settings.clone();
        kept.steps = Some(steps);
        // Data that are computed need no folder.
        let kept = if base.exists() { kept.with_base(&self.path, base)? } else { kept };
        if kept == settings { Ok(()) } else { kept.write(&self.path) }
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
    /// When there are checkpoints but none is usable, or none although the run did not start from its program's initial
    /// values.
    pub fn restore(&self, session: &mut Session, observer: &mut dyn Observer) -> Result<u32> {
        let settings = Settings::read(&self.path)?;
        match restore(&self.checkpoints, &settings, session, observer)? {
            Some(step) => Ok(step),
            None if !settings.adopted => Ok(0),
            None => Error::misuse(format!(
                "{} has no checkpoint any more, and it started from the parameters of another run: start it again with \
                 `--from`",
                self.path.display()
            )),
        }
    }

    /// How the run ended, if it has made all its steps and a session stands at its end: then nothing is left to do.
    pub fn finished(&self, session: &Session) -> Option<Summary> {
        let is_at = |name: &str, summary: &Summary| summary.get(name) == Some(&session.steps_done().into());
        let at_end = session.steps() == Some(session.steps_done());
        self.summary().filter(|summary| at_end && is_at("steps", summary) && is_at("steps_done", summary))
    }

    /// The newest checkpoint: what is safe on disk.
    pub fn newest_checkpoint(&self) -> Option<(u32, PathBuf)> {
        self.checkpoints.list().ok()?.pop()
    }

    pub(crate) fn metrics(&self, step: u32) -> Result<MetricsFile> {
        let file = self.path.join(METRICS);
        MetricsFile::open(&file, step).map_err(Error::io(&file))
    }

    pub(crate) fn events(&self, step: u32) -> Result<EventFile> {
        let folder = self.path.join(TENSORBOARD);
        EventFile::create(&folder, step).map_err(Error::io(&folder))
    }

    pub(crate) fn io(&self, file: &str) -> impl FnOnce(std::io::Error) -> Error {
        Error::io(self.path.join(file))
    }

    /// The summary that was written last, if it can be read.
    pub(crate) fn summary(&self) -> Option<Summary> {
        Summary::read(&self.path.join(SUMMARY))
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
    refuse_without_run(path)?;
    match restore(&checkpoints(path, 0), &Settings::read(path)?, session, &mut ())? {
        Some(step) => Ok(step),
        None => Error::misuse(format!("{} has no checkpoint yet", path.display())),
    }
}

fn refuse_without_run(path: &Path) -> Result<()> {
    if RunDirectory::exists(path) { Ok(()) } else { Error::misuse(format!("{} holds no run", path.display())) }
}

fn checkpoints(path: &Path, keep: u32) -> Checkpoints {
    Checkpoints::new(path.join(CHECKPOINTS), keep)
}

fn restore(
    checkpoints: &Checkpoints,
    settings: &Settings,
    session: &mut Session,
    observer: &mut dyn Observer,
) -> Result<Option<u32>> {
    let fits = |opened: &_| session.check(opened).and_then(|()| settings.check(opened));
    let Some((opened, faults)) = checkpoints.latest(fits)? else { return Ok(None) };
    for fault in faults {
        observer.warned(&format!("{fault}; an older checkpoint is used"));
    }
    session.restore(&opened)?;
    Ok(Some(session.steps_done()))
}
