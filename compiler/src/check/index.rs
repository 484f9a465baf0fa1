//! Index notation: `x[b, t, d]`, `qkv[0, ..]`, `image[b, c, 2 * i + p - 1, j]`, `table[tokens[b, t], d]`.

use super::{
    evaluator::{Checked, Evaluator},
    value::{Axis, Label, Tensor, Value, axis_names, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op},
    source::Span,
    syntax::tree::{BinaryOp, Expr, ExprKind, IndexEntry, UnaryOp},
};
use std::rc::Rc;
use trainc_runtime::artifact::DType;

/// What stands at one position between the brackets.
enum Entry {
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
struct Affine {
    terms: Vec<(Label, f64)>,
    offset: f64,
}

/// A term of an affine entry whose meaning as a window is settled: element = stride * outer + inner + offset.
struct Windows {
    outer: Label,
    inner: Option<Label>,
    stride: u64,
    size: u64,
    offset: i64,
}

/// A tensor whose axes are being indexed from left to right.
struct Cursor {
    node: NodeId,
    /// Axes before the cursor, indexed.
    done: Vec<Axis>,
    /// Axes behind it.
    left: Vec<Axis>,
}

impl Evaluator<'_> {
    /// `base[entries]`.
    pub(super) fn index(&mut self, base: &Expr, entries: &[IndexEntry], span: Span) -> Checked<Value> {
        let value = self.expression(base)?;
        if let Value::Tuple(values) = &value {
            return self.tuple_element(values, entries, span);
        }
        let tensor = self.operand(value, base.span)?.closed();
        let rest = self.rest_length(&tensor, entries, span)?;
        let mut left = tensor.axes;
        left.reverse();
        let mut cursor = Cursor { node: tensor.node, done: Vec::new(), left };
        for (position, entry) in entries.iter().enumerate() {
            match entry {
                IndexEntry::Rest(span) => cursor.pass_rest(rest, *span),
                IndexEntry::Position(expr) => {
                    let entry = self.entry(expr)?;
                    self.apply(&mut cursor, entry, position, expr.span)?;
                }
            }
        }
        self.no_index_twice(&cursor.done, span)?;
        for (axis, &extent) in cursor.done.iter().zip(self.graph.shape(cursor.node)) {
            let table = self.extents.last_mut().expect("a statement is open");
            table.entry(axis.label.clone().expect("indexed")).or_insert((extent, axis.span.unwrap_or(span)));
        }
        let position = tensor.position;
        Ok(Value::Tensor(Tensor { node: cursor.node, axes: cursor.done, position }))
    }

    fn tuple_element(&mut self, values: &[Value], entries: &[IndexEntry], span: Span) -> Checked<Value> {
        if let [IndexEntry::Position(expr)] = entries
            && let Value::Number(number) = self.expression(expr)?
            && let Some(value) = values.get(number.value as usize)
            && number.value >= 0.0
            && number.value.fract() == 0.0
        {
            return Ok(value.clone());
        }
        self.fail(
            Diagnostic::error("E0306", span, format!("this has {} values", values.len()))
                .label("expected one whole number, counted from 0, between the brackets"),
        )
    }

    /// How many axes `..` stands for.
    fn rest_length(&mut self, tensor: &Tensor, entries: &[IndexEntry], span: Span) -> Checked<usize> {
        let rests = entries.iter().filter(|entry| matches!(entry, IndexEntry::Rest(_))).count();
        let (rank, named) = (tensor.axes.len(), entries.len() - rests);
        if rests <= 1 && named <= rank && (rests == 1 || named == rank) {
            return Ok(rank - named);
        }
        let shown = shape_shown(&tensor.axes, &self.shape(tensor));
        let error = if rests > 1 {
            Diagnostic::error("E0306", span, "`..` stands twice between these brackets")
        } else {
            let axes = if rank == 1 { "axis" } else { "axes" };
            Diagnostic::error("E0306", span, format!("this tensor has {rank} {axes}, not {named}"))
        };
        self.fail(error.label(format!("of shape {shown}")).help("write one index for each axis; `..` for leading axes"))
    }

    fn no_index_twice(&mut self, axes: &[Axis], span: Span) -> Checked<()> {
        for (i, axis) in axes.iter().enumerate() {
            if axes[..i].iter().any(|earlier| earlier.label == axis.label) {
                let name = axis.label.as_ref().map_or("..", Label::shown).to_string();
                return self.fail(
                    Diagnostic::error(
                        "E0307",
                        axis.span.unwrap_or(span),
                        format!("the index `{name}` stands twice here"),
                    )
                    .label("diagonals cannot be written this way")
                    .help("use two indices, and `if index(i) == index(j) then ... else 0` to pick the diagonal"),
                );
            }
        }
        Ok(())
    }

    /// Reads what stands at one position.
    fn entry(&mut self, expr: &Expr) -> Checked<Entry> {
        if let ExprKind::Name(name) = &expr.kind {
            return Ok(match self.number_in_brackets(name, expr.span, false) {
                Some(number) => Entry::Element(number),
                None => Entry::Index(self.label(name)),
            });
        }
        match self.affine(expr)? {
            Some(affine) if affine.terms.is_empty() => Ok(Entry::Element(affine.offset)),
            Some(affine) => Ok(Entry::Affine(affine)),
            None => self.lookup_entry(expr),
        }
    }

    fn lookup_entry(&mut self, expr: &Expr) -> Checked<Entry> {
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

    /// The number that a name between brackets stands for, if it is not an index: names of dims are indices when they
    /// stand alone, and numbers within arithmetic.
    fn number_in_brackets(&mut self, name: &str, span: Span, within: bool) -> Option<f64> {
        if self.frame().axes.contains_key(name) {
            return None;
        }
        let known = self.frame().names.get(name).cloned();
        let value = match known {
            Some(value) => value,
            None if matches!(self.library.find(name, span.file), Some(super::library::Entity::Const(_))) => {
                self.lookup(name, span).ok()?
            }
            None => return None,
        };
        match value {
            Value::Number(number) if within || !number.dim => Some(number.plain()),
            _ => None,
        }
    }

    /// The entry as a sum of indices and numbers; `None` if it is something else.
    fn affine(&mut self, expr: &Expr) -> Checked<Option<Affine>> {
        let affine = match &expr.kind {
            ExprKind::Number(number) => Some(Affine { terms: Vec::new(), offset: number.value }),
            ExprKind::Name(name) => Some(match self.number_in_brackets(name, expr.span, true) {
                Some(offset) => Affine { terms: Vec::new(), offset },
                None => Affine { terms: vec![(self.label(name), 1.0)], offset: 0.0 },
            }),
            ExprKind::Group(inner) => self.affine(inner)?,
            ExprKind::Unary(UnaryOp::Neg, inner) => self.affine(inner)?.map(|inner| inner.scaled(-1.0)),
            ExprKind::Binary(op, a, b) => match (self.affine(a)?, self.affine(b)?) {
                (Some(a), Some(b)) => Affine::combined(*op, a, b),
                _ => None,
            },
            _ => None,
        };
        Ok(affine)
    }

    fn apply(&mut self, cursor: &mut Cursor, entry: Entry, position: usize, span: Span) -> Checked<()> {
        match entry {
            Entry::Index(label) => {
                cursor.pass(label, span);
                Ok(())
            }
            Entry::Element(number) => self.pick(cursor, number, span),
            Entry::Lookup(ids) => self.look_up(cursor, ids, position, span),
            Entry::Affine(affine) => {
                let windows = self.windows(affine, span)?;
                self.slide(cursor, windows, span)
            }
        }
    }

    /// One element of an axis, counted from 0 (from the end if negative).
    fn pick(&mut self, cursor: &mut Cursor, number: f64, span: Span) -> Checked<()> {
        let axis = cursor.done.len();
        let shape = self.graph.shape(cursor.node).to_vec();
        let extent = shape[axis] as f64;
        let start = if number < 0.0 { number + extent } else { number };
        if start.fract() != 0.0 || !(0.0..extent).contains(&start) {
            return self.fail(
                Diagnostic::error("E0309", span, format!("there is no element {number} here"))
                    .label(format!("the axis has {extent} elements, counted from 0")),
            );
        }
        let slice = self.add(Op::Slice { axis, start: start as u64, length: 1 }, &[cursor.node], span)?;
        let mut shape = shape;
        shape.remove(axis);
        cursor.node = self.add(Op::Reshape { shape }, &[slice], span)?;
        cursor.left.pop();
        Ok(())
    }

    /// Rows of a table by integers.
    fn look_up(&mut self, cursor: &mut Cursor, ids: Tensor, position: usize, span: Span) -> Checked<()> {
        if position != 0 {
            return self.fail(
                Diagnostic::error("E0308", span, "only rows can be looked up")
                    .label("integers may stand at the first position alone")
                    .help("arrange the table so that this axis comes first: `table[a, b] -> [b, a]`"),
            );
        }
        cursor.node = self.add(Op::Gather, &[cursor.node, ids.node], span)?;
        cursor.left.pop();
        cursor.done.extend(ids.axes);
        Ok(())
    }

    /// Settles which index of an affine entry runs within a window and which from window to window.
    fn windows(&mut self, affine: Affine, span: Span) -> Checked<Windows> {
        let Affine { terms, offset } = affine;
        let whole = |x: f64| x.fract() == 0.0 && x.abs() <= 1e9;
        if !whole(offset) || terms.iter().any(|(_, factor)| !whole(*factor) || *factor <= 0.0) || terms.len() > 2 {
            return self.unsupported_entry(span);
        }
        let offset = offset as i64;
        if let [(outer, stride)] = &terms[..] {
            let windows = Windows { outer: outer.clone(), inner: None, stride: *stride as u64, size: 1, offset };
            return Ok(windows);
        }
        let ((first, factor), (second, other)) = (terms[0].clone(), terms[1].clone());
        let (outer, stride, inner) = match (factor, other) {
            (1.0, 1.0) if self.extent(&first).is_some() && self.extent(&second).is_none() => (second, 1.0, first),
            (stride, 1.0) => (first, stride, second),
            (1.0, stride) => (second, stride, first),
            _ => return self.unsupported_entry(span),
        };
        let size = match self.extent(&inner) {
            Some((size, _)) => size,
            None if stride > 1.0 => stride as u64,
            None => return self.unknown_range(&inner, span),
        };
        Ok(Windows { outer, inner: Some(inner), stride: stride as u64, size, offset })
    }

    fn unsupported_entry<T>(&mut self, span: Span) -> Checked<T> {
        self.fail(
            Diagnostic::error("E0308", span, "this is not an index that the language has")
                .label("expected `i`, `i + 1`, `2 * i`, or windows `2 * i + p - 1`")
                .note("factors are positive whole numbers; the index within a window has the factor 1"),
        )
    }

    /// The error for an index whose extent nothing fixes.
    pub(super) fn unknown_range<T>(&mut self, label: &Label, span: Span) -> Checked<T> {
        let name = label.shown().to_string();
        self.fail(
            Diagnostic::error("E0314", span, format!("nothing here says how far the index `{name}` runs"))
                .label("no tensor in this statement is indexed by it alone")
                .help(format!("index a tensor by `{name}` in the same expression")),
        )
    }

    /// Extent of an index: in the open statements, or else of the dim that has its name.
    pub(super) fn extent(&self, label: &Label) -> Option<(u64, Option<Span>)> {
        if let Some((extent, place)) = self.extents.iter().rev().find_map(|table| table.get(label)) {
            return Some((*extent, Some(*place)));
        }
        let Label::Index { frame, name } = label else { return None };
        let frame = self.frames.iter().rev().find(|open| open.id == *frame)?;
        match frame.names.get(&**name) {
            Some(Value::Number(number)) if number.dim => Some((number.value as u64, None)),
            _ => None,
        }
    }

    /// Windows (or a shifted or strided view) of an axis. Outside the tensor stand zeros: as many before as the
    /// negative offset asks for, and behind as many as the range of the index asks for, if that is known, or else as
    /// many as before.
    fn slide(&mut self, cursor: &mut Cursor, windows: Windows, span: Span) -> Checked<()> {
        let axis = cursor.done.len();
        let n = self.graph.shape(cursor.node)[axis] as i64;
        let Windows { outer, inner, stride, size, offset } = windows;
        let (before, start) = ((-offset).max(0), offset.max(0));
        let known = self.extent(&outer).map(|(extent, _)| extent);
        let count = match known {
            Some(count) => count as i64,
            None if inner.is_none() && stride == 1 => n,
            None => (n + 2 * before - start - size as i64).div_euclid(stride as i64) + 1,
        };
        if count <= 0 || start >= n {
            return self.fail(
                Diagnostic::error("E0315", span, "no window fits here")
                    .label(format!("windows of {size} in an axis of {n}"))
                    .help("make the window smaller or pad more"),
            );
        }
        let needed = (count - 1) * stride as i64 + size as i64;
        let after = (needed + start - n - before).max(0);
        self.pad_and_cut(cursor, axis, [before, after, start, needed], span)?;
        if inner.is_some() || stride > 1 {
            cursor.node = self.add(Op::Window { axis, size, stride }, &[cursor.node], span)?;
        }
        cursor.pass(outer, span);
        match inner {
            Some(inner) => cursor.done.push(Axis { name: None, label: Some(inner), span: Some(span) }),
            None if stride > 1 => {
                let mut shape = self.graph.shape(cursor.node).to_vec();
                shape.remove(axis + 1);
                cursor.node = self.add(Op::Reshape { shape }, &[cursor.node], span)?;
            }
            None => {}
        }
        Ok(())
    }

    fn pad_and_cut(&mut self, cursor: &mut Cursor, axis: usize, amounts: [i64; 4], span: Span) -> Checked<()> {
        let [before, after, start, length] = amounts.map(|amount| amount as u64);
        if before > 0 || after > 0 {
            cursor.node = self.add(Op::Pad { axis, before, after }, &[cursor.node], span)?;
        }
        if self.graph.shape(cursor.node)[axis] != length {
            cursor.node = self.add(Op::Slice { axis, start, length }, &[cursor.node], span)?;
        }
        if let Some(last) = cursor.left.last_mut() {
            last.name = None;
        }
        Ok(())
    }

    /// `value -> [c, b, h]`: the free indices in another order.
    pub(super) fn arrange(&mut self, value: &Expr, axes: &[IndexEntry], span: Span) -> Checked<Value> {
        if let Some(value) = self.arranged_sum(value, axes, span)? {
            return Ok(value);
        }
        let value = self.expression(value)?;
        let tensor = self.operand(value, span)?;
        let order = self.arranged_labels(axes, &tensor.axes, span)?;
        self.arranged(tensor, &order, span).map(Value::Tensor)
    }

    /// A tensor with its indices in a given order.
    pub(super) fn arranged(&mut self, tensor: Tensor, order: &[Label], span: Span) -> Checked<Tensor> {
        let axes: Vec<usize> = order.iter().filter_map(|label| tensor.axis_of(label)).collect();
        let node = self.permuted(tensor.node, &axes, span)?;
        let axes = axes.into_iter().map(|axis| tensor.axes[axis].clone()).collect();
        Ok(Tensor { node, axes, position: tensor.position })
    }

    /// The indices behind `->`, which must be exactly the free ones.
    pub(super) fn arranged_labels(&mut self, axes: &[IndexEntry], free: &[Axis], span: Span) -> Checked<Vec<Label>> {
        let mut order = Vec::new();
        for entry in axes {
            match entry {
                IndexEntry::Rest(_) => order.extend(
                    free.iter().filter_map(|axis| axis.label.clone()).filter(|label| matches!(label, Label::Rest(_))),
                ),
                IndexEntry::Position(Expr { kind: ExprKind::Name(name), .. }) => order.push(self.label(name)),
                IndexEntry::Position(other) => {
                    let error = Diagnostic::error("E0316", other.span, "expected the name of an index")
                        .help("list the free indices in the order that the result shall have");
                    return self.fail(error);
                }
            }
        }
        let mut wanted: Vec<Option<Label>> = order.iter().cloned().map(Some).collect();
        let mut found: Vec<Option<Label>> = free.iter().map(|axis| axis.label.clone()).collect();
        wanted.sort();
        found.sort();
        if wanted == found {
            return Ok(order);
        }
        let names: Vec<&str> = free.iter().filter_map(|axis| axis.label.as_ref().map(Label::shown)).collect();
        let names = names.join(", ");
        self.fail(
            Diagnostic::error("E0316", span, "this order does not list the free indices")
                .label(format!("the free indices are [{names}]"))
                .help(format!("write `-> [{names}]` in the order that you want")),
        )
    }

    /// Extents of the indices that stand alone between brackets in an expression, so that windows and `index(i)` know
    /// them wherever they stand.
    pub(super) fn scan_extents(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Index { base, entries } => self.scan_index(base, entries),
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
                    self.fix_extent(label.clone(), extent, span);
                }
            }
        }
    }

    fn scan_index(&mut self, base: &Expr, entries: &[IndexEntry]) {
        for entry in entries {
            if let IndexEntry::Position(expr) = entry
                && !matches!(expr.kind, ExprKind::Name(_))
            {
                self.scan_extents(expr);
            }
        }
        let ExprKind::Name(name) = &base.kind else { return self.scan_extents(base) };
        let Some(Value::Tensor(tensor)) = self.frame().names.get(name).cloned() else { return };
        let shape = self.shape(&tensor);
        // Positions are counted from the end, as `..` stands for leading axes.
        for (entry, extent) in entries.iter().rev().zip(shape.into_iter().rev()) {
            let IndexEntry::Position(expr) = entry else { break };
            if let ExprKind::Name(name) = &expr.kind
                && self.number_in_brackets(name, expr.span, false).is_none()
            {
                let label = self.label(name);
                self.fix_extent(label, extent, expr.span);
            }
        }
    }

    fn fix_extent(&mut self, label: Label, extent: u64, span: Span) {
        self.extents.last_mut().expect("a statement is open").entry(label).or_insert((extent, span));
    }

    /// The error for a tensor that lacks an index.
    pub(super) fn lacks_index<T>(&mut self, tensor: &Tensor, label: &Label, span: Span) -> Checked<T> {
        let name = label.shown().to_string();
        let error = Diagnostic::error("E0310", span, format!("no axis of this tensor has the index `{name}`"));
        let error = if tensor.is_indexed() && !tensor.axes.is_empty() {
            let names: Vec<&str> =
                tensor.axes.iter().filter_map(|axis| axis.label.as_ref().map(Label::shown)).collect();
            error.label(format!("its indices are [{}]", names.join(", ")))
        } else {
            let shape = self.shape(tensor);
            error.label(format!("it has the axes {} without indices", axis_names(&tensor.axes, &shape)))
        };
        self.fail(error.help(format!("write the indices behind the tensor, for example `x[.., {name}]`")))
    }
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

impl Cursor {
    /// Gives the next axis an index.
    fn pass(&mut self, label: Label, span: Span) {
        let axis = self.left.pop().expect("counted by rest_length");
        self.done.push(Axis { label: Some(label), span: Some(span), ..axis });
    }

    /// Gives the next axes the indices of `..`.
    fn pass_rest(&mut self, count: usize, span: Span) {
        for i in (0..count).rev() {
            self.pass(Label::Rest(i), span);
        }
    }
}
