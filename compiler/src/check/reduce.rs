//! Sums, maxima and means over indices; sums of products as contractions.

use super::{
    evaluator::{Checked, Evaluator},
    value::{Axis, Label, Tensor, Value},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{Contraction, Op},
    source::Span,
    syntax::tree::{Expr, ExprKind, IndexEntry, Name},
};
use std::collections::BTreeMap;
use trainc_kernels::ir::{Binary, ReduceKind, Unary};

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    ArgMax,
}

impl Reduction {
    /// How it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
            Reduction::Max => "max",
            Reduction::Min => "min",
            Reduction::ArgMax => "argmax",
        }
    }
}

impl Evaluator<'_> {
    /// `sum[d](value)`, or over all axes if no index is named.
    pub(super) fn reduce(&mut self, kind: Reduction, axes: &[Name], value: Value, span: Span) -> Checked<Value> {
        let labels: Vec<Label> = axes.iter().map(|name| self.label(&name.text)).collect();
        if labels.is_empty() {
            return self.reduce_all(kind, value, span);
        }
        if let (Reduction::Sum, Value::Product(factors)) = (kind, &value) {
            return self.contract(factors.clone(), &labels, None, span).map(Value::Tensor);
        }
        let tensor = self.operand(value, span)?;
        let positions = self.positions(&tensor, &labels, axes)?;
        self.reduce_axes(kind, tensor, positions, span)
    }

    fn reduce_all(&mut self, kind: Reduction, value: Value, span: Span) -> Checked<Value> {
        if let Value::Tuple(_) | Value::Number(_) = value {
            let found = value.describe();
            let error = Diagnostic::error("E0304", span, format!("`{}` of one value needs a tensor", kind.word()));
            return self.fail(error.label(format!("found {found}")));
        }
        let tensor = self.operand(value, span)?;
        let positions = (0..tensor.axes.len()).collect();
        self.reduce_axes(kind, tensor, positions, span)
    }

    fn positions(&mut self, tensor: &Tensor, labels: &[Label], axes: &[Name]) -> Checked<Vec<usize>> {
        let mut positions = Vec::new();
        for (label, name) in labels.iter().zip(axes) {
            match tensor.axis_of(label) {
                Some(axis) => positions.push(axis),
                None => return self.lacks_index(tensor, label, name.span),
            }
        }
        positions.sort_unstable();
        positions.dedup();
        Ok(positions)
    }

    fn reduce_axes(&mut self, kind: Reduction, tensor: Tensor, axes: Vec<usize>, span: Span) -> Checked<Value> {
        let count: f64 = axes.iter().map(|&axis| self.graph.shape(tensor.node)[axis] as f64).product();
        let tensor = self.float(tensor, span)?;
        let left: Vec<Axis> =
            tensor.axes.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, axis)| axis.clone()).collect();
        let operation = match kind {
            Reduction::Sum | Reduction::Mean => ReduceKind::Sum,
            Reduction::Max | Reduction::Min => ReduceKind::Max,
            Reduction::ArgMax => ReduceKind::ArgMax,
        };
        let mut node = tensor.node;
        if kind == Reduction::Min {
            node = self.add(Op::Unary(Unary::Neg), &[node], span)?;
        }
        if !axes.is_empty() || kind == Reduction::ArgMax {
            node = self.add(Op::Reduce { kind: operation, axes }, &[node], span)?;
        }
        if kind == Reduction::Min {
            node = self.add(Op::Unary(Unary::Neg), &[node], span)?;
        }
        let sum = Tensor { node, axes: left, position: false };
        if kind != Reduction::Mean {
            return Ok(Value::Tensor(sum));
        }
        let shape = self.shape(&sum);
        let divisor = self.filled(count, &shape, span)?;
        let node = self.add(Op::Binary(Binary::Div), &[sum.node, divisor], span)?;
        Ok(Value::Tensor(Tensor { node, ..sum }))
    }

    /// `sum[..](product) -> [order]` directly in that order; `None` if the value is not a sum over indices.
    pub(super) fn arranged_sum(&mut self, value: &Expr, axes: &[IndexEntry], span: Span) -> Checked<Option<Value>> {
        let ExprKind::Call { callee, axes: summed, arguments } = &value.kind else { return Ok(None) };
        let [argument] = &arguments[..] else { return Ok(None) };
        let is_sum =
            matches!(self.lookup(&callee.text, callee.span)?, Value::Builtin(builtin) if builtin.name == "sum");
        if !is_sum || summed.is_empty() {
            return Ok(None);
        }
        let factors = match self.expression(&argument.value)? {
            Value::Product(factors) => factors,
            other => {
                let sum = self.reduce(Reduction::Sum, summed, other, value.span)?;
                let tensor = self.operand(sum, span)?;
                let order = self.arranged_labels(axes, &tensor.axes, span)?;
                return self.arranged(tensor, &order, span).map(|tensor| Some(Value::Tensor(tensor)));
            }
        };
        let labels: Vec<Label> = summed.iter().map(|name| self.label(&name.text)).collect();
        let free: Vec<Axis> = self.union(&factors, span)?.0;
        let free: Vec<Axis> =
            free.into_iter().filter(|axis| axis.label.as_ref().is_none_or(|label| !labels.contains(label))).collect();
        let order = self.arranged_labels(axes, &free, span)?;
        let tensor = self.contract(factors, &labels, Some(&order), span)?;
        self.arranged(tensor, &order, span).map(|tensor| Some(Value::Tensor(tensor)))
    }

    /// The sum of a product over some indices. Indices of one factor alone are summed there; then the factors are
    /// multiplied pairwise from the left, each index being summed as soon as no later factor has it. Scalars multiply
    /// the result.
    fn contract(
        &mut self,
        factors: Vec<Tensor>,
        summed: &[Label],
        order: Option<&[Label]>,
        span: Span,
    ) -> Checked<Tensor> {
        let (all, _) = self.union(&factors, span)?;
        let whole = Tensor { node: factors[0].node, axes: all.clone(), position: false };
        for label in summed {
            if whole.axis_of(label).is_none() {
                return self.lacks_index(&whole, label, span);
            }
        }
        let free: Vec<Label> = all.into_iter().filter_map(|axis| axis.label).filter(|l| !summed.contains(l)).collect();
        let order: Vec<Label> = order.map_or(free, <[Label]>::to_vec);
        let (scalars, tensors): (Vec<Tensor>, Vec<Tensor>) =
            factors.into_iter().partition(|factor| factor.axes.is_empty());
        let mut rest = self.sum_lone_indices(tensors, summed, span)?.into_iter();
        let mut product = rest.next().expect("a sum over indices has a factor with axes");
        while let Some(factor) = rest.next() {
            let later: Vec<Label> =
                rest.as_slice().iter().flat_map(|tensor| &tensor.axes).filter_map(|axis| axis.label.clone()).collect();
            let keep = |label: &Label| order.contains(label) || later.contains(label);
            product = self.pair(product, factor, &keep, &order, span)?;
        }
        self.scale(product, scalars, span)
    }

    fn scale(&mut self, product: Tensor, scalars: Vec<Tensor>, span: Span) -> Checked<Tensor> {
        let mut factors = vec![product];
        factors.extend(scalars);
        self.multiply_out(factors, span)
    }

    /// Sums each index that only one factor has.
    fn sum_lone_indices(&mut self, tensors: Vec<Tensor>, summed: &[Label], span: Span) -> Checked<Vec<Tensor>> {
        let mut uses: BTreeMap<Label, usize> = BTreeMap::new();
        for label in tensors.iter().flat_map(|tensor| &tensor.axes).filter_map(|axis| axis.label.clone()) {
            *uses.entry(label).or_insert(0) += 1;
        }
        let mut result = Vec::new();
        for tensor in tensors {
            let lone =
                |axis: &Axis| axis.label.as_ref().is_some_and(|label| summed.contains(label) && uses[label] == 1);
            let axes: Vec<usize> = (0..tensor.axes.len()).filter(|&i| lone(&tensor.axes[i])).collect();
            let reduced = if axes.is_empty() {
                Value::Tensor(tensor)
            } else {
                self.reduce_axes(Reduction::Sum, tensor, axes, span)?
            };
            result.push(self.operand(reduced, span)?);
        }
        Ok(result)
    }

    /// The product of two factors, summed over what they share and nothing later needs: a contraction if each has
    /// indices of its own (a matrix product), else element by element and a sum.
    fn pair(
        &mut self,
        a: Tensor,
        b: Tensor,
        keep: &dyn Fn(&Label) -> bool,
        order: &[Label],
        span: Span,
    ) -> Checked<Tensor> {
        let own = |x: &Tensor, y: &Tensor| {
            x.axes.iter().any(|axis| y.axis_of(axis.label.as_ref().expect("indexed")).is_none())
        };
        let (axes, _) = self.union(&[a.clone(), b.clone()], span)?;
        let vanishing: Vec<usize> =
            (0..axes.len()).filter(|&i| !keep(axes[i].label.as_ref().expect("indexed"))).collect();
        if vanishing.is_empty() || !own(&a, &b) || !own(&b, &a) {
            let product = self.multiply_out(vec![a, b], span)?;
            let value = self.reduce_axes(Reduction::Sum, product, vanishing, span)?;
            return self.operand(value, span);
        }
        let number =
            |label: &Option<Label>| axes.iter().position(|axis| axis.label == *label).expect("in the union") as u8;
        let labels = |tensor: &Tensor| tensor.axes.iter().map(|axis| number(&axis.label)).collect::<Vec<u8>>();
        let kept = |axis: &&Axis| keep(axis.label.as_ref().expect("indexed"));
        let mut out: Vec<Axis> = axes.iter().filter(kept).cloned().collect();
        if out.iter().all(|axis| order.contains(axis.label.as_ref().expect("indexed"))) {
            out.sort_by_key(|axis| order.iter().position(|label| Some(label) == axis.label.as_ref()));
        }
        let contraction = Contraction {
            lhs: labels(&a),
            rhs: labels(&b),
            out: out.iter().map(|axis| number(&axis.label)).collect(),
            precision: self.mode.precision,
        };
        let product = self.add(Op::Contract(contraction), &[a.node, b.node], span)?;
        let node = self.product_result(product, [a.node, b.node], span)?;
        Ok(Tensor { node, axes: out, position: false })
    }
}
