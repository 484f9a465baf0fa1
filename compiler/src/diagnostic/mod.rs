//! Diagnostics as data; rendering is apart: [`render`] for people, [`reports`] for programs.
//!
//! Every id has a line in [`CATALOG`] and a page in `spec/diagnostics/` with a bad and a good example, which are tests.

mod catalog;
mod render;
mod similar;

pub use catalog::{CATALOG, Entry, entry};
pub use render::{Advice, Place, Related, Report, render, reports};
pub use similar::did_you_mean;

use crate::source::Span;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The program has no meaning.
    Error,
    /// The program has a meaning that its author probably did not want.
    Warning,
}

/// One finding about a program: what, where, why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable id, e.g. `E0203`; documented by a page of that name in `spec/diagnostics/`.
    pub id: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, one phrase.
    pub message: String,
    /// Where, with a short label; the first is the primary place.
    pub labels: Vec<Label>,
    /// Why, or which facts led to it.
    pub notes: Vec<String>,
    /// What to write instead.
    pub suggestion: Option<Suggestion>,
}

/// A place with a few words about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// The words; may be empty.
    pub text: String,
}

/// An edit that mends the program, or at least says how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// e.g. `did you mean `adamw`?`
    pub message: String,
    /// The text to put in place of a span, when the mend is that simple.
    pub edit: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(id: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, span, message)
    }

    /// A warning at a place.
    pub fn warning(id: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, span, message)
    }

    fn new(id: &'static str, severity: Severity, span: Span, message: impl Into<String>) -> Self {
        let labels = vec![Label { span, text: String::new() }];
        Self { id, severity, message: message.into(), labels, notes: Vec::new(), suggestion: None }
    }

    /// Sets the words at the primary place.
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].text = text.into();
        self
    }

    /// Adds a further place.
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a reason.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Says what to write, in words.
    pub fn help(mut self, message: impl Into<String>) -> Self {
        self.suggestion = Some(Suggestion { message: message.into(), edit: None });
        self
    }

    /// Says what to write in place of a span.
    pub fn replace(mut self, span: Span, with: impl Into<String>, message: impl Into<String>) -> Self {
        self.suggestion = Some(Suggestion { message: message.into(), edit: Some((span, with.into())) });
        self
    }
}
