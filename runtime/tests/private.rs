//! Private training: samples, passes, rows left out, the account, and runs that end with their budget.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use support::*;
use trainc_runtime::artifact::*;
use trainc_runtime::data::{Poisson, Randomness};
use trainc_runtime::privacy::{Accountant, Mechanism, epsilon};
use trainc_runtime::report::{Observer, Progress};
use trainc_runtime::*;

const RECORDS: u64 = 40;

/// Record i is (1, i, i^2, 0).
fn record(i: u64) -> [f32; 4] {
    [1.0, i as f32, (i * i) as f32, 0.0]
}

fn program(base: &Path, change: impl FnOnce(&mut PrivateSpec)) -> Artifact {
    let row = |i| record(i).map(|x| x.to_string()).join(",") + "\n";
    fs::write(base.join("rows.csv"), (0..RECORDS).map(row).collect::<String>()).unwrap();
    let mut artifact = private_sums();
    let fields = vec![CsvField { name: "x".into(), first: 0, count: 4, scale: 1.0 }];
    let source = Source::Csv { paths: vec!["rows.csv".into()], header: false, fields };
    artifact.manifest.data = Some(DataSpec { name: "Rows".into(), source, valid_fraction: 0.0, shuffle: false });
    let private = artifact.manifest.private.as_mut().unwrap();
    private.accountant = Accountant::Rdp;
    change(private);
    artifact
}

fn options(base: &Path, threads: usize) -> Options {
    Options { threads: Some(threads), base: Some(base.to_owned()), ..Options::default() }
}

fn session(base: &Path, artifact: Artifact) -> Session {
    Session::new(artifact, &options(base, 2)).unwrap()
}

fn poisson(rate: f64) -> Sampling {
    Sampling::Poisson { rate }
}

/// Starts or continues a run.
fn run(artifact: &Artifact, base: &Path, out: &Path, observer: &mut dyn Observer) -> Result<Outcome> {
    let (directory, options) = match RunDirectory::exists(out) {
        true => {
            let (directory, _, kept) = RunDirectory::open(out)?;
            (directory, kept)
        }
        false => (RunDirectory::create(out, artifact, &options(base, 2))?, options(base, 2)),
    };
    let mut session = Session::new(artifact.clone(), &options)?;
    directory.restore(&mut session, observer)?;
    train(&mut session, Some(&directory), observer, &AtomicBool::new(false))
}

fn metrics(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What these steps cost under the default account.
fn cost(rate: f64, steps: u64) -> f64 {
    let mechanism = Mechanism { sampling_rate: rate, noise_multiplier: 2.0, steps };
    epsilon(&[mechanism], 1e-3, Accountant::Rdp).unwrap()
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn warned(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Dies without warning when a step is done.
struct Killer(u32);

impl Observer for Killer {
    fn stepped(&mut self, progress: &Progress<'_>) {
        assert_ne!(progress.step, self.0, "killed");
    }
}

fn killed_at(step: u32, artifact: &Artifact, base: &Path, out: &Path) {
    assert!(std::panic::catch_unwind(|| drop(run(artifact, base, out, &mut Killer(step)))).is_err());
}

/// Steps of no record, of a few, and of more than the 8 rows of a pass add up exactly the records that were drawn.
#[test]
fn a_step_adds_up_the_records_that_are_drawn_in_as_many_passes_as_it_takes() {
    let base = tempfile::tempdir().unwrap();
    for rate in [0.02, 0.1, 0.5, 1.0] {
        let mut session = session(base.path(), program(base.path(), |private| private.sampling = poisson(rate)));
        let mut sum = [0f32; 4];
        for step in 0..20 {
            let drawn: Vec<u64> = Poisson::new(RECORDS, rate, Randomness::Seed(1), step).collect();
            for i in &drawn {
                sum.iter_mut().zip(record(*i)).for_each(|(sum, x)| *sum += x);
            }
            let numbers = session.step().unwrap();
            let mean = drawn.iter().sum::<u64>() as f64 / drawn.len() as f64;
            let loss = numbers.loss();
            assert!(if drawn.is_empty() { loss.is_nan() } else { (loss - mean).abs() <= 1e-5 * mean }, "{loss} {mean}");
            let last = numbers.get("rows").unwrap() as usize;
            assert_eq!(last, if drawn.is_empty() { 0 } else { (drawn.len() - 1) % 8 + 1 }, "rows of the last pass");
            assert_eq!(session.tensor("w").unwrap(), Values::from(sum.to_vec()), "at rate {rate}, step {step}");
            assert_eq!(session.tensor("private.sum.w").unwrap(), Values::from(vec![0.0; 4]));
        }
    }
}

#[test]
fn shuffled_samples_come_in_the_order_of_the_run() {
    let base = tempfile::tempdir().unwrap();
    let mut artifact =
        program(base.path(), |private| (private.sampling, private.expected_batch) = (Sampling::Shuffled, 8));
    artifact.manifest.data.as_mut().unwrap().shuffle = true;
    let mut session = session(base.path(), artifact);
    for _ in 0..RECORDS / 8 {
        assert_eq!(session.step().unwrap().get("rows"), Some(8.0));
    }
    let all = (0..RECORDS).fold([0.0; 4], |sum, i| std::array::from_fn(|f| sum[f] + record(i)[f]));
    assert_eq!(session.tensor("w").unwrap(), Values::from(all.to_vec()), "an epoch is every record once");
    assert_eq!(session.privacy().unwrap().unwrap().epsilon, cost(0.2, RECORDS / 8));
}

#[test]
fn rows_whose_gradient_is_not_finite_are_left_out_and_counted() {
    let base = tempfile::tempdir().unwrap();
    let mut session = session(base.path(), program(base.path(), |_| {}));
    let rows = |bad: &[usize]| {
        let x = (0..8).flat_map(|i| record(i as u64).map(|x| if bad.contains(&i) { f32::NAN } else { x }));
        Batch::new().with("x", x.collect::<Vec<f32>>())
    };
    let numbers = session.step_with(&rows(&[2, 5])).unwrap();
    assert_eq!((numbers.get("non_finite"), numbers.get("rows")), (Some(2.0), Some(6.0)));
    assert!((numbers.loss() - 21.0 / 6.0).abs() < 1e-6, "the mean of 0, 1, 3, 4, 6, 7");
    assert_eq!(session.tensor("w").unwrap(), Values::from(vec![6.0, 21.0, 111.0, 0.0]));
    session.step_with(&rows(&[0, 1, 2, 3, 4, 5, 6, 7])).unwrap();
    assert_eq!(
        session.tensor("w").unwrap(),
        Values::from(vec![6.0, 21.0, 111.0, 0.0]),
        "noise alone, and here there is none"
    );
    assert_eq!(session.privacy().unwrap().unwrap().non_finite, 10);
    assert_eq!(session.privacy().unwrap().unwrap().epsilon, cost(0.1, 2));
    // The model itself is damaged: no row can be left out for that.
    session.set_tensor("w", &Values::from(vec![f32::INFINITY, 0.0, 0.0, 0.0])).unwrap();
    let error = session.step_with(&rows(&[])).unwrap_err();
    assert!(
        error.exit_code() == 3 && error.to_string().contains("a row that holds no sample is NaN at step 3"),
        "{error}"
    );
    assert_eq!(session.steps_done(), 2);
}

#[test]
fn bad_records_are_left_out_of_every_pass_they_are_drawn_in() {
    let base = tempfile::tempdir().unwrap();
    let artifact = program(base.path(), |private| private.sampling = poisson(1.0));
    // The gradients of two records overflow.
    let text = fs::read_to_string(base.path().join("rows.csv")).unwrap();
    fs::write(base.path().join("rows.csv"), text.replacen("1,3,9,", "1,3,1e35,", 1).replacen("1,39,", "1,1e35,", 1))
        .unwrap();
    let mut session = session(base.path(), artifact);
    for step in 1..=3 {
        let numbers = session.step().unwrap();
        assert_eq!(numbers.get("non_finite"), Some(2.0 * f64::from(step)), "one in the first pass, one in the last");
        let Values::Floats(w) = session.tensor("w").unwrap() else { unreachable!() };
        assert_eq!(w[0], 38.0 * step as f32);
    }
}

#[test]
fn the_guarantee_is_for_the_number_of_records_it_was_made_for() {
    let base = tempfile::tempdir().unwrap();
    let mut session = session(base.path(), program(base.path(), |private| private.records = 41));
    let error = session.step().unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("for 41 training records, but the data have 40"), "{error}");
}

#[test]
fn every_report_says_what_has_been_spent_and_resuming_goes_on_with_it() {
    let base = tempfile::tempdir().unwrap();
    let artifact = program(base.path(), |_| {});
    let (whole, torn) = (base.path().join("whole"), base.path().join("torn"));
    let outcome = run(&artifact, base.path(), &whole, &mut ()).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    let spent: Vec<f64> = metrics(&whole).iter().map(|line| line["epsilon"].as_f64().unwrap()).collect();
    for (steps, epsilon) in (1..).zip(&spent) {
        let (least, most) = (cost(0.1, steps), cost(0.1, (steps + steps.div_ceil(8)).min(20)));
        assert!((least..=most).contains(epsilon), "{steps} steps: {epsilon} is not in {least}..={most}");
    }
    assert_eq!(spent[19], cost(0.1, 20));
    assert_eq!(outcome.summary().get("epsilon"), Some(&cost(0.1, 20).into()));
    assert_eq!(outcome.summary().get("noise"), Some(&"philox".into()));
    killed_at(3, &artifact, base.path(), &torn);
    killed_at(13, &artifact, base.path(), &torn);
    run(&artifact, base.path(), &torn, &mut ()).unwrap();
    let told = |out: &Path| {
        metrics(out).iter().map(|line| format!("{} {}", line["epsilon"], line["loss"])).collect::<Vec<_>>()
    };
    assert_eq!(told(&whole), told(&torn));
    for file in ["state.json", "tensors.safetensors"] {
        let read = |out: &Path| fs::read(out.join("checkpoints/step-000020").join(file)).unwrap();
        assert_eq!(read(&whole), read(&torn), "{file}");
    }
}

#[test]
fn a_run_ends_with_its_budget_and_stays_there() {
    let base = tempfile::tempdir().unwrap();
    let budget = (cost(0.1, 7) + cost(0.1, 8)) / 2.0;
    let artifact = program(base.path(), |private| private.epsilon = Some(budget));
    let out = base.path().join("out");
    let mut written = Vec::new();
    for _ in 0..2 {
        let outcome = run(&artifact, base.path(), &out, &mut ()).unwrap();
        let Outcome::BudgetSpent(summary) = outcome else { panic!("the budget is for 7 steps: {outcome:?}") };
        assert_eq!((summary.get("steps_done"), summary.get("epsilon")), (Some(&7.into()), Some(&cost(0.1, 7).into())));
        assert_eq!(metrics(&out).len(), 7);
        written.push(fs::read_to_string(out.join("summary.json")).unwrap());
        assert!(out.join("checkpoints/step-000007").exists(), "what was reached is saved");
    }
    assert_eq!(written[0], written[1], "what was measured stays");
    let mut spent = session(base.path(), artifact);
    load_newest(&out, &mut spent).unwrap();
    let error = spent.step().unwrap_err().to_string();
    assert!(error.contains("budget is spent"), "{error}");
}

#[test]
fn more_steps_than_the_program_says_spend_more_and_stop_at_the_budget() {
    let base = tempfile::tempdir().unwrap();
    let artifact = program(base.path(), |private| private.epsilon = Some(cost(0.1, 20) * (1.0 + 1e-9)));
    let options = Options { steps: Some(50), ..options(base.path(), 1) };
    let mut session = Session::new(artifact, &options).unwrap();
    let mut warnings = Warnings::default();
    let outcome = train(&mut session, None, &mut warnings, &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, Outcome::BudgetSpent(_)));
    assert_eq!(warnings.0[1], "the privacy budget is enough for 20 of the 50 steps to go");
    assert_eq!(session.steps_done(), 20);
}

#[test]
fn noise_from_a_seed_is_warned_of_once_and_secure_noise_is_not() {
    let base = tempfile::tempdir().unwrap();
    for (secure, count) in [(false, 1), (true, 0)] {
        let artifact = program(base.path(), |private| private.secure = secure);
        let mut warnings = Warnings::default();
        run(&artifact, base.path(), &base.path().join(format!("out {secure}")), &mut warnings).unwrap();
        assert_eq!(warnings.0.len(), count, "{:?}", warnings.0);
        assert!(warnings.0.iter().all(|text| text.contains("the noise comes from seed 1")));
    }
}

#[test]
fn secure_runs_draw_other_samples_each_time_and_count_steps_that_were_lost() {
    let base = tempfile::tempdir().unwrap();
    let artifact = program(base.path(), |private| (private.secure, private.sampling) = (true, poisson(0.3)));
    let sums = |_: usize| {
        let mut session = session(base.path(), artifact.clone());
        for _ in 0..5 {
            session.step().unwrap();
        }
        session.tensor("w").unwrap()
    };
    assert_ne!(sums(0), sums(1), "not even with the same seed");
    let out = base.path().join("out");
    killed_at(13, &artifact, base.path(), &out);
    // Steps 11 and 12 have been told of and are made again; step 13 had not been.
    let outcome = run(&artifact, base.path(), &out, &mut ()).unwrap();
    assert_eq!(outcome.summary().get("epsilon"), Some(&cost(0.3, 22).into()));
    assert_eq!(outcome.summary().get("noise"), Some(&"chacha20".into()));
}

#[test]
fn accounts_that_cannot_be_are_refused() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("checkpoint");
    let mut session = session(base.path(), program(base.path(), |_| {}));
    for _ in 0..3 {
        session.step().unwrap();
    }
    session.save(&path).unwrap();
    let file = path.join("state.json");
    let intact = fs::read_to_string(&file).unwrap();
    let tensors = blake3::hash(&fs::read(path.join("tensors.safetensors")).unwrap());
    let mut complaint = |text: String| {
        fs::write(&file, &text).unwrap();
        let sums = format!("{tensors}  tensors.safetensors\n{}  state.json\n", blake3::hash(text.as_bytes()));
        fs::write(path.join("B3SUMS"), sums).unwrap();
        session.load(&path).map_err(|error| error.to_string())
    };
    let changed = |from: &str, to: &str| {
        assert!(intact.contains(from), "{intact}");
        intact.replace(from, to)
    };
    let fewer = complaint(changed("\"steps\": 3", "\"steps\": 2")).unwrap_err();
    assert!(fewer.contains("its account has 2 steps after 3 updates"), "{fewer}");
    assert!(complaint(changed("\"steps\": 3", "\"steps\": 18446744073709551615")).is_err());
    assert!(complaint(changed("\"delta\": 0.001", "\"delta\": 0.5")).unwrap_err().contains("another delta"));
    assert!(complaint(changed("\"noise_multiplier\": 2.0", "\"noise_multiplier\": -2.0")).is_err());
    let none = complaint(changed("\"privacy\"", "\"other\"")).unwrap_err();
    assert!(none.contains("does not say what privacy has been spent"), "{none}");
    complaint(intact.clone()).unwrap();
}
