//! Matrix products of any rank: einsums of two operands.

use super::{Call, Doc, Rule, exactly, expect_float, refuse};
use crate::graph::{
    Contraction, InterpretError, NodeId, ShapeError, Tensor, TensorType, interpret::Moment, value::offsets,
};
use std::collections::BTreeMap;

pub(super) struct Contract(pub Contraction);

impl Contract {
    pub const DOC: Doc = Doc {
        name: "Contract",
        operands: "a, b: f32",
        result: "the extents of the labels `out`",
        meaning: "the sum of products over the labels that are not in `out`; operands rounded to `precision` first",
        gradient: "to a the contraction of g and b, to b that of a and g, with the labels that belong to them",
    };
}

impl Rule for Contract {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [a, b] = exactly("contraction", operands)?;
        expect_float("contraction", a)?;
        expect_float("contraction", b)?;
        let Contraction { lhs, rhs, out, .. } = &self.0;
        let mut extents = BTreeMap::new();
        bind(&mut extents, lhs, a)?;
        bind(&mut extents, rhs, b)?;
        expect_distinct(out)?;
        if let Some(label) =
            extents.keys().find(|label| !out.contains(label) && lhs.contains(label) != rhs.contains(label))
        {
            return refuse(format!("contraction: label {label} of one operand alone is not in the result"));
        }
        let shape: Option<Vec<u64>> = out.iter().map(|label| extents.get(label).copied()).collect();
        match shape {
            Some(shape) => Ok(TensorType::f32(shape)),
            None => refuse(format!("contraction: labels {out:?} are not all labels of the operands")),
        }
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let [a, b] = [operands[0], operands[1]].map(|operand| operand.map(|x| self.0.precision.round(x)));
        let ty = self.infer(&[&a.ty, &b.ty]).map_err(|error| InterpretError(error.0))?;
        let Contraction { lhs, rhs, out, .. } = &self.0;
        let summed: Vec<u8> = lhs.iter().copied().filter(|label| !out.contains(label)).collect();
        let extents: Vec<u64> = summed.iter().map(|label| a.shape()[position(lhs, *label)]).collect();
        let places = |x: &Tensor, own: &[u8], labels: &[u8], extents: &[u64]| offsets(extents, &along(x, own, labels));
        let outer = places(&a, lhs, out, &ty.shape).into_iter().zip(places(&b, rhs, out, &ty.shape));
        let (inner_a, inner_b) = (places(&a, lhs, &summed, &extents), places(&b, rhs, &summed, &extents));
        let element = |(at_a, at_b): (usize, usize)| {
            inner_a.iter().zip(&inner_b).map(|(i, j)| a.data[at_a + i] * b.data[at_b + j]).sum()
        };
        Ok(Tensor::new(ty, outer.map(element).collect()))
    }

    fn gradient(&self, call: &mut Call, operand: usize) -> Option<NodeId> {
        let Contraction { lhs, rhs, out, precision } = &self.0;
        let (a, b, seed) = (call.operands[0], call.operands[1], call.seed);
        Some(match operand {
            0 => call.graph.contract(seed, b, [out, rhs, lhs], *precision),
            _ => call.graph.contract(a, seed, [lhs, out, rhs], *precision),
        })
    }
}

/// Gives the labels of an operand their extents; a label that has one must have the same.
fn bind(extents: &mut BTreeMap<u8, u64>, labels: &[u8], operand: &TensorType) -> Result<(), ShapeError> {
    expect_distinct(labels)?;
    if labels.len() != operand.rank() {
        return refuse(format!("contraction: {} labels for {operand}", labels.len()));
    }
    for (&label, &extent) in labels.iter().zip(&operand.shape) {
        let known = *extents.entry(label).or_insert(extent);
        if known != extent {
            return refuse(format!("contraction: label {label} has extents {known} and {extent}"));
        }
    }
    Ok(())
}

fn expect_distinct(labels: &[u8]) -> Result<(), ShapeError> {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() == labels.len() {
        Ok(())
    } else {
        refuse(format!("contraction: a label occurs twice in {labels:?}"))
    }
}

/// Strides of an operand along these labels; 0 along those that it does not have.
fn along(operand: &Tensor, own: &[u8], labels: &[u8]) -> Vec<u64> {
    let strides = operand.strides();
    labels.iter().map(|label| own.iter().position(|other| other == label).map_or(0, |axis| strides[axis])).collect()
}

fn position(labels: &[u8], label: u8) -> usize {
    labels.iter().position(|&other| other == label).expect("a summed label is a label of both operands")
}
