//! Index notation: `x[b, t, d]`, `qkv[0, ..]`, `image[b, c, 2 * i + p - 1, j]`, `table[tokens[b, t], d]`.

use super::{
    evaluator::{Checked, Evaluator},
    letters::{Affine, Entry, letters_of},
    value::{Axis, Label, Tensor, Value, axis_names, shape_shown, short_text},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op},
    source::Span,
    syntax::tree::{Expr, ExprKind, IndexEntry},
};

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
                    let entry = self.entry(expr, entries)?;
                    self.apply(&mut cursor, entry, position, expr.span)?;
                }
            }
        }
        self.no_index_twice(&cursor.done, span)?;
        for (axis, &extent) in cursor.done.iter().zip(self.graph.shape(cursor.node)) {
            let label = axis.label.clone().expect("indexed");
            self.extents.last_mut().expect("a statement is open").fix(label, extent, axis.span.unwrap_or(span));
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
            return self.no_element(number, extent, span);
        }
        let slice = self.add(Op::Slice { axis, start: start as u64, length: 1 }, &[cursor.node], span)?;
        let mut shape = shape;
        shape.remove(axis);
        cursor.node = self.add(Op::Reshape { shape }, &[slice], span)?;
        cursor.left.pop();
        Ok(())
    }

    fn no_element(&mut self, number: f64, extent: f64, span: Span) -> Checked<()> {
        let (text, axis) = (self.text(span), format!("the axis has {extent} elements, counted from 0"));
        let computed = text.parse::<f64>().is_err();
        let label = if computed { format!("`{text}` is {number}; {axis}") } else { axis };
        let error = Diagnostic::error("E0309", span, format!("there is no element {number} here")).label(label);
        self.fail(error.help(format!("the last element is {}, or -1", extent - 1.0)))
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
        let evaluated = self.expression(value)?;
        let tensor = self.operand(evaluated, span)?;
        if !tensor.is_indexed() {
            return self.nothing_to_arrange(&tensor, axes, value, span);
        }
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
        self.other_indices(&order, free, span)
    }

    /// The error for an order that lists other indices than the free ones.
    fn other_indices<T>(&mut self, order: &[Label], free: &[Axis], span: Span) -> Checked<T> {
        let names: Vec<&str> = free.iter().filter_map(|axis| axis.label.as_ref().map(Label::shown)).collect();
        let names = names.join(", ");
        let error = Diagnostic::error("E0316", span, "this order does not list the free indices");
        let error = match order.iter().find(|label| !free.iter().any(|axis| axis.label.as_ref() == Some(label))) {
            Some(other) => error.note(format!("no axis of the value has the index `{}`", other.shown())),
            None => error,
        };
        if free.is_empty() {
            let error = error.label("the value is a single number, without axes");
            return self.fail(error.help("remove the `->` and what follows it"));
        }
        self.fail(
            error
                .label(format!("the free indices are [{names}]"))
                .help(format!("write `-> [{names}]` in the order that you want")),
        )
    }

    /// The error for an order behind a tensor without indices.
    fn nothing_to_arrange<T>(&mut self, tensor: &Tensor, order: &[IndexEntry], value: &Expr, span: Span) -> Checked<T> {
        let shape = shape_shown(&tensor.axes, &self.shape(tensor));
        let text = short_text(self.text(value.span)).map_or_else(|| "value".to_string(), |text| text.to_string());
        let simple = matches!(value.kind, ExprKind::Name(_) | ExprKind::Call { .. } | ExprKind::Group(_));
        let text = if simple { text } else { format!("({text})") };
        let letters = letters_of(tensor.axes.len());
        let error = Diagnostic::error("E0316", span, "this value has no indices that could be arranged")
            .label(format!("its axes are {shape}, by position"))
            .note("a name, a call of a layer and `join`, `part`, `reshape` give tensors whose axes have no indices")
            .note(format!("for another order give them indices first: `{text}[{letters}] -> [..]`"));
        let arrow = Span { start: value.span.end, ..span };
        self.fail(if order.len() == tensor.axes.len() {
            error.replace(arrow, "", "to keep the axes as they are, remove the order")
        } else {
            error.help("to keep the axes as they are, remove the order")
        })
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
