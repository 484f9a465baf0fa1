//! NumPy arrays: `.npy` files (format 1.0 to 3.0) and `.npz` archives whose members are stored uncompressed, as
//! `numpy.savez` writes them.

use super::table::{Column, Scalar};
use super::{DataError, paths};
use std::path::Path;

/// Longest header that is believed.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Reads the fields: members of an archive, or the one array of a `.npy` file whatever its member is called.
pub fn read(path: &str, base: &Path, fields: &[(String, String)]) -> Result<Vec<Column>, DataError> {
    let path = paths::resolve(path, base)?;
    let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
    let wrong = |problem: String| DataError::file(&path, problem);
    let column = |(field, member): &(String, String)| {
        let array = match bytes.starts_with(b"PK") {
            true => npz_member(&bytes, member)?,
            false => &bytes,
        };
        parse(array, field).map_err(|problem| format!("array `{member}`: {problem}"))
    };
    fields.iter().map(|field| column(field).map_err(wrong)).collect()
}

/// An array as a column: the first axis counts records, the others are flattened.
fn parse(bytes: &[u8], field: &str) -> Result<Column, String> {
    let (header, data) = split_header(bytes).ok_or("not a .npy array, or an incomplete one")?;
    let scalar = scalar_of(quoted(header, "descr").ok_or("its header has no `descr`")?)?;
    let shape = shape_of(header).ok_or("its header has no readable `shape`")?;
    if header.contains("'fortran_order': True") && shape.len() > 1 {
        return Err("it is in Fortran order: save numpy.ascontiguousarray of it".to_owned());
    }
    let (_, record) = shape.split_first().ok_or("it is a single number, not an array of records")?;
    let elements = |shape: &[u64]| shape.iter().try_fold(1u64, |count, &dim| count.checked_mul(dim));
    let wanted = elements(&shape).and_then(|count| count.checked_mul(scalar.bytes() as u64));
    if wanted != Some(data.len() as u64) {
        return Err(format!("{} bytes of data do not make the shape {shape:?}", data.len()));
    }
    let width = elements(record).ok_or("its shape is absurd")?;
    Ok(Column { name: field.to_owned(), width, scalar, bytes: data.to_vec() })
}

fn split_header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&major, rest) = rest.split_first()?;
    let rest = rest.get(1..)?;
    let (length, rest) = match major {
        1 => (usize::from(u16::from_le_bytes(rest.get(..2)?.try_into().ok()?)), &rest[2..]),
        2 | 3 => (u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize, &rest[4..]),
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length).filter(|_| length <= MAX_HEADER_BYTES)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The text between quotes after a key of the header's dictionary.
fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let value = after_key(header, key)?.strip_prefix('\'')?;
    value.split_once('\'').map(|(value, _)| value)
}

fn after_key<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.trim_start())
}

fn shape_of(header: &str) -> Option<Vec<u64>> {
    let (inside, _) = after_key(header, "shape")?.strip_prefix('(')?.split_once(')')?;
    inside.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok()).collect()
}

fn scalar_of(descr: &str) -> Result<Scalar, String> {
    Ok(match descr {
        "|b1" => Scalar::Bool,
        "|u1" => Scalar::U8,
        "|i1" => Scalar::I8,
        "<u2" => Scalar::U16,
        "<i2" => Scalar::I16,
        "<u4" => Scalar::U32,
        "<i4" => Scalar::I32,
        "<i8" => Scalar::I64,
        "<f2" => Scalar::F16,
        "<f4" => Scalar::F32,
        "<f8" => Scalar::F64,
        other => return Err(format!("its type `{other}` is not supported (numbers of at most 64 bits are)")),
    })
}

/// A little-endian number in an archive's directory.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..size].copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

/// The contents of member `NAME.npy` of a ZIP archive (PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.16).
fn npz_member<'a>(bytes: &'a [u8], name: &str) -> Result<&'a [u8], String> {
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
    size: u64,
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
            size: number(bytes, at + 20, 4)?,
            local: number(bytes, at + 42, 4)?,
            bytes: 46 + name + extra + comment,
        })
    }

    fn contents(&self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        if self.method != 0 {
            return Err("it is compressed: write it with numpy.savez, not savez_compressed".to_owned());
        }
        if self.size == 0xffff_ffff || self.local == 0xffff_ffff {
            return Err("archives of 4 GB and more are not supported: save the arrays as .npy files".to_owned());
        }
        let local = self.local as usize;
        let contents = || {
            let begin = local + 30 + number(bytes, local + 26, 2)? as usize + number(bytes, local + 28, 2)? as usize;
            bytes.get(begin..begin.checked_add(self.size as usize)?)
        };
        contents().ok_or_else(|| "the archive is incomplete".to_owned())
    }
}
