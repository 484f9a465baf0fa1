//! Comma-separated values.
//!
//! Cells are read one after the other and only those of a field are kept: a line may be of any length.

use super::signature::Kind;
use super::table::{Column, Scalar};
use super::{DataError, Need, paths};
use crate::artifact::CsvField;
use crate::files;
use csv_core::ReadFieldResult;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Longest cell that is taken for a number.
const MAX_CELL_BYTES: usize = 1024;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 18;

/// Reads the fields of all files, one after the other.
pub fn read(
    patterns: &[String],
    base: &Path,
    header: bool,
    fields: &[CsvField],
    needs: &[Need],
) -> Result<Vec<Column>, DataError> {
    let mut readers: Vec<_> = fields.iter().map(|field| FieldReader::new(field, needs)).collect();
    for path in paths::expand(patterns, base)? {
        read_file(&path, header, &mut readers)?;
    }
    Ok(readers.into_iter().map(|reader| reader.column).collect())
}

fn read_file(path: &Path, header: bool, fields: &mut [FieldReader]) -> Result<(), DataError> {
    let mut cells = Cells::open(path)?;
    let mut columns = None;
    for record in 0.. {
        let read = cells.read_record(|column, cell| match header && record == 0 {
            true => Ok(()),
            false => fields.iter_mut().try_for_each(|field| field.read(column, cell)),
        });
        let hint = |problem: String| cells.line_problem(problem, !header && record == 0);
        let Some(found) = read?.map_err(hint)? else { break };
        let expected = *columns.get_or_insert(found);
        if found != expected {
            return Err(hint(format!("{found} columns, but the lines before have {expected}")));
        }
        if let Some(field) = fields.iter().find(|field| field.end() > found) {
            return Err(hint(format!("{found} columns, but field `{}` needs {}", field.column.name, field.end())));
        }
    }
    Ok(())
}

/// The numbers of one field.
struct FieldReader<'a> {
    field: &'a CsvField,
    need: Option<&'a Need>,
    column: Column,
}

impl<'a> FieldReader<'a> {
    /// Integers keep all their digits; other numbers are rounded as the model takes them.
    fn new(field: &'a CsvField, needs: &'a [Need]) -> Self {
        let need = needs.iter().find(|need| need.field == field.name);
        let scalar = if need.is_some_and(|need| need.integer) { Scalar::I32 } else { Scalar::F32 };
        let column = Column { name: field.name.clone(), width: field.count, scalar, bytes: Vec::new() };
        Self { field, need, column }
    }

    /// Exclusive end of its columns.
    fn end(&self) -> u64 {
        self.field.first.saturating_add(self.field.count)
    }

    /// Takes a cell, if it is one of this field's.
    fn read(&mut self, column: u64, cell: &Cell<'_>) -> Result<(), String> {
        if column < self.field.first || column >= self.end() {
            return Ok(());
        }
        let value = cell.number().map_err(|problem| format!("column {}: {problem}", column + 1))? * self.field.scale;
        if let Some(problem) = self.need.and_then(|need| need.refusal(value)) {
            return Err(format!("column {}: field `{}` holds {value}, {problem}", column + 1, self.field.name));
        }
        match self.column.scalar {
            Scalar::I32 => self.column.bytes.extend((value as i32).to_le_bytes()),
            _ => self.column.bytes.extend((value as f32).to_le_bytes()),
        }
        Ok(())
    }
}

/// The text of a cell, or that of its beginning.
struct Cell<'a> {
    bytes: &'a [u8],
    whole: bool,
}

impl Cell<'_> {
    fn number(&self) -> Result<f64, String> {
        let text = std::str::from_utf8(self.bytes).map_err(|_| "it is not UTF-8")?.trim();
        if !self.whole {
            let begin: String = text.chars().take(20).collect();
            return Err(format!("`{begin}...` is not a number: it has more than {MAX_CELL_BYTES} bytes"));
        }
        if text.is_empty() {
            return Err("it is empty: every cell of a field holds a number".to_owned());
        }
        text.parse().map_err(|_| format!("`{text}` is not a number"))
    }
}

/// The cells of a file, of which one at a time is in memory.
struct Cells<'a> {
    path: &'a Path,
    input: BufReader<File>,
    reader: csv_core::Reader,
    /// The last cell, as far as there was room for it.
    cell: Vec<u8>,
    length: usize,
    /// Whether the file's last byte read ends a line.
    line_ended: bool,
}

impl<'a> Cells<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let file = files::open(path).map_err(DataError::io(path))?;
        let mut input = BufReader::with_capacity(CHUNK_BYTES, file);
        let head = input.fill_buf().map_err(DataError::io(path))?;
        if let Some(kind) = Kind::of(head) {
            return Err(DataError::file(path, kind.instead_of("comma-separated text")));
        }
        let cell = vec![0; MAX_CELL_BYTES];
        Ok(Self { path, input, reader: csv_core::Reader::new(), cell, length: 0, line_ended: false })
    }

    /// Hands over the cells of the next record with their columns, counted from 0. Returns how many there are, `None` after the
    /// last record; the inner error is that of a cell.
    fn read_record(
        &mut self,
        mut take: impl FnMut(u64, &Cell<'_>) -> Result<(), String>,
    ) -> Result<Result<Option<u64>, String>, DataError> {
        for column in 0.. {
            let Some((whole, last)) = self.next()? else { break };
            if let Err(problem) = take(column, &Cell { bytes: &self.cell[..self.length], whole }) {
                return Ok(Err(problem));
            }
            if last {
                return Ok(Ok(Some(column + 1)));
            }
        }
        Ok(Ok(None))
    }

    /// Reads a cell: whether there was room for all of it, and whether it is the last one of its record.
    fn next(&mut self) -> Result<Option<(bool, bool)>, DataError> {
        let mut whole = true;
        self.length = 0;
        loop {
            let input = self.input.fill_buf().map_err(DataError::io(self.path))?;
            let (result, read, written) = self.reader.read_field(input, &mut self.cell[self.length..]);
            self.line_ended = input[..read].last().map_or(self.line_ended, |&byte| byte == b'\n');
            self.input.consume(read);
            self.length += written;
            match result {
                ReadFieldResult::InputEmpty => {}
                // What is beyond the room is read over what is there, which no number needs.
                ReadFieldResult::OutputFull => (whole, self.length) = (false, MAX_CELL_BYTES / 2),
                ReadFieldResult::Field { record_end } => return Ok(Some((whole, record_end))),
                ReadFieldResult::End => return Ok(None),
            }
        }
    }

    /// A complaint about the line of the last cell, with the usual reason for it where there is one.
    fn line_problem(&self, problem: String, is_first: bool) -> DataError {
        let line = self.reader.line() - u64::from(self.line_ended);
        let separator = [(b';', "`;`"), (b'\t', "tabs")]
            .into_iter()
            .find(|(byte, _)| self.cell[..self.length].trim_ascii().contains(byte));
        let reason = match separator {
            Some((_, name)) => format!(" (columns are separated by commas, not by {name})"),
            None if is_first && self.is_name() => {
                " (if the first line names the columns, write `header yes`)".to_owned()
            }
            None => String::new(),
        };
        DataError::line(self.path, line, problem + &reason)
    }

    /// Whether the last cell could be the name of a column.
    fn is_name(&self) -> bool {
        self.cell[..self.length].trim_ascii().first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    }
}
