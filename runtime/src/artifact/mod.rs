//! The artifact: a manifest (what to launch, on which bytes of one arena) and machine code, in one file.
//!
//! ```text
//! offset  bytes  what
//! 0       8      magic  89 "TRNX" 0d 0a 1a   (like PNG's: text-mode transfers and truncated lines show)
//! 8       4      format version
//! 12      4      zero
//! 16      8      bytes of the manifest, M
//! 24      8      bytes of the code section, C
//! 32      32     blake3 of all other bytes of the file
//! 64      M      the manifest, JSON
//! 64 + M  C      per variant: its object files, each preceded by its length, and a seal for each kernel
//! ```
//! Numbers are little-endian. Nothing of a file is believed, and nothing is allocated by its word, before the lengths
//! agree with the file's size and the digest with its contents.

mod duration;
mod format;
mod manifest;
mod seal;
mod verify;

pub use duration::Duration;
pub use format::{ArtifactError, HEADER_BYTES, MAGIC};
pub use manifest::*;
pub use seal::{Seal, seal};
pub use verify::{Defect, verify};

use std::path::Path;

/// Relocatable ELF objects.
pub type Objects = Vec<Vec<u8>>;

/// A compiled program.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Everything but the code.
    pub manifest: Manifest,
    /// The code of each of [`Manifest::variants`], in the same order.
    pub code: Vec<(Isa, Objects)>,
    /// What that code was made for: of each variant a seal for each kernel.
    pub seals: Vec<Vec<Seal>>,
}

impl Artifact {
    /// The artifact as a file's contents.
    pub fn to_bytes(&self) -> Vec<u8> {
        format::encode(self)
    }

    /// Reads and verifies a file's contents.
    ///
    /// # Errors
    /// For anything but an intact, consistent artifact of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let artifact = format::decode(bytes)?;
        verify(&artifact)?;
        Ok(artifact)
    }

    /// Reads and verifies a file.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`Artifact::from_bytes`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ArtifactError> {
        Self::from_bytes(&format::read_file(path.as_ref())?)
    }

    /// Writes a file atomically: it holds either its old contents or all of the new ones.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ArtifactError> {
        let path = path.as_ref();
        crate::atomic::write_file(path, &self.to_bytes())
            .map_err(|error| ArtifactError::Io { path: path.to_owned(), error })
    }
}
