//! Arithmetic of scalars and shapes that other rules leave work for.

use super::{Rule, Theme};
use crate::{
    graph::Op,
    rewrite::pattern::{Match, Tree},
};
use trainc_runtime::artifact::DType;

pub(super) static THEME: Theme = Theme {
    name: "algebra",
    purpose: "Arithmetic that other rules leave work for. What never needs a choice is canonicalisation's.",
    rules: &[
        Rule {
            name: "mul-constants",
            law: "(x * a) * b = x * (a * b)",
            condition: "a and b are constants; a product within 1e-12 of 1 is 1",
            left: "(mul (mul ?x ?a) ?b)",
            right: |found| {
                let factor = found.fact("a").uniform? * found.fact("b").uniform?;
                if (factor - 1.0).abs() < 1e-12 {
                    return Some(found.tree("x"));
                }
                Some(Tree::op(Op::Binary(trainc_kernels::ir::Binary::Mul), [found.tree("x"), full(&found, factor)]))
            },
        },
        Rule {
            name: "permute-permute",
            law: "permute(permute(x)) = permute(x) by the composed permutation",
            condition: "",
            left: "(permute:outer (permute:inner ?x))",
            right: |found| {
                let (outer, inner) = (permutation(&found, "outer"), permutation(&found, "inner"));
                let axes: Vec<usize> = outer.iter().map(|&axis| inner[axis]).collect();
                let moved = !axes.is_sorted();
                let x = found.tree("x");
                Some(if moved { Tree::op(Op::Permute { axes }, [x]) } else { x })
            },
        },
        Rule {
            name: "reshape-reshape",
            law: "reshape(reshape(x)) = reshape(x)",
            condition: "",
            left: "(reshape:outer (reshape ?x))",
            right: |found| {
                let same = match found.head("outer") {
                    crate::rewrite::language::Symbol::Op(Op::Reshape { shape }) => *shape == found.ty("x").shape,
                    _ => false,
                };
                Some(if same { found.tree("x") } else { found.build("(reshape:outer ?x)") })
            },
        },
    ],
};

fn permutation(found: &Match, name: &str) -> Vec<usize> {
    match found.head(name) {
        crate::rewrite::language::Symbol::Op(Op::Permute { axes }) => axes.clone(),
        other => panic!("internal: {name} is not a permutation but {other:?}"),
    }
}

/// A constant of the shape of the match.
pub(super) fn full(found: &Match, value: f64) -> Tree {
    full_of(value, &found.tree_type(&found.left).shape)
}

/// A constant of this shape.
pub(super) fn full_of(value: f64, shape: &[u64]) -> Tree {
    let constant = Tree::op(Op::Constant { value: value.into(), dtype: DType::F32 }, []);
    if shape.is_empty() {
        return constant;
    }
    Tree::op(Op::Broadcast { axes: Vec::new(), shape: shape.to_vec() }, [constant])
}
