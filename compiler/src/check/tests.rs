//! Whole programs through the checker.

use super::{Sources, check};
use crate::{
    diagnostic::{Diagnostic, render},
    program::Program,
    source::{FileId, SourceMap, Span},
};

/// Programs that import nothing but the library.
#[derive(Default)]
struct Alone(SourceMap);

impl Sources for Alone {
    fn map(&mut self) -> &mut SourceMap {
        &mut self.0
    }

    fn load(&mut self, path: &str, _from: FileId, span: Span) -> Result<FileId, Diagnostic> {
        Err(super::import_failed(span, path, "there is only one file here"))
    }
}

/// The program of a text, or what is wrong with it.
fn checked(text: &str, settings: &[(&str, &str)]) -> Result<Program, String> {
    let mut sources = Alone::default();
    let root = sources.0.add("example.train", text);
    let settings: Vec<(String, String)> = settings.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    check(&mut sources, root, &settings).map_err(|found| render(&sources.0, &found, false))
}

#[test]
fn linear_regression_becomes_a_step() {
    let program =
        checked(include_str!("../../../dsl-examples/linear_regression.train"), &[]).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = program.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["linear.w", "linear.offset.bias"]);
    assert!(program.evaluate.is_some() && program.generate.is_none());
}

#[test]
fn a_gpt_becomes_a_step_whose_size_does_not_depend_on_depth() {
    let text = include_str!("../../../dsl-examples/gpt_rust.train");
    let program = checked(text, &[]).unwrap_or_else(|e| panic!("{e}"));
    for p in &program.parameters {
        eprintln!("{} {:?} {:?} {}", p.name, p.shape, p.roles, p.split);
    }
    eprintln!("{:?}", program.inputs);
    assert!(program.generate.is_some());
}

#[test]
fn every_example_becomes_a_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dsl-examples");
    let mut found = 0;
    for folder in [folder.to_string(), format!("{folder}/bench")] {
        let mut paths: Vec<_> =
            std::fs::read_dir(&folder).expect("the examples").map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "train")) {
            let text = std::fs::read_to_string(&path).expect("readable");
            let program = checked(&text, &[]).unwrap_or_else(|found| panic!("{}\n{found}", path.display()));
            assert!(program.warnings.is_empty(), "{}: {:?}", path.display(), program.warnings);
            found += 1;
        }
    }
    assert!(found >= 12, "only {found} examples");
}
