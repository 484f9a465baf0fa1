//! Programs from the file system: the root file, its imports, and what identifies them.

use super::{arguments, failure::Failure, output};
use std::path::{Path, PathBuf};
use trainc::{
    check::{self, CountRecords, Sources},
    compile::{self, Compilation, Provenance},
    diagnostic::Diagnostic,
    program::Program,
    source::{FileId, SourceMap, Span},
};
use trainc_kernels::Target;
use trainc_runtime::data::Data;

/// Files read so far.
#[derive(Default)]
pub struct FileSources {
    map: SourceMap,
    /// Where each file of `map` lies; `None` for the standard library.
    paths: Vec<Option<PathBuf>>,
    /// Where relative paths of the program's data start.
    base: PathBuf,
}

/// Why a file is no source.
enum Unread {
    /// It cannot be read.
    Missing(String),
    /// Its bytes are no program text.
    NotText(Box<Diagnostic>),
}

impl FileSources {
    fn read(&mut self, path: &Path) -> Result<FileId, Unread> {
        let bytes =
            std::fs::read(path).map_err(|error| Unread::Missing(format!("cannot read {}: {error}", path.display())))?;
        let file = self.map.add_bytes(path.display().to_string(), &bytes).map_err(Unread::NotText)?;
        self.remember(file, path);
        Ok(file)
    }

    fn remember(&mut self, file: FileId, path: &Path) {
        self.paths.resize(file.0 as usize + 1, None);
        self.paths[file.0 as usize] = Some(path.to_path_buf());
    }
}

impl Sources for FileSources {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.map
    }

    fn load(&mut self, path: &str, from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        let importer = self.paths.get(from.0 as usize).cloned().flatten();
        let folder = importer.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        self.read(&folder.join(path)).map_err(|unread| match unread {
            Unread::Missing(reason) => check::import_failed(span, path, &reason),
            Unread::NotText(diagnostic) => *diagnostic,
        })
    }

    fn record_counter(&self) -> Box<CountRecords> {
        let base = self.base.clone();
        Box::new(move |data, needs| {
            Some(Data::open(data, needs, &base).map(|data| data.train_records()).map_err(|error| error.to_string()))
        })
    }
}

/// A checked program and all that is needed to talk about it.
pub struct Loaded {
    /// The program.
    pub program: Program,
    /// Its texts.
    pub map: SourceMap,
    /// Its identity.
    pub provenance: Provenance,
}

/// Reads and checks a program; warnings go to standard error.
///
/// # Errors
/// [`Failure::Misuse`] if the file cannot be read, [`Failure::Program`] if it is wrong.
pub fn load(arguments: &arguments::Program) -> Result<Loaded, Failure> {
    let settings = settings(&arguments.set)?;
    let mut sources = FileSources { base: arguments.base(), ..FileSources::default() };
    let root = sources.read(&arguments.file).map_err(|unread| match unread {
        Unread::Missing(reason) => Failure::Misuse(reason),
        Unread::NotText(diagnostic) => Failure::diagnosed(&sources.map, &[*diagnostic]),
    })?;
    match check::check(&mut sources, root, &settings) {
        Ok(program) => {
            output::complaint(output::render(&sources.map, &program.warnings));
            let provenance = provenance(&sources.map, root, &settings);
            Ok(Loaded { program, map: sources.map, provenance })
        }
        Err(diagnostics) => Err(Failure::diagnosed(&sources.map, &diagnostics)),
    }
}

/// Reads, checks, rewrites and schedules a program for the processor.
///
/// # Errors
/// As [`compile_for`].
pub fn compile(arguments: &arguments::Program) -> Result<(Compilation, SourceMap, Provenance), Failure> {
    compile_for(arguments, Target::Cpu)
}

/// Reads, checks, rewrites and schedules a program for a kind of machine.
///
/// # Errors
/// As [`load`]; [`Failure::Program`] too if no schedule meets the memory budget.
pub fn compile_for(
    arguments: &arguments::Program,
    target: Target,
) -> Result<(Compilation, SourceMap, Provenance), Failure> {
    let start = std::time::Instant::now();
    let loaded = load(arguments)?;
    let check_ms = start.elapsed().as_secs_f64() * 1e3;
    let budget = loaded.program.train.memory;
    let mut compilation = Compilation::for_target(loaded.program, target).map_err(|error| {
        match budget.and_then(|(_, span)| compile::over_budget(&error, span)) {
            Some(diagnostic) => Failure::diagnosed(&loaded.map, &[diagnostic]),
            None => Failure::program(error),
        }
    })?;
    compilation.milliseconds.insert("check", check_ms);
    Ok((compilation, loaded.map, loaded.provenance))
}

fn settings(set: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let split = |setting: &String| {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| Failure::Misuse(format!("--set {setting}: write it as NAME=VALUE, e.g. --set width=256")))?;
        Ok((name.trim().to_string(), value.trim().to_string()))
    };
    set.iter().map(split).collect()
}

/// Hashes every text that the program is made of, with its settings.
fn provenance(map: &SourceMap, root: FileId, settings: &[(String, String)]) -> Provenance {
    let mut hasher = blake3::Hasher::new();
    let texts = map.iter().map(|(_, file)| file.text.as_str());
    let settings = settings.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for part in texts.chain(settings) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Provenance { text: map.file(root).text.clone(), digest: hasher.finalize().to_hex().to_string() }
}
