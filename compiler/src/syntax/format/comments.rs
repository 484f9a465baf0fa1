//! The comments of a text in order, each printed once.

use crate::source::Span;

/// Comments that are not printed yet, and what the text says about blank lines.
pub(super) struct Comments<'a> {
    text: &'a str,
    waiting: std::iter::Peekable<std::vec::IntoIter<Span>>,
}

impl<'a> Comments<'a> {
    pub fn new(text: &'a str, comments: Vec<Span>) -> Self {
        Comments { text, waiting: comments.into_iter().peekable() }
    }

    /// The next comment, if it begins before `place`: its text and its span.
    pub fn before(&mut self, place: u32) -> Option<(&'a str, Span)> {
        let comment = self.waiting.next_if(|comment| comment.start < place)?;
        Some((self.slice(comment), comment))
    }

    /// The comment behind `place` on the same line, if it begins before `until`.
    pub fn trailing(&mut self, place: u32, until: u32) -> Option<(&'a str, Span)> {
        let text = self.text;
        let comment = self.waiting.next_if(|comment| {
            let between = &text[place.min(comment.start) as usize..comment.start as usize];
            comment.start < until && !between.contains('\n')
        })?;
        Some((self.slice(comment), comment))
    }

    /// Whether a comment waits to be printed inside a span.
    pub fn inside(&mut self, span: Span) -> bool {
        self.waiting.peek().is_some_and(|comment| comment.start < span.end)
    }

    /// Whether the text has a blank line between two places.
    pub fn blank_between(&self, end: u32, start: u32) -> bool {
        end < start && self.text[end as usize..start as usize].matches('\n').nth(1).is_some()
    }

    /// Whether two places are on one line.
    pub fn same_line(&self, end: u32, start: u32) -> bool {
        end <= start && !self.text[end as usize..start as usize].contains('\n')
    }

    fn slice(&self, comment: Span) -> &'a str {
        self.text[comment.start as usize..comment.end as usize].trim_end()
    }
}
