//! Reductions over axes.

use super::{Doc, Rule, exactly, expect_ascending, expect_float, refuse};
use crate::graph::{ShapeError, TensorType};
use trainc_kernels::ir::ReduceKind;

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
}

impl Reduce {
    fn positions(&self, x: &TensorType, kept: Vec<u64>) -> Result<TensorType, ShapeError> {
        let reduced: u64 = self.axes.iter().map(|&axis| x.shape[axis]).product();
        match i32::try_from(reduced) {
            Ok(_) => Ok(TensorType::i32(kept)),
            Err(_) => refuse(format!("positions among {reduced} elements of {x} do not fit i32")),
        }
    }
}
