//! Token streams of any size: small ones in memory, large ones in files that are read where needed.
//!
//! A corpus is tokenised once. Beyond [`MEMORY_BYTES`] its tokens go to a nameless temporary file (in `TMPDIR`), which
//! the system's page cache serves: a trainer's own memory then does not grow with its data.

use super::{DataError, token_file};
use crate::files;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Largest corpus kept in memory.
const MEMORY_BYTES: usize = 32 << 20;

/// Bytes collected before they are written to the temporary file.
const WRITE_BYTES: usize = 4 << 20;

/// Tokens read at a time on the stack.
const CHUNK_BYTES: usize = 4096;

/// Bytes per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Ids up to 255.
    One = 1,
    /// Up to 65535.
    Two = 2,
    /// Any other.
    Four = 4,
}

impl Width {
    /// The narrowest that holds all ids below `bound`.
    pub fn holding(bound: u64) -> Self {
        match bound {
            0..=0x100 => Width::One,
            0x101..=0x1_0000 => Width::Two,
            _ => Width::Four,
        }
    }

    /// Bytes per token.
    pub fn bytes(self) -> usize {
        self as usize
    }

    /// The largest id that it holds.
    fn largest(self) -> u32 {
        u32::MAX >> (32 - 8 * self.bytes())
    }

    fn decode(self, bytes: &[u8], out: &mut [i32]) {
        match self {
            Width::One => out.iter_mut().zip(bytes).for_each(|(out, &byte)| *out = i32::from(byte)),
            Width::Two => {
                let words = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(words).for_each(|(out, &word)| *out = i32::from(u16::from_le_bytes(word)));
            }
            Width::Four => {
                let words = bytes.as_chunks::<4>().0;
                // Ids above i32::MAX turn negative here and are refused with the other ids that no model knows.
                out.iter_mut().zip(words).for_each(|(out, &word)| *out = i32::from_le_bytes(word));
            }
        }
    }
}

/// A stretch of tokens in one place.
enum Piece {
    Memory(Vec<u8>),
    File { file: File, path: PathBuf },
}

/// A sequence of tokens.
pub struct TokenStore {
    width: Width,
    /// First token of each piece, ascending from 0, and the piece.
    pieces: Vec<(u64, Piece)>,
    len: u64,
}

impl TokenStore {
    /// Number of tokens.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Opens files of raw little-endian ids; also returns where each file ends.
    pub fn open(paths: &[PathBuf], width: Width) -> Result<(Self, Vec<u64>), DataError> {
        let mut store = Self { width, pieces: Vec::new(), len: 0 };
        let mut ends = Vec::new();
        for path in paths {
            let file = files::open(path).map_err(DataError::io(path))?;
            let bytes = file.metadata().map_err(DataError::io(path))?.len();
            token_file::check(path, &file, bytes, width)?;
            store.pieces.push((store.len, Piece::File { file, path: path.clone() }));
            store.len += bytes / width.bytes() as u64;
            ends.push(store.len);
        }
        Ok((store, ends))
    }

    /// Reads the tokens from `begin` on, which must exist.
    ///
    /// # Errors
    /// When a file cannot be read (any more).
    pub fn read(&self, mut begin: u64, mut out: &mut [i32]) -> Result<(), DataError> {
        assert!(begin + out.len() as u64 <= self.len, "tokens {begin}..+{} of {}", out.len(), self.len);
        while !out.is_empty() {
            let index = self.pieces.partition_point(|(first, _)| *first <= begin) - 1;
            let end = self.pieces.get(index + 1).map_or(self.len, |(first, _)| *first);
            let (now, later) = out.split_at_mut(out.len().min((end - begin) as usize));
            let (first, piece) = &self.pieces[index];
            self.read_piece(piece, begin - first, now)?;
            begin += now.len() as u64;
            out = later;
        }
        Ok(())
    }

    fn read_piece(&self, piece: &Piece, begin: u64, out: &mut [i32]) -> Result<(), DataError> {
        let width = self.width.bytes();
        match piece {
            Piece::Memory(bytes) => self.width.decode(&bytes[begin as usize * width..], out),
            Piece::File { file, path } => {
                let mut buffer = [0u8; CHUNK_BYTES];
                for (chunk, out) in out.chunks_mut(CHUNK_BYTES / width).enumerate() {
                    let bytes = &mut buffer[..out.len() * width];
                    let offset = begin * width as u64 + (chunk * CHUNK_BYTES) as u64;
                    file.read_exact_at(bytes, offset).map_err(DataError::io(path))?;
                    self.width.decode(bytes, out);
                }
            }
        }
        Ok(())
    }

    /// The first token that is not in `0..below`, for a bound of at most 2^31, and its position.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn first_outside(&self, below: u64) -> Result<Option<(u64, u32)>, DataError> {
        let mut buffer = vec![0; 1 << 16];
        let mut begin = 0;
        while begin < self.len {
            let count = buffer.len().min((self.len - begin) as usize);
            self.read(begin, &mut buffer[..count])?;
            let outside = buffer[..count].iter().position(|&token| token < 0 || token as u64 >= below);
            if let Some(position) = outside {
                return Ok(Some((begin + position as u64, buffer[position] as u32)));
            }
            begin += count as u64;
        }
        Ok(None)
    }
}

/// Collects tokens into a [`TokenStore`].
pub struct TokenWriter {
    width: Width,
    /// All tokens, or those not yet in the file.
    pending: Vec<u8>,
    file: Option<File>,
    bytes: u64,
    memory_bytes: usize,
}

impl TokenWriter {
    /// An empty stream.
    pub fn new(width: Width) -> Self {
        Self::with_memory(width, MEMORY_BYTES)
    }

    fn with_memory(width: Width, memory_bytes: usize) -> Self {
        Self { width, pending: Vec::new(), file: None, bytes: 0, memory_bytes }
    }

    /// Tokens so far.
    pub fn len(&self) -> u64 {
        self.bytes / self.width.bytes() as u64
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// When one does not fit the width, or the temporary file cannot be written.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        let largest = self.width.largest();
        if let Some(token) = tokens.iter().find(|&&token| token > largest) {
            return Err(DataError::Tokenizer(format!("it gives the id {token}, which is beyond its own vocabulary")));
        }
        match self.width {
            Width::One => self.pending.extend(tokens.iter().map(|&token| token as u8)),
            Width::Two => self.pending.extend(tokens.iter().flat_map(|&token| (token as u16).to_le_bytes())),
            Width::Four => self.pending.extend(tokens.iter().flat_map(|&token| token.to_le_bytes())),
        }
        self.account(tokens.len() * self.width.bytes())
    }

    /// Appends tokens that are bytes.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        assert_eq!(self.width, Width::One, "bytes are tokens of one byte");
        self.pending.extend_from_slice(bytes);
        self.account(bytes.len())
    }

    fn account(&mut self, bytes: usize) -> Result<(), DataError> {
        self.bytes += bytes as u64;
        let limit = if self.file.is_some() { WRITE_BYTES } else { self.memory_bytes };
        if self.pending.len() > limit { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), DataError> {
        let folder = std::env::temp_dir();
        let mut write = || {
            let file = match self.file.take() {
                Some(file) => file,
                None => nameless(&folder)?,
            };
            (&file).write_all(&self.pending).map(|()| file)
        };
        let file = write().map_err(|error| DataError::Spill { path: folder.clone(), error })?;
        self.file = Some(file);
        self.pending = Vec::with_capacity(WRITE_BYTES);
        Ok(())
    }

    /// The finished stream.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn finish(mut self) -> Result<TokenStore, DataError> {
        if self.file.is_some() {
            self.spill()?;
        }
        let len = self.len();
        let piece = match self.file {
            Some(file) => Piece::File { file, path: std::env::temp_dir() },
            None => Piece::Memory(self.pending),
        };
        Ok(TokenStore { width: self.width, pieces: vec![(0, piece)], len })
    }
}

/// A file that disappears with the process.
fn nameless(folder: &Path) -> std::io::Result<File> {
    let path = folder.join(format!("trainc-tokens-{}-{}", std::process::id(), unique()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn unique() -> u64 {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_stretch_reads_back_from_memory_and_from_a_file(
            tokens in prop::collection::vec(0u32..256, 1..9000),
            width in prop::sample::select(vec![Width::One, Width::Two, Width::Four]),
            from: prop::sample::Index,
            to: prop::sample::Index,
            memory in prop::sample::select(vec![0usize, 1 << 20]),
        ) {
            let mut writer = TokenWriter::with_memory(width, memory);
            for part in tokens.chunks(1000) {
                writer.push(part).unwrap();
            }
            let store = writer.finish().unwrap();
            prop_assert_eq!(store.len(), tokens.len() as u64);
            let (a, b) = (from.index(tokens.len() + 1), to.index(tokens.len() + 1));
            let mut out = vec![0; a.max(b) - a.min(b)];
            store.read(a.min(b) as u64, &mut out).unwrap();
            let expected: Vec<_> = tokens[a.min(b)..a.max(b)].iter().map(|&token| token as i32).collect();
            prop_assert_eq!(out, expected);
            let outside = tokens.iter().position(|&token| token >= 200);
            prop_assert_eq!(store.first_outside(200).unwrap().map(|(at, _)| at as usize), outside);
        }
    }

    #[test]
    fn several_files_are_one_stream() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..3).map(|i| folder.path().join(i.to_string())).collect();
        for (i, path) in paths.iter().enumerate() {
            std::fs::write(path, [i as u8, 0, i as u8, 0]).unwrap();
        }
        let (store, ends) = TokenStore::open(&paths, Width::Two).unwrap();
        let mut out = [0; 4];
        store.read(1, &mut out).unwrap();
        assert_eq!((ends, out), (vec![2, 4, 6], [0, 1, 1, 2]));
        assert!(TokenStore::open(&paths, Width::Four).is_ok());
        std::fs::write(&paths[0], [1, 2, 3]).unwrap();
        let error = TokenStore::open(&paths, Width::Two).err().unwrap();
        assert!(error.to_string().contains("not a whole number of 2-byte tokens"), "{error}");
    }

    #[test]
    fn an_id_beyond_the_width_is_refused() {
        for (width, fits) in [(Width::One, 0xff), (Width::Two, 0xffff), (Width::Four, u32::MAX)] {
            assert_eq!(Width::holding(u64::from(fits) + 1), width);
            let mut writer = TokenWriter::new(width);
            writer.push(&[fits]).unwrap();
            assert!(fits.checked_add(1).is_none_or(|id| writer.push(&[id]).is_err()));
        }
    }
}
