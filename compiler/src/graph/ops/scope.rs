//! Operations that lead into, through and out of repeats.

use super::{Call, Doc, Rule, exactly, expect_float, extent, refuse};
use crate::graph::{InterpretError, NodeId, Op, ScopeId, ShapeError, Tensor, TensorType, interpret::Moment};

pub(super) struct Layer;

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

    fn evaluate(&self, operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError> {
        let shape = &operands[0].shape()[1..];
        let size = operands[0].strides()[0] as usize;
        let start = at.instance as usize * size;
        Ok(operands[0].pick(shape, start..start + size))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let ty = call.ty(0);
        if call.graph.node(call.seed).scope == ScopeId::ROOT {
            return Some(call.graph.broadcast_to_leading(call.seed, &ty.shape));
        }
        Some(call.graph.add(Op::Stack { count: ty.shape[0] }, &[call.seed]))
    }
}

/// Which carry, and where, is the graph's to know.
pub(super) struct Carry;

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

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(operands[0].clone())
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

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(operands[0].clone())
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

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let ty = self.infer(&[&operands[0].ty]).map_err(|error| InterpretError(error.0))?;
        Ok(Tensor::new(ty, operands.iter().flat_map(|x| x.data.iter().copied()).collect()))
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let scope = call.graph.node(call.operands[0]).scope;
        match call.graph.splat(call.seed) {
            Some(value) => Some(call.graph.full_like(value, call.operands[0])),
            None => Some(call.graph.add(Op::Layer { scope }, &[call.seed])),
        }
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

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let mut sum = operands[0].clone();
        for x in &operands[1..] {
            sum.data.iter_mut().zip(&x.data).for_each(|(sum, value)| *sum += value);
        }
        Ok(sum)
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        Some(call.seed)
    }
}
