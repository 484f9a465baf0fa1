//! Statements of models, layers, functions, optimizers and filters, and the shapes in them.

use super::expression::{enclosed, expression, index_entry, plain_expression};
use super::stream::{
    Fault, Read, Tokens, comma_list, expect, expect_name, found, keyword, name, other, symbol, to_brace, wrong_at,
};
use super::token::{Kind, Reserved, Symbol};
use super::tree::{BinaryOp, Dim, Expr, ExprKind, IndexEntry, Name, Statement, TensorType, UnaryOp};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use nom::Parser;
use nom::branch::alt;
use nom::combinator::{map, opt};
use nom::multi::separated_list1;
use nom::sequence::{pair, preceded};

/// `{ statements }`. A statement that cannot be read is reported and left out.
pub(super) fn body(input: Tokens<'_>) -> Read<'_, Vec<Statement>> {
    let mut inside = input.deeper()?.advance().skip_newlines();
    let mut body = Vec::new();
    while !inside.at(Symbol::CloseBrace) && inside.kind() != Kind::End {
        inside = match statement(inside) {
            Ok((after, mut found)) if after.at_end_of_line() => {
                body.append(&mut found);
                after
            }
            Ok((after, _)) => end_of_statement(after),
            Err(fault) => inside.recover(fault),
        };
        inside = inside.skip_newlines();
    }
    body.windows(2).filter_map(|pair| lost_value(&pair[0], &pair[1])).for_each(|error| input.report(error));
    Ok((inside.advance().back_to(input), body))
}

/// Nothing may follow a statement on its line.
pub(super) fn end_of_statement(input: Tokens<'_>) -> Tokens<'_> {
    match input.at_end_of_line() {
        true => input,
        false => input.recover(wrong_at(input, unexpected(input))),
    }
}

fn unexpected(input: Tokens<'_>) -> Diagnostic {
    let error = Diagnostic::error("E0108", input.span(), format!("{} does not belong here", found(input)))
        .label("the statement could end before this");
    match input.kind() {
        Kind::Symbol(Symbol::Equal) => error.help("only names stand left of `=`; if a new statement begins here, the line above must not end with an operator"),
        Kind::Symbol(Symbol::Colon) => {
            error.help("a shape is declared with `input name: [dims]` or `param name: [dims] ~ ...`")
        }
        Kind::Symbol(Symbol::OpenBrace) => error.help("a block stands behind `repeat` and behind a definition only"),
        Kind::Name | Kind::Number | Kind::Text | Kind::Reserved(Reserved::Param | Reserved::Repeat) => {
            error.help("put it on a line of its own, or write the operator that is missing between the two values")
        }
        _ => error,
    }
}

fn lost_value(statement: &Statement, next: &Statement) -> Option<Diagnostic> {
    let Statement::Result(value) = statement else { return None };
    let error = Diagnostic::error("E0114", value.span, "this value is lost")
        .label("nothing uses it")
        .note("a value without a name is the result of a body, so only the last line may be one");
    let negative = |expr: &Expr| matches!(expr.kind, ExprKind::Unary(UnaryOp::Neg, _));
    let next_line_is_negative = matches!(next, Statement::Result(below) if negative(leftmost(below)));
    match &value.kind {
        ExprKind::Missing => None,
        ExprKind::Binary(BinaryOp::Less, _, right) if negative(leftmost(right)) => {
            Some(error.help("for an update, write `<-` without a space between `<` and `-`"))
        }
        _ if next_line_is_negative => {
            Some(error.help("the next line begins with `-`, which begins a new value: end this line with the `-`"))
        }
        _ => Some(error.help("give it a name, `name = ...`, or remove it")),
    }
}

/// The operand that an expression begins with.
fn leftmost(mut expr: &Expr) -> &Expr {
    while let ExprKind::Binary(_, left, _) = &expr.kind {
        expr = left;
    }
    expr
}

/// One line, which may declare several inputs or states.
fn statement(input: Tokens<'_>) -> Read<'_, Vec<Statement>> {
    let declares = input.kind_at(1) == Kind::Name;
    match (input.kind(), input.word_at(0)) {
        (Kind::Reserved(Reserved::Param), _) => map(param, |it| vec![it]).parse(input),
        (Kind::Reserved(Reserved::Repeat), _) => map(repeat, |it| vec![it]).parse(input),
        (_, Some("input")) if declares => preceded(keyword("input"), comma_list1(input_item)).parse(input),
        (_, Some("state")) if declares => preceded(keyword("state"), comma_list1(state_item)).parse(input),
        (_, Some("output")) if declares => map(output, |it| vec![it]).parse(input),
        (_, Some("sample")) if before_value(input) => map(sample, |it| vec![it]).parse(input),
        (_, Some("require")) if before_value(input) => map(require, |it| vec![it]).parse(input),
        (_, Some("update")) if alone(input) => Ok((input.advance(), vec![Statement::Optimize(input.span())])),
        (_, Some(word)) => match misplaced(input, word) {
            Some(error) => Err(wrong_at(input, error)),
            None => map(named_or_result, |it| vec![it]).parse(input),
        },
        (Kind::Symbol(sign), _) if begins_no_line(sign) => Err(wrong_at(input, begins_with_operator(input))),
        _ => map(named_or_result, |it| vec![it]).parse(input),
    }
}

/// Whether a word and a value behind it can only be a statement: not `word(...)`, `word[...]` or `word - ...`.
fn before_value(input: Tokens<'_>) -> bool {
    let bracket = input.kind_at(1) == Kind::Symbol(Symbol::OpenParen) && !input.advance().touches();
    let reserved = matches!(input.kind_at(1), Kind::Reserved(Reserved::Not | Reserved::If));
    bracket || reserved || matches!(input.kind_at(1), Kind::Name | Kind::Number)
}

/// Whether a word is a line of its own with more lines behind it, where a value would be lost: so that the word is free
/// as a name.
fn alone(input: Tokens<'_>) -> bool {
    let after = input.advance();
    after.kind() == Kind::Newline
        && !matches!(after.skip_newlines().kind(), Kind::Symbol(Symbol::CloseBrace) | Kind::End)
}

fn comma_list1<'a>(
    item: impl Parser<Tokens<'a>, Output = Statement, Error = Fault>,
) -> impl Parser<Tokens<'a>, Output = Vec<Statement>, Error = Fault> {
    separated_list1(super::stream::comma, item)
}

fn begins_no_line(sign: Symbol) -> bool {
    sign.continues_line() && !matches!(sign, Symbol::Minus | Symbol::OpenParen | Symbol::OpenBracket | Symbol::Dot)
}

fn begins_with_operator(input: Tokens<'_>) -> Diagnostic {
    Diagnostic::error("E0108", input.span(), format!("a line cannot begin with {}", found(input)))
        .label("the statement of the line above has ended")
        .help("end the line above with the operator, or put the whole expression in parentheses")
}

/// Words that begin a statement in other languages, or an item in this one.
fn misplaced(input: Tokens<'_>, word: &str) -> Option<Diagnostic> {
    let followed = matches!(input.kind_at(1), Kind::Name | Kind::Number | Kind::Text);
    let help = match word {
        _ if !followed => return None,
        "return" => "a body has no `return`: the expression on its last line is its result",
        "let" | "var" | "val" | "auto" | "mut" => "write `name = value`",
        "for" | "while" | "loop" => "write `repeat count { ... }`",
        "def" | "fn" | "func" | "class" | "struct" => {
            "write `layer name(...)` or `function name(...)` outside of this body"
        }
        "model" | "layer" | "function" | "optimizer" | "filter" | "schedule" | "data" | "train" | "use" | "const" => {
            let error = Diagnostic::error("E0123", input.span(), format!("`{word}` stands inside a body"))
                .label("definitions stand at the top of a file")
                .help("move it out of this body; if the body should have ended, a `}` is missing above");
            return Some(error);
        }
        _ => return None,
    };
    Some(foreign_word(input, word, help))
}

/// The error for a word that other languages have.
pub(super) fn foreign_word(input: Tokens<'_>, word: &str, help: &str) -> Diagnostic {
    Diagnostic::error("E0104", input.span(), format!("`{word}` has no meaning here"))
        .label("a word of other languages")
        .help(help)
}

/// `names = value`, `name <- value`, `name[k] <- value`, or a value.
fn named_or_result(input: Tokens<'_>) -> Read<'_, Statement> {
    if input.kind() == Kind::Name {
        match input.kind_at(1) {
            Kind::Symbol(Symbol::Equal | Symbol::Comma) => return assign(input),
            Kind::Symbol(Symbol::LeftArrow) => return update(input),
            _ => {}
        }
    }
    let (after, value) = expression(input)?;
    match after.kind() {
        Kind::Symbol(Symbol::LeftArrow) if element(&value).is_some() => {
            let (target, position) = element(&value).expect("just seen");
            let (after, value) = expression(after.advance().next_line())?;
            Ok((after, Statement::Update { target, position: Some(position), value }))
        }
        Kind::Symbol(sign @ (Symbol::Equal | Symbol::LeftArrow)) => Err(wrong_at(after, bad_target(value.span, sign))),
        _ => Ok((after, Statement::Result(value))),
    }
}

/// The name and the position of `name[k]`.
fn element(value: &Expr) -> Option<(Name, Expr)> {
    let ExprKind::Index { base, entries } = &value.kind else { return None };
    match (&base.kind, &entries[..]) {
        (ExprKind::Name(name), [IndexEntry::Position(position)]) => {
            Some((Name { text: name.clone(), span: base.span }, position.clone()))
        }
        _ => None,
    }
}

fn bad_target(target: Span, sign: Symbol) -> Diagnostic {
    let sign = sign.spelling();
    Diagnostic::error("E0120", target, format!("only a name can stand left of `{sign}`"))
        .label("not a name")
        .note("values are not changed in place: a statement names a new value")
        .help(format!("write `name {sign} ...`"))
}

fn assign(input: Tokens<'_>) -> Read<'_, Statement> {
    let (input, targets) =
        separated_list1(symbol(Symbol::Comma), expect_name("the next name to assign")).parse(input)?;
    let no_equal = |input: Tokens<'_>| {
        Diagnostic::error("E0108", input.span(), format!("{} does not belong here", found(input)))
            .label("expected `,` or `=`")
            .help("several names are assigned with `a, b = value`; a result of several values is a tuple: `(a, b)`")
    };
    let (input, _) = expect(Symbol::Equal, no_equal).parse(input)?;
    let (input, value) = expression(input.next_line())?;
    Ok((input, Statement::Assign { targets, value }))
}

fn update(input: Tokens<'_>) -> Read<'_, Statement> {
    let (input, target) = name(input)?;
    let (input, value) = expression(input.advance().next_line())?;
    Ok((input, Statement::Update { target, position: None, value }))
}

fn output(input: Tokens<'_>) -> Read<'_, Statement> {
    let (input, name) = preceded(keyword("output"), name).parse(input)?;
    let (input, _) = expect(Symbol::Equal, |input| no_value(input, "output")).parse(input)?;
    let (input, value) = expression(input.next_line())?;
    Ok((input, Statement::Output { name, value }))
}

fn no_value(input: Tokens<'_>, what: &str) -> Diagnostic {
    Diagnostic::error("E0113", input.span(), format!("this {what} has no value"))
        .label(format!("expected `=`, found {}", found(input)))
        .help(format!("write `{what} name = value`"))
}

fn input_item(input: Tokens<'_>) -> Read<'_, Statement> {
    let (input, name) = expect_name("the name of an input").parse(input)?;
    let no_type = |input: Tokens<'_>| {
        Diagnostic::error("E0113", input.span(), "this input has no shape")
            .label(format!("expected `:`, found {}", found(input)))
            .help(format!(
                "write its dims: `input {}: [batch, features]`, or `int[batch]` for whole numbers",
                name.text
            ))
    };
    let (input, _) = expect(Symbol::Colon, no_type).parse(input)?;
    let (input, tensor) = tensor_type(input.skip_newlines())?;
    Ok((input, Statement::Input { name, tensor }))
}

/// `m = 0`, `rows: [m] = 0`, `s[n] = 0`.
fn state_item(input: Tokens<'_>) -> Read<'_, Statement> {
    let (input, name) = expect_name("the name of a state").parse(input)?;
    let (input, count) = match input.at(Symbol::OpenBracket) {
        true => map(|input| enclosed(input, Symbol::OpenBracket, plain_expression), Some).parse(input)?,
        false => (input, None),
    };
    let (input, dims) = opt(preceded(symbol(Symbol::Colon), dims)).parse(input)?;
    let (input, _) = expect(Symbol::Equal, |input| no_value(input, "state")).parse(input)?;
    let (input, init) = expression(input.next_line())?;
    Ok((input, Statement::State { name, count, dims, init }))
}

/// `sample c * gradient(p + d)`.
fn sample(input: Tokens<'_>) -> Read<'_, Statement> {
    let start = input.span();
    let (input, value) = expression(input.advance())?;
    Ok((input, Statement::Sample { value, span: input.since(start) }))
}

/// `require condition, "message"`.
fn require(input: Tokens<'_>) -> Read<'_, Statement> {
    let start = input.span();
    let (input, condition) = plain_expression(input.advance())?;
    let no_message = |input: Tokens<'_>| {
        Diagnostic::error("E0113", input.span(), "this requirement has no message")
            .label(format!("expected `,` and a text, found {}", found(input)))
            .help("say what is wrong if it does not hold: `require x > 0, \"x must be positive\"`")
    };
    let (input, _) = expect(Symbol::Comma, no_message).parse(input)?;
    let input = input.next_line();
    if input.kind() != Kind::Text {
        return Err(wrong_at(input, no_message(input)));
    }
    let (input, message) = plain_expression(input)?;
    Ok((input, Statement::Require { condition, message, span: input.since(start) }))
}

/// `param name: [outputs | inputs] ~ distribution role r`.
fn param(input: Tokens<'_>) -> Read<'_, Statement> {
    let start = input.span();
    let (input, name) = expect_name("the name of a parameter").parse(input.advance())?;
    let no_shape = |input: Tokens<'_>| {
        Diagnostic::error("E0113", input.span(), format!("the parameter `{}` has no shape", name.text))
            .label(format!("expected `:`, found {}", found(input)))
            .help(format!("write its dims: `param {}: [d] ~ normal(0.02)`", name.text))
    };
    let (input, _) = expect(Symbol::Colon, no_shape).parse(input)?;
    let (input, (dims, split)) = split_dims(input.skip_newlines())?;
    let (input, init) = initial_value(input, &name)?;
    let (input, roles) = roles(input)?;
    let span = input.since(start);
    Ok((input, Statement::Param { name, dims, split, init, roles, span }))
}

fn initial_value<'a>(input: Tokens<'a>, name: &Name) -> Read<'a, Expr> {
    let Ok((after, _)) = alt((symbol(Symbol::Tilde), symbol(Symbol::Equal))).parse(input) else {
        let error =
            Diagnostic::error("E0113", input.span(), format!("the parameter `{}` has no initial value", name.text))
                .label(format!("expected `~` or `=`, found {}", found(input)))
                .help("write how it begins: `~ normal(0.02)`, or `= 0` for a constant");
        return Err(wrong_at(input, error));
    };
    plain_expression(after.next_line())
}

/// `role a, b`, or nothing.
pub(super) fn roles(input: Tokens<'_>) -> Read<'_, Vec<Name>> {
    let list = preceded(keyword("role"), separated_list1(symbol(Symbol::Comma), expect_name("the name of a role")));
    map(opt(list), Option::unwrap_or_default).parse(input)
}

/// `repeat count as name { ... }`.
fn repeat(input: Tokens<'_>) -> Read<'_, Statement> {
    let start = input.span();
    let (input, count) = plain_expression(input.advance())?;
    let (input, name) = opt(preceded(keyword("as"), expect_name("the name of the block"))).parse(input)?;
    let input = to_brace(input);
    if !input.at(Symbol::OpenBrace) {
        let error = Diagnostic::error("E0112", input.span(), "this `repeat` has no body")
            .label(format!("expected `{{`, found {}", found(input)))
            .help("write `repeat count { ... }`, the `{` on the same line");
        return Err(wrong_at(input, error));
    }
    let (input, body) = body(input)?;
    Ok((input, Statement::Repeat { count, name, body, span: input.since(start) }))
}

/// `[dims]` or `int[dims]`.
pub(super) fn tensor_type(input: Tokens<'_>) -> Read<'_, TensorType> {
    let start = input.span();
    let kind_and_dims = pair(map(opt(keyword("int")), |int| int.is_some()), dims);
    map(kind_and_dims, |(integer, dims)| (integer, dims))
        .parse(input)
        .map(|(after, (integer, dims))| (after, TensorType { integer, dims, span: after.since(start) }))
}

/// `[b, t, d]`.
pub(super) fn dims(input: Tokens<'_>) -> Read<'_, Vec<Dim>> {
    expect_dims(input)?;
    enclosed(input, Symbol::OpenBracket, |input| comma_list(dim).parse(input))
}

/// `[outputs | inputs]`, and how many stand before the bar.
fn split_dims(input: Tokens<'_>) -> Read<'_, (Vec<Dim>, Option<usize>)> {
    expect_dims(input)?;
    enclosed(input, Symbol::OpenBracket, |input| {
        let (input, mut dims) = comma_list(dim).parse(input)?;
        let (input, inputs) = opt(preceded(symbol(Symbol::Bar), comma_list(dim))).parse(input)?;
        let split = inputs.as_ref().map(|_| dims.len());
        dims.extend(inputs.unwrap_or_default());
        Ok((input, (dims, split)))
    })
}

fn expect_dims(input: Tokens<'_>) -> Result<(), nom::Err<Fault>> {
    if input.at(Symbol::OpenBracket) {
        return Ok(());
    }
    let error = Diagnostic::error("E0117", input.span(), "a shape is missing")
        .label(format!("expected `[`, found {}", found(input)));
    let bracket = input.kind_at(1) == Kind::Symbol(Symbol::OpenBracket);
    let error =
        match input.word_at(0) {
            Some(kind) if bracket => error
                .note("numbers have no kind but `int`: precision is chosen in `train`")
                .replace(input.span(), "", format!("write the dims without `{kind}`")),
            Some(dim) if dim != "int" => error.replace(input.span(), format!("[{dim}]"), "dims stand in brackets"),
            _ => error.help("write the dims in brackets: `[batch, width]`; `[]` is a single number"),
        };
    Err(wrong_at(input, error))
}

fn dim(input: Tokens<'_>) -> Read<'_, Dim> {
    if input.at(Symbol::Bar) {
        return other();
    }
    map(index_entry, |(entry, _)| match entry {
        IndexEntry::Rest(span) => Dim::Rest(span),
        IndexEntry::Position(size) => Dim::Size(size),
    })
    .parse(input)
}
