//! Code generation in a process of its own: the same code as in this one, and an answer to each way in which it can fail.

use super::cli::{binary, code, stderr};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use trainc_kernels::Target;
use trainc_runtime::artifact::{Artifact, Isa};
use trainc_tests::program;

/// The first line of every answer.
const GREETING: &str = concat!("echo trainc-codegen ", env!("CARGO_PKG_VERSION"), " 2; ");

const PROGRAM: &str = "dsl-examples/linear_regression.train";

/// The shared libraries that a program is started with, which the dynamic loader prints instead of starting it.
fn libraries(program: &str) -> String {
    let output = Command::new(binary(program)).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn trainc_is_not_linked_with_llvm() {
    let of_llvm = |program| libraries(program).lines().any(|line| line.contains("libLLVM") || line.contains("libMLIR"));
    assert!(of_llvm("trainc-codegen"), "{}", libraries("trainc-codegen"));
    assert!(!of_llvm("trainc"), "{}", libraries("trainc"));
}

/// A folder with `trainc` in it, and perhaps something in the place of its code generator.
struct Installation(TempDir);

impl Installation {
    fn new(generator: Option<&str>) -> Installation {
        let trainc = binary("trainc");
        // Beside the binary, since a link does not cross file systems.
        let folder = TempDir::new_in(trainc.parent().unwrap()).unwrap();
        fs::hard_link(&trainc, folder.path().join("trainc")).unwrap();
        if let Some(script) = generator {
            let text = folder.path().join("script");
            fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
            // Another process writes it: nothing that this one starts meanwhile holds it open.
            let [from, to] = [text, folder.path().join("trainc-codegen")];
            assert!(Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap().success());
        }
        Installation(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.path("trainc"));
        command.current_dir(trainc_tests::root()).args(arguments).output().unwrap()
    }

    /// What `trainc compile` says of its code generator.
    fn failure(&self) -> String {
        let artifact = self.path("small.trainx");
        let output = self.run(&["compile", PROGRAM, "--out", artifact.to_str().unwrap()]);
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(!artifact.exists(), "half an artifact was written");
        stderr(&output)
    }
}

#[test]
fn only_what_generates_code_needs_the_code_generator() {
    let alone = Installation::new(None);
    let message = alone.failure();
    assert!(message.contains(alone.path("trainc-codegen").to_str().unwrap()), "{message}");
    assert!(message.contains("cargo build -p trainc"), "{message}");
    let wrong = alone.run(&["compile", "tests/mistakes/misspelt_optimizer.train"]);
    assert_eq!(code(&wrong), 1, "a wrong program comes first: {}", stderr(&wrong));

    let (artifact, runs) = (alone.path("small.trainx"), alone.path("runs"));
    fs::copy(trainc_tests::root().join("dsl-examples/points.csv"), alone.path("points.csv")).unwrap();
    program::artifact("small", &program::read(PROGRAM), &[]).write(&artifact).unwrap();
    let [artifact, runs] = [artifact.to_str().unwrap(), runs.to_str().unwrap()];
    for arguments in
        [&["run", artifact, "--out", runs][..], &["plan", PROGRAM], &["compile", PROGRAM, "--emit", "mlir"]]
    {
        let output = alone.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_code_generator_that_dies_is_reported_with_its_last_words() {
    let refusing = Installation::new(Some("seq 1 5000 >&2; echo 'LLVM ERROR: Cannot select' >&2; exit 70")).failure();
    assert!(refusing.contains("ended with exit code 70"), "{refusing}");
    assert!(refusing.ends_with("| LLVM ERROR: Cannot select\n"), "{refusing}");
    assert!(refusing.len() < 10_000, "only the end is repeated: {} bytes", refusing.len());

    let abort = format!("{GREETING}cat >/dev/null; echo 'LLVM ERROR: oh' >&2; kill -ABRT $$");
    let aborted = Installation::new(Some(&abort)).failure();
    assert!(aborted.contains("signal 6 (SIGABRT)") && aborted.contains("defect of trainc"), "{aborted}");
    assert!(aborted.contains("| LLVM ERROR: oh"), "{aborted}");

    let killed = Installation::new(Some("kill -KILL $$")).failure();
    assert!(killed.contains("SIGKILL") && killed.contains("out of memory"), "{killed}");
}

#[test]
fn a_code_generator_whose_libraries_cannot_be_loaded_is_no_defect_of_trainc() {
    let loader = "echo 'error while loading shared libraries: libLLVM.so: file too short' >&2; exit 127";
    for script in [loader, "kill -SEGV $$", "kill -BUS $$"] {
        let message = Installation::new(Some(script)).failure();
        assert!(
            message.contains("could not be loaded") && message.contains("install their packages anew"),
            "{message}"
        );
        assert!(!message.contains("defect of trainc"), "{message}");
    }
    let real = Installation::new(None);
    let damaged = real.path("trainc-codegen");
    let bytes = fs::read(binary("trainc-codegen")).unwrap();
    fs::write(&damaged, &bytes[..100_000]).unwrap();
    for (mode, said) in [("644", "must be executable: chmod +x"), ("755", "could not be loaded")] {
        assert!(Command::new("chmod").arg(mode).arg(&damaged).status().unwrap().success());
        let message = real.failure();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn ctrl_c_ends_a_command_whose_code_generator_is_silent() {
    let silent = Installation::new(Some("exec sleep 1000"));
    let artifact = silent.path("small.trainx");
    let mut command = Command::new(silent.path("trainc"));
    command.current_dir(trainc_tests::root()).args(["compile", PROGRAM, "--out"]).arg(&artifact);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it waits for an answer");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
}

#[test]
fn an_answer_that_is_none_is_refused() {
    let real = binary("trainc-codegen").display().to_string();
    let message = |script: &str| Installation::new(Some(script)).failure();
    assert!(message("true").contains("no answer, or half of one"));
    assert!(message(&format!("{real} > $0.answer; head -c 2000 $0.answer")).contains("no answer, or half of one"));
    assert!(message("exec yes rubbish").contains("`rubbish` speaks"));
    assert!(message("exec cat /dev/zero").contains("cannot be understood"));
    assert!(message("echo trainc-codegen 0.0.1 2; exec sleep 1000").contains("of another build than trainc"));
    let altered = message(&format!("{real} | sed -n '1p; 2,$s/^{{.*/{{\"Ok\":[]}}/p'"));
    assert!(altered.contains("answered with 0 of"), "{altered}");
    // The generator, too, wants to know who asks.
    let foreign = message(&format!("sed 1s/trainc/other/ | {real}"));
    assert!(foreign.contains("trainc-codegen has no request: `other-codegen"), "{foreign}");
}

#[test]
fn code_is_the_same_as_in_process() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["determinism", "cnn", "llama"] {
        let path = format!("tests/programs/{name}.train");
        let compiled = |target: &str| by_command_line(folder.path(), &path, target);
        let in_process = |target, isa| {
            let checked = program::check(name, &program::read(&path), &[]).unwrap_or_else(|found| panic!("{found}"));
            program::artifact_of(name, checked, target, isa)
        };
        // A named instruction set, since `cpu` alone means this machine's caches, too.
        assert_same_code(&compiled("cpu:v3"), &in_process(Target::Cpu, Isa::X86V3));
        assert_same_code(&compiled("cuda:sm_80"), &in_process(Target::Cuda, Isa::Sm80));
    }
}

fn by_command_line(folder: &Path, program: &str, target: &str) -> Artifact {
    let file = folder.join("compiled.trainx");
    let arguments = ["compile", program, "--target", target, "--out", file.to_str().unwrap()];
    let output = Command::new(binary("trainc")).current_dir(trainc_tests::root()).args(arguments).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    Artifact::read(&file).unwrap()
}

fn assert_same_code(a: &Artifact, b: &Artifact) {
    let launches = |artifact: &Artifact| serde_json::to_string(&artifact.manifest.variants).unwrap();
    assert_eq!(launches(a), launches(b));
    assert!(a.code == b.code, "{}: the code of the two differs", a.manifest.name);
}
