//! Reading the clauses of `train` and `data` blocks.

use super::{
    evaluator::{Checked, Evaluator},
    suggest::{closest, listed},
    value::{Number, Value, unit_suffix},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Clause, ClauseBlock, Expr, ExprKind, Unit, Word},
};

/// Training methods that the language reserves words for and this compiler does not implement yet.
const METHODS: [&str; 6] = ["sparsify", "grow", "rates", "select", "unlearn", "finetune"];

impl Evaluator<'_> {
    /// Complains about clauses that the block does not have, and about ones that stand twice.
    pub(super) fn known_clauses(&mut self, block: &ClauseBlock, what: &str, known: &[&str], repeated: &[&str]) {
        for (i, clause) in block.clauses.iter().enumerate() {
            let word = clause.keyword.text.as_str();
            let earlier = block.clauses[..i].iter().find(|earlier| earlier.keyword.text == word);
            if METHODS.contains(&word) && what == "train" {
                self.report(not_yet(clause));
            } else if !known.contains(&word) {
                self.report(unknown_clause(clause, what, known));
            } else if let (Some(earlier), false) = (earlier, repeated.contains(&word)) {
                self.report(
                    Diagnostic::error("E0702", clause.keyword.span, format!("`{word}` stands twice in `{what}`"))
                        .also(earlier.keyword.span, "first here")
                        .help("remove one of the two"),
                );
            }
        }
    }

    /// The only value behind a keyword: `steps 2000`.
    pub(super) fn single<'c>(&mut self, clause: &'c Clause) -> Checked<&'c Expr> {
        match &clause.words[..] {
            [Word::Value(expr)] => Ok(expr),
            [Word::Value(_), Word::Value(Expr { kind: ExprKind::Name(word), span }), ..] => {
                let keyword = &clause.keyword.text;
                let message = format!("`{word}` does not belong to the clause `{keyword}`");
                let error = Diagnostic::error("E0703", *span, message).label("one value has been given before");
                self.fail(match closest(word, super::train::CLAUSES) {
                    Some(other) => error.replace(*span, other, format!("did you mean the clause `{other}`?")),
                    None => error.help("remove it"),
                })
            }
            _ => self.malformed(clause, "expected one value behind it"),
        }
    }

    /// The error for a clause whose words are not what they should be.
    pub(super) fn malformed<T>(&mut self, clause: &Clause, expected: &str) -> Checked<T> {
        let keyword = &clause.keyword.text;
        if let [Word::Mark('=', sign), rest @ ..] = &clause.words[..] {
            return self.assigned(clause, *sign, rest);
        }
        let error = Diagnostic::error("E0703", clause.span, format!("this `{keyword}` clause cannot be understood"))
            .label(expected.to_string());
        let error = match example(keyword) {
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

/// The value behind a word: `every 200` in `evaluate every 200 batches 20`.
pub(super) fn after<'w>(words: &'w [Word], name: &str) -> Option<&'w Expr> {
    let position = words.iter().position(|word| word_of(word) == Some(name))?;
    match words.get(position + 1) {
        Some(Word::Value(expr)) => Some(expr),
        _ => None,
    }
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

fn unknown_clause(clause: &Clause, what: &str, known: &[&str]) -> Diagnostic {
    let word = &clause.keyword.text;
    let error = Diagnostic::error("E0701", clause.keyword.span, format!("`{what}` has no clause `{word}`"));
    match closest(word, known.iter().copied()) {
        Some(other) => error.label("unknown").replace(clause.keyword.span, other, format!("did you mean `{other}`?")),
        None => error.label("unknown").note(format!("it has {}", listed(known.iter().copied()))),
    }
}

/// A good example of a clause.
fn example(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "model" => "model Gpt(vocab = 256, depth = 6)",
        "data" => "data Code",
        "loss" => "loss cross_entropy(logits, next(tokens))",
        "metric" => "metric accuracy(logits, next(tokens))",
        "optimizer" => "optimizer adamw(weight_decay = 0.1)",
        "filter" => "filter lowpass(a = [-0.9], b = [0.1])",
        "schedule" => "schedule wsd(peak = 6e-4, warmup = 2%, decay = 10%)",
        "steps" => "steps 2000",
        "batch" => "batch 16",
        "precision" => "precision bf16",
        "seed" => "seed 1",
        "evaluate" => "evaluate every 200 batches 20",
        "checkpoint" => "checkpoint every 500 keep 3",
        "clip" => "clip 1.0",
        "memory" => "memory 500 MB",
        "keep" => "keep 3",
        "freeze" => "freeze embeddings, \"block.attention.*\"",
        "group" => "group norms, biases { weight_decay = 0 }",
        "text" => "text \"src/**/*.rs\"",
        "jsonl" => "jsonl \"data/*.jsonl\" member \"text\"",
        "tokens" => "tokens \"train.bin\" width 2",
        "csv" => "csv \"digits.csv\" header yes",
        "arrays" => "arrays \"digits.npz\"",
        "field" => "field x = columns(0, 64, scale = 1 / 16)",
        "tokenizer" => "tokenizer bytes",
        "split" => "split valid = 5%",
        "shuffle" => "shuffle no",
        _ => return None,
    })
}
