//! Text to tokens and comments.
//!
//! Spaces separate tokens, newlines are tokens. What cannot be read becomes one [`Kind::Bad`] token and one error, so that
//! the parser can go on behind it.

use super::limits::{self, MAX_IDENTIFIER_BYTES, MAX_TOKENS};
use super::token::{Kind, Reserved, Symbol, Token};
use crate::diagnostic::Diagnostic;
use crate::source::{FileId, Span};
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, digit1, one_of, satisfy};
use nom::combinator::{map, opt, peek, recognize, value};
use nom::multi::many0_count;
use nom::sequence::{pair, preceded};
use nom::{IResult, Parser};

/// What the lexer found.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    /// The tokens, the last one [`Kind::End`].
    pub tokens: Vec<Token>,
    /// The comments, from `//` to before the newline.
    pub comments: Vec<Span>,
    /// What could not be read.
    pub errors: Vec<Diagnostic>,
}

/// A piece of text: a token, or something between tokens.
#[derive(Clone, Copy)]
enum Piece {
    Token(Kind),
    Comment,
    Space,
    Wrong(Wrong),
}

/// Why a piece cannot be read.
#[derive(Clone, Copy)]
enum Wrong {
    Character,
    OpenText,
    Quote,
    Number,
    Foreign(&'static Foreign),
}

/// Cuts a text into tokens.
pub(super) fn lex(file: FileId, text: &str) -> Lexed {
    let mut lexed = Lexed::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (after, piece) = piece(rest).unwrap_or_else(|_| unreadable(rest));
        let start = (text.len() - rest.len()) as u32;
        let end = (text.len() - after.len()) as u32;
        lexed.take(piece, Span { file, start, end }, &rest[..(end - start) as usize]);
        rest = after;
        if lexed.tokens.len() >= MAX_TOKENS {
            lexed.errors.push(limits::too_many_tokens(Span { file, start, end }));
            break;
        }
    }
    let end = (text.len() - rest.len()) as u32;
    lexed.tokens.push(Token { kind: Kind::End, start: end, end });
    lexed
}

impl Lexed {
    /// Reports an error; a character that is not part of the language is reported once, however often it stands there.
    fn complain(&mut self, error: Diagnostic) {
        let known = error.id == "E0101" && self.errors.iter().any(|other| other.message == error.message);
        if !known {
            limits::collect(&mut self.errors, error);
        }
    }

    fn take(&mut self, piece: Piece, span: Span, text: &str) {
        let kind = match piece {
            Piece::Space => return,
            Piece::Comment => return self.comments.push(span),
            Piece::Token(kind) => kind,
            Piece::Wrong(wrong) => {
                self.complain(complain(wrong, span, text));
                match wrong {
                    Wrong::Foreign(foreign) => match foreign.meant {
                        Some(kind) => kind,
                        None => return,
                    },
                    _ => Kind::Bad,
                }
            }
        };
        if kind == Kind::Name && text.len() > MAX_IDENTIFIER_BYTES {
            self.complain(limits::long_identifier(span));
        }
        if kind == Kind::Number && number_parts(text).is_none() {
            self.complain(complain(Wrong::Number, span, text));
            return self.tokens.push(Token { kind: Kind::Bad, start: span.start, end: span.end });
        }
        if kind == Kind::Text
            && let Some(error) = bad_escape(span, text)
        {
            self.complain(error);
        }
        self.tokens.push(Token { kind, start: span.start, end: span.end });
    }
}

fn piece(text: &str) -> IResult<&str, Piece> {
    alt((
        value(Piece::Space, take_while1(|c| matches!(c, ' ' | '\t' | '\r'))),
        // A `;` ends a statement as a line does; which brackets stand around it, and so what to write, is known later.
        value(Piece::Token(Kind::Newline), one_of("\n;")),
        value(Piece::Comment, preceded(tag("//"), take_while(|c| c != '\n'))),
        map(recognize(word), |text| Piece::Token(Reserved::from_text(text).map_or(Kind::Name, Kind::Reserved))),
        value(Piece::Token(Kind::Number), recognize(number)),
        quoted,
        foreign,
        symbol,
    ))
    .parse(text)
}

fn word(text: &str) -> IResult<&str, ()> {
    let first = satisfy(|c| c.is_ascii_alphabetic() || c == '_');
    value((), pair(first, take_while(|c: char| c.is_ascii_alphanumeric() || c == '_'))).parse(text)
}

/// Digits, a fraction, an exponent, and whatever letters and further dots touch them: [`number_parts`] judges those.
fn number(text: &str) -> IResult<&str, ()> {
    let fraction = pair(char('.'), digit1);
    let exponent = (one_of("eE"), opt(one_of("+-")), digit1);
    let tail = take_while(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let more =
        many0_count((char('.'), satisfy(|c| c.is_ascii_digit()), take_while(|c: char| c.is_ascii_alphanumeric())));
    let digits = pair(digit1, take_while(|c: char| c.is_ascii_digit() || c == '_'));
    let dot = opt(pair(char('.'), peek(nom::combinator::not(char('.')))));
    value((), (digits, opt(fraction), opt(exponent), tail, more, dot, opt(char('%')))).parse(text)
}

/// Text in double quotes on one line; a backslash takes the next character with it.
fn quoted(text: &str) -> IResult<&str, Piece> {
    let escaped = pair(char('\\'), satisfy(|c| c != '\n'));
    let plain = take_while1(|c| !matches!(c, '"' | '\\' | '\n'));
    let inside = many0_count(alt((value((), escaped), value((), plain))));
    let (rest, (_, _, close)) = (char('"'), inside, opt(char('"'))).parse(text)?;
    let piece = if close.is_some() { Piece::Token(Kind::Text) } else { Piece::Wrong(Wrong::OpenText) };
    Ok((rest, piece))
}

/// A sign that other languages have and this one has not.
struct Foreign {
    sign: &'static str,
    /// What it is read as, so that the parser can go on; `None` if as nothing.
    meant: Option<Kind>,
    /// The text to put in its place, if that is all there is to it.
    edit: Option<&'static str>,
    /// What to write here.
    help: &'static str,
}

const fn foreign_sign(
    sign: &'static str,
    meant: Option<Kind>,
    edit: Option<&'static str>,
    help: &'static str,
) -> Foreign {
    Foreign { sign, meant, edit, help }
}

const AND: Option<Kind> = Some(Kind::Reserved(Reserved::And));
const OR: Option<Kind> = Some(Kind::Reserved(Reserved::Or));
const NOT: Option<Kind> = Some(Kind::Reserved(Reserved::Not));
const POWER: Option<Kind> = Some(Kind::Symbol(Symbol::Caret));
const EQUAL: Option<Kind> = Some(Kind::Symbol(Symbol::Equal));
const TIMES: Option<Kind> = Some(Kind::Symbol(Symbol::Star));

/// The signs of other languages; where one begins another, the longer stands first.
const FOREIGN: &[Foreign] = &[
    foreign_sign("...", Some(Kind::Symbol(Symbol::DotDot)), Some(".."), "`..` for any number of leading dims"),
    foreign_sign("&&", AND, Some("and"), "`and`"),
    foreign_sign("&", AND, Some("and"), "`and`"),
    foreign_sign("||", OR, Some("or"), "`or`"),
    foreign_sign("!", NOT, Some("not "), "`not`"),
    foreign_sign("**", POWER, Some("^"), "`^` for powers"),
    foreign_sign(":=", EQUAL, Some("="), "`=`"),
    foreign_sign("+=", EQUAL, None, "the name on both sides: `x = x + ...`"),
    foreign_sign("-=", EQUAL, None, "the name on both sides: `x = x - ...`"),
    foreign_sign("*=", EQUAL, None, "the name on both sides: `x = x * ...`"),
    foreign_sign("/=", EQUAL, None, "the name on both sides: `x = x / ...`"),
    foreign_sign("/*", None, Some("//"), "`//` at the start of each line of a comment"),
    foreign_sign("#", None, Some("//"), "`//` before a comment"),
    foreign_sign("%", None, None, "`%` directly behind a number, as in `5%`"),
    foreign_sign("@", TIMES, None, "a matrix product with its indices: `sum[k](a[i, k] * b[k, j])`"),
];

fn foreign(text: &str) -> IResult<&str, Piece> {
    if text.starts_with('\'') {
        return value(Piece::Wrong(Wrong::Quote), single_quoted).parse(text);
    }
    let found = FOREIGN.iter().find(|foreign| text.starts_with(foreign.sign) && !text.starts_with("!="));
    let Some(foreign) = found else { return no_piece(text) };
    // What follows `#` or `/*` is prose: reading on inside it would only find more errors.
    let prose = foreign.edit == Some("//");
    let length = if prose { text.find('\n').unwrap_or(text.len()) } else { foreign.sign.len() };
    Ok((&text[length..], Piece::Wrong(Wrong::Foreign(foreign))))
}

fn no_piece(text: &str) -> IResult<&str, Piece> {
    Err(nom::Err::Error(nom::error::Error::new(text, nom::error::ErrorKind::Tag)))
}

fn single_quoted(text: &str) -> IResult<&str, ()> {
    value((), (char('\''), take_while(|c| !matches!(c, '\'' | '\n')), opt(char('\'')))).parse(text)
}

fn symbol(text: &str) -> IResult<&str, Piece> {
    for &symbol in Symbol::ALL {
        if let Some(rest) = text.strip_prefix(symbol.spelling()) {
            return Ok((rest, Piece::Token(Kind::Symbol(symbol))));
        }
    }
    no_piece(text)
}

/// The longest run of characters that no token starts with.
fn unreadable(text: &str) -> (&str, Piece) {
    let named = text.starts_with(char::is_alphabetic);
    let goes_on = |c: char| !c.is_ascii() || c.is_ascii_control() || (named && (c.is_ascii_alphanumeric() || c == '_'));
    let end = text.char_indices().skip(1).find(|(_, c)| *c == '\n' || !goes_on(*c));
    (&text[end.map_or(text.len(), |(i, _)| i)..], Piece::Wrong(Wrong::Character))
}

/// A number's text cut into digits (with suffix `k`, `M`, `G` applied to the value) and the unit that touches it.
pub(super) struct NumberParts<'a> {
    /// The value, suffix applied.
    pub value: f64,
    /// Digits and suffix as written.
    pub written: &'a str,
    /// `%`, `x`, `KB`, `MB`, `GB` or nothing.
    pub unit: &'a str,
}

/// Reads a number token; `None` if it is malformed or too large.
pub(super) fn number_parts(text: &str) -> Option<NumberParts<'_>> {
    let (tail, ()) = plain_number(text).ok()?;
    let (digits, _) = text.split_at(text.len() - tail.len());
    let (scale, unit) = match tail {
        "k" | "k%" => (1e3, &tail[1..]),
        "M" => (1e6, ""),
        "G" => (1e9, ""),
        "" | "%" | "x" | "KB" | "MB" | "GB" => (1.0, tail),
        _ => return None,
    };
    let value: f64 = digits.replace('_', "").parse().ok()?;
    let value = value * scale;
    value.is_finite().then(|| NumberParts { value, written: &text[..text.len() - unit.len()], unit })
}

fn plain_number(text: &str) -> IResult<&str, ()> {
    let digits = pair(digit1, take_while(|c: char| c.is_ascii_digit() || c == '_'));
    let exponent = (one_of("eE"), opt(one_of("+-")), digit1);
    value((), (digits, opt(pair(char('.'), digit1)), opt(exponent))).parse(text)
}

/// The text that a text token stands for; `None` at an escape that does not exist.
pub(super) fn unescape(token: &str) -> Option<String> {
    let mut inside = token[1..token.len() - 1].chars();
    let mut text = String::new();
    while let Some(c) = inside.next() {
        text.push(match c {
            '\\' => match inside.next()? {
                'n' => '\n',
                't' => '\t',
                c @ ('"' | '\\') => c,
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

fn bad_escape(span: Span, text: &str) -> Option<Diagnostic> {
    unescape(text).is_none().then(|| {
        Diagnostic::error("E0103", span, "this text has an escape that does not exist")
            .label("a backslash stands before `\"`, `\\`, `n` or `t` only")
            .help("write `\\\\` for a backslash")
    })
}

fn complain(wrong: Wrong, span: Span, text: &str) -> Diagnostic {
    match wrong {
        Wrong::Character => unknown_character(span, text),
        Wrong::OpenText => Diagnostic::error("E0102", span, "this text has no closing quote")
            .label("text ends with a `\"` on the same line")
            .replace(span, format!("{}\"", text.trim_end_matches([' ', ',', ')', '\r'])), "close the quote"),
        Wrong::Quote => Diagnostic::error("E0104", span, "text stands in double quotes")
            .label("single quotes have no meaning here")
            .replace(span, format!("\"{}\"", text.trim_matches('\'')), "use double quotes"),
        Wrong::Number => bad_number(span, text),
        Wrong::Foreign(foreign) => foreign_error(span, text, foreign),
    }
}

fn unknown_character(span: Span, text: &str) -> Diagnostic {
    let shown = text.chars().next().map_or(String::new(), |c| c.escape_debug().to_string());
    let error = Diagnostic::error("E0101", span, format!("`{shown}` is not part of the language"));
    match text.chars().next() {
        Some('“' | '”' | '„' | '‘' | '’') => {
            error.label("a typographic quote").help("use plain quotes: `\"`")
        }
        Some('−' | '–' | '—') => {
            error.label("a typographic dash").replace(span, "-", "use the minus sign of the keyboard")
        }
        Some('×' | '·' | '⋅') => {
            error.label("a typographic sign").replace(span, "*", "multiplication is written `*`")
        }
        Some('\u{a0}') => error.label("a space that does not break lines").replace(span, " ", "use a plain space"),
        Some(c) if c.is_alphabetic() => error
            .label("not an ASCII letter")
            .note("names are written with the letters a-z and A-Z, digits and `_`")
            .help("spell the name in ASCII letters: `beta` for β"),
        _ => error.label("nothing starts with this character").help("remove it, or put it in a comment or in quotes"),
    }
}

fn bad_number(span: Span, text: &str) -> Diagnostic {
    let error = Diagnostic::error("E0103", span, format!("`{text}` is not a number"));
    let tail = plain_number(text).map_or("", |(tail, ())| tail);
    let digits = &text[..text.len() - tail.len()];
    match tail {
        "" => error.label("larger than any number that can be represented").help("write a smaller number"),
        "K" | "m" | "g" | "b" | "B" => error
            .label(format!("`{tail}` is not a suffix"))
            .note("suffixes are `k` (10^3), `M` (10^6) and `G` (10^9)")
            .replace(span, format!("{digits}{}", suffix_meant(tail)), "the suffix is probably"),
        "." => error.label("a digit is missing behind the dot").replace(span, digits, "drop the dot"),
        _ if tail.starts_with('.') => error.label("a number has at most one dot").help("remove one of the dots"),
        _ if tail.starts_with(['e', 'E']) && tail.len() == 1 => {
            error.label("the exponent is missing").help(format!("write digits behind the `e`: `{digits}e-3`"))
        }
        _ => error
            .label(format!("`{tail}` cannot follow a number directly"))
            .note("a suffix is `k`, `M` or `G`; a unit that touches its number is `%`, `x`, `KB`, `MB` or `GB`")
            .help(format!("for a product write `{digits} * {tail}`; a name cannot begin with a digit")),
    }
}

fn suffix_meant(tail: &str) -> &'static str {
    match tail {
        "K" => "k",
        "m" => "M",
        _ => "G",
    }
}

fn foreign_error(span: Span, text: &str, foreign: &Foreign) -> Diagnostic {
    let sign = Span { end: span.start + foreign.sign.len() as u32, ..span };
    let error = Diagnostic::error("E0104", sign, format!("`{}` has no meaning here", foreign.sign))
        .label("a sign of other languages");
    let message = format!("write {}", foreign.help);
    match foreign.edit {
        None => error.help(message),
        Some("//") => error.replace(span, format!("// {}", text[foreign.sign.len()..].trim()), message),
        Some(edit) => error.replace(sign, edit, message),
    }
}
