//! Data that are not those that a run was trained on.

use super::support::{self, regression};
use super::*;
use std::sync::atomic::AtomicBool;
use trainc_runtime::report::Observer;
use trainc_runtime::{Error, Options, RunDirectory, Session, train};

fn rows(count: u64) -> String {
    (0..count).map(|row| (0..5).map(|c| unit(row, c).to_string()).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// Regression on `rows.csv` in `base`, of 40 rows.
fn table_program(base: &Path) -> Artifact {
    fs::write(base.join("rows.csv"), rows(40)).unwrap();
    let mut artifact = regression();
    let field = |name: &str, first, count| CsvField { name: name.into(), first, count, scale: 1.0 };
    let fields = vec![field("x", 0, 4), field("y", 4, 1)];
    artifact.manifest.data = Some(spec(Source::Csv { paths: vec!["*.csv".into()], header: false, fields }, 0.25, true));
    artifact
}

fn options(base: &Path, accept_changed_data: bool) -> Options {
    Options { threads: Some(1), base: Some(base.to_owned()), accept_changed_data, ..Options::default() }
}

/// A session that goes on from the checkpoint `saved` of another one which has made two steps.
fn continued(artifact: &Artifact, base: &Path, change: impl FnOnce(), accept: bool) -> Session {
    let mut session = Session::new(artifact.clone(), &options(base, false)).unwrap();
    session.step().unwrap();
    session.step().unwrap();
    session.save(base.join("saved")).unwrap();
    change();
    let mut session = Session::new(artifact.clone(), &options(base, accept)).unwrap();
    session.load(base.join("saved")).unwrap();
    session
}

/// What is said of data that have changed in this way.
fn difference(change: impl FnOnce(&Path)) -> Option<String> {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let mut session = continued(&artifact, base.path(), || change(base.path()), false);
    match session.step() {
        Ok(_) => None,
        Err(Error::DataChanged { difference }) => {
            assert_eq!(session.steps_done(), 2, "nothing has happened");
            Some(difference)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn data_that_changed_since_a_checkpoint_are_refused() {
    let write = |name: &'static str, text: String| move |base: &Path| fs::write(base.join(name), text).unwrap();
    assert_eq!(difference(|_| ()), None);
    assert_eq!(difference(write("rows.csv", rows(40))), None, "written again, at another time");
    let renamed = |base: &Path| fs::rename(base.join("rows.csv"), base.join("moved.csv")).unwrap();
    assert_eq!(difference(renamed), None, "names do not matter");
    let appended = difference(write("rows.csv", rows(41))).unwrap();
    let expected = "30 records to train on and 10 held out then, 31 records to train on and 10 held out now; ";
    assert!(appended.starts_with(expected), "{appended}");
    let digit = rows(40).replacen("0.", "1.", 1);
    assert_eq!(difference(write("rows.csv", digit)).unwrap(), "files of the same sizes have other contents");
    assert!(difference(write("more.csv", rows(8))).unwrap().contains(" bytes in 2 files now"));
}

/// Collects warnings.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn warned(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn changed_data_are_accepted_on_request_with_a_warning_and_known_from_then_on() {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let append = || fs::write(base.path().join("rows.csv"), rows(41)).unwrap();
    let mut session = continued(&artifact, base.path(), append, true);
    assert_eq!(session.data_change(), None, "nothing has been opened");
    let out = base.path().join("out");
    let directory = RunDirectory::create(&out, &artifact, &options(base.path(), true)).unwrap();
    let mut warnings = Warnings::default();
    train(&mut session, Some(&directory), &mut warnings, &AtomicBool::new(false)).unwrap();
    assert!(warnings.0[0].contains("31 records to train on and 10 held out now"), "{:?}", warnings.0);
    let mut later = Session::new(artifact, &options(base.path(), false)).unwrap();
    later.load(directory.newest_checkpoint().unwrap().1).unwrap();
    assert!(later.evaluate().unwrap().is_some());
}

/// Data may be open before a checkpoint is loaded.
#[test]
fn a_checkpoint_of_other_data_than_those_that_are_open_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let append = || fs::write(base.path().join("rows.csv"), rows(41)).unwrap();
    drop(continued(&artifact, base.path(), append, false));
    let mut session = Session::new(artifact, &options(base.path(), false)).unwrap();
    session.open_data().unwrap();
    assert!(matches!(session.load(base.path().join("saved")), Err(Error::DataChanged { .. })));
    assert_eq!(session.steps_done(), 0);
}

/// Generating reads nothing of the data but the tokenizer, whose ids the model has learnt.
#[cfg(feature = "tokenizers")]
#[test]
fn another_tokenizer_is_noticed_even_where_only_text_is_generated() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("tokenizer.json");
    fs::write(&file, tokenizers::TOKENIZER).unwrap();
    fs::write(base.path().join("a.txt"), "the cat sat ".repeat(40)).unwrap();
    let mut artifact = support::language_model();
    let tokenizer = TokenizerSpec::HuggingFace { path: "tokenizer.json".into() };
    artifact.manifest.data = Some(spec(text(&["a.txt"], tokenizer), 0.1, true));
    let swap =
        || fs::write(&file, tokenizers::TOKENIZER.replace("\"cat\": 3, \"sat\": 4", "\"cat\": 4, \"sat\": 3")).unwrap();
    let remove_text = || fs::remove_file(base.path().join("a.txt")).unwrap();
    let mut session = continued(&artifact, base.path(), swap, false);
    let once = trainc_runtime::GenerateOptions { max_tokens: 1, ..Default::default() };
    let refused = session.generate("the", &once).unwrap_err();
    assert!(matches!(&refused, Error::DataChanged { difference } if difference == "the tokenizer is another one"));
    assert!(session.step().unwrap_err().to_string().contains("the tokenizer is another one"));
    fs::write(&file, tokenizers::TOKENIZER).unwrap();
    let mut session = continued(&artifact, base.path(), || (swap(), remove_text()).0, true);
    session.generate("the", &once).unwrap();
    assert_eq!(session.data_change(), Some("the tokenizer is another one"));
}
