//! Gives every bracket its partner.
//!
//! After this pass brackets are balanced and properly nested, so the grammar never meets a missing one: a bracket that is
//! not closed is reported and closed at the most likely place, a closing bracket that closes nothing is reported and
//! removed, one of the wrong kind is reported and exchanged. Newlines inside `( )` and `[ ]` are dropped, because there
//! they mean nothing; a `;`, which the lexer takes for the end of a line, is reported, and read as a comma there.

use super::limits;
use super::token::{Kind, Symbol, Token};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};

/// Words that begin an item: at the very start of a line they are where a forgotten `}` should have stood.
const ITEM_WORDS: [&str; 9] = ["use", "const", "model", "layer", "function", "optimizer", "schedule", "data", "train"];

const COMMA: Kind = Kind::Symbol(Symbol::Comma);

/// Balances the brackets of a token list that ends with [`Kind::End`].
pub(super) fn pair(file: FileId, text: &str, tokens: Vec<Token>) -> (Vec<Token>, Vec<Diagnostic>) {
    let line_ends = logical_line_ends(&tokens);
    let indentations = indentations(&tokens);
    let mut pairing = Pairing { file, text, tokens, line_ends, indentations, ..Pairing::default() };
    for index in 0..pairing.tokens.len() {
        pairing.step(index);
    }
    (pairing.balanced(), pairing.errors)
}

#[derive(Default)]
struct Pairing<'a> {
    file: FileId,
    text: &'a str,
    tokens: Vec<Token>,
    line_ends: Vec<usize>,
    /// For each token, how far its line is indented.
    indentations: Vec<u32>,
    /// Tokens at which a `{` that is never closed should have been closed, known at the end.
    item_starts: Vec<usize>,
    /// Brackets open at the current token.
    open: Vec<(usize, Symbol)>,
    /// `{` and the `}` that closes it although it stands further left than the line of the `{`.
    suspects: Vec<(usize, usize)>,
    /// Brackets to insert before a token.
    inserted: Vec<(usize, Symbol)>,
    /// Tokens to leave out.
    removed: Vec<usize>,
    errors: Vec<Diagnostic>,
}

impl Pairing<'_> {
    fn step(&mut self, index: usize) {
        match self.tokens[index].kind {
            Kind::Symbol(Symbol::OpenBrace) => {
                self.close_parentheses(index);
                self.open.push((index, Symbol::OpenBrace));
            }
            Kind::Symbol(symbol) if symbol.closer().is_some() => self.open.push((index, symbol)),
            Kind::Symbol(Symbol::CloseBrace) => self.close_brace(index),
            Kind::Symbol(symbol) if symbol.closes() => self.close(index, symbol),
            Kind::End => self.end(index),
            _ => {}
        }
    }

    fn close(&mut self, index: usize, symbol: Symbol) {
        match self.open.last().copied() {
            Some((_, open)) if open.closer() == Some(symbol) => drop(self.open.pop()),
            None | Some((_, Symbol::OpenBrace)) => self.closes_nothing(index),
            Some((opener, open)) => {
                let below = self.open.len().checked_sub(2).map(|i| self.open[i].1);
                self.open.pop();
                if below.and_then(Symbol::closer) == Some(symbol) {
                    self.never_closed(opener, open, index);
                    self.open.pop();
                } else {
                    self.closed_by_other(opener, open, index);
                }
            }
        }
    }

    fn close_brace(&mut self, index: usize) {
        self.close_parentheses(index);
        let Some((opener, _)) = self.open.pop() else { return self.closes_nothing(index) };
        if self.first_on_line(index) && self.indentations[index] < self.indentations[opener] {
            self.suspects.push((opener, index));
        }
    }

    /// Closes the `(` and `[` that are still open where a `{`, a `}` or the end shows that they should not be.
    fn close_parentheses(&mut self, index: usize) {
        while let Some((opener, symbol)) = self.open.pop_if(|(_, symbol)| *symbol != Symbol::OpenBrace) {
            self.never_closed(opener, symbol, index);
        }
    }

    fn end(&mut self, index: usize) {
        self.close_parentheses(index);
        self.item_starts = (0..index).filter(|&i| self.begins_item(i)).collect();
        let mut suspects = std::mem::take(&mut self.suspects).into_iter();
        while let Some((opener, _)) = self.open.pop() {
            match suspects.next() {
                Some((inner, closer)) => self.closed_too_late(inner, closer),
                None => self.brace_never_closed(opener, index),
            }
        }
    }

    fn never_closed(&mut self, opener: usize, symbol: Symbol, found: usize) {
        let closer = symbol.closer().expect("only brackets that open are on the stack");
        let at = self.line_ends[opener].min(found);
        self.inserted.push((at, closer));
        let place = self.tokens[at.saturating_sub(1).max(opener)].end;
        let here = Span { file: self.file, start: place, end: place };
        let (open, close) = (symbol.spelling(), closer.spelling());
        self.report(
            Diagnostic::error("E0105", self.span(opener), format!("this `{open}` is never closed"))
                .label(format!("no `{close}` belongs to it"))
                .replace(here, close, format!("close it, perhaps here, with `{close}`")),
        );
    }

    fn closed_too_late(&mut self, opener: usize, closer: usize) {
        self.inserted.push((closer, Symbol::CloseBrace));
        self.report(
            Diagnostic::error("E0105", self.span(opener), "this `{` is never closed")
                .label("no `}` belongs to it")
                .also(self.span(closer), "by its indentation this `}` closes an outer block")
                .help("end the inner block with a `}` on a line of its own"),
        );
    }

    fn brace_never_closed(&mut self, opener: usize, end: usize) {
        let next_item = self.item_starts.get(self.item_starts.partition_point(|&start| start <= opener)).copied();
        self.inserted.push((next_item.map_or(end, |item| item - 1), Symbol::CloseBrace)); // at the end of the line above
        let error = Diagnostic::error("E0105", self.span(opener), "this `{` is never closed")
            .label("no `}` belongs to it")
            .help("end the block with a `}` on a line of its own");
        self.report(match next_item {
            Some(item) => error.also(self.span(item), "this looks like the next item of the file"),
            None => error,
        });
    }

    fn closes_nothing(&mut self, index: usize) {
        self.removed.push(index);
        let spelling = self.spelling(index);
        self.report(
            Diagnostic::error("E0106", self.span(index), format!("this `{spelling}` closes nothing"))
                .label("no open bracket belongs to it")
                .replace(self.span(index), "", "remove it"),
        );
    }

    fn closed_by_other(&mut self, opener: usize, open: Symbol, index: usize) {
        let closer = open.closer().expect("only brackets that open are on the stack");
        let (wrong, right) = (self.spelling(index), closer.spelling());
        self.report(
            Diagnostic::error("E0106", self.span(index), format!("`{}` is closed by `{wrong}`", open.spelling()))
                .label(format!("`{right}` is expected"))
                .also(self.span(opener), "opened here")
                .replace(self.span(index), right, format!("close it with `{right}`")),
        );
        self.tokens[index].kind = Kind::Symbol(closer);
    }

    /// The tokens with everything inserted, removed, and without newlines inside `( )` and `[ ]`.
    fn balanced(&mut self) -> Vec<Token> {
        self.inserted.sort_by_key(|(at, _)| *at);
        let mut inserted = self.inserted.iter().peekable();
        let mut removed = self.removed.iter().peekable();
        let mut kept = Vec::with_capacity(self.tokens.len() + self.inserted.len());
        let mut braces_only = vec![];
        let mut errors = Vec::new();
        for (index, &token) in self.tokens.iter().enumerate() {
            while let Some((_, symbol)) = inserted.next_if(|(at, _)| *at == index) {
                let place = kept.last().map_or(0, |last: &Token| last.end);
                keep(&mut kept, &mut braces_only, Token { kind: Kind::Symbol(*symbol), start: place, end: place });
            }
            if removed.next_if(|at| **at == index).is_some() {
                continue;
            }
            let separates = braces_only.last() == Some(&false);
            let semicolon = self.semicolon(token, separates);
            let read = semicolon.is_some() && separates;
            semicolon.into_iter().for_each(|error| limits::collect(&mut errors, error));
            keep(&mut kept, &mut braces_only, if read { Token { kind: COMMA, ..token } } else { token });
        }
        self.errors.append(&mut errors);
        kept
    }

    /// The error for a `;`, which stands between values if it `separates` them, and at the end of a statement elsewhere.
    fn semicolon(&self, token: Token, separates: bool) -> Option<Diagnostic> {
        let Token { kind: Kind::Newline, start, end } = token else { return None };
        if &self.text[start as usize..end as usize] != ";" {
            return None;
        }
        let place = Span { file: self.file, start, end };
        let error = Diagnostic::error("E0104", place, "`;` has no meaning here").label("a sign of other languages");
        Some(match separates {
            true => error.replace(place, ",", "arguments and entries are separated by commas"),
            false => error.help("write each statement on a line of its own, with nothing behind it"),
        })
    }

    fn report(&mut self, error: Diagnostic) {
        limits::collect(&mut self.errors, error);
    }

    fn span(&self, index: usize) -> Span {
        let Token { start, end, .. } = self.tokens[index];
        Span { file: self.file, start, end }
    }

    fn spelling(&self, index: usize) -> &'static str {
        match self.tokens[index].kind {
            Kind::Symbol(symbol) => symbol.spelling(),
            kind => unreachable!("a bracket, not {kind:?}"),
        }
    }

    fn first_on_line(&self, index: usize) -> bool {
        index == 0 || self.tokens[index - 1].kind == Kind::Newline
    }

    /// Whether a token begins an item, to judge by a line that is not indented.
    fn begins_item(&self, index: usize) -> bool {
        let Token { kind, start, end } = self.tokens[index];
        let word = &self.text[start as usize..end as usize];
        kind == Kind::Name && self.first_on_line(index) && self.indentations[index] == 0 && ITEM_WORDS.contains(&word)
    }
}

/// Adds a token, unless it is a newline inside `( )` or `[ ]`; `inside` says of each open bracket whether it is a brace.
fn keep(kept: &mut Vec<Token>, inside: &mut Vec<bool>, token: Token) {
    match token.kind {
        Kind::Newline if inside.last() == Some(&false) => return,
        Kind::Symbol(symbol) if symbol.closer().is_some() => inside.push(symbol == Symbol::OpenBrace),
        Kind::Symbol(symbol) if symbol.closes() => drop(inside.pop()),
        _ => {}
    }
    kept.push(token);
}

/// For each token the index of the next newline that ends a statement if no bracket is open: the place where a forgotten
/// bracket is put.
fn logical_line_ends(tokens: &[Token]) -> Vec<usize> {
    let mut ends = vec![tokens.len() - 1; tokens.len()];
    for index in (0..tokens.len() - 1).rev() {
        let ends_here = tokens[index].kind == Kind::Newline && !continues(tokens, index);
        ends[index] = if ends_here { index } else { ends[index + 1] };
    }
    ends
}

fn continues(tokens: &[Token], newline: usize) -> bool {
    let before = newline.checked_sub(1).map(|i| tokens[i].kind);
    matches!(before, Some(Kind::Newline)) || matches!(before, Some(Kind::Symbol(symbol)) if symbol.continues_line())
}

fn indentations(tokens: &[Token]) -> Vec<u32> {
    let mut line_start = 0;
    let mut first = None;
    let mut indentations = Vec::with_capacity(tokens.len());
    for token in tokens {
        indentations.push(*first.get_or_insert(token.start - line_start));
        if token.kind == Kind::Newline {
            line_start = token.end;
            first = None;
        }
    }
    indentations
}
