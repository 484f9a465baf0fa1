//! Softmax attention as one operation. Rewriting introduces it for its primitive definition, after differentiation.

use super::{Doc, Rule, exactly, expect_float, refuse};
use crate::graph::{AttentionSpec, Mask, ShapeError, TensorType};

pub(super) struct Attention(pub AttentionSpec);

impl Attention {
    pub const DOC: Doc = Doc {
        name: "Attention",
        operands: "q `[b, h, t, e]`, k and v `[b, g, s, e]`, g divides h, f32",
        result: "`[b, h, t, e]`; 1: `[b, h, t]`",
        meaning: "with z = `scale` q k^T, head h using group h / (h / g), keys that the mask hides left out: \
                  softmax(z) v; 1: log sum exp z",
        gradient: "made after differentiation: AttentionBackward",
    };
}

impl Rule for Attention {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [q, k, v] = exactly("attention", operands)?;
        expect_attention(&self.0, q, k, v)?;
        Ok(q.clone())
    }

    fn further_results(&self, operands: &[&TensorType]) -> Vec<TensorType> {
        vec![TensorType::f32(&operands[0].shape[..3])]
    }
}

pub(super) struct AttentionBackward(pub AttentionSpec);

impl AttentionBackward {
    pub const DOC: Doc = Doc {
        name: "AttentionBackward",
        operands: "q, k, v, o, lse as of Attention, g as o",
        result: "as q; 1: as k; 2: as v",
        meaning: "the gradients of q, k and v, with softmax(z) recomputed as exp(z - lse)",
        gradient: "none: made after differentiation",
    };
}

impl Rule for AttentionBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [q, k, v, o, lse, g] = exactly("attention backward", operands)?;
        expect_attention(&self.0, q, k, v)?;
        let fits = o == q && g == q && *lse == TensorType::f32(&q.shape[..3]);
        if !fits {
            return refuse(format!("attention backward: q is {q}, but o is {o}, lse {lse} and the gradient {g}"));
        }
        Ok(q.clone())
    }

    fn further_results(&self, operands: &[&TensorType]) -> Vec<TensorType> {
        vec![operands[1].clone(), operands[2].clone()]
    }
}

pub(super) struct Project {
    pub index: u32,
}

impl Project {
    pub const DOC: Doc = Doc {
        name: "Project",
        operands: "an operation with several results",
        result: "as the table says of it",
        meaning: "result number `index` of it, from 1",
        gradient: "none",
    };
}

impl Rule for Project {
    fn infer(&self, _operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        refuse(format!("result {} of an unknown operation", self.index))
    }
}

fn expect_attention(spec: &AttentionSpec, q: &TensorType, k: &TensorType, v: &TensorType) -> Result<(), ShapeError> {
    expect_float("attention", q)?;
    let (&[b, h, t, e], &[kb, groups, s, ke]) = (q.shape.as_slice(), k.shape.as_slice()) else {
        return refuse(format!("attention needs q [b, h, t, e] and k [b, g, s, e], and these are {q} and {k}"));
    };
    if k != v || (b, e) != (kb, ke) || h % groups != 0 {
        return refuse(format!("attention: q {q}, k {k} and v {v} do not belong together"));
    }
    if spec.mask != Mask::Full && t != s {
        return refuse(format!("attention: a causal mask needs as many queries as keys, and these are {t} and {s}"));
    }
    Ok(())
}
