//! What stands at one position between brackets: a letter that runs over an axis, an element, a window, or rows.
//!
//! A name between brackets is a letter, unless it stands in parentheses, which make a value of it: `x[b, (k), d]` is one
//! element. A name that could be read as either is refused rather than guessed at.

use super::{
    evaluator::{Checked, Evaluator, Failed},
    library::Entity,
    value::{Label, Number, Tensor, Value, axis_names},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{BinaryOp, Dim, Expr, ExprKind, IndexEntry, Statement, UnaryOp},
};
use std::{collections::BTreeSet, rc::Rc};
use trainc_runtime::artifact::DType;

/// What stands at one position between the brackets.
pub(super) enum Entry {
    /// An index that runs over the whole axis.
    Index(Label),
    /// One element.
    Element(f64),
    /// `2 * i + p - 1`.
    Affine(Affine),
    /// Integers that say which rows to take.
    Lookup(Tensor),
}

/// A sum of indices with factors, and an offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Affine {
    /// Indices and their factors, each index once.
    pub terms: Vec<(Label, f64)>,
    /// What is added.
    pub offset: f64,
}

/// What a name is known as where it stands between brackets.
enum Known {
    /// As nothing else: it is a letter.
    Letter,
    /// As a dim: a letter where it stands alone.
    Dim(Number),
    /// As a number.
    Number(Number),
    /// As a value of the graph that could be meant as a position: a single number, or integers.
    Graph(Tensor),
    /// As something whose error has been reported.
    Unknown,
}

/// A name in an entry, outside of calls.
#[derive(Clone, Copy)]
struct Mention<'e> {
    name: &'e str,
    span: Span,
}

impl Evaluator<'_> {
    /// Reads what stands at one of some positions.
    pub(super) fn entry(&mut self, expr: &Expr, entries: &[IndexEntry]) -> Checked<Entry> {
        if let ExprKind::Group(inner) = &expr.kind {
            return self.value_entry(inner);
        }
        self.plain_letters(expr, entries)?;
        if let ExprKind::Name(name) = &expr.kind {
            return Ok(Entry::Index(self.label(name)));
        }
        match self.affine(expr) {
            Some(affine) if affine.terms.is_empty() => Ok(Entry::Element(affine.offset)),
            Some(affine) => Ok(Entry::Affine(affine)),
            None => self.value_entry(expr),
        }
    }

    /// An entry that is an expression like any other: the number of an element, or rows.
    fn value_entry(&mut self, expr: &Expr) -> Checked<Entry> {
        let value = self.expression(expr)?;
        if let Value::Number(number) = &value {
            return Ok(Entry::Element(number.plain()));
        }
        let tensor = self.operand(value, expr.span)?;
        if self.graph.node(tensor.node).ty.dtype != DType::I32 || !tensor.is_indexed() {
            return self.fail(
                Diagnostic::error("E0308", expr.span, "expected an index, or integers in index notation")
                    .label("this says neither which axis it runs over nor which rows to take")
                    .help("write for example `table[tokens[b, t], d]`"),
            );
        }
        Ok(Entry::Lookup(tensor))
    }

    /// The index variable of a name in the innermost call.
    pub(super) fn label(&mut self, name: &str) -> Label {
        let frame = self.frame();
        match frame.axes.get(name) {
            Some(label) => label.clone(),
            None => Label::Index { frame: frame.id, name: Rc::from(name) },
        }
    }

    /// Whether a name that stands alone between brackets is a letter.
    pub(super) fn is_letter(&mut self, name: &str, span: Span) -> bool {
        matches!(self.known(name, span), Known::Letter | Known::Dim(_))
    }

    fn known(&mut self, name: &str, span: Span) -> Known {
        let frame = self.frame();
        if frame.axes.contains_key(name) {
            return Known::Letter;
        }
        let value = match frame.names.get(name).cloned() {
            Some(value) => value,
            None if matches!(self.library.find(name, span.file), Some(Entity::Const(_))) => {
                self.lookup(name, span).unwrap_or(Value::Unknown)
            }
            None => return Known::Letter,
        };
        match value {
            Value::Number(number) if number.dim => Known::Dim(number),
            Value::Number(number) => Known::Number(number),
            Value::Tensor(tensor) if self.could_be_position(&tensor) => Known::Graph(tensor),
            Value::Unknown => Known::Unknown,
            _ => Known::Letter,
        }
    }

    fn could_be_position(&self, tensor: &Tensor) -> bool {
        tensor.axes.is_empty() || self.graph.node(tensor.node).ty.dtype == DType::I32
    }

    /// Refuses an entry with a name that is a letter by one reading and a number by another.
    fn plain_letters(&mut self, expr: &Expr, entries: &[IndexEntry]) -> Checked<()> {
        let (mut number, mut letters) = (None, 0);
        let mentions = mentions(expr);
        let alone = matches!(expr.kind, ExprKind::Name(_));
        let mut dim = None;
        for &mention in &mentions {
            match self.known(mention.name, mention.span) {
                Known::Letter => letters += 1,
                Known::Dim(_) if alone => letters += 1,
                Known::Dim(value) => dim = dim.or(Some((mention, value))),
                Known::Number(value) => number = number.or(Some((mention, value))),
                Known::Graph(tensor) => return self.value_as_index(mention, &tensor, entries),
                Known::Unknown => return Err(Failed),
            }
        }
        match (dim, number) {
            (Some((mention, value)), _) => self.dim_in_arithmetic(expr, mention, &value, letters > 0, entries),
            (None, Some((mention, value))) if letters == 0 => self.number_as_index(expr, mention, &value, entries),
            _ => Ok(()),
        }
    }

    /// The entry as a sum of indices and numbers; `None` if it is something else.
    fn affine(&mut self, expr: &Expr) -> Option<Affine> {
        let number = |offset| Affine { terms: Vec::new(), offset };
        match &expr.kind {
            ExprKind::Number(written) => Some(number(written.value)),
            ExprKind::Name(name) => Some(match self.known(name, expr.span) {
                Known::Number(value) => number(value.plain()),
                _ => Affine { terms: vec![(self.label(name), 1.0)], offset: 0.0 },
            }),
            ExprKind::Group(inner) => self.affine(inner),
            ExprKind::Unary(UnaryOp::Neg, inner) => self.affine(inner).map(|inner| inner.scaled(-1.0)),
            ExprKind::Binary(op, a, b) => Affine::combined(*op, self.affine(a)?, self.affine(b)?),
            _ => None,
        }
    }
}

/// Names that are read as two things.
impl Evaluator<'_> {
    /// `x[b, t - 1, d]` where `t` is a dim.
    fn dim_in_arithmetic(
        &mut self,
        expr: &Expr,
        mention: Mention<'_>,
        dim: &Number,
        with_letters: bool,
        entries: &[IndexEntry],
    ) -> Checked<()> {
        let (name, text) = (mention.name, self.text(expr.span));
        let letter = self.free_letter(entries, expr.span);
        let error =
            Diagnostic::error("E0331", mention.span, format!("the dim `{name}` in arithmetic between brackets"))
                .note("a dim's name is an index where it stands alone, and a number everywhere else");
        let error = if with_letters {
            let mend = format!("for the number, name it on a line above, as in `size = {name}`, and use that name");
            error
                .label(format!("`{name}` is the number {} here, not an index", dim.value))
                .help(format!("{mend}; for an index take a letter that is no dim"))
        } else {
            let shifted = self.with_letter(expr, name, &letter);
            error.label(format!("`{name}` is {} here, so that `{text}` would be one element", dim.value)).help(format!(
                "for an index take a letter that is no dim: `{shifted}`; for one element write `({text})`"
            ))
        };
        let error = self.with_origin(error, mention);
        self.fail(error)
    }

    /// `x[b, c]` where `c` is a number.
    fn number_as_index(
        &mut self,
        expr: &Expr,
        mention: Mention<'_>,
        number: &Number,
        entries: &[IndexEntry],
    ) -> Checked<()> {
        let (name, text) = (mention.name, self.text(expr.span));
        let letter = self.free_letter(entries, expr.span);
        let index = self.with_letter(expr, name, &letter);
        let error = Diagnostic::error("E0332", expr.span, format!("`{name}` is a number here, not an index"))
            .label(format!("with {name} = {} this would be one element", number.value))
            .help(format!(
                "for an index take a letter that names nothing else: `{index}`; for one element write `({text})`"
            ));
        let error = self.with_origin(error, mention);
        self.fail(error)
    }

    /// `x[b, i]` where `i` is counted in a `repeat`, or holds integers.
    fn value_as_index(&mut self, mention: Mention<'_>, tensor: &Tensor, entries: &[IndexEntry]) -> Checked<()> {
        let Mention { name, span } = mention;
        let error = Diagnostic::error("E0333", span, format!("`{name}` is a value of the graph here, not an index"));
        let error = if tensor.axes.is_empty() {
            let letter = self.free_letter(entries, span);
            error
                .label("computed while training, so that it cannot choose an element while compiling")
                .note("what a `repeat` carries from round to round is such a value, a counter too")
                .help(format!(
                    "for an index take a letter that names nothing else; to choose by the value, compare: \
                     `sum[{letter}](if index({letter}) == {name} then x[.., {letter}] else 0)`"
                ))
        } else {
            let shown = axis_names(&tensor.axes, &self.shape(tensor));
            let letters = letters_of(tensor.axes.len());
            error
                .label(format!("integers of shape {shown}"))
                .help(format!("for the rows that they say write their own indices: `table[{name}[{letters}], d]`"))
        };
        self.fail(error)
    }

    fn with_origin(&self, error: Diagnostic, mention: Mention<'_>) -> Diagnostic {
        match self.origin(mention) {
            Some(place) => error.also(place, format!("`{}` is defined here", mention.name)),
            None => error,
        }
    }

    /// Where a number, a dim or a constant that the innermost call knows gets its name.
    fn origin(&self, mention: Mention<'_>) -> Option<Span> {
        let frame = self.frames.last()?;
        if !frame.names.contains_key(mention.name) {
            let Some(Entity::Const(index)) = self.library.find(mention.name, mention.span.file) else { return None };
            return Some(self.library.consts[index].name.span);
        }
        let definition = self.library.definition(frame.definition?);
        let parameters = definition.parameters.iter();
        let parameter = parameters.clone().map(|p| &p.name).find(|name| name.text == mention.name).map(|p| p.span);
        let dims = parameters.filter_map(|parameter| parameter.tensor.as_ref()).flat_map(|tensor| &tensor.dims);
        let dim = dims.filter_map(|dim| match dim {
            Dim::Size(Expr { kind: ExprKind::Name(name), span }) if name == mention.name => Some(*span),
            _ => None,
        });
        assignment(&definition.body, mention).or(parameter).or(dim.into_iter().next())
    }

    /// A letter that names nothing here and stands in no other entry.
    fn free_letter(&self, entries: &[IndexEntry], place: Span) -> String {
        self.free_letters(1, entries, place).remove(0)
    }

    /// Different letters that name nothing here and stand in none of some entries.
    pub(super) fn free_letters(&self, count: usize, entries: &[IndexEntry], place: Span) -> Vec<String> {
        const LETTERS: [&str; 12] = ["i", "j", "k", "m", "n", "p", "q", "r", "s", "u", "v", "w"];
        let used: BTreeSet<String> = entries
            .iter()
            .filter_map(|entry| match entry {
                IndexEntry::Position(expr) => Some(super::names::mentioned(expr)),
                IndexEntry::Rest(_) => None,
            })
            .flatten()
            .collect();
        let frame = self.frames.last();
        let known = |letter: &str| {
            frame.is_some_and(|frame| frame.names.contains_key(letter) || frame.axes.contains_key(letter))
                || self.library.find(letter, place.file).is_some()
        };
        let single = LETTERS.iter().map(ToString::to_string);
        let numbered = (0..).map(|number| format!("i{number}"));
        single.chain(numbered).filter(|letter| !used.contains(letter) && !known(letter)).take(count).collect()
    }

    /// The text of an entry with another letter in the place of a name.
    fn with_letter(&self, expr: &Expr, name: &str, letter: &str) -> String {
        let mut text = self.text(expr.span).to_string();
        for mention in mentions(expr).iter().rev().filter(|mention| mention.name == name) {
            let at = (mention.span.start - expr.span.start) as usize;
            text.replace_range(at..at + name.len(), letter);
        }
        text
    }
}

/// `b, t` for two axes.
pub(super) fn letters_of(count: usize) -> String {
    let letter = |i: usize| ["b", "t", "c"].get(i).map_or_else(|| format!("c{i}"), ToString::to_string);
    (0..count).map(letter).collect::<Vec<_>>().join(", ")
}

/// The names in an entry that are letters or parts of arithmetic, in order; names in calls and behind brackets are not.
fn mentions(expr: &Expr) -> Vec<Mention<'_>> {
    match &expr.kind {
        ExprKind::Name(name) => vec![Mention { name, span: expr.span }],
        ExprKind::Group(inner) | ExprKind::Unary(_, inner) => mentions(inner),
        ExprKind::Binary(_, a, b) => [mentions(a), mentions(b)].concat(),
        _ => Vec::new(),
    }
}

/// The last assignment of a name in front of a place.
fn assignment(body: &[Statement], mention: Mention<'_>) -> Option<Span> {
    let before = |span: &Span| span.file == mention.span.file && span.start < mention.span.start;
    body.iter().rev().find_map(|statement| match statement {
        Statement::Assign { targets, .. } => {
            targets.iter().find(|target| target.text == mention.name).map(|target| target.span).filter(before)
        }
        Statement::Repeat { body, .. } => assignment(body, mention),
        _ => None,
    })
}

impl Affine {
    fn scaled(mut self, factor: f64) -> Affine {
        self.terms.iter_mut().for_each(|term| term.1 *= factor);
        self.offset *= factor;
        self
    }

    fn combined(op: BinaryOp, a: Affine, b: Affine) -> Option<Affine> {
        match op {
            BinaryOp::Add => Some(a.plus(b)),
            BinaryOp::Sub => Some(a.plus(b.scaled(-1.0))),
            BinaryOp::Mul if a.terms.is_empty() => Some(b.scaled(a.offset)),
            BinaryOp::Mul if b.terms.is_empty() => Some(a.scaled(b.offset)),
            BinaryOp::Div if b.terms.is_empty() && b.offset != 0.0 => Some(a.scaled(1.0 / b.offset)),
            _ => None,
        }
    }

    fn plus(mut self, other: Affine) -> Affine {
        for (label, factor) in other.terms {
            match self.terms.iter_mut().find(|(known, _)| *known == label) {
                Some(term) => term.1 += factor,
                None => self.terms.push((label, factor)),
            }
        }
        self.terms.retain(|(_, factor)| *factor != 0.0);
        self.offset += other.offset;
        self
    }
}
