//! The code generator that the command line uses: the binary `trainc-codegen` beside this one.

use std::{
    cell::Cell,
    io::{self, BufReader, BufWriter, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};
use trainc::protocol::{self, Answer, Unread};
use trainc_kernels::{Backend, CodegenError, Form};
use trainc_runtime::artifact::Isa;

const NAME: &str = "trainc-codegen";

/// Bytes from the end of its standard error that a failure repeats.
const LAST_WORDS: usize = 2000;

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
        let ending = converse(child, modules, isa, form)
            .map_err(|error| CodegenError::Unavailable(format!("cannot wait for {NAME}: {error}")))?;
        ending.code(modules.len())
    }
}

fn start() -> Result<Child, String> {
    let own =
        std::env::current_exe().map_err(|error| format!("cannot look for {NAME} beside this program: {error}"))?;
    let program = own.with_file_name(NAME);
    let mut command = Command::new(&program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| {
        format!(
            "cannot start the code generator {}: {error}\n  it belongs beside trainc: `cargo build -p trainc` and \
             `cargo install --path compiler` make both",
            program.display()
        )
    })
}

/// Sends a request while it reads what comes back, so neither side ever waits for the other to read.
fn converse(mut child: Child, modules: &[String], isa: Isa, form: Form) -> io::Result<Ending> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
    thread::scope(|scope| {
        scope.spawn(move || {
            block_sigpipe();
            // One that dies early leaves a part unread; what it leaves behind says why.
            let _ = protocol::write_request(&mut BufWriter::new(stdin), modules, isa, form);
        });
        let last_words = scope.spawn(move || end_of(stderr));
        let answer = protocol::read_answer(&mut BufReader::new(stdout));
        if matches!(answer, Err(Unread::Foreign(_) | Unread::Garbled(_))) {
            // Whatever it is, it may never end by itself.
            child.kill()?;
        }
        Ok(Ending { answer, status: child.wait()?, last_words: last_words.join().unwrap_or_default() })
    })
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
            Err(unread @ Unread::Garbled(_)) => format!("gave no answer: {unread}"),
            Err(Unread::Incomplete) if self.status.success() => "gave no answer, or half of one".into(),
            _ => died(self.status),
        };
        let said = self.last_words.lines().map(|line| format!("\n  | {line}")).collect::<String>();
        Err(CodegenError::Unavailable(format!("the code generator {reason}{said}")))
    }
}

/// How a process ended that should not have; its signal, if any, by name.
fn died(status: ExitStatus) -> String {
    let defect = "this is a defect of trainc, not of the program";
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => "was killed (SIGKILL): perhaps the system is out of memory".into(),
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("was ended by signal {signal} ({name}): {defect}")
        }
        (None, code) => format!("ended with exit code {}: {defect}", code.unwrap_or(-1)),
    }
}
