//! Program files that are not what they should be: too much of something, from elsewhere, or made to fool a terminal.

use super::cli::{code, run, stderr, trainc};
use std::{fs, path::Path, process::Stdio};
use trainc_tests::program;

/// What `trainc check` says of a program that is wrong.
fn refused(folder: &Path, text: impl AsRef<[u8]>) -> String {
    fs::write(folder.join("p.train"), text).unwrap();
    let output = run(folder, &["check", "p.train"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    stderr(&output)
}

/// Few are shown of many errors, each found without reading the file again, and warnings take no error's place.
#[test]
fn many_findings_are_few_messages_with_the_error_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let unused: String = (0..16_000).map(|i| format!("const a{i} = 1\n")).collect();
    let said = refused(folder.path(), unused);
    assert_eq!((said.matches("W0201").count(), said.matches("E0713").count()), (20, 1), "{said}");
    for (text, id) in
        [("const a = 1\n", "E0202"), ("layer f(x) {\n", "E0202"), ("}\n", "E0106"), ("use std)\n", "E0106")]
    {
        let said = refused(folder.path(), text.repeat(16_000));
        assert!(said.contains(id) && said.matches("error[").count() <= 20, "{said}");
        assert!(said.contains("there are more errors, which are not shown"), "{said}");
    }
}

#[test]
fn files_that_are_no_files_are_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(std::process::Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success());
    for (name, what) in [("pipe", "a named pipe"), ("/dev/zero", "a device"), ("/proc/kmsg", ""), (".", "a folder")] {
        let output = run(path, &["check", name]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
        let said = refused(path, format!("use \"{name}\"\n"));
        assert!(said.contains("E0205"), "{said}");
    }
    fs::File::create(path.join("huge.train")).unwrap().set_len(1 << 40).unwrap();
    let output = run(path, &["check", "huge.train"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("more than"), "{}", stderr(&output));
}

#[test]
fn imports_come_from_the_folder_of_the_program_or_from_one_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("project");
    fs::create_dir_all(inner.join("parts")).unwrap();
    fs::write(folder.path().join("secret.train"), "const z = 1\n").unwrap();
    fs::write(inner.join("parts/own.train"), "use \"../more.train\"\nconst y = 1\n").unwrap();
    fs::write(inner.join("more.train"), "const x = 1\n").unwrap();
    std::os::unix::fs::symlink("../secret.train", inner.join("link.train")).unwrap();
    let whole = program::read("dsl-examples/linear_regression.train").replace("use std", "use std\nuse \"IMPORT\"");
    for (import, allowed) in [("parts/own.train", true), ("../secret.train", false), ("link.train", false)] {
        let text = whole.replace("IMPORT", import);
        fs::write(inner.join("p.train"), text).unwrap();
        let output = run(&inner, &["check", "p.train"]);
        assert_eq!(code(&output) == 0, allowed, "{import}: {}", stderr(&output));
        if !allowed {
            assert!(stderr(&output).contains("outside of the program's folder"), "{}", stderr(&output));
            let output = run(&inner, &["check", "p.train", "--allow-import", ".."]);
            assert_eq!(code(&output), 0, "{}", stderr(&output));
        }
    }
    let output = run(&inner, &["check", "p.train", "--allow-import", "nowhere"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn a_long_chain_of_imports_is_no_circle() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..40 {
        fs::write(folder.path().join(format!("c{i}.train")), format!("use \"c{}.train\"\n", i + 1)).unwrap();
    }
    fs::write(folder.path().join("c40.train"), "const z = 1\n").unwrap();
    let said = refused(folder.path(), "use \"c0.train\"\n");
    assert!(said.contains("E0110") && said.contains("more than 32 imports") && !said.contains("circle"), "{said}");
    fs::write(folder.path().join("c3.train"), "use \"c1.train\"\n").unwrap();
    assert!(refused(folder.path(), "use \"c0.train\"\n").contains("E0206"));
}

/// Whatever is named, nothing that a terminal obeys reaches it.
#[test]
fn nothing_in_a_program_or_its_name_moves_the_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "\x1b]0;title\x07\u{202e}\u{9b}2J";
    let name = format!("p{evil}.train");
    let example = program::read("dsl-examples/linear_regression.train");
    for text in [
        format!("use \"{evil}.train\"\n"),
        example.replace("points.csv", evil),
        example.replace("optimizer", &format!("freeze \"{evil}\"\n    optimizer")),
        format!("const {evil} = 1\n"),
    ] {
        fs::write(folder.path().join(&name), text).unwrap();
        for command in ["check", "run"] {
            let output = run(folder.path(), &[command, &name]);
            let shown = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
            assert_ne!(code(&output), 101, "{shown}");
            let obeyed = shown.chars().find(|c| (c.is_control() && !"\n\t".contains(*c)) || *c == '\u{202e}');
            assert_eq!(obeyed, None, "{shown:?}");
        }
    }
}

#[test]
fn a_repeat_beyond_what_a_plan_can_hold_is_refused_by_its_number() {
    let output = run(&trainc_tests::root(), &["check", "dsl-examples/gpt_rust.train", "--set", "depth=65535"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains("launches of kernels, more than the 262144") && said.contains("65535 instances"), "{said}");
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let program = trainc_tests::root().join("dsl-examples/linear_regression.train");
    let program = program.to_str().unwrap();
    assert_eq!(code(&run(folder.path(), &["compile", program, "--out", "a.trainx"])), 0);
    for arguments in [
        vec!["check", program],
        vec!["check", program, "--json"],
        vec!["plan", program],
        vec!["explain", program],
        vec!["fmt", program],
        vec!["compile", program, "--emit", "graph"],
        vec!["inspect", "a.trainx"],
        vec!["privacy", "--sampling-rate", "0.1", "--noise", "1", "--steps", "10", "--delta", "1e-5"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = trainc();
        command.current_dir(folder.path()).args(&arguments).stdout(Stdio::from(full));
        let output = command.output().unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 3, "{arguments:?}: {said}");
        assert!(
            said.contains("standard output cannot be written") && !said.contains("panicked"),
            "{arguments:?}: {said}"
        );
    }
}
