//! Programs from the file system: the root file, its imports, and what identifies them.

use super::{arguments, failure::Failure, output};
use std::path::{Path, PathBuf};
use trainc::{
    check::{self, CountRecords, Sources},
    compile::{self, Compilation, Provenance},
    diagnostic::Diagnostic,
    program::Program,
    source::{FileId, SourceMap, Span},
    visible::visible,
};
use trainc_kernels::Target;
use trainc_runtime::{artifact::Manifest, data::Data, files};

/// Files read so far.
#[derive(Default)]
pub struct FileSources {
    map: SourceMap,
    /// Where each file of `map` lies; `None` for the standard library.
    paths: Vec<Option<PathBuf>>,
    /// Where relative paths of the program's data start.
    base: PathBuf,
    /// Folders that imports may come from, as they are written and without links.
    importable: Vec<(PathBuf, PathBuf)>,
}

/// Most bytes of a file that is looked at: more than a program may have, so that it is told how large it may be.
const MAX_SOURCE_BYTES: u64 = 64 << 20;

/// Why a file is no source.
enum Unread {
    /// It cannot be read.
    Missing(String),
    /// Its bytes are no program text.
    NotText(Box<Diagnostic>),
}

impl FileSources {
    /// For a program file and what else it may import from.
    fn new(arguments: &arguments::Program) -> Result<Self, Failure> {
        let folder = arguments.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut sources = FileSources { base: arguments.base(), ..FileSources::default() };
        // A program whose folder cannot be found cannot be read either, and that is said then.
        sources.importable.extend(folder.canonicalize().ok().map(|real| (folder.to_path_buf(), real)));
        for folder in &arguments.allow_import {
            let real = folder.canonicalize();
            let real =
                real.map_err(|error| Failure::misuse(format!("--allow-import {}: {error}", folder.display())))?;
            sources.importable.push((folder.clone(), real));
        }
        Ok(sources)
    }

    fn read(&mut self, path: &Path) -> Result<FileId, Unread> {
        let bytes = files::read(path, MAX_SOURCE_BYTES)
            .map_err(|error| Unread::Missing(format!("cannot read {}: {error}", path.display())))?;
        let file = self.map.add_bytes(visible(&path.display().to_string()), &bytes).map_err(Unread::NotText)?;
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
        let path_there = folder.join(path);
        let may_import = |real: PathBuf| self.importable.iter().any(|(_, folder)| real.starts_with(folder));
        if path_there.canonicalize().is_ok_and(|real| !may_import(real)) {
            let own = self.importable.first().map_or(String::new(), |(folder, _)| folder.display().to_string());
            return Err(check::import_refused(span, path, &own));
        }
        self.read(&path_there).map_err(|unread| match unread {
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
    let mut sources = FileSources::new(arguments)?;
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

/// The program that an artifact was made of, checked again. Imports are looked for in `folder`.
///
/// # Errors
/// In words, if it is not the same any more.
pub fn of_artifact(manifest: &Manifest, folder: &Path) -> Result<(Program, SourceMap), String> {
    let mut sources = FileSources { base: folder.to_path_buf(), ..FileSources::default() };
    sources.importable.extend(folder.canonicalize().ok().map(|real| (folder.to_path_buf(), real)));
    let root = sources.map.add(format!("{}.train", manifest.name), manifest.source.clone());
    sources.remember(root, &folder.join("program"));
    let checked = check::check(&mut sources, root, &manifest.settings);
    let changed = "the program's imports are not what they were";
    let program = checked.map_err(|_| changed.to_owned())?;
    match provenance(&sources.map, root, &manifest.settings).digest == manifest.program_digest {
        true => Ok((program, sources.map)),
        false => Err(changed.into()),
    }
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
    let set = settings.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    for part in texts.chain(set) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    Provenance {
        text: map.file(root).text.clone(),
        settings: settings.to_vec(),
        digest: hasher.finalize().to_hex().to_string(),
    }
}
