//! Starts: a run that cannot start leaves nothing and replaces nothing, wherever it is cut off.

use super::*;
use trainc_runtime::{RunDirectory, Session};

#[test]
fn fresh_keeps_the_earlier_run_until_the_new_one_can_start() {
    let folder = project();
    let path = folder.path();
    done(path, "run line.train --out kept");
    fs::write(path.join("kept/notes.txt"), "mine").unwrap();
    let before = files(&path.join("kept"));
    let text = fs::read_to_string(path.join("line.train")).unwrap();
    fs::write(path.join("wrong.train"), text.replace("sgd", "sdg")).unwrap();
    fs::write(path.join("nodata.train"), text.replace("points.csv", "pionts.csv")).unwrap();
    for (arguments, expected) in [
        ("run wrong.train --fresh --out kept", 1),
        ("run nodata.train --fresh --out kept", 3),
        ("run line.train --fresh --out kept --from nowhere", 2),
        ("run line.train --fresh --out kept --device abacus", 2),
        ("run line.train --fresh --out kept --threads 0", 2),
        ("run line.train --out kept", 2),
    ] {
        refused(path, arguments, expected);
        assert!(files(&path.join("kept")) == before, "{arguments}");
    }
    done(path, "run line.train --fresh --out kept --steps 3");
    assert_eq!(read_json(path.join("kept/summary.json"))["steps_done"], 3);
    assert!(!path.join("kept/checkpoints/step-000005").exists());
    assert_eq!(fs::read_to_string(path.join("kept/notes.txt")).unwrap(), "mine", "only runs are replaced");
    assert!(fs::read_dir(path).unwrap().flatten().all(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")));
}

#[test]
fn fresh_does_not_take_a_directory_from_a_process_at_work() {
    let folder = project();
    let mut at_work = endless(folder.path(), "busy");
    let said = refused(folder.path(), "run line.train --fresh --out busy", 2);
    assert!(said.contains("another process is training in busy"), "{said}");
    send(&at_work, "-TERM");
    at_work.wait().unwrap();
    done(folder.path(), "evaluate busy");
}

/// What a run directory holds: its horizon, the step of its newest checkpoint, and the parameters there.
fn state_of(directory: &Path) -> Option<(Option<u32>, u32, String)> {
    let (directory, artifact, options) = RunDirectory::open(directory).ok()?;
    let steps = options.steps;
    let mut session = Session::new(artifact, &options).unwrap();
    let step = directory.restore(&mut session, &mut ()).unwrap();
    let tensors = session.tensors().iter().map(|tensor| format!("{:?}", session.tensor(&tensor.name).unwrap()));
    Some((steps, step, tensors.collect()))
}

/// The program runs under `strace`, which kills it when it is about to make its `number`th change of a name. Whether it
/// was killed.
fn is_killed_at(number: usize, folder: &Path, arguments: &str) -> bool {
    let calls = "inject=rename,mkdir,rmdir,unlink,unlinkat";
    let inject = format!("{calls}:signal=KILL:when={number}");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(super::super::cli::binary("trainc"));
    let output = strace.args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success() || output.status.code().is_none(), "{}", stderr(&output));
    !output.status.success()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").args(["-r".as_ref(), from.as_os_str(), to.as_os_str()]).status();
    assert!(copied.unwrap().success());
}

/// Needs `strace`; says so where it is missing.
#[test]
fn a_start_that_is_killed_anywhere_leaves_the_old_run_or_the_new_one() {
    if !Command::new("strace").args(["-qq", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("NOT CHECKED: killing at each change of a name needs strace and the right to trace");
        return;
    }
    let folder = project();
    let path = folder.path();
    done(path, "run line.train --out source --steps 9");
    done(path, "run line.train --out old");
    done(path, "compile line.train --out line.trainx");
    let (old, source) = (state_of(&path.join("old")).unwrap(), state_of(&path.join("source")).unwrap());
    let mut seen = [0; 3];
    for number in 1.. {
        copy(&path.join("old"), &path.join("replaced"));
        let _ = fs::remove_dir_all(path.join("begun"));
        let both = "run line.trainx --threads 1 --from source --steps 4 --out";
        let killed = [
            is_killed_at(number, path, &format!("{both} replaced --fresh")),
            is_killed_at(number, path, &format!("{both} begun")),
        ];
        let replaced = state_of(&path.join("replaced")).expect("one of the two runs is there");
        if replaced == old {
            seen[0] += 1;
            assert!(path.join("replaced/summary.json").exists() && path.join("replaced/metrics.jsonl").exists());
        } else {
            seen[1] += 1;
            assert_eq!(replaced.0, Some(4), "killed at {number}");
            assert!(replaced.1 > 0 || replaced.2 == source.2, "killed at {number}: not the parameters of --from");
        }
        match state_of(&path.join("begun")) {
            None => assert!(!path.join("begun").exists(), "killed at {number}: nothing lies under the name of no run"),
            Some((steps, step, tensors)) => {
                seen[2] += 1;
                assert!(steps == Some(4) && (step > 0 || tensors == source.2), "killed at {number}");
            }
        }
        if killed == [false, false] {
            break;
        }
    }
    assert!(seen.iter().all(|&count| count >= 3), "the old run, the new one, and a first one: {seen:?}");
}

#[test]
fn what_from_is_given_is_said() {
    let folder = project();
    let path = folder.path();
    done(path, "run line.train --out source");
    let said = |from: &str| refused(path, &format!("run line.train --out none --from {from}"), 2);
    let a_file = said("source/checkpoints/step-000005/tensors.safetensors");
    assert!(a_file.contains("is a file of a checkpoint; give source/checkpoints/step-000005"), "{a_file}");
    let another = said("line.train");
    assert!(another.contains("line.train is a file; give a run directory, or a checkpoint"), "{another}");
    assert!(said("nowhere").contains("there is no nowhere"));
    assert!(said("source/tensorboard").contains("holds neither a run nor a checkpoint"));
    fs::remove_dir_all(path.join("source/checkpoints/step-000005")).unwrap();
    assert!(said("source").contains("the run in source has no checkpoint yet"));
    assert!(!path.join("none").exists());
}
