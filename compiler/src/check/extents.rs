//! How far each index runs: extents that a statement fixes, collected before it is evaluated.

use super::{
    evaluator::{Checked, Evaluator},
    value::{Label, Value},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Expr, ExprKind, IndexEntry},
};
use std::collections::BTreeMap;

/// Extents of the index variables of one statement.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// Known ones, with the place that fixes each.
    known: BTreeMap<Label, (u64, Span)>,
    /// Places that will fix an extent once what is indexed there has been computed: `ones(n)[t]`.
    later: BTreeMap<Label, Span>,
}

impl Extents {
    /// Forgets all of them, for the next statement.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.later.clear();
    }

    /// Remembers an extent, unless one is known.
    pub(super) fn fix(&mut self, label: Label, extent: u64, place: Span) {
        self.known.entry(label).or_insert((extent, place));
    }
}

impl Evaluator<'_> {
    /// Extent of an index: in the open statements, or else of the dim that has its name.
    pub(super) fn extent(&self, label: &Label) -> Option<(u64, Option<Span>)> {
        if let Some((extent, place)) = self.extents.iter().rev().find_map(|table| table.known.get(label)) {
            return Some((*extent, Some(*place)));
        }
        let Label::Index { frame, name } = label else { return None };
        let frame = self.frames.iter().rev().find(|open| open.id == *frame)?;
        match frame.names.get(&**name) {
            Some(Value::Number(number)) if number.dim => Some((number.value as u64, None)),
            _ => None,
        }
    }

    /// The error for an index whose extent nothing fixes.
    pub(super) fn unknown_range<T>(&mut self, label: &Label, span: Span) -> Checked<T> {
        let name = label.shown().to_string();
        let error = Diagnostic::error("E0314", span, format!("nothing here says how far the index `{name}` runs"));
        let later = self.extents.iter().rev().find_map(|table| table.later.get(label)).copied();
        let number = match self.frame().names.get(&name) {
            Some(Value::Number(number)) if number.name.is_some() => Some(number.value),
            _ => None,
        };
        let error = match (later, number) {
            (Some(place), _) => {
                let text = self.text(place).to_string();
                error
                    .label("used before its range is known")
                    .also(place, format!("this says how far `{name}` runs, but stands behind it"))
                    .help(format!("write `{text}` first, or name what is indexed on a line above"))
            }
            (None, Some(value)) => error
                .label(format!("`{name}` is the number {value} here"))
                .help("write the letter of an axis: `x[.., i] * index(i)`"),
            (None, None) => error
                .label("no tensor in this statement is indexed by it alone")
                .help(format!("index a tensor by `{name}` in front of this, as in `zeros(n)[{name}] + index({name})`")),
        };
        self.fail(error)
    }

    /// Extents of the indices that stand alone between brackets in an expression, so that windows and `index(i)` know
    /// them wherever they stand.
    pub(super) fn scan_extents(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Index { base, entries } => self.scan_index(base, entries, expr.span),
            ExprKind::Name(name) => self.scan_name(name),
            ExprKind::Call { arguments, .. } => {
                arguments.iter().for_each(|argument| self.scan_extents(&argument.value))
            }
            ExprKind::Arrange { value, .. } | ExprKind::Group(value) | ExprKind::Unary(_, value) => {
                self.scan_extents(value)
            }
            ExprKind::Binary(_, a, b) => [a, b].into_iter().for_each(|side| self.scan_extents(side)),
            ExprKind::If { condition, then, otherwise } => {
                [condition, then, otherwise].into_iter().for_each(|part| self.scan_extents(part));
            }
            ExprKind::Tuple(parts) | ExprKind::List(parts) => parts.iter().for_each(|part| self.scan_extents(part)),
            ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Missing => {}
        }
    }

    fn scan_name(&mut self, name: &str) {
        let factors = match self.frame().names.get(name) {
            Some(Value::Tensor(tensor)) => vec![tensor.clone()],
            Some(Value::Product(factors)) => factors.clone(),
            _ => return,
        };
        for tensor in factors {
            let shape = self.shape(&tensor);
            for (axis, extent) in tensor.axes.iter().zip(shape) {
                if let (Some(label), Some(span)) = (&axis.label, axis.span) {
                    self.open_extents().fix(label.clone(), extent, span);
                }
            }
        }
    }

    fn scan_index(&mut self, base: &Expr, entries: &[IndexEntry], span: Span) {
        for entry in entries {
            if let IndexEntry::Position(expr) = entry
                && !matches!(expr.kind, ExprKind::Name(_))
            {
                self.scan_extents(expr);
            }
        }
        let known = match &base.kind {
            ExprKind::Name(name) => self.frame().names.get(name).cloned(),
            _ => {
                self.scan_extents(base);
                None
            }
        };
        let shape = match &known {
            Some(Value::Tensor(tensor)) => Some(self.shape(tensor)),
            _ => None,
        };
        // Positions are counted from the end, as `..` stands for leading axes.
        let positions = entries.iter().rev().take_while(|entry| matches!(entry, IndexEntry::Position(_)));
        for (back, entry) in positions.enumerate() {
            let IndexEntry::Position(Expr { kind: ExprKind::Name(name), span: place }) = entry else { continue };
            if !self.is_letter(name, *place) {
                continue;
            }
            let label = self.label(name);
            match &shape {
                Some(shape) => {
                    let extent = shape.len().checked_sub(back + 1).map(|axis| shape[axis]);
                    extent.into_iter().for_each(|extent| self.open_extents().fix(label.clone(), extent, *place));
                }
                None => drop(self.open_extents().later.entry(label).or_insert(span)),
            }
        }
    }

    /// The table of the statement that is being evaluated.
    pub(super) fn open_extents(&mut self) -> &mut Extents {
        self.extents.last_mut().expect("a statement is open")
    }
}
