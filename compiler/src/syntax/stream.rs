//! The token slice as nom's input, and the small parsers that everything else is made of.

use super::limits::{self, MAX_NESTING};
use super::token::{Kind, Reserved, Symbol, Token};
use super::tree::Name;
use crate::clauses::Block;
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};
use nom::error::{ErrorKind, ParseError};
use nom::multi::separated_list0;
use nom::sequence::terminated;
use nom::{IResult, Input, Parser};
use std::cell::RefCell;
use std::iter::{Copied, Enumerate};
use std::slice::Iter;

/// What is left to read. Copies are cheap; nothing in it changes but the position and the surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens<'a> {
    file: FileId,
    text: &'a str,
    /// Never empty of meaning: behind the last token, [`Tokens::kind`] goes on answering [`Kind::End`].
    rest: &'a [Token],
    /// End of the last token that was read.
    last_end: u32,
    /// How many levels stand around this.
    depth: u32,
    /// The block of whose clauses this is read as words, if it is.
    words: Option<&'static Block>,
    /// Where errors go that do not end the parse.
    errors: &'a RefCell<Vec<Diagnostic>>,
}

/// Why a parser stopped.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The input is something else; another parser may read it.
    Other,
    /// The input is wrong at a place, which is where reading goes on after the error is reported. `None` if it is
    /// reported already.
    Wrong(u32, Option<Box<Diagnostic>>),
}

impl<'a> ParseError<Tokens<'a>> for Fault {
    fn from_error_kind(_: Tokens<'a>, _: ErrorKind) -> Self {
        Fault::Other
    }

    fn append(_: Tokens<'a>, _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// What every parser of the grammar returns.
pub(super) type Read<'a, T> = IResult<Tokens<'a>, T, Fault>;

impl<'a> Tokens<'a> {
    /// All tokens of a text.
    pub fn new(file: FileId, text: &'a str, tokens: &'a [Token], errors: &'a RefCell<Vec<Diagnostic>>) -> Self {
        Tokens { file, text, rest: tokens, last_end: 0, depth: 0, words: None, errors }
    }

    /// Reports an error; reading goes on.
    pub fn report(self, error: Diagnostic) {
        limits::collect(&mut self.errors.borrow_mut(), error);
    }

    /// The next token's kind.
    pub fn kind(self) -> Kind {
        self.kind_at(0)
    }

    /// The kind of the token that is `ahead` tokens ahead.
    pub fn kind_at(self, ahead: usize) -> Kind {
        self.rest.get(ahead).map_or(Kind::End, |token| token.kind)
    }

    /// Whether the next token is this symbol.
    pub fn at(self, symbol: Symbol) -> bool {
        self.kind() == Kind::Symbol(symbol)
    }

    /// Whether the next token is this word, as a name.
    pub fn at_word(self, word: &str) -> bool {
        self.word_at(0) == Some(word)
    }

    /// The name that is `ahead` tokens ahead.
    pub fn word_at(self, ahead: usize) -> Option<&'a str> {
        self.rest.get(ahead).filter(|token| token.kind == Kind::Name).map(|token| self.slice(token))
    }

    /// The next token's text.
    pub fn slice_here(self) -> &'a str {
        self.rest.first().map_or("", |token| self.slice(token))
    }

    /// The text of a place in this file.
    pub fn text_of(self, place: Span) -> &'a str {
        &self.text[place.start as usize..place.end as usize]
    }

    fn slice(self, token: &Token) -> &'a str {
        &self.text[token.start as usize..token.end as usize]
    }

    /// The next token's place; of a newline, the place where the line ends.
    pub fn span(self) -> Span {
        let (start, end) = match self.rest.first() {
            Some(Token { kind: Kind::Newline, start, .. }) => (*start, *start),
            Some(token) => (token.start, token.end),
            None => (self.last_end, self.last_end),
        };
        Span { file: self.file, start, end }
    }

    /// From `start` to the end of the last token that was read.
    pub fn since(self, start: Span) -> Span {
        Span { end: self.last_end.max(start.end), ..start }
    }

    /// Whether the next token touches the one before.
    pub fn touches(self) -> bool {
        self.span().start == self.last_end
    }

    /// Whether a bracket that comes next belongs to the value before it: among words it must touch it.
    pub fn belongs(self) -> bool {
        self.words.is_none() || self.touches()
    }

    /// Without the next token.
    pub fn advance(self) -> Self {
        match self.rest.split_first() {
            Some((token, rest)) if token.kind != Kind::End => Tokens { rest, last_end: token.end, ..self },
            _ => self,
        }
    }

    /// Behind all newlines that come next.
    pub fn skip_newlines(mut self) -> Self {
        while self.kind() == Kind::Newline {
            self = self.advance();
        }
        self
    }

    /// Behind the newlines that come next, unless there is nothing behind them in this block: what is missing is then
    /// missing at the end of this line.
    pub fn next_line(self) -> Self {
        let below = self.skip_newlines();
        if below.at_end_of_line() { self } else { below }
    }

    /// The place behind the last token that was read.
    pub fn behind(self) -> Span {
        Span { file: self.file, start: self.last_end, end: self.last_end }
    }

    /// Whether a statement or clause may end here.
    pub fn at_end_of_line(self) -> bool {
        matches!(self.kind(), Kind::Newline | Kind::End) || self.at(Symbol::CloseBrace)
    }

    /// One level deeper, if that is allowed.
    pub fn deeper(self) -> Result<Self, nom::Err<Fault>> {
        match self.depth < MAX_NESTING {
            true => Ok(Tokens { depth: self.depth + 1, ..self }),
            false => Err(wrong_at(self, limits::too_deep(self.span()))),
        }
    }

    /// With the surroundings of `outer` again, after something inside was read.
    pub fn back_to(self, outer: Tokens<'a>) -> Self {
        Tokens { depth: outer.depth, words: outer.words, ..self }
    }

    /// Reading words of a clause in a block.
    pub fn as_words(self, block: &'static Block) -> Self {
        Tokens { words: Some(block), ..self }
    }

    /// Reading plain expressions again.
    pub fn as_expression(self) -> Self {
        Tokens { words: None, ..self }
    }

    /// Whether a name begins a clause of the enclosing block.
    pub fn is_keyword(self, word: &str) -> bool {
        self.words.is_some_and(|block| block.clause(word).is_some())
    }

    /// Whether a name that comes next behind a value is out of place; `role` and `as` go on with the statement.
    pub fn expects_operator(self) -> bool {
        self.words.is_none() && !self.at_word("role") && !self.at_word("as")
    }

    /// Reports a fault in the statement that begins here, and goes behind it.
    pub fn recover(self, fault: nom::Err<Fault>) -> Self {
        match fault {
            nom::Err::Failure(Fault::Wrong(place, error)) => {
                error.into_iter().for_each(|error| self.report(*error));
                self.skip_statement(place)
            }
            _ => self.skip_statement(self.span().start),
        }
    }

    /// Behind the statement that went wrong at byte `place`: at its newline, at the `}` around it, or at the end.
    fn skip_statement(mut self, place: u32) -> Self {
        while self.span().start < place && self.kind() != Kind::End {
            self = self.advance();
        }
        let mut braces = 0;
        loop {
            match self.kind() {
                Kind::End => return self,
                Kind::Newline if braces == 0 => return self,
                Kind::Symbol(Symbol::CloseBrace) if braces == 0 => return self,
                Kind::Symbol(Symbol::OpenBrace) => braces += 1,
                Kind::Symbol(Symbol::CloseBrace) => braces -= 1,
                _ => {}
            }
            self = self.advance();
        }
    }
}

impl<'a> Input for Tokens<'a> {
    type Item = Token;
    type Iter = Copied<Iter<'a, Token>>;
    type IterIndices = Enumerate<Self::Iter>;

    fn input_len(&self) -> usize {
        self.rest.len()
    }

    fn take(&self, index: usize) -> Self {
        Tokens { rest: &self.rest[..index], ..*self }
    }

    fn take_from(&self, index: usize) -> Self {
        let last_end = index.checked_sub(1).map_or(self.last_end, |last| self.rest[last].end);
        Tokens { rest: &self.rest[index..], last_end, ..*self }
    }

    fn take_split(&self, index: usize) -> (Self, Self) {
        (self.take_from(index), self.take(index))
    }

    fn position<P: Fn(Token) -> bool>(&self, predicate: P) -> Option<usize> {
        self.iter_elements().position(predicate)
    }

    fn iter_elements(&self) -> Self::Iter {
        self.rest.iter().copied()
    }

    fn iter_indices(&self) -> Self::IterIndices {
        self.iter_elements().enumerate()
    }

    fn slice_index(&self, count: usize) -> Result<usize, nom::Needed> {
        match count <= self.rest.len() {
            true => Ok(count),
            false => Err(nom::Needed::new(count - self.rest.len())),
        }
    }
}

/// The fault of not being what is looked for.
pub(super) fn other<'a, T>() -> Read<'a, T> {
    Err(nom::Err::Error(Fault::Other))
}

/// A fault at the next token. Where the lexer could not read the token it has said so already.
pub(super) fn wrong_at(input: Tokens<'_>, error: Diagnostic) -> nom::Err<Fault> {
    let known = input.kind() == Kind::Bad;
    nom::Err::Failure(Fault::Wrong(input.span().start, (!known).then(|| Box::new(error))))
}

/// One token of a kind.
pub(super) fn token<'a>(kind: Kind) -> impl Parser<Tokens<'a>, Output = Span, Error = Fault> {
    move |input: Tokens<'a>| match input.kind() == kind {
        true => Ok((input.advance(), input.span())),
        false => other(),
    }
}

/// One symbol.
pub(super) fn symbol<'a>(symbol: Symbol) -> impl Parser<Tokens<'a>, Output = Span, Error = Fault> {
    token(Kind::Symbol(symbol))
}

/// One reserved word.
pub(super) fn reserved<'a>(word: Reserved) -> impl Parser<Tokens<'a>, Output = Span, Error = Fault> {
    token(Kind::Reserved(word))
}

/// One word that is a keyword only here.
pub(super) fn keyword<'a>(word: &'static str) -> impl Parser<Tokens<'a>, Output = Span, Error = Fault> {
    move |input: Tokens<'a>| match input.at_word(word) {
        true => Ok((input.advance(), input.span())),
        false => other(),
    }
}

/// An identifier.
pub(super) fn name(input: Tokens<'_>) -> Read<'_, Name> {
    match input.kind() {
        Kind::Name => Ok((input.advance(), Name { text: input.slice_here().to_owned(), span: input.span() })),
        _ => other(),
    }
}

/// An identifier that must come here; `what` says of what it is the name.
pub(super) fn expect_name<'a>(what: &'static str) -> impl Parser<Tokens<'a>, Output = Name, Error = Fault> {
    move |input: Tokens<'a>| match input.kind() {
        Kind::Name => name(input),
        Kind::Reserved(_) => {
            let word = input.slice_here();
            let error = Diagnostic::error("E0111", input.span(), format!("`{word}` cannot be a name"))
                .label(format!("{what} is expected, and `{word}` is a word of the language"))
                .replace(input.span(), format!("{word}_"), "choose another name, for example");
            Err(wrong_at(input, error))
        }
        _ => {
            let error = Diagnostic::error("E0111", input.span(), format!("{what} is missing"))
                .label(format!("expected a name, found {}", found(input)));
            Err(wrong_at(input, error))
        }
    }
}

/// A symbol that must come here.
pub(super) fn expect<'a>(
    wanted: Symbol,
    error: impl Fn(Tokens<'a>) -> Diagnostic,
) -> impl Parser<Tokens<'a>, Output = Span, Error = Fault> {
    move |input: Tokens<'a>| match input.at(wanted) {
        true => Ok((input.advance(), input.span())),
        false => Err(wrong_at(input, error(input))),
    }
}

/// Goes to the `{` that opens a body; one on the next line is reported.
pub(super) fn to_brace(input: Tokens<'_>) -> Tokens<'_> {
    let below = input.skip_newlines();
    if input.kind() == Kind::Newline && below.at(Symbol::OpenBrace) {
        let error = Diagnostic::error("E0112", below.span(), "this `{` belongs on the line above")
            .label("a block does not stand alone")
            .note("a statement ends with its line, so a header without its `{` has no body")
            .help("write the `{` at the end of the header's line");
        below.report(error);
        return below;
    }
    input
}

/// `item, item, ...`, a comma behind the last one allowed, newlines allowed behind each comma.
pub(super) fn comma_list<'a, T>(
    item: impl Parser<Tokens<'a>, Output = T, Error = Fault>,
) -> impl Parser<Tokens<'a>, Output = Vec<T>, Error = Fault> {
    terminated(separated_list0(comma, item), nom::combinator::opt(comma))
}

/// A comma and the newlines behind it.
pub(super) fn comma(input: Tokens<'_>) -> Read<'_, ()> {
    let (input, _) = symbol(Symbol::Comma).parse(input)?;
    Ok((input.next_line(), ()))
}

/// The next token in words, for messages.
pub(super) fn found(input: Tokens<'_>) -> String {
    match input.kind() {
        Kind::Newline => "the end of the line".into(),
        Kind::End => "the end of the file".into(),
        Kind::Text => "a text".into(),
        Kind::Symbol(symbol) => format!("`{}`", symbol.spelling()),
        _ => format!("`{}`", input.slice_here()),
    }
}
