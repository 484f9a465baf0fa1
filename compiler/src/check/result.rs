//! What leaves a call: of the shape that is declared, and without the indices that belong to the call.

use super::{
    evaluator::{Checked, Evaluator},
    value::{Axis, Label, Tensor, Value, shape_shown, short_text},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Definition, DefinitionKind, Dim, Expr, ExprKind, Statement},
};

impl Evaluator<'_> {
    /// The value that leaves a call: of the declared shape; without the indices that belong to the call.
    pub(super) fn result(&mut self, definition: &Definition, value: Value, span: Span) -> Checked<Value> {
        if let (Value::Tuple(values), None) = (&value, &definition.result) {
            self.whole_parts(definition, values)?;
            return Ok(value);
        }
        if definition.kind == DefinitionKind::Layer || definition.result.is_some() {
            let place = body_place(definition);
            if definition.result.is_none() && !matches!(value, Value::Tensor(_) | Value::Product(_)) {
                return Ok(value);
            }
            let tensor = self.operand(value, place)?;
            let tensor = self.in_declared_order(definition.result.as_deref(), tensor, place)?.closed();
            if let Some(dims) = &definition.result {
                self.check_result(definition, dims, &tensor, place)?;
            }
            return Ok(Value::Tensor(tensor));
        }
        if !self.belongs_here(&value) {
            return Ok(value);
        }
        self.operand(value, span).map(|tensor| Value::Tensor(tensor.closed()))
    }

    /// Refuses a tuple whose parts have indices of the call: each part would leave it half in index notation.
    fn whole_parts(&mut self, definition: &Definition, values: &[Value]) -> Checked<()> {
        let Some(part) = values.iter().position(|value| self.belongs_here(value)) else { return Ok(()) };
        let place = match definition.body.last() {
            Some(Statement::Result(Expr { kind: ExprKind::Tuple(parts) | ExprKind::List(parts), .. })) => {
                parts.get(part).map_or(body_place(definition), |part| part.span)
            }
            _ => body_place(definition),
        };
        let name = &definition.name.text;
        let text = short_text(self.text(place)).map_or_else(|| "...".to_string(), |text| text.to_string());
        let error = Diagnostic::error("E0330", place, format!("`{name}` gives a tuple with a part in index notation"))
            .label("these indices mean nothing outside of it")
            .note("a name closes an expression: it stands for the tensor, and whoever uses it writes indices of their own")
            .help(format!("name the part in the body: `y = {text}`, and write `y` in the tuple"));
        self.fail(error)
    }

    /// Whether a value, or a part of it, has indices that belong to the innermost call.
    fn belongs_here(&mut self, value: &Value) -> bool {
        let frame = self.frame().id;
        let own = |axis: &Axis| matches!(&axis.label, Some(Label::Index { frame: owner, .. }) if *owner == frame);
        match value {
            Value::Tensor(tensor) => tensor.axes.iter().any(own),
            Value::Product(factors) => factors.iter().flat_map(|factor| &factor.axes).any(own),
            Value::Tuple(values) => values.iter().any(|value| self.belongs_here(value)),
            _ => false,
        }
    }

    /// A result whose indices have the names of the declared dims, in the order of these.
    fn in_declared_order(&mut self, dims: Option<&[Dim]>, tensor: Tensor, place: Span) -> Checked<Tensor> {
        let Some(dims) = dims.filter(|_| tensor.is_indexed()) else { return Ok(tensor) };
        let mut order = Vec::new();
        for dim in dims {
            match dim {
                Dim::Rest(_) => order.extend(
                    tensor.axes.iter().filter_map(|axis| axis.label.clone()).filter(|l| matches!(l, Label::Rest(_))),
                ),
                Dim::Size(Expr { kind: ExprKind::Name(name), .. }) => order.push(self.label(name)),
                Dim::Size(_) => return Ok(tensor),
            }
        }
        let matching = order.len() == tensor.axes.len() && order.iter().all(|label| tensor.axis_of(label).is_some());
        if matching { self.arranged(tensor, &order, place) } else { Ok(tensor) }
    }

    fn check_result(&mut self, definition: &Definition, dims: &[Dim], tensor: &Tensor, place: Span) -> Checked<()> {
        self.bind_dims(dims, tensor, &|this, problem| {
            let found = shape_shown(&tensor.axes, &this.shape(tensor));
            let declared: Vec<&str> = dims
                .iter()
                .map(|dim| match dim {
                    Dim::Rest(_) => "..",
                    Dim::Size(expr) => this.text(expr.span),
                })
                .collect();
            let name = &definition.name.text;
            let message = format!("`{name}` declares the result [{}], but gives {found}", declared.join(", "));
            Diagnostic::error("E0301", place, message)
                .label(problem)
                .also(definition.name.span, "declared here")
                .help("correct the declared result, or the body")
        })
    }
}

/// Where the result of a definition is written.
fn body_place(definition: &Definition) -> Span {
    match definition.body.last() {
        Some(Statement::Result(expr)) => expr.span,
        _ => definition.name.span,
    }
}
