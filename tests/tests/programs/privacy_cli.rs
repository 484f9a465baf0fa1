//! `trainc privacy` as a user meets it: each of epsilon, noise and steps from the two others, phases, the plot, and what
//! wrong flags are told.

use super::cli::{code, run, stderr};
use serde_json::Value;
use std::{fs, path::Path};
use trainc_runtime::privacy::{self, Accountant, Mechanism};

/// Runs `trainc privacy` with these flags; its last line as data.
fn answer(folder: &Path, flags: &str) -> Value {
    let output = asked(folder, &format!("{flags} --json"));
    assert_eq!(code(&output), 0, "{flags}: {}", stderr(&output));
    let shown = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(shown.lines().last().unwrap()).unwrap()
}

fn asked(folder: &Path, flags: &str) -> std::process::Output {
    run(folder, &[&["privacy"], &flags.split_whitespace().collect::<Vec<_>>()[..]].concat())
}

fn here() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn number(of: &Value) -> f64 {
    of.as_f64().unwrap_or_else(|| panic!("{of} is no number"))
}

#[test]
fn each_of_epsilon_noise_and_steps_is_found_from_the_others() {
    let folder = here();
    let flags = "--sampling-rate 0.1 --delta 1e-3 --accountant rdp";
    let spent = answer(folder.path(), &format!("{flags} --noise 2 --steps 200"));
    // A row of `golden/privacy/oracles.csv`, whose orders are tenths; ours may find a better one between them.
    let rdp = number(&spent["epsilon"]["rdp"]);
    assert!((-1e-4..1e-6).contains(&(rdp / 2.6471702186697006 - 1.0)), "{spent}");
    let pld = number(&spent["epsilon"]["pld"]);
    assert!((2.3018208602069365..=2.3028209276638414 + 1e-5).contains(&pld), "{spent}");
    let budget = rdp * (1.0 + 1e-9);
    let noise = answer(folder.path(), &format!("{flags} --epsilon {budget} --steps 200"));
    assert!((number(&noise["noise_multiplier"]) / 2.0 - 1.0).abs() < 2e-5, "{noise}");
    let steps = answer(folder.path(), &format!("{flags} --epsilon {budget} --noise 2"));
    assert_eq!(steps["steps"], 200, "{steps}");
    let by_batch = answer(folder.path(), "--batch 6 --samples 60 --delta 1e-3 --accountant rdp --noise 2 --epochs 20");
    assert_eq!((&by_batch["sampling_rate"], &by_batch["steps"]), (&spent["sampling_rate"], &spent["steps"]));
    assert_eq!(by_batch["epsilon"], spent["epsilon"]);
}

#[test]
fn phases_with_rates_of_their_own_are_composed() {
    let folder = here();
    let warm_up = Mechanism { sampling_rate: 0.05, noise_multiplier: 2.0, steps: 40 };
    let rest = Mechanism { sampling_rate: 0.1, noise_multiplier: 1.5, steps: 60 };
    let flags =
        |of: &Mechanism| format!("--phase rate={},noise={},steps={}", of.sampling_rate, of.noise_multiplier, of.steps);
    let both = answer(folder.path(), &format!("--delta 1e-5 {} {}", flags(&warm_up), flags(&rest)));
    for (accountant, name) in [(Accountant::Pld, "pld"), (Accountant::Rdp, "rdp")] {
        let expected = privacy::epsilon(&[warm_up, rest], 1e-5, accountant).unwrap();
        assert_eq!(number(&both["epsilon"][name]), expected, "{both}");
    }
    assert_eq!(both["phases"].as_array().map(Vec::len), Some(2));
    // The other flags are about what comes after the phases.
    let last = "--sampling-rate 0.1 --noise 1.5 --steps 60";
    let same = answer(folder.path(), &format!("--delta 1e-5 {} {last}", flags(&warm_up)));
    assert_eq!(same, both);
    let budget = number(&both["epsilon"]["rdp"]) * (1.0 + 1e-9);
    let left = format!("--delta 1e-5 --accountant rdp {} --sampling-rate 0.1 --epsilon {budget}", flags(&warm_up));
    assert_eq!(answer(folder.path(), &format!("{left} --noise 1.5"))["steps"], 60);
    let noise = answer(folder.path(), &format!("{left} --steps 60"));
    assert!((number(&noise["noise_multiplier"]) / 1.5 - 1.0).abs() < 2e-5, "{noise}");
}

/// At rate 1 phases compose to one Gaussian mechanism of `mu = sqrt(sum of T / sigma^2)` (Dong, Roth and Su 2022). The expected
/// value solves `delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)` with 50 digits (mpmath).
#[test]
fn full_batch_phases_are_one_gaussian_mechanism() {
    let folder = here();
    // 36 / 20^2 + 16 / 10^2 = 0.25
    let flags = "--delta 1e-5 --phase rate=1,noise=20,steps=36 --phase rate=1,noise=10,steps=16 --plot spent.svg";
    let found = number(&answer(folder.path(), flags)["epsilon"]["pld"]);
    assert!((found - MU_HALF).abs() < 1e-12, "{found}");
    let drawn = fs::read_to_string(folder.path().join("spent.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
    assert!(drawn.contains("Privacy spent: 2 phases") && drawn.matches("<polyline").count() == 2, "{drawn}");
    // The end of the curve: 52 steps on an axis to 60 from 72 to 696, 1.9931 on an axis to 2.5 from 380 up to 52.
    assert!(drawn.contains("612.80,118.51\""), "{drawn}");
}

/// Epsilon at `mu = 1/2`, `delta = 1e-5`.
const MU_HALF: f64 = 1.993_091_404_415_119_6;

#[test]
fn the_report_names_what_the_numbers_hold_for() {
    let folder = here();
    let output = asked(folder.path(), "--sampling-rate 1 --samples 100 --delta 0.1 --noise 20 --steps 4");
    assert_eq!(code(&output), 0);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["steps T", "one record added or removed", "Poisson", "epsilon (PLD)", "epsilon (RDP)"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(stderr(&output).contains("warning: delta 1e-1 is larger than 1 / 100"), "{}", stderr(&output));
}

#[test]
fn wrong_flags_are_misuse_and_say_what_to_write() {
    let folder = here();
    let ordinary = "--sampling-rate 0.1 --delta 1e-5";
    for (flags, message) in [
        ("--delta 1e-5 --noise 1 --steps 3".to_string(), "--sampling-rate"),
        (format!("{ordinary} --noise 1"), "give two of --epsilon, --noise and --steps"),
        (format!("{ordinary} --noise 1 --steps 3 --epsilon 2"), "give two of --epsilon, --noise and --steps"),
        ("--sampling-rate 0.1 --noise 1 --steps 3".into(), "give --delta, or --samples"),
        ("--sampling-rate 1.5 --delta 1e-5 --noise 1 --steps 3".into(), "sampling rate 1.5 is outside (0, 1]"),
        ("--sampling-rate 0.1 --delta 1 --noise 1 --steps 3".into(), "delta 1 is outside (0, 1)"),
        (format!("{ordinary} --noise=-1 --steps 3"), "noise multiplier -1 is not a number of at least 0"),
        (format!("{ordinary} --epsilon 0 --steps 3"), "epsilon 0 is not a positive number"),
        (format!("{ordinary} --epsilon 1 --steps 0"), "0 steps need no noise"),
        (format!("{ordinary} --noise 1 --epochs=-2"), "--epochs -2: a number of at least 0"),
        (format!("{ordinary} --noise 1 --steps 0 --plot a.svg"), "there is no curve to draw"),
        (format!("{ordinary} --noise 1 --steps 3 --accountant moments"), "possible values: pld, rdp"),
        ("--delta 1e-5 --phase rate=0.1,noise=1".into(), "a phase needs `rate`, `noise` and `steps`"),
        ("--delta 1e-5 --phase rate=0.1,noise=1,steps=1.5".into(), "`steps=1.5`: expected a whole number"),
        ("--delta 1e-5 --phase rate=0.1,sigma=1,steps=1".into(), "expected `rate`, `noise` or `steps`"),
        ("--delta 1e-5 --phase rate=2,noise=1,steps=1".into(), "sampling rate 2 is outside (0, 1]"),
    ] {
        let output = asked(folder.path(), &flags);
        assert_eq!(code(&output), 2, "{flags}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{flags}: {}", stderr(&output));
    }
    assert!(!folder.path().join("a.svg").exists());
}

#[test]
fn phases_that_exceed_the_budget_leave_no_noise_and_no_steps() {
    let folder = here();
    let flags = "--delta 1e-5 --accountant rdp --phase rate=1,noise=1,steps=9 --sampling-rate 1 --epsilon 1";
    let refused = asked(folder.path(), &format!("{flags} --steps 5"));
    assert_eq!(code(&refused), 2);
    assert!(stderr(&refused).contains("no noise multiplier"), "{}", stderr(&refused));
    assert_eq!(answer(folder.path(), &format!("{flags} --noise 5"))["steps"], 0);
}
