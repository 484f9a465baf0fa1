//! Bytes to [`Artifact`] and back; see the module above for the layout.

use super::{Artifact, Defect, FORMAT_VERSION, Isa, Manifest, Objects, Seal};
use crate::files;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What every artifact begins with.
pub const MAGIC: [u8; 8] = *b"\x89TRNX\r\n\x1a";
const DIGEST: std::ops::Range<usize> = 32..64;

/// Size of the fixed part at the front of a file.
pub const HEADER_BYTES: usize = 64;

/// Why something is not a usable artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file system's answer.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// Not written by the compiler.
    #[error("this is not a trainc artifact")]
    Foreign,
    /// Written for another runtime.
    #[error("the artifact has format {found}, this runtime reads format {FORMAT_VERSION}: compile the program again")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// Longer or shorter than its header says.
    #[error("the artifact is incomplete: {found} bytes instead of {expected}")]
    Length {
        /// What the header promises (saturated).
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// Changed since it was written.
    #[error("the artifact is damaged: its contents do not match their digest")]
    Digest,
    /// Intact, but its parts cannot be read: written by a faulty compiler.
    #[error("the artifact's {part} cannot be read: {reason}")]
    Malformed {
        /// `manifest` or `code section`.
        part: &'static str,
        /// What the reader says.
        reason: String,
    },
    /// Intact, but it contradicts itself.
    #[error("the artifact is inconsistent: {0}")]
    Inconsistent(#[from] Defect),
}

/// The file's contents.
pub(super) fn encode(artifact: &Artifact) -> Vec<u8> {
    let manifest = serde_json::to_vec(&artifact.manifest).expect("a manifest is plain data with string keys");
    let code = encode_code(artifact);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + manifest.len() + code.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((manifest.len() as u64).to_le_bytes());
    bytes.extend((code.len() as u64).to_le_bytes());
    bytes.extend([0; 32]);
    bytes.extend(manifest);
    bytes.extend(code);
    let digest = digest(&bytes);
    bytes[DIGEST].copy_from_slice(&digest);
    bytes
}

fn encode_code(artifact: &Artifact) -> Vec<u8> {
    let mut bytes = (artifact.code.len() as u64).to_le_bytes().to_vec();
    for ((isa, objects), seals) in artifact.code.iter().zip(&artifact.seals) {
        bytes.extend(isa.code().to_le_bytes());
        bytes.extend((objects.len() as u64).to_le_bytes());
        for object in objects {
            bytes.extend((object.len() as u64).to_le_bytes());
            bytes.extend(object);
        }
        bytes.extend((seals.len() as u64).to_le_bytes());
        bytes.extend(seals.as_flattened());
    }
    bytes
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..DIGEST.start]);
    hasher.update(&bytes[DIGEST.end..]);
    *hasher.finalize().as_bytes()
}

/// What a header promises.
struct Header {
    manifest_bytes: usize,
    code_bytes: usize,
}

impl Header {
    /// Reads a header of a file of `file_bytes`.
    fn read(header: &[u8], file_bytes: u64) -> Result<Self, ArtifactError> {
        let magic = &header[..header.len().min(MAGIC.len())];
        if magic.is_empty() || magic != &MAGIC[..magic.len()] {
            return Err(ArtifactError::Foreign);
        }
        if header.len() < HEADER_BYTES {
            return Err(ArtifactError::Length { expected: HEADER_BYTES as u64, found: file_bytes });
        }
        let mut cursor = Cursor(&header[MAGIC.len()..]);
        let found = cursor.u32()?;
        if found != FORMAT_VERSION {
            return Err(ArtifactError::Version { found });
        }
        cursor.u32()?;
        let (manifest, code) = (cursor.u64()?, cursor.u64()?);
        let expected = manifest.saturating_add(code).saturating_add(HEADER_BYTES as u64);
        if expected != file_bytes {
            return Err(ArtifactError::Length { expected, found: file_bytes });
        }
        Ok(Self { manifest_bytes: manifest as usize, code_bytes: code as usize })
    }
}

/// Reads a whole file once its header agrees with its size.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, ArtifactError> {
    let io = |error| ArtifactError::Io { path: path.to_owned(), error };
    let mut file = files::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
    Header::read(&bytes, file_bytes)?;
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Parses a file's contents, without verifying what they mean.
pub(super) fn decode(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    let header = Header::read(&bytes[..bytes.len().min(HEADER_BYTES)], bytes.len() as u64)?;
    if bytes[DIGEST] != digest(bytes) {
        return Err(ArtifactError::Digest);
    }
    let (manifest, code) = bytes[HEADER_BYTES..].split_at(header.manifest_bytes);
    debug_assert_eq!(code.len(), header.code_bytes, "the header was checked against the length");
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| ArtifactError::Malformed { part: "manifest", reason: error.to_string() })?;
    let (code, seals) = decode_code(code)?;
    Ok(Artifact { manifest, code, seals })
}

type Code = (Vec<(Isa, Objects)>, Vec<Vec<Seal>>);

fn decode_code(bytes: &[u8]) -> Result<Code, ArtifactError> {
    let mut cursor = Cursor(bytes);
    let (mut code, mut seals) = (Vec::new(), Vec::new());
    for _ in 0..cursor.u64()? {
        let isa = cursor.u64()?;
        let isa = Isa::from_code(isa).ok_or_else(|| malformed_code(&format!("unknown instruction set {isa}")))?;
        let mut objects = Vec::new();
        for _ in 0..cursor.u64()? {
            let length = cursor.u64()?;
            objects.push(cursor.take(length)?.to_vec());
        }
        code.push((isa, objects));
        seals.push(decode_seals(&mut cursor)?);
    }
    match cursor.0 {
        [] => Ok((code, seals)),
        rest => Err(malformed_code(&format!("{} bytes too many", rest.len()))),
    }
}

fn decode_seals(cursor: &mut Cursor) -> Result<Vec<Seal>, ArtifactError> {
    let count = cursor.u64()?;
    (0..count).map(|_| Ok(cursor.take(32)?.try_into().expect("32 bytes"))).collect()
}

fn malformed_code(reason: &str) -> ArtifactError {
    ArtifactError::Malformed { part: "code section", reason: reason.to_owned() }
}

/// Takes numbers and bytes off the front of a slice.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], ArtifactError> {
        let split = usize::try_from(count).ok().and_then(|count| self.0.split_at_checked(count));
        let (taken, rest) = split.ok_or_else(|| malformed_code("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, ArtifactError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, ArtifactError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }
}
