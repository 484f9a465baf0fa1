//! Expressions, dims and parameters on one line.
//!
//! Everything is written into a [`Line`] of limited width and given up as soon as that is full, so that trying costs no more
//! than a line, however long the expression.

use crate::syntax::lex::number_parts;
use crate::syntax::tree::{
    Argument, BinaryOp, Dim, Expr, ExprKind, IndexEntry, Name, Number, Parameter, TensorType, UnaryOp, Unit,
};

/// One line of text that has no room for more than a number of characters.
pub(super) struct Line {
    text: String,
    room: usize,
}

/// `None` when the line is full.
type Fits = Option<()>;

/// What `write` writes, if it fits into `room` characters.
pub(super) fn flat(room: usize, write: impl FnOnce(&mut Line) -> Fits) -> Option<String> {
    let mut line = Line { text: String::new(), room };
    write(&mut line)?;
    Some(line.text)
}

impl Line {
    /// Writes a piece of text.
    pub fn push(&mut self, text: &str) -> Fits {
        self.room = self.room.checked_sub(text.chars().count())?;
        self.text.push_str(text);
        Some(())
    }

    /// Writes pieces with commas between them.
    pub fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T) -> Fits) -> Fits {
        for (i, item) in items.iter().enumerate() {
            self.push(if i == 0 { "" } else { ", " })?;
            write(self, item)?;
        }
        Some(())
    }

    /// Writes names with commas between them.
    pub fn names(&mut self, names: &[Name]) -> Fits {
        self.list(names, |line, name| line.push(&name.text))
    }

    /// Writes an expression.
    pub fn expr(&mut self, expr: &Expr) -> Fits {
        match &expr.kind {
            ExprKind::Number(number) => self.push(&number_text(number)),
            ExprKind::Text(text) => self.push(&quoted(text)),
            ExprKind::Name(name) => self.push(name),
            ExprKind::Call { callee, axes, arguments } => {
                self.push(&call_head(callee, axes))?;
                self.push("(")?;
                self.list(arguments, Line::argument)?;
                self.push(")")
            }
            ExprKind::Index { base, entries } => {
                self.expr(base)?;
                self.entries(entries)
            }
            ExprKind::Arrange { value, axes } => {
                self.expr(value)?;
                self.push(" -> ")?;
                self.entries(axes)
            }
            ExprKind::Unary(op, value) => {
                self.push(unary_sign(*op))?;
                self.expr(value)
            }
            ExprKind::Binary(op, left, right) => {
                self.expr(left)?;
                self.push(spaced_sign(*op))?;
                self.expr(right)
            }
            ExprKind::If { condition, then, otherwise } => self.choice(condition, then, otherwise),
            ExprKind::Tuple(parts) => self.enclosed("(", parts, ")"),
            ExprKind::List(parts) => self.enclosed("[", parts, "]"),
            ExprKind::Group(part) => self.enclosed("(", std::slice::from_ref(&**part), ")"),
            ExprKind::Missing => unreachable!("only trees without errors are printed"),
        }
    }

    fn choice(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr) -> Fits {
        self.push("if ")?;
        self.expr(condition)?;
        self.push(" then ")?;
        self.expr(then)?;
        self.push(" else ")?;
        self.expr(otherwise)
    }

    fn enclosed(&mut self, open: &str, parts: &[Expr], close: &str) -> Fits {
        self.push(open)?;
        self.list(parts, Line::expr)?;
        self.push(close)
    }

    /// Writes `name = value` or `value`.
    pub fn argument(&mut self, argument: &Argument) -> Fits {
        if let Some(name) = &argument.name {
            self.push(&name.text)?;
            self.push(" = ")?;
        }
        self.expr(&argument.value)
    }

    /// Writes the entry of an index.
    pub fn entry(&mut self, entry: &IndexEntry) -> Fits {
        match entry {
            IndexEntry::Rest(_) => self.push(".."),
            IndexEntry::Position(expr) => self.expr(expr),
        }
    }

    fn entries(&mut self, entries: &[IndexEntry]) -> Fits {
        self.push("[")?;
        self.list(entries, Line::entry)?;
        self.push("]")
    }

    fn dim(&mut self, dim: &Dim) -> Fits {
        match dim {
            Dim::Rest(_) => self.push(".."),
            Dim::Size(expr) => self.expr(expr),
        }
    }

    /// Writes `[dims]`.
    pub fn dims(&mut self, dims: &[Dim]) -> Fits {
        self.push("[")?;
        self.list(dims, Line::dim)?;
        self.push("]")
    }

    /// Writes `[outputs | inputs]`.
    pub fn split_dims(&mut self, dims: &[Dim], split: usize) -> Fits {
        let (outputs, inputs) = dims.split_at(split);
        self.push("[")?;
        self.list(outputs, Line::dim)?;
        self.push(if outputs.is_empty() { "|" } else { " |" })?;
        self.push(if inputs.is_empty() { "" } else { " " })?;
        self.list(inputs, Line::dim)?;
        self.push("]")
    }

    /// Writes `int[dims]` or `[dims]`.
    pub fn tensor(&mut self, tensor: &TensorType) -> Fits {
        self.push(if tensor.integer { "int" } else { "" })?;
        self.dims(&tensor.dims)
    }

    /// Writes a parameter of a definition.
    pub fn parameter(&mut self, parameter: &Parameter) -> Fits {
        self.push(&parameter.name.text)?;
        if let Some(tensor) = &parameter.tensor {
            self.push(": ")?;
            self.tensor(tensor)?;
        }
        if let Some(default) = &parameter.default {
            self.push(" = ")?;
            self.expr(default)?;
        }
        Some(())
    }
}

/// A call up to its arguments: `softmax[s]`.
pub(super) fn call_head(callee: &Name, axes: &[Name]) -> String {
    match axes {
        [] => callee.text.clone(),
        _ => {
            let axes: Vec<&str> = axes.iter().map(|axis| axis.text.as_str()).collect();
            format!("{}[{}]", callee.text, axes.join(", "))
        }
    }
}

pub(super) fn unary_sign(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Neg => "-",
        UnaryOp::Not => "not ",
    }
}

/// An operator with the spaces around it; powers have none.
pub(super) fn spaced_sign(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Or => " or ",
        BinaryOp::And => " and ",
        BinaryOp::Less => " < ",
        BinaryOp::LessEqual => " <= ",
        BinaryOp::Greater => " > ",
        BinaryOp::GreaterEqual => " >= ",
        BinaryOp::Equal => " == ",
        BinaryOp::NotEqual => " != ",
        BinaryOp::Add => " + ",
        BinaryOp::Sub => " - ",
        BinaryOp::Mul => " * ",
        BinaryOp::Div => " / ",
        BinaryOp::Pow => "^",
    }
}

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{escaped}\"")
}

fn number_text(number: &Number) -> String {
    let one = number.written == "1";
    let written = &number.written;
    match number.unit {
        Unit::None => written.clone(),
        Unit::Percent => format!("{written}%"),
        Unit::Times => format!("{written}x"),
        Unit::Steps => format!("{written} step{}", if one { "" } else { "s" }),
        Unit::Tokens => format!("{written} token{}", if one { "" } else { "s" }),
        Unit::Samples => format!("{written} sample{}", if one { "" } else { "s" }),
        Unit::Epochs => format!("{written} epoch{}", if one { "" } else { "s" }),
        Unit::Bytes => format!("{written} {}", bytes_unit(number)),
    }
}

/// The unit that makes the written digits the number's value.
fn bytes_unit(number: &Number) -> &'static str {
    let digits = number_parts(&number.written).map_or(1.0, |parts| parts.value);
    match number.value / digits {
        ratio if ratio < 1e5 => "KB",
        ratio if ratio > 1e8 => "GB",
        _ => "MB",
    }
}
