//! Members of `.npz` archives: ZIP (PKWARE APPNOTE 6.3), stored as `numpy.savez` writes them or deflated as
//! `numpy.savez_compressed` does. Nothing is allocated by the word of an archive alone.

use flate2::{Crc, read::DeflateDecoder};
use std::borrow::Cow;
use std::io::Read;

/// Bytes that one compressed byte can become at most (RFC 1951: a match of 258 bytes takes 2 bits).
const MAX_EXPANSION: u64 = 1032;

/// A little-endian number in an archive's directory.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..size].copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

/// The contents of member `NAME.npy` (sections 4.3.7, 4.3.12, 4.3.16).
///
/// # Errors
/// When there is no such member, or it is damaged; the text says which.
pub fn member<'a>(bytes: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, String> {
    let directory = find_directory(bytes).ok_or("not a complete .npz archive")?;
    let mut found = Vec::new();
    let mut at = directory;
    while bytes.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
        let entry = DirectoryEntry::read(bytes, at).ok_or("its directory is damaged")?;
        if entry.name.strip_suffix(".npy").unwrap_or(entry.name) == name {
            return entry.contents(bytes);
        }
        found.push(format!("`{}`", entry.name.strip_suffix(".npy").unwrap_or(entry.name)));
        at += entry.bytes;
    }
    Err(format!("no array `{name}` in it (there are: {})", found.join(", ")))
}

/// Offset of the central directory.
fn find_directory(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06")?;
    // The record ends with the length of a comment, which must be there for the record to be complete.
    number(bytes, end + 20, 2)?;
    usize::try_from(number(bytes, end + 16, 4)?).ok()
}

struct DirectoryEntry<'a> {
    name: &'a str,
    method: u64,
    /// CRC-32 of the contents.
    checksum: u64,
    /// Bytes in the archive.
    packed: u64,
    /// Bytes of the contents.
    size: u64,
    /// Where its own header is.
    local: u64,
    bytes: usize,
}

impl<'a> DirectoryEntry<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        let [name, extra, comment] = [28, 30, 32].map(|field| number(bytes, at + field, 2));
        let (name, extra, comment) = (name? as usize, extra? as usize, comment? as usize);
        Some(Self {
            name: std::str::from_utf8(bytes.get(at + 46..at + 46 + name)?).ok()?,
            method: number(bytes, at + 10, 2)?,
            checksum: number(bytes, at + 16, 4)?,
            packed: number(bytes, at + 20, 4)?,
            size: number(bytes, at + 24, 4)?,
            local: number(bytes, at + 42, 4)?,
            bytes: 46 + name + extra + comment,
        })
    }

    fn contents(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if [self.packed, self.size, self.local].contains(&0xffff_ffff) {
            return Err("archives of 4 GB and more are not supported: save the arrays as .npy files".to_owned());
        }
        let packed = self.packed(bytes).ok_or("the archive is incomplete")?;
        let contents = match self.method {
            0 => Cow::Borrowed(packed),
            8 => Cow::Owned(self.inflated(packed)?),
            other => return Err(format!("it is compressed by method {other}: write it with numpy.savez")),
        };
        let mut crc = Crc::new();
        crc.update(&contents);
        match contents.len() as u64 == self.size && u64::from(crc.sum()) == self.checksum {
            true => Ok(contents),
            false => Err("it is damaged: size or checksum is wrong".to_owned()),
        }
    }

    /// The bytes between its header and the next member.
    fn packed(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let local = self.local as usize;
        let begin = local + 30 + number(bytes, local + 26, 2)? as usize + number(bytes, local + 28, 2)? as usize;
        bytes.get(begin..begin.checked_add(self.packed as usize)?)
    }

    /// Unpacks a deflate stream, one byte further than its contents at most.
    fn inflated(&self, packed: &[u8]) -> Result<Vec<u8>, String> {
        if self.size > MAX_EXPANSION * (self.packed + 1) {
            return Err("it is damaged: so few bytes cannot hold its contents".to_owned());
        }
        let mut contents = Vec::with_capacity(self.size as usize);
        let read = DeflateDecoder::new(packed).take(self.size + 1).read_to_end(&mut contents);
        read.map_err(|error| format!("its compressed data is damaged: {error}"))?;
        Ok(contents)
    }
}
