//! No word of a program goes unread: what has no effect is refused, in every clause of every block.

use trainc::clauses::{Block, Clause, DATA, Kind, PRIVATE, TRAIN};
use trainc_tests::program;

const MODEL: &str = "use std
model Line() {
    input x: [batch, 3]
    input y: [batch, 1]
    output prediction = linear(x, 1)
}
model Lm() {
    input tokens: int[batch, 8]
    output logits = linear(embedding(tokens, 256, 4), 256)
}
";

/// A line for every clause of a block, such that all lines together are a program.
type Lines = Vec<(&'static str, &'static str)>;

fn train() -> Lines {
    vec![
        ("model", "model Line"),
        ("data", "data D"),
        ("loss", "loss mse(prediction, y)"),
        ("metric", "metric far = mean(abs(prediction - y))"),
        ("optimizer", "optimizer momentum(0.9)"),
        ("filter", "filter lowpass(a = [-0.9], b = [0.1])"),
        ("group", "group biases { rate = 0.5x }"),
        ("schedule", "schedule constant(0.1)"),
        ("steps", "steps 100"),
        ("batch", "batch 16"),
        ("precision", "precision f32"),
        ("seed", "seed 1"),
        ("clip", "clip 1.0"),
        ("freeze", "freeze \"linear.w\""),
        ("evaluate", "evaluate every 20 batches 2"),
        ("checkpoint", "checkpoint every 50"),
        ("keep", "keep 2"),
        ("memory", "memory 500 MB"),
        ("private", "private { noise_multiplier 1  clip 1.0  records 1000 }"),
    ]
}

fn private() -> Lines {
    vec![
        ("epsilon", "epsilon 3"),
        ("delta", "delta 1e-5"),
        ("noise_multiplier", "noise_multiplier 1.1"),
        ("clip", "clip 1.0 flat"),
        ("sampling", "sampling poisson"),
        ("accountant", "accountant rdp"),
        ("records", "records 60000"),
        ("rows", "rows 8"),
        ("secure", "secure no"),
        ("filter", "filter lowpass(a = [-0.9], b = [0.1])"),
    ]
}

/// The data block of each kind of records.
fn data() -> Vec<(&'static str, Lines)> {
    let (split, shuffle) = (("split", "split valid = 10%"), ("shuffle", "shuffle no"));
    let tokenizer = ("tokenizer", "tokenizer bytes");
    vec![
        ("text", vec![("text", "text \"a.txt\""), tokenizer, split, shuffle]),
        ("jsonl", vec![("jsonl", "jsonl \"a.jsonl\" member \"text\""), tokenizer, split, shuffle]),
        ("tokens", vec![("tokens", "tokens \"a.bin\" width 2"), split, shuffle]),
        (
            "csv",
            vec![
                ("csv", "csv \"a.csv\""),
                ("header", "header yes"),
                ("field", "field x = columns(0, 3)"),
                ("field", "field y = columns(3)"),
                split,
                shuffle,
            ],
        ),
        (
            "arrays",
            vec![
                ("arrays", "arrays \"a.npz\""),
                ("field", "field x = \"x\""),
                ("field", "field y = \"y\""),
                split,
                shuffle,
            ],
        ),
        ("", vec![("field", "field x = hash(1)"), ("field", "field y = hash(2)"), split]),
    ]
}

fn block(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

fn of_train(lines: &[String]) -> String {
    format!(
        "{MODEL}data D {{\n    csv \"a.csv\"\n    field x = columns(0, 3)\n    field y = columns(3)\n    split valid = 10%\n}}\ntrain {{\n{}}}\n",
        block(lines)
    )
}

fn of_private(lines: &[String]) -> String {
    format!(
        "{MODEL}train {{\n    model Line\n    loss mse(prediction, y)\n    optimizer sgd\n    schedule 0.1\n    steps 10\n    batch 16\n    \
         private {{\n{}    }}\n}}\n",
        block(lines)
    )
}

fn of_data(is_text: bool) -> impl Fn(&[String]) -> String {
    let (model, loss) =
        if is_text { ("Lm", "cross_entropy(logits, next(tokens))") } else { ("Line", "mse(prediction, y)") };
    move |lines| {
        format!(
            "{MODEL}data D {{\n{}}}\ntrain {{\n    model {model}\n    data D\n    loss {loss}\n    optimizer sgd\n    schedule 0.1\n    \
             steps 10\n    batch 16\n}}\n",
            block(lines)
        )
    }
}

/// Makes a program of the lines of a block.
type Whole = Box<dyn Fn(&[String]) -> String>;

/// Every block with lines for all its clauses that can stand together.
fn blocks() -> Vec<(&'static Block, Lines, Whole)> {
    let mut blocks: Vec<(&'static Block, Lines, Whole)> =
        vec![(&TRAIN, train(), Box::new(of_train)), (&PRIVATE, private(), Box::new(of_private))];
    for (source, lines) in data() {
        blocks.push((&DATA, lines, Box::new(of_data(["text", "jsonl", "tokens"].contains(&source)))));
    }
    blocks
}

/// What the checker says of a program, if it refuses it.
fn refusal(text: &str) -> Option<String> {
    program::check("words", text, &[]).err()
}

fn written(lines: &Lines) -> Vec<String> {
    lines.iter().map(|(_, line)| (*line).to_owned()).collect()
}

#[test]
fn every_clause_has_a_line_and_all_lines_are_read() {
    for (known, lines, whole) in blocks() {
        let lines_of = |clause: &&Clause| lines.iter().any(|(word, _)| *word == clause.word);
        if known.word != "data" {
            let missing: Vec<&str> = known
                .clauses
                .iter()
                .filter(|clause| clause.kind != Kind::ToCome && !lines_of(clause))
                .map(|c| c.word)
                .collect();
            assert!(missing.is_empty(), "{} has no line for {missing:?}", known.word);
        }
        // A private program takes no second filter, and its rate of samples follows from its records.
        assert_eq!(refusal(&whole(&written(&lines))), None, "{}", whole(&written(&lines)));
    }
}

#[test]
fn words_that_nobody_reads_are_refused_behind_every_clause() {
    for (known, lines, whole) in blocks() {
        for (position, (word, line)) in lines.iter().enumerate() {
            let mut strays = vec!["banana 7", "banana", "\"banana\"", ", banana"];
            if !known.clause(word).unwrap().has_block {
                strays.push("{ banana 7 }");
            }
            for stray in strays {
                // A list goes on.
                if ["freeze", "text", "csv"].contains(word) && [", banana"].contains(&stray) {
                    continue;
                }
                let mut changed = written(&lines);
                changed[position] = format!("{line} {stray}");
                let text = whole(&changed);
                let said = refusal(&text).unwrap_or_else(|| panic!("`{line} {stray}` was accepted in {}", known.word));
                assert!(said.contains("banana") || said.contains(word), "{said}");
            }
        }
    }
}

#[test]
fn clauses_that_do_not_repeat_stand_once() {
    for (known, lines, whole) in blocks() {
        for (word, line) in lines.iter().filter(|(word, _)| !known.clause(word).unwrap().repeats) {
            let mut changed = written(&lines);
            changed.push((*line).to_owned());
            let said = refusal(&whole(&changed)).unwrap_or_else(|| panic!("`{word}` stands twice in {}", known.word));
            assert!(said.contains("E0702") || said.contains("E0601"), "{said}");
        }
    }
}

/// Each clause of `data` beside each kind of records: it changes what is read, or it is refused by name.
#[test]
fn clauses_of_data_that_mean_nothing_for_the_records_are_refused() {
    for (source, lines) in data() {
        let whole = of_data(["text", "jsonl", "tokens"].contains(&source));
        let others = DATA.clauses.iter().filter(|clause| !lines.iter().any(|(word, _)| *word == clause.word));
        for clause in others {
            let mut changed = written(&lines);
            changed.push(clause.example.to_owned());
            let said = refusal(&whole(&changed));
            let said = said.unwrap_or_else(|| panic!("`{}` was accepted beside `{source}`", clause.example));
            // Made-up numbers have no source, so that fields are another's.
            let expected = if clause.kind == Kind::Source { ["E0601", "E0603", "E0650"] } else { ["E0650"; 3] };
            assert!(
                expected.iter().any(|id| said.contains(id)) && (said.contains(clause.word) || source.is_empty()),
                "{said}"
            );
        }
    }
}

#[test]
fn numbers_are_taken_as_they_are_written_or_refused() {
    let with = |word: &str, line: &str| {
        let change =
            |(known, written): &(&str, &str)| if *known == word { line.to_owned() } else { (*written).to_owned() };
        refusal(&of_train(&train().iter().map(change).collect::<Vec<String>>()))
    };
    for (word, line) in [
        ("seed", "seed 9007199254740993"),
        ("seed", "seed 0.5"),
        ("steps", "steps 0.5"),
        ("batch", "batch 1e9"),
        ("batch", "batch 0"),
        ("schedule", "schedule wsd(peak = 0.1, warmup = 500%)"),
        ("schedule", "schedule -0.1"),
        ("keep", "keep 0"),
        ("clip", "clip 0"),
        ("evaluate", "evaluate every 20 every 30"),
        ("checkpoint", "checkpoint every 50 keep 3"),
        ("group", "group biases { rate = 0.5x  rate = 2x }"),
        ("group", "group biases { freeze  rate = 0.5x }"),
        ("group", "group biases { banana = 0.5 }"),
    ] {
        assert!(with(word, line).is_some(), "`{line}` was accepted");
    }
    assert_eq!(with("seed", "seed 9007199254740991"), None);
}
