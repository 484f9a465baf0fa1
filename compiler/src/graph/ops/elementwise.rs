//! Functions of each element.

use super::{Doc, Rule, exactly, expect_float, expect_integer, refuse};
use crate::graph::{ShapeError, TensorType};
use trainc_kernels::ir::{self, Binary as F2};
use trainc_runtime::artifact::DType;

pub(super) struct Unary(pub ir::Unary);

impl Unary {
    pub const DOC: Doc = Doc {
        name: "Unary",
        operands: "x: f32",
        result: "as x",
        meaning: "neg, abs, exp, log, sqrt, rsqrt, reciprocal, tanh, sin, cos, sign, floor or erf of each element",
        gradient: "`g f'(x)`; sign and floor pass none, abs passes 0 at 0, sqrt at 0 is infinite",
    };
}

impl Rule for Unary {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let what = format!("{:?}", self.0).to_lowercase();
        let [x] = exactly(&what, operands)?;
        expect_float(&what, x)?;
        Ok(x.clone())
    }
}

pub(super) struct Binary(pub ir::Binary);

impl Binary {
    pub const DOC: Doc = Doc {
        name: "Binary",
        operands: "a, b: one type",
        result: "as a; comparisons give f32",
        meaning: "add, sub, mul, max, min, less, less or equal, equal of f32 or i32 elements; div and pow of f32",
        gradient: "`g df/da`, `g df/db`; of equal operands of max and min the second gets all; comparisons pass none",
    };

    fn what(&self) -> &'static str {
        match self.0 {
            F2::Add => "+",
            F2::Sub => "-",
            F2::Mul => "*",
            F2::Div => "/",
            F2::Max => "max",
            F2::Min => "min",
            F2::Pow => "^",
            F2::Less => "<",
            F2::LessEqual => "<=",
            F2::Equal => "==",
        }
    }

    fn is_comparison(&self) -> bool {
        matches!(self.0, F2::Less | F2::LessEqual | F2::Equal)
    }
}

impl Rule for Binary {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let what = self.what();
        let [a, b] = exactly(what, operands)?;
        expect_same(what, a, b)?;
        if matches!(self.0, F2::Div | F2::Pow) {
            expect_float(what, a)?;
        }
        let dtype = if self.is_comparison() { DType::F32 } else { a.dtype };
        Ok(TensorType { dtype, shape: a.shape.clone() })
    }
}

pub(super) struct Select;

impl Select {
    pub const DOC: Doc = Doc {
        name: "Select",
        operands: "c: f32; a, b: one type; all of one shape",
        result: "as a",
        meaning: "a where c is not 0, else b",
        gradient: "g to a where c is not 0, to b elsewhere; none to c",
    };
}

impl Rule for Select {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [condition, a, b] = exactly("select", operands)?;
        expect_float("the condition of select", condition)?;
        expect_same("select", a, b)?;
        if condition.shape != a.shape {
            return refuse(format!("select: the condition is {condition} and the choices are {a}"));
        }
        Ok(a.clone())
    }
}

pub(super) struct ToFloat;

impl ToFloat {
    pub const DOC: Doc = Doc {
        name: "ToFloat",
        operands: "x: i32",
        result: "f32 of x's shape",
        meaning: "the nearest f32",
        gradient: "none",
    };
}

impl Rule for ToFloat {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("conversion to f32", operands)?;
        expect_integer("conversion to f32", x)?;
        Ok(TensorType::f32(x.shape.clone()))
    }
}

pub(super) struct ToInteger;

impl ToInteger {
    pub const DOC: Doc = Doc {
        name: "ToInteger",
        operands: "x: f32",
        result: "i32 of x's shape",
        meaning: "x rounded toward zero, kept within the range of i32",
        gradient: "none",
    };
}

impl Rule for ToInteger {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("conversion to i32", operands)?;
        expect_float("conversion to i32", x)?;
        Ok(TensorType::i32(x.shape.clone()))
    }
}

pub(super) struct StopGradient;

impl StopGradient {
    pub const DOC: Doc = Doc { name: "StopGradient", operands: "x", result: "as x", meaning: "x", gradient: "none" };
}

impl Rule for StopGradient {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("stop_gradient", operands)?;
        Ok(x.clone())
    }
}

/// Refuses operands of different types.
fn expect_same(what: &str, a: &TensorType, b: &TensorType) -> Result<(), ShapeError> {
    if a == b { Ok(()) } else { refuse(format!("{what} needs two values of one type, and these are {a} and {b}")) }
}
