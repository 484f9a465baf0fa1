//! Whatever the text: the whole front end ends, in time, with a program or with diagnostics that can be shown, and what
//! the checker lets through can be rewritten and scheduled.
//!
//! `TRAINC_FUZZ_CASES` sets the number of cases of each test. Compiling costs most, so mutated programs that are compiled
//! get a twentieth of it. The text at work stands in `fuzz_*.train` in the folder for the tests' files under `target`, so
//! that it is known even if the process dies.

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use std::{panic, path::Path, sync::OnceLock, sync::mpsc, thread, time::Duration};
use trainc::{compile::Compilation, diagnostic, program::Program};
use trainc_tests::program;

/// Far above what the slowest of these texts needs on a busy machine: it is there to notice a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Graphs with more nodes take too long in a test of many cases.
const SMALL_GRAPH: usize = 500;

/// Values where counts, sizes, rates and limits end.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "0.5",
    "-0.5",
    "1.5",
    "1e-300",
    "1e300",
    "1e999",
    "-1e18",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1000000",
    "100%",
    "-5%",
    "3 steps",
    "2 epochs",
    "0 tokens",
    "500M tokens",
    "0 KB",
    "3 GB",
    "0.25x",
    "yes",
    "none",
    "\"text\"",
];

/// What an expression is wrapped in, many times over.
const WRAPPERS: &[(&str, &str)] = &[
    ("(", ")"),
    ("-", ""),
    ("not ", ""),
    ("exp(", ")"),
    ("max(", ", 1)"),
    ("[", "]"),
    ("(if 1 < 2 then ", " else 0)"),
    ("sum[i](", ")"),
    ("linear(", ", 3)"),
    ("repeat 2 { x = ", " }"),
    ("x[", "]"),
    ("2^", ""),
];

fn config(default_cases: u32, share: u32) -> ProptestConfig {
    let wanted = std::env::var("TRAINC_FUZZ_CASES").ok().and_then(|cases| cases.parse::<u32>().ok());
    let cases = wanted.map_or(default_cases, |cases| cases.div_ceil(share));
    ProptestConfig { cases, failure_persistence: None, max_shrink_time: 120_000, ..ProptestConfig::default() }
}

/// Runs `work` on a text in another thread, for threads that hang cannot be stopped; passes panics on.
fn in_time<T: Send + 'static>(test: &str, text: &[u8], work: fn(&[u8]) -> T) -> T {
    let witness = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz_{test}.train"));
    std::fs::write(witness, text).expect("the folder for the tests' files can be written to");
    let (done, finished) = mpsc::channel();
    let text = text.to_owned();
    let worker = thread::spawn(move || done.send(work(&text)));
    match finished.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {PATIENCE:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            panic::resume_unwind(worker.join().expect_err("a worker without a result has panicked"))
        }
    }
}

/// Reads, checks and shows what there is to say.
fn read_and_render(text: &[u8]) {
    let (sources, found) = trainc_tests::diagnose("fuzz.train", text);
    let rendered = diagnostic::render(&sources, &found, found.len() % 2 == 0);
    assert_eq!(rendered.is_empty(), found.is_empty());
    serde_json::to_string(&diagnostic::reports(&sources, &found)).expect("reports are JSON");
}

/// Checks, and if there is nothing to object to, rewrites and schedules.
fn compile(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    if let Some(program) = program::check("fuzz.train", &text, &[]).ok().filter(is_small) {
        // A plan may be refused for the memory budget; that is an answer too.
        let _ = Compilation::new(program).map(|compilation| compilation.summary());
    }
}

fn is_small(program: &Program) -> bool {
    program.step.len() <= SMALL_GRAPH
}

/// The programs that are mutated: one of a kind for each part of the language.
fn corpus() -> &'static [String] {
    static CORPUS: OnceLock<Vec<String>> = OnceLock::new();
    CORPUS.get_or_init(|| read_all(&["dsl-examples", "dsl-examples/bench", "tests/programs"]))
}

/// Programs that compile in a moment.
fn small_corpus() -> &'static [String] {
    static CORPUS: OnceLock<Vec<String>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let small = |text: &String| program::check("small.train", text, &[]).is_ok_and(|program| is_small(&program));
        corpus().iter().filter(|text| small(text)).cloned().collect()
    })
}

fn read_all(folders: &[&str]) -> Vec<String> {
    let paths = folders.iter().flat_map(|folder| program::programs(folder));
    paths.map(|path| std::fs::read_to_string(path).expect("programs can be read")).collect()
}

/// Words, numbers, single signs and white space; joined they are the text again.
fn tokens(text: &str) -> Vec<String> {
    let class = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '_' | '0'..='9' => 1,
        ' ' => 2,
        _ => 0,
    };
    let mut tokens: Vec<String> = Vec::new();
    for c in text.chars() {
        match tokens.last_mut().filter(|last| class(c) > 0 && last.chars().last().map(class) == Some(class(c))) {
            Some(last) => last.push(c),
            None => tokens.push(c.into()),
        }
    }
    tokens
}

/// Tokens of all programs: as often as they occur there.
fn vocabulary() -> &'static [String] {
    static VOCABULARY: OnceLock<Vec<String>> = OnceLock::new();
    VOCABULARY.get_or_init(|| corpus().iter().flat_map(|text| tokens(text)).collect())
}

/// All lines of all programs.
fn lines() -> &'static [&'static str] {
    static LINES: OnceLock<Vec<&'static str>> = OnceLock::new();
    LINES.get_or_init(|| corpus().iter().flat_map(|text| text.lines()).collect())
}

/// One change of a text.
#[derive(Clone, Debug)]
enum Change {
    DeleteToken(Index),
    DuplicateToken(Index),
    SwapTokens(Index, Index),
    DeleteLine(Index),
    DuplicateLine(Index, Index),
    SwapLines(Index, Index),
    /// A line of another program.
    Graft(Index, Index),
    Number(Index, &'static str),
    /// One name becomes another, at one place or everywhere.
    Rename(Index, Index, bool),
    Insert(Index, Index),
    Nest(Index, (&'static str, &'static str), usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        1 => at().prop_map(Change::DeleteToken),
        1 => at().prop_map(Change::DuplicateToken),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapTokens(a, b)),
        1 => at().prop_map(Change::DeleteLine),
        1 => (at(), at()).prop_map(|(a, b)| Change::DuplicateLine(a, b)),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        2 => (at(), at()).prop_map(|(a, b)| Change::Graft(a, b)),
        4 => (at(), select(NUMBERS)).prop_map(|(a, number)| Change::Number(a, number)),
        3 => (at(), at(), any::<bool>()).prop_map(|(a, b, all)| Change::Rename(a, b, all)),
        1 => (at(), at()).prop_map(|(a, b)| Change::Insert(a, b)),
        1 => (at(), select(WRAPPERS), select(&[1, 3, 70, 300][..])).prop_map(|(a, pair, depth)| Change::Nest(a, pair, depth)),
    ]
}

fn apply(text: String, change: &Change) -> String {
    match change {
        Change::DeleteLine(_) | Change::DuplicateLine(..) | Change::SwapLines(..) | Change::Graft(..) => {
            let lines = text.lines().map(str::to_owned).collect();
            apply_to_lines(lines, change).join("\n")
        }
        _ => apply_to_tokens(tokens(&text), change).concat(),
    }
}

fn apply_to_lines(mut text: Vec<String>, change: &Change) -> Vec<String> {
    let size = text.len();
    match change {
        _ if size == 0 => {}
        Change::DeleteLine(at) => drop(text.remove(at.index(size))),
        Change::DuplicateLine(from, to) => text.insert(to.index(size), text[from.index(size)].clone()),
        Change::SwapLines(a, b) => text.swap(a.index(size), b.index(size)),
        Change::Graft(at, line) => text.insert(at.index(size), lines()[line.index(lines().len())].to_owned()),
        _ => {}
    }
    text
}

fn apply_to_tokens(mut text: Vec<String>, change: &Change) -> Vec<String> {
    let size = text.len();
    match change {
        _ if size == 0 => {}
        Change::DeleteToken(at) => drop(text.remove(at.index(size))),
        Change::DuplicateToken(at) => text.insert(at.index(size), text[at.index(size)].clone()),
        Change::SwapTokens(a, b) => text.swap(a.index(size), b.index(size)),
        Change::Insert(at, word) => text.insert(at.index(size), vocabulary()[word.index(vocabulary().len())].clone()),
        Change::Number(at, number) => {
            let numbers = places(&text, |c| c.is_ascii_digit());
            replace(&mut text, &numbers, *at, |_| (*number).to_owned());
        }
        Change::Rename(from, to, all) => rename(&mut text, *from, *to, *all),
        Change::Nest(at, (open, close), depth) => {
            let words = places(&text, |c| c.is_alphanumeric());
            replace(&mut text, &words, *at, |word| format!("{}{word}{}", open.repeat(*depth), close.repeat(*depth)));
        }
        _ => {}
    }
    text
}

/// Where the tokens are that begin with such a character.
fn places(text: &[String], begins: impl Fn(char) -> bool) -> Vec<usize> {
    (0..text.len()).filter(|&at| text[at].starts_with(&begins)).collect()
}

fn replace(text: &mut [String], places: &[usize], which: Index, by: impl Fn(&str) -> String) {
    if !places.is_empty() {
        let at = places[which.index(places.len())];
        text[at] = by(&text[at]);
    }
}

fn rename(text: &mut [String], from: Index, to: Index, everywhere: bool) {
    let names = places(text, |c| c.is_alphabetic());
    if names.is_empty() {
        return;
    }
    let at = names[from.index(names.len())];
    let (old, new) = (text[at].clone(), text[names[to.index(names.len())]].clone());
    for &place in &names {
        if place == at || everywhere && text[place] == old {
            text[place].clone_from(&new);
        }
    }
}

fn mutated(programs: fn() -> &'static [String]) -> impl Strategy<Value = String> {
    (any::<Index>(), prop::collection::vec(change(), 1..5)).prop_map(move |(which, changes)| {
        let program = programs()[which.index(programs().len())].clone();
        changes.iter().fold(program, apply)
    })
}

fn soup() -> impl Strategy<Value = String> {
    let word = any::<Index>().prop_map(|word| vocabulary()[word.index(vocabulary().len())].as_str());
    prop::collection::vec((word, select(&["", " ", "\n"][..])), 0..150)
        .prop_map(|words| words.into_iter().flat_map(|(word, gap)| [word, gap]).collect())
}

proptest! {
    #![proptest_config(config(100, 1))]

    #[test]
    fn the_front_end_survives_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        in_time("bytes", &bytes, read_and_render);
    }

    #[test]
    fn the_front_end_survives_token_soup(text in soup()) {
        in_time("soup", text.as_bytes(), read_and_render);
    }

    #[test]
    fn the_front_end_survives_mutated_programs(text in mutated(corpus)) {
        in_time("mutated", text.as_bytes(), read_and_render);
    }
}

proptest! {
    #![proptest_config(config(40, 20))]

    #[test]
    fn what_is_left_of_mutated_programs_compiles(text in mutated(small_corpus)) {
        in_time("compiled", text.as_bytes(), compile);
    }
}
