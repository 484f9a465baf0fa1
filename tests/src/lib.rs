//! What the whole-program tests share: [`diagnose`], the one place that says what the front end finds, and [`golden`],
//! expected texts that `BLESS=1` writes anew.

use std::path::{Path, PathBuf};
use trainc::check;
use trainc::compile;
use trainc::diagnostic::Diagnostic;
use trainc::program::Program;
use trainc::source::{FileId, SourceMap, Span};

pub mod arbitrary;
pub mod extremes;
pub mod golden;
pub mod layers;
pub mod library;
pub mod markdown;
pub mod private_digits;
pub mod program;
pub mod torch;
pub mod traces;
pub mod vectors;

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
    let mut alone = Alone { map: std::mem::take(sources), root: file };
    let found = match check::check(&mut alone, file, &[]) {
        Ok(program) => with_plan(program),
        Err(errors) => errors,
    };
    *sources = alone.map;
    found
}

/// The warnings about a program, and whether it keeps to its memory budget.
fn with_plan(program: Program) -> Vec<Diagnostic> {
    let mut found = program.warnings.clone();
    if let Some((_, budget)) = program.train.memory {
        let error = compile::Compilation::new(program).err();
        found.extend(error.and_then(|error| compile::over_budget(&error, budget)));
    }
    found
}

/// A program that can import nothing but the library (and itself).
struct Alone {
    map: SourceMap,
    root: FileId,
}

impl check::Sources for Alone {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.map
    }

    fn load(&mut self, path: &str, _from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        let itself = self.map.file(self.root).name == path;
        if itself { Ok(self.root) } else { Err(check::import_failed(span, path, "no such file")) }
    }
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
