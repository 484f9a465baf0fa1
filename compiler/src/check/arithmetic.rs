//! Element-by-element operations: alignment of operands, numbers, and the choice of operations.

use super::{
    evaluator::{Checked, Evaluator, Failed},
    value::{Axis, Number, Tensor, Value, shape_shown, unit_suffix},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op},
    source::Span,
    syntax::tree::{BinaryOp, Unit},
};
use trainc_kernels::ir::{Binary, Unary};
use trainc_runtime::artifact::DType;

impl Evaluator<'_> {
    /// `a op b`.
    pub(super) fn binary(&mut self, op: BinaryOp, a: Value, b: Value, span: Span) -> Checked<Value> {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => self.number_binary(op, &a, &b, span),
            (a, b) if is_comparable(&a) && is_comparable(&b) => self.compare_constants(op, &a, &b, span),
            (a, b) => self.tensor_binary(op, a, b, span),
        }
    }

    fn number_binary(&mut self, op: BinaryOp, a: &Number, b: &Number, span: Span) -> Checked<Value> {
        let unit = self.joint_unit(op, a, b, span)?;
        let (x, y) = if unit == Unit::Percent { (a.value, b.value) } else { (a.plain(), b.plain()) };
        let truth = |holds: bool| f64::from(u8::from(holds));
        let value = match op {
            BinaryOp::Or => truth(x != 0.0 || y != 0.0),
            BinaryOp::And => truth(x != 0.0 && y != 0.0),
            BinaryOp::Less => truth(x < y),
            BinaryOp::LessEqual => truth(x <= y),
            BinaryOp::Greater => truth(x > y),
            BinaryOp::GreaterEqual => truth(x >= y),
            BinaryOp::Equal => truth(x == y),
            BinaryOp::NotEqual => truth(x != y),
            BinaryOp::Add => x + y,
            BinaryOp::Sub => x - y,
            BinaryOp::Mul => x * y,
            BinaryOp::Div => x / y,
            BinaryOp::Pow => x.powf(y),
        };
        if value.is_nan() || (matches!(op, BinaryOp::Div) && y == 0.0) {
            return self.fail(
                Diagnostic::error("E0401", span, "this number is undefined")
                    .label(format!("with {} and {}", a.shown(), b.shown()))
                    .help("change one of the two numbers"),
            );
        }
        let text = self.text(span);
        let name = super::value::short_text(text);
        Ok(Value::Number(Number { value, unit, name, dim: false }))
    }

    /// The unit of a result. Bare numbers scale anything; equal units add up; a percentage next to a bare number is a
    /// share of 1.
    fn joint_unit(&mut self, op: BinaryOp, a: &Number, b: &Number, span: Span) -> Checked<Unit> {
        let scales = matches!(op, BinaryOp::Mul | BinaryOp::Div);
        let adds = matches!(op, BinaryOp::Add | BinaryOp::Sub);
        match (a.unit, b.unit) {
            (Unit::None | Unit::Percent, Unit::None | Unit::Percent) => Ok(Unit::None),
            (unit, Unit::None) if scales => Ok(unit),
            (Unit::None, unit) if op == BinaryOp::Mul => Ok(unit),
            (a, b) if a == b && adds => Ok(a),
            (a, b) if a == b && op != BinaryOp::Mul && op != BinaryOp::Pow => Ok(Unit::None),
            _ => self.fail(
                Diagnostic::error("E0405", span, "these units do not go together")
                    .label(format!("{} and {}", a.shown(), b.shown()))
                    .help("give both numbers the same unit"),
            ),
        }
    }

    fn compare_constants(&mut self, op: BinaryOp, a: &Value, b: &Value, span: Span) -> Checked<Value> {
        let equal = match (a, b) {
            (Value::Nothing, Value::Nothing) => true,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Definition(a), Value::Definition(b)) => a == b,
            (Value::Builtin(a), Value::Builtin(b)) => a.name == b.name,
            _ => false,
        };
        match op {
            BinaryOp::Equal => Ok(Value::truth(equal)),
            BinaryOp::NotEqual => Ok(Value::truth(!equal)),
            _ => self.fail(
                Diagnostic::error("E0304", span, "this is not arithmetic on numbers or tensors").label(format!(
                    "{} and {}",
                    a.describe(),
                    b.describe()
                )),
            ),
        }
    }

    fn tensor_binary(&mut self, op: BinaryOp, a: Value, b: Value, span: Span) -> Checked<Value> {
        if op == BinaryOp::Mul && is_indexed(&a) && is_indexed(&b) && (has_axes(&a) || has_axes(&b)) {
            return self.product(a, b, span);
        }
        if let (BinaryOp::Pow, Value::Number(exponent)) = (op, &b)
            && let Some(value) = self.known_power(&a, exponent.plain(), span)?
        {
            return Ok(value);
        }
        if let Some(value) = self.simplified(op, &a, &b, span)? {
            return Ok(value);
        }
        let (a, b) = (self.operand(a, span)?, self.operand(b, span)?);
        let float = matches!(op, BinaryOp::Div | BinaryOp::Pow | BinaryOp::And | BinaryOp::Or);
        let (a, b) = self.same_type(a, b, float, span)?;
        let (nodes, axes) = self.align(&[a.clone(), b.clone()], span)?;
        let node = self.elementwise(op, nodes[0], nodes[1], span)?;
        let position = a.position && b.position && self.graph.node(node).ty.dtype == DType::I32;
        Ok(Value::Tensor(Tensor { node, axes, position }))
    }

    /// What is left of an operation with a known 0 or 1, so that `weight_decay = 0` leaves no trace in the graph.
    fn simplified(&mut self, op: BinaryOp, a: &Value, b: &Value, span: Span) -> Checked<Option<Value>> {
        let known = |this: &Self, value: &Value| match value {
            Value::Number(number) if matches!(number.unit, Unit::None | Unit::Percent) => Some(number.plain()),
            Value::Tensor(tensor) => this.graph.splat(tensor.node),
            _ => None,
        };
        let (left, right) = (known(self, a), known(self, b));
        let result = match (op, left, right) {
            (BinaryOp::Mul, Some(0.0), _) => return self.nothing_of(b, span),
            (BinaryOp::Mul, _, Some(0.0)) => return self.nothing_of(a, span),
            (BinaryOp::Mul, Some(1.0), _) | (BinaryOp::Add, Some(0.0), _) if self.covers(b, a) => b,
            (BinaryOp::Mul | BinaryOp::Div, _, Some(1.0)) | (BinaryOp::Add | BinaryOp::Sub, _, Some(0.0))
                if self.covers(a, b) =>
            {
                a
            }
            _ => return Ok(None),
        };
        Ok(Some(result.clone()))
    }

    /// Whether a value is a tensor whose shape and indices the other one would not change.
    fn covers(&self, value: &Value, other: &Value) -> bool {
        let Value::Tensor(tensor) = value else { return false };
        let float = self.graph.node(tensor.node).ty.dtype == DType::F32;
        float
            && match other {
                Value::Number(_) => true,
                Value::Tensor(other) if other.axes.is_empty() => true,
                Value::Tensor(other) if tensor.is_indexed() && other.is_indexed() => {
                    other.axes.iter().zip(self.shape(other)).all(|(axis, extent)| {
                        let own = axis.label.as_ref().and_then(|label| tensor.axis_of(label));
                        own.is_some_and(|own| self.graph.shape(tensor.node)[own] == extent)
                    })
                }
                Value::Tensor(other) => self.shape(tensor).ends_with(&self.shape(other)),
                _ => false,
            }
    }

    /// Zeros in place of a tensor.
    fn nothing_of(&mut self, value: &Value, span: Span) -> Checked<Option<Value>> {
        let Value::Tensor(tensor) = value else { return Ok(None) };
        let shape = self.shape(tensor);
        let node = self.filled(0.0, &shape, span)?;
        Ok(Some(Value::Tensor(Tensor { node, position: false, ..tensor.clone() })))
    }

    /// The operation proper, on nodes of one shape and type.
    fn elementwise(&mut self, op: BinaryOp, a: NodeId, b: NodeId, span: Span) -> Checked<NodeId> {
        let (binary, swapped) = match op {
            BinaryOp::Add => (Binary::Add, false),
            BinaryOp::Sub => (Binary::Sub, false),
            BinaryOp::Mul | BinaryOp::And => (Binary::Mul, false),
            BinaryOp::Div => (Binary::Div, false),
            BinaryOp::Pow => (Binary::Pow, false),
            BinaryOp::Or => (Binary::Max, false),
            BinaryOp::Less => (Binary::Less, false),
            BinaryOp::LessEqual => (Binary::LessEqual, false),
            BinaryOp::Greater => (Binary::Less, true),
            BinaryOp::GreaterEqual => (Binary::LessEqual, true),
            BinaryOp::Equal | BinaryOp::NotEqual => (Binary::Equal, false),
        };
        if op == BinaryOp::Add
            && let Some(rounded) = self.offset_product(a, b, span)?
        {
            return Ok(rounded);
        }
        let logistic = match op {
            BinaryOp::Div => self.logistic_quotient(a, b, span)?,
            BinaryOp::Add => self.logistic_sum(a, b, span)?,
            _ => None,
        };
        if let Some(whole) = logistic {
            return Ok(whole);
        }
        let operands = if swapped { [b, a] } else { [a, b] };
        let node = self.add(Op::Binary(binary), &operands, span)?;
        if op == BinaryOp::NotEqual { self.complement(node, span) } else { Ok(node) }
    }

    /// `1 - x` for truth values.
    pub(super) fn complement(&mut self, node: NodeId, span: Span) -> Checked<NodeId> {
        let shape = self.graph.shape(node).to_vec();
        let one = self.filled(1.0, &shape, span)?;
        self.add(Op::Binary(Binary::Sub), &[one, node], span)
    }

    /// A tensor with one number everywhere.
    pub(super) fn filled(&mut self, value: f64, shape: &[u64], span: Span) -> Checked<NodeId> {
        let constant = self.add(Op::constant(value), &[], span)?;
        self.spread(constant, &[], shape, span)
    }

    /// Powers that need no logarithm.
    fn known_power(&mut self, base: &Value, exponent: f64, span: Span) -> Checked<Option<Value>> {
        if exponent == 1.0 {
            return Ok(Some(base.clone()));
        }
        let unary = match exponent {
            -1.0 => Unary::Reciprocal,
            0.5 => Unary::Sqrt,
            -0.5 => Unary::Rsqrt,
            2.0 => return self.square(base, span).map(Some),
            _ => return Ok(None),
        };
        self.unary(unary, base.clone(), span).map(Some)
    }

    fn square(&mut self, base: &Value, span: Span) -> Checked<Value> {
        let base = self.operand(base.clone(), span)?;
        let base = self.float(base, span)?;
        let node = self.add(Op::Binary(Binary::Mul), &[base.node, base.node], span)?;
        Ok(Value::Tensor(Tensor { node, ..base }))
    }

    /// A function of each element; of a number, while compiling.
    pub(super) fn unary(&mut self, op: Unary, value: Value, span: Span) -> Checked<Value> {
        if let Value::Number(number) = &value {
            let result = op.apply(number.plain());
            if result.is_nan() {
                let message = format!("this number is undefined for {}", number.shown());
                return self.fail(Diagnostic::error("E0401", span, message));
            }
            let unit = if op == Unary::Neg { number.unit } else { Unit::None };
            let result = if unit == Unit::Percent { -number.value } else { result };
            return Ok(Value::Number(Number { value: result, unit, name: None, dim: false }));
        }
        let tensor = self.operand(value, span)?;
        let tensor = self.float(tensor, span)?;
        let node = match self.logistic_form(op, tensor.node, span)? {
            Some(node) => node,
            None => self.add(Op::Unary(op), &[tensor.node], span)?,
        };
        Ok(Value::Tensor(Tensor { node, ..tensor }))
    }

    /// The larger (or smaller) of two values.
    pub(super) fn extreme(&mut self, op: Binary, a: Value, b: Value, span: Span) -> Checked<Value> {
        if let (Value::Number(a), Value::Number(b)) = (&a, &b) {
            let unit = self.joint_unit(BinaryOp::Sub, a, b, span)?;
            return Ok(Value::Number(Number { value: op.apply(a.plain(), b.plain()), unit, name: None, dim: false }));
        }
        let (a, b) = (self.operand(a, span)?, self.operand(b, span)?);
        let (a, b) = self.same_type(a, b, false, span)?;
        let (nodes, axes) = self.align(&[a, b], span)?;
        let node = self.add(Op::Binary(op), &nodes, span)?;
        Ok(Value::Tensor(Tensor { node, axes, position: false }))
    }

    /// `if condition then a else b`, element by element.
    pub(super) fn select(&mut self, condition: Value, a: Value, b: Value, span: Span) -> Checked<Value> {
        let condition = self.operand(condition, span)?;
        let condition = self.float(condition, span)?;
        let (a, b) = (self.operand(a, span)?, self.operand(b, span)?);
        let (a, b) = self.same_type(a, b, false, span)?;
        // The indices of what is chosen come before those of the condition.
        let (nodes, axes) = self.align(&[a, b, condition], span)?;
        let node = self.add(Op::Select, &[nodes[2], nodes[0], nodes[1]], span)?;
        Ok(Value::Tensor(Tensor { node, axes, position: false }))
    }

    /// A value as a tensor: products are computed, numbers become constants.
    pub(super) fn operand(&mut self, value: Value, span: Span) -> Checked<Tensor> {
        match value {
            Value::Tensor(tensor) => Ok(tensor),
            Value::Product(factors) => self.multiply_out(factors, span),
            Value::Number(number) => {
                if !matches!(number.unit, Unit::None | Unit::Percent) {
                    return self.fail(
                        Diagnostic::error(
                            "E0405",
                            span,
                            "a number with this unit is not part of arithmetic on tensors",
                        )
                        .label(format!("`{}` has a unit", unit_suffix(number.unit).trim()))
                        .help("write a bare number"),
                    );
                }
                let node = self.add(Op::constant(number.plain()), &[], span)?;
                // Numbers take the type of what they meet.
                Ok(Tensor { node, axes: Vec::new(), position: number.plain().fract() == 0.0 })
            }
            Value::Unknown => Err(Failed),
            other => {
                let found = other.describe();
                self.fail(
                    Diagnostic::error("E0304", span, "expected a tensor or a number").label(format!("found {found}")),
                )
            }
        }
    }

    /// The tensor as floats. Positions turn by themselves; other integers only by `float(...)`.
    pub(super) fn float(&mut self, tensor: Tensor, span: Span) -> Checked<Tensor> {
        if self.graph.node(tensor.node).ty.dtype == DType::F32 {
            return Ok(Tensor { position: false, ..tensor });
        }
        if !tensor.position {
            return self.integers_are_not_numbers(span);
        }
        let node = self.add(Op::ToFloat, &[tensor.node], span)?;
        Ok(Tensor { node, position: false, ..tensor })
    }

    fn integers_are_not_numbers<T>(&mut self, span: Span) -> Checked<T> {
        self.fail(
            Diagnostic::error("E0303", span, "integers where floating-point numbers are needed")
                .label("one of the operands here holds integers, such as token ids")
                .note("integers are looked up in tables (`table[tokens[b, t], d]`), compared, or converted")
                .help("write `float(...)` around the integers if their size means something"),
        )
    }

    /// Both operands in one element type.
    fn same_type(&mut self, a: Tensor, b: Tensor, float: bool, span: Span) -> Checked<(Tensor, Tensor)> {
        let integer = |this: &Self, tensor: &Tensor| this.graph.node(tensor.node).ty.dtype == DType::I32;
        let (a_integer, b_integer) = (integer(self, &a), integer(self, &b));
        match (a_integer, b_integer) {
            (true, true) if !float => Ok((a, b)),
            (true, false) if !float && is_whole(self, &b) => Ok((a, self.whole(b, span)?)),
            (false, true) if !float && is_whole(self, &a) => Ok((self.whole(a, span)?, b)),
            _ => Ok((self.float(a, span)?, self.float(b, span)?)),
        }
    }

    /// A whole constant as an integer.
    fn whole(&mut self, tensor: Tensor, span: Span) -> Checked<Tensor> {
        let Op::Constant { value, .. } = self.graph.node(tensor.node).op else { return Ok(tensor) };
        let node = self.add(Op::Constant { value, dtype: DType::I32 }, &[], span)?;
        Ok(Tensor { node, ..tensor })
    }

    /// Brings operands to one shape. With indices on all of them: the union of the indices in order of first
    /// appearance. Otherwise by position, where a shape may be a suffix of another.
    pub(super) fn align(&mut self, tensors: &[Tensor], span: Span) -> Checked<(Vec<NodeId>, Vec<Axis>)> {
        if tensors.iter().all(Tensor::is_indexed) {
            self.align_by_index(tensors, span)
        } else {
            self.align_by_position(tensors, span)
        }
    }

    fn align_by_index(&mut self, tensors: &[Tensor], span: Span) -> Checked<(Vec<NodeId>, Vec<Axis>)> {
        let (axes, shape) = self.union(tensors, span)?;
        let nodes = tensors.iter().map(|tensor| self.spread_to(tensor, &axes, &shape, span)).collect::<Checked<_>>()?;
        Ok((nodes, axes))
    }

    /// All indices of some tensors with their extents. `..` stands before the rest.
    pub(super) fn union(&mut self, tensors: &[Tensor], span: Span) -> Checked<(Vec<Axis>, Vec<u64>)> {
        let mut axes: Vec<Axis> = Vec::new();
        let mut shape: Vec<u64> = Vec::new();
        for tensor in tensors {
            for (axis, &extent) in tensor.axes.iter().zip(&self.shape(tensor)) {
                match axes.iter().position(|known| known.label == axis.label) {
                    None => {
                        axes.push(axis.clone());
                        shape.push(extent);
                    }
                    Some(known) if shape[known] != extent => {
                        return self.index_conflict(&axes[known], shape[known], axis, extent, span);
                    }
                    Some(known) => axes[known].name = axes[known].name.take().or_else(|| axis.name.clone()),
                }
            }
        }
        Ok((axes, shape))
    }

    fn index_conflict<T>(&mut self, a: &Axis, n: u64, b: &Axis, m: u64, span: Span) -> Checked<T> {
        let name = a.label.as_ref().map_or("..", |label| label.shown()).to_string();
        let called = |axis: &Axis, extent: u64| match &axis.name {
            Some(dim) if dim.parse::<f64>().is_err() => format!("`{name}` runs over {dim} = {extent} here"),
            _ => format!("`{name}` runs over {extent} here"),
        };
        let first = b.span.unwrap_or(span);
        let mut error = Diagnostic::error("E0305", first, format!("the index `{name}` has two extents: {n} and {m}"))
            .label(called(b, m))
            .help("use another index name for one of the axes, or make the dims equal");
        if let Some(other) = a.span {
            error = error.also(other, called(a, n));
        }
        self.fail(error)
    }

    /// A tensor spread over a list of indices that contains its own.
    pub(super) fn spread_to(&mut self, tensor: &Tensor, axes: &[Axis], shape: &[u64], span: Span) -> Checked<NodeId> {
        let targets: Vec<usize> = tensor
            .axes
            .iter()
            .map(|axis| axes.iter().position(|known| known.label == axis.label).expect("the union has every index"))
            .collect();
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|&axis| targets[axis]);
        let node = self.permuted(tensor.node, &order, span)?;
        let sorted: Vec<usize> = order.iter().map(|&axis| targets[axis]).collect();
        self.spread(node, &sorted, shape, span)
    }

    /// Permutes axes, unless they are in order.
    pub(super) fn permuted(&mut self, node: NodeId, order: &[usize], span: Span) -> Checked<NodeId> {
        if order.is_sorted() { Ok(node) } else { self.add(Op::Permute { axes: order.to_vec() }, &[node], span) }
    }

    /// Broadcasts, unless the shape is right.
    pub(super) fn spread(&mut self, node: NodeId, axes: &[usize], shape: &[u64], span: Span) -> Checked<NodeId> {
        if self.graph.shape(node) == shape {
            return Ok(node);
        }
        self.add(Op::Broadcast { axes: axes.to_vec(), shape: shape.to_vec() }, &[node], span)
    }

    fn align_by_position(&mut self, tensors: &[Tensor], span: Span) -> Checked<(Vec<NodeId>, Vec<Axis>)> {
        let shapes: Vec<Vec<u64>> = tensors.iter().map(|tensor| self.shape(tensor)).collect();
        let longest = (0..tensors.len()).rev().max_by_key(|&i| shapes[i].len()).expect("at least one operand");
        let target = shapes[longest].clone();
        let mut nodes = Vec::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            let first = target.len() - shapes[i].len();
            if target[first..] != shapes[i][..] {
                return self.shape_mismatch(&tensors[longest], tensor, span);
            }
            let axes: Vec<usize> = (first..target.len()).collect();
            nodes.push(self.spread(tensor.node, &axes, &target, span)?);
        }
        let mut axes = tensors[longest].axes.clone();
        for tensor in tensors {
            let first = axes.len() - tensor.axes.len();
            for (axis, other) in axes[first..].iter_mut().zip(&tensor.axes) {
                axis.name = axis.name.take().or_else(|| other.name.clone());
            }
        }
        if !tensors[longest].is_indexed() {
            axes.iter_mut().for_each(|axis| axis.label = None);
        }
        Ok((nodes, axes))
    }

    fn shape_mismatch<T>(&mut self, a: &Tensor, b: &Tensor, span: Span) -> Checked<T> {
        let (a, b) = (shape_shown(&a.axes, &self.shape(a)), shape_shown(&b.axes, &self.shape(b)));
        self.fail(
            Diagnostic::error("E0302", span, "these tensors do not have the same shape")
                .label(format!("{a} and {b}"))
                .note("tensors combine element by element if their shapes are equal or one ends with the other")
                .help("in index notation, `x[b, t, d] * w[b]`, any axes can be combined"),
        )
    }

    /// `a * b` in index notation, kept as a product.
    fn product(&mut self, a: Value, b: Value, span: Span) -> Checked<Value> {
        let mut factors = Vec::new();
        for value in [a, b] {
            match value {
                Value::Product(more) => factors.extend(more),
                other => {
                    let tensor = self.operand(other, span)?;
                    factors.push(self.float(tensor, span)?);
                }
            }
        }
        self.union(&factors, span)?;
        Ok(Value::Product(factors))
    }

    /// Computes a product element by element.
    pub(super) fn multiply_out(&mut self, factors: Vec<Tensor>, span: Span) -> Checked<Tensor> {
        let mut factors = factors.into_iter();
        let mut product = factors.next().expect("a product has factors");
        for factor in factors {
            let (nodes, axes) = self.align(&[product, factor], span)?;
            let node = self.add(Op::Binary(Binary::Mul), &nodes, span)?;
            product = Tensor { node, axes, position: false };
        }
        Ok(product)
    }
}

/// Whether multiplication by this can wait: a tensor with an index on every axis, or a number.
fn is_indexed(value: &Value) -> bool {
    match value {
        Value::Product(_) | Value::Number(_) => true,
        Value::Tensor(tensor) => tensor.is_indexed(),
        _ => false,
    }
}

fn has_axes(value: &Value) -> bool {
    match value {
        Value::Product(_) => true,
        Value::Tensor(tensor) => !tensor.axes.is_empty(),
        _ => false,
    }
}

/// Values that can be compared while compiling, other than numbers.
fn is_comparable(value: &Value) -> bool {
    matches!(
        value,
        Value::Nothing | Value::Text(_) | Value::Definition(_) | Value::Builtin(_) | Value::Number(_) | Value::Init(_)
    )
}

fn is_whole(evaluator: &Evaluator<'_>, tensor: &Tensor) -> bool {
    tensor.position && matches!(evaluator.graph.node(tensor.node).op, Op::Constant { .. })
}
