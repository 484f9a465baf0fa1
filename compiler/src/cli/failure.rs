//! How commands fail, and with which exit code.

use std::{fmt::Display, process::ExitCode};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The program is wrong; holds the rendered diagnostics. Exit code 1.
    Program(String),
    /// The command line is wrong, or names something that is not there. Exit code 2.
    Misuse(String),
    /// The run failed. Exit code 3.
    Run(String),
}

impl Failure {
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
            Failure::Program(rendered) => eprint!("{rendered}"),
            Failure::Misuse(message) | Failure::Run(message) => eprintln!("error: {message}"),
        }
    }

    /// 1, 2 or 3; see the variants.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Program(_) => 1,
            Failure::Misuse(_) => 2,
            Failure::Run(_) => 3,
        })
    }
}
