//! `run.json`: the options that a run keeps when it continues, under a digest of their own.

use crate::atomic;
use crate::checkpoint::{CheckpointError, Opened, State};
use crate::error::{Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

pub(super) const SETTINGS: &str = "run.json";

/// Limit of what is read of it.
const MAX_BYTES: u64 = 1 << 20;

/// Version of the file; any other is refused.
const FORMAT: u32 = 2;

/// The options of a run. The file holds exactly what [`Settings::render`] makes of them, so that no bit of it can change
/// unnoticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    format: u32,
    /// [`crate::artifact::Manifest::program_digest`] of the program beside it.
    pub(super) program_digest: String,
    pub(super) seed: u64,
    /// The horizon in updates; null until the data has said how long an epoch is.
    pub(super) steps: Option<u32>,
    /// Where relative paths of the program's data start, seen from the run's directory: what moves together stays
    /// together.
    base: PathBuf,
    /// Whether the run starts from parameters that its program does not know, and so has a checkpoint from the start.
    pub(super) adopted: bool,
    /// blake3 of the file with this left empty.
    digest: String,
}

impl Settings {
    pub(super) fn new(program_digest: &str, seed: u64, steps: Option<u32>) -> Self {
        Self {
            format: FORMAT,
            program_digest: program_digest.to_owned(),
            seed,
            steps,
            base: PathBuf::from("."),
            adopted: false,
            digest: String::new(),
        }
    }

    /// The same with data paths that start at `base`, for a run whose directory is `run`, of which only the last part
    /// need not exist yet.
    ///
    /// # Errors
    /// When one of the folders does not exist.
    pub(super) fn with_base(mut self, run: &Path, base: &Path) -> Result<Self> {
        self.base = way(&real(run)?, &fs::canonicalize(base).map_err(Error::io(base))?);
        Ok(self)
    }

    /// Where relative paths of the data start, for a run that lies at `run` now.
    pub(super) fn base(&self, run: &Path) -> PathBuf {
        let base = run.join(&self.base);
        fs::canonicalize(&base).unwrap_or(base)
    }

    /// Whether a checkpoint is one of this run.
    ///
    /// # Errors
    /// When its seed is another, or it stands behind the end.
    pub(super) fn check(&self, opened: &Opened) -> Result<(), CheckpointError> {
        let State { seed, step, .. } = opened.state();
        if *seed != self.seed {
            return Err(opened.foreign(format!("it is of a run with seed {seed}, this one has seed {}", self.seed)));
        }
        match self.steps {
            Some(steps) if *step > steps => {
                Err(opened.foreign(format!("it has made {step} steps, this run has {steps} in all")))
            }
            _ => Ok(()),
        }
    }

    /// Reads the file of a run.
    ///
    /// # Errors
    /// When there is none, or it is not as it was written.
    pub(super) fn read(run: &Path) -> Result<Self> {
        let file = run.join(SETTINGS);
        let bytes = files::read(&file, MAX_BYTES).map_err(Error::io(&file))?;
        Self::parse(&bytes).map_err(|reason| Error::io(&file)(io::Error::other(reason)))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |reason: &str| {
            format!(
                "the options of the run are damaged: {reason} (`--from` still takes parameters from its checkpoints)"
            )
        };
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
        if json.get("format") != Some(&FORMAT.into()) {
            let written = "it was written by another version of trainc";
            return Err(format!("{written} (format {FORMAT} is read here), or its format number is damaged"));
        }
        let settings: Self = serde_json::from_value(json).map_err(|error| damaged(&error.to_string()))?;
        match settings.render() {
            Ok(rendered) if rendered == bytes => Ok(settings),
            _ => Err(damaged("its contents do not match their digest")),
        }
    }

    /// Writes the file of a run, atomically.
    ///
    /// # Errors
    /// From the file system.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        let file = run.join(SETTINGS);
        let write = || atomic::write_file(&file, &self.render()?);
        write().map_err(Error::io(&file))
    }

    fn render(&self) -> io::Result<Vec<u8>> {
        let mut sealed = Self { digest: String::new(), ..self.clone() };
        sealed.digest = blake3::hash(&serde_json::to_vec_pretty(&sealed)?).to_hex().to_string();
        let mut json = serde_json::to_vec_pretty(&sealed)?;
        json.push(b'\n');
        Ok(json)
    }
}

/// A path without links, of which the last part need not exist.
fn real(path: &Path) -> Result<PathBuf> {
    match (fs::canonicalize(path), path.file_name()) {
        (Ok(real), _) => Ok(real),
        (Err(_), Some(name)) => {
            let parent = atomic::parent(path);
            Ok(fs::canonicalize(parent).map_err(Error::io(parent))?.join(name))
        }
        (Err(error), None) => Err(Error::io(path)(error)),
    }
}

/// How to get from one folder to another, both absolute and without links.
fn way(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(common)).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_lead_up_to_what_is_common_and_down_again() {
        let lead = |from: &str, to: &str| way(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(lead("/p/runs/a", "/p"), "../..");
        assert_eq!(lead("/p/runs/a", "/p/data"), "../../data");
        assert_eq!(lead("/p", "/p"), ".");
        assert_eq!(lead("/p", "/p/data"), "data");
        assert_eq!(lead("/scratch/a", "/home/b"), "../../home/b");
    }

    #[test]
    fn every_bit_of_the_options_is_under_their_digest() {
        let settings = Settings { adopted: true, ..Settings::new("abc123", 7, Some(100)) };
        let bytes = settings.render().unwrap();
        assert_eq!(Settings { digest: String::new(), ..Settings::parse(&bytes).unwrap() }, settings);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Settings::parse(&flipped).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&flipped));
        }
        for length in 0..bytes.len() {
            assert!(Settings::parse(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn options_of_another_version_are_refused_as_such() {
        let error = Settings::parse(br#"{ "seed": 1, "steps": 20, "base": "/home" }"#).unwrap_err();
        assert!(error.contains("written by another version"), "{error}");
    }
}
