//! Training in a run's directory, and how it ends.

use super::{divergence, failure::Failure, interrupt::Interrupt, output, progress::Terminal, run::of_session};
use std::path::Path;
use trainc_runtime::{Error, Outcome, RunDirectory, Session, report::Summary};

/// Trains to the end of the horizon, until a signal stops it, or until the privacy budget is spent.
pub fn train(session: &mut Session, directory: &RunDirectory, json: bool) -> Result<(), Failure> {
    let interrupt = Interrupt::watch().map_err(Failure::run)?;
    let mut terminal = Terminal::default();
    let outcome = trainc_runtime::train(session, Some(directory), &mut terminal, interrupt.flag());
    terminal.finish(matches!(outcome, Ok(Outcome::Finished(_))));
    let outcome = outcome.map_err(|error| {
        let where_it_began = match &error {
            Error::Diverged { step, .. } => Some(divergence::explanation(directory.path(), *step, interrupt.flag())),
            _ => None,
        };
        with_what_is_known(of_session(error, session), where_it_began, directory)
    })?;
    if json {
        output::raw(outcome.summary().to_line() + "\n");
    }
    match outcome {
        Outcome::Finished(_) => Ok(()),
        Outcome::BudgetSpent(summary) => {
            say_budget_is_spent(&summary, directory);
            Ok(())
        }
        Outcome::Stopped(_) => {
            let (done, path) = (session.steps_done(), directory.path().display());
            Err(interrupt.failure(format!("stopped after step {done}; go on with: trainc resume {path}")))
        }
    }
}

/// Says that nothing is left to do, and how there would be.
pub fn say_finished(session: &Session, directory: &Path) {
    let (steps, path) = (session.steps_done(), directory.display());
    output::note(format!("{path} is finished: all its {steps} steps are made. Nothing was changed"));
    output::note(format!(
        "  to go further: trainc resume {path} --steps {}\n  the schedule is then one of that many steps, of which {steps} are \
         made: a rate that has come down goes up again",
        2 * u64::from(steps)
    ));
}

/// A run that has used up its budget is complete, and says where it ends.
fn say_budget_is_spent(summary: &Summary, directory: &RunDirectory) {
    let number = |name: &str| summary.get(name).and_then(serde_json::Value::as_f64);
    let (epsilon, budget) = (number("epsilon").unwrap_or(0.0), number("epsilon_budget").unwrap_or(f64::INFINITY));
    let (done, steps) = (number("steps_done").unwrap_or(0.0), number("steps").unwrap_or(0.0));
    output::note(format!(
        "the privacy budget is spent: epsilon {epsilon:.4} of {budget} after {done} of {steps} steps; one more would exceed it"
    ));
    match directory.newest_checkpoint() {
        Some((step, path)) => output::note(format!("  the state after step {step} is in {}", path.display())),
        None => output::note("  no step could be made"),
    }
}

/// Says where a run began to diverge, and which checkpoint a failed run can go on from.
fn with_what_is_known(failure: Failure, where_it_began: Option<String>, directory: &RunDirectory) -> Failure {
    let Failure::Run(mut message) = failure else { return failure };
    where_it_began.into_iter().for_each(|found| message += &format!("\n  {found}"));
    let safe = match directory.newest_checkpoint() {
        Some((step, path)) => format!("the state after step {step} is safe in {}", path.display()),
        None => "no checkpoint had been written".into(),
    };
    Failure::Run(format!("{message}\n  {safe}"))
}
