//! Expressions that may take several lines.

use super::Printer;
use super::flat::{Line, call_head, flat, spaced_sign, unary_sign};
use crate::source::Span;
use crate::syntax::tree::{Argument, BinaryOp, Expr, ExprKind, IndexEntry, Parameter};

/// Characters kept free behind an expression for what ends its line: `,`, `)`, ` {`.
const BEHIND: usize = 2;

impl Printer<'_> {
    /// Prints an expression: on one line if it fits and holds no comment, or else broken at its outermost brackets or
    /// operators.
    pub(super) fn expr(&mut self, expr: &Expr) {
        let commented = self.comments.inside(expr.span);
        if let Some(text) = flat(self.room(BEHIND), |line| line.expr(expr)).filter(|_| !commented) {
            return self.push(&text);
        }
        self.broken(expr);
    }

    fn broken(&mut self, expr: &Expr) {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Call { callee, axes, arguments } => {
                self.push(&call_head(callee, axes));
                self.list("(", arguments, ")", span, BEHIND, Line::argument, |p, it| p.argument(it));
            }
            ExprKind::Index { base, entries } => {
                self.expr(base);
                self.list("[", entries, "]", span, BEHIND, Line::entry, |p, it| p.entry(it));
            }
            ExprKind::Arrange { value, axes } => {
                self.expr(value);
                self.push(" -> ");
                self.list("[", axes, "]", span, BEHIND, Line::entry, |p, it| p.entry(it));
            }
            ExprKind::Unary(op, value) => {
                self.push(unary_sign(*op));
                self.expr(value);
            }
            ExprKind::Binary(op, left, right) => self.operation(*op, left, right),
            ExprKind::If { condition, then, otherwise } => self.choice(condition, then, otherwise),
            ExprKind::Tuple(parts) => self.list("(", parts, ")", span, BEHIND, Line::expr, |p, it| p.expr(it)),
            ExprKind::List(parts) => self.list("[", parts, "]", span, BEHIND, Line::expr, |p, it| p.expr(it)),
            ExprKind::Group(part) => self.group(part, span),
            ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Name(_) | ExprKind::Missing => {
                self.push(&super::text_of(|line| line.expr(expr)));
            }
        }
    }

    /// `left op right`; the right side goes on a line of its own if it does not fit behind the left one.
    fn operation(&mut self, op: BinaryOp, left: &Expr, right: &Expr) {
        self.expr(left);
        let commented = self.comments.inside(right.span);
        let text = flat(self.room(BEHIND), |line| {
            line.push(spaced_sign(op))?;
            line.expr(right)
        });
        if let Some(text) = text.filter(|_| !commented) {
            return self.push(&text);
        }
        if op == BinaryOp::Pow {
            self.push(spaced_sign(op));
            return self.expr(right);
        }
        self.push(spaced_sign(op).trim_end());
        self.end_with_comment(left.span.end, right.span.start);
        self.level += 1;
        self.comments_before(right.span.start);
        self.expr(right);
        self.level -= 1;
    }

    fn choice(&mut self, condition: &Expr, then: &Expr, otherwise: &Expr) {
        self.push("if ");
        self.expr(condition);
        self.level += 1;
        for (word, part, before) in [("then ", then, condition), ("else ", otherwise, then)] {
            self.end_with_comment(before.span.end, part.span.start);
            self.comments_before(part.span.start);
            self.push(word);
            self.expr(part);
        }
        self.level -= 1;
    }

    /// `(a)`: there is no comma behind the only part, because it is not a list.
    fn group(&mut self, part: &Expr, span: Span) {
        self.push("(");
        self.end_with_comment(span.start + 1, part.span.start);
        self.level += 1;
        self.comments_before(part.span.start);
        self.expr(part);
        self.end_with_comment(part.span.end, u32::MAX);
        self.comments_before(span.end);
        self.level -= 1;
        self.push(")");
    }

    /// A list in brackets: on one line if it fits, with `behind` characters behind it, and there is no comment in `span`; or
    /// else each item on a line of its own.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn list<T: Place>(
        &mut self,
        open: &str,
        items: &[T],
        close: &str,
        span: Span,
        behind: usize,
        write: impl Fn(&mut Line, &T) -> Option<()>,
        print: impl Fn(&mut Self, &T),
    ) {
        let commented = self.comments.inside(span);
        let text = flat(self.room(behind), |line| {
            line.push(open)?;
            line.list(items, write)?;
            line.push(close)
        });
        if let Some(text) = text.filter(|_| !commented) {
            return self.push(&text);
        }
        self.push(open);
        self.level += 1;
        if let Some(first) = items.first() {
            let first_line = span.start.max(self.done).min(first.place().start);
            self.end_with_comment(first_line, first.place().start);
        }
        let next_starts = items.iter().skip(1).map(|next| next.place().start).chain([u32::MAX]);
        for (item, next) in items.iter().zip(next_starts) {
            self.comments_before(item.place().start);
            print(self, item);
            self.push(",");
            self.end_with_comment(item.place().end, next);
        }
        self.comments_before(span.end);
        self.level -= 1;
        self.push(close);
    }

    fn argument(&mut self, argument: &Argument) {
        if let Some(name) = &argument.name {
            self.push(&name.text);
            self.push(" = ");
        }
        self.expr(&argument.value);
    }

    fn entry(&mut self, entry: &IndexEntry) {
        match entry {
            IndexEntry::Rest(_) => self.push(".."),
            IndexEntry::Position(expr) => self.expr(expr),
        }
    }

    pub(super) fn parameter(&mut self, parameter: &Parameter) {
        self.push(&super::text_of(|line| line.parameter(parameter)));
    }
}

/// Items of lists know where they stand.
pub(super) trait Place {
    /// Where.
    fn place(&self) -> Span;
}

impl Place for Expr {
    fn place(&self) -> Span {
        self.span
    }
}

impl Place for Argument {
    fn place(&self) -> Span {
        self.name.as_ref().map_or(self.value.span, |name| name.span.to(self.value.span))
    }
}

impl Place for IndexEntry {
    fn place(&self) -> Span {
        match self {
            IndexEntry::Rest(span) => *span,
            IndexEntry::Position(expr) => expr.span,
        }
    }
}

impl Place for Parameter {
    fn place(&self) -> Span {
        let name = self.name.span;
        let typed = self.tensor.as_ref().map_or(name, |tensor| name.to(tensor.span));
        self.default.as_ref().map_or(typed, |default| typed.to(default.span))
    }
}
