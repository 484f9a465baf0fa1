//! The catalogue of mistakes: every `tests/mistakes/NAME.train` is wrong, and `tests/golden/mistakes/NAME.md` shows the
//! program and what the compiler says about it, as one page to be read.

use std::fs;
use std::path::Path;
use trainc::diagnostic::render;
use trainc_tests::{diagnose, golden, root};

#[test]
fn every_mistake_is_answered_as_its_page_shows() {
    let mut programs: Vec<_> = fs::read_dir(root().join("tests/mistakes"))
        .expect("the mistakes are in the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "train"))
        .collect();
    programs.sort();
    let complaints: Vec<String> = programs.iter().filter_map(|program| check(program)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n\n"));
}

fn check(program: &Path) -> Option<String> {
    let name = program.file_stem()?.to_string_lossy().into_owned();
    let bytes = fs::read(program).expect("the mistakes can be read");
    let (sources, found) = diagnose(&format!("{name}.train"), &bytes);
    if found.is_empty() {
        return Some(format!("{name}: the compiler finds nothing wrong with this program"));
    }
    let source = String::from_utf8_lossy(&bytes);
    let page = format!(
        "# {}\n\n```train\n{}\n```\n\n```text\n{}\n```\n",
        name.replace('_', " "),
        source.trim_end(),
        render(&sources, &found, false).trim_end()
    );
    golden::compare(&root().join("tests/golden/mistakes").join(format!("{name}.md")), &page)
}
