//! Reductions over axes.

use super::{Arithmetic, Call, Class, Doc, Facts, Rule, Traffic, exactly, expect_ascending, expect_float, refuse};
use crate::graph::{
    Graph, InterpretError, NodeId, Op, ShapeError, Tensor, TensorType, interpret::Moment, value::offsets,
};
use trainc_kernels::ir::{Binary, ReduceKind};

/// Sums and maxima may join the kernel of their operand; a position is found by a kernel of its own.
pub(super) fn facts(kind: ReduceKind) -> Facts {
    let traffic = match kind {
        ReduceKind::ArgMax => Traffic::Stored,
        ReduceKind::Sum | ReduceKind::Max => Traffic::Fused,
    };
    Facts { traffic, ..Facts::kernel(Class::Reduction, Arithmetic::Operand(0)) }
}

pub(super) struct Reduce {
    pub kind: ReduceKind,
    pub axes: Vec<usize>,
}

impl Reduce {
    pub const DOC: Doc = Doc {
        name: "Reduce",
        operands: "x: f32",
        result: "x without `axes`; ArgMax gives i32",
        meaning: "sum, maximum, or row-major position within `axes` of the first maximum",
        gradient: "g, copied along `axes`; of a maximum only where it is first attained, as in max pooling",
    };
}

impl Rule for Reduce {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("reduction", operands)?;
        expect_float("reduction", x)?;
        expect_ascending("reduction", &self.axes, x.rank())?;
        if self.axes.is_empty() {
            return refuse("reduction over no axis");
        }
        let kept = (0..x.rank()).filter(|axis| !self.axes.contains(axis)).map(|axis| x.shape[axis]);
        match self.kind {
            ReduceKind::ArgMax => self.positions(x, kept.collect()),
            ReduceKind::Sum | ReduceKind::Max => Ok(TensorType::f32(kept.collect::<Vec<_>>())),
        }
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let x = operands[0];
        let kept: Vec<usize> = (0..x.shape().len()).filter(|axis| !self.axes.contains(axis)).collect();
        let inner = view(x, &self.axes);
        let reduce = |outer: usize| self.fold(inner.iter().map(|offset| x.data[outer + offset]));
        let data = view(x, &kept).into_iter().map(reduce).collect();
        let ty = self.infer(&[&x.ty]).map_err(|error| InterpretError(error.0))?;
        Ok(Tensor::new(ty, data))
    }

    fn passes_gradient(&self, _operand: usize) -> bool {
        self.kind != ReduceKind::ArgMax
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let shape = call.ty(0).shape;
        let seed = call.graph.broadcast_along(call.seed, &self.axes, &shape);
        match self.kind {
            ReduceKind::Sum => Some(seed),
            ReduceKind::Max => {
                let chosen = self.first_maximum(call.graph, call.operands[0], &shape);
                let zero = call.graph.full_like(0.0, seed);
                Some(call.graph.select(chosen, seed, zero))
            }
            ReduceKind::ArgMax => None,
        }
    }
}

impl Reduce {
    fn fold(&self, values: impl Iterator<Item = f64>) -> f64 {
        match self.kind {
            ReduceKind::Sum => values.sum(),
            ReduceKind::Max => values.fold(f64::NEG_INFINITY, |a, b| Binary::Max.apply(a, b)),
            ReduceKind::ArgMax => first_maximum(values) as f64,
        }
    }

    /// 1 at the first maximum along the axes, else 0.
    fn first_maximum(&self, graph: &mut Graph, x: NodeId, shape: &[u64]) -> NodeId {
        let at = graph.reduce(ReduceKind::ArgMax, x, &self.axes);
        let at = graph.broadcast_along(at, &self.axes, shape);
        let position = self.position(graph, shape);
        graph.binary(Binary::Equal, position, at)
    }

    /// The row-major position within the axes.
    fn position(&self, graph: &mut Graph, shape: &[u64]) -> NodeId {
        let mut position = None;
        for &axis in &self.axes {
            let index = graph.add(Op::Iota { axis, shape: shape.to_vec() }, &[]);
            position = Some(match position {
                None => index,
                Some(outer) => {
                    let above = graph.scale(outer, shape[axis] as f64);
                    graph.plus(above, index)
                }
            });
        }
        position.expect("a reduction has axes")
    }

    fn positions(&self, x: &TensorType, kept: Vec<u64>) -> Result<TensorType, ShapeError> {
        let reduced: u64 = self.axes.iter().map(|&axis| x.shape[axis]).product();
        match i32::try_from(reduced) {
            Ok(_) => Ok(TensorType::i32(kept)),
            Err(_) => refuse(format!("positions among {reduced} elements of {x} do not fit i32")),
        }
    }
}

/// Offsets of the elements along some axes, row-major.
fn view(x: &Tensor, axes: &[usize]) -> Vec<usize> {
    let (extents, strides) = (x.shape(), x.strides());
    let along = |of: &[u64]| axes.iter().map(|&axis| of[axis]).collect::<Vec<u64>>();
    offsets(&along(extents), &along(&strides))
}

/// Position of the first maximum; of the first NaN, if there is one.
fn first_maximum(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (position, value) in values.enumerate() {
        if value > best.1 || (value.is_nan() && !best.1.is_nan()) {
            best = (position, value);
        }
    }
    best.0
}
