//! What commands print.

use serde::Serialize;
use std::io::{IsTerminal, Write};
use trainc::{
    diagnostic::{self, Diagnostic},
    source::SourceMap,
};

/// Diagnostics for people, in colour on a terminal. Empty for none.
pub fn render(map: &SourceMap, diagnostics: &[Diagnostic]) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    diagnostic::render(map, diagnostics, std::io::stderr().is_terminal())
}

/// Writes one JSON object as a line to standard output.
pub fn json(value: &impl Serialize) {
    let line = serde_json::to_string(value).expect("plain data serialises");
    // A full pipe or a closed terminal is not worth a panic at the very end.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// `1234567` as `1.23 M`, with a unit of thousands.
pub fn count(value: f64) -> String {
    scaled(value, &["", "k", "M", "G", "T", "P"])
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
