//! What expressions mean while a program is checked: numbers, tensors with named axes, definitions.

use super::library::DefinitionId;
use crate::{graph::NodeId, source::Span, syntax::tree::Unit};
use std::rc::Rc;

/// The value of an expression.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number that is known while compiling.
    Number(Number),
    /// A tensor of the graph.
    Tensor(Tensor),
    /// A product in index notation that is not computed yet, so that a `sum` around it can become a contraction.
    /// At least two factors, each with an index on every axis.
    Product(Vec<Tensor>),
    /// Several values.
    Tuple(Vec<Value>),
    /// Text.
    Text(Rc<str>),
    /// A definition of a program or of the library.
    Definition(DefinitionId),
    /// A function that the compiler knows.
    Builtin(&'static super::builtin::Builtin),
    /// A way to start a parameter.
    Init(Start),
    /// `none`.
    Nothing,
    /// The value of something whose error has been reported.
    Unknown,
}

impl Value {
    /// A bare number.
    pub(super) fn number(value: f64) -> Self {
        Value::Number(Number { value, unit: Unit::None, name: None, dim: false })
    }

    /// 1 or 0.
    pub(super) fn truth(holds: bool) -> Self {
        Self::number(f64::from(u8::from(holds)))
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Number(number) => format!("the number {}", number.shown()),
            Value::Tensor(tensor) if tensor.axes.is_empty() => "a scalar of the graph".into(),
            Value::Tensor(_) | Value::Product(_) => "a tensor".into(),
            Value::Tuple(values) => format!("{} values", values.len()),
            Value::Text(text) => format!("the text {text:?}"),
            Value::Definition(_) | Value::Builtin(_) => "a definition".into(),
            Value::Init(_) => "an initial value".into(),
            Value::Nothing => "`none`".into(),
            Value::Unknown => "unknown".into(),
        }
    }
}

/// A number with its unit and, where it has one, the name by which messages call it.
#[derive(Clone, Debug)]
pub(super) struct Number {
    /// The value; percents as written (2% is 2).
    pub value: f64,
    /// The unit.
    pub unit: Unit,
    /// e.g. `heads`, `d / heads`.
    pub name: Option<Rc<str>>,
    /// Bound by a shape: inside brackets such a name is an index, not a number.
    pub dim: bool,
}

impl Number {
    /// `heads = 6`, or `6` if it has no name.
    pub(super) fn shown(&self) -> String {
        let value = format!("{}{}", self.value, unit_suffix(self.unit));
        match &self.name {
            Some(name) if **name != value => format!("{name} = {value}"),
            _ => value,
        }
    }

    /// The number as a part of arithmetic: a percentage is a share of 1.
    pub(super) fn plain(&self) -> f64 {
        if self.unit == Unit::Percent { self.value / 100.0 } else { self.value }
    }
}

/// How a unit is written behind a number.
pub(super) fn unit_suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Percent => "%",
        Unit::Times => "x",
        Unit::Steps => " steps",
        Unit::Tokens => " tokens",
        Unit::Samples => " samples",
        Unit::Epochs => " epochs",
        Unit::Bytes => " bytes",
    }
}

/// A tensor of the graph with what is known of its axes.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// The node.
    pub node: NodeId,
    /// One entry per axis.
    pub axes: Vec<Axis>,
    /// Made of positions ([`crate::graph::Op::Iota`]) alone: such integers turn into floats where floats are needed.
    pub position: bool,
}

impl Tensor {
    /// Whether every axis has an index (a scalar has no axis without one).
    pub(super) fn is_indexed(&self) -> bool {
        self.axes.iter().all(|axis| axis.label.is_some())
    }

    /// The same tensor seen from outside the expression: without indices.
    pub(super) fn closed(mut self) -> Self {
        self.axes.iter_mut().for_each(|axis| axis.label = None);
        self
    }

    /// Position of the axis with this index.
    pub(super) fn axis_of(&self, label: &Label) -> Option<usize> {
        self.axes.iter().position(|axis| axis.label.as_ref() == Some(label))
    }
}

/// An axis of a tensor.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// The dim's name for messages, e.g. `width`.
    pub name: Option<Rc<str>>,
    /// The index variable that runs over it.
    pub label: Option<Label>,
    /// Where the index was put on it.
    pub span: Option<Span>,
}

impl Axis {
    /// An axis without index.
    pub(super) fn named(name: Option<Rc<str>>) -> Self {
        Axis { name, label: None, span: None }
    }
}

/// An index variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// A name in one call of one definition.
    Index {
        /// Number of the call.
        frame: u32,
        /// The name.
        name: Rc<str>,
    },
    /// An axis under `..`, counted from the last.
    Rest(usize),
}

impl Label {
    /// How it is written.
    pub(super) fn shown(&self) -> &str {
        match self {
            Label::Index { name, .. } => name,
            Label::Rest(_) => "..",
        }
    }
}

/// How a parameter starts; its stream is chosen where the parameter is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// Every element equal.
    Constant(f64),
    /// Gaussian with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between two bounds.
    Uniform(f64, f64),
    /// The documented hash: stream and bound.
    Hash(u64, f64),
}

/// The source text of a number or dim as messages call it, unless it is long.
pub(super) fn short_text(text: &str) -> Option<Rc<str>> {
    const LONGEST: usize = 24;
    (text.len() <= LONGEST && !text.contains('\n')).then(|| Rc::from(text))
}

/// `[batch, context, 384]` for axes and extents: names where they are known.
pub(super) fn axis_names(axes: &[Axis], extents: &[u64]) -> String {
    let names: Vec<String> = axes
        .iter()
        .zip(extents)
        .map(|(axis, extent)| axis.name.as_ref().map_or_else(|| extent.to_string(), |name| name.to_string()))
        .collect();
    format!("[{}]", names.join(", "))
}

/// `[batch, context] = [16, 256]`, or only the numbers if no axis has a name.
pub(super) fn shape_shown(axes: &[Axis], extents: &[u64]) -> String {
    let (names, numbers) = (axis_names(axes, extents), numbers_shown(extents));
    if names == numbers { numbers } else { format!("{names} = {numbers}") }
}

/// `[16, 256]`.
pub(super) fn numbers_shown(extents: &[u64]) -> String {
    let numbers: Vec<String> = extents.iter().map(u64::to_string).collect();
    format!("[{}]", numbers.join(", "))
}
