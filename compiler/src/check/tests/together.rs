//! Errors that do not depend on one another come together; settings of the command line.

use super::{checked, gpt_with};

/// Ids of the errors of a GPT with parts replaced, in order.
fn errors(edits: &[(&str, &str)]) -> Vec<String> {
    let found = gpt_with(edits).map(|_| ()).expect_err("the program is wrong");
    found.split("error[").skip(1).map(|error| error[..5].to_string()).collect()
}

#[test]
fn each_clause_is_checked_whatever_the_others_say() {
    let (adamw, wsd) = ("adamw(betas = (0.9, 0.95)", "wsd(peak = 2e-3");
    assert_eq!(
        errors(&[("heads = 6", "heads = 7"), (adamw, "adamV(betas = (0.9, 0.95)"), (wsd, "wsdd(peak = 2e-3")]),
        ["E0707", "E0707", "E0403"]
    );
    let arguments = [("heads = 6", "heads = 7"), (adamw, "adamw(beta = (0.9, 0.95)"), (wsd, "wsd(pek = 2e-3")];
    assert_eq!(errors(&arguments), ["E0403", "E0212", "E0212"]);
}

#[test]
fn what_depends_on_an_error_is_silent() {
    assert_eq!(errors(&[("output logits", "other")]), ["E0508"]);
    assert_eq!(errors(&[("model", "modle")]).len(), 1);
    assert_eq!(errors(&[("heads = 6", "heads = 7")]), ["E0403"]);
}

#[test]
fn what_can_be_set_is_set_and_what_cannot_says_why() {
    let text = include_str!("../../../../dsl-examples/linear_regression.train");
    let program = checked(text, &[("seed", "3"), ("precision", "bf16")]).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((program.train.seed, program.train.precision), (3, trainc_kernels::ir::Precision::Bf16));
    let refused = [
        ("optimizer", "this clause of `train` cannot be set"),
        ("features", "this is a parameter of `Line`, not a constant"),
        ("Line", "this is a model, not a constant"),
        ("sed", "did you mean `seed`?"),
        ("elephants", "`steps`, `batch`, `precision` and `seed` can be set"),
    ];
    for (name, reason) in refused {
        let found = checked(text, &[(name, "3")]).map(|_| ()).expect_err(name);
        assert!(found.contains(reason), "{found}");
    }
}
