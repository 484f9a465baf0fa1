//! The answer to a run that diverged: which operation made the first number that is none.
//!
//! The run is made again from its newest checkpoint, in a session of its own, up to the step that showed it, and that step and the
//! one before are done once more by the reference interpreter.

use super::{output, sources};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use trainc::{
    divergence::{self, Cause, MOST_WORK, Verdict},
    graph::{Bindings, Op, Tensor, TensorType},
    program::Program,
    source::{FileId, SourceMap},
};
use trainc_runtime::{RunDirectory, Session, Values, artifact::DType, load_newest};

/// The program's own text among its sources.
const PROGRAM: FileId = FileId(0);

/// Where the run in a directory, whose update number `step` (from 1) showed that it diverged, began to do so; in sentences.
/// `stop` ends the search.
pub fn explanation(directory: &Path, step: u32, stop: &AtomicBool) -> String {
    match search(directory, step, stop) {
        Ok(found) => found,
        Err(reason) => format!("where it began could not be found: {reason}"),
    }
}

fn search(directory: &Path, step: u32, stop: &AtomicBool) -> Result<String, String> {
    let (artifact, options) = RunDirectory::read(directory).map_err(|error| error.to_string())?;
    if artifact.manifest.private.is_some() {
        return Err("steps of private training are not done again".into());
    }
    let (program, map) = sources::of_artifact(&artifact.manifest, options.base.as_deref().unwrap_or(Path::new(".")))?;
    let work = program.step.total_work();
    let operations = work.products.saturating_add(work.elementwise);
    if operations > MOST_WORK {
        return Err(format!(
            "a step is {operations:e} operations, and at most {MOST_WORK:e} are done again; with a smaller `batch` or model it would say more"
        ));
    }
    let mut session = Session::new(artifact, &options).map_err(|error| error.to_string())?;
    let _ = load_newest(directory, &mut session);
    let first = step.saturating_sub(2);
    let ahead = first.saturating_sub(session.steps_done());
    if ahead > 0 {
        output::note(format!("making {ahead} steps again, to find where it began"));
    }
    while session.steps_done() < step {
        if stop.load(Ordering::Relaxed) {
            return Err("the search was interrupted".into());
        }
        if session.steps_done() >= first {
            let bindings = bindings(&program, &mut session)?;
            match divergence::first_cause(&program.step, &bindings).map_err(|error| error.0)? {
                Verdict::Finite => {}
                Verdict::Given(op) => return Ok(given(&program, &op, session.steps_done() + 1)),
                Verdict::Made(cause) => return Ok(made(&map, &program, &cause, session.steps_done() + 1)),
            }
        }
        session.step().map_err(|error| error.to_string())?;
    }
    Err("in the interpreter, whose sums are exact, all numbers stay finite: they are about as large as f32 can hold. A lower rate, \
         `clip 1.0` or a warmup may help"
        .into())
}

/// What the next step of a session is made of.
fn bindings(program: &Program, session: &mut Session) -> Result<Bindings, String> {
    let said = |error: trainc_runtime::Error| error.to_string();
    let steps = session.horizon().map_err(said)?;
    let mut bindings = Bindings { step: session.steps_done(), steps, seed: session.seed(), ..Bindings::default() };
    for (name, values) in session.next_inputs().map_err(said)? {
        let index =
            program.inputs.iter().position(|input| input.name == name.name).ok_or("an input is not the program's")?;
        let dtype = if name.dtype == DType::I32 { DType::I32 } else { DType::F32 };
        bindings.inputs.insert(index as u32, tensor(TensorType { dtype, shape: name.shape }, values));
    }
    for (index, parameter) in (0..).zip(&program.parameters) {
        let values = session.tensor(&parameter.name).map_err(said)?;
        bindings.parameters.insert(index, tensor(TensorType::f32(parameter.shape.as_slice()), values));
    }
    for (index, state) in (0..).zip(&program.states) {
        let values = session.tensor(&state.name).map_err(said)?;
        bindings.states.insert(index, tensor(TensorType::f32(state.shape.as_slice()), values));
    }
    Ok(bindings)
}

fn tensor(ty: TensorType, values: Values) -> Tensor {
    match values {
        Values::Floats(values) => Tensor::new(ty, values.into_iter().map(f64::from).collect()),
        Values::Integers(values) => Tensor::new(ty, values.into_iter().map(f64::from).collect()),
    }
}

/// A step that began with what is no number.
fn given(program: &Program, op: &Op, step: u32) -> String {
    let name = |what: &str, name: Option<&str>| format!("{what} `{}`", name.unwrap_or("?"));
    let what = match *op {
        Op::Parameter { index, .. } => name("the parameter", program.parameters.get(index as usize).map(|p| &*p.name)),
        Op::State { index, .. } => name("the state", program.states.get(index as usize).map(|s| &*s.name)),
        Op::Input { index, .. } => name("the input", program.inputs.get(index as usize).map(|i| &*i.name)),
        _ => "something".into(),
    };
    format!("{what} is not finite before step {step}")
}

fn made(map: &SourceMap, program: &Program, cause: &Cause, step: u32) -> String {
    let of = if cause.is_gradient { "the gradient of " } else { "" };
    let place = cause.span.map_or_else(
        || format!("{of}an operation `{}`", program.step.node(cause.node).op.name()),
        |span| {
            let (line, column) = map.line_column(span.file, span.start);
            let text = map.text(span).split_whitespace().collect::<Vec<_>>().join(" ");
            // The program's own file is called as the artifact knows it, and that is not by its name.
            let file = if span.file == PROGRAM { String::new() } else { format!("{}, ", map.file(span.file).name) };
            format!("{of}`{}` ({file}line {line}, column {column})", shortened(&text))
        },
    );
    let formula = if cause.formula.is_empty() { String::new() } else { format!(", computed as {}", cause.formula) };
    let element = if cause.element.is_empty() { String::new() } else { format!(" at {:?}", cause.element) };
    format!(
        "in step {step}, the first number that is none is {}: {place}{element}{formula}\n  {}",
        cause.value, cause.advice
    )
}

/// The beginning of a long expression.
fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().count() <= MOST { text.into() } else { text.chars().take(MOST).chain("...".chars()).collect() }
}
