//! Tokenizers from files: their ids, and the text that they give back.

use super::*;
use trainc_runtime::data::Tokenizer;

/// Words of a tiny vocabulary, split at white space.
pub const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [
        {"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "?",
              "vocab": {"<|endoftext|>": 0, "?": 1, "the": 2, "cat": 3, "sat": 4}}}"#;

fn tokenizer() -> TokenizerSpec {
    TokenizerSpec::HuggingFace { path: "tokenizer.json".into() }
}

#[test]
fn a_tokenizer_file_turns_documents_into_ids_with_an_end_after_each() {
    let base = folder(&[("tokenizer.json", TOKENIZER.as_bytes()), ("a.txt", b"the cat sat"), ("b.txt", b"the dog")]);
    let inputs = language(1, 6, 5);
    let data = open(&spec(text(&["*.txt"], tokenizer()), 0.0, false), &inputs, base.path()).unwrap();
    assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [2, 3, 4, 0, 2, 1]);
    let tokenizer = Tokenizer::load(&tokenizer(), base.path()).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(b"cat sat").unwrap()).unwrap(), "cat sat");
    assert_eq!(tokenizer.end_of_text(), Some(0));
}

#[test]
fn tokenizers_that_cannot_be_used_are_refused() {
    let base = folder(&[("tokenizer.json", TOKENIZER.as_bytes()), ("a.txt", b"the \xff cat")]);
    let spec = spec(text(&["*.txt"], tokenizer()), 0.0, false);
    let complain = |vocabulary| complaint(&spec, &language(1, 2, vocabulary), base.path());
    assert!(
        complain(5).contains("a.txt: not UTF-8 from byte 4 on (only the byte tokenizer takes that)"),
        "{}",
        complain(5)
    );
    assert!(complain(4).contains("the tokenizer has ids up to 4, but the model takes those below 4"));
    fs::write(base.path().join("tokenizer.json"), "{}").unwrap();
    assert!(complain(5).contains("it is not a tokenizer.json"));
    fs::remove_file(base.path().join("tokenizer.json")).unwrap();
    assert!(complain(5).contains("tokenizer.json: No such file"));
}

/// A tokenizer of whole words with these ids.
fn words(vocabulary: &[(&str, u32)]) -> String {
    let entries: Vec<_> = vocabulary.iter().map(|(word, id)| format!("\"{word}\": {id}")).collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "unk_token": "?", "vocab": {{{}}}}}}}"#,
        entries.join(", ")
    )
}

/// Ids with gaps between them need room for the largest one, not for as many as there are.
#[test]
fn ids_are_as_wide_as_the_largest_of_them() {
    for largest in [255, 256, 300, 65_535, 65_536, 1_000_000] {
        let tokenizer_json = words(&[("a", 0), ("b", 7), ("c", largest), ("?", 1)]);
        let base = folder(&[("tokenizer.json", tokenizer_json.as_bytes()), ("a.txt", b"a b c c b a c")]);
        let spec = spec(text(&["a.txt"], tokenizer()), 0.0, false);
        let vocabulary = u64::from(largest) + 1;
        let inputs = language(1, 6, vocabulary);
        let data = open(&spec, &inputs, base.path()).unwrap();
        let c = largest as i32;
        assert_eq!(integers(&data, Split::Train, &inputs[0], 0, 1), [0, 7, c, c, 7, 0]);
        let refused = complaint(&spec, &language(1, 6, vocabulary - 1), base.path());
        let expected = format!("has ids up to {largest}, but the model takes those below {largest}");
        assert!(refused.contains(&expected), "{refused}");
    }
}

/// Tokenizers of three kinds that write the space between words only where there is a word before: the mark of a space at the
/// beginning of words (T5, Llama), `##` inside of words (BERT), and words alone.
const SPACES: [(&str, &str, &str, [&str; 4]); 3] = [
    (
        r#"{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true}"#,
        r#"{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true}"#,
        "WordLevel",
        ["\u{2581}the", "\u{2581}cat", "\u{2581}sat", "?"],
    ),
    (
        r#"{"type": "Whitespace"}"#,
        r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###,
        "WordPiece",
        ["the", "cat", "sat", "##s"],
    ),
    (r#"{"type": "Whitespace"}"#, "null", "WordLevel", ["the", "cat", "sat", "?"]),
];

fn spaced((splits, joins, model, words): (&str, &str, &str, [&str; 4])) -> String {
    let [the, cat, sat, last] = words;
    format!(
        r###"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {splits}, "post_processor": null, "decoder": {joins},
            "model": {{"type": "{model}", "unk_token": "{last}", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {{"{the}": 0, "{cat}": 1, "{sat}": 2, "{last}": 3}}}}}}"###
    )
}

#[test]
fn a_continuation_keeps_its_distance_from_the_prompt() {
    for kind in SPACES {
        let base = folder(&[("tokenizer.json", spaced(kind).as_bytes())]);
        let tokenizer = Tokenizer::load(&tokenizer(), base.path()).unwrap();
        let after = |prompt: &str, tokens: &[u32]| {
            let before = tokenizer.encode(prompt.as_bytes()).unwrap();
            prompt.to_owned() + &tokenizer.decode_after(prompt, &before, tokens).unwrap()
        };
        assert_eq!(after("the", &[1, 2]), "the cat sat", "{kind:?}");
        assert_eq!(after("the cat", &[2]), "the cat sat");
        assert_eq!(after("the cat ", &[2]), "the cat sat", "the prompt's own space is the one between the words");
        assert_eq!(after("", &[0, 1]), "the cat");
        assert_eq!(after("the cat", &[]), "the cat");
        if kind.2 == "WordPiece" {
            assert_eq!(after("the cat", &[3, 2]), "the cats sat", "a word goes on");
        }
    }
    let bytes = Tokenizer::load(&TokenizerSpec::Bytes, Path::new(".")).unwrap();
    assert_eq!(bytes.decode_after("caf", b"caf".map(u32::from).as_slice(), &[0xc3, 0xa9, 0x20]).unwrap(), "\u{e9} ");
}

/// The model says that every token is followed by the next one of the vocabulary.
#[test]
fn generated_words_are_apart_from_the_prompt() {
    let base = folder(&[("tokenizer.json", spaced(SPACES[0]).as_bytes())]);
    let mut artifact = super::support::language_model();
    artifact.manifest.data = Some(spec(text(&["none"], tokenizer()), 0.0, true));
    let options = trainc_runtime::Options { base: Some(base.path().to_owned()), ..Default::default() };
    let mut session = trainc_runtime::Session::new(artifact, &options).unwrap();
    let likeliest = trainc_runtime::GenerateOptions { max_tokens: 2, temperature: 0.0, ..Default::default() };
    assert_eq!(session.generate("the", &likeliest).unwrap(), " cat sat");
}

/// The library that reads these files indexes with what they say.
#[test]
fn a_tokenizer_that_breaks_its_library_is_an_error() {
    let broken = TOKENIZER.replace(
        r#""normalizer": null"#,
        r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}"#,
    );
    let base = folder(&[("tokenizer.json", broken.as_bytes()), ("a.txt", b"the cat"), ("b.txt", b"sat")]);
    let spec = spec(text(&["*.txt"], tokenizer()), 0.0, false);
    let complaint = complaint(&spec, &language(1, 2, 5), base.path());
    assert!(complaint.contains("its tokenizer.json is damaged or not understood"), "{complaint}");
    let tokenizer = Tokenizer::load(&tokenizer(), base.path()).unwrap();
    assert!(tokenizer.encode(b"the").is_err());
}
