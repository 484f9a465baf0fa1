//! Whole runs in a directory: reports, checkpoints, interruption, resumption, and what goes wrong.

#[path = "training/run_directory.rs"]
mod run_directory;
mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use support::*;
use trainc_runtime::artifact::*;
use trainc_runtime::checkpoint::CheckpointError;
use trainc_runtime::report::{Observer, Progress};
use trainc_runtime::*;

/// A language model over three small files in `base`.
fn text_program(base: &Path) -> Artifact {
    for (name, text) in
        [("a.txt", "abcdefghij".repeat(20)), ("b.txt", "0123456789".repeat(11)), ("c.txt", "xy".repeat(50))]
    {
        fs::write(base.join(name), text).unwrap();
    }
    let mut artifact = language_model();
    let source = Source::Text { paths: vec!["*.txt".into()], tokenizer: TokenizerSpec::Bytes };
    artifact.manifest.data = Some(DataSpec { name: "Letters".into(), source, valid_fraction: 0.1, shuffle: true });
    artifact
}

/// Regression on a table of 40 rows in `base`.
fn table_program(base: &Path) -> Artifact {
    let row = |r: u64| {
        let x: Vec<f64> = (0..4).map(|c| data::unit(r, c)).collect();
        format!("{},{},{},{},{}\n", x[0], x[1], x[2], x[3], x[0] - 2.0 * x[1] + 3.0 * x[2] + 0.5 * x[3])
    };
    fs::write(base.join("rows.csv"), (0..40).map(row).collect::<String>()).unwrap();
    let mut artifact = regression();
    let field = |name: &str, first, count| CsvField { name: name.into(), first, count, scale: 1.0 };
    let fields = vec![field("x", 0, 4), field("y", 4, 1)];
    let source = Source::Csv { paths: vec!["rows.csv".into()], header: false, fields };
    artifact.manifest.data = Some(DataSpec { name: "Rows".into(), source, valid_fraction: 0.25, shuffle: true });
    artifact
}

fn options(base: &Path, threads: usize) -> Options {
    Options { threads: Some(threads), base: Some(base.to_owned()), ..Options::default() }
}

/// Starts or continues a run.
fn run(artifact: &Artifact, base: &Path, out: &Path, threads: usize, observer: &mut dyn Observer) -> Result<Outcome> {
    let (directory, options) = match RunDirectory::exists(out) {
        true => {
            let (directory, _, kept) = RunDirectory::open(out)?;
            (directory, Options { threads: Some(threads), ..kept })
        }
        false => {
            let options = options(base, threads);
            (RunDirectory::create(out, artifact, &options)?, options)
        }
    };
    let mut session = Session::new(artifact.clone(), &options)?;
    directory.restore(&mut session, observer)?;
    train(&mut session, Some(&directory), observer, &AtomicBool::new(false))
}

/// Dies without warning when a step is done.
struct Killer(u32);

impl Observer for Killer {
    fn stepped(&mut self, progress: &Progress<'_>) {
        assert_ne!(progress.step, self.0, "killed");
    }
}

fn killed_at(step: u32, artifact: &Artifact, base: &Path, out: &Path) {
    let died = std::panic::catch_unwind(|| drop(run(artifact, base, out, 2, &mut Killer(step))));
    assert!(died.is_err());
}

fn metrics(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The files of every checkpoint, and all losses: what must be equal in equal runs.
fn traces(out: &Path) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let mut files = Vec::new();
    for (step, path) in checkpoint::Checkpoints::new(out.join("checkpoints"), 0).list().unwrap() {
        for file in ["tensors.safetensors", "state.json", "B3SUMS"] {
            files.push((format!("{step}/{file}"), fs::read(path.join(file)).unwrap()));
        }
    }
    let losses =
        metrics(out).into_iter().map(|line| format!("{} {} {}", line["step"], line["loss"], line["valid_loss"]));
    (files, losses.collect())
}

#[test]
fn a_run_leaves_metrics_events_checkpoints_and_a_summary() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let outcome = run(&table_program(base.path()), base.path(), &out, 2, &mut ()).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    let lines = metrics(&out);
    assert_eq!(lines.len(), 20);
    assert!(lines.iter().enumerate().all(|(i, line)| line["step"] == i + 1 && line["loss"].is_f64()));
    let evaluated: Vec<_> = lines.iter().filter(|line| line["valid_loss"].is_f64()).map(|line| &line["step"]).collect();
    assert_eq!(evaluated, [5, 10, 15, 20]);
    assert!(lines[19]["valid_loss"].as_f64().unwrap() < lines[4]["valid_loss"].as_f64().unwrap());
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["loss"], lines[19]["loss"]);
    assert_eq!(summary["valid_loss"], lines[19]["valid_loss"]);
    assert_eq!(summary["peak_bytes"]["planned"], regression().manifest.arena_bytes);
    assert!(summary["peak_bytes"]["measured"].as_u64() > summary["peak_bytes"]["planned"].as_u64());
    assert!(summary["samples_per_second"].as_f64().unwrap() > 0.0 && summary["step_ms"].is_f64());
    assert_eq!((&summary["launches_per_step"], &summary["steps_done"]), (&2.into(), &20.into()));
    assert_eq!(summary.to_string(), outcome.summary().to_line());
    let names: Vec<_> = traces(&out).0.into_iter().map(|(name, _)| name).step_by(3).collect();
    assert_eq!(names, ["15/tensors.safetensors", "20/tensors.safetensors"], "two are kept");
    assert_eq!(fs::read_dir(out.join("tensorboard")).unwrap().count(), 1);
}

#[test]
fn threads_and_interruptions_leave_no_trace() {
    type Program = fn(&Path) -> Artifact;
    for (program, kills) in [(text_program as Program, [4, 8, 19]), (table_program, [1, 13, 20])] {
        let base = tempfile::tempdir().unwrap();
        let artifact = program(base.path());
        let whole = base.path().join("whole");
        run(&artifact, base.path(), &whole, 1, &mut ()).unwrap();
        let torn = base.path().join("torn");
        for step in kills {
            killed_at(step, &artifact, base.path(), &torn);
        }
        run(&artifact, base.path(), &torn, 3, &mut ()).unwrap();
        assert_eq!(traces(&whole), traces(&torn));
        run(&artifact, base.path(), &torn, 1, &mut ()).unwrap();
        assert_eq!(traces(&whole), traces(&torn), "a finished run stays as it is");
    }
}

/// Asks to stop after a step, as a signal handler would.
struct Stopper<'a>(u32, &'a AtomicBool);

impl Observer for Stopper<'_> {
    fn stepped(&mut self, progress: &Progress<'_>) {
        self.1.store(progress.step == self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_stopped_run_saves_and_continues() {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let (whole, parts) = (base.path().join("whole"), base.path().join("parts"));
    run(&artifact, base.path(), &whole, 2, &mut ()).unwrap();
    let stop = AtomicBool::new(false);
    {
        let directory = RunDirectory::create(&parts, &artifact, &options(base.path(), 2)).unwrap();
        let mut session = Session::new(artifact.clone(), &options(base.path(), 2)).unwrap();
        let outcome = train(&mut session, Some(&directory), &mut Stopper(7, &stop), &stop).unwrap();
        assert!(matches!(&outcome, Outcome::Stopped(summary) if summary.get("steps_done") == Some(&7.into())));
        assert_eq!(directory.newest_checkpoint().unwrap().0, 7);
    }
    let mut beside = Session::new(artifact.clone(), &options(base.path(), 1)).unwrap();
    assert_eq!(load_newest(&parts, &mut beside).unwrap(), 7);
    run(&artifact, base.path(), &parts, 2, &mut ()).unwrap();
    assert_eq!(traces(&whole), traces(&parts));
}

#[test]
fn divergence_stops_the_run_and_keeps_the_last_good_checkpoint() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let mut artifact = divergent();
    artifact.manifest.train.checkpoint_every = Duration::Steps(2);
    let hash = Source::Hash { fields: vec![] };
    artifact.manifest.data =
        Some(DataSpec { name: "Nothing".into(), source: hash, valid_fraction: 0.0, shuffle: false });
    let error = run(&artifact, base.path(), &out, 1, &mut ()).unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().starts_with("the loss is inf at step 4"), "{error}");
    assert_eq!(checkpoint::Checkpoints::new(out.join("checkpoints"), 0).list().unwrap().len(), 1);
    assert_eq!(metrics(&out)[3]["loss"], serde_json::Value::Null);
    let mut session = Session::new(artifact, &options(base.path(), 1)).unwrap();
    load_newest(&out, &mut session).unwrap();
    assert_eq!(session.tensor("w").unwrap(), Values::from(vec![2.0, 0.0, 0.0, 0.0]));
    session.set_tensor("w", &Values::from(vec![0.0, f32::NAN, 0.0, 0.0])).unwrap();
    let error = session.save(base.path().join("bad")).unwrap_err();
    assert!(error.to_string().contains("an element of `w` is NaN") && !base.path().join("bad").exists(), "{error}");
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
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let (whole, hurt) = (base.path().join("whole"), base.path().join("hurt"));
    run(&artifact, base.path(), &whole, 1, &mut ()).unwrap();
    killed_at(13, &artifact, base.path(), &hurt);
    let newest = hurt.join("checkpoints/step-000010/tensors.safetensors");
    fs::write(&newest, &fs::read(&newest).unwrap()[..50]).unwrap();
    let mut warnings = Warnings::default();
    run(&artifact, base.path(), &hurt, 1, &mut warnings).unwrap();
    assert!(warnings.0[0].contains("do not match their digest; an older checkpoint is used"), "{:?}", warnings.0);
    assert_eq!(traces(&whole), traces(&hurt));
}

#[test]
fn every_damage_to_a_checkpoint_is_noticed() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("checkpoint");
    let mut session = Session::new(regression(), &Options::default()).unwrap();
    session.save(&path).unwrap();
    for file in ["tensors.safetensors", "state.json", "B3SUMS"] {
        let intact = fs::read(path.join(file)).unwrap();
        let mut refuse = |bytes: &[u8], what: String| {
            fs::write(path.join(file), bytes).unwrap();
            let refused = matches!(session.load(&path), Err(Error::Checkpoint(CheckpointError::Damaged { .. })));
            assert!(refused, "{file}: {what}");
        };
        for length in 0..intact.len() {
            refuse(&intact[..length], format!("cut to {length}"));
        }
        // Three has no common factor with eight: every byte and every place in a byte is hit.
        for bit in (0..intact.len() * 8).step_by(3) {
            let mut bytes = intact.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refuse(&bytes, format!("bit {bit}"));
        }
        refuse(&[&intact[..], b"x"].concat(), "one byte more".into());
        fs::remove_file(path.join(file)).unwrap();
        assert!(matches!(session.load(&path), Err(Error::Checkpoint(CheckpointError::Damaged { .. }))));
        fs::write(path.join(file), intact).unwrap();
    }
    session.load(&path).unwrap();
    let missing = session.load(base.path().join("nothing")).unwrap_err();
    assert!(missing.to_string().starts_with("there is no checkpoint at"), "{missing}");
}

#[test]
fn checkpoints_of_other_programs_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("checkpoint");
    Session::new(language_model(), &Options::default()).unwrap().save(&path).unwrap();
    let mut other = Session::new(regression(), &Options::default()).unwrap();
    let error = other.load(&path).unwrap_err().to_string();
    assert!(error.contains("written by another program") && error.contains("(successor, not regression)"), "{error}");
    let mut reshaped = language_model();
    reshaped.manifest.tensors[0].shape = vec![2, 2];
    let error = Session::new(reshaped, &Options::default()).unwrap().load(&path).unwrap_err().to_string();
    assert!(error.contains("tensor `w` is F32 [4], the program has F32 [2, 2]"), "{error}");
}

#[test]
fn a_directory_has_one_run_and_one_process() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let artifact = table_program(base.path());
    let first = RunDirectory::create(&out, &artifact, &options(base.path(), 1)).unwrap();
    let complaint = |result: Result<()>| result.unwrap_err().to_string();
    let again = complaint(RunDirectory::create(&out, &artifact, &options(base.path(), 1)).map(drop));
    assert!(again.contains("already holds a run"), "{again}");
    let locked = complaint(RunDirectory::open(&out).map(drop));
    assert!(locked.contains("another process is training"), "{locked}");
    drop(first);
    assert!(RunDirectory::open(&out).is_ok());
    assert!(complaint(RunDirectory::open(base.path()).map(drop)).contains("holds no run"));
}
