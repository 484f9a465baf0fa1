//! The code generator of `trainc` as a process of its own, which `trainc` starts: a request on standard input, the answer on
//! standard output. So LLVM's memory is not that of training, and its fatal errors end this process alone.

use std::{
    io::{BufWriter, stdin, stdout},
    process::ExitCode,
};
use trainc::{
    exhausted::OrEnd,
    protocol::{self, Answer, Request},
};
use trainc_kernels::{Backend, CodegenError};
use trainc_llvm::Llvm;

#[global_allocator]
static ALLOCATOR: OrEnd = OrEnd;

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!("trainc-codegen is started by trainc, which sends it kernels; it takes no arguments");
        return ExitCode::from(2);
    }
    // Who is killed while this one works wants no answer any more.
    // SAFETY: a setting of this process; it takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    match protocol::write_answer(&mut BufWriter::new(stdout()), answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the answer cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer() -> Answer {
    let Request { modules, isa, form } = protocol::read_request(&mut stdin().lock())
        .map_err(|unread| CodegenError::Unavailable(format!("trainc-codegen has no request: {unread}")))?;
    Llvm.generate(&modules, isa, form)
}
