//! What commands print.

use super::failure::Failure;
use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, Write},
    sync::OnceLock,
};
use trainc::{
    diagnostic::{self, Diagnostic},
    source::SourceMap,
    visible::visible,
};

// What cannot be written is not: a full disk or a closed terminal is not worth a panic, and ends no training.

/// The first reason for which something is missing from standard output.
static MISSING: OnceLock<io::Error> = OnceLock::new();

/// Writes a report to standard output.
pub fn text(text: impl Display) {
    raw(visible(&text.to_string()));
}

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    raw(visible(&format!("{text}\n")));
}

/// Writes what is not for people, or what a person asked for as it is, to standard output.
pub fn raw(text: impl Display) {
    let mut out = io::stdout();
    if let Err(error) = write!(out, "{text}").and_then(|()| out.flush()) {
        let _ = MISSING.set(error);
    }
}

/// Whether standard output has all that was written to it. A reader that went away wanted no more.
///
/// # Errors
/// With the reason, if something is missing.
pub fn complete() -> Result<(), Failure> {
    match MISSING.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("standard output cannot be written: {error}; what was printed is not complete")))
        }
        _ => Ok(()),
    }
}

/// Writes rendered diagnostics, which may have colours, to standard error.
pub fn complaint(text: impl Display) {
    let _ = write!(io::stderr(), "{text}");
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    let _ = write!(io::stderr(), "{}", visible(&format!("{text}\n")));
}

/// From here on, a reader that goes away (`trainc run F | head`) ends the printing and not the process.
pub fn outlive_readers() {
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Diagnostics for people, in colour where standard error is a terminal that has it and nothing in the environment speaks
/// against it (`NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM`). Empty for none.
pub fn render(map: &SourceMap, diagnostics: &[Diagnostic]) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    diagnostic::render(map, diagnostics, AutoStream::choice(&io::stderr()) != ColorChoice::Never)
}

/// Writes one JSON object as a line to standard output.
pub fn json(value: &impl Serialize) {
    raw(serde_json::to_string(value).expect("plain data serialises") + "\n");
}

/// `1234567` as `1.23 M`, with a unit of thousands.
pub fn count(value: f64) -> String {
    scaled(value, &["", "k", "M", "G", "T", "P"])
}

/// `1 record`, `5 records`.
pub fn records(count: f64) -> String {
    if count == 1.0 { "1 record".into() } else { format!("{count} records") }
}

/// A number of bytes with a decimal unit.
pub fn bytes(value: u64) -> String {
    scaled(value as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

fn scaled(value: f64, units: &[&str]) -> String {
    let power = (0..units.len()).rev().find(|&power| value >= 1000f64.powi(power as i32)).unwrap_or(0);
    let digits = if power == 0 { 0 } else { 2 };
    format!("{:.digits$} {}", value / 1000f64.powi(power as i32), units[power]).trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_in_the_unit_that_fits() {
        assert_eq!(count(999.0), "999");
        assert_eq!(count(1_234_567.0), "1.23 M");
        assert_eq!(bytes(5_000), "5.00 kB");
        assert_eq!(bytes(0), "0 B");
    }
}
