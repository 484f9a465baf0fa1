//! Tests that start themselves again: the driver is found by a process that was started for it, so a test is the parent
//! that reads the report as well as the child that uses the device.

use serde_json::Value;
use std::process::Command;

/// Set in the child.
const CHILD: &str = "TRAINC_PTX_TEST_CHILD";

/// Whether this process is the child of [`report_of`].
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs a test of this program in a child that has the emulated device, with more environment variables (of
/// [`config`](crate::config)). Prints what the child printed and returns its report, an object a line.
///
/// # Panics
/// If the child fails: the test does then.
pub fn report_of(test: &str, settings: &[(&str, &str)]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("report.jsonl");
    let (name, libraries) = crate::environment().expect("the driver is built with the tests");
    let mut child = Command::new(std::env::current_exe().expect("the test program"));
    child.args([test, "--exact", "--nocapture"]).env(CHILD, "1").env(name, libraries);
    child.env(crate::config::REPORT, &report).envs(settings.iter().copied());
    let output = child.output().expect("a program that runs can be run again");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    print!("{text}");
    let lines = std::fs::read_to_string(&report).unwrap_or_default();
    lines.lines().map(|line| serde_json::from_str(line).expect("reports are lines of JSON")).collect()
}

/// The lines of a report that are of one kind.
pub fn of_kind<'a>(report: &'a [Value], kind: &str) -> Vec<&'a Value> {
    report.iter().filter(|line| line["kind"] == kind).collect()
}
