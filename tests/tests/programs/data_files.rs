//! Files of data as the command line meets them.

use super::cli::{code, run, stderr};
use std::fs;

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
