//! Expressions to values.

use super::{
    evaluator::{Checked, Evaluator, Failed},
    value::{Number, Tensor, Value, short_text},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{BinaryOp, Expr, ExprKind, Number as Written, UnaryOp},
};
use std::rc::Rc;
use trainc_kernels::ir::Unary;

impl Evaluator<'_> {
    /// The value of an expression.
    pub(super) fn expression(&mut self, expr: &Expr) -> Checked<Value> {
        self.guarded(expr.span, |this| this.expression_kind(expr))
    }

    fn expression_kind(&mut self, expr: &Expr) -> Checked<Value> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Number(number) => Ok(number_value(number)),
            ExprKind::Text(text) => Ok(Value::Text(Rc::from(text.as_str()))),
            ExprKind::Name(name) => self.lookup(name, span),
            ExprKind::Call { callee, axes, arguments } => self.call(callee, axes, arguments, span),
            ExprKind::Index { base, entries } => self.index(base, entries, span),
            ExprKind::Arrange { value, axes } => self.arrange(value, axes, span),
            ExprKind::Unary(op, value) => {
                let value = self.expression(value)?;
                self.unary_operator(*op, value, span)
            }
            ExprKind::Binary(op, a, b) => self.binary_operator(*op, a, b, span),
            ExprKind::If { condition, then, otherwise } => self.choice(condition, then, otherwise, span),
            ExprKind::Tuple(parts) | ExprKind::List(parts) => {
                parts.iter().map(|part| self.expression(part)).collect::<Checked<_>>().map(Value::Tuple)
            }
            ExprKind::Group(inner) => self.expression(inner),
            ExprKind::Missing => Err(Failed),
        }
    }

    /// `and` and `or` on numbers stop at the first value that decides.
    fn binary_operator(&mut self, op: BinaryOp, a: &Expr, b: &Expr, span: Span) -> Checked<Value> {
        let left = self.expression(a)?;
        if let Value::Number(number) = &left {
            match op {
                BinaryOp::And if number.value == 0.0 => return Ok(Value::truth(false)),
                BinaryOp::Or if number.value != 0.0 => return Ok(Value::truth(true)),
                _ => {}
            }
        }
        let right = self.expression(b)?;
        self.binary(op, left, right, span)
    }

    fn unary_operator(&mut self, op: UnaryOp, value: Value, span: Span) -> Checked<Value> {
        match (op, value) {
            (UnaryOp::Neg, value) => self.unary(Unary::Neg, value, span),
            (UnaryOp::Not, Value::Number(number)) => Ok(Value::truth(number.value == 0.0)),
            (UnaryOp::Not, value) => {
                let tensor = self.operand(value, span)?;
                let tensor = self.float(tensor, span)?;
                let node = self.complement(tensor.node, span)?;
                Ok(Value::Tensor(Tensor { node, ..tensor }))
            }
        }
    }

    /// A condition known while compiling chooses a branch; the other one is not looked at.
    fn choice(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr, span: Span) -> Checked<Value> {
        let condition = self.expression(condition)?;
        if let Value::Number(number) = &condition {
            return self.expression(if number.value != 0.0 { then } else { otherwise });
        }
        let (then, otherwise) = (self.expression(then)?, self.expression(otherwise)?);
        self.select(condition, then, otherwise, span)
    }

    /// A number that must be known while compiling.
    pub(super) fn known_number(&mut self, expr: &Expr, what: &str) -> Checked<Number> {
        match self.expression(expr)? {
            Value::Number(number) => Ok(number),
            other => {
                let found = other.describe();
                self.fail(
                    Diagnostic::error("E0402", expr.span, format!("{what} must be a number known while compiling"))
                        .label(format!("found {found}")),
                )
            }
        }
    }

    /// An extent: a whole number of at least 1.
    pub(super) fn extent_of(&mut self, expr: &Expr, what: &str) -> Checked<(u64, Option<Rc<str>>)> {
        let number = self.known_number(expr, what)?;
        let value = number.plain();
        let name = match &expr.kind {
            ExprKind::Number(_) => None,
            _ => short_text(self.text(expr.span)).or(number.name.clone()),
        };
        if value.fract() != 0.0 {
            return self.not_whole(expr, value, what);
        }
        if !(1.0..=2_147_483_647.0).contains(&value) {
            let error = Diagnostic::error("E0404", expr.span, format!("{what} must be between 1 and 2147483647"))
                .label(format!("this is {value}"))
                .help("correct the number");
            return self.fail(error);
        }
        Ok((value as u64, name))
    }

    /// Numbers as extents.
    pub(super) fn extents_among(&mut self, dims: &[Number], span: Span) -> Checked<Vec<u64>> {
        const LARGEST: f64 = 2e9;
        let wrong = |dim: &&Number| dim.plain().fract() != 0.0 || !(1.0..=LARGEST).contains(&dim.plain());
        match dims.iter().find(wrong) {
            None => Ok(dims.iter().map(|dim| dim.plain() as u64).collect()),
            Some(dim) => {
                let error = Diagnostic::error("E0404", span, "extents must be whole numbers of at least 1");
                self.fail(error.label(format!("found {}", dim.shown())))
            }
        }
    }

    fn not_whole<T>(&mut self, expr: &Expr, value: f64, what: &str) -> Checked<T> {
        let text = self.text(expr.span).to_string();
        let mut error = Diagnostic::error("E0403", expr.span, format!("{what} must be a whole number"))
            .label(format!("`{text}` is {}", (value * 1e4).round() / 1e4));
        if let ExprKind::Binary(BinaryOp::Div, a, b) = &expr.kind
            && let (Ok(Value::Number(a)), Ok(Value::Number(b))) = (self.expression(a), self.expression(b))
        {
            let (whole, part) = (a.plain(), b.plain());
            error = error.note(format!("{} does not divide {}", b.shown(), a.shown()));
            if let Some(mend) = nearest_divisor(whole, part) {
                error = error.help(format!("{mend} divides {whole}"));
            }
        }
        self.fail(error)
    }
}

/// The divisor of a whole number closest to another number.
fn nearest_divisor(whole: f64, wanted: f64) -> Option<f64> {
    const LARGEST: f64 = 1e6;
    if !(1.0..=LARGEST).contains(&whole) || whole.fract() != 0.0 {
        return None;
    }
    let divisors = (1..=whole as u64).filter(|divisor| (whole as u64).is_multiple_of(*divisor)).map(|d| d as f64);
    divisors.min_by(|a, b| (a - wanted).abs().total_cmp(&(b - wanted).abs()))
}

/// A number as written.
pub(super) fn number_value(number: &Written) -> Value {
    Value::Number(Number { value: number.value, unit: number.unit, name: None, dim: false })
}
