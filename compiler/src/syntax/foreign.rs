//! Expressions as other languages have them, and how they are written here.

use super::stream::{Fault, Tokens};
use super::token::{Kind, Symbol};
use super::tree::{Argument, Name};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// The error for `linear(1)(x)`, given all arguments in the order in which one call takes them.
pub(super) fn called_again(
    input: Tokens<'_>,
    place: Span,
    callee: &Name,
    axes: &[Name],
    arguments: &[Argument],
) -> Diagnostic {
    let axes: Vec<&str> = axes.iter().map(|axis| axis.text.as_str()).collect();
    let axes = if axes.is_empty() { String::new() } else { format!("[{}]", axes.join(", ")) };
    let written = |argument: &Argument| {
        let value = input.text_of(argument.value.span);
        argument.name.as_ref().map_or_else(|| value.to_owned(), |name| format!("{} = {value}", name.text))
    };
    let arguments: Vec<String> = arguments.iter().map(written).collect();
    let call = format!("{}{axes}({})", callee.text, arguments.join(", "));
    Diagnostic::error("E0130", place, "the result of a call cannot be called")
        .label("called twice")
        .note("a layer is not made first and applied later: one call takes its input and its settings")
        .replace(place, call, "write one call, the input first")
}

/// The error for `a < b < c`.
pub(super) fn chained(first: Span, second: Span) -> Diagnostic {
    Diagnostic::error("E0119", second, "comparisons do not chain")
        .label("a second comparison of the same value")
        .also(first, "the first one")
        .help("join two comparisons with `and`: `a < b and b < c`")
}

/// The fault of an index behind `base`, or what to write instead if there is a range in it: `x[:, 0:8]`.
pub(super) fn range(bracket: Tokens<'_>, base: Span, fault: nom::Err<Fault>) -> nom::Err<Fault> {
    let Brackets { entries, colon: Some(colon), end } = brackets(bracket) else { return fault };
    let text = bracket.text_of(base);
    let error = Diagnostic::error("E0131", colon, "a range between brackets")
        .label("`:` has no meaning here")
        .note("between brackets stand letters, one for each axis, shifted letters, and single elements");
    let place = base.to(end);
    let error = if let Some(part) = part_of_last_axis(text, &entries) {
        error.replace(place, part, "`part` takes elements of the last axis: from where, and how many")
    } else if let Some(letters) = whole_axes(&entries) {
        error.replace(place, format!("{text}[{letters}]"), "a whole axis is a letter")
    } else {
        error.help(format!(
            "`part({text}, first, count)` takes elements of the last axis, where `->` can bring another one; a whole \
             axis is a letter"
        ))
    };
    nom::Err::Failure(Fault::Wrong(bracket.span().start, Some(Box::new(error))))
}

/// What stands between a pair of brackets.
struct Brackets<'a> {
    /// The texts between commas.
    entries: Vec<&'a str>,
    /// The first `:` that is in no inner bracket.
    colon: Option<Span>,
    /// The closing bracket.
    end: Span,
}

/// Reads the brackets that come next by their signs alone. They are balanced.
fn brackets(open: Tokens<'_>) -> Brackets<'_> {
    let (mut input, mut depth) = (open, 0);
    let (mut entries, mut colon, mut start) = (Vec::new(), None, None);
    loop {
        let place = input.span();
        let ends = match input.kind() {
            Kind::Symbol(symbol) if symbol.closer().is_some() => {
                depth += 1;
                false
            }
            Kind::Symbol(symbol) if symbol.closes() => {
                depth -= 1;
                depth == 0
            }
            kind => depth == 1 && kind == Kind::Symbol(Symbol::Comma),
        };
        if ends || input.kind() == Kind::End {
            let first: Span = start.take().unwrap_or(place);
            entries.push(open.text_of(Span { end: place.start, ..first }).trim());
        } else if place != open.span() {
            start = start.or(Some(place));
        }
        if depth == 1 && input.at(Symbol::Colon) {
            colon = colon.or(Some(place));
        }
        if depth == 0 || input.kind() == Kind::End {
            return Brackets { entries, colon, end: place };
        }
        input = input.advance();
    }
}

/// `part(x, 0, 8)` for `x[:, 0:8]`; `None` if other axes are cut.
fn part_of_last_axis(base: &str, entries: &[&str]) -> Option<String> {
    let (last, others) = entries.split_last()?;
    let (first, end) = last.split_once(':')?;
    let [first, end] = [first, end].map(str::trim);
    if !others.iter().all(|entry| matches!(*entry, ":" | ".." | "...")) || end.contains(':') {
        return None;
    }
    let first: u64 = if first.is_empty() { 0 } else { first.parse().ok()? };
    let count = end.parse::<u64>().ok()?.checked_sub(first)?;
    Some(format!("part({base}, {first}, {count})"))
}

/// `i, 0` for `:, 0`; `None` if something else than whole axes is asked for.
fn whole_axes(entries: &[&str]) -> Option<String> {
    const LETTERS: [&str; 6] = ["i", "j", "k", "m", "n", "p"];
    let mut letters = LETTERS.iter().filter(|letter| !entries.contains(letter));
    let written = entries.iter().map(|entry| match *entry {
        ":" => letters.next().copied(),
        entry => (!entry.contains(':')).then_some(entry),
    });
    written.collect::<Option<Vec<&str>>>().map(|entries| entries.join(", "))
}
