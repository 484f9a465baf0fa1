//! Expressions, loosest first: `->`, `if`, `or`, `and`, `not`, comparisons, `+ -`, `* /`, unary `-`, `^`, calls and indices.

use super::foreign;
use super::lex::{number_parts, unescape};
use super::limits::{self, MAX_EXPRESSION_HEIGHT};
use super::stream::{
    Fault, Read, Tokens, comma_list, expect, expect_name, found, name, other, reserved, symbol, token, wrong_at,
};
use super::token::{Kind, Reserved, Symbol};
use super::tree::{Argument, BinaryOp, Expr, ExprKind, IndexEntry, Name, Number, UnaryOp, Unit};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::source::Span;
use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt};
use nom::sequence::delimited;

/// An expression and the height of its tree, which is limited because every pass over trees recurses.
struct Node {
    expr: Expr,
    height: u32,
}

impl Node {
    fn leaf(kind: ExprKind, span: Span) -> Self {
        Node { expr: Expr { kind, span }, height: 1 }
    }
}

/// A whole expression, `-> [axes]` included; a missing one is an error.
pub(super) fn expression(input: Tokens<'_>) -> Read<'_, Expr> {
    map(arranged, |node| node.expr).parse(input)
}

/// An expression without `->`, as between the words of a clause.
pub(super) fn plain_expression(input: Tokens<'_>) -> Read<'_, Expr> {
    map(choice, |node| node.expr).parse(input)
}

fn node<'a>(input: Tokens<'a>, start: Span, kind: ExprKind, parts: u32) -> Read<'a, Node> {
    let span = input.since(start);
    let height = parts + 1;
    match height <= MAX_EXPRESSION_HEIGHT {
        true => Ok((input, Node { expr: Expr { kind, span }, height })),
        false => Err(nom::Err::Failure(Fault::Wrong(input.span().start, Some(Box::new(limits::too_long(span)))))),
    }
}

fn arranged(input: Tokens<'_>) -> Read<'_, Node> {
    let start = input.span();
    let (mut input, mut value) = choice(input)?;
    while let (after, Some(_)) = opt(symbol(Symbol::RightArrow)).parse(input)? {
        let after = if after.skip_newlines().at(Symbol::OpenBracket) { after.skip_newlines() } else { after };
        if !after.at(Symbol::OpenBracket) {
            let error = Diagnostic::error("E0117", after.span(), "`->` needs the order of the indices")
                .label(format!("expected `[`, found {}", found(after)))
                .help("write the indices in brackets: `value -> [b, t, d]`");
            return Err(wrong_at(after, error));
        }
        let (after, (axes, height)) = index_entries(after)?;
        let kind = ExprKind::Arrange { value: Box::new(value.expr), axes };
        (input, value) = node(after, start, kind, value.height.max(height))?;
    }
    Ok((input, value))
}

/// `if c then a else b`, or an expression without it.
fn choice(input: Tokens<'_>) -> Read<'_, Node> {
    if input.kind() != Kind::Reserved(Reserved::If) {
        return operation(input, 0);
    }
    let start = input.span();
    let inside = input.deeper()?.advance();
    let (inside, condition) = choice(inside)?;
    let (inside, _) = branch(Reserved::Then, "then", start).parse(inside)?;
    let (inside, then) = choice(inside)?;
    let (inside, _) = branch(Reserved::Else, "else", start).parse(inside)?;
    let (inside, otherwise) = choice(inside)?;
    let height = condition.height.max(then.height).max(otherwise.height);
    let [condition, then, otherwise] = [condition, then, otherwise].map(|part| Box::new(part.expr));
    node(inside.back_to(input), start, ExprKind::If { condition, then, otherwise }, height)
}

/// `then` or `else`, on this line or at the start of a later one.
fn branch<'a>(
    word: Reserved,
    spelling: &'static str,
    start: Span,
) -> impl Parser<Tokens<'a>, Output = (), Error = Fault> {
    move |input: Tokens<'a>| match reserved(word).parse(input.skip_newlines()) {
        Ok((after, _)) => Ok((after.next_line(), ())),
        Err(_) => Err(wrong_at(
            input,
            Diagnostic::error("E0121", input.span(), format!("this `if` has no `{spelling}`"))
                .label(format!("expected `{spelling}`, found {}", found(input)))
                .also(start, "the `if` begins here")
                .note("an `if` is an expression and always has both values")
                .help("write `if condition then value else other`"),
        )),
    }
}

/// Binary operators with their strength; stronger ones bind tighter.
const OPERATORS: &[(Kind, BinaryOp, u8)] = &[
    (Kind::Reserved(Reserved::Or), BinaryOp::Or, 1),
    (Kind::Reserved(Reserved::And), BinaryOp::And, 2),
    (Kind::Symbol(Symbol::Less), BinaryOp::Less, COMPARISON),
    (Kind::Symbol(Symbol::LessEqual), BinaryOp::LessEqual, COMPARISON),
    (Kind::Symbol(Symbol::Greater), BinaryOp::Greater, COMPARISON),
    (Kind::Symbol(Symbol::GreaterEqual), BinaryOp::GreaterEqual, COMPARISON),
    (Kind::Symbol(Symbol::EqualEqual), BinaryOp::Equal, COMPARISON),
    (Kind::Symbol(Symbol::NotEqual), BinaryOp::NotEqual, COMPARISON),
    (Kind::Symbol(Symbol::Plus), BinaryOp::Add, 5),
    (Kind::Symbol(Symbol::Minus), BinaryOp::Sub, 5),
    (Kind::Symbol(Symbol::Star), BinaryOp::Mul, 6),
    (Kind::Symbol(Symbol::Slash), BinaryOp::Div, 6),
    (Kind::Symbol(Symbol::Caret), BinaryOp::Pow, POWER),
];

/// `not` binds tighter than `and` and looser than comparisons.
const NOT: u8 = 3;
const COMPARISON: u8 = 4;
/// Unary minus binds tighter than `*` and looser than `^`.
const MINUS: u8 = 7;
const POWER: u8 = 8;

fn operator(input: Tokens<'_>) -> Option<(BinaryOp, u8)> {
    let found = OPERATORS.iter().find(|(kind, ..)| *kind == input.kind())?;
    Some((found.1, found.2))
}

/// Operands joined by operators of at least this strength.
fn operation(input: Tokens<'_>, strength: u8) -> Read<'_, Node> {
    let start = input.span();
    let (mut input, mut left) = operand(input, strength)?;
    let mut compared = None;
    while let Some((op, of)) = operator(input).filter(|(_, of)| *of >= strength) {
        let place = input.span();
        if of == COMPARISON
            && let Some(first) = compared.replace(place)
        {
            return Err(wrong_at(input, foreign::chained(first, place)));
        }
        let after = input.advance().next_line();
        let (after, right) = match of {
            POWER => power(after)?,
            _ => operation(after, of + 1)?,
        };
        let height = left.height.max(right.height);
        let kind = ExprKind::Binary(op, Box::new(left.expr), Box::new(right.expr));
        (input, left) = node(after, start, kind, height)?;
    }
    Ok((input, left))
}

/// The exponent: `^` goes to the right, and `2^-1` needs no brackets.
fn power(input: Tokens<'_>) -> Read<'_, Node> {
    let (after, exponent) = operation(input.deeper()?, MINUS)?;
    Ok((after.back_to(input), exponent))
}

fn operand(input: Tokens<'_>, strength: u8) -> Read<'_, Node> {
    let (op, of) = match input.kind() {
        Kind::Symbol(Symbol::Minus) => (UnaryOp::Neg, MINUS),
        Kind::Reserved(Reserved::Not) if strength <= NOT => (UnaryOp::Not, NOT),
        _ => return postfix(input),
    };
    let (after, value) = operation(input.deeper()?.advance(), of)?;
    let height = value.height;
    node(after.back_to(input), input.span(), ExprKind::Unary(op, Box::new(value.expr)), height)
}

/// A value and the calls and indices behind it.
fn postfix(input: Tokens<'_>) -> Read<'_, Node> {
    let start = input.span();
    let (mut input, mut value) = primary(input)?;
    loop {
        (input, value) = match &value.expr.kind {
            ExprKind::Name(_) if input.at(Symbol::OpenParen) && input.belongs() => call(input, value, Vec::new())?,
            ExprKind::Call { .. } if input.at(Symbol::OpenParen) && input.touches() => called_again(input, value)?,
            _ if input.at(Symbol::OpenBracket) && input.belongs() => {
                let entries = index_entries(input).map_err(|fault| foreign::range(input, value.expr.span, fault));
                let (after, (entries, height)) = entries?;
                if after.at(Symbol::OpenParen) && after.belongs() && matches!(value.expr.kind, ExprKind::Name(_)) {
                    call(after, value, entries)?
                } else {
                    let height = height.max(value.height);
                    node(after, start, ExprKind::Index { base: Box::new(value.expr), entries }, height)?
                }
            }
            _ => return Ok((input, value)),
        };
    }
}

/// The arguments behind a name and, perhaps, its axes.
fn call<'a>(input: Tokens<'a>, callee: Node, axes: Vec<IndexEntry>) -> Read<'a, Node> {
    let start = callee.expr.span;
    let ExprKind::Name(text) = callee.expr.kind else { return other() };
    let axes = axes.into_iter().map(axis_name).collect::<Result<Vec<_>, _>>();
    let axes = axes.map_err(|error| wrong_at(input, *error))?;
    let (after, arguments) = parenthesized(input, |input| comma_list(argument).parse(input))?;
    if let Some((after_named, named)) = positional_after_named(&arguments) {
        return Err(wrong_at(input, late_positional(after_named, named)));
    }
    let height = arguments.iter().map(|(_, height)| *height).max().unwrap_or(0);
    let arguments = arguments.into_iter().map(|(argument, _)| argument).collect();
    let kind = ExprKind::Call { callee: Name { text, span: start }, axes, arguments };
    node(after, start, kind, height)
}

/// `linear(1)(x)`: reported, and read as `linear(x, 1)`.
fn called_again(input: Tokens<'_>, made: Node) -> Read<'_, Node> {
    let start = made.expr.span;
    let ExprKind::Call { callee, axes, arguments: settings } = made.expr.kind else { return other() };
    let (after, given) = parenthesized(input, |input| comma_list(argument).parse(input))?;
    let height = given.iter().map(|(_, height)| *height).max().unwrap_or(0).max(made.height);
    let mut arguments: Vec<Argument> = given.into_iter().map(|(argument, _)| argument).chain(settings).collect();
    arguments.sort_by_key(|argument| argument.name.is_some()); // those without names come first
    input.report(foreign::called_again(after, after.since(start), &callee, &axes, &arguments));
    node(after, start, ExprKind::Call { callee, axes, arguments }, height)
}

fn axis_name(entry: IndexEntry) -> Result<Name, Box<Diagnostic>> {
    match entry {
        IndexEntry::Position(Expr { kind: ExprKind::Name(text), span }) => Ok(Name { text, span }),
        IndexEntry::Position(Expr { span, .. }) | IndexEntry::Rest(span) => Err(Box::new(
            Diagnostic::error("E0117", span, "the axes of a call are names")
                .label("only the name of an index can stand here")
                .help("write the names of the axes that the call works on: `sum[h, e](...)`, `softmax[s](...)`"),
        )),
    }
}

fn positional_after_named(arguments: &[(Argument, u32)]) -> Option<(Span, Span)> {
    arguments.windows(2).find_map(|pair| match (&pair[0].0.name, &pair[1].0.name) {
        (Some(named), None) => Some((pair[1].0.value.span, named.span)),
        _ => None,
    })
}

fn late_positional(positional: Span, named: Span) -> Diagnostic {
    Diagnostic::error("E0122", positional, "this argument needs a name")
        .label("it stands behind an argument with a name")
        .also(named, "the argument with a name")
        .help("put arguments without names first, or write `name = value` here too")
}

/// `name = value` or `value`.
fn argument(input: Tokens<'_>) -> Read<'_, (Argument, u32)> {
    if at_closer(input) {
        return other();
    }
    let named = matches!(input.kind(), Kind::Name) && input.kind_at(1) == Kind::Symbol(Symbol::Equal);
    let (input, name) = match named {
        true => map(name, Some).parse(input).map(|(input, name)| (input.advance().next_line(), name))?,
        false => (input, None),
    };
    let (input, Node { expr: value, height }) = arranged(input)?;
    Ok((input, (Argument { name, value }, height)))
}

fn at_closer(input: Tokens<'_>) -> bool {
    matches!(input.kind(), Kind::Symbol(symbol) if symbol.closes())
}

/// `( inside )` at the next token, one level deeper.
fn parenthesized<'a, T>(input: Tokens<'a>, inside: impl FnMut(Tokens<'a>) -> Read<'a, T>) -> Read<'a, T> {
    enclosed(input, Symbol::OpenParen, inside)
}

/// What stands between a bracket and its partner, one level deeper.
pub(super) fn enclosed<'a, T>(
    input: Tokens<'a>,
    open: Symbol,
    inside: impl FnMut(Tokens<'a>) -> Read<'a, T>,
) -> Read<'a, T> {
    let close = open.closer().expect("enclosed is called with brackets that open");
    let unexpected = |input| unexpected_inside(input, close);
    let deeper = input.deeper()?.as_expression();
    let (after, value) = delimited(symbol(open), inside, expect(close, unexpected)).parse(deeper)?;
    Ok((after.back_to(input), value))
}

fn unexpected_inside(input: Tokens<'_>, close: Symbol) -> Diagnostic {
    let found = found(input);
    let error = Diagnostic::error("E0108", input.span(), format!("{found} does not belong here"))
        .label(format!("expected `,` or `{}`", close.spelling()));
    match input.kind() {
        Kind::Symbol(Symbol::Equal) => error.help("compare with `==`; `name = value` begins an argument"),
        Kind::Symbol(Symbol::Colon) => error.help("an argument is named with `=`: `name = value`"),
        Kind::Name | Kind::Number | Kind::Text | Kind::Symbol(Symbol::OpenParen | Symbol::OpenBracket) => {
            error.replace(input.behind(), ",", "perhaps a comma is missing")
        }
        _ => error,
    }
}

/// `[entries]`: indices, axes or dims, with the height of the highest.
fn index_entries(input: Tokens<'_>) -> Read<'_, (Vec<IndexEntry>, u32)> {
    let (input, entries) = enclosed(input, Symbol::OpenBracket, |input| comma_list(index_entry).parse(input))?;
    let height = entries.iter().map(|(_, height)| *height).max().unwrap_or(0);
    Ok((input, (entries.into_iter().map(|(entry, _)| entry).collect(), height)))
}

/// `..` or a position; nothing before a closing bracket.
pub(super) fn index_entry(input: Tokens<'_>) -> Read<'_, (IndexEntry, u32)> {
    if at_closer(input) {
        return other();
    }
    let position = |input| map(choice, |node| (IndexEntry::Position(node.expr), node.height)).parse(input);
    alt((map(symbol(Symbol::DotDot), |span| (IndexEntry::Rest(span), 1)), position)).parse(input)
}

fn primary(input: Tokens<'_>) -> Read<'_, Node> {
    let span = input.span();
    match input.kind() {
        Kind::Number => number(input),
        Kind::Name => dotted_name(input),
        Kind::Text => {
            let text = unescape(input.slice_here()).unwrap_or_default();
            Ok((input.advance(), Node::leaf(ExprKind::Text(text), span)))
        }
        Kind::Bad => map(token(Kind::Bad), |span| Node::leaf(ExprKind::Missing, span)).parse(input),
        Kind::Symbol(Symbol::OpenParen) => group(input),
        Kind::Symbol(Symbol::OpenBracket) => list(input),
        _ => Err(wrong_at(input, missing(input))),
    }
}

fn missing(input: Tokens<'_>) -> Diagnostic {
    let error = Diagnostic::error("E0107", input.span(), "an expression is missing")
        .label(format!("expected a value, found {}", found(input)));
    match input.kind() {
        Kind::Reserved(Reserved::If) => error.help("put the `if` in parentheses: `1 + (if c then a else b)`"),
        Kind::Reserved(Reserved::Not) => error.help("put the `not` in parentheses: `(not c)`"),
        Kind::Symbol(Symbol::Dot) => error.help("a number begins with a digit: `0.5`"),
        Kind::Symbol(Symbol::Plus) => error.help("a number has no `+` before it"),
        Kind::Symbol(Symbol::OpenBrace) => error.help("lists stand in `[ ]`; `{ }` is for blocks only"),
        _ => error,
    }
}

/// `a` or `a.b.c`, dots without spaces.
fn dotted_name(input: Tokens<'_>) -> Read<'_, Node> {
    let start = input.span();
    let mut text = input.slice_here().to_owned();
    let mut input = input.advance();
    while input.at(Symbol::Dot) && input.touches() {
        let (after, part) = expect_name("the part of the name behind the dot").parse(input.advance())?;
        text = text + "." + &part.text;
        input = after;
    }
    Ok((input, Node::leaf(ExprKind::Name(text), input.since(start))))
}

/// `(a)` or `(a, b)`.
fn group(input: Tokens<'_>) -> Read<'_, Node> {
    let start = input.span();
    let (after, (mut parts, height)) = elements(input, Symbol::OpenParen)?;
    let kind = match parts.len() {
        0 => {
            let empty = Diagnostic::error("E0107", after.since(start), "an expression is missing")
                .label("there is nothing between the parentheses")
                .help("write a value between them; only a call may have no arguments");
            return Err(nom::Err::Failure(Fault::Wrong(start.start, Some(Box::new(empty)))));
        }
        1 => ExprKind::Group(Box::new(parts.remove(0))),
        _ => ExprKind::Tuple(parts),
    };
    node(after, start, kind, height)
}

/// `[a, b]`.
fn list(input: Tokens<'_>) -> Read<'_, Node> {
    let (after, (parts, height)) = elements(input, Symbol::OpenBracket)?;
    node(after, input.span(), ExprKind::List(parts), height)
}

fn elements(input: Tokens<'_>, open: Symbol) -> Read<'_, (Vec<Expr>, u32)> {
    let element = |input| if at_closer(input) { other() } else { arranged(input) };
    let (input, nodes) = enclosed(input, open, |input| comma_list(element).parse(input))?;
    let height = nodes.iter().map(|node| node.height).max().unwrap_or(0);
    Ok((input, (nodes.into_iter().map(|node| node.expr).collect(), height)))
}

/// Words that are units behind a number, with the factor that they put into its value.
const UNITS: [(&str, Unit, f64); 11] = [
    ("step", Unit::Steps, 1.0),
    ("steps", Unit::Steps, 1.0),
    ("token", Unit::Tokens, 1.0),
    ("tokens", Unit::Tokens, 1.0),
    ("sample", Unit::Samples, 1.0),
    ("samples", Unit::Samples, 1.0),
    ("epoch", Unit::Epochs, 1.0),
    ("epochs", Unit::Epochs, 1.0),
    ("KB", Unit::Bytes, 1e3),
    ("MB", Unit::Bytes, 1e6),
    ("GB", Unit::Bytes, 1e9),
];

fn number(input: Tokens<'_>) -> Read<'_, Node> {
    let start = input.span();
    let parts = number_parts(input.slice_here()).expect("the lexer lets only readable numbers through");
    let after = input.advance();
    let (after, unit, factor) = match parts.unit {
        "%" => (after, Unit::Percent, 1.0),
        "x" => (after, Unit::Times, 1.0),
        "" => separate_unit(after)?,
        bytes => UNITS.iter().find(|unit| unit.0 == bytes).map_or((after, Unit::None, 1.0), |u| (after, u.1, u.2)),
    };
    let number = Number { value: parts.value * factor, written: parts.written.to_owned(), unit };
    Ok((after, Node::leaf(ExprKind::Number(number), after.since(start))))
}

/// The unit in the next word. Among the words of a clause a unit that is also a keyword of the block is that keyword if a
/// number or text follows: `seed 1 steps 2000` are two clauses, `every 200 steps keep 3` has a unit.
fn separate_unit(input: Tokens<'_>) -> Result<(Tokens<'_>, Unit, f64), nom::Err<Fault>> {
    let without = Ok((input, Unit::None, 1.0));
    let Some(word) = input.word_at(0) else { return without };
    let followed = matches!(input.kind_at(1), Kind::Number | Kind::Text);
    let assigned = input.kind_at(1) == Kind::Symbol(Symbol::Equal);
    match UNITS.iter().find(|(unit, ..)| *unit == word) {
        Some((_, unit, _)) if assigned || (followed && is_also_keyword(input, *unit)) => without,
        Some((_, unit, factor)) => Ok((input.advance(), *unit, *factor)),
        None if input.expects_operator() => Err(wrong_at(input, unknown_unit(input, word))),
        None => without,
    }
}

/// Whether some spelling of a unit is a keyword of the block; singular and plural must not read differently.
fn is_also_keyword(input: Tokens<'_>, unit: Unit) -> bool {
    UNITS.iter().any(|(spelling, of, _)| *of == unit && input.is_keyword(spelling))
}

fn unknown_unit(input: Tokens<'_>, word: &str) -> Diagnostic {
    let error = Diagnostic::error("E0118", input.span(), format!("`{word}` is not a unit"))
        .label("a name cannot follow a number")
        .note("units are `%`, `x`, `steps`, `tokens`, `samples`, `epochs`, `KB`, `MB` and `GB`");
    match did_you_mean(word, UNITS.iter().map(|unit| unit.0)) {
        Some(unit) => error.replace(input.span(), unit, format!("did you mean `{unit}`?")),
        None => error.replace(input.span(), format!("* {word}"), "for a product write `*`"),
    }
}
