//! Contractions and what stands around them.

use super::{Rule, Theme};
use crate::{
    graph::{Contraction, Op},
    rewrite::{language::Symbol, pattern::Tree},
};

pub(super) static THEME: Theme = Theme {
    name: "contraction",
    purpose: "A contraction says in its labels in which order its result lies.",
    rules: &[Rule {
        name: "permute-contract",
        law: "permute(contract(a, b)) = contract(a, b) with its result's labels permuted",
        condition: "",
        left: "(permute:p (contract:c ?a ?b))",
        right: |found| {
            let Symbol::Op(Op::Permute { axes }) = found.head("p") else { return None };
            let c = found.contraction("c");
            let out = axes.iter().map(|&axis| c.out[axis]).collect();
            Some(Tree::op(Op::Contract(Contraction { out, ..c }), [found.tree("a"), found.tree("b")]))
        },
    }],
};
