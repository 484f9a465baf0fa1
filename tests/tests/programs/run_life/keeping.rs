//! What is kept when a run is stopped, ends, or moves.

use super::*;

#[test]
fn a_hangup_saves_as_a_polite_kill_does() {
    let folder = project();
    for signal in ["TERM", "HUP"] {
        let child = endless(folder.path(), signal);
        send(&child, &format!("-{signal}"));
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains("go on with: trainc resume"), "{}", stderr(&output));
        let summary = read_json(folder.path().join(signal).join("summary.json"));
        let step = summary["steps_done"].as_u64().unwrap();
        assert!(folder.path().join(signal).join(format!("checkpoints/step-{step:06}")).exists());
    }
}

#[test]
fn signals_that_are_ignored_stay_ignored() {
    let folder = project();
    let trainc = super::super::cli::binary("trainc");
    let script = format!("trap '' HUP; exec {} run line.train --steps 1000000000 --out on", trainc.display());
    let mut shell = Command::new("sh");
    let mut child = shell.args(["-c", &script]).current_dir(folder.path()).stdout(Stdio::null()).spawn().unwrap();
    wait_for_steps(&folder.path().join("on"));
    send(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it goes on as `nohup` asks");
    send(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn closed_pipes_end_the_printing_and_not_the_training() {
    let folder = project();
    let pipes = |arguments: &str| {
        let mut command = trainc();
        command.current_dir(folder.path()).args(arguments.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().unwrap()
    };
    assert_eq!(pipes("run line.train --out unheard --json").code(), Some(0));
    assert_eq!(read_json(folder.path().join("unheard/summary.json"))["steps_done"], 5);
    assert_eq!(pipes("resume unheard --steps 7").code(), Some(0));
    assert_eq!(read_json(folder.path().join("unheard/summary.json"))["steps_done"], 7);
    assert_eq!(pipes("run line.train --out unheard").code(), Some(2), "failures keep their exit codes");
}

#[test]
fn a_finished_run_says_so_and_goes_on_when_told_how_far() {
    let folder = project();
    let path = folder.path();
    let summary = last_line(&done(path, "run line.train --out over --json"));
    let before = files(&path.join("over"));
    let again = done(path, "resume over --json");
    let said = stderr(&again);
    assert!(said.contains("over is finished: all its 5 steps are made. Nothing was changed"), "{said}");
    assert!(said.contains("trainc resume over --steps 10") && said.contains("schedule"), "{said}");
    assert_eq!(last_line(&again), summary);
    assert!(files(&path.join("over")) == before);
    let less = refused(path, "resume over --steps 4", 2);
    assert!(less.contains("the run has made 5 steps already"), "{less}");

    let further = last_line(&done(path, "resume over --steps 9 --json"));
    assert_eq!((&further["steps"], &further["steps_done"]), (&9.into(), &9.into()));
    assert_eq!(read_json(path.join("over/run.json"))["steps"], 9, "a run that is killed now goes on to the new end");
    // The rate is constant, so the steps are those of a run that was to be so long from the start.
    done(path, "run line.train --out whole --steps 9");
    let tensors = |run: &str| fs::read(path.join(run).join("checkpoints/step-000009/tensors.safetensors")).unwrap();
    assert!(tensors("over") == tensors("whole"));
}

#[test]
fn a_project_that_moved_is_resumed_evaluated_and_told_of_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("here/p")).unwrap();
    line_in(&path.join("here/p"), "steps 5  batch 16");
    let numbers = |output: Output| String::from_utf8(output.stdout).unwrap();
    done(path, "run here/p/line.train --out here/runs/line");
    let before = numbers(done(path, "evaluate here/runs/line"));
    fs::rename(path.join("here"), path.join("there")).unwrap();
    assert_eq!(numbers(done(path, "evaluate there/runs/line")), before);
    done(path, "resume there/runs/line --steps 6");

    fs::create_dir(path.join("data")).unwrap();
    fs::rename(path.join("there/p/points.csv"), path.join("data/points.csv")).unwrap();
    for command in ["evaluate there/runs/line", "resume there/runs/line --steps 7"] {
        let lost = refused(path, command, 3);
        assert!(lost.contains("there/p") && lost.contains("say where with --base DIR"), "{lost}");
    }
    done(path, "evaluate there/runs/line --base data");
    done(path, "resume there/runs/line --steps 7 --base data");
    done(path, "evaluate there/runs/line");
    done(path, "run there/p/line.train --base data --out other");
}
