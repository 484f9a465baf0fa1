//! Source texts and places in them.

use crate::diagnostic::Diagnostic;
use crate::syntax;
use serde::Serialize;

/// A file in a [`SourceMap`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FileId(pub u32);

/// A range of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// Which file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The smallest range that covers both; both are in one file.
    pub fn to(self, other: Span) -> Span {
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// All texts of one compilation: the program, its imports and the standard library.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

/// One text with the name by which diagnostics call it.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// A path as the user wrote it, or `std/...`.
    pub name: String,
    /// The text.
    pub text: String,
    /// Where its lines begin, so that a place is found without reading the file.
    lines: Vec<u32>,
}

impl SourceFile {
    /// Number (from 1) and first byte of the line that a byte belongs to.
    pub fn line_at(&self, offset: u32) -> (usize, usize) {
        let line = self.lines.partition_point(|&begin| begin <= offset);
        (line, self.lines[line - 1] as usize)
    }
}

impl SourceMap {
    /// Adds a text.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let text = text.into();
        let begins = text.match_indices('\n').map(|(newline, _)| newline as u32 + 1);
        let lines = std::iter::once(0).chain(begins).collect();
        self.files.push(SourceFile { name: name.into(), text, lines });
        FileId(self.files.len() as u32 - 1)
    }

    /// Adds a text from the bytes of a file: without byte order mark, lines ended by `\n`. Bytes that are not text are an
    /// error; the text is then added as far as it can be shown, so that the error can be rendered.
    pub fn add_bytes(&mut self, name: impl Into<String>, bytes: &[u8]) -> Result<FileId, Box<Diagnostic>> {
        let file = FileId(self.files.len() as u32);
        match syntax::decode(file, bytes) {
            Ok(text) => Ok(self.add(name, text)),
            Err(error) => {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(syntax::MAX_FILE_BYTES)]);
                self.add(name, shown);
                Err(error)
            }
        }
    }

    /// The file with this id.
    pub fn file(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        &self.file(span.file).text[span.start as usize..span.end as usize]
    }

    /// Line and column (both from 1, columns in characters) of a position.
    pub fn line_column(&self, file: FileId, offset: u32) -> (usize, usize) {
        let (line, begin) = self.file(file).line_at(offset);
        (line, self.file(file).text[begin..offset as usize].chars().count() + 1)
    }

    /// All files, in order of addition.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.files.iter().enumerate().map(|(i, file)| (FileId(i as u32), file))
    }
}
