//! NumPy arrays: `.npy` files (format 1.0 to 3.0) and `.npz` archives of them.

use super::signature::Kind;
use super::table::{Column, Scalar};
use super::{DataError, npz, paths};
use crate::files;
use std::borrow::Cow;
use std::path::Path;

/// Longest header that is believed.
const MAX_HEADER_BYTES: usize = 1 << 16;

/// Reads the fields: members of an archive, or the one array of a `.npy` file whatever its member is called.
pub fn read(path: &str, base: &Path, fields: &[(String, String)]) -> Result<Vec<Column>, DataError> {
    let path = paths::resolve(path, base)?;
    let bytes = files::read(&path, u64::MAX).map_err(DataError::io(&path))?;
    let wrong = |problem: String| DataError::file(&path, problem);
    if let Some(kind) = Kind::of(&bytes).filter(|kind| !matches!(kind, Kind::Zip | Kind::Numpy)) {
        return Err(wrong(kind.instead_of("an array of NumPy")));
    }
    let column = |(field, member): &(String, String)| {
        let array = match bytes.starts_with(b"PK") {
            true => npz::member(&bytes, member)?,
            false => Cow::Borrowed(&bytes[..]),
        };
        parse(&array, field).map_err(|problem| format!("array `{member}`: {problem}"))
    };
    fields.iter().map(|field| column(field).map_err(wrong)).collect()
}

/// An array as a column: the first axis counts records, the others are flattened.
fn parse(bytes: &[u8], field: &str) -> Result<Column, String> {
    let (header, data) = split_header(bytes).ok_or("not a .npy array, or an incomplete one")?;
    let (scalar, order) = element_of(header)?;
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
    let mut bytes = data.to_vec();
    if order == ByteOrder::Big {
        bytes.chunks_exact_mut(scalar.bytes()).for_each(<[u8]>::reverse);
    }
    Ok(Column { name: field.to_owned(), width, scalar, bytes })
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

/// The type of the elements: byte order, kind and size, as in `<f4`.
fn element_of(header: &str) -> Result<(Scalar, ByteOrder), String> {
    if after_key(header, "descr").is_some_and(|value| value.starts_with('[')) {
        return Err("its elements have parts (a structured array): save each part as an array".to_owned());
    }
    let descr = quoted(header, "descr").ok_or("its header has no `descr`")?;
    let (order, kind) = match descr.split_at_checked(1) {
        Some(("<" | "|" | "=", kind)) => (ByteOrder::Little, kind),
        Some((">", kind)) => (ByteOrder::Big, kind),
        _ => (ByteOrder::Little, descr),
    };
    let scalar = scalar_of(kind).ok_or_else(|| {
        format!(
            "its elements are {} (`{descr}`), not numbers of at most 64 bits: convert it with astype",
            name_of(kind)
        )
    })?;
    Ok((scalar, order))
}

fn scalar_of(kind: &str) -> Option<Scalar> {
    Some(match kind {
        "b1" => Scalar::Bool,
        "u1" => Scalar::U8,
        "i1" => Scalar::I8,
        "u2" => Scalar::U16,
        "i2" => Scalar::I16,
        "u4" => Scalar::U32,
        "i4" => Scalar::I32,
        "u8" => Scalar::U64,
        "i8" => Scalar::I64,
        "f2" => Scalar::F16,
        "f4" => Scalar::F32,
        "f8" => Scalar::F64,
        _ => return None,
    })
}

/// What elements that cannot be taken are, by the letter of their kind.
fn name_of(kind: &str) -> &'static str {
    match kind.chars().next() {
        Some('O') => "Python objects",
        Some('S' | 'a' | 'U') => "texts",
        Some('M') => "points in time",
        Some('m') => "spans of time",
        Some('c') => "complex numbers",
        Some('f') => "floating-point numbers of more than 64 bits",
        Some('V') => "raw bytes",
        _ => "of an unknown type",
    }
}
