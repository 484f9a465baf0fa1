//! Operations without operands: constants and what is fed to a step.

use super::{Doc, Rule, exactly};
use crate::graph::{
    Bindings, ControlField, InterpretError, Real, ShapeError, Tensor, TensorType, interpret::Moment, value::offsets,
};
use std::collections::HashMap;
use trainc_kernels::ir::Generator;
use trainc_runtime::{artifact::DType, chacha, philox};

/// Simple operations that a draw takes.
pub(super) fn draw(generator: Generator) -> u32 {
    match generator {
        Generator::Philox => 24,
        Generator::ChaCha20 { .. } => 180,
    }
}

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

    fn evaluate(&self, _operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(Tensor::full(TensorType { dtype: self.dtype, shape: Vec::new() }, self.value.get()))
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

    fn evaluate(&self, _operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let along: Vec<u64> = (0..self.shape.len()).map(|axis| u64::from(axis == self.axis)).collect();
        let data = offsets(&self.shape, &along).into_iter().map(|i| i as f64).collect();
        Ok(Tensor::new(TensorType::i32(self.shape.clone()), data))
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

    fn evaluate(&self, _operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        bound("input", &at.bindings.inputs, self.index)
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

    fn evaluate(&self, _operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        bound("parameter", &at.bindings.parameters, self.index)
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

    fn evaluate(&self, _operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        bound("state", &at.bindings.states, self.index)
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

    fn evaluate(&self, _operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        let number = match self.0 {
            ControlField::Step => at.bindings.step,
            ControlField::Steps => at.bindings.steps,
        };
        Ok(Tensor::full(TensorType::i32([]), f64::from(number)))
    }
}

pub(super) struct Random {
    pub generator: Generator,
    pub stream: u32,
    pub shape: Vec<u64>,
}

impl Random {
    pub const DOC: Doc = Doc {
        name: "Random",
        operands: "",
        result: "f32 of `shape`",
        meaning: "uniform draws in `[0, 1)` of `stream`, step, instance of `scope` and element: by Philox4x32-10 under the seed, or a `word` of ChaCha20's block under a key of the operating system",
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

    fn evaluate(&self, _operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        let Bindings { seed, key, step, .. } = *at.bindings;
        let (stream, instance) = (self.stream, at.instance as u32);
        let draw = |element| match self.generator {
            Generator::Philox => philox::Draw { seed, stream, step, instance }.uniform(element),
            Generator::ChaCha20 { word } => chacha::Draw { key, stream, step, instance }.uniform(element, word),
        };
        let ty = TensorType::f32(self.shape.clone());
        let data = (0..ty.elements() as u32).map(|element| f64::from(draw(element))).collect();
        Ok(Tensor::new(ty, data))
    }
}

fn bound(what: &str, values: &HashMap<u32, Tensor>, index: u32) -> Result<Tensor, InterpretError> {
    values.get(&index).cloned().ok_or_else(|| InterpretError(format!("{what} {index} is not bound")))
}
