//! Systems that give little: no thread, no memory, no room on the disk, files that are something else. Every command says what
//! is missing and ends with a documented exit code; none panics and none waits for ever.

use super::cli::{binary, code, stderr, trainc};
use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// No command of these tests takes so long, unless it hangs.
const LONG: Duration = Duration::from_secs(120);

/// A user that has no process.
const NOBODY: u32 = 65534;

/// A folder that anybody may use, with a program, its data, its artifact and a finished run.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for name in ["linear_regression.train", "points.csv"] {
            fs::copy(trainc_tests::root().join("dsl-examples").join(name), place.path(name)).unwrap();
        }
        fs::rename(place.path("linear_regression.train"), place.path("line.train")).unwrap();
        for arguments in [&["compile", "line.train"][..], &["run", "line.trainx", "--steps", "3", "--out", "run"]] {
            let output = place.command(arguments).output().unwrap();
            assert_eq!(code(&output), 0, "{}", stderr(&output));
        }
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = trainc();
        // A panic that prints a trace may wait for itself where memory ends.
        command.current_dir(self.0.path()).args(arguments).env("RUST_BACKTRACE", "1");
        command
    }
}

/// One of each command.
const COMMANDS: [&[&str]; 10] = [
    &["check", "line.train"],
    &["compile", "line.train", "--out", "new.trainx"],
    &["run", "line.train", "--steps", "3", "--fresh", "--out", "new"],
    &["run", "line.trainx", "--steps", "3", "--fresh", "--out", "other"],
    &["resume", "run", "--steps", "6"],
    &["evaluate", "run"],
    &["plan", "line.train"],
    &["fmt", "line.train"],
    &["inspect", "line.trainx"],
    &["privacy", "--sampling-rate", "0.01", "--noise", "1", "--steps", "100", "--delta", "1e-5"],
];

/// The output of a command that ends.
fn ended(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > LONG {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Limits a resource of a process before it starts.
fn limited(command: &mut Command, resource: libc::__rlimit_resource_t, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Done, or an error that says so.
fn is_documented(output: &Output, arguments: &[&str], what: &str) {
    let message = stderr(output);
    let code = code(output);
    assert!(code == 0 || code == 3, "{arguments:?} {what}: exit code {code}: {message}");
    assert!(code == 0 || message.contains("error: "), "{arguments:?} {what}: {message}");
}

#[test]
fn hostile_no_number_of_threads_ends_a_run_without_a_sentence() {
    let place = Place::new();
    for threads in ["18446744073709551615", "100000000", "1025"] {
        let output = ended(place.command(&["run", "line.trainx", "--out", "many", "--threads", threads]));
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(&format!("{threads} threads are more than the 1024")), "{}", stderr(&output));
    }
    assert!(!place.path("many").exists());
}

#[test]
fn hostile_without_memory_every_command_ends_with_a_sentence() {
    let place = Place::new();
    // From where not even the binary fits to where all do.
    for megabytes in [120, 200, 270, 285, 290, 295, 300, 310, 320, 350, 400, 700] {
        for arguments in COMMANDS {
            let mut command = place.command(arguments);
            limited(&mut command, libc::RLIMIT_AS, megabytes << 20);
            is_documented(&ended(command), arguments, &format!("with {megabytes} MiB"));
        }
    }
}

#[test]
fn hostile_without_threads_every_command_ends_with_a_sentence() {
    let place = Place::new();
    // SAFETY: it takes and changes nothing.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root && !readable_by_all(&binary("trainc")) {
        return println!("another user cannot reach the binaries, and nothing limits the threads of this one");
    }
    assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(place.0.path()).status().unwrap().success());
    for processes in [1, 2, 3, 5] {
        for arguments in COMMANDS {
            let mut command = place.command(arguments);
            limited(&mut command, libc::RLIMIT_NPROC, processes);
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            is_documented(&ended(command), arguments, &format!("with {processes} processes"));
        }
    }
}

fn readable_by_all(path: &Path) -> bool {
    path.ancestors().all(|path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005))
}

#[test]
fn hostile_output_that_finds_no_room_is_an_error() {
    let place = Place::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in
        [&["check", "line.train"][..], &["fmt", "line.train"], &["compile", "line.train", "--emit", "mlir"]]
    {
        let output = place.command(arguments).stdout(full()).output().unwrap();
        assert_eq!(code(&output), 3, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("standard output cannot be written"), "{}", stderr(&output));
    }
    let output = place.command(&["compile", "line.train", "--out", "new.trainx"]).stderr(full()).output().unwrap();
    assert_eq!(code(&output), 0, "a message that is lost is no failure");
    for (setting, name) in [("--out", "new.trainx"), ("--plot", "curve.svg")] {
        let mut command = match setting {
            "--out" => place.command(COMMANDS[1]),
            _ => place.command(&[COMMANDS[9], &["--plot", name]].concat()),
        };
        let _ = fs::remove_file(place.path(name));
        // Files may have no byte: what a full disk does, but for the signal.
        limited(&mut command, libc::RLIMIT_FSIZE, 0);
        let ignore = || {
            // SAFETY: one system call, which is allowed between fork and exec.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: as above.
        unsafe { command.pre_exec(ignore) };
        let output = ended(command);
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains(name) && !place.path(name).exists(), "{}", stderr(&output));
    }
}

#[test]
fn hostile_outputs_replace_nothing_but_their_like() {
    let place = Place::new();
    for (name, said) in [("line.train", "no artifact"), ("points.csv", "no artifact"), ("run", "directory")] {
        let before = fs::read(place.path(name)).ok();
        let output = place.command(&["compile", "line.train", "--out", name]).output().unwrap();
        assert_ne!(code(&output), 0);
        assert!(stderr(&output).contains(said), "{name}: {}", stderr(&output));
        assert_eq!(fs::read(place.path(name)).ok(), before);
    }
    // What is no file stays what it is: `--out /dev/null` as root once made it a file.
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().unwrap();
    let output = ended(place.command(&["compile", "line.train", "--out", "pipe"]));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(reader.wait_with_output().unwrap().stdout, fs::read(place.path("line.trainx")).unwrap());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());

    symlink("behind.trainx", place.path("link.trainx")).unwrap();
    assert_eq!(code(&ended(place.command(&["compile", "line.train", "--out", "link.trainx"]))), 0);
    assert!(
        fs::symlink_metadata(place.path("link.trainx")).unwrap().is_symlink() && place.path("behind.trainx").exists()
    );
}

#[test]
fn hostile_surroundings_change_nothing() {
    let place = Place::new();
    let bare = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env_clear().env("HOME", "/nonexistent").env("TMPDIR", "/nonexistent").env("LANG", "\u{fffd}");
        command
    };
    for arguments in COMMANDS {
        let output = ended(bare(arguments));
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    }
    let closed = format!("{} run line.trainx --steps 2 --out closed <&- >&- 2>&-", binary("trainc").display());
    let status = Command::new("sh").current_dir(place.0.path()).args(["-c", &closed]).status().unwrap();
    assert!(status.success() && place.path("closed/summary.json").exists());
    let gone = format!(
        "mkdir gone; cd gone; rmdir ../gone; {} run {}",
        binary("trainc").display(),
        place.path("line.trainx").display()
    );
    let output = Command::new("sh").current_dir(place.0.path()).args(["-c", &gone]).output().unwrap();
    assert!(matches!(code(&output), 2 | 3), "{}", stderr(&output));
}
