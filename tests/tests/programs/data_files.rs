//! Files of data as the command line meets them: changed since a run began, or broken.

use super::cli::{code, run, stderr};
use std::{fs, path::Path};

/// Forty points on a plane, and as many more as wanted.
fn write_points(folder: &Path, more: u64) {
    let row = |row: u64| {
        let x: Vec<f64> = (0..3).map(|column| trainc_runtime::data::unit(row, column)).collect();
        format!("{},{},{},{}\n", x[0], x[1], x[2], x[0] - 2.0 * x[1] + 0.5 * x[2])
    };
    fs::write(folder.join("points.csv"), (0..40 + more).map(row).collect::<String>()).unwrap();
}

#[test]
fn a_run_whose_data_changed_is_refused_unless_it_is_asked_for_and_evaluated_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = trainc_tests::program::read("dsl-examples/linear_regression.train");
    let text = text.replace("steps 200  batch 16", "steps 20  batch 8\n    checkpoint every 10 keep 9");
    fs::write(path.join("line.train"), text).unwrap();
    write_points(path, 0);
    assert_eq!(code(&run(path, &["run", "line.train", "--out", "line"])), 0);
    let unchanged = run(path, &["evaluate", "line"]);
    assert!(code(&unchanged) == 0 && stderr(&unchanged).is_empty(), "{}", stderr(&unchanged));
    fs::remove_dir_all(path.join("line/checkpoints/step-000020")).unwrap();

    write_points(path, 1);
    let evaluated = run(path, &["evaluate", "line", "--json"]);
    assert_eq!(code(&evaluated), 0);
    let warning = stderr(&evaluated);
    assert!(warning.starts_with("warning: the data have changed since the checkpoint: "), "{warning}");
    assert!(String::from_utf8_lossy(&evaluated.stdout).contains("\"data_changed\":true"));
    let before = fs::read(path.join("line/metrics.jsonl")).unwrap();
    let refused = run(path, &["resume", "line"]);
    assert_eq!(code(&refused), 3);
    let said = stderr(&refused);
    for part in ["36 records to train on and 4 held out then, 37 records", "`--data-changed`", "step-000010"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(fs::read(path.join("line/metrics.jsonl")).unwrap(), before, "nothing was touched");
    let accepted = run(path, &["resume", "line", "--data-changed"]);
    assert_eq!(code(&accepted), 0, "{}", stderr(&accepted));
    let shown = [accepted.stdout, accepted.stderr].concat();
    assert!(String::from_utf8_lossy(&shown).contains("warning: the data have changed since the checkpoint: "));
    assert!(stderr(&run(path, &["evaluate", "line"])).is_empty(), "the newest checkpoint knows the new data");
}

/// A map of characters that its library follows out of its bounds.
#[test]
fn a_tokenizer_that_breaks_its_library_ends_the_run_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let program = "use std
model Lm(vocab, context) {
    input tokens: int[batch, context]
    output logits = embedding(tokens, vocab, vocab)
}
data Text {
    text \"a.txt\"
    tokenizer \"tokenizer.json\"
}
train {
    model Lm(vocab = 4, context = 2)
    data Text
    loss cross_entropy(logits, next(tokens))
    optimizer sgd
    schedule 0.5
    steps 2  batch 1
}
";
    fs::write(path.join("lm.train"), program).unwrap();
    fs::write(path.join("a.txt"), "the cat ".repeat(20)).unwrap();
    let tokenizer = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="},
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "the": 1, "cat": 2}}}"#;
    fs::write(path.join("tokenizer.json"), tokenizer).unwrap();
    let broken = run(path, &["run", "lm.train", "--out", "lm"]);
    assert_eq!(code(&broken), 3, "{}", stderr(&broken));
    assert!(
        stderr(&broken).contains("tokenizer: its tokenizer.json is damaged or not understood"),
        "{}",
        stderr(&broken)
    );
    assert!(!path.join("lm").exists());
}
