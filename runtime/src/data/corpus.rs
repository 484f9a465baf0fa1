//! Text to one stream of tokens: documents in order, each followed by the tokenizer's separator.

use super::signature::Kind;
use super::store::{TokenStore, TokenWriter, Width};
use super::tokenizer::Tokenizer;
use super::{DataError, paths};
use crate::files;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Text handed to a tokenizer at once: it spreads the documents of a batch over threads.
const BATCH_BYTES: usize = 4 << 20;

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 1 << 18;

/// Longest document of a tokenizer that needs it as a whole.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// A byte order mark, which is no part of a JSON text (RFC 8259, section 8.1).
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A tokenised corpus.
pub struct Corpus {
    /// All tokens.
    pub tokens: TokenStore,
    /// Where each document ends.
    pub ends: Vec<u64>,
}

impl Corpus {
    /// One document per file.
    ///
    /// # Errors
    /// When a file cannot be read or tokenised.
    pub fn from_files(patterns: &[String], base: &Path, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let mut builder = Builder::new(tokenizer);
        for path in paths::expand(patterns, base)? {
            builder.add_file(&path)?;
        }
        builder.finish()
    }

    /// One document per line: the string member `member` of a JSON object. Empty lines are skipped.
    ///
    /// # Errors
    /// When a line is not such an object, with its number.
    pub fn from_json_lines(
        patterns: &[String],
        base: &Path,
        member: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Self, DataError> {
        let mut builder = Builder::new(tokenizer);
        for path in paths::expand(patterns, base)? {
            let mut lines = Lines::open(&path)?;
            while let Some((number, line)) = lines.next()? {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let text = json_member(line, member).map_err(|problem| DataError::line(&path, number, problem))?;
                builder.add(text.into_bytes(), || format!("{}:{number}", path.display()))?;
            }
        }
        builder.finish()
    }

    /// Files of raw ids, each a document.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn from_token_files(patterns: &[String], base: &Path, width: u8) -> Result<Self, DataError> {
        let paths: Vec<PathBuf> = paths::expand(patterns, base)?;
        let width = match width {
            2 => Width::Two,
            4 => Width::Four,
            _ => return Err(DataError::Tokenizer(format!("ids of {width} bytes are not supported, only 2 and 4"))),
        };
        let (tokens, ends) = TokenStore::open(&paths, width)?;
        Ok(Self { tokens, ends })
    }
}

/// The lines of a file, of which one at a time is in memory.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let mut reader = BufReader::new(files::open(path).map_err(DataError::io(path))?);
        let head = reader.fill_buf().map_err(DataError::io(path))?;
        if let Some(kind) = Kind::of(head) {
            return Err(DataError::file(path, kind.instead_of("JSON lines")));
        }
        let mark = if head.starts_with(MARK) { MARK.len() } else { 0 };
        reader.consume(mark);
        Ok(Self { path, reader, line: Vec::new(), number: 0 })
    }

    /// The next line and its number, counted from 1.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>, DataError> {
        self.line.clear();
        self.number += 1;
        let mut reader = Read::by_ref(&mut self.reader).take(MAX_DOCUMENT_BYTES + 1);
        let bytes = reader.read_until(b'\n', &mut self.line).map_err(DataError::io(self.path))?;
        if bytes as u64 > MAX_DOCUMENT_BYTES {
            let problem = format!("it has more than {MAX_DOCUMENT_BYTES} bytes: make several documents of it");
            return Err(DataError::line(self.path, self.number, problem));
        }
        Ok((bytes > 0).then_some((self.number, &self.line)))
    }
}

/// The text of a line.
fn json_member(line: &[u8], member: &str) -> Result<String, String> {
    let line = std::str::from_utf8(line).map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to()))?;
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let object = value.as_object().ok_or("not a JSON object")?;
    let text = object.get(member).ok_or_else(|| format!("no member `{member}` (there are: {})", names(object)))?;
    text.as_str().map(str::to_owned).ok_or_else(|| format!("the member `{member}` is not a string"))
}

fn names(object: &serde_json::Map<String, serde_json::Value>) -> String {
    object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// Collects documents; those for a slow tokenizer are passed on in batches.
struct Builder<'a> {
    tokenizer: &'a Tokenizer,
    writer: TokenWriter,
    ends: Vec<u64>,
    waiting: Vec<String>,
    waiting_bytes: usize,
    /// For reading files of bytes.
    chunk: Vec<u8>,
}

impl<'a> Builder<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let writer = TokenWriter::new(Width::holding(tokenizer.bound()));
        let chunk = vec![0; CHUNK_BYTES];
        Self { tokenizer, writer, ends: Vec::new(), waiting: Vec::new(), waiting_bytes: 0, chunk }
    }

    /// Files of bytes may be large: they are never in memory as a whole.
    fn add_file(&mut self, path: &Path) -> Result<(), DataError> {
        if !matches!(self.tokenizer, Tokenizer::Bytes) {
            let text = files::read(path, MAX_DOCUMENT_BYTES).map_err(DataError::io(path))?;
            return self.add(text, || path.display().to_string());
        }
        let mut file = files::open(path).map_err(DataError::io(path))?;
        let begin = self.writer.len();
        loop {
            let bytes = file.read(&mut self.chunk).map_err(DataError::io(path))?;
            if bytes == 0 {
                break;
            }
            self.writer.push_bytes(&self.chunk[..bytes])?;
        }
        if self.writer.len() > begin { self.end_document() } else { Ok(()) }
    }

    fn add(&mut self, text: Vec<u8>, place: impl Fn() -> String) -> Result<(), DataError> {
        if text.is_empty() {
            return Ok(());
        }
        if matches!(self.tokenizer, Tokenizer::Bytes) {
            self.writer.push_bytes(&text)?;
            return self.end_document();
        }
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let problem = format!("not UTF-8 from byte {at} on (only the byte tokenizer takes that)");
            DataError::file(
                place(),
                Kind::of(error.as_bytes()).map_or(problem, |kind| kind.instead_of("text in UTF-8")),
            )
        })?;
        self.waiting_bytes += text.len();
        self.waiting.push(text);
        if self.waiting_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn end_document(&mut self) -> Result<(), DataError> {
        if let Some(separator) = self.tokenizer.separator() {
            self.writer.push(&[separator])?;
        }
        self.ends.push(self.writer.len());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.waiting_bytes = 0;
        for tokens in self.tokenizer.encode_batch(std::mem::take(&mut self.waiting))? {
            self.writer.push(&tokens)?;
            self.end_document()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Corpus, DataError> {
        self.flush()?;
        Ok(Corpus { tokens: self.writer.finish()?, ends: self.ends })
    }
}
