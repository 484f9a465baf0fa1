//! Reading the clauses of `train` and `data` blocks.

use super::{
    evaluator::{Checked, Evaluator},
    suggest::{closest, listed},
    value::{Number, Value, unit_suffix},
};
use crate::{
    clauses::{self, Block, Clause as Entry, Kind},
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Clause, ClauseBlock, Expr, ExprKind, Unit, Word},
};

impl Evaluator<'_> {
    /// Complains about clauses that the block does not have, about ones that stand twice, and about braces that nobody reads.
    pub(super) fn known_clauses(&mut self, block: &ClauseBlock, known: &'static Block) {
        for (i, clause) in block.clauses.iter().enumerate() {
            let word = clause.keyword.text.as_str();
            let earlier = block.clauses[..i].iter().find(|earlier| earlier.keyword.text == word);
            match (known.clause(word), earlier) {
                (None, _) => self.report(unknown_clause(clause, known)),
                (Some(Entry { kind: Kind::ToCome, .. }), _) => self.report(not_yet(clause)),
                (Some(Entry { repeats: false, .. }), Some(earlier)) => self.report(twice(clause, earlier, known.word)),
                (Some(Entry { has_block: false, .. }), _) if clause.block.is_some() => self.report(braces(clause)),
                _ => {}
            }
        }
    }

    /// The only value behind a keyword: `steps 2000`.
    pub(super) fn single<'c>(&mut self, clause: &'c Clause) -> Checked<&'c Expr> {
        match &clause.words[..] {
            [Word::Value(expr)] => Ok(expr),
            [Word::Value(_), Word::Value(Expr { kind: ExprKind::Name(_), .. }), ..] => {
                self.no_more(clause, 1)?;
                self.malformed(clause, "expected one value behind it")
            }
            _ => self.malformed(clause, "expected one value behind it"),
        }
    }

    /// Refuses what stands in a clause behind the words that mean something.
    pub(super) fn no_more(&mut self, clause: &Clause, understood: usize) -> Checked<()> {
        let Some(stray) = clause.words.get(understood) else { return Ok(()) };
        let keyword = &clause.keyword.text;
        let span = span_of(stray).unwrap_or(clause.span);
        let Some(word) = name_of(stray) else {
            let error = Diagnostic::error("E0703", span, format!("this does not belong to the clause `{keyword}`"));
            return self.fail(error.label("nobody reads it").help("remove it"));
        };
        let message = format!("`{word}` does not belong to the clause `{keyword}`");
        let error = Diagnostic::error("E0703", span, message).label("it means nothing here");
        self.fail(match closest(word, clauses::TRAIN.words()) {
            Some(other) => error.replace(span, other, format!("did you mean the clause `{other}`?")),
            None => error.help("remove it"),
        })
    }

    /// The values behind words, in the order of these: `every 200 batches 20`. Each word may be missing; others, and ones that
    /// stand twice, are errors.
    pub(super) fn options<'c, const N: usize>(
        &mut self,
        clause: &'c Clause,
        begin: usize,
        known: [&str; N],
    ) -> Checked<[Option<&'c Expr>; N]> {
        let mut values = [None; N];
        for (position, pair) in (begin..).step_by(2).zip(clause.words[begin..].chunks(2)) {
            let slot = known.iter().position(|known| word_of(&pair[0]) == Some(known));
            match (slot, pair) {
                (Some(slot), [_, Word::Value(value)]) if values[slot].is_none() => values[slot] = Some(value),
                (Some(slot), [_]) => {
                    return self.malformed(clause, &format!("expected a value behind `{}`", known[slot]));
                }
                (_, [Word::Value(_) | Word::Setting(..), ..]) if name_of(&pair[0]).is_some() => {
                    self.no_more(clause, position)?
                }
                _ => {
                    let words = known.map(|word| format!("`{word}`")).join(" or ");
                    return self.malformed(clause, &format!("expected {words} and a value"));
                }
            }
        }
        Ok(values)
    }

    /// The error for a clause whose words are not what they should be.
    pub(super) fn malformed<T>(&mut self, clause: &Clause, expected: &str) -> Checked<T> {
        let keyword = &clause.keyword.text;
        if let [Word::Mark('=', sign), rest @ ..] = &clause.words[..] {
            return self.assigned(clause, *sign, rest);
        }
        let error = Diagnostic::error("E0703", clause.span, format!("this `{keyword}` clause cannot be understood"))
            .label(expected.to_string());
        let error = match clauses::example(keyword) {
            Some(example) => error.help(format!("write for example `{example}`")),
            None => error,
        };
        self.fail(error)
    }

    /// The error for `loss = ...`.
    fn assigned<T>(&mut self, clause: &Clause, sign: Span, rest: &[Word]) -> Checked<T> {
        let keyword = &clause.keyword.text;
        let end = match rest {
            [Word::Value(expr), ..] => expr.span.start,
            _ => sign.end,
        };
        let error = Diagnostic::error("E0336", sign, format!("the clause `{keyword}` has no `=`"))
            .label("only settings in the braces of a group, and arguments, are written with `=`")
            .replace(Span { end, ..sign }, "", "write the value behind the keyword");
        self.fail(error)
    }

    /// A number behind a keyword, in one of some units.
    pub(super) fn quantity(&mut self, expr: &Expr, what: &str, units: &[Unit]) -> Checked<Number> {
        let number = self.known_number(expr, what)?;
        if units.contains(&number.unit) {
            return Ok(number);
        }
        let named: Vec<&str> = units
            .iter()
            .map(|unit| match unit {
                Unit::None => "a bare number",
                Unit::Bytes => "KB, MB or GB",
                Unit::Percent => "%",
                other => unit_suffix(*other).trim(),
            })
            .collect();
        let error = Diagnostic::error("E0406", expr.span, format!("{what} has the wrong unit"))
            .label(format!("found {}", number.shown()))
            .help(format!("give it as {}", named.join(" or ")));
        self.fail(error)
    }

    /// A whole number in a range.
    pub(super) fn count(&mut self, expr: &Expr, what: &str, range: std::ops::RangeInclusive<f64>) -> Checked<u64> {
        let number = self.quantity(expr, what, &[Unit::None, Unit::Steps])?;
        self.whole_in(number.value, expr.span, what, range)
    }

    /// Checks that a number is whole and in a range.
    pub(super) fn whole_in(
        &mut self,
        value: f64,
        span: Span,
        what: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Checked<u64> {
        if value.fract() == 0.0 && range.contains(&value) {
            return Ok(value as u64);
        }
        let wanted = if value.fract() != 0.0 {
            "a whole number".to_string()
        } else if value < *range.start() {
            format!("at least {}", range.start())
        } else {
            format!("at most {}", range.end())
        };
        let error = Diagnostic::error("E0704", span, format!("{what} must be {wanted}"));
        self.fail(error.label(format!("this is {value}")).help("correct the number"))
    }

    /// Text behind a keyword.
    pub(super) fn text_value(&mut self, expr: &Expr) -> Checked<String> {
        match self.expression(expr)? {
            Value::Text(text) => Ok(text.to_string()),
            other => {
                let found = other.describe();
                let error = Diagnostic::error("E0705", expr.span, "expected text in double quotes");
                self.fail(error.label(format!("found {found}")))
            }
        }
    }

    /// `yes` or `no`.
    pub(super) fn truth_value(&mut self, expr: &Expr, what: &str) -> Checked<bool> {
        Ok(self.known_number(expr, what)?.value != 0.0)
    }
}

/// The bare word at a place: `every`, `f32`, `bytes`.
pub(super) fn word_of(word: &Word) -> Option<&str> {
    match word {
        Word::Value(Expr { kind: ExprKind::Name(name), .. }) => Some(name),
        _ => None,
    }
}

/// The expressions of a comma-separated list; `None` if something else stands there.
pub(super) fn list_of(words: &[Word]) -> Option<Vec<&Expr>> {
    let mut items = Vec::new();
    for (i, word) in words.iter().enumerate() {
        match word {
            Word::Value(expr) if i % 2 == 0 => items.push(expr),
            Word::Mark(',', _) if i % 2 == 1 => {}
            _ => return None,
        }
    }
    (words.len() % 2 == 1).then_some(items)
}

/// The name that a word is, or that it gives a value to.
fn name_of(word: &Word) -> Option<&str> {
    match word {
        Word::Setting(name, _) => Some(&name.text),
        word => word_of(word),
    }
}

/// Where a word stands.
pub(super) fn span_of(word: &Word) -> Option<Span> {
    match word {
        Word::Value(expr) => Some(expr.span),
        Word::Setting(name, value) => Some(name.span.to(value.span)),
        Word::Mark(_, span) => Some(*span),
    }
}

/// The error for a clause that stands twice in a block.
pub(super) fn twice(clause: &Clause, earlier: &Clause, block: &str) -> Diagnostic {
    let word = &clause.keyword.text;
    Diagnostic::error("E0702", clause.keyword.span, format!("`{word}` stands twice in `{block}`"))
        .also(earlier.keyword.span, "first here")
        .help("remove one of the two")
}

fn braces(clause: &Clause) -> Diagnostic {
    let word = &clause.keyword.text;
    Diagnostic::error("E0651", clause.span, format!("the clause `{word}` has no braces"))
        .label("nobody reads what stands in them")
        .help(format!("write for example `{}`", clauses::example(word).unwrap_or(word)))
}

fn not_yet(clause: &Clause) -> Diagnostic {
    let word = &clause.keyword.text;
    Diagnostic::error(
        "E0790",
        clause.keyword.span,
        format!("`{word}` is not implemented in this version of the compiler"),
    )
    .label("a training method of the language")
    .note("the program is refused rather than trained without it")
    .help("remove the clause to train without the method")
}

fn unknown_clause(clause: &Clause, known: &Block) -> Diagnostic {
    let word = &clause.keyword.text;
    let error = Diagnostic::error("E0701", clause.keyword.span, format!("`{}` has no clause `{word}`", known.word));
    match closest(word, known.words()) {
        Some(other) => error.label("unknown").replace(clause.keyword.span, other, format!("did you mean `{other}`?")),
        None => error.label("unknown").note(format!("it has {}", listed(known.words()))),
    }
}
