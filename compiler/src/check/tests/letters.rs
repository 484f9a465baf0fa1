//! Names between brackets mean what they say; values against sums made by hand.

use super::checked;
use crate::graph::{Bindings, Output, Tensor, interpret};

/// A program over `x[b, t, c] = 6 b + 2 t + c` of shape [2, 3, 2], with definitions, statements of the model and a metric `m`.
fn program(definitions: &str, statements: &str, metric: &str) -> String {
    format!(
        "use std\n{definitions}\nmodel M(two) {{\n    input x: [batch, 3, 2]\n    param w: [two] = 1\n    {statements}\n    \
         output m = {metric}\n    output trained = sum(w)\n}}\n\
         train {{\n    model M(two = 2)\n    loss trained + 0 * m\n    metric measured = m\n    optimizer sgd\n    \
         schedule 0.1\n    steps 1  batch 2\n}}\n"
    )
}

/// What the metric is.
fn measured(definitions: &str, statements: &str, metric: &str) -> f64 {
    let text = program(definitions, statements, metric);
    let program = checked(&text, &[]).unwrap_or_else(|found| panic!("{found}"));
    let x = Tensor::f32(&[2, 3, 2], (0..12).map(f64::from).collect());
    let w = Tensor::f32(&[2], vec![1.0; 2]);
    let bindings = Bindings { inputs: [(0, x)].into(), parameters: [(0, w)].into(), steps: 1, ..Bindings::default() };
    let mut run = interpret(&program.step, &bindings).expect("the step can be evaluated");
    run.output(&Output::Report("measured".into())).expect("reported").scalar()
}

/// The sum over all v of v^2 for v from 0 to 11.
const SQUARES: f64 = 506.0;

/// The sum of x without its last position: 0 + 1 + 2 + 3 + 6 + 7 + 8 + 9.
const BUT_THE_LAST: f64 = 36.0;

#[test]
fn a_name_in_parentheses_between_brackets_is_one_element() {
    let at = "function at(x: [b, t, c], k) = x[b, (k), c]";
    assert_eq!(measured(at, "", "sum(at(x, 1))"), 22.0);
    assert_eq!(measured("", "", "sum(x[b, (two - 1), c])"), 22.0);
    let last = "function last(x: [b, t, c]) = x[b, (t - 1), c]";
    assert_eq!(measured(last, "", "sum(last(x))"), 30.0);
}

#[test]
fn a_letter_that_is_no_dim_shifts() {
    let before = "function before(x: [b, t, c]) = x[b, i - 1, c]";
    assert_eq!(measured(before, "", "sum(before(x))"), BUT_THE_LAST);
}

#[test]
fn a_counter_of_a_repeat_chooses_by_comparison() {
    let statements = "k = 0\n    total = 0\n    repeat two {\n        \
                      total = total + sum(if index(t) == k then x[b, t, c] else 0)\n        k = k + 1\n    }";
    assert_eq!(measured("", statements, "total"), BUT_THE_LAST);
}

#[test]
fn parts_of_a_tuple_are_tensors_without_indices() {
    let pair = "function pair(x: [b, t, c]) {\n    y = x[b, t, c] * 2\n    (y, 1)\n}";
    let statements = "p, one = pair(x)\n    q, other = pair(x)";
    assert_eq!(measured(pair, statements, "sum((p + q)^2) * one * other"), 16.0 * SQUARES);
    assert_eq!(measured("", "p, q = (x[b, t, c], x[u, t, c])", "sum((p + q)^2)"), 4.0 * SQUARES);
    assert_eq!(measured("", "both = (x[b, t, c], x[u, t, c])", "sum((both[0] + both[1])^2)"), 4.0 * SQUARES);
}

/// Each of these had a meaning that nobody had in mind, in silence.
#[test]
fn names_that_could_be_read_as_two_things_are_refused() {
    let cases = [
        ("E0330", "function pair(x: [b, c, d]) { (x[b, c, d] * 2, 1) }", "p, one = pair(x)", "sum(p) * one"),
        ("E0330", "layer pair(x: [b, c, d]) { ((x[b, c, d], x), x) }", "p, q = pair(x)", "sum(p[0] + q)"),
        ("E0331", "function before(x: [b, t, c]) = x[b, t - 1, c]", "", "sum(before(x))"),
        ("E0331", "function power(x: [b, t, c]) = x[b, c^2 - 3, c]", "", "sum(power(x))"),
        ("E0331", "function smooth(x: [b, t, c], w: [k]) = sum[k](x[b, i + k - 1, 0] * w[k])", "", "sum(smooth(x, w))"),
        ("E0332", "", "", "sum(x[b, two, c])"),
        ("E0332", "", "", "sum(x[b, two - 1, c])"),
        ("E0332", "const one = 1", "", "sum(x[b, one, c])"),
        ("E0332", "", "k = 1", "sum(x[b, -k, c])"),
        ("E0333", "", "k = 0\n    repeat two {\n        k = k + sum(x[b, k, c])\n    }", "sum(k)"),
        ("E0333", "", "k = sum(x)", "sum(x[b, k - 1, c])"),
        ("E0333", "", "rows = int(x[b, t, 0])", "sum(w[rows])"),
    ];
    for (id, definitions, statements, metric) in cases {
        let found = checked(&program(definitions, statements, metric), &[]).map(|_| ()).expect_err(metric);
        assert!(found.contains(&format!("error[{id}]")), "{metric}: {found}");
        assert_eq!(found.matches("error[").count(), 1, "{metric}: {found}");
    }
}
