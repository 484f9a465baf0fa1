//! PTX text to a tree. Nothing here knows what an instruction means.

mod lex;
mod parse;
pub mod tree;

pub use parse::parse;

/// What is wrong with a PTX text, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PtxError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What was found and what was expected.
    pub message: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> PtxError {
        PtxError { line, message: message.into() }
    }
}
