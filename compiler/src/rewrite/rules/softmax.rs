//! Softmax and its gradient, recognised from exponentials and sums.

use super::{Rule, Theme, algebra::full, complement};
use crate::{
    graph::Op,
    rewrite::{
        language::{SoftmaxSpec, Symbol},
        mask::{Mask, is_excluded},
        pattern::{Match, Tree},
    },
};
use trainc_kernels::ir::Binary;

pub(super) static THEME: Theme = Theme {
    name: "softmax",
    purpose: "Recognises softmax, with what scales and masks its operand, and its gradient.",
    rules: &[
        Rule {
            name: "softmax",
            law: "exp(x - c) / sum(exp(x - c)) = softmax(x)",
            condition: "c does not change along the axes of the sum",
            left: "(div ?e@(exp (sub ?x (broadcast:b ?c))) (broadcast:b (sum:r ?e)))",
            right: |found| {
                let axes = opposite(&found, "b", "r")?;
                let spec = SoftmaxSpec { axes, scale: 1.0.into(), mask: Mask::default() };
                Some(found.with("s", Symbol::Softmax(spec)).build("(softmax:s ?x)"))
            },
        },
        Rule {
            name: "softmax-scale",
            law: "softmax(a * x) = softmax scaled by a (x)",
            condition: "a is constant and positive",
            left: "(softmax:s (mul ?x ?a))",
            right: |found| {
                let factor = found.fact("a").uniform.filter(|factor| *factor > 0.0)?;
                let spec = spec(&found);
                let scaled = SoftmaxSpec { scale: (spec.scale.get() * factor).into(), ..spec };
                Some(found.with("scaled", Symbol::Softmax(scaled)).build("(softmax:scaled ?x)"))
            },
        },
        Rule {
            name: "softmax-mask",
            law: "softmax(where(m, x, -infinity)) = softmax over m (x)",
            condition: "m is a causal or sliding-window mask, so that no row is empty; -1e9 is minus infinity enough",
            left: "(softmax:s (select ?m ?x ?n))",
            right: |found| {
                let spec = spec(&found);
                let mask = found.fact("m").mask.clone()?;
                let &[keys] = spec.axes.as_slice() else { return None };
                mask.of_attention(keys, &found.ty("x").shape)?;
                let excluded = found.fact("n").uniform.is_some_and(|n| is_excluded(n * spec.scale.get()));
                if !excluded || spec.mask != Mask::default() {
                    return None;
                }
                let masked = SoftmaxSpec { mask, ..spec };
                Some(found.with("masked", Symbol::Softmax(masked)).build("(softmax:masked ?x)"))
            },
        },
        Rule {
            name: "softmax-gradient-form",
            law: "e * (g / n - sum(g * (p / n))) = p * (g - sum(p * g)), where n = sum(e), p = e / n",
            condition: "",
            left: "(mul (sub (div ?g ?n@(broadcast:b (sum:r ?e))) (broadcast:b (sum:r (mul ?g (div ?p@(div ?e ?n) ?n))))) ?e)",
            right: |found| {
                opposite(&found, "b", "r")?;
                Some(found.build("(mul ?p (sub ?g (broadcast:b (sum:r (mul ?p ?g)))))"))
            },
        },
        Rule {
            name: "softmax-gradient",
            law: "p * (g - sum(p * g)) is the gradient of softmax, with p its value",
            condition: "",
            left: "(mul ?p@(softmax:s ?x) (sub ?g (broadcast:b (sum:r (mul ?p ?g)))))",
            right: |found| {
                let axes = opposite(&found, "b", "r").filter(|axes| *axes == spec(&found).axes)?;
                Some(found.with("d", Symbol::SoftmaxGradient(axes)).build("(softmax_gradient:d ?p ?g)"))
            },
        },
        Rule {
            name: "softmax-gradient-scale",
            law: "softmax_gradient(p, g * a) = softmax_gradient(p, g) * a",
            condition: "a is constant",
            left: "(softmax_gradient:d ?p (mul ?g ?a))",
            right: |found| {
                found.fact("a").uniform?;
                Some(found.build("(mul (softmax_gradient:d ?p ?g) ?a)"))
            },
        },
        Rule {
            name: "softmax-gradient-contract",
            law: "contract(softmax_gradient(p, g) * a, x) = contract(softmax_gradient(p, g), x) * a",
            condition: "a is constant",
            left: "(contract:c (mul ?d@(softmax_gradient ?p ?g) ?a) ?x)",
            right: |found| {
                let factor = full(&found, found.fact("a").uniform?);
                Some(Tree::op(Op::Binary(Binary::Mul), [found.build("(contract:c ?d ?x)"), factor]))
            },
        },
        Rule {
            name: "softmax-gradient-mask",
            law: "where(m, softmax_gradient(p, g), 0) = softmax_gradient(p, g), where p = softmax over m (x)",
            condition: "",
            left: "(select ?m ?d@(softmax_gradient (softmax:s ?x) ?g) ?z)",
            right: |found| {
                let zero = found.fact("z").uniform == Some(0.0);
                let same = found.fact("m").mask.as_ref() == Some(&spec(&found).mask);
                (zero && same).then(|| found.tree("d"))
            },
        },
    ],
};

/// The axes of reduction `reduce`, if broadcast `broadcast` goes back along them.
fn opposite(found: &Match, broadcast: &str, reduce: &str) -> Option<Vec<usize>> {
    let (kept, axes) = (found.broadcast_axes(broadcast), found.reduce_axes(reduce));
    (complement(axes, kept.len() + axes.len()) == kept).then(|| axes.to_vec())
}

fn spec(found: &Match) -> SoftmaxSpec {
    match found.head("s") {
        Symbol::Softmax(spec) => spec.clone(),
        other => panic!("internal: not a softmax but {other:?}"),
    }
}
