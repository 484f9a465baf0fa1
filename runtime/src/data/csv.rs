//! Comma-separated values.

use super::table::{Column, Scalar};
use super::{DataError, paths};
use crate::artifact::CsvField;
use std::path::Path;

/// Reads the fields of all files, one after the other.
pub fn read(patterns: &[String], base: &Path, header: bool, fields: &[CsvField]) -> Result<Vec<Column>, DataError> {
    let column = |field: &CsvField| Column {
        name: field.name.clone(),
        width: field.count,
        scalar: Scalar::F32,
        bytes: Vec::new(),
    };
    let mut columns: Vec<_> = fields.iter().map(column).collect();
    for path in paths::expand(patterns, base)? {
        read_file(&path, header, fields, &mut columns)?;
    }
    Ok(columns)
}

fn read_file(path: &Path, header: bool, fields: &[CsvField], columns: &mut [Column]) -> Result<(), DataError> {
    let reader = ::csv::ReaderBuilder::new().has_headers(header).trim(::csv::Trim::All).from_path(path);
    let mut reader = reader.map_err(|error| describe(path, error))?;
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| describe(path, error))? {
        let line = record.position().map_or(0, ::csv::Position::line);
        for (field, column) in fields.iter().zip(columns.iter_mut()) {
            read_field(&record, field, &mut column.bytes).map_err(|problem| DataError::line(path, line, problem))?;
        }
    }
    Ok(())
}

fn read_field(record: &::csv::StringRecord, field: &CsvField, out: &mut Vec<u8>) -> Result<(), String> {
    for column in field.first..field.first.saturating_add(field.count) {
        let text = usize::try_from(column).ok().and_then(|column| record.get(column)).ok_or_else(|| {
            let (name, last) = (&field.name, field.first + field.count);
            format!("{} columns, but field `{name}` needs {last}", record.len())
        })?;
        let value: f64 = text.parse().map_err(|_| format!("column {}: `{text}` is not a number", column + 1))?;
        out.extend(((value * field.scale) as f32).to_le_bytes());
    }
    Ok(())
}

fn describe(path: &Path, error: ::csv::Error) -> DataError {
    let line = error.position().map(::csv::Position::line);
    let problem = match error.into_kind() {
        ::csv::ErrorKind::Io(error) => return DataError::io(path)(error),
        ::csv::ErrorKind::Utf8 { err, .. } => format!("not UTF-8 in column {}", err.field() + 1),
        ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} columns, but the lines before have {expected_len}")
        }
        other => format!("{other:?}"),
    };
    match line {
        Some(line) => DataError::line(path, line, problem),
        None => DataError::file(path, problem),
    }
}
