//! What the whole-program tests share: [`diagnose`], the one place that says what the front end finds, and [`golden`],
//! expected texts that `BLESS=1` writes anew.

use std::path::{Path, PathBuf};
use trainc::diagnostic::Diagnostic;
use trainc::source::{FileId, SourceMap};

pub mod golden;
pub mod markdown;
pub mod program;

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a folder above them").to_owned()
}

/// What the parser alone has to say: the examples of the grammar's diagnostics are fragments.
pub fn diagnose_grammar(name: &str, bytes: &[u8]) -> (SourceMap, Vec<Diagnostic>) {
    read(name, bytes, |sources, file| trainc::syntax::parse(file, &sources.file(file).text).errors)
}

/// Everything the front end has to say about a program.
pub fn diagnose(name: &str, bytes: &[u8]) -> (SourceMap, Vec<Diagnostic>) {
    read(name, bytes, front_end)
}

fn front_end(sources: &mut SourceMap, file: FileId) -> Vec<Diagnostic> {
    trainc::syntax::parse(file, &sources.file(file).text).errors
}

fn read(
    name: &str,
    bytes: &[u8],
    look: impl FnOnce(&mut SourceMap, FileId) -> Vec<Diagnostic>,
) -> (SourceMap, Vec<Diagnostic>) {
    let mut sources = SourceMap::default();
    let found = match sources.add_bytes(name, bytes) {
        Ok(file) => look(&mut sources, file),
        Err(error) => vec![*error],
    };
    (sources, found)
}
