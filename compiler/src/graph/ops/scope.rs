//! Operations that lead into, through and out of repeats.

use super::{Doc, Rule, exactly, expect_float, extent, refuse};
use crate::graph::{ScopeId, ShapeError, TensorType};

pub(super) struct Layer {
    pub scope: ScopeId,
}

impl Layer {
    pub const DOC: Doc = Doc {
        name: "Layer",
        operands: "x `[count, ...r]`, outside",
        result: "`[...r]`, in `scope`",
        meaning: "in instance i, slice i of x",
        gradient: "the Stack of g",
    };
}

impl Rule for Layer {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("layer", operands)?;
        extent("layer", x, 0)?;
        Ok(TensorType { dtype: x.dtype, shape: x.shape[1..].to_vec() })
    }
}

pub(super) struct Carry {
    pub scope: ScopeId,
    pub index: u32,
}

impl Carry {
    pub const DOC: Doc = Doc {
        name: "Carry",
        operands: "the initial value, outside",
        result: "as the initial value, in `scope`",
        meaning: "in the first instance the initial value, then `next` of the instance before; reversed carries run down",
        gradient: "is `next` of a carry that runs the other way, whose `Last` goes to the initial value",
    };
}

impl Rule for Carry {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [init] = exactly("carry", operands)?;
        Ok(init.clone())
    }
}

pub(super) struct Last;

impl Last {
    pub const DOC: Doc = Doc {
        name: "Last",
        operands: "a Carry",
        result: "as the Carry, outside",
        meaning: "its `next` after the last instance",
        gradient: "is the initial value of a carry that runs the other way",
    };
}

impl Rule for Last {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [carry] = exactly("last", operands)?;
        Ok(carry.clone())
    }
}

pub(super) struct Stack {
    pub count: u64,
}

impl Stack {
    pub const DOC: Doc = Doc {
        name: "Stack",
        operands: "x `[...r]`, in a scope",
        result: "`[count, ...r]`, outside",
        meaning: "the values of all instances, one after the other",
        gradient: "the Layer of g",
    };
}

impl Rule for Stack {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("stack", operands)?;
        if self.count == 0 {
            return refuse("a stack of no instances");
        }
        Ok(TensorType { dtype: x.dtype, shape: [&[self.count], x.shape.as_slice()].concat() })
    }
}

pub(super) struct SumInstances;

impl SumInstances {
    pub const DOC: Doc = Doc {
        name: "SumInstances",
        operands: "x: f32, in a scope",
        result: "as x, outside",
        meaning: "the sum over the instances, 0 first",
        gradient: "g in every instance",
    };
}

impl Rule for SumInstances {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("a sum of instances", operands)?;
        expect_float("a sum of instances", x)?;
        Ok(x.clone())
    }
}
