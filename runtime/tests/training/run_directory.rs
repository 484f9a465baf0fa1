//! A run's directory: how a run appears in it, what takes its place, what is not taken for it, and where it finds its data.

use super::*;

/// Every file below a folder with its contents, but for the lock.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.file_name() == Some(".lock".as_ref()) => {}
            false => found.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

fn complaint<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn a_run_from_other_parameters_is_not_there_without_them() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("runs/out");
    let (artifact, options) = (table_program(base.path()), options(base.path(), 1));
    let mut session = Session::new(artifact.clone(), &options).unwrap();
    let weights = Values::from(vec![4.0, 3.0, 2.0, 1.0]);
    session.set_tensor("w", &weights).unwrap();
    let prepared = || {
        let mut run = NewRun::prepare(&out, &artifact, &options, Earlier::Refuse).unwrap();
        run.start_from(&session).unwrap();
        assert!(!out.exists() && !RunDirectory::exists(&out));
        run
    };
    drop(prepared());
    assert_eq!(fs::read_dir(base.path().join("runs")).unwrap().count(), 0, "what is given up leaves nothing");

    // What a process leaves that is killed before the end of its start is no run, and in nobody's way.
    std::mem::forget(prepared());
    assert!(complaint(RunDirectory::open(&out)).contains("holds no run"));
    assert!(complaint(NewRun::prepare(&out, &artifact, &options, Earlier::Refuse)).contains("another process"));
    fs::remove_file(base.path().join("runs/.out.starting/.lock")).unwrap();

    drop(prepared().begin().unwrap());
    let (directory, artifact, kept) = RunDirectory::open(&out).unwrap();
    let mut resumed = Session::new(artifact, &kept).unwrap();
    assert_eq!(directory.restore(&mut resumed, &mut ()).unwrap(), 0);
    assert_eq!(resumed.tensor("w").unwrap(), weights);
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    let lost = complaint(directory.restore(&mut resumed, &mut ()));
    assert!(lost.contains("started from the parameters of another run"), "{lost}");
}

#[test]
fn a_run_is_replaced_whole_or_not_at_all() {
    let base = tempfile::tempdir().unwrap();
    let out = base.path().join("out");
    let (artifact, options) = (table_program(base.path()), options(base.path(), 1));
    run(&artifact, base.path(), &out, 1, &mut ()).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = files(&out);
    let replace = || NewRun::prepare(&out, &artifact, &options, Earlier::Replace);

    let at_work = RunDirectory::open(&out).unwrap();
    assert!(complaint(replace()).contains("another process is training"));
    drop(at_work);
    drop(replace().unwrap());
    assert_eq!(files(&out), before, "a start that fails changes nothing");

    let mut session = Session::new(artifact.clone(), &options).unwrap();
    let outcome = train(&mut session, Some(&replace().unwrap().begin().unwrap()), &mut (), &AtomicBool::new(false));
    assert!(matches!(outcome, Ok(Outcome::Finished(_))));
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    assert_eq!(metrics(&out).len(), 20);
    assert_eq!(fs::read_dir(out.join("tensorboard")).unwrap().count(), 1, "events of the earlier run are gone");
    let hidden = fs::read_dir(&out).unwrap().flatten().filter(|entry| entry.file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(hidden.count(), 1, "only the lock");
}

/// Puts other words into the state of a checkpoint, under right digests.
fn forge(checkpoint: &Path, from: &str, to: &str) {
    let state = fs::read_to_string(checkpoint.join("state.json")).unwrap();
    assert!(state.contains(from), "{state}");
    let state = state.replace(from, to);
    fs::write(checkpoint.join("state.json"), &state).unwrap();
    let tensors = blake3::hash(&fs::read(checkpoint.join("tensors.safetensors")).unwrap());
    let sums = format!("{tensors}  tensors.safetensors\n{}  state.json\n", blake3::hash(state.as_bytes()));
    fs::write(checkpoint.join("B3SUMS"), sums).unwrap();
}

#[test]
fn states_of_another_step_seed_or_position_are_not_taken_for_the_run_s() {
    let base = tempfile::tempdir().unwrap();
    let artifact = table_program(base.path());
    let whole = base.path().join("whole");
    run(&artifact, base.path(), &whole, 1, &mut ()).unwrap();
    for (from, to, reason) in [
        ("\"seed\": 1", "\"seed\": 2", "it is of a run with seed 2, this one has seed 1"),
        ("\"step\": 10", "\"step\": 9", "it is the state after step 9"),
        ("\"position\": 80", "\"position\": 88", "after step 10 no run stands at record 88"),
    ] {
        let hurt = base.path().join(to.replace(['"', ':', ' '], ""));
        killed_at(13, &artifact, base.path(), &hurt);
        forge(&hurt.join("checkpoints/step-000010"), from, to);
        let mut warnings = Warnings::default();
        run(&artifact, base.path(), &hurt, 1, &mut warnings).unwrap();
        assert!(warnings.0[0].contains(reason), "{:?}", warnings.0);
        assert_eq!(traces(&whole), traces(&hurt), "the checkpoint before is used");
    }
    let longer = base.path().join("longer");
    killed_at(13, &artifact, base.path(), &longer);
    for step in [5, 10] {
        let (here, there) = (format!("checkpoints/step-{step:06}"), format!("checkpoints/step-{:06}", step + 20));
        fs::rename(longer.join(here), longer.join(&there)).unwrap();
        forge(&longer.join(&there), &format!("\"step\": {step}"), &format!("\"step\": {}", step + 20));
        let position = |step: u32| format!("\"position\": {}", 8 * step);
        forge(&longer.join(&there), &position(step), &position(step + 20));
    }
    let beyond = complaint(run(&artifact, base.path(), &longer, 1, &mut ()));
    assert!(beyond.contains("it has made 30 steps, this run has 20 in all"), "{beyond}");
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let base = tempfile::tempdir().unwrap();
    let (artifact, out) = (table_program(base.path()), base.path().join("out"));
    let first = run(&artifact, base.path(), &out, 1, &mut ()).unwrap();
    let before = files(&out);
    let again = run(&artifact, base.path(), &out, 2, &mut ()).unwrap();
    assert_eq!(first, again);
    assert_eq!(files(&out), before);
    assert!(again.summary().get("step_ms").is_some_and(|ms| ms.is_f64()));
}

#[test]
fn a_run_without_a_checkpoint_clause_is_saved_by_the_clock() {
    let base = tempfile::tempdir().unwrap();
    let mut artifact = table_program(base.path());
    (artifact.manifest.train.checkpoint_every, artifact.manifest.train.keep) = (Duration::Steps(0), 100);
    let saved = |name: &str, autosave| {
        let out = base.path().join(name);
        let options = Options { autosave, ..options(base.path(), 1) };
        let directory = RunDirectory::create(&out, &artifact, &options).unwrap();
        let mut session = Session::new(artifact.clone(), &options).unwrap();
        train(&mut session, Some(&directory), &mut (), &AtomicBool::new(false)).unwrap();
        traces(&out)
    };
    let (rare, often) = (saved("rare", None), saved("often", Some(std::time::Duration::ZERO)));
    assert_eq!((rare.0.len(), often.0.len()), (3, 20 * 3), "three files each: at the end, and after each step");
    assert_eq!(rare.0[..], often.0[19 * 3..], "when a state is saved changes no bit of it");
    assert_eq!(rare.1, often.1);
}

#[test]
fn a_project_that_moves_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
    fs::create_dir(&here).unwrap();
    let artifact = table_program(&here);
    run(&artifact, &here, &here.join("runs/whole"), 1, &mut ()).unwrap();
    killed_at(13, &artifact, &here, &here.join("runs/torn"));
    fs::rename(&here, &there).unwrap();
    run(&artifact, &there, &there.join("runs/torn"), 1, &mut ()).unwrap();
    assert_eq!(traces(&there.join("runs/whole")), traces(&there.join("runs/torn")));

    // Told of another folder, a run remembers it.
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::rename(there.join("rows.csv"), data.join("rows.csv")).unwrap();
    killed_at(13, &artifact, &data, &there.join("runs/apart"));
    fs::rename(&data, folder.path().join("elsewhere")).unwrap();
    let lost = complaint(run(&artifact, &there, &there.join("runs/apart"), 1, &mut ()));
    assert!(lost.contains("rows.csv"), "{lost}");
    {
        let (directory, artifact, kept) = RunDirectory::open(there.join("runs/apart")).unwrap();
        let options = Options { base: Some(folder.path().join("elsewhere")), ..kept };
        let mut session = Session::new(artifact, &options).unwrap();
        directory.restore(&mut session, &mut ()).unwrap();
        let stop = AtomicBool::new(true);
        train(&mut session, Some(&directory), &mut (), &stop).unwrap();
    }
    run(&artifact, &there, &there.join("runs/apart"), 1, &mut ()).unwrap();
    assert_eq!(traces(&there.join("runs/whole")), traces(&there.join("runs/apart")));
}

/// In an event: its step and a session log that says START.
fn starts(file: &[u8], step: u8) -> bool {
    file.windows(6).any(|bytes| bytes == [0x10, step, 0x3a, 2, 8, 1])
}

#[test]
fn events_of_a_killed_run_are_marked_where_it_starts_again() {
    let base = tempfile::tempdir().unwrap();
    let (artifact, out) = (table_program(base.path()), base.path().join("out"));
    killed_at(13, &artifact, base.path(), &out);
    run(&artifact, base.path(), &out, 1, &mut ()).unwrap();
    let events = files(&out.join("tensorboard"));
    assert_eq!(events.len(), 2);
    assert!(starts(&events[0].1, 1) && !starts(&events[0].1, 11));
    assert!(starts(&events[1].1, 11), "steps 11 and 12 had been told of");
    assert_eq!(metrics(&out)[12]["step"], 13, "metrics and events count alike");
}
