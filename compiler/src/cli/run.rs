//! `trainc run`, `trainc resume` and `trainc evaluate`.

use super::{
    arguments::{Evaluate, Execution, Program, Resume, Run},
    codegen::Generator,
    failure::Failure,
    output,
    progress::Terminal,
    sources,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use trainc_kernels::{Caches, Facts, Target};
use trainc_runtime::{
    Options, Outcome, RunDirectory, Session,
    artifact::{Artifact, Isa},
    checkpoint::Checkpoints,
    device::Place,
    load_newest,
};

/// What a run leaves in its directory, by name.
const RUN_FILES: [&str; 5] = ["run.json", "program.trainx", "metrics.jsonl", "summary.json", ".lock"];
const RUN_FOLDERS: [&str; 2] = ["checkpoints", "tensorboard"];

/// Trains a program or an artifact to the end of its horizon.
pub fn run(arguments: &Run) -> Result<(), Failure> {
    let mut options = options(&arguments.execution)?;
    let artifact = artifact(&arguments.program, options.device)?;
    options.steps = arguments.steps;
    options.base = Some(arguments.program.base());
    let path = arguments.out.clone().unwrap_or_else(|| default_directory(&arguments.program.file));
    if arguments.fresh {
        clear(&path).map_err(|error| Failure::run(format!("cannot clear {}: {error}", path.display())))?;
    }
    // The program is loaded before its directory is made, so that one that cannot run leaves nothing behind.
    let mut session = Session::new(artifact.clone(), &options).map_err(of_runtime)?;
    session.open_data().map_err(of_runtime)?;
    if let Some(from) = &arguments.from {
        session.adopt(checkpoint_in(from)?).map_err(of_runtime)?;
    }
    let directory = RunDirectory::create(&path, &artifact, &options).map_err(of_runtime)?;
    if arguments.from.is_some() {
        // What the run starts from is not in its program: a checkpoint keeps it for a run that is cut off early.
        session.save(directory.checkpoints().path(0)).map_err(of_runtime)?;
    }
    train(&mut session, &directory, arguments.json)
}

/// The newest checkpoint of a run directory; any other directory is taken for a checkpoint.
fn checkpoint_in(directory: &Path) -> Result<PathBuf, Failure> {
    let list = Checkpoints::new(directory.join("checkpoints"), 1).list();
    let newest = list.map_err(|error| of_runtime(error.into()))?.pop();
    Ok(newest.map_or_else(|| directory.to_path_buf(), |(_, path)| path))
}

/// Goes on where a run stopped.
pub fn resume(arguments: &Resume) -> Result<(), Failure> {
    let (directory, artifact, stored) = RunDirectory::open(&arguments.directory).map_err(of_runtime)?;
    let given = options(&arguments.execution)?;
    let options = Options { threads: given.threads, device: given.device, ..stored };
    let mut session = Session::new(artifact, &options).map_err(of_runtime)?;
    let step = directory.restore(&mut session, &mut Terminal::default()).map_err(of_runtime)?;
    eprintln!("resuming {} at step {step}", arguments.directory.display());
    train(&mut session, &directory, arguments.json)
}

/// Loss and metrics of a run's newest checkpoint on held-out data.
pub fn evaluate(arguments: &Evaluate) -> Result<(), Failure> {
    let (mut session, step) = newest(&arguments.directory, &arguments.execution)?;
    let Some(numbers) = session.evaluate().map_err(of_runtime)? else {
        return Err(Failure::misuse("the program holds no data out: add `split valid = 5%` to its data block"));
    };
    for (name, value) in numbers.iter() {
        println!("{name} {value:.5}");
    }
    if arguments.json {
        let mut object: serde_json::Map<_, _> =
            numbers.iter().map(|(name, value)| (name.into(), value.into())).collect();
        object.insert("step".into(), step.into());
        output::json(&object);
    }
    Ok(())
}

/// A session at a run's newest checkpoint, beside a run that may be going on.
pub fn newest(directory: &Path, execution: &Execution) -> Result<(Session, u32), Failure> {
    let (artifact, stored) = RunDirectory::read(directory).map_err(of_runtime)?;
    let given = options(execution)?;
    let options = Options { threads: given.threads, device: given.device, ..stored };
    let mut session = Session::new(artifact, &options).map_err(of_runtime)?;
    let step = load_newest(directory, &mut session).map_err(of_runtime)?;
    Ok((session, step))
}

/// The artifact that a path names: read, or compiled from the program for the machine that will execute it.
pub fn artifact(program: &Program, device: Place) -> Result<Artifact, Failure> {
    artifact_with_facts(program, device).map(|(artifact, _)| artifact)
}

/// The same with what each kernel costs, which an artifact does not say: empty for one that is read.
pub fn artifact_with_facts(program: &Program, device: Place) -> Result<(Artifact, Vec<Facts>), Failure> {
    if program.file.extension().is_some_and(|extension| extension == "trainx") {
        if !program.set.is_empty() {
            return Err(Failure::misuse("--set changes programs; an artifact has its constants built in"));
        }
        let artifact = Artifact::read(&program.file).map_err(|error| of_runtime(error.into()))?;
        return Ok((artifact, Vec::new()));
    }
    let (target, isa) = match device {
        Place::Cpu => (Target::Cpu, trainc_kernels::host_isa()),
        // The driver translates it for any later device.
        Place::Cuda(_) => (Target::Cuda, Isa::Sm80),
    };
    let generator = Generator::start();
    let (mut compilation, _, provenance) = sources::compile_for(program, target)?;
    let artifact = compilation.artifact(&[isa], Caches::host(), &provenance, &generator).map_err(Failure::run)?;
    let facts = compilation.plan.kernels.iter().map(trainc_kernels::kernel_facts).collect();
    drop(compilation);
    // What the compiler used goes back to the system before the run's own memory is taken.
    unsafe { libc::malloc_trim(0) };
    Ok((artifact, facts))
}

/// What the command line says about execution.
pub fn options(execution: &Execution) -> Result<Options, Failure> {
    Ok(Options { threads: execution.threads, device: place(execution)?, ..Options::default() })
}

fn place(execution: &Execution) -> Result<Place, Failure> {
    match execution.device.as_str() {
        "cpu" => Ok(Place::Cpu),
        "cuda" => Ok(Place::Cuda(0)),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(number)) => Ok(Place::Cuda(number)),
            _ => Err(Failure::misuse(format!("unknown device {other}; known: cpu, cuda, cuda:NUMBER"))),
        },
    }
}

/// A failure of the runtime with its own exit code.
pub fn of_runtime(error: trainc_runtime::Error) -> Failure {
    if error.exit_code() == 2 { Failure::misuse(error) } else { Failure::run(error) }
}

fn train(session: &mut Session, directory: &RunDirectory, json: bool) -> Result<(), Failure> {
    let stop = stop_on_interrupt().map_err(Failure::run)?;
    let mut terminal = Terminal::default();
    let outcome = trainc_runtime::train(session, Some(directory), &mut terminal, &stop);
    terminal.finish();
    match outcome {
        Ok(Outcome::Finished(summary)) => {
            if json {
                println!("{}", summary.to_line());
            }
            Ok(())
        }
        Ok(Outcome::BudgetSpent(summary)) => {
            if json {
                println!("{}", summary.to_line());
            }
            say_budget_is_spent(session, directory)
        }
        Ok(Outcome::Stopped(summary)) => {
            if json {
                println!("{}", summary.to_line());
            }
            let path = directory.path().display();
            Err(Failure::run(format!("stopped after step {}; go on with: trainc resume {path}", session.steps_done())))
        }
        Err(error) => Err(with_what_is_safe(of_runtime(error), directory)),
    }
}

/// A run that has used up its budget is complete, and says where it ends.
fn say_budget_is_spent(session: &Session, directory: &RunDirectory) -> Result<(), Failure> {
    let Some(privacy) = session.privacy().map_err(of_runtime)? else { return Ok(()) };
    let (epsilon, budget) = (privacy.epsilon, privacy.budget.unwrap_or(f64::INFINITY));
    let (done, steps) = (session.steps_done(), session.steps().unwrap_or(0));
    eprintln!(
        "the privacy budget is spent: epsilon {epsilon:.4} of {budget} after {done} of {steps} steps; one more would exceed it"
    );
    match directory.newest_checkpoint() {
        Some((step, path)) => eprintln!("  the state after step {step} is in {}", path.display()),
        None => eprintln!("  no step could be made"),
    }
    Ok(())
}

/// Says which checkpoint a failed run can go on from.
fn with_what_is_safe(failure: Failure, directory: &RunDirectory) -> Failure {
    let Failure::Run(message) = failure else { return failure };
    let safe = match directory.newest_checkpoint() {
        Some((step, path)) => format!("the state after step {step} is safe in {}", path.display()),
        None => "no checkpoint had been written".into(),
    };
    Failure::Run(format!("{message}\n  {safe}"))
}

/// A flag that Ctrl-C (or a polite kill) sets. A second Ctrl-C ends the process at once.
fn stop_on_interrupt() -> io::Result<Arc<AtomicBool>> {
    use signal_hook::{consts::TERM_SIGNALS, flag};
    let stop = Arc::new(AtomicBool::new(false));
    for &signal in TERM_SIGNALS {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn default_directory(file: &Path) -> PathBuf {
    Path::new("runs").join(file.file_stem().unwrap_or_default())
}

/// Removes what a run leaves, and nothing else.
fn clear(directory: &Path) -> io::Result<()> {
    if !directory.join(RUN_FILES[0]).exists() {
        return Ok(());
    }
    let ignore_missing = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    RUN_FOLDERS.iter().try_for_each(|name| ignore_missing(std::fs::remove_dir_all(directory.join(name))))?;
    RUN_FILES.iter().try_for_each(|name| ignore_missing(std::fs::remove_file(directory.join(name))))
}
