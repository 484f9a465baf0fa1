//! Clauses of `data` and `train` blocks.
//!
//! A clause begins at the start of a line, or within a line at a keyword of the block: `steps 2000  batch 16` are two. Within
//! a line a keyword does not begin a clause where it can only be a word: behind `,`, `|`, `:` and `->`, before `=` and
//! before a `(` that touches it. In a clause that is itself a setting (`rate = 0.5x`) the next `name =` begins a clause.

use super::expression::plain_expression;
use super::stream::{Read, Tokens, comma, found, name, wrong_at};
use super::token::{Kind, Symbol};
use super::tree::{Clause, Word};
use crate::clauses::Block;
use crate::diagnostic::Diagnostic;
use nom::Parser;

/// `{ clauses }`. A clause that cannot be read is reported and left out.
pub(super) fn block<'a>(input: Tokens<'a>, opener: &str) -> Read<'a, Vec<Clause>> {
    let mut inside = input.deeper()?.as_words(Block::opened_by(opener)).advance().skip_newlines();
    let mut clauses = Vec::new();
    while !inside.at(Symbol::CloseBrace) && inside.kind() != Kind::End {
        inside = match clause(inside) {
            Ok((after, clause)) => {
                clauses.push(clause);
                after
            }
            Err(fault) => inside.recover(fault),
        };
        inside = inside.skip_newlines();
    }
    Ok((inside.advance().back_to(input), clauses))
}

fn clause(input: Tokens<'_>) -> Read<'_, Clause> {
    let start = input.span();
    let Ok((mut input, keyword)) = name(input) else { return Err(wrong_at(input, no_keyword(input))) };
    let setting = input.at(Symbol::Equal);
    let mut words = Vec::new();
    while !ends_clause(input, setting) && !begins_clause(input, setting, words.last()) {
        let (after, word) = if setting && words.is_empty() { assignment(input) } else { word(input) }?;
        input = if matches!(word, Word::Mark(sign, _) if sign != ':') { after.next_line() } else { after };
        words.push(word);
    }
    if let (true, Ok((next, ()))) = (setting, comma(input)) {
        input = next; // `rate = 2, decay = 0` on one line are two settings
    }
    let mut inside = None;
    if input.at(Symbol::OpenBrace) {
        let (after, clauses) = block(input, &keyword.text)?;
        (input, inside) = (after, Some(clauses));
    }
    Ok((input, Clause { keyword, words, block: inside, span: input.since(start) }))
}

fn no_keyword(input: Tokens<'_>) -> Diagnostic {
    let error = Diagnostic::error("E0115", input.span(), format!("{} does not begin a clause", found(input)))
        .label("a clause begins with its keyword");
    match (input.kind(), input.word_at(1)) {
        (Kind::Number | Kind::Text, Some(word)) => {
            let turned = format!("{word} {}", input.slice_here());
            error.replace(input.span().to(input.advance().span()), turned, "write the keyword first")
        }
        _ => error.help("write the keyword first, as in `steps 2000` or `weight_decay = 0.1`"),
    }
}

/// Whether a clause has no further words here: at the end of the line, at its block, or at a comma between two settings.
fn ends_clause(input: Tokens<'_>, setting: bool) -> bool {
    let between_settings = setting
        && input.at(Symbol::Comma)
        && input.kind_at(1) == Kind::Name
        && input.kind_at(2) == Kind::Symbol(Symbol::Equal);
    input.at_end_of_line() || input.at(Symbol::OpenBrace) || between_settings
}

fn begins_clause(input: Tokens<'_>, setting: bool, before: Option<&Word>) -> bool {
    let Some(word) = input.word_at(0) else { return false };
    let behind_mark = matches!(before, Some(Word::Mark(..)));
    match input.kind_at(1) {
        Kind::Symbol(Symbol::Equal) => setting && !behind_mark,
        _ => input.is_keyword(word) && !behind_mark && !calls(input),
    }
}

/// Whether the next two tokens are a name and a `(` that touches it.
fn calls(input: Tokens<'_>) -> bool {
    input.kind_at(1) == Kind::Symbol(Symbol::OpenParen) && input.advance().touches()
}

/// The `=` of a clause that is a setting.
fn assignment(input: Tokens<'_>) -> Read<'_, Word> {
    Ok((input.advance(), Word::Mark('=', input.span())))
}

/// Signs between words, with the character that stands for them in the tree.
const MARKS: [(Symbol, char); 4] =
    [(Symbol::Comma, ','), (Symbol::RightArrow, '>'), (Symbol::Bar, '|'), (Symbol::Colon, ':')];

fn word(input: Tokens<'_>) -> Read<'_, Word> {
    if let Some((_, mark)) = MARKS.iter().find(|(symbol, _)| input.at(*symbol)) {
        return Ok((input.advance(), Word::Mark(*mark, input.span())));
    }
    if input.kind_at(1) == Kind::Symbol(Symbol::Equal) && input.kind() == Kind::Name {
        let (after, name) = name(input)?;
        let (after, value) = plain_expression(after.advance().next_line())?;
        return Ok((after, Word::Setting(name, value)));
    }
    nom::combinator::map(plain_expression, Word::Value).parse(input)
}
