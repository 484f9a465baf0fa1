//! Matrix products of any rank: einsums of two operands.

use super::{Doc, Rule, exactly, expect_float, refuse};
use crate::graph::{Contraction, ShapeError, TensorType};
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
