//! The command line of trainc: the only place in this crate that touches files and terminals.

mod arguments;
mod bench;
mod check;
mod checkpoint;
mod codegen;
mod compile;
mod device_code;
mod device_plan;
mod divergence;
mod explain;
mod failure;
mod fmt;
mod generate;
mod inspect;
mod interrupt;
mod output;
mod plan;
mod privacy;
mod profile;
mod progress;
mod run;
mod sources;
mod table;
mod target;
mod training;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;
use trainc::{
    exhausted::OrEnd,
    stack::{STACK_BYTES, on_large_stack},
};

#[global_allocator]
static ALLOCATOR: OrEnd = OrEnd;

fn main() -> ExitCode {
    // A reader that goes away (`trainc plan F | head`) ends the process quietly instead of as a panic. Training outlives it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let command = Arguments::parse().command;
    let is_training = matches!(command, Command::Run(_) | Command::Resume(_));
    match with_room(command).and_then(|()| if is_training { Ok(()) } else { output::complete() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

/// Does what reads programs on a large stack, and says so if there is none.
fn with_room(command: Command) -> Result<(), Failure> {
    use Command::{Evaluate, Generate, Inspect, Privacy, Resume};
    if matches!(command, Resume(_) | Evaluate(_) | Generate(_) | Inspect(_) | Privacy(_)) {
        return dispatch(command);
    }
    on_large_stack(|| dispatch(command)).unwrap_or_else(|error| {
        let megabytes = STACK_BYTES >> 20;
        Err(Failure::run(format!(
            "cannot start the thread that reads programs: {error}; it takes {megabytes} MiB of address space for its stack, and \
             the memory or the number of processes is limited (`ulimit -v`, `ulimit -u`)"
        )))
    })
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(arguments) => with_diagnostics(arguments.json, check::check(&arguments)),
        Command::Compile(arguments) => with_diagnostics(arguments.json, compile::compile(&arguments)),
        Command::Run(arguments) => with_diagnostics(arguments.json, run::run(&arguments)),
        Command::Resume(arguments) => run::resume(&arguments),
        Command::Evaluate(arguments) => run::evaluate(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Plan(arguments) => with_diagnostics(arguments.json, plan::plan(&arguments)),
        Command::Fmt(arguments) => fmt::fmt(&arguments),
        Command::Bench(arguments) => with_diagnostics(arguments.json, bench::bench(&arguments)),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Privacy(arguments) => privacy::privacy(&arguments),
    }
}

/// With `--json`, a wrong program's diagnostics are the last line.
fn with_diagnostics(json: bool, result: Result<(), Failure>) -> Result<(), Failure> {
    if let (true, Err(Failure::Program { reports, .. })) = (json, &result) {
        output::json(&serde_json::json!({ "diagnostics": reports }));
    }
    result
}
