//! Checkpoints: directories from which a run continues bit for bit.
//!
//! ```text
//! step-000500/
//!   tensors.safetensors   every tensor that lives across steps
//!   state.json            what else the run needs: see [`State`]
//!   B3SUMS                blake3 of both, as `b3sum` writes and checks it
//! ```
//! A directory is written under a hidden name, flushed to the disk, and renamed when it is complete. Nothing in it
//! depends on the clock, the machine or the number of threads: equal runs have equal checkpoints.

mod error;
mod folder;
mod tensors;

pub use error::CheckpointError;
pub use folder::Checkpoints;

use crate::artifact::{Manifest, TensorKind, TensorSpec};
use crate::atomic;
use crate::data::Fingerprint;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tensors::{DigestWriter, TensorFile};

/// Version of the checkpoint format; any other is refused.
pub const FORMAT_VERSION: u32 = 1;

const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
const SUMS: &str = "B3SUMS";

/// The files of a checkpoint.
pub const FILES: [&str; 3] = [TENSORS, STATE, SUMS];

/// Limits of what is read of the small files.
const MAX_SUMS_BYTES: u64 = 1 << 10;
const MAX_STATE_BYTES: u64 = 16 << 20;

/// What a run needs besides its tensors in order to continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The program's name, for people.
    pub program: String,
    /// [`Manifest::program_digest`].
    pub program_digest: String,
    /// Seed of every draw; together with `step` this is all the state that random numbers have.
    pub seed: u64,
    /// Updates made.
    pub step: u32,
    /// Training records consumed; 0 if each step draws its own.
    pub position: u64,
    /// State of the host's controllers, by name: `privacy`, what private training has spent.
    pub controllers: BTreeMap<String, serde_json::Value>,
    /// The data that it was trained on; `None` if it only took batches of its caller.
    #[serde(default)]
    pub data: Option<Fingerprint>,
    /// What the last step reported, those numbers that were finite.
    pub numbers: BTreeMap<String, f64>,
}

/// Writes a checkpoint to `target`, atomically.
///
/// # Errors
/// From the file system; an older `target` is then untouched.
pub fn write(target: &Path, state: &State, tensors: &[(&TensorSpec, &[u8])]) -> Result<(), CheckpointError> {
    let partial = atomic::aside(target, "partial");
    let write = || -> io::Result<()> {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        fill(&partial, state, tensors)?;
        atomic::sync_directory(&partial)?;
        atomic::replace_directory(&partial, target)
    };
    write().map_err(|error| {
        drop(fs::remove_dir_all(&partial));
        CheckpointError::Write { path: target.to_owned(), error }
    })
}

fn fill(directory: &Path, state: &State, tensors: &[(&TensorSpec, &[u8])]) -> io::Result<()> {
    let mut state = serde_json::to_vec_pretty(state)?;
    state.push(b'\n');
    let state_digest = write_file(&directory.join(STATE), |out| out.write_all(&state))?;
    let tensors_digest = write_file(&directory.join(TENSORS), |out| tensors::write(out, tensors))?;
    let sums = format!("{tensors_digest}  {TENSORS}\n{state_digest}  {STATE}\n");
    write_file(&directory.join(SUMS), |out| out.write_all(sums.as_bytes())).map(drop)
}

/// Writes and flushes a file; returns its digest.
fn write_file(path: &Path, write: impl FnOnce(&mut DigestWriter<&File>) -> io::Result<()>) -> io::Result<blake3::Hash> {
    let file = File::create(path)?;
    let mut out = DigestWriter::new(&file);
    write(&mut out)?;
    let digest = out.finish();
    file.sync_all()?;
    Ok(digest)
}

/// A checkpoint whose files are intact.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    state: State,
    tensors: TensorFile,
}

/// Opens a checkpoint and verifies its files against their digests.
///
/// # Errors
/// When files are missing, damaged or of another version.
pub fn open(path: &Path) -> Result<Opened, CheckpointError> {
    let damaged = |file: &str, reason: String| CheckpointError::Damaged { path: path.join(file), reason };
    if !path.is_dir() {
        return Err(CheckpointError::Missing { path: path.to_owned() });
    }
    let read =
        |file: &str, limit| files::read(&path.join(file), limit).map_err(|error| damaged(file, error.to_string()));
    let sums = String::from_utf8(read(SUMS, MAX_SUMS_BYTES)?).map_err(|error| damaged(SUMS, error.to_string()))?;
    for (file, line) in [TENSORS, STATE].into_iter().zip(sums.split_inclusive('\n')) {
        let digest = digest_of(&path.join(file)).map_err(|error| damaged(file, error.to_string()))?;
        if line != format!("{digest}  {file}\n") {
            return Err(damaged(file, "its contents do not match their digest".to_owned()));
        }
    }
    if sums.split_inclusive('\n').count() != 2 {
        return Err(damaged(SUMS, "it does not list two files".to_owned()));
    }
    let state: State =
        serde_json::from_slice(&read(STATE, MAX_STATE_BYTES)?).map_err(|error| damaged(STATE, error.to_string()))?;
    if state.format != FORMAT_VERSION {
        return Err(CheckpointError::Version { path: path.to_owned(), found: state.format });
    }
    let tensors = TensorFile::open(&path.join(TENSORS)).map_err(|reason| damaged(TENSORS, reason))?;
    Ok(Opened { path: path.to_owned(), state, tensors })
}

fn digest_of(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(files::open(path)?)?;
    Ok(hasher.finalize())
}

impl Opened {
    /// Everything but the tensors.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether it belongs to this program.
    ///
    /// # Errors
    /// When the program differs, or its tensors do.
    pub fn check(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        if self.state.program_digest != manifest.program_digest {
            let (theirs, ours) = (&self.state.program, &manifest.name);
            let reason = format!("it was written by another program or version of it ({theirs}, not {ours})");
            return Err(self.foreign(reason));
        }
        self.tensors.check(&manifest.tensors).map_err(|reason| self.foreign(reason))
    }

    /// Whether it stands at the step that the name of its directory says.
    pub(crate) fn check_step(&self, step: u32) -> Result<(), CheckpointError> {
        match self.state.step == step {
            true => Ok(()),
            false => Err(self.foreign(format!("it is the state after step {}", self.state.step))),
        }
    }

    /// Whether it has all parameters of a program, whatever program wrote it.
    ///
    /// # Errors
    /// When one is missing or has another shape.
    pub fn check_parameters(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let parameters = manifest.tensors.iter().filter(|tensor| matches!(tensor.kind, TensorKind::Parameter { .. }));
        self.tensors.check_has(parameters).map_err(|reason| self.foreign(reason))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors in the order of their names: name, type as safetensors writes it, shape.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        self.tensors.iter()
    }

    /// The complaint that it is intact, but not what is looked for.
    pub(crate) fn foreign(&self, reason: String) -> CheckpointError {
        CheckpointError::Foreign { path: self.path.clone(), reason }
    }

    /// The complaint that what it says of the run cannot be used.
    pub(crate) fn damaged(&self, reason: String) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.join(STATE), reason }
    }

    /// Reads a tensor's bytes; `out` has the size that [`Opened::check`] has confirmed.
    ///
    /// # Errors
    /// From the file system.
    pub fn read_tensor(&self, name: &str, out: &mut [u8]) -> Result<(), CheckpointError> {
        let read = self.tensors.read(name, out);
        read.map_err(|error| CheckpointError::Damaged { path: self.path.join(TENSORS), reason: error.to_string() })
    }
}
