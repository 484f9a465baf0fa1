//! The limits that keep hostile texts harmless, and the words with which they are reported.

use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// How deep brackets, blocks and right-hand operands may nest: each level costs a few stack frames.
pub const MAX_NESTING: u32 = 64;

/// How high an expression's tree may grow, chains like `a + b + c + ...` included: every pass over trees recurses.
pub const MAX_EXPRESSION_HEIGHT: u32 = 256;

/// Longest source text. The largest program worth writing by hand is far below it.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Most tokens in a text; bounds the size of the tree.
pub const MAX_TOKENS: usize = 1 << 18;

/// Longest identifier: names become symbols, file names and table columns.
pub const MAX_IDENTIFIER_BYTES: usize = 128;

/// Most errors reported for one text: whoever has twenty mends the first few and asks again.
pub const MAX_ERRORS: usize = 20;

/// The error for a text that is too long to look at.
pub(super) fn check_size(file: FileId, bytes: usize) -> Option<Diagnostic> {
    (bytes > MAX_FILE_BYTES).then(|| {
        let start = Span { file, start: 0, end: 0 };
        Diagnostic::error("E0110", start, "the file is too large")
            .note(format!("it has {bytes} bytes; the limit is {MAX_FILE_BYTES}"))
            .help("split the program into files and import them with `use \"path\"`")
    })
}

/// The error for a text with too many tokens; what follows `span` was not read.
pub(super) fn too_many_tokens(span: Span) -> Diagnostic {
    Diagnostic::error("E0110", span, "the file has too many tokens")
        .label("nothing from here on was read")
        .note(format!("the limit is {MAX_TOKENS} tokens"))
        .help("split the program into files and import them with `use \"path\"`")
}

/// The error for an identifier that is too long.
pub(super) fn long_identifier(span: Span) -> Diagnostic {
    Diagnostic::error("E0110", span, "this name is too long")
        .label(format!("{} characters; the limit is {MAX_IDENTIFIER_BYTES}", span.end - span.start))
        .help("give it a shorter name")
}

/// The error for brackets or blocks that nest too deep.
pub(super) fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error("E0110", span, "this is nested too deep")
        .label(format!("more than {MAX_NESTING} levels stand around this"))
        .help("name an inner part on a line of its own, and use the name here")
}

/// The error for an expression whose tree is too high.
pub(super) fn too_long(span: Span) -> Diagnostic {
    Diagnostic::error("E0110", span, "this expression is too long")
        .label(format!("more than {MAX_EXPRESSION_HEIGHT} operations build on one another"))
        .help("name a part of it on a line of its own, and use the name here")
}

/// Adds an error, unless there are far more than will ever be shown.
pub(super) fn collect(errors: &mut Vec<Diagnostic>, error: Diagnostic) {
    if errors.len() < 8 * MAX_ERRORS {
        errors.push(error);
    }
}

/// The first [`MAX_ERRORS`] in order of place, the last of them saying how many were left out.
pub fn first_errors(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| (error.labels[0].span, error.id));
    errors.dedup_by_key(|error| (error.labels[0].span, error.id));
    let hidden = errors.len().saturating_sub(MAX_ERRORS);
    errors.truncate(MAX_ERRORS);
    if let Some(last) = errors.last_mut().filter(|_| hidden > 0) {
        last.notes.push("there are more errors, which are not shown: mend these first".to_owned());
    }
    errors
}
