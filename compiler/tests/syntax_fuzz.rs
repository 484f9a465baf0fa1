//! Whatever the text: reading, rendering and formatting end, in time, without a panic, and the laws of the formatter hold.
//!
//! `PROPTEST_CASES` sets the number of cases of each test (default below).

mod common;

use common::{EVERYTHING, check_format, programs};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use trainc::diagnostic::{render, reports};
use trainc::source::SourceMap;
use trainc::syntax::parse;

/// Far above what the slowest of these texts needs, far below what anyone would wait for.
const PATIENCE: Duration = Duration::from_secs(5);

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Reads, renders and formats.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let begin = Instant::now();
    let mut sources = SourceMap::default();
    let errors = match sources.add_bytes("fuzz.train", bytes) {
        Ok(file) => {
            let text = sources.file(file).text.clone();
            check_format(&text).map_err(TestCaseError::fail)?;
            parse(file, &text).errors
        }
        Err(error) => vec![*error],
    };
    let rendered = render(&sources, &errors, errors.len() % 2 == 0);
    prop_assert_eq!(rendered.is_empty(), errors.is_empty());
    let json = serde_json::to_string(&reports(&sources, &errors)).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert!(json.starts_with('['));
    prop_assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    Ok(())
}

/// All words and signs, right and wrong ones.
const SOUP: &[&str] = &[
    "use",
    "const",
    "model",
    "layer",
    "function",
    "optimizer",
    "schedule",
    "data",
    "train",
    "input",
    "param",
    "state",
    "repeat",
    "output",
    "as",
    "role",
    "if",
    "then",
    "else",
    "and",
    "or",
    "not",
    "std",
    "x",
    "y",
    "heads",
    "steps",
    "batch",
    "group",
    "weights",
    "return",
    "let",
    "int",
    "a.b",
    "1",
    "2%",
    "0.5x",
    "500 steps",
    "20M tokens",
    "1e-8",
    "2:4",
    "3 KB",
    "1.2.3",
    "4width",
    "\"text\"",
    "\"open",
    "'x'",
    "\"\\\"\\q\"",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "|",
    "~",
    "=",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "<-",
    "->",
    "+",
    "-",
    "*",
    "/",
    "^",
    ".",
    "..",
    "\n",
    "\n",
    "\n",
    "\n    ",
    " ",
    "  ",
    "// note",
    "// note\n",
    "&&",
    "#",
    "/*",
    "%",
    ";",
    "@",
    "!",
    "\t",
    "β",
    "“",
    "\u{a0}",
    "\r",
    "\u{0}",
    "é",
    "🦀",
    "=\n",
    "1 step 2",
    "seed 1 steps 2",
];

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let word = (select(SOUP), prop_oneof![3 => Just(" "), 1 => Just("")]);
    prop::collection::vec(word, 0..200)
        .prop_map(|words| words.into_iter().flat_map(|(word, gap)| [word, gap]).collect::<String>().into_bytes())
}

fn corpus() -> &'static [Vec<u8>] {
    static CORPUS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let programs = programs().into_iter().map(|(_, bytes)| bytes);
        programs.chain([EVERYTHING.as_bytes().to_vec()]).collect()
    })
}

/// A change of a program: remove a piece, copy a piece elsewhere, or put a word in.
#[derive(Clone, Debug)]
enum Change {
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Insert(Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), any::<Index>(), 1..80usize).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
        (any::<Index>(), select(SOUP)).prop_map(|(at, word)| Change::Insert(at, word)),
    ]
}

fn apply(mut text: Vec<u8>, change: &Change) -> Vec<u8> {
    let size = text.len() + 1;
    let piece = |text: &[u8], at: usize, length: usize| at..(at + length).min(text.len());
    match change {
        Change::Remove(at, length) => drop(text.drain(piece(&text, at.index(size), *length))),
        Change::Copy(from, to, length) => {
            let copy = text[piece(&text, from.index(size), *length)].to_vec();
            let to = to.index(size);
            text.splice(to..to, copy);
        }
        Change::Insert(at, word) => {
            let at = at.index(size);
            text.splice(at..at, word.bytes());
        }
    }
    text
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), prop::collection::vec(change(), 1..6)).prop_map(|(which, changes)| {
        let program = corpus()[which.index(corpus().len())].clone();
        changes.iter().fold(program, apply)
    })
}

/// Where a program may have any white space, it sometimes has much, or a comment.
fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![20 => Just(" "), 4 => Just(""), 3 => Just("  // note\n  "), 2 => Just("\n\n\n\t// two\n//three\n"), 2 => Just("\n")]
}

/// A well-formed expression.
fn expression() -> impl Strategy<Value = String> {
    let number = select(&["1", "0.5", "1e-8", "2%", "3 steps", "1 step", "7 KB", "500M tokens", "0.25x", "16k"][..]);
    let leaf = prop_oneof![
        select(&["x", "y", "weight_decay", "a.b.c", "\"text // \\\"\"", "a_rather_long_name_that_fills_lines"][..])
            .prop_map(str::to_owned),
        number.prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let operator = select(&["+", "-", "*", "/", "^", "and", "or"][..]);
        let items = prop::collection::vec((inner.clone(), gap()), 1..5).boxed();
        prop_oneof![
            3 => (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            2 => (inner.clone(), gap(), inner.clone()).prop_map(|(a, gap, b)| format!("({a} +{gap}\n{b} * {a})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(not {a} < -{b})")),
            1 => (inner.clone(), inner.clone(), gap()).prop_map(|(a, b, gap)| format!("(if {a}{gap} then {b} else {a})")),
            3 => items.clone().prop_map(|items| format!("call[s, t](n = {})", joined(&items, ", b = "))),
            2 => items.clone().prop_map(|items| format!("x[.., {}]", joined(&items, ", "))),
            1 => items.clone().prop_map(|items| format!("[{}]", joined(&items, ", "))),
            1 => items.prop_map(|items| format!("(x -> [{}])", joined(&items, ", "))),
        ]
    })
}

fn joined(items: &[(String, &'static str)], separator: &str) -> String {
    items.iter().map(|(item, gap)| format!("{gap}{item}{gap}")).collect::<Vec<_>>().join(separator)
}

/// A well-formed program, as far as the parser is concerned.
fn program() -> impl Strategy<Value = String> {
    let statement = (expression(), 0..9usize, gap()).prop_map(|(value, form, gap)| match form {
        0 => format!("input x: int[b, t], y: [{gap}b]\n"),
        1 => format!("param w: [3,{gap} d | e] ~ normal({value}) role a, b\n"),
        2 => format!("state m = {value}, v: [r] = 0\n"),
        3 => format!("y, z ={gap}\n{value}\n"),
        4 => format!("p <-{gap}\n{value}\n"),
        5 => format!("repeat depth as block {{{gap}\n x = {value}\n}}\n"),
        6 => format!("output x = {value}{gap}\n"),
        7 => "\n\n\n".to_owned(),
        _ => format!("// {gap} note\n  x = {value} // behind\n"),
    });
    let clause = (expression(), 0..6usize, gap()).prop_map(|(value, form, gap)| match form {
        0 => format!("steps 2000 batch 16 {gap}\n"),
        1 => format!("schedule wsd(peak = {value}) peak = {value}\n"),
        2 => format!("optimizer sgd {{ group a, b {{ rate = {value}, decay = 1 }} {gap}\n}}\n"),
        3 => format!("private {{ epsilon 3 delta {value} filter a | b{gap}\n}}\n"),
        4 => format!("sparsify ffn {{ weights 2:4 from 2% until 80% }} keep 3{gap}\n"),
        _ => format!("grow {{ depth 1 -> 12 at 80% }}{gap}\nseed 1 step 2 // last\n"),
    });
    let body = prop::collection::vec(statement, 0..6).prop_map(|lines| lines.concat());
    let item = (body, prop::collection::vec(clause, 0..6), expression(), gap(), 0..4usize).prop_map(
        |(body, clauses, value, gap, form)| match form {
            0 => format!("layer f[s](x: [..],{gap} y = {value}) -> [b] role r {{{gap}\n{body}x\n}}\n"),
            1 => format!("train {{{gap}\n{}}}\n", clauses.concat()),
            2 => format!("const c = {value}{gap}\n"),
            _ => format!("function f({gap}x) ={gap}\n{value}\n"),
        },
    );
    prop::collection::vec(item, 0..4).prop_map(|items| items.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes)?;
    }

    #[test]
    fn token_soup_is_survived(bytes in soup()) {
        survives(&bytes)?;
    }

    #[test]
    fn mutated_programs_are_survived(bytes in mutated()) {
        survives(&bytes)?;
    }

    #[test]
    fn generated_programs_keep_the_laws_of_the_formatter(text in program()) {
        survives(text.as_bytes())?;
    }
}

/// The generator is worth something only if most of its programs parse.
#[test]
fn generated_programs_are_well_formed_mostly() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts: Vec<String> =
        (0..200).map(|_| program().new_tree(&mut runner).expect("the strategy has no filters").current()).collect();
    let good = texts.iter().filter(|text| common::shape(text).is_some()).count();
    let bad = texts.iter().find(|text| common::shape(text).is_none());
    assert!(good >= 150, "{good} of 200; one that does not parse:\n{}", bad.map_or("", |text| text));
}
