//! The command line as a user meets it: exit codes, interruption, resuming, files that are not what they should be.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A binary that was built beside this test.
pub(super) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is not built: run cargo build first", binary.display());
    binary
}

pub(super) fn trainc() -> Command {
    Command::new(binary("trainc"))
}

/// A folder with the test program in it.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = trainc_tests::program::read("tests/programs/determinism.train");
    let steps = program.replace("steps 12", "checkpoint every 20 keep 2\n    steps 120");
    fs::write(folder.path().join("small.train"), steps).unwrap();
    folder
}

pub(super) fn run(folder: &Path, arguments: &[&str]) -> Output {
    trainc().current_dir(folder).args(arguments).output().unwrap()
}

pub(super) fn code(output: &Output) -> i32 {
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(!shown.contains("panicked"), "{shown}");
    output.status.code().unwrap_or(-1)
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn spawn(folder: &Path, arguments: &[&str]) -> Child {
    trainc().current_dir(folder).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the run has written a checkpoint.
fn wait_for_checkpoint(directory: &Path) {
    let begin = Instant::now();
    let written = || {
        fs::read_dir(directory.join("checkpoints")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
        })
    };
    while !written() {
        assert!(begin.elapsed() < Duration::from_secs(300), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The tensors of the last checkpoint, as bytes.
fn last_tensors(directory: &Path) -> Vec<u8> {
    let newest = newest_checkpoint(directory);
    let mut file = fs::read_dir(&newest).unwrap().flatten().map(|entry| entry.path());
    let file = file.find(|path| path.extension().is_some_and(|end| end == "safetensors")).unwrap();
    fs::read(file).unwrap()
}

fn newest_checkpoint(directory: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> =
        fs::read_dir(directory.join("checkpoints")).unwrap().flatten().map(|entry| entry.path()).collect();
    names.sort();
    names.pop().expect("a checkpoint")
}

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let folder = workplace();
    let through = run(folder.path(), &["run", "small.train", "--out", "through", "--threads", "2", "--json"]);
    assert_eq!(code(&through), 0, "{}", stderr(&through));
    let summary: Value = serde_json::from_slice(through.stdout.split(|&b| b == b'\n').rev().nth(1).unwrap()).unwrap();
    assert_eq!(summary["steps_done"], 120);

    let mut killed = spawn(folder.path(), &["run", "small.train", "--out", "killed", "--threads", "1"]);
    wait_for_checkpoint(&folder.path().join("killed"));
    send(&killed, "-KILL");
    killed.wait().unwrap();
    let resumed = run(folder.path(), &["resume", "killed", "--threads", "2"]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));

    assert_eq!(last_tensors(&folder.path().join("through")), last_tensors(&folder.path().join("killed")));
    let lines = |run: &str| fs::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!((lines("through"), lines("killed")), (120, 120));
}

/// A plane through made-up points; `steps`, `evaluate` and `checkpoint` count epochs.
fn regression_in_epochs(folder: &Path, points: usize) {
    let text = trainc_tests::program::read("dsl-examples/linear_regression.train");
    let epochs = "steps 3 epochs  batch 16\n    evaluate every 1 epochs\n    checkpoint every 0.5 epochs keep 10";
    let text = text.replace("steps 200  batch 16", epochs);
    let text = text.replace("constant(0.1)", "cosine(0.1, warmup = 1 epochs)");
    fs::write(folder.join("line.train"), text).unwrap();
    let value = |i: usize, k: usize| ((i * (7 + 4 * k) + k) % 31) as f64 / 31.0;
    let row = |i: usize| {
        let [a, b, c] = [0, 1, 2].map(|k| value(i, k));
        format!("{a},{b},{c},{}\n", a - 2.0 * b + 0.5 * c)
    };
    fs::write(folder.join("points.csv"), (0..points).map(row).collect::<String>()).unwrap();
}

#[test]
fn epochs_become_steps_of_the_data_and_stay_so_on_resuming() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    regression_in_epochs(path, 200);
    // 180 points to train on, 16 a step: 33.75 steps.
    let check = run(path, &["check", "line.train"]);
    let shown = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(shown.contains("3 epochs of 180 samples, 34 steps"), "{shown}");
    let whole = run(path, &["run", "line.train", "--out", "whole", "--json"]);
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    let summary: Value = serde_json::from_str(&fs::read_to_string(path.join("whole/summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["steps"], &summary["steps_done"]), (&34.into(), &34.into()));
    let metrics = fs::read_to_string(path.join("whole/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let evaluated: Vec<u64> =
        lines.iter().filter(|line| line.get("valid_loss").is_some()).filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(evaluated, [12, 23, 34], "after 11.25, 22.5 and 33.75 steps");
    let rates: Vec<f64> = lines.iter().filter_map(|line| line["rate"].as_f64()).collect();
    assert!(rates[..11].is_sorted() && rates[11..].is_sorted_by(|a, b| a >= b), "{rates:?}");

    // Where a run was killed while it saved step 17 it goes on to the same end.
    let parts = path.join("parts");
    assert_eq!(code(&run(path, &["run", "line.train", "--out", "parts"])), 0);
    for step in 18..=34 {
        let _ = fs::remove_dir_all(parts.join(format!("checkpoints/step-{step:06}")));
    }
    let resumed = run(path, &["resume", "parts"]);
    assert!(stderr(&resumed).contains("after step 17"), "{}", stderr(&resumed));
    assert_eq!(last_tensors(&path.join("whole")), last_tensors(&parts));

    // Data that has grown does not change the horizon that the run began with.
    fs::remove_dir_all(parts.join("checkpoints/step-000034")).unwrap();
    regression_in_epochs(path, 400);
    assert_eq!(code(&run(path, &["resume", "parts", "--data-changed"])), 0);
    assert!(parts.join("checkpoints/step-000034").is_dir() && !parts.join("checkpoints/step-000035").exists());

    fs::remove_file(path.join("points.csv")).unwrap();
    let check = run(path, &["check", "line.train"]);
    let shown = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(shown.contains("3 epochs (the steps are counted when the data can be opened: no file"), "{shown}");
}

#[test]
fn an_interrupted_run_saves_and_says_how_to_go_on() {
    let folder = workplace();
    let child = spawn(folder.path(), &["run", "small.train", "--set", "steps=100000", "--out", "stopped"]);
    wait_for_checkpoint(&folder.path().join("stopped"));
    send(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130);
    assert!(stderr(&output).contains("trainc resume stopped"), "{}", stderr(&output));
}

#[test]
fn exit_codes_tell_a_wrong_program_from_misuse() {
    let folder = workplace();
    fs::write(folder.path().join("wrong.train"), "use std\n\ntrain {\n    modle Gpt()\n}\n").unwrap();
    let wrong = run(folder.path(), &["check", "wrong.train"]);
    assert_eq!(code(&wrong), 1);
    assert!(stderr(&wrong).contains("did you mean `model`?"), "{}", stderr(&wrong));
    assert_eq!(code(&run(folder.path(), &["check", "missing.train"])), 2);
    assert_eq!(code(&run(folder.path(), &["run", "small.train", "--device", "abacus"])), 2);
    assert_eq!(code(&run(folder.path(), &["resume", "nowhere"])), 2);
    assert_eq!(code(&run(folder.path(), &["frobnicate"])), 2);
}

#[test]
fn damaged_artifacts_and_checkpoints_are_refused_with_a_reason() {
    let folder = workplace();
    let compiled = run(folder.path(), &["compile", "small.train", "--out", "small.trainx"]);
    assert_eq!(code(&compiled), 0, "{}", stderr(&compiled));
    let artifact = fs::read(folder.path().join("small.trainx")).unwrap();
    let mut flipped = artifact.clone();
    flipped[artifact.len() / 2] ^= 4;
    for (name, bytes) in [("short.trainx", &artifact[..artifact.len() - 9]), ("flipped.trainx", &flipped[..])] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let refused = run(folder.path(), &["run", name, "--out", "none"]);
        assert_eq!(code(&refused), 3, "{name}: {}", stderr(&refused));
        assert!(!folder.path().join("none").exists(), "{name} left a directory behind");
    }
    let ran = run(folder.path(), &["run", "small.trainx", "--output", "good"]);
    assert_eq!(code(&ran), 0, "{}", stderr(&ran));
    let tensors = newest_checkpoint(&folder.path().join("good")).join("tensors.safetensors");
    if let Ok(bytes) = fs::read(&tensors) {
        fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
    }
    let resumed = run(folder.path(), &["resume", "good"]);
    assert_eq!(code(&resumed), 0, "the checkpoint before is used: {}", stderr(&resumed));
}

#[test]
fn a_diverging_run_keeps_its_last_good_checkpoint() {
    let folder = workplace();
    let text = fs::read_to_string(folder.path().join("small.train")).unwrap();
    let text = text.replace("peak = 2e-3", "peak = 1e30").replace("clip 1.0\n", "").replace("every 20", "every 1");
    fs::write(folder.path().join("diverges.train"), text).unwrap();
    let output = run(folder.path(), &["run", "diverges.train", "--out", "diverged"]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("diverged"), "{}", stderr(&output));
}

/// Needs the right to mount; says so where it is missing.
#[test]
fn a_full_disk_leaves_the_last_checkpoint_intact() {
    let folder = workplace();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("NOT CHECKED: mounting a small tmpfs needs root");
        return;
    }
    let text = fs::read_to_string(folder.path().join("small.train")).unwrap().replace("keep 2", "keep 100");
    fs::write(folder.path().join("greedy.train"), text.replace("every 20", "every 1")).unwrap();
    let output = run(folder.path(), &["run", "greedy.train", "--out", "disk/run"]);
    let (status, message) = (code(&output), stderr(&output));
    let newest = fs::read_dir(disk.join("run/checkpoints")).map_or(0, |entries| entries.count());
    let resumable = run(folder.path(), &["evaluate", "disk/run"]);
    let after = stderr(&resumable);
    Command::new("umount").arg("-l").arg(&disk).status().unwrap();
    assert_eq!(status, 3, "{message}");
    assert!(message.contains("No space left"), "{message}");
    assert!(newest > 0, "no checkpoint was written before the disk was full");
    // The program holds no data out, which is all that there is to complain of: the checkpoint itself loads.
    assert!(after.contains("holds no data out"), "{after}");
}

#[test]
fn missing_and_empty_data_are_named() {
    let folder = workplace();
    let text = fs::read_to_string(folder.path().join("small.train")).unwrap();
    let text =
        text.replace("field tokens = hash(stream = 7, below = 61)", "text \"corpus/*.txt\"\n    tokenizer bytes");
    fs::write(folder.path().join("text.train"), text.replace("vocab = 61", "vocab = 256")).unwrap();
    let missing = run(folder.path(), &["run", "text.train", "--out", "run"]);
    assert_ne!(code(&missing), 0);
    assert!(stderr(&missing).contains("corpus/*.txt"), "{}", stderr(&missing));
    fs::create_dir(folder.path().join("corpus")).unwrap();
    fs::write(folder.path().join("corpus/empty.txt"), "").unwrap();
    let empty = run(folder.path(), &["run", "text.train", "--out", "run"]);
    assert_ne!(code(&empty), 0);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_private_run_tells_what_it_spends_and_ends_with_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let number = |row: u64, column| trainc_runtime::data::unit(row, column) - 0.5;
    let row = |row| (0..5).map(|column| number(row, column).to_string()).collect::<Vec<_>>().join(",") + "\n";
    fs::write(folder.path().join("rows.csv"), (0..200).map(row).collect::<String>()).unwrap();
    let program = "use std
model Line() {
    input x: [batch, 4]
    input y: [batch, 1]
    output z = linear(x, 1)
}
data Rows {
    csv \"rows.csv\"
    field x = columns(0, 4)
    field y = columns(4, 1)
}
train {
    model Line()
    data Rows
    loss mse(z, y)
    optimizer sgd
    schedule constant(0.1)
    steps 30  batch 10
    private { epsilon 2  clip 1  accountant rdp }
}
";
    fs::write(folder.path().join("line.train"), program).unwrap();
    let whole = run(folder.path(), &["run", "line.train", "--out", "whole", "--json"]);
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    let shown = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(shown.contains("  epsilon 2.000") && shown.contains("warning: the noise comes from seed"), "{shown}");
    let summary: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    let epsilon = summary["epsilon"].as_f64().unwrap();
    assert!((1.99..=2.0).contains(&epsilon), "{epsilon}");
    assert_eq!((&summary["noise"], &summary["steps_done"]), (&"philox".into(), &30.into()));
    let longer = run(folder.path(), &["run", "line.train", "--out", "longer", "--steps", "60"]);
    for output in [longer, run(folder.path(), &["resume", "longer"])] {
        assert_eq!(code(&output), 0, "a run that ends with its budget is complete");
        let said = stderr(&output);
        assert!(said.contains("the privacy budget is spent") && said.contains("after 30 of 60 steps"), "{said}");
        assert!(said.contains("the state after step 30 is in"), "{said}");
    }
}

#[test]
fn an_artifact_for_devices_says_what_its_kernels_ask_for() {
    let folder = workplace();
    let compiled = run(folder.path(), &["compile", "small.train", "--target", "cuda:sm_80", "--out", "small.trainx"]);
    assert_eq!(code(&compiled), 0, "{}", stderr(&compiled));
    let inspected = run(folder.path(), &["inspect", "small.trainx", "--json"]);
    assert_eq!(code(&inspected), 0, "{}", stderr(&inspected));
    let shown = String::from_utf8_lossy(&inspected.stdout);
    let row = shown.lines().find(|line| line.starts_with("k0_0 ")).expect("a row for the first kernel");
    assert!(row.contains("at most ") && row.contains("instance"), "{row}");
    let facts: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    let grids = facts["devices"][0]["grids"].as_array().expect("the grids of one variant");
    for grid in grids {
        let of = |fact: &str| grid[fact].as_u64().unwrap_or_else(|| panic!("{fact} of {grid}"));
        assert!(of("grid") >= 1 && (1..=1024).contains(&of("block")) && of("shared_bytes") <= 99 << 10, "{grid}");
        assert!(of("block") * of("most_registers") <= 65_536 && of("most_registers") <= 255, "{grid}");
    }
}
