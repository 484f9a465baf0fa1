//! Divisions and roots in the forms that layer and root-mean-square norms, and the optimizers, are cheapest in.

use super::{Rule, Theme};

pub(super) static THEME: Theme = Theme {
    name: "normalisation",
    purpose: "One division for each row instead of one for each element, and one value for forward and backward.",
    rules: &[
        Rule {
            name: "reciprocal-sqrt",
            law: "1 / sqrt(x) = rsqrt(x)",
            condition: "",
            left: "(reciprocal (sqrt ?x))",
            right: |found| Some(found.build("(rsqrt ?x)")),
        },
        Rule {
            name: "divide-by-sqrt",
            law: "x / sqrt(y) = x * rsqrt(y)",
            condition: "",
            left: "(div ?x (sqrt ?y))",
            right: |found| Some(found.build("(mul ?x (rsqrt ?y))")),
        },
        Rule {
            name: "divide-by-broadcast",
            law: "x / broadcast(y) = x * broadcast(1 / y)",
            condition: "",
            left: "(div ?x (broadcast:b ?y))",
            right: |found| Some(found.build("(mul ?x (broadcast:b (reciprocal ?y)))")),
        },
    ],
};
