//! The parser and the formatter on whole programs.

mod common;

use common::{EVERYTHING, check_format, programs};
use trainc::source::FileId;
use trainc::syntax::tree::{Item, Word};
use trainc::syntax::{MAX_ERRORS, MAX_EXPRESSION_HEIGHT, MAX_FILE_BYTES, MAX_NESTING, decode, format, parse};

#[test]
fn every_construct_parses() {
    let parsed = parse(FileId(0), EVERYTHING);
    assert_eq!(parsed.errors, []);
    assert_eq!(parsed.file.items.len(), 22);
}

#[test]
fn the_formatter_keeps_tree_and_comments_of_every_program_and_is_a_fixed_point() {
    let formatted = check_format(EVERYTHING).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!(formatted);
    for (path, bytes) in programs() {
        if let Ok(text) = decode(FileId(0), &bytes) {
            check_format(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// `BLESS=1` formats them, as `trainc fmt` does.
#[test]
fn examples_and_library_are_formatted() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut unformatted = Vec::new();
    for (path, bytes) in programs() {
        if !path.components().any(|part| part.as_os_str() == "dsl-examples" || part.as_os_str() == "std") {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        let formatted = format(&text).unwrap_or_else(|errors| panic!("{}: {errors:#?}", path.display()));
        if bless {
            std::fs::write(&path, &formatted).expect("programs can be written");
        } else if text != formatted {
            unformatted.push(path);
        }
    }
    assert!(unformatted.is_empty(), "run `trainc fmt`: {unformatted:#?}");
}

/// The clauses of a train block, one a line, words separated by spaces, inner blocks in braces.
fn clauses(body: &str) -> Vec<String> {
    let parsed = parse(FileId(0), &format!("train {{\n{body}\n}}"));
    assert_eq!(parsed.errors, []);
    let [Item::Train(block)] = &parsed.file.items[..] else { panic!("one train block") };
    block.clauses.iter().map(|clause| clause_text(clause, body)).collect()
}

fn clause_text(clause: &trainc::syntax::tree::Clause, body: &str) -> String {
    let at = |span: trainc::source::Span| body[span.start as usize - 8..span.end as usize - 8].to_owned();
    let word = |word: &Word| match word {
        Word::Value(value) => at(value.span),
        Word::Setting(name, value) => format!("{}={}", name.text, at(value.span)),
        Word::Mark(mark, _) => mark.to_string(),
    };
    let mut parts = vec![clause.keyword.text.clone()];
    parts.extend(clause.words.iter().map(word));
    for inner in clause.block.iter().flatten() {
        parts.push(format!("{{{}}}", clause_text(inner, body)));
    }
    parts.join("·")
}

#[test]
fn clauses_begin_at_lines_and_at_keywords_of_their_block() {
    assert_eq!(clauses("seed 1 steps 2000 batch 16"), ["seed·1", "steps·2000", "batch·16"]);
    assert_eq!(clauses("evaluate every 200 steps keep 3"), ["evaluate·every·200 steps", "keep·3"]);
    assert_eq!(clauses("steps 20M tokens"), ["steps·20M tokens"]);
    assert_eq!(clauses("freeze norms, data, loss"), ["freeze·norms·,·data·,·loss"]);
    assert_eq!(clauses("schedule wsd(steps = 3) peak = auto(0.3)"), ["schedule·wsd(steps = 3)·peak=auto(0.3)"]);
    assert_eq!(clauses("stepz 20 batch 3"), ["stepz·20", "batch·3"]);
    assert_eq!(
        clauses("sparsify ffn { weights 2:4 activations 16:2:8 from 2% until 80% }"),
        ["sparsify·ffn·{weights·2·:·4}·{activations·16·:·2·:·8}·{from·2%}·{until·80%}"]
    );
    assert_eq!(
        clauses("grow { depth 1 -> 12 at 80% init copy | random }"),
        ["grow·{depth·1·>·12·at·80%}·{init·copy·|·random}"]
    );
    assert_eq!(
        clauses("optimizer sgd { group a, b { rate = 0.5x, decay = 0 clip = 1 } }"),
        ["optimizer·sgd·{group·a·,·b·{rate·=·0.5x}·{decay·=·0}·{clip·=·1}}"]
    );
    assert_eq!(clauses("clip 1.0 (flat) steps [3]"), ["clip·1.0·(flat)", "steps·[3]"]);
}

#[test]
fn operators_bind_as_documented() {
    for (written, meant) in [
        ("a + b * c", "a + (b * c)"),
        ("a - b - c", "(a - b) - c"),
        ("a ^ b ^ c", "a^(b^c)"),
        ("-a ^ b", "-(a^b)"),
        ("a ^ -b", "a^(-b)"),
        ("-a * b", "(-a) * b"),
        ("not a and b", "(not a) and b"),
        ("not a < b", "not (a < b)"),
        ("a or b and c < d + e", "a or (b and (c < (d + e)))"),
        ("if a then b else c + d -> [i]", "(if a then b else (c + d)) -> [i]"),
    ] {
        let tree = |text: &str| common::shape(&format!("function f(a) {{ {text} }}")).map(|tree| ungrouped(&tree));
        assert!(tree(written).is_some(), "{written}");
        assert_eq!(tree(written), tree(meant), "{written} is {meant}");
    }
}

/// Takes the parentheses out of the debug text of a tree: `Group(Expr { kind: X, span:  })` becomes `X`.
fn ungrouped(tree: &str) -> String {
    let Some(start) = tree.find("Group(Expr { kind: ") else { return tree.to_owned() };
    let inside = start + "Group(Expr { kind: ".len();
    let mut depth = 1;
    let end = tree[inside..].char_indices().find(|(_, c)| {
        depth += match c {
            '(' | '{' => 1,
            ')' | '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    let end = inside + end.expect("debug texts are balanced").0;
    let kind = tree[inside..end].trim_end().trim_end_matches(", span:");
    ungrouped(&format!("{}{}{}", &tree[..start], kind, &tree[end + 2..]))
}

#[test]
fn hostile_texts_meet_limits_and_not_the_end_of_the_stack() {
    let nested = [
        "(".repeat(100_000),
        "[".repeat(100_000) + &"]".repeat(100_000),
        "const a = ".to_owned() + &"-".repeat(100_000) + "1",
        "const a = ".to_owned() + &"not ".repeat(100_000) + "1",
        "const a = ".to_owned() + &"2^".repeat(100_000) + "2",
        "const a = 1".to_owned() + &" + 1".repeat(100_000),
        "const a = b".to_owned() + &"[0]".repeat(80_000),
        "function f(x) = x".to_owned() + &" -> [i]".repeat(60_000),
        "const a = ".to_owned() + &"if 1 then 1 else ".repeat(50_000) + "1",
        "model M() {\n".to_owned() + &"repeat 2 {\n".repeat(50_000),
        "train {\n".to_owned() + &"a {".repeat(80_000),
        "{".repeat(200_000) + &"\n}".repeat(200_000),
        "a".repeat(500_000),
        "\"".to_owned() + &"x".repeat(500_000),
        "1".repeat(500_000),
        "}\n".repeat(200_000),
        "f(".repeat(130_000),
        "use std\n".repeat(100_000),
        " ".repeat(MAX_FILE_BYTES + 1),
    ];
    for text in nested {
        let begin = std::time::Instant::now();
        let parsed = parse(FileId(0), &text);
        assert!(!parsed.errors.is_empty() && parsed.errors.len() <= MAX_ERRORS || text.starts_with("use"));
        let mut sources = trainc::source::SourceMap::default();
        sources.add("hostile.train", &text);
        trainc::diagnostic::render(&sources, &parsed.errors, false);
        let seconds = begin.elapsed().as_secs_f64();
        assert!(seconds < 5.0, "{seconds} s for {} bytes of {:?}...", text.len(), &text[..30]);
    }
}

/// A thread of an embedding program may have little stack, however deep the text nests and however high its trees are.
#[test]
fn a_small_stack_is_enough() {
    let levels = MAX_NESTING as usize - 3;
    let texts = [
        format!("const a = {}1{}\n", "(".repeat(levels), ")".repeat(levels)),
        format!("const a = {}1{}\n", "f(x = [".repeat(levels / 2), "])".repeat(levels / 2)),
        format!("const a = {}1\n", "if 1 < 2 then 1 else ".repeat(levels)),
        format!("model M() {{\n{}x = 1\n{}}}\n", "repeat 2 {\n".repeat(levels), "}\n".repeat(levels)),
        format!("const a = 1{}\n", " + 1".repeat(MAX_EXPRESSION_HEIGHT as usize - 2)),
    ];
    let work = move || {
        for text in texts {
            let parsed = parse(FileId(0), &text);
            assert!(parsed.errors.is_empty(), "{:?} in {text}", parsed.errors);
            let formatted = format(&text).expect("it has no errors");
            assert_eq!(format(&formatted).as_ref(), Ok(&formatted));
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).expect("a thread can be started");
    thread.join().expect("the stack was enough");
}

#[test]
fn several_errors_are_found_in_one_go() {
    let text =
        "model M( {\n    x = * 2\n    param w [2]\n    y = f(1 2)\n}\n\ntrain {\n    = 3\n    steps 5 }\nlayr L() {}\n";
    let ids: Vec<_> = parse(FileId(0), text).errors.iter().map(|error| error.id).collect();
    assert_eq!(ids, ["E0105", "E0107", "E0113", "E0108", "E0115", "E0109"]);
}

#[test]
fn bytes_become_text_or_a_reason() {
    let text = |bytes: &[u8]| decode(FileId(0), bytes).map_err(|error| (error.id, error.labels[0].span.start));
    assert_eq!(text(b"\xef\xbb\xbfuse std\r\nuse std"), Ok("use std\nuse std".into()));
    assert_eq!(text(b"ab\xffcd"), Err(("E0116", 2)));
    assert_eq!(text(b"ab\0cd"), Err(("E0116", 2)));
    assert_eq!(text(b"\xff\xfea\0"), Err(("E0116", 0)));
    assert_eq!(text(&vec![b' '; MAX_FILE_BYTES + 1]), Err(("E0110", 0)));
}
