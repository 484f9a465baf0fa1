//! Items: what stands at the top of a file.

use super::clause::block;
use super::expression::{enclosed, expression, plain_expression};
use super::lex::unescape;
use super::statement::{body, dims, end_of_statement, foreign_word, roles, tensor_type};
use super::stream::{Read, Tokens, comma_list, expect, expect_name, found, name, other, symbol, to_brace, wrong_at};
use super::token::{Kind, Symbol};
use super::tree::{
    ClauseBlock, Const, Definition, DefinitionKind, Expr, ExprKind, File, Item, Parameter, Statement, Use,
};
use crate::diagnostic::{Diagnostic, did_you_mean};
use nom::Parser;
use nom::combinator::{map, opt};
use nom::multi::separated_list1;
use nom::sequence::preceded;

/// All items of a file. An item that cannot be read is reported and left out.
pub(super) fn file(mut input: Tokens<'_>) -> File {
    let mut items = Vec::new();
    loop {
        input = input.skip_newlines();
        if input.kind() == Kind::End {
            return File { items };
        }
        if input.at(Symbol::CloseBrace) {
            // What it closed was part of an item that could not be read, so that error is reported already.
            input = input.advance();
            continue;
        }
        input = match item(input) {
            Ok((after, item)) => {
                items.push(item);
                end_of_statement(after)
            }
            Err(fault) => input.recover(fault),
        };
    }
}

const ITEMS: [&str; 10] =
    ["use", "const", "model", "layer", "function", "optimizer", "filter", "schedule", "data", "train"];

fn item(input: Tokens<'_>) -> Read<'_, Item> {
    match input.word_at(0) {
        Some("use") => map(import, Item::Use).parse(input),
        Some("const") => map(constant, Item::Const).parse(input),
        Some("model") => definition(input, DefinitionKind::Model),
        Some("layer") => definition(input, DefinitionKind::Layer),
        Some("function") => definition(input, DefinitionKind::Function),
        Some("optimizer") => definition(input, DefinitionKind::Optimizer),
        Some("filter") => definition(input, DefinitionKind::Filter),
        Some("schedule") => definition(input, DefinitionKind::Schedule),
        Some("data") => map(data, Item::Data).parse(input),
        Some("train") => map(train, Item::Train).parse(input),
        _ => Err(wrong_at(input, not_an_item(input))),
    }
}

fn not_an_item(input: Tokens<'_>) -> Diagnostic {
    let word = input.word_at(0).unwrap_or("");
    let help = match word {
        "import" | "from" | "include" | "require" => Some("write `use std` or `use \"path/to/file.train\"`"),
        "return" | "for" | "while" | "print" => {
            Some("statements stand in the body of a definition: `function name(...) { ... }`")
        }
        "let" | "var" | "val" | "auto" | "static" => Some("write `const name = value`"),
        "def" | "fn" | "func" | "class" | "struct" => {
            Some("write `layer name(...)`, with parameters of its own, or `function name(...)`, without")
        }
        _ => None,
    };
    if let Some(help) = help {
        return foreign_word(input, word, help);
    }
    let error = Diagnostic::error("E0109", input.span(), format!("{} does not begin an item", found(input)))
        .label("expected an item of the file")
        .note(format!("items begin with {}", listed(&ITEMS)));
    match did_you_mean(word, ITEMS) {
        Some(item) => error.replace(input.span(), item, format!("did you mean `{item}`?")),
        None if input.kind_at(1) == Kind::Symbol(Symbol::Equal) => {
            let before = crate::source::Span { end: input.span().start, ..input.span() };
            error.replace(before, "const ", "a value for the whole file is a constant")
        }
        None => error,
    }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    let (last, first) = quoted.split_last().expect("lists of words are not empty");
    format!("{} or {last}", first.join(", "))
}

/// `use std` or `use "path"`.
fn import(input: Tokens<'_>) -> Read<'_, Use> {
    let start = input.span();
    let input = input.advance();
    let (after, path) = match input.kind() {
        Kind::Text => (input.advance(), unescape(input.slice_here()).unwrap_or_default()),
        Kind::Name => {
            let (after, parts) = separated_list1(symbol(Symbol::Dot), expect_name("a module")).parse(input)?;
            (after, parts.into_iter().map(|part| part.text).collect::<Vec<_>>().join("."))
        }
        _ => {
            let error = Diagnostic::error("E0111", input.span(), "`use` needs the name of what is used")
                .label(format!("expected `std` or a path in quotes, found {}", found(input)))
                .help("write `use std` or `use \"path/to/file.train\"`");
            return Err(wrong_at(input, error));
        }
    };
    Ok((after, Use { path, span: after.since(start) }))
}

/// `const name = value`.
fn constant(input: Tokens<'_>) -> Read<'_, Const> {
    let (input, name) = expect_name("the name of a constant").parse(input.advance())?;
    let no_value = |input: Tokens<'_>| {
        Diagnostic::error("E0113", input.span(), format!("the constant `{}` has no value", name.text))
            .label(format!("expected `=`, found {}", found(input)))
            .help(format!("write `const {} = value`", name.text))
    };
    let (input, _) = expect(Symbol::Equal, no_value).parse(input)?;
    let (input, value) = plain_expression(input.next_line())?;
    Ok((input, Const { name, value }))
}

/// `layer name[axes](parameters) -> [dims] role r { body }` or `= value`.
fn definition(input: Tokens<'_>, kind: DefinitionKind) -> Read<'_, Item> {
    let start = input.span();
    let word = input.slice_here();
    let (input, name) = expect_name("the name of what is defined").parse(input.advance())?;
    let (input, axes) = axes(input)?;
    let (input, parameters) = parameters(input, word, &name.text)?;
    let (input, result) = opt(preceded(symbol(Symbol::RightArrow), dims)).parse(input)?;
    let (input, roles) = roles(input)?;
    let input = to_brace(input);
    let short = input.at(Symbol::Equal);
    let (input, body) = match input.kind() {
        Kind::Symbol(Symbol::OpenBrace) if kind == DefinitionKind::Filter => map(body, last_update).parse(input)?,
        Kind::Symbol(Symbol::OpenBrace) => body(input)?,
        Kind::Symbol(Symbol::Equal) => {
            map(expression, |value| vec![Statement::Result(value)]).parse(input.advance().next_line())?
        }
        _ => return Err(wrong_at(input, no_body(input, word, &name.text))),
    };
    let span = input.since(start);
    Ok((input, Item::Definition(Definition { kind, name, axes, parameters, result, roles, body, short, span })))
}

/// The body of a filter, whose last line is no result: the word `update` alone is the statement there too.
fn last_update(mut body: Vec<Statement>) -> Vec<Statement> {
    if let Some(Statement::Result(Expr { kind: ExprKind::Name(name), span })) = body.last()
        && name == "update"
    {
        let update = Statement::Optimize(*span);
        body.pop();
        body.push(update);
    }
    body
}

fn no_body(input: Tokens<'_>, kind: &str, name: &str) -> Diagnostic {
    Diagnostic::error("E0112", input.span(), format!("the {kind} `{name}` has no body"))
        .label(format!("expected `{{` or `=`, found {}", found(input)))
        .help(format!(
            "write `{kind} {name}(...) {{ ... }}`, the `{{` on the same line, or `{kind} {name}(...) = value`"
        ))
}

/// `[s, t]` behind the name, or nothing.
fn axes(input: Tokens<'_>) -> Read<'_, Vec<super::tree::Name>> {
    if !input.at(Symbol::OpenBracket) {
        return Ok((input, Vec::new()));
    }
    enclosed(input, Symbol::OpenBracket, |input| comma_list(name).parse(input))
}

fn parameters<'a>(input: Tokens<'a>, kind: &str, name: &str) -> Read<'a, Vec<Parameter>> {
    if input.at(Symbol::OpenParen) {
        return enclosed(input, Symbol::OpenParen, |input| comma_list(parameter).parse(input));
    }
    let error = Diagnostic::error("E0112", input.span(), format!("the {kind} `{name}` has no list of parameters"))
        .label(format!("expected `(`, found {}", found(input)))
        .help(format!("write `{kind} {name}(parameters)`, or `{kind} {name}()` if there are none"));
    match input.kind() {
        Kind::Newline | Kind::Symbol(Symbol::OpenBrace | Symbol::Equal | Symbol::RightArrow) => {
            input.report(error);
            Ok((input, Vec::new()))
        }
        _ => Err(wrong_at(input, error)),
    }
}

/// `x: [b, t]`, `heads`, `eps = 1e-8`.
fn parameter(input: Tokens<'_>) -> Read<'_, Parameter> {
    if input.at(Symbol::CloseParen) {
        return other();
    }
    let (input, name) = expect_name("the name of a parameter").parse(input)?;
    let (input, tensor) = opt(preceded(symbol(Symbol::Colon), tensor_type)).parse(input)?;
    let (input, default) = opt(preceded(symbol(Symbol::Equal), expression)).parse(input)?;
    Ok((input, Parameter { name, tensor, default }))
}

/// `data Name { clauses }`.
fn data(input: Tokens<'_>) -> Read<'_, ClauseBlock> {
    let start = input.span();
    let (input, name) = expect_name("the name of the data").parse(input.advance())?;
    let (input, clauses) = clauses(input, "data")?;
    Ok((input, ClauseBlock { name: Some(name), clauses, span: input.since(start) }))
}

/// `train { clauses }`.
fn train(input: Tokens<'_>) -> Read<'_, ClauseBlock> {
    let start = input.span();
    let (input, name) = opt(name).parse(input.advance())?;
    let (input, clauses) = clauses(input, "train")?;
    Ok((input, ClauseBlock { name, clauses, span: input.since(start) }))
}

fn clauses<'a>(input: Tokens<'a>, kind: &'static str) -> Read<'a, Vec<super::tree::Clause>> {
    let input = to_brace(input);
    if input.at(Symbol::OpenBrace) {
        return block(input, kind);
    }
    let error = Diagnostic::error("E0112", input.span(), format!("this `{kind}` has no clauses"))
        .label(format!("expected `{{`, found {}", found(input)))
        .help("write the clauses between `{` and `}`, the `{` on the same line");
    Err(wrong_at(input, error))
}
