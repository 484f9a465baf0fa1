//! `trainc run`, `trainc resume` and `trainc evaluate`.

use super::{
    arguments::{Evaluate, Execution, Program, Resume, Run},
    checkpoint,
    codegen::Generator,
    failure::Failure,
    output,
    progress::Terminal,
    sources,
    training::{say_finished, train},
};
use std::path::{Path, PathBuf};
use trainc_kernels::{Caches, Facts, Target};
use trainc_runtime::{
    Earlier, Error, NewRun, Options, RECORDS, RunDirectory, Session,
    artifact::{Artifact, Isa},
    data::DataError,
    device::Place,
    load_newest,
};

/// Trains a program or an artifact to the end of its horizon.
pub fn run(arguments: &Run) -> Result<(), Failure> {
    output::outlive_readers();
    let mut options = options(&arguments.execution)?;
    let artifact = artifact(&arguments.program, options.device)?;
    options.steps = arguments.steps;
    options.base = Some(arguments.program.base());
    let path = arguments.out.clone().unwrap_or_else(|| default_directory(&arguments.program.file));
    // Everything is opened before the directory is touched: a run that cannot start leaves nothing and replaces nothing.
    let mut session = Session::new(artifact.clone(), &options).map_err(of_runtime)?;
    if let Err(error) = session.open_data() {
        return Err(of_session(error, &session));
    }
    if let Some(from) = &arguments.from {
        session.adopt(checkpoint::named_by(from)?).map_err(of_runtime)?;
    }
    let earlier = if arguments.fresh { Earlier::Replace } else { Earlier::Refuse };
    let mut new = NewRun::prepare(&path, &artifact, &options, earlier).map_err(of_runtime)?;
    if arguments.from.is_some() {
        new.start_from(&session).map_err(of_runtime)?;
    }
    let directory = new.begin().map_err(of_runtime)?;
    train(&mut session, &directory, arguments.json)
}

/// Goes on where a run stopped.
pub fn resume(arguments: &Resume) -> Result<(), Failure> {
    output::outlive_readers();
    let (directory, artifact, stored) = RunDirectory::open(&arguments.directory).map_err(of_runtime)?;
    let steps = arguments.steps.or(stored.steps);
    let options = to_continue(stored, &arguments.execution, &arguments.base)?;
    let options = Options { steps, accept_changed_data: arguments.data_changed, ..options };
    let mut session = Session::new(artifact, &options).map_err(of_runtime)?;
    let step = directory.restore(&mut session, &mut Terminal::default()).map_err(of_runtime)?;
    if let Some(summary) = directory.finished(&session) {
        say_finished(&session, &arguments.directory);
        if arguments.json {
            output::raw(summary.to_line() + "\n");
        }
        return Ok(());
    }
    if let Some(steps) = arguments.steps.filter(|&steps| steps < step) {
        return Err(Failure::misuse(format!("--steps {steps}: the run has made {step} steps already")));
    }
    output::note(format!("resuming {} after step {step}", arguments.directory.display()));
    train(&mut session, &directory, arguments.json)
}

/// Loss and metrics of a run's newest checkpoint on held-out data.
pub fn evaluate(arguments: &Evaluate) -> Result<(), Failure> {
    let (mut session, step) = newest(&arguments.directory, &arguments.execution, &arguments.base)?;
    let evaluated = session.evaluate();
    let Some(numbers) = evaluated.map_err(|error| of_session(error, &session))? else {
        return Err(Failure::misuse("the program holds no data out: add `split valid = 5%` to its data block"));
    };
    warn_of_changed_data(&session);
    for (name, value) in numbers.iter() {
        match name {
            RECORDS => output::line(format!("of {}", output::records(value))),
            _ => output::line(format!("{name} {value:.5}")),
        }
    }
    if arguments.json {
        let mut object: serde_json::Map<_, _> =
            numbers.iter().map(|(name, value)| (name.into(), value.into())).collect();
        object.insert("step".into(), step.into());
        object.insert("data_changed".into(), session.data_change().is_some().into());
        output::json(&object);
    }
    Ok(())
}

/// Says that results are not of the data that the run was trained on.
pub fn warn_of_changed_data(session: &Session) {
    if let Some(change) = session.data_change() {
        output::note(format!(
            "warning: the data have changed since the checkpoint: {change}; what is held out now may have been trained on"
        ));
    }
}

/// A session at a run's newest checkpoint, beside a run that may be going on.
pub fn newest(directory: &Path, execution: &Execution, base: &Option<PathBuf>) -> Result<(Session, u32), Failure> {
    let (artifact, stored) = RunDirectory::read(directory).map_err(of_runtime)?;
    // Nothing is lost by looking at other data, as long as it is said.
    let options = Options { accept_changed_data: true, ..to_continue(stored, execution, base)? };
    let mut session = Session::new(artifact, &options).map_err(of_runtime)?;
    let step = load_newest(directory, &mut session).map_err(of_runtime)?;
    Ok((session, step))
}

/// The options of a run with what the command line says about where it continues.
fn to_continue(stored: Options, execution: &Execution, base: &Option<PathBuf>) -> Result<Options, Failure> {
    let given = options(execution)?;
    Ok(Options { threads: given.threads, device: given.device, base: base.clone().or(stored.base), ..stored })
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

/// The same of a session, whose data may lie elsewhere.
pub fn of_session(error: trainc_runtime::Error, session: &Session) -> Failure {
    let is_about_paths = matches!(error, Error::Data(DataError::NoFiles { .. } | DataError::Io { .. }));
    match of_runtime(error) {
        Failure::Run(message) if is_about_paths => Failure::Run(format!(
            "{message}\n  relative paths of the data start at {}; if they start elsewhere, say where with --base DIR",
            session.base().display()
        )),
        other => other,
    }
}

fn default_directory(file: &Path) -> PathBuf {
    Path::new("runs").join(file.file_stem().unwrap_or_default())
}
