//! Softmax attention as one operation. Rewriting introduces it for its primitive definition, after differentiation.

use super::{Doc, Rule, exactly, expect_float, refuse};
use crate::graph::{AttentionSpec, InterpretError, Mask, ShapeError, Tensor, TensorType, interpret::Moment};

pub(super) struct Attention(pub AttentionSpec);

impl Attention {
    pub const DOC: Doc = Doc {
        name: "Attention",
        operands: "q `[b, h, t, e]`, k and v `[b, g, s, e]`, g divides h, f32",
        result: "`[b, h, t, e]`; 1: `[b, h, t]`",
        meaning: "with z = `scale` q k^T, head h using group h / (h / g), keys that the mask hides left out: \
                  softmax(z) v; 1: log sum exp z. Factors of both products are rounded to `precision`, weights before they \
                  are divided by their sum",
        gradient: "made after differentiation: AttentionBackward",
    };
}

impl Rule for Attention {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [q, k, v] = exactly("attention", operands)?;
        expect_attention(q, k, v)?;
        Ok(q.clone())
    }

    fn further_results(&self, operands: &[&TensorType]) -> Vec<TensorType> {
        vec![TensorType::f32(&operands[0].shape[..3])]
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(Heads::new(self.0, operands).forward().0)
    }

    fn further_value(&self, _index: u32, operands: &[&Tensor]) -> Result<Tensor, InterpretError> {
        Ok(Heads::new(self.0, operands).forward().1)
    }
}

pub(super) struct AttentionBackward(pub AttentionSpec);

impl AttentionBackward {
    pub const DOC: Doc = Doc {
        name: "AttentionBackward",
        operands: "q, k, v, o, lse as of Attention, g as o",
        result: "as q; 1: as k; 2: as v",
        meaning: "the gradients of q, k and v, with softmax(z) recomputed as exp(z - lse). Factors of all products are \
                  rounded to `precision`, those weights and the gradients of z among them, o and g too",
        gradient: "none: made after differentiation",
    };
}

impl Rule for AttentionBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [q, k, v, o, lse, g] = exactly("attention backward", operands)?;
        expect_attention(q, k, v)?;
        let fits = o == q && g == q && *lse == TensorType::f32(&q.shape[..3]);
        if !fits {
            return refuse(format!("attention backward: q is {q}, but o is {o}, lse {lse} and the gradient {g}"));
        }
        Ok(q.clone())
    }

    fn further_results(&self, operands: &[&TensorType]) -> Vec<TensorType> {
        vec![operands[1].clone(), operands[2].clone()]
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        self.further_value(0, operands)
    }

    fn further_value(&self, index: u32, operands: &[&Tensor]) -> Result<Tensor, InterpretError> {
        let heads = Heads::new(self.0, operands);
        Ok(heads.backward(operands[3], operands[4], operands[5])[index as usize].clone())
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

    fn evaluate(&self, _operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Err(InterpretError(format!("result {} of an unknown operation", self.index)))
    }
}

fn expect_attention(q: &TensorType, k: &TensorType, v: &TensorType) -> Result<(), ShapeError> {
    expect_float("attention", q)?;
    let (&[b, h, _, e], &[kb, groups, _, ke]) = (q.shape.as_slice(), k.shape.as_slice()) else {
        return refuse(format!("attention needs q [b, h, t, e] and k [b, g, s, e], and these are {q} and {k}"));
    };
    if k != v || (b, e) != (kb, ke) || h % groups != 0 {
        return refuse(format!("attention: q {q}, k {k} and v {v} do not belong together"));
    }
    Ok(())
}

/// Multiplications and additions of one matrix product over all scores: `2 b h t s e`. Forward has two of them, and
/// backward four (the recomputation of the scores is not counted).
pub(in crate::graph) fn attention_products(q: &TensorType, k: &TensorType) -> u64 {
    2 * q.elements() * k.shape[2]
}

/// Attention, one query after the other.
struct Heads<'a> {
    spec: AttentionSpec,
    q: &'a Tensor,
    k: &'a Tensor,
    v: &'a Tensor,
}

impl<'a> Heads<'a> {
    fn new(spec: AttentionSpec, operands: &[&'a Tensor]) -> Self {
        Self { spec, q: operands[0], k: operands[1], v: operands[2] }
    }

    /// All (batch, head, query), row-major.
    fn queries(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [b, h, t] = [0, 1, 2].map(|axis| self.q.shape()[axis] as usize);
        (0..b).flat_map(move |b| (0..h).flat_map(move |h| (0..t).map(move |t| [b, h, t])))
    }

    fn keys(&self) -> std::ops::Range<usize> {
        0..self.k.shape()[2] as usize
    }

    /// The key of position s that a query's head reads.
    fn key(&self, [b, h, _]: [usize; 3], s: usize) -> [usize; 3] {
        [b, h / (self.q.shape()[1] / self.k.shape()[1]) as usize, s]
    }

    fn sees(&self, t: usize, s: usize) -> bool {
        match self.spec.mask {
            Mask::Full => true,
            Mask::Causal => s <= t,
            Mask::Window(width) => s <= t && ((t - s) as u64) < width,
        }
    }

    /// A product of two rows with rounded factors.
    fn dot(&self, a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| self.factor(x) * self.factor(y)).sum()
    }

    fn factor(&self, x: f64) -> f64 {
        self.spec.precision.round(x)
    }

    /// Scaled score of a query and a key; minus infinity if the mask hides it.
    fn score(&self, at: [usize; 3], s: usize) -> f64 {
        if !self.sees(at[2], s) {
            return f64::NEG_INFINITY;
        }
        self.spec.scale.get() * self.dot(row(self.q, at), row(self.k, self.key(at, s)))
    }

    /// Result and log-sum-exp. A query that sees no key gives 0.
    fn forward(&self) -> (Tensor, Tensor) {
        let mut result = Tensor::full(self.q.ty.clone(), 0.0);
        let mut lse = Vec::new();
        for at in self.queries() {
            let scores: Vec<f64> = self.keys().map(|s| self.score(at, s)).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
            lse.push(if highest.is_finite() { highest + sum.ln() } else { highest });
            for s in self.keys().filter(|&s| self.sees(at[2], s)) {
                let weight = (scores[s] - highest).exp();
                self.accumulate(&mut result, at, weight, row(self.v, self.key(at, s)));
            }
            if highest.is_finite() {
                let start = row_start(&result, at);
                let width = self.q.shape()[3] as usize;
                result.data[start..][..width].iter_mut().for_each(|weighted| *weighted /= sum);
            }
        }
        (result, Tensor::f32(&self.q.shape()[..3], lse))
    }

    /// Gradients of q, k and v (Dao et al., FlashAttention, 2022, appendix B).
    fn backward(&self, o: &Tensor, lse: &Tensor, g: &Tensor) -> [Tensor; 3] {
        let [mut dq, mut dk, mut dv] = [self.q, self.k, self.v].map(|x| Tensor::full(x.ty.clone(), 0.0));
        for (query, at) in self.queries().enumerate() {
            let delta = self.dot(row(o, at), row(g, at));
            for s in self.keys().filter(|&s| self.sees(at[2], s)) {
                let key = self.key(at, s);
                let weight = (self.score(at, s) - lse.data[query]).exp();
                let slope = weight * (self.dot(row(g, at), row(self.v, key)) - delta) * self.spec.scale.get();
                self.accumulate(&mut dq, at, slope, row(self.k, key));
                self.accumulate(&mut dk, key, slope, row(self.q, at));
                self.accumulate(&mut dv, key, weight, row(g, at));
            }
        }
        [dq, dk, dv]
    }

    /// Adds `weight * values` to a row, both factors rounded.
    fn accumulate(&self, to: &mut Tensor, at: [usize; 3], weight: f64, values: &[f64]) {
        let start = row_start(to, at);
        for (sum, &value) in to.data[start..].iter_mut().zip(values) {
            *sum += self.factor(weight) * self.factor(value);
        }
    }
}

fn row(x: &Tensor, at: [usize; 3]) -> &[f64] {
    &x.data[row_start(x, at)..][..x.shape()[3] as usize]
}

fn row_start(x: &Tensor, at: [usize; 3]) -> usize {
    at.iter().zip(x.strides()).map(|(&index, stride)| index * stride as usize).sum()
}
