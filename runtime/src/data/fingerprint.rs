//! What data was read, so that a run notices when it continues with other data.

use super::tokenizer::{self, Tokenizer};
use super::{Data, DataError, paths};
use crate::artifact::{DataSpec, Source, TokenizerSpec};
use crate::files;
use blake3::Hasher;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Counts and a digest of a program's data. Names and times of files are no part of it: data may be moved and copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Records to train on.
    pub train_records: u64,
    /// Records held out.
    pub valid_records: u64,
    /// Files that are not empty.
    pub files: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// blake3, in hexadecimal digits, of the sizes of the files (8 bytes each, little-endian) and their contents, or the part of them
    /// that [`DIGESTED`] says.
    pub digest: String,
    /// blake3 of the `tokenizer.json`, if there is one.
    pub tokenizer: Option<String>,
}

/// Which part of files is digested: all of it, or pieces where that would take long.
#[derive(Clone, Copy, Debug)]
pub struct Digested {
    /// Files of up to so many bytes together are digested as a whole.
    pub whole_bytes: u64,
    /// From others so many pieces are, evenly spread from the first byte to the last of all files in a row.
    pub pieces: u64,
    /// Bytes of a piece.
    pub piece_bytes: u64,
}

/// A fraction of a second's reading.
pub const DIGESTED: Digested = Digested { whole_bytes: 256 << 20, pieces: 4096, piece_bytes: 64 << 10 };

impl Fingerprint {
    /// That of data which has just been opened.
    ///
    /// # Errors
    /// When a file cannot be read (any more).
    pub fn of(spec: &DataSpec, data: &Data, base: &Path) -> Result<Self, DataError> {
        let (paths, tokenizer) = match &spec.source {
            Source::Text { paths, tokenizer } | Source::Jsonl { paths, tokenizer, .. } => (paths, Some(tokenizer)),
            Source::Tokens { paths, .. } | Source::Csv { paths, .. } => (paths, None),
            Source::Arrays { path, .. } => (&vec![path.clone()], None),
            Source::Hash { .. } => (&vec![], None),
        };
        let files = FileList::of(&paths::expand(paths, base)?)?;
        Ok(Self {
            train_records: data.train_records(),
            valid_records: data.valid_records(),
            files: files.0.len() as u64,
            bytes: files.bytes(),
            digest: files.digest(DIGESTED)?,
            tokenizer: tokenizer.map_or(Ok(None), |tokenizer| tokenizer_digest(tokenizer, base))?,
        })
    }

    /// How later data differ from these, in words; `None` if they do not.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let records =
            |data: &Self| format!("{} records to train on and {} held out", data.train_records, data.valid_records);
        let size = |data: &Self| format!("{} bytes in {} files", data.bytes, data.files);
        let pair = |of: &dyn Fn(&Self) -> String| format!("{} then, {} now", of(self), of(now));
        let mut differences = Vec::new();
        if self.tokenizer != now.tokenizer {
            differences.push("the tokenizer is another one".to_owned());
        }
        if records(self) != records(now) {
            differences.push(pair(&records));
        }
        if size(self) != size(now) {
            differences.push(pair(&size));
        } else if self.digest != now.digest {
            differences.push("files of the same sizes have other contents".to_owned());
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

/// blake3 of the file that describes a tokenizer, in hexadecimal digits.
pub(crate) fn tokenizer_digest(spec: &TokenizerSpec, base: &Path) -> Result<Option<String>, DataError> {
    let Some(path) = Tokenizer::file(spec, base)? else { return Ok(None) };
    let json = files::read(&path, tokenizer::MAX_FILE_BYTES).map_err(DataError::io(&path))?;
    Ok(Some(blake3::hash(&json).to_hex().to_string()))
}

/// Files that are not empty, and where each one ends when they lie in a row.
struct FileList(Vec<(PathBuf, u64)>);

impl FileList {
    fn of(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut files = Vec::new();
        let mut end = 0;
        for path in paths {
            let bytes = path.metadata().map_err(DataError::io(path))?.len();
            if bytes > 0 {
                end += bytes;
                files.push((path.clone(), end));
            }
        }
        Ok(Self(files))
    }

    fn bytes(&self) -> u64 {
        self.0.last().map_or(0, |(_, end)| *end)
    }

    fn begin(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.0[before].1)
    }

    fn digest(&self, part: Digested) -> Result<String, DataError> {
        let mut hasher = Hasher::new();
        for (index, (_, end)) in self.0.iter().enumerate() {
            hasher.update(&(end - self.begin(index)).to_le_bytes());
        }
        let bytes = self.bytes();
        if bytes <= part.whole_bytes {
            self.add(0, bytes, &mut hasher)?;
        } else {
            let last = u128::from(bytes - part.piece_bytes);
            for piece in 0..part.pieces {
                let begin = last * u128::from(piece) / u128::from(part.pieces - 1);
                self.add(begin as u64, part.piece_bytes, &mut hasher)?;
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Digests `count` bytes of the row of files.
    fn add(&self, begin: u64, count: u64, hasher: &mut Hasher) -> Result<(), DataError> {
        let end = begin + count;
        let first = self.0.partition_point(|(_, end)| *end <= begin);
        for (index, (path, file_end)) in self.0.iter().enumerate().skip(first) {
            let file_begin = self.begin(index);
            if file_begin >= end {
                break;
            }
            let (from, to) = (begin.max(file_begin) - file_begin, end.min(*file_end) - file_begin);
            add_stretch(path, from, to, hasher).map_err(DataError::io(path))?;
        }
        Ok(())
    }
}

fn add_stretch(path: &Path, mut from: u64, to: u64, hasher: &mut Hasher) -> std::io::Result<()> {
    let file = files::open(path)?;
    let mut buffer = vec![0; (to - from).min(1 << 18) as usize];
    while from < to {
        let bytes = &mut buffer[..(to - from).min(1 << 18) as usize];
        file.read_exact_at(bytes, from)?;
        hasher.update(bytes);
        from += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Digested = Digested { whole_bytes: 100, pieces: 4, piece_bytes: 10 };

    /// Digests of files with these contents.
    fn digest(contents: &[&[u8]]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..contents.len()).map(|i| folder.path().join(i.to_string())).collect();
        paths.iter().zip(contents).for_each(|(path, contents)| std::fs::write(path, contents).unwrap());
        FileList::of(&paths).unwrap().digest(SMALL).unwrap()
    }

    #[test]
    fn small_files_are_digested_whole() {
        let sizes = [3u64.to_le_bytes(), 2u64.to_le_bytes()].concat();
        let expected = blake3::hash(&[&sizes[..], b"abcde"].concat()).to_hex().to_string();
        assert_eq!(digest(&[b"abc", b"", b"de"]), expected);
        assert_ne!(digest(&[b"ab", b"cde"]), expected, "documents end elsewhere");
        assert_ne!(digest(&[b"abc", b"df"]), expected);
    }

    /// Of 310 bytes the pieces begin at 0, 100, 200 and 300; they reach over the ends of files.
    #[test]
    fn large_files_are_digested_in_pieces_from_end_to_end() {
        let (first, second): (Vec<u8>, Vec<u8>) = ((0..105).collect(), (0..205).collect());
        let row = [first.clone(), second.clone()].concat();
        let pieces = [0, 100, 200, 300].map(|begin| &row[begin..begin + 10]).concat();
        let sizes = [105u64.to_le_bytes(), 205u64.to_le_bytes()].concat();
        let expected = blake3::hash(&[sizes, pieces].concat()).to_hex().to_string();
        assert_eq!(digest(&[&first, &second]), expected);
        let longer = [&second[..], b"x"].concat();
        assert_ne!(digest(&[&first, &longer]), expected, "an appended byte shows");
    }
}
