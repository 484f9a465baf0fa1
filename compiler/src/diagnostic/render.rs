//! Diagnostics as text for people and as data for programs.

use super::{Diagnostic, Severity, Suggestion};
use crate::source::{SourceMap, Span};
use crate::visible::{visible, visible_in_place};
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde::Serialize;
use std::ops::Range;

/// Width of rendered diagnostics in characters; longer source lines are cut around what they are about.
const WIDTH: usize = 120;

/// All diagnostics in the style of rustc, separated by blank lines; empty if there are none. With `color`, ANSI escapes
/// set the parts off.
pub fn render(sources: &SourceMap, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    diagnostics.iter().map(|diagnostic| render_one(sources, &shown(diagnostic), &renderer) + "\n\n").collect()
}

/// The diagnostic with words that a terminal only shows.
fn shown(diagnostic: &Diagnostic) -> Diagnostic {
    let mut shown = diagnostic.clone();
    let words = shown.labels.iter_mut().map(|label| &mut label.text).chain(&mut shown.notes);
    let words = words.chain(shown.suggestion.iter_mut().map(|suggestion| &mut suggestion.message));
    words.chain([&mut shown.message]).for_each(|text| *text = visible(text).into_owned());
    shown
}

fn render_one(sources: &SourceMap, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.id);
    let mut group = Group::with_title(title).elements(places(sources, diagnostic));
    group = group.elements(diagnostic.notes.iter().map(|note| Level::NOTE.message(note.as_str())));
    match &diagnostic.suggestion {
        None => renderer.render(&[group]),
        Some(Suggestion { message, edit: None }) => {
            renderer.render(&[group.element(Level::HELP.message(message.as_str()))])
        }
        Some(Suggestion { message, edit: Some((span, text)) }) => {
            let edit = Level::HELP.secondary_title(message.as_str()).element(patch(sources, *span, text));
            renderer.render(&[group, edit])
        }
    }
}

/// One snippet for each file that a label points into, the primary label's first.
fn places<'a>(
    sources: &'a SourceMap,
    diagnostic: &'a Diagnostic,
) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let mut files = Vec::new();
    for label in &diagnostic.labels {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
        }
    }
    let snippet = |file| {
        let labels = diagnostic.labels.iter().enumerate().filter(move |(_, label)| label.span.file == file);
        let window = Window::around(sources, labels.clone().map(|(_, label)| label.span));
        let annotations = labels.map(|(i, label)| {
            let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let text = (!label.text.is_empty()).then_some(label.text.as_str());
            kind.span(window.range(label.span)).label(text)
        });
        Snippet::source(visible_in_place(window.text))
            .path(window.name)
            .line_start(window.first_line)
            .annotations(annotations)
    };
    files.into_iter().map(snippet).collect()
}

fn patch<'a>(sources: &'a SourceMap, span: Span, text: &'a str) -> Snippet<'a, Patch<'a>> {
    let window = Window::around(sources, [span]);
    Snippet::source(visible_in_place(window.text))
        .path(window.name)
        .line_start(window.first_line)
        .patch(Patch::new(window.range(span), text))
}

/// The lines of a file that some spans touch, so that the cost of rendering does not grow with the file.
struct Window<'a> {
    name: &'a str,
    text: &'a str,
    start: usize,
    first_line: usize,
}

impl<'a> Window<'a> {
    fn around(sources: &'a SourceMap, spans: impl IntoIterator<Item = Span>) -> Self {
        let covering = spans.into_iter().reduce(Span::to).expect("a diagnostic has a place");
        let file = sources.file(covering.file);
        let (first, last) = (covering.start as usize, covering.end as usize);
        let text = file.text.as_str();
        let first = floor_boundary(text, first);
        let last = floor_boundary(text, last);
        let (first_line, start) = file.line_at(first as u32);
        let end = text[last..].find('\n').map_or(text.len(), |newline| last + newline);
        Window { name: &file.name, text: &text[start..end], start, first_line }
    }

    /// A span as bytes of the window.
    fn range(&self, span: Span) -> Range<usize> {
        let inside = |place: u32| floor_boundary(self.text, (place as usize).saturating_sub(self.start));
        inside(span.start)..inside(span.end)
    }
}

/// The nearest place at or before `place` where a character begins: spans that went astray must not end in a panic.
fn floor_boundary(text: &str, place: usize) -> usize {
    (0..=place.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// A diagnostic with its places as lines and columns: what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report<'a> {
    /// The id.
    pub id: &'a str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: &'a str,
    /// The primary place.
    #[serde(flatten)]
    pub place: Place<'a>,
    /// The words at the primary place; may be empty.
    pub label: &'a str,
    /// Further places with their words.
    pub related: Vec<Related<'a>>,
    /// Why.
    pub notes: &'a [String],
    /// What to write instead.
    pub suggestion: Option<Advice<'a>>,
}

/// A range of text; lines and columns count from 1, columns in characters, the end is exclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place<'a> {
    /// The file's name.
    pub file: &'a str,
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column of the end.
    pub end_column: usize,
}

/// A further place of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related<'a> {
    /// Where.
    #[serde(flatten)]
    pub place: Place<'a>,
    /// What about it.
    pub label: &'a str,
}

/// The suggestion of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice<'a> {
    /// What to do.
    pub message: &'a str,
    /// The range to replace, and the text to put there.
    pub edit: Option<(Place<'a>, &'a str)>,
}

/// Diagnostics with their places as lines and columns, for `--json`.
pub fn reports<'a>(sources: &'a SourceMap, diagnostics: &'a [Diagnostic]) -> Vec<Report<'a>> {
    diagnostics.iter().map(|diagnostic| report(sources, diagnostic)).collect()
}

fn report<'a>(sources: &'a SourceMap, diagnostic: &'a Diagnostic) -> Report<'a> {
    let related = |label: &'a super::Label| Related { place: place(sources, label.span), label: &label.text };
    let advice = |suggestion: &'a Suggestion| Advice {
        message: &suggestion.message,
        edit: suggestion.edit.as_ref().map(|(span, text)| (place(sources, *span), text.as_str())),
    };
    Report {
        id: diagnostic.id,
        severity: diagnostic.severity,
        message: &diagnostic.message,
        place: place(sources, diagnostic.labels[0].span),
        label: &diagnostic.labels[0].text,
        related: diagnostic.labels[1..].iter().map(related).collect(),
        notes: &diagnostic.notes,
        suggestion: diagnostic.suggestion.as_ref().map(advice),
    }
}

fn place(sources: &SourceMap, span: Span) -> Place<'_> {
    let (line, column) = sources.line_column(span.file, span.start);
    let (end_line, end_column) = sources.line_column(span.file, span.end);
    Place { file: &sources.file(span.file).name, line, column, end_line, end_column }
}
