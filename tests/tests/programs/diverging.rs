//! Runs that diverge say which operation made the first number that is none, in which step, and what to do about it.

use super::cli::{code, run, stderr};
use std::{fs, path::Path};

/// A line on which rows of zeros occur, and a model whose hidden values `z` are computed from `h` in some way.
fn project(folder: &Path, z: &str, loss: &str, train: &str) {
    let row = |row: u64| {
        let unit = |column| 4.0 * trainc_runtime::data::unit(row, column) - 2.0;
        let first = if row.is_multiple_of(3) { 0.0 } else { unit(0) };
        format!("{first},{},{}\n", unit(1), unit(2))
    };
    fs::write(folder.join("d.csv"), (0..60).map(row).collect::<String>()).unwrap();
    let text = format!(
        "use std
data D {{
    csv \"d.csv\"
    field x = columns(0, 2)
    field y = columns(2)
}}
model M() {{
    input x: [batch, 2]
    input y: [batch]
    h = linear(x, 8)
    z = {z}
    output out = sum[d](z[.., d])
}}
train {{
    model M
    data D
    loss {loss}
    {train}  batch 10
}}
"
    );
    fs::write(folder.join("p.train"), text).unwrap();
}

/// What a run that diverges says at its end.
fn last_words(z: &str, loss: &str, train: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path(), z, loss, train);
    let output = run(folder.path(), &["run", "p.train", "--out", "r"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    stderr(&output)
}

const MSE: &str = "mean((out - y)^2)";
const SGD: &str = "optimizer sgd  schedule 0.01  steps 20";

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{said} should say {part:?}");
    }
}

/// The loss shows it a step later: the gradient of what `if` did not choose is 0 times an infinite slope.
#[test]
fn the_gradient_of_a_branch_that_was_not_taken_is_named() {
    let chosen = "if h[b, d] > 50 then log(abs(h[b, d] * x[b, 0])) else h[b, d] -> [b, d]";
    let said = last_words(chosen, MSE, SGD);
    let place = "the gradient of `log(abs(h[b, d] * x[b, 0]))` (line 11, column 30)";
    says(&said, &["is NaN at step 2", "in step 1, the first number that is none is NaN", place, "Choose inside"]);
    says(&said, &["0.0 / 0.0"]);
}

#[test]
fn values_that_are_no_numbers_are_named_with_what_they_were_made_of() {
    let said = last_words("log(relu(h))", MSE, SGD);
    says(&said, &["at step 1", "-inf: `log(relu(h))` (line 11, column 9)", "log(0.0)", "keep the argument above 0"]);
    let said = last_words("h / relu(h)", MSE, SGD);
    says(&said, &["`h / relu(h)` (line 11, column 9)", " / 0.0", "away from 0"]);
    let said = last_words("exp(100 * h)", MSE, SGD);
    says(&said, &["`exp(100 * h)` (line 11, column 9)", "the exponential overflows above 88.7"]);
}

#[test]
fn a_rate_that_is_too_high_is_called_that() {
    let said = last_words("h", MSE, "optimizer sgd  schedule 1e6  steps 200");
    says(&said, &["`(out - y)^2` (line 17, column 15)", "a lower rate, `clip 1.0` or a warmup may help"]);
}

/// Masks are infinite on purpose.
#[test]
fn infinities_of_the_program_are_not_blamed() {
    let said = last_words("exp(if h > 0 then h else -1e38 * 1e38) * log(relu(h))", MSE, SGD);
    says(&said, &["`log(relu(h))`", "log(0.0)"]);
}

#[test]
fn a_resumed_run_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    project(
        path,
        "h",
        MSE,
        "optimizer sgd  schedule linear_decay(1e6, warmup = 90%)  steps 400\n    checkpoint every 1 keep 2",
    );
    let first = run(path, &["run", "p.train", "--out", "r", "--set", "seed=5"]);
    assert_eq!(code(&first), 3, "{}", stderr(&first));
    let again = run(path, &["resume", "r"]);
    assert_eq!(code(&again), 3, "{}", stderr(&again));
    let cause =
        |said: String| said.lines().find(|line| line.contains("the first number that is none")).map(str::to_owned);
    let (first, again) = (cause(stderr(&first)), cause(stderr(&again)));
    assert!(first.is_some() && first == again, "{first:?}, {again:?}");
}
