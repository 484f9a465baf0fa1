//! Calls as other languages have them: axes by number, dims that are found out, arguments with other names.

use super::{
    call::Given,
    evaluator::{Checked, Evaluator},
    value::{Label, Number, Tensor, Value, numbers_shown, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Argument, ExprKind},
};

impl Evaluator<'_> {
    /// The error for a reduction with more than its tensor: `mean(x, 1)`, `sum(x, axis = 1)`, `sum(a, b)`.
    pub(super) fn more_than_one_tensor<T>(&mut self, word: &str, given: &[Given], span: Span) -> Checked<T> {
        let (tensor, second) = (&given[0], &given[1]);
        let Some(numbers) = axis_numbers(&second.value) else {
            let error = Diagnostic::error("E0212", second.span, "a reduction takes one tensor");
            return self.fail(error.label("there are several arguments here"));
        };
        let x = self.operand(tensor.value.clone(), tensor.span)?;
        let shape = shape_shown(&x.axes, &self.shape(&x));
        let error =
            Diagnostic::error("E0334", second.span, format!("`{word}` takes letters of axes, not their numbers"))
                .label(format!("the axes of the tensor are {shape}"))
                .note("an axis that has gone comes back where letters ask for it: `x[b, d] - mean[d](x[b, d])`");
        let error = match self.reduced_by_letters(word, &x, tensor.span, &numbers) {
            Some(mend) => error.replace(span, mend, "give the axes letters, and name the one that goes"),
            None => error.help(format!("name the axis: `{word}[d](x[.., d])`")),
        };
        self.fail(error)
    }

    /// `mean[j](x[i, j])` for the mean of x over its axis 1.
    fn reduced_by_letters(&self, word: &str, x: &Tensor, place: Span, numbers: &[f64]) -> Option<String> {
        let rank = x.axes.len() as f64;
        let axis = |number: &f64| if *number < 0.0 { number + rank } else { *number };
        let axes: Vec<usize> = numbers
            .iter()
            .map(axis)
            .map(|axis| (axis.fract() == 0.0 && (0.0..rank).contains(&axis)).then_some(axis as usize))
            .collect::<Option<_>>()?;
        let text = self.text(place);
        let (letters, indexed): (Vec<String>, String) = if x.is_indexed() {
            let letters = x.axes.iter().map(|axis| axis.label.as_ref().map_or("..", Label::shown).to_string());
            (letters.collect(), text.to_string())
        } else {
            let letters: Vec<String> = self.free_letters(x.axes.len(), &[], place);
            let name = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let base = if name { text.to_string() } else { format!("({text})") };
            let indexed = format!("{base}[{}]", letters.join(", "));
            (letters, indexed)
        };
        let gone: Vec<&str> = axes.iter().map(|&axis| letters[axis].as_str()).collect();
        if gone.contains(&"..") {
            return None;
        }
        Some(format!("{word}[{}]({indexed})", gone.join(", ")))
    }

    /// Refuses arguments with names where a builtin takes any number of values: `join(a, b, axis = 1)`.
    pub(super) fn no_names(&mut self, builtin: &str, given: &[Given]) -> Checked<()> {
        let Some(name) = given.iter().find_map(|given| given.name.as_ref()) else { return Ok(()) };
        let error = Diagnostic::error("E0212", name.span, format!("`{builtin}` has no argument `{}`", name.text));
        self.fail(if builtin == "join" {
            error.label("it takes tensors, and joins them along the last axis").help(
                "for another axis bring it to the end: `join(a[b, t, d] -> [b, d, t], ...)[b, d, t] -> [b, t, d]`",
            )
        } else {
            error.label("it takes extents").help(format!("write `{builtin}(2, 3)`"))
        })
    }

    /// Refuses a `reshape` with dims that are not written as a list, or with one that is to be found out.
    pub(super) fn reshape_is_written_out(
        &mut self,
        given: &[Given],
        arguments: &[Argument],
        span: Span,
    ) -> Checked<()> {
        if let [x, dims @ ..] = given
            && dims.len() > 1
            && dims.iter().all(|dim| dim.name.is_none() && matches!(dim.value, Value::Number(_)))
        {
            let (x, dims) = (self.text(x.span), dims.iter().map(|dim| self.text(dim.span)).collect::<Vec<_>>());
            let mend = format!("reshape({x}, [{}])", dims.join(", "));
            let error = Diagnostic::error("E0212", given[2].span, "`reshape` takes its dims as one list");
            return self.fail(error.label("it takes `x` and `dims`").replace(span, mend, "put the dims in brackets"));
        }
        let Some(Given { value: Value::Tuple(dims), .. }) = given.get(1) else { return Ok(()) };
        let unknown = |value: &Value| matches!(value, Value::Number(number) if number.value == -1.0);
        let Some(position) = dims.iter().position(unknown) else { return Ok(()) };
        let place = match arguments.get(1).map(|argument| &argument.value.kind) {
            Some(ExprKind::List(parts)) => parts.get(position).map_or(span, |part| part.span),
            _ => span,
        };
        self.found_out_dim(given[0].clone(), dims, place)
    }

    fn found_out_dim(&mut self, x: Given, dims: &[Value], place: Span) -> Checked<()> {
        let x = self.operand(x.value, x.span)?;
        let shape = self.shape(&x);
        let known = dims.iter().filter_map(|dim| match dim {
            Value::Number(Number { value, .. }) if *value >= 1.0 => Some(*value),
            _ => None,
        });
        let (elements, others) = (shape.iter().map(|&extent| extent as f64).product::<f64>(), known.product::<f64>());
        let error = Diagnostic::error("E0335", place, "a dim of `reshape` cannot be left to be found out")
            .label(format!("the tensor has the shape {}", numbers_shown(&shape)))
            .note("dims are written out, so that a shape that does not fit is an error where it stands");
        self.fail(if (elements / others).fract() == 0.0 {
            error.replace(
                place,
                (elements / others).to_string(),
                "write the dim, for example by the names of other dims",
            )
        } else {
            error.help("write the dim, for example by the names of other dims: `c * h * w`")
        })
    }
}

/// Numbers where axes are meant.
fn axis_numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Number(number) => Some(vec![number.value]),
        Value::Tuple(values) => values.iter().map(axis_numbers).collect::<Option<Vec<_>>>().map(|all| all.concat()),
        _ => None,
    }
}
