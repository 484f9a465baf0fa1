//! The code generator that the command line uses: the binary `trainc-codegen` beside this one.

use std::{
    cell::Cell,
    io::{self, BufReader, BufWriter, Read},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread::Builder,
};
use trainc::protocol::{self, Answer, Silence, Unread};
use trainc_kernels::{Backend, CodegenError, Form};
use trainc_runtime::artifact::Isa;

const NAME: &str = "trainc-codegen";

/// Bytes from the end of its standard error that a failure repeats.
const LAST_WORDS: usize = 2000;

/// Seconds without a sign of life after which it is given up. It gives one each second, however long its work takes.
const SILENCE: u64 = 60;

/// A process for each request. It loads LLVM, answers and ends: training has its memory, and an abort is an error here.
pub struct Generator {
    /// The process of the first request.
    ready: Cell<Option<Result<Child, String>>>,
}

impl Generator {
    /// Starts the first process: LLVM is loaded while the program is checked.
    pub fn start() -> Self {
        Generator { ready: Cell::new(Some(start())) }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // The program was wrong, and nothing was asked.
        if let Some(Ok(mut child)) = self.ready.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Backend for Generator {
    fn generate(&self, modules: &[String], isa: Isa, form: Form) -> Result<Vec<Vec<u8>>, CodegenError> {
        let child = self.ready.take().unwrap_or_else(start).map_err(CodegenError::Unavailable)?;
        let ending = converse(child, modules, isa, form, SILENCE)
            .map_err(|error| CodegenError::Unavailable(format!("cannot talk to {NAME}: {error}")))?;
        ending.code(modules.len())
    }
}

fn start() -> Result<Child, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot look for {NAME} beside this program: {error}"))?;
    let program = own.with_file_name(NAME);
    let mut command = Command::new(&program);
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    started.map_err(|error| {
        format!("cannot start the code generator {}: {error}{}", program.display(), remedy(&program, &error))
    })
}

/// What to do about a program that cannot be started.
fn remedy(program: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "\n  it belongs beside trainc: `cargo build -p trainc` and `cargo install --path compiler` make both".into()
        }
        io::ErrorKind::PermissionDenied => format!("\n  it must be executable: chmod +x {}", program.display()),
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
            "\n  the number of processes or the memory is limited (`ulimit -u`, `ulimit -v`)".into()
        }
        _ => "\n  perhaps it is of another machine, or damaged: `cargo build -p trainc` and `cargo install --path compiler` make it anew".into(),
    }
}

/// Sends a request while it reads what comes back, so neither side ever waits for the other to read.
fn converse(mut child: Child, modules: &[String], isa: Isa, form: Form, silence: u64) -> io::Result<Ending> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
    std::thread::scope(|scope| {
        let send = move || send(stdin, modules, isa, form);
        let started = Builder::new()
            .spawn_scoped(scope, send)
            .and_then(|_| Builder::new().spawn_scoped(scope, move || end_of(stderr)));
        let last_words = started.inspect_err(|_| drop(child.kill()))?;
        let answer = protocol::read_answer(&mut BufReader::new(Watched { stdout, silence }));
        if matches!(answer, Err(Unread::Foreign(_) | Unread::Garbled(_) | Unread::Silent(_))) {
            // Whatever it is, it may never end by itself.
            child.kill()?;
        }
        Ok(Ending { answer, status: child.wait()?, last_words: last_words.join().unwrap_or_default() })
    })
}

fn send(stdin: ChildStdin, modules: &[String], isa: Isa, form: Form) {
    block_sigpipe();
    // One that dies early leaves a part unread; what it leaves behind says why.
    let _ = protocol::write_request(&mut BufWriter::new(stdin), modules, isa, form);
}

/// What a process says; after so many seconds of silence, that is an error.
struct Watched {
    stdout: ChildStdout,
    silence: u64,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Second by second: a machine that sleeps, or a job that was stopped, wakes up in the middle of one second only.
        for _ in 0..self.silence {
            if has_news(&self.stdout)? {
                return self.stdout.read(buffer);
            }
        }
        Err(io::Error::other(Silence(self.silence)))
    }
}

/// Whether there is something to read, or the end, within a second.
fn has_news(stdout: &ChildStdout) -> io::Result<bool> {
    let mut events = libc::pollfd { fd: stdout.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives as long as the call.
    match unsafe { libc::poll(&mut events, 1, 1000) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// The command line lets SIGPIPE end it; in this thread, a write into a broken pipe is an error instead.
fn block_sigpipe() {
    // SAFETY: the set lives on the stack, is filled before it is used, and concerns this thread alone.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

fn end_of(mut stream: impl Read) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; LAST_WORDS]);
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What a process leaves behind.
struct Ending {
    answer: Result<Answer, Unread>,
    status: ExitStatus,
    last_words: String,
}

impl Ending {
    /// The code of so many modules.
    fn code(self, modules: usize) -> Result<Vec<Vec<u8>>, CodegenError> {
        let reason = match self.answer {
            Ok(Err(refused)) => return Err(refused),
            Ok(Ok(code)) if self.status.success() && code.len() == modules => return Ok(code),
            Ok(Ok(code)) if self.status.success() => format!("answered with {} of {modules} modules", code.len()),
            Err(unread @ Unread::Foreign(_)) => format!("is of another build than trainc, make both anew: {unread}"),
            Err(unread @ (Unread::Garbled(_) | Unread::Silent(_))) => format!("gave no answer: {unread}"),
            Err(Unread::Nothing | Unread::Incomplete) if self.status.success() => {
                "gave no answer, or half of one".into()
            }
            Err(Unread::Nothing) if is_no_start(self.status) => {
                format!("could not be loaded: {}", no_start(self.status))
            }
            _ => format!("{}: {}", died(self.status), cause(self.status)),
        };
        let said = self.last_words.lines().map(|line| format!("\n  | {line}")).collect::<String>();
        Err(CodegenError::Unavailable(format!("the code generator {reason}{said}")))
    }
}

/// How a process ended that should not have; its signal, if any, by name.
fn died(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => "was killed (SIGKILL)".into(),
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("was ended by signal {signal} ({name})")
        }
        (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
    }
}

/// Why it probably ended. LLVM makes of memory that it does not get whatever its libraries make of it.
fn cause(status: ExitStatus) -> String {
    match (status.signal(), memory_limit()) {
        (Some(libc::SIGKILL), _) => "perhaps the system is out of memory".into(),
        (_, Some(kilobytes)) => {
            format!("perhaps of its limit of {kilobytes} kB of memory, `ulimit -v`; LLVM takes some 600,000")
        }
        _ => "this is a defect of trainc, not of the program".into(),
    }
}

/// The exit code with which the dynamic loader ends a program whose libraries it cannot load.
const NOT_LOADED: i32 = 127;

/// Whether one that has not said a word ended as those do that never reach their first line.
fn is_no_start(status: ExitStatus) -> bool {
    let crashes = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE];
    status.code() == Some(NOT_LOADED) || status.signal().is_some_and(|signal| crashes.contains(&signal))
}

fn no_start(status: ExitStatus) -> String {
    if memory_limit().is_some() {
        return format!("it {}, {}", died(status), cause(status));
    }
    format!(
        "it {} before it began. The libraries of LLVM and MLIR that it is linked with are missing, damaged or of another version: \
         install their packages anew, or build {NAME} for those that are there",
        died(status)
    )
}

/// The limit on the address space of this process and of those that it starts, in kB, as `ulimit -v` has it.
fn memory_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call fills in what it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program, some script, makes of a request, given so many seconds of silence.
    fn failure(script: &str, silence: u64) -> String {
        let mut command = Command::new("sh");
        let command = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ending = converse(command.spawn().unwrap(), &["module {}".into()], Isa::X86V3, Form::Object, silence);
        ending.unwrap().code(1).unwrap_err().to_string()
    }

    #[test]
    fn a_code_generator_that_gives_no_sign_of_life_is_given_up() {
        for script in ["exec sleep 1000", "echo one; kill -STOP $$", "printf trainc-codegen; exec sleep 1000"] {
            let message = failure(script, 2);
            assert!(
                message.contains("no sign of life for 2 seconds") || message.contains("another build"),
                "{message}"
            );
        }
    }

    #[test]
    fn signs_of_life_are_waited_for_as_long_as_they_come() {
        let greeting = String::from_utf8({
            let mut bytes = Vec::new();
            protocol::write_answer(&mut bytes, || Ok(Vec::new())).unwrap();
            bytes
        });
        let greeting = greeting.unwrap().lines().next().unwrap().to_owned();
        let message =
            failure(&format!("echo '{greeting}'; for i in 1 2 3 4 5 6; do sleep 0.5; echo; done; echo no"), 2);
        assert!(message.contains("cannot be understood"), "{message}");
    }
}
