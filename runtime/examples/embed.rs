//! Trains an artifact from one's own program, without a compiler in it.
//!
//! ```text
//! embed A.trainx DIR          trains (or continues) in DIR, with a line per step
//! embed A.trainx DIR PROMPT   continues a text with what has been learnt
//! ```

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use trainc_runtime::artifact::Artifact;
use trainc_runtime::report::{Observer, Progress};
use trainc_runtime::{GenerateOptions, Options, Result, RunDirectory, Session, load_newest, train};

/// Prints what happens.
struct Lines;

impl Observer for Lines {
    fn stepped(&mut self, progress: &Progress<'_>) {
        let Progress { step, steps, items_per_second, .. } = progress;
        println!("step {step} of {steps}: loss {:.4}, {items_per_second:.0} items/s", progress.numbers.loss());
    }

    fn warned(&mut self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn train_in(artifact: &str, directory: &str) -> Result<()> {
    let (directory, artifact, options) = match RunDirectory::exists(directory) {
        true => RunDirectory::open(directory)?,
        false => {
            let (artifact, options) = (Artifact::read(artifact)?, Options::default());
            (RunDirectory::create(directory, &artifact, &options)?, artifact, options)
        }
    };
    let mut session = Session::new(artifact, &options)?;
    directory.restore(&mut session, &mut Lines)?;
    // A signal handler would set this to finish the step, save and return.
    let stop = AtomicBool::new(false);
    let outcome = train(&mut session, Some(&directory), &mut Lines, &stop)?;
    println!("{}", outcome.summary().to_line());
    Ok(())
}

fn generate(artifact: &str, directory: &str, prompt: &str) -> Result<()> {
    let mut session = Session::open(artifact, &Options::default())?;
    load_newest(directory, &mut session)?;
    println!("{prompt}{}", session.generate(prompt, &GenerateOptions::default())?);
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [artifact, directory] => train_in(artifact, directory),
        [artifact, directory, prompt] => generate(artifact, directory, prompt),
        _ => {
            eprintln!("usage: embed A.trainx DIR [PROMPT]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
