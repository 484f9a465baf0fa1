//! Operations without operands: constants and what is fed to a step.

use super::{Doc, Rule, exactly};
use crate::graph::{ControlField, Real, ScopeId, ShapeError, TensorType};
use trainc_runtime::artifact::DType;

pub(super) struct Constant {
    pub value: Real,
    pub dtype: DType,
}

impl Constant {
    pub const DOC: Doc =
        Doc { name: "Constant", operands: "", result: "a scalar of `dtype`", meaning: "`value`", gradient: "" };
}

impl Rule for Constant {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("a constant", operands)?;
        Ok(TensorType { dtype: self.dtype, shape: Vec::new() })
    }
}

pub(super) struct Iota {
    pub axis: usize,
    pub shape: Vec<u64>,
}

impl Iota {
    pub const DOC: Doc =
        Doc { name: "Iota", operands: "", result: "i32 of `shape`", meaning: "the index along `axis`", gradient: "" };
}

impl Rule for Iota {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("an index tensor", operands)?;
        let ty = TensorType::i32(self.shape.clone());
        super::extent("positions", &ty, self.axis)?;
        Ok(ty)
    }
}

pub(super) struct Input {
    pub index: u32,
    pub ty: TensorType,
}

impl Input {
    pub const DOC: Doc = Doc {
        name: "Input",
        operands: "",
        result: "`ty`",
        meaning: "input number `index` of the program",
        gradient: "",
    };
}

impl Rule for Input {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("an input", operands)?;
        Ok(self.ty.clone())
    }
}

pub(super) struct Parameter {
    pub index: u32,
    pub shape: Vec<u64>,
}

impl Parameter {
    pub const DOC: Doc = Doc {
        name: "Parameter",
        operands: "",
        result: "f32 of `shape`",
        meaning: "parameter number `index` at the start of the step",
        gradient: "",
    };
}

impl Rule for Parameter {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("a parameter", operands)?;
        Ok(TensorType::f32(self.shape.clone()))
    }
}

pub(super) struct State {
    pub index: u32,
    pub shape: Vec<u64>,
}

impl State {
    pub const DOC: Doc = Doc {
        name: "State",
        operands: "",
        result: "f32 of `shape`",
        meaning: "state number `index` at the start of the step",
        gradient: "",
    };
}

impl Rule for State {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("a state", operands)?;
        Ok(TensorType::f32(self.shape.clone()))
    }
}

pub(super) struct Control(pub ControlField);

impl Control {
    pub const DOC: Doc = Doc {
        name: "Control",
        operands: "",
        result: "an i32 scalar",
        meaning: "a number that the host sets for each step: updates done so far, or the horizon",
        gradient: "",
    };
}

impl Rule for Control {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("a control number", operands)?;
        Ok(TensorType::i32([]))
    }
}

pub(super) struct Random {
    pub stream: u32,
    pub shape: Vec<u64>,
    pub scope: ScopeId,
}

impl Random {
    pub const DOC: Doc = Doc {
        name: "Random",
        operands: "",
        result: "f32 of `shape`",
        meaning: "uniform draws in `[0, 1)` by Philox4x32-10, keyed by (seed, `stream`, step, instance of `scope`, element)",
        gradient: "",
    };
}

impl Rule for Random {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        exactly::<0>("a draw", operands)?;
        let ty = TensorType::f32(self.shape.clone());
        ty.check()?;
        match u32::try_from(ty.elements()) {
            Ok(_) => Ok(ty),
            Err(_) => super::refuse(format!("a draw has fewer than 2^32 elements, and this is {ty}")),
        }
    }
}
