//! `name = value` and `q, k, v = values`: what a name holds.

use super::{
    evaluator::{Checked, Evaluator},
    value::{Axis, Label, Tensor, Value, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::Op,
    source::Span,
    syntax::tree::{Expr, Name},
};

impl Evaluator<'_> {
    /// Gives names to a value, or to its parts.
    pub(super) fn assign(&mut self, targets: &[Name], value: &Expr) -> Checked<()> {
        self.scan_extents(value);
        let value = self.expression(value).map(|evaluated| (evaluated, value.span))?;
        match targets {
            [target] => {
                let value = self.named(value.0, value.1)?;
                self.frame().names.insert(target.text.clone(), value);
                Ok(())
            }
            _ => {
                let values = self.unpack(value.0, targets, value.1)?;
                for (target, value) in targets.iter().zip(values) {
                    self.frame().names.insert(target.text.clone(), value);
                }
                Ok(())
            }
        }
    }

    /// A value as a name holds it. A name stands for a tensor without indices, so that each use says its own; only the
    /// caller's indices, which a function cannot write, stay. Likewise each part of a tuple.
    fn named(&mut self, value: Value, span: Span) -> Checked<Value> {
        let frame = self.frame().id;
        let foreign = |axis: &Axis| matches!(&axis.label, Some(Label::Index { frame: owner, .. }) if *owner != frame);
        match value {
            Value::Tensor(tensor) if !tensor.axes.iter().any(foreign) => Ok(Value::Tensor(tensor.closed())),
            Value::Product(factors) if !factors.iter().flat_map(|factor| &factor.axes).any(foreign) => {
                self.multiply_out(factors, span).map(|tensor| Value::Tensor(tensor.closed()))
            }
            Value::Tuple(values) => {
                values.into_iter().map(|value| self.named(value, span)).collect::<Checked<_>>().map(Value::Tuple)
            }
            other => Ok(other),
        }
    }

    /// `q, k, v = ...`: the parts of several values, or slices along the first axis of a tensor.
    fn unpack(&mut self, value: Value, targets: &[Name], span: Span) -> Checked<Vec<Value>> {
        let count = targets.len();
        let found = match value {
            Value::Tuple(values) if values.len() == count => {
                return values.into_iter().map(|value| self.named(value, span)).collect();
            }
            Value::Tuple(values) => format!("{} values", values.len()),
            value @ (Value::Tensor(_) | Value::Product(_)) => {
                let tensor = self.operand(value, span)?.closed();
                let shape = self.shape(&tensor);
                if shape.first() == Some(&(count as u64)) {
                    return (0..count).map(|i| self.slice_first(&tensor, i as u64, span)).collect();
                }
                format!("a tensor of shape {}", shape_shown(&tensor.axes, &shape))
            }
            other => other.describe(),
        };
        let error = Diagnostic::error("E0318", targets[0].span, format!("{count} names for {found}"))
            .label(format!("expected {count} values, or a tensor with {count} slices along its first axis"))
            .help("give as many names as there are values");
        self.fail(error)
    }

    fn slice_first(&mut self, tensor: &Tensor, start: u64, span: Span) -> Checked<Value> {
        let slice = self.add(Op::Slice { axis: 0, start, length: 1 }, &[tensor.node], span)?;
        let shape = self.graph.shape(slice)[1..].to_vec();
        let node = self.add(Op::Reshape { shape }, &[slice], span)?;
        Ok(Value::Tensor(Tensor { node, axes: tensor.axes[1..].to_vec(), position: tensor.position }))
    }
}
