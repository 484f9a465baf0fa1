//! Programs compiled in the test's own process.

use std::path::{Path, PathBuf};
use trainc::{
    check::{self, CountRecords, Sources},
    compile::{Compilation, Provenance},
    diagnostic::{self, Diagnostic},
    program::Program,
    source::{FileId, SourceMap, Span},
};
use trainc_kernels::{Caches, Target};
use trainc_llvm::Llvm;
use trainc_runtime::{
    Options, Session, Values,
    artifact::{Artifact, Isa},
    data::Data,
};

/// Sources in memory: one program without imports besides the standard library.
#[derive(Default)]
pub struct MemorySources {
    map: SourceMap,
    /// Where the program's data lie, if it is to be run.
    data: Option<PathBuf>,
}

impl Sources for MemorySources {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.map
    }

    fn load(&mut self, path: &str, _from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        Err(check::import_failed(span, path, "programs in memory import nothing"))
    }

    fn record_counter(&self) -> Box<CountRecords> {
        let base = self.data.clone();
        Box::new(move |data, needs| {
            // Of a program that is only looked at, some number will do.
            let Some(base) = &base else { return Some(Ok(1_000)) };
            let opened = Data::open(data, needs, base);
            Some(opened.map(|data| data.train_records()).map_err(|error| error.to_string()))
        })
    }
}

/// Checks a program text.
///
/// # Errors
/// The rendered diagnostics, if it is wrong.
pub fn check(name: &str, text: &str, set: &[(&str, &str)]) -> Result<Program, String> {
    check_with_data(name, text, set, None)
}

/// A program text whose data lie in a folder, checked; panics with the rendered diagnostics if it is wrong.
pub fn checked_in(base: &Path, name: &str, text: &str) -> Program {
    check_with_data(name, text, &[], Some(base)).unwrap_or_else(|found| panic!("{found}"))
}

/// Checks a program text whose data lie in a folder.
fn check_with_data(name: &str, text: &str, set: &[(&str, &str)], data: Option<&Path>) -> Result<Program, String> {
    let settings: Vec<(String, String)> = set.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    let mut sources = MemorySources { data: data.map(Path::to_owned), ..MemorySources::default() };
    let root = sources.map.add(name, text);
    check::check(&mut sources, root, &settings).map_err(|found| diagnostic::render(&sources.map, &found, false))
}

/// Checks, rewrites and schedules a program text; panics with the rendered diagnostics if it is wrong.
pub fn compile(name: &str, text: &str, set: &[(&str, &str)]) -> Compilation {
    compile_with_data(name, text, set, None)
}

fn compile_with_data(name: &str, text: &str, set: &[(&str, &str)], data: Option<&Path>) -> Compilation {
    let program = check_with_data(name, text, set, data).unwrap_or_else(|found| panic!("{found}"));
    Compilation::new(program).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The artifact of a program text for this machine.
pub fn artifact(name: &str, text: &str, set: &[(&str, &str)]) -> Artifact {
    artifact_for(trainc_kernels::host_isa(), name, text, set)
}

/// The artifact of a program text for an instruction set.
pub fn artifact_for(isa: Isa, name: &str, text: &str, set: &[(&str, &str)]) -> Artifact {
    artifact_with_data(isa, name, text, set, None)
}

fn artifact_with_data(isa: Isa, name: &str, text: &str, set: &[(&str, &str)], data: Option<&Path>) -> Artifact {
    let provenance = Provenance { text: text.into(), settings: vec![], digest: format!("{name} {set:?}") };
    packed(compile_with_data(name, text, set, data), isa, name, provenance)
}

fn packed(mut compilation: Compilation, isa: Isa, name: &str, provenance: Provenance) -> Artifact {
    compilation.artifact(&[isa], Caches::PORTABLE, &provenance, &Llvm).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The artifact of a checked program for an instruction set of a kind of machine; panics with the reason if there is none.
pub fn artifact_of(name: &str, program: Program, target: Target, isa: Isa) -> Artifact {
    let compilation = Compilation::for_target(program, target).unwrap_or_else(|error| panic!("{name}: {error}"));
    packed(compilation, isa, name, Provenance { text: name.into(), settings: vec![], digest: name.into() })
}

/// A session that runs a program text.
pub fn session(name: &str, text: &str, set: &[(&str, &str)], options: &Options) -> Session {
    let artifact = artifact_with_data(trainc_kernels::host_isa(), name, text, set, options.base.as_deref());
    Session::new(artifact, options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The elements of a tensor of real numbers.
pub fn floats(session: &Session, name: &str) -> Vec<f64> {
    match session.tensor(name).unwrap_or_else(|error| panic!("{error}")) {
        Values::Floats(values) => values.into_iter().map(f64::from).collect(),
        Values::Integers(_) => panic!("{name} holds integers"),
    }
}

/// The text of a file of this repository.
pub fn read(path: &str) -> String {
    let path = crate::root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All `.train` files of a folder of this repository, sorted.
pub fn programs(folder: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(crate::root().join(folder)).into_iter().flatten().flatten();
    let is_program = |path: &std::path::PathBuf| path.extension() == Some("train".as_ref() as &std::ffi::OsStr);
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_program).collect();
    paths.sort();
    paths
}

/// The name of a file without folder and ending.
pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
