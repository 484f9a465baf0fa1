//! Checking: names, shapes, units, roles and groups; syntax trees in, a [`Program`] of graphs out.
//!
//! The checker is an abstract interpreter. It runs the program over shapes: numbers are known, tensors are nodes of the
//! graph under construction. So layers, functions, optimizers and schedules have one mechanism, and the standard
//! library (`std/*.train`) is written in the language like any program.
//!
//! * [`library`] gathers definitions from the files; [`names`] looks at them without running anything;
//! * [`evaluator`] holds the interpreter's state; [`expression`], [`arithmetic`], [`index`], [`reduce`], [`call`],
//!   [`result`], [`builtin`], [`body`] and [`assign`] give meaning to each kind of syntax; [`letters`] reads what stands between
//!   brackets, [`extents`] knows how far indices run, and [`habits`] answers calls as other languages have them;
//! * [`train`], [`groups`], [`horizon`], [`schedule`], [`optimizer`] and [`data`] read the blocks that say how to train;
//!   [`entries`] builds the graphs that they ask for, with [`gradients`];
//! * [`update`] decides how each parameter is updated; [`filter`] writes out gradient filters, [`sample`] takes gradients
//!   where they say, and [`series`] knows which linear recurrences settle.
//!
//! Errors do not stop the checker where it can go on: what a failed statement would have defined becomes unknown, and
//! unknown values fail silently; [`apart`] looks at each clause of `train` whose neighbours are wrong. A finding inside the library is shown at the program's call that leads there.

mod activation;
mod apart;
mod arithmetic;
mod assign;
mod body;
mod builtin;
mod call;
mod clause;
mod data;
mod entries;
mod evaluator;
mod expression;
mod extents;
mod filter;
mod gradients;
mod groups;
mod habits;
mod horizon;
mod index;
mod letters;
mod library;
mod logistic;
mod names;
mod optimizer;
mod private;
mod reduce;
mod registry;
mod result;
mod sample;
mod schedule;
mod series;
mod setting;
mod suggest;
mod train;
mod update;
mod value;

use crate::{
    diagnostic::{Diagnostic, Severity},
    program::Program,
    source::{FileId, SourceMap, Span},
    stack::with_large_stack,
    syntax,
};
use evaluator::{Checked, Evaluator, Failed};
use library::Library;
use trainc_runtime::{artifact::DataSpec, data::Need};

/// Where source files come from.
pub trait Sources: Send {
    /// All files loaded so far; the checker adds the standard library.
    fn map(&mut self) -> &mut SourceMap;

    /// Loads an imported file.
    ///
    /// # Errors
    /// If it cannot be read; see [`import_failed`].
    #[expect(clippy::result_large_err, reason = "a failed import is rare, and reported as it is")]
    fn load(&mut self, path: &str, from: FileId, span: Span) -> Result<FileId, Diagnostic>;

    /// Who can count the training records of a program's data; by default nobody. A guarantee of privacy depends on
    /// their number.
    fn record_counter(&self) -> Box<CountRecords> {
        Box::new(|_, _| None)
    }
}

/// Counts the training records of data that feed these fields; `None` where data cannot be read.
pub type CountRecords = dyn Fn(&DataSpec, &[Need]) -> Option<Result<u64, String>>;

/// The diagnostic for an import that cannot be loaded.
pub fn import_failed(span: Span, path: &str, reason: &str) -> Diagnostic {
    Diagnostic::error("E0205", span, format!("cannot import \"{path}\""))
        .label(reason)
        .note("paths are relative to the file that imports")
        .help("correct the path, or remove the import")
}

/// The diagnostic for an import that lies where the program may not read.
pub fn import_refused(span: Span, path: &str, folder: &str) -> Diagnostic {
    Diagnostic::error("E0205", span, format!("cannot import \"{path}\""))
        .label(format!("this lies outside of the program's folder, {folder}"))
        .note("a program imports files of its own folder and below, links followed")
        .help("say `--allow-import DIR` to let it import from another folder")
}

/// Checks a program and builds its graphs. `settings` override constants, and the clauses `steps`, `batch`, `precision` and
/// `seed`, which need not be there.
///
/// # Errors
/// All findings, if one of them is an error.
pub fn check(
    sources: &mut dyn Sources,
    root: FileId,
    settings: &[(String, String)],
) -> Result<Program, Vec<Diagnostic>> {
    with_large_stack(|| check_here(sources, root, settings))
}

fn check_here(
    sources: &mut dyn Sources,
    root: FileId,
    settings: &[(String, String)],
) -> Result<Program, Vec<Diagnostic>> {
    let (mut library, mut errors) = Library::load(sources, root);
    if errors.is_empty() {
        errors = library.apply_settings(sources.map(), settings);
    }
    let counter = sources.record_counter();
    match errors.is_empty() {
        true => build(&library, sources.map(), root, &*counter),
        false => Err(syntax::first_errors(errors)),
    }
}

/// All findings of a program, warnings included.
pub fn diagnose(sources: &mut dyn Sources, root: FileId, settings: &[(String, String)]) -> Vec<Diagnostic> {
    match check(sources, root, settings) {
        Ok(program) => program.warnings,
        Err(findings) => findings,
    }
}

fn build(
    library: &Library,
    map: &SourceMap,
    root: FileId,
    count_records: &CountRecords,
) -> Result<Program, Vec<Diagnostic>> {
    let mut evaluator = Evaluator::new(library, map, count_records);
    for finding in names::findings(library) {
        evaluator.report(finding);
    }
    let program = program(&mut evaluator, root);
    let failed = evaluator.has_errors();
    let (registry, findings) = evaluator.into_findings();
    match program {
        Ok(program) if !failed => Ok(Program {
            parameters: registry.parameters,
            states: registry.states,
            inputs: registry.inputs,
            warnings: findings,
            ..program
        }),
        _ => {
            debug_assert!(findings.iter().any(|finding| finding.severity == Severity::Error), "a failure is reported");
            Err(findings)
        }
    }
}

fn program(evaluator: &mut Evaluator<'_>, root: FileId) -> Checked<Program> {
    let library = evaluator.library;
    let block = match &library.trains[..] {
        [block] => block,
        [] => {
            let start = Span { file: root, start: 0, end: 0 };
            let error = Diagnostic::error("E0713", start, "the program has no `train` block")
                .note("it says which model to train, on what, and how")
                .help("add `train { model ... loss ... optimizer ... schedule ... steps ... batch ... }`");
            return evaluator.fail(error);
        }
        [first, second, ..] => {
            let error = Diagnostic::error("E0714", second.span, "the program has two `train` blocks");
            return evaluator.fail(error.also(first.span, "the first one").help("remove one of the two"));
        }
    };
    let draft = evaluator.draft(block)?;
    let whole = if evaluator.has_errors() { Err(Failed) } else { draft.plan() };
    let program = whole.and_then(|plan| evaluator.program(&plan));
    if program.is_err() {
        evaluator.clauses_apart(&draft);
    }
    program
}

#[cfg(test)]
mod tests;
