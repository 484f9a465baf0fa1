//! Composites that are recognised from their primitives in a saturated e-graph.
//!
//! Attention is an operation of its own. The others run as single fused kernels made of their primitives, so here they
//! only have to be seen and named: for reports, and as a check that rules and canonical forms keep them recognisable.

use super::{
    language::Egraph,
    pattern::{Pattern, matches},
};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};

/// A composite with its canonical form.
pub struct Composite {
    /// For people.
    pub name: &'static str,
    /// Pattern of its value.
    pub pattern: &'static str,
}

/// All composites.
pub static COMPOSITES: &[Composite] = &[
    Composite { name: "attention", pattern: "(attention ?q ?k ?v)" },
    Composite { name: "attention gradient", pattern: "(attention_backward ?q ?k ?v ?o ?lse ?do)" },
    Composite {
        name: "softmax",
        pattern: "(div ?e@(exp (sub ?x (broadcast:b (maximum:m ?x)))) (broadcast:b (sum:r ?e)))",
    },
    Composite {
        name: "log softmax",
        pattern: "(sub ?z@(sub ?x (broadcast:b (maximum:m ?x))) (broadcast:b (log (sum:r (exp ?z)))))",
    },
    Composite {
        name: "layer norm",
        pattern: "(mul ?c@(sub ?x (broadcast:b (mul (sum:r ?x) ?n))) (broadcast:b (rsqrt (add (mul (sum:r (mul ?c ?c)) ?n) ?e))))",
    },
    Composite {
        name: "root-mean-square norm",
        pattern: "(mul ?x (broadcast:b (rsqrt (add (mul (sum:r (mul ?x ?x)) ?n) ?e))))",
    },
    Composite {
        name: "gelu",
        pattern: "(mul (mul ?x ?half) (add ?one (tanh (mul (add ?x (mul (mul (mul ?x ?x) ?x) ?c)) ?s))))",
    },
    Composite { name: "silu", pattern: "(mul ?x (sigmoid ?x))" },
];

/// How many classes hold each composite. A class counts for the first that it holds: a layer norm is also the
/// root-mean-square norm of what it has centred.
pub fn recognise(egraph: &Egraph) -> BTreeMap<&'static str, usize> {
    let mut claimed = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for composite in COMPOSITES {
        let pattern = Pattern::parse(composite.pattern);
        let classes: Vec<Id> = egraph.classes_for_op(&pattern.kind()).into_iter().flatten().collect();
        for class in classes {
            if !matches(egraph, &pattern, class).is_empty() && claimed.insert(class) {
                *counts.entry(composite.name).or_default() += 1;
            }
        }
    }
    counts
}
