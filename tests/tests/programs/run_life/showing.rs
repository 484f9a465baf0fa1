//! What runs show: on terminals, in logs, in colour or not, as data.

use super::*;
use std::{
    fs::File,
    io::Read,
    os::fd::{FromRawFd, OwnedFd},
};

/// A terminal: the end that a program writes to, and what has been written there once all such ends are closed.
fn terminal() -> (OwnedFd, std::thread::JoinHandle<String>) {
    use std::ptr::{null, null_mut};
    let (mut ours, mut theirs) = (0, 0);
    // Both descriptors are fresh and belong to nobody else.
    let (mut ours, theirs) = unsafe {
        assert_eq!(libc::openpty(&mut ours, &mut theirs, null_mut(), null(), null()), 0);
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    };
    let reader = std::thread::spawn(move || {
        let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
        // The end of a terminal is an error.
        while let Ok(count @ 1..) = ours.read(&mut bytes) {
            shown.extend(&bytes[..count]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    });
    (theirs, reader)
}

/// A command without what the environment of the test says about terminals.
fn plain(folder: &Path, arguments: &str) -> Command {
    let mut command = trainc();
    command.current_dir(folder).args(arguments.split(' ')).env("TERM", "xterm");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn lines_reach_standard_output_wherever_standard_error_goes() {
    let folder = project();
    for (number, shown_on) in ["terminal", "dumb", "file"].into_iter().enumerate() {
        let mut command = plain(folder.path(), &format!("run line.train --out run{number}"));
        let log = folder.path().join("errors.log");
        let (theirs, reader) = terminal();
        match shown_on {
            // Redirected errors: there is nowhere to draw a bar.
            "terminal" => command.stdout(theirs).stderr(File::create(&log).unwrap()),
            // A terminal that cannot draw.
            "dumb" => command.env("TERM", "dumb").stdout(theirs.try_clone().unwrap()).stderr(theirs),
            // Redirected lines: the bar has the terminal for itself.
            _ => command.stdout(File::create(folder.path().join("lines.log")).unwrap()).stderr(theirs),
        };
        assert!(command.status().unwrap().success());
        drop(command);
        let drawn = reader.join().unwrap();
        let lines = match shown_on {
            "file" => fs::read_to_string(folder.path().join("lines.log")).unwrap(),
            _ => drawn.clone(),
        };
        for line in ["step 5/5  loss", "held out: loss", "saved run"] {
            assert!(lines.contains(line), "{shown_on}: {lines}");
        }
        assert!(!lines.contains('\x1b'), "{shown_on}: {lines}");
        assert_eq!(drawn.contains("5/5  loss") && drawn.contains('\x1b'), shown_on == "file", "{drawn:?}");
    }
}

#[test]
fn ctrl_c_clears_the_bar_and_has_an_exit_code_of_its_own() {
    let folder = project();
    let (theirs, reader) = terminal();
    let mut command = plain(folder.path(), "run line.train --steps 1000000000 --out long");
    let mut child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
    drop(command);
    wait_for_steps(&folder.path().join("long"));
    std::thread::sleep(Duration::from_millis(300));
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let drawn = reader.join().unwrap();
    let bar = drawn.rfind("/1000000000  loss").expect("a bar was drawn");
    assert!(drawn[bar..].contains("\x1b[2K"), "the bar is cleared: {:?}", &drawn[bar..]);
    assert!(drawn[bar..].contains("stopped after step") && !drawn.contains("1000000000/1000000000"), "{drawn:?}");
    assert!(!drawn.contains("error:"), "what was asked for is no error: {drawn:?}");
}

#[test]
fn colours_follow_the_environment() {
    let folder = project();
    fs::write(folder.path().join("wrong.train"), "use std\n\ntrain {\n    modle Gpt()\n}\n").unwrap();
    let is_coloured = |variables: &[(&str, &str)], on_terminal: bool| {
        let mut command = plain(folder.path(), "check wrong.train");
        command.envs(variables.iter().copied());
        let shown = match on_terminal {
            true => {
                let (theirs, reader) = terminal();
                command.stderr(theirs).stdout(Stdio::null()).status().unwrap();
                drop(command);
                reader.join().unwrap()
            }
            false => stderr(&command.output().unwrap()),
        };
        assert!(shown.contains("did you mean"), "{shown}");
        shown.contains('\x1b')
    };
    assert!(is_coloured(&[], true) && !is_coloured(&[], false));
    assert!(!is_coloured(&[("NO_COLOR", "1")], true));
    assert!(!is_coloured(&[("TERM", "dumb")], true));
    assert!(!is_coloured(&[("CLICOLOR", "0")], true));
    assert!(is_coloured(&[("CLICOLOR_FORCE", "1")], false));
}

#[test]
fn checkpoints_can_be_inspected() {
    let folder = project();
    done(folder.path(), "run line.train --out run");
    let shown = done(folder.path(), "inspect run/checkpoints/step-000005 --json");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.starts_with("Line after step 5, seed 0, 80 records read"), "{text}");
    let facts = last_line(&shown);
    assert_eq!((&facts["state"]["step"], &facts["state"]["program"]), (&5.into(), &"Line".into()));
    let tensors = facts["tensors"].as_object().unwrap();
    let shapes: Vec<String> = tensors.values().map(|tensor| tensor["shape"].to_string()).collect();
    assert_eq!(shapes, ["[1]", "[1,3]"], "{facts}");
    assert!(tensors.values().all(|tensor| tensor["type"] == "F32"));

    let state = folder.path().join("run/checkpoints/step-000005/state.json");
    fs::write(&state, fs::read_to_string(&state).unwrap().replace("\"step\": 5", "\"step\": 6")).unwrap();
    let damaged = refused(folder.path(), "inspect run/checkpoints/step-000005", 3);
    assert!(damaged.contains("the checkpoint is damaged"), "{damaged}");
    let neither = refused(folder.path(), "inspect run/tensorboard", 2);
    assert!(neither.contains("holds neither a run nor a checkpoint"), "{neither}");
}

#[test]
fn a_run_of_a_wrong_program_gives_its_diagnostics_as_data() {
    let folder = project();
    fs::write(folder.path().join("wrong.train"), "use std\n\ntrain {\n    modle Gpt()\n}\n").unwrap();
    let [checked, ran] = ["check wrong.train --json", "run wrong.train --json"].map(|arguments| {
        let output = run(folder.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(code(&output), 1);
        last_line(&output)
    });
    assert!(checked["diagnostics"][0]["message"].is_string());
    assert_eq!(checked, ran);
}

#[test]
fn console_metrics_and_errors_count_steps_alike() {
    let folder = project();
    let shown = done(folder.path(), "run line.train --out run");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    for line in [&lines[0], &lines[4]] {
        let console = format!("step {}/5  loss {:.4}", line["step"], line["loss"].as_f64().unwrap());
        assert!(shown.contains(&console), "{console}: {shown}");
    }
    let text = fs::read_to_string(folder.path().join("line.train")).unwrap();
    fs::write(folder.path().join("up.train"), text.replace("constant(0.1)", "constant(1e30)")).unwrap();
    let said = refused(folder.path(), "run up.train --out up", 3);
    let last = fs::read_to_string(folder.path().join("up/metrics.jsonl")).unwrap().lines().count();
    assert!(said.contains(&format!("at step {last}")), "{said}");
}
