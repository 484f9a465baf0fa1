//! Held-out numbers are of the held-out set: all its records, each once, whatever the size of a batch.

use super::cli::{code, run, stderr};
use std::{fs, path::Path};
use trainc_runtime::{Numbers, Options, RECORDS};
use trainc_tests::program;

/// Ten records that are held out, and forty to train on: two numbers, a class from 0 to 3, a target.
fn write_records(folder: &Path) {
    let unit = trainc_runtime::data::unit;
    let row = |row: u64| {
        let [a, b, c] = [0, 1, 2].map(|column| 4.0 * unit(row, column) - 2.0);
        format!("{a},{b},{},{c}\n", (4.0 * unit(row, 3)) as u32)
    };
    fs::write(folder.join("d.csv"), (0..50).map(row).collect::<String>()).unwrap();
}

/// The records that a split of 20 % holds out: the last ones.
fn held_out(folder: &Path) -> Vec<([f64; 2], usize, f64)> {
    let text = fs::read_to_string(folder.join("d.csv")).unwrap();
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| f64::from(cell.parse::<f32>().unwrap())).collect();
        ([cells[0], cells[1]], cells[2] as usize, cells[3])
    };
    text.lines().skip(40).map(row).collect()
}

fn text(batch: u64, clauses: &str) -> String {
    format!(
        "use std
model M() {{
    input x: [batch, 2]
    input y: int[batch]
    input z: [batch]
    output logits = linear(x, 4, init = normal(1))
    output guess = sum[c](logits[.., c])
}}
data D {{
    csv \"d.csv\"
    field x = columns(0, 2)
    field y = columns(2)
    field z = columns(3)
    split valid = 20%
    shuffle no
}}
train {{
    model M
    data D
    optimizer sgd
    schedule 0
    steps 2  batch {batch}
{clauses}
}}
"
    )
}

/// What a program says of its held-out data, and the rows of its weights (4 outputs of 2 numbers), then its biases.
fn evaluated(folder: &Path, text: &str) -> (Numbers, Vec<f64>, Vec<f64>) {
    let options = Options { base: Some(folder.into()), ..Options::default() };
    let mut session = program::session("held_out", text, &[], &options);
    let numbers = session.evaluate().unwrap_or_else(|error| panic!("{error}")).expect("records are held out");
    let named = |part: &str| {
        let name =
            session.tensors().iter().find(|tensor| tensor.name.ends_with(part)).expect("a linear layer").name.clone();
        program::floats(&session, &name)
    };
    (numbers, named(".w"), named(".bias"))
}

fn close(name: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{name}: {found} instead of {expected}");
}

#[test]
fn they_are_ratios_of_sums_over_all_records_for_any_batch() {
    let folder = tempfile::tempdir().unwrap();
    write_records(folder.path());
    let clauses = "    loss cross_entropy(logits, y, ignore = 3)
    metric perplexity(logits, y, ignore = 3)
    metric accuracy(logits, y, ignore = 3)
    metric rms = sqrt(mean((guess - z)^2))
    metric total = sum(z)
    metric explained = 1 - mean((guess - z)^2) / mean((z - 0.5)^2)
    metric positive = mean(z > 0) * mean(z < 1)
    metric decayed = mean(z^2) + 0.1";
    for batch in [1, 2, 3, 4, 5, 7, 10, 12] {
        let (numbers, weight, bias) = evaluated(folder.path(), &text(batch, clauses));
        let records = held_out(folder.path());
        let count = records.len() as f64;
        let logits = |x: &[f64; 2]| -> Vec<f64> {
            (0..4).map(|c| weight[2 * c] * x[0] + weight[2 * c + 1] * x[1] + bias[c]).collect()
        };
        let (mut nll, mut right, mut kept) = (0.0, 0.0, 0.0);
        for (x, y, _) in records.iter().filter(|(_, y, _)| *y != 3) {
            let z = logits(x);
            nll += z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[*y];
            right += f64::from(u8::from((0..4).all(|c| z[c] <= z[*y])));
            kept += 1.0;
        }
        let mean = |f: &dyn Fn(&[f64; 2], f64) -> f64| records.iter().map(|(x, _, z)| f(x, *z)).sum::<f64>() / count;
        let error = mean(&|x, z| (logits(x).iter().sum::<f64>() - z).powi(2));
        let expected = [
            ("loss", nll / kept),
            ("perplexity", (nll / kept).exp()),
            ("accuracy", right / kept),
            ("rms", error.sqrt()),
            ("total", count * mean(&|_, z| z)),
            ("explained", 1.0 - error / mean(&|_, z| (z - 0.5).powi(2))),
            ("positive", mean(&|_, z| f64::from(u8::from(z > 0.0))) * mean(&|_, z| f64::from(u8::from(z < 1.0)))),
            ("decayed", mean(&|_, z| z * z) + 0.1),
            (RECORDS, 10.0),
        ];
        assert_eq!(numbers.iter().count(), expected.len());
        for (name, expected) in expected {
            close(&format!("{name} in batches of {batch}"), numbers.get(name).unwrap(), expected);
        }
    }
}

#[test]
fn the_stated_number_of_batches_counts_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    write_records(folder.path());
    let records = held_out(folder.path());
    for (batch, batches, count) in [(3, 2, 6), (4, 9, 10), (12, 1, 10)] {
        let clauses = format!(
            "    loss mean((guess - z)^2)\n    metric centre = mean(z)\n    evaluate every 1 batches {batches}"
        );
        let (numbers, ..) = evaluated(folder.path(), &text(batch, &clauses));
        let expected = records[..count].iter().map(|(.., z)| z).sum::<f64>() / count as f64;
        close("centre", numbers.get("centre").unwrap(), expected);
        assert_eq!(numbers.get(RECORDS), Some(count as f64));
    }
}

/// The largest value of a batch is no sum: the number is a mean of batches, and the compiler says so.
#[test]
fn what_only_a_batch_has_is_said_to_be_a_mean_of_batches() {
    let folder = tempfile::tempdir().unwrap();
    write_records(folder.path());
    let text = text(
        4,
        "    loss mean((guess - z)^2)\n    metric largest = max(z)\n    metric above = mean(z > mean(z))\n    metric centre = mean(z)",
    );
    let checked = program::check("held_out", &text, &[]).unwrap_or_else(|found| panic!("{found}"));
    let of_batches: Vec<_> = checked.warnings.iter().filter(|warning| warning.id == "W0721").collect();
    assert_eq!(of_batches.len(), 2, "{:?}", checked.warnings);
    let (numbers, ..) = evaluated(folder.path(), &text);
    let z: Vec<f64> = held_out(folder.path()).iter().map(|(.., z)| *z).collect();
    let largest = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max);
    let filled = [&z[8..], &z[..2]].concat();
    let expected = (4.0 * largest(&z[..4]) + 4.0 * largest(&z[4..8]) + 2.0 * largest(&filled)) / 10.0;
    close("largest", numbers.get("largest").unwrap(), expected);
    close("centre", numbers.get("centre").unwrap(), z.iter().sum::<f64>() / 10.0);
}

/// Every window of held-out tokens counts once, in sequences of several tokens and in layers of a repeat.
#[test]
fn tokens_of_all_windows_count_once_in_both_precisions() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: String = (0..3000).map(|i| char::from(b'a' + (7 * i * i + i / 3) as u8 % 17)).collect();
    fs::write(folder.path().join("t.txt"), bytes).unwrap();
    for precision in ["f32", "bf16"] {
        let numbers = |batch: u64| {
            let text = format!(
                "use std
model Lm(vocab = 256, context = 8, width = 16, depth = 2) {{
    input tokens: int[batch, context]
    x = embedding(tokens, vocab, width)
    repeat depth {{ x = x + gelu(linear(rms_norm(x), width)) }}
    output logits = linear(x, vocab)
}}
data T {{ text \"t.txt\"  tokenizer bytes  split valid = 20% }}
train {{
    model Lm
    data T
    loss cross_entropy(logits, next(tokens))
    metric perplexity(logits, next(tokens))
    optimizer sgd
    schedule 0.1
    steps 1  batch {batch}  precision {precision}
}}
"
            );
            let options = Options { base: Some(folder.path().into()), ..Options::default() };
            let mut session = program::session("windows", &text, &[], &options);
            session.evaluate().unwrap_or_else(|error| panic!("{error}")).expect("text is held out")
        };
        let alone = numbers(1);
        let tolerance = if precision == "f32" { 2e-6 } else { 2e-4 };
        for batch in [5, 16] {
            let together = numbers(batch);
            assert_eq!(together.get(RECORDS), alone.get(RECORDS));
            assert!((together.loss() / alone.loss() - 1.0).abs() < tolerance, "{together:?}, {alone:?}");
            let perplexity = together.get("perplexity").unwrap();
            assert!((perplexity / together.loss().exp() - 1.0).abs() < 1e-5, "{together:?}");
        }
    }
}

#[test]
fn the_command_line_says_how_many_records_they_are_of() {
    let folder = tempfile::tempdir().unwrap();
    write_records(folder.path());
    let text = text(4, "    loss mean((guess - z)^2)");
    fs::write(folder.path().join("m.train"), text).unwrap();
    let trained = run(folder.path(), &["run", "m.train", "--out", "m"]);
    assert_eq!(code(&trained), 0, "{}", stderr(&trained));
    assert!(String::from_utf8_lossy(&trained.stdout).contains("(10 records)"));
    let metrics = fs::read_to_string(folder.path().join("m/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["valid_records"], 10.0);
    let evaluated = run(folder.path(), &["evaluate", "m", "--json"]);
    let said = String::from_utf8_lossy(&evaluated.stdout).into_owned();
    assert!(said.contains("of 10 records"), "{said}");
    let json: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&json["records"], &json["loss"]), (&last["valid_records"], &last["valid_loss"]));
}
