//! Runs as their users keep them: nothing is lost by a start, a signal, a move or a closed terminal, and nothing is said
//! that is not so.

mod keeping;
mod showing;
mod starting;

use super::cli::{code, run, stderr, trainc};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The example of a line through points, with its data, as `line.train`: 5 steps and no `checkpoint` clause.
fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    line_in(folder.path(), "steps 5  batch 16");
    folder
}

fn line_in(folder: &Path, steps: &str) {
    let text = trainc_tests::program::read("dsl-examples/linear_regression.train");
    assert!(text.contains("steps 200  batch 16"));
    fs::write(folder.join("line.train"), text.replace("steps 200  batch 16", steps)).unwrap();
    fs::write(folder.join("points.csv"), trainc_tests::program::read("dsl-examples/points.csv")).unwrap();
}

/// Runs a command that must succeed.
fn done(folder: &Path, arguments: &str) -> Output {
    let output = run(folder, &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(code(&output), 0, "trainc {arguments}: {}", stderr(&output));
    output
}

/// Runs a command that must fail; what it says.
fn refused(folder: &Path, arguments: &str, expected: i32) -> String {
    let output = run(folder, &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(code(&output), expected, "trainc {arguments}: {}", stderr(&output));
    stderr(&output)
}

/// The last line of standard output as data.
fn last_line(output: &Output) -> Value {
    let shown = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(shown.lines().last().expect("a line")).unwrap()
}

fn read_json(file: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))).unwrap()
}

/// Every file below a folder with its contents, but for the lock.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.file_name() == Some(".lock".as_ref()) => {}
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// A run in the background that will not end by itself.
fn endless(folder: &Path, out: &str) -> Child {
    let arguments = ["run", "line.train", "--steps", "1000000000", "--out", out];
    let mut command = trainc();
    command.current_dir(folder).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_steps(&folder.join(out));
    child
}

/// Waits until a run has made steps.
fn wait_for_steps(directory: &Path) {
    let begin = Instant::now();
    while fs::metadata(directory.join("metrics.jsonl")).map_or(0, |file| file.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(300), "no step was made");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
