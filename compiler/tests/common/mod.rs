//! What the tests of the syntax share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use trainc::source::FileId;
use trainc::syntax::{format, parse};

/// A program with every construct in it.
pub const EVERYTHING: &str = include_str!("everything.train");

/// All `.train` files of the repository: examples, library, mistakes.
pub fn programs() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a folder above it");
    let mut found = Vec::new();
    for folder in ["dsl-examples", "compiler/src", "compiler/std", "compiler/tests", "tests"] {
        collect(&root.join(folder), &mut found);
    }
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "train") {
            found.push((path.clone(), std::fs::read(&path).expect("programs can be read")));
        }
    }
}

/// The tree of a text without places, as text; `None` if it has errors.
pub fn shape(text: &str) -> Option<String> {
    let parsed = parse(FileId(0), text);
    parsed.errors.is_empty().then(|| without_spans(&format!("{:?}", parsed.file)))
}

/// Cuts `Span { ... }` out of a debug text; texts of the program cannot be confused with it, for they are quoted and a
/// space more or less in them would still show.
fn without_spans(debug: &str) -> String {
    let mut parts = debug.split("Span { file: FileId(0), start: ");
    let mut shape = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shape.push_str(part.split_once('}').map_or(part, |(_, rest)| rest));
    }
    shape
}

/// The laws of the formatter, for a text that parses: the same tree, a fixed point, and every comment kept.
pub fn check_format(text: &str) -> Result<String, String> {
    let Some(tree) = shape(text) else {
        return match format(text) {
            Err(errors) if !errors.is_empty() => Ok(String::new()),
            other => Err(format!("a text with errors was formatted: {other:?}")),
        };
    };
    let once = format(text).map_err(|errors| format!("{errors:?}"))?;
    match shape(&once) {
        Some(again) if again == tree => {}
        Some(again) => return Err(format!("the tree changed:\n{text}\n---\n{once}\n---\n{tree}\n{again}")),
        None => return Err(format!("the result does not parse:\n{text}\n---\n{once}")),
    }
    let twice = format(&once).map_err(|errors| format!("{errors:?}"))?;
    if once != twice {
        return Err(format!("not a fixed point:\n{text}\n---\n{once}\n---\n{twice}"));
    }
    if comments(text) != comments(&once) {
        return Err(format!("comments changed:\n{text}\n---\n{once}"));
    }
    Ok(once)
}

/// The comments of a text that has no `//` in quotes before them on their line, in order.
fn comments(text: &str) -> Vec<&str> {
    let outside = |line: &str, at: usize| {
        line[..at].replace("\\\\", "").replace("\\\"", "").matches('"').count().is_multiple_of(2)
    };
    text.lines()
        .filter_map(|line| {
            let at = line.match_indices("//").map(|(at, _)| at).find(|&at| outside(line, at))?;
            Some(line[at..].trim_end())
        })
        .collect()
}
