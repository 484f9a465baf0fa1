//! How commands fail, and with which exit code.

use super::output;
use serde_json::json;
use std::{fmt::Display, process::ExitCode};
use trainc::{
    diagnostic::{self, Diagnostic},
    source::SourceMap,
};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The program is wrong. Exit code 1.
    Program {
        /// The diagnostics for people.
        rendered: String,
        /// The diagnostics as data, for `--json`.
        reports: serde_json::Value,
    },
    /// The command line is wrong, or names something that is not there. Exit code 2.
    Misuse(String),
    /// The run failed. Exit code 3.
    Run(String),
    /// A signal asked to stop, and the run has been saved.
    Interrupted {
        /// What was reached, and how to go on.
        message: String,
        /// 128 and the number of the signal, as shells have it.
        code: u8,
    },
}

impl Failure {
    /// The program is wrong for a reason that has no place in its text.
    pub fn program(message: impl Display) -> Self {
        Failure::Program {
            rendered: format!("error: {message}\n"),
            reports: json!([{ "message": message.to_string() }]),
        }
    }

    /// The program is wrong, and these diagnostics say where.
    pub fn diagnosed(map: &SourceMap, diagnostics: &[Diagnostic]) -> Self {
        let reports = serde_json::to_value(diagnostic::reports(map, diagnostics)).expect("plain data serialises");
        Failure::Program { rendered: output::render(map, diagnostics), reports }
    }

    /// The command line asks for something that cannot be.
    pub fn misuse(message: impl Display) -> Self {
        Failure::Misuse(message.to_string())
    }

    /// Training, compiling or saving failed.
    pub fn run(message: impl Display) -> Self {
        Failure::Run(message.to_string())
    }

    /// Writes the reason to standard error.
    pub fn report(&self) {
        match self {
            Failure::Program { rendered, .. } => output::complaint(rendered),
            Failure::Misuse(message) | Failure::Run(message) => output::note(format!("error: {message}")),
            Failure::Interrupted { message, .. } => output::note(message),
        }
    }

    /// See the variants.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Program { .. } => 1,
            Failure::Misuse(_) => 2,
            Failure::Run(_) => 3,
            Failure::Interrupted { code, .. } => *code,
        })
    }
}
