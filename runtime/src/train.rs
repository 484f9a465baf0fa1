//! Training to the end of the horizon: steps, evaluations, checkpoints, reports.

use crate::error::{Error, Result};
use crate::numbers::Numbers;
use crate::report::{EventFile, MetricsFile, Observer, Progress, Summary, Timing};
use crate::run_directory::RunDirectory;
use crate::session::Session;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// Asked to stop before; what was done is saved (if there is a directory) and can be continued.
    Stopped(Summary),
    /// The next step would exceed the privacy budget; what was done is saved and evaluated, and cannot be continued.
    BudgetSpent(Summary),
}

impl Outcome {
    /// What there is to say about it.
    pub fn summary(&self) -> &Summary {
        match self {
            Outcome::Finished(summary) | Outcome::Stopped(summary) | Outcome::BudgetSpent(summary) => summary,
        }
    }
}

/// Trains from where the session stands to its horizon.
///
/// With a directory, metrics, events, checkpoints and the summary go there. `stop` may be set from elsewhere (a signal
/// handler): the step at hand is finished and saved first.
///
/// # Errors
/// When data, files or numbers fail. The newest checkpoint is then still the last good state.
pub fn train(
    session: &mut Session,
    directory: Option<&RunDirectory>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    session.open_data()?;
    let steps = session.horizon()?;
    if let Some(directory) = directory {
        directory.fix_horizon(steps)?;
    }
    let files = directory.map(|directory| Files::open(directory, session.steps_done())).transpose()?;
    if let Some(files) = &files {
        session.count_lost_steps(files.metrics.cut());
    }
    let timing = Timing::with_capacity(steps - session.steps_done().min(steps));
    let mut training = Training { steps, saved: session.steps_done(), session, files, observer, timing, valid: None };
    training.observer.started(training.session);
    training.warn_of_seed()?;
    training.warn_of_budget()?;
    training.run(stop)
}

/// The open files of a run.
struct Files<'a> {
    directory: &'a RunDirectory,
    metrics: MetricsFile,
    events: EventFile,
}

impl<'a> Files<'a> {
    fn open(directory: &'a RunDirectory, step: u32) -> Result<Self> {
        directory.checkpoints().tidy()?;
        Ok(Self { directory, metrics: directory.metrics(step)?, events: directory.events()? })
    }

    fn append(&mut self, step: u32, numbers: &Numbers, valid: Option<&Numbers>, seconds: f64) -> Result<()> {
        let written = self.metrics.append(step, numbers, valid, seconds * 1e3);
        written.map_err(self.directory.io("metrics.jsonl"))?;
        let mut written = self.events.append(step, "", numbers);
        if let (Ok(()), Some(valid)) = (&written, valid) {
            written = self.events.append(step, "valid_", valid);
        }
        written.map_err(self.directory.io("tensorboard"))
    }
}

struct Training<'a> {
    /// The horizon.
    steps: u32,
    session: &'a mut Session,
    files: Option<Files<'a>>,
    observer: &'a mut dyn Observer,
    timing: Timing,
    /// The last evaluation.
    valid: Option<Numbers>,
    /// Updates that the newest checkpoint holds.
    saved: u32,
}

impl Training<'_> {
    fn warn_of_seed(&mut self) -> Result<()> {
        if self.session.privacy()?.is_some_and(|privacy| privacy.noise == "philox") {
            let seed = self.session.seed();
            self.observer.warned(&format!(
                "the noise comes from seed {seed}: who knows it can take the noise away, and nothing is private from them; \
                 write `secure` in the `private` clause for noise that the operating system keys"
            ));
        }
        Ok(())
    }

    fn warn_of_budget(&mut self) -> Result<()> {
        let wanted = u64::from(self.steps.saturating_sub(self.session.steps_done()));
        if let Some(allowed) = self.session.steps_in_budget()?.filter(|&allowed| allowed < wanted) {
            self.observer.warned(&format!("the privacy budget is enough for {allowed} of the {wanted} steps to go"));
        }
        Ok(())
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        if self.session.steps_done() >= self.steps {
            self.valid = self.session.evaluate()?;
        }
        while self.session.steps_done() < self.steps {
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(Outcome::Stopped(self.summarise()?));
            }
            if self.session.budget_is_spent()? {
                self.valid = self.evaluate()?;
                self.save()?;
                return Ok(Outcome::BudgetSpent(self.summarise()?));
            }
            self.step()?;
        }
        self.save()?;
        Ok(Outcome::Finished(self.summarise()?))
    }

    fn step(&mut self) -> Result<()> {
        let step = self.session.steps_done();
        let begin = Instant::now();
        self.session.step()?;
        let seconds = begin.elapsed().as_secs_f64();
        self.timing.add(seconds);
        self.show(step, seconds);
        let loss = self.session.numbers().loss();
        // One sample could stop a private run with its loss, and a step without samples has none. Such a run has diverged when
        // rows without a sample are bad.
        if !loss.is_finite() && self.session.manifest().private.is_none() {
            self.append(step, None, seconds)?;
            return Err(Error::Diverged { what: "the loss".to_owned(), value: loss, step });
        }
        let valid = if self.evaluation_is_due()? { self.evaluate()? } else { None };
        self.append(step, valid.as_ref(), seconds)?;
        self.valid = valid.or(self.valid.take());
        let checkpoint_every = self.session.manifest().train.checkpoint_every;
        if self.session.completes(checkpoint_every)? { self.save() } else { Ok(()) }
    }

    fn show(&mut self, step: u32, seconds: f64) {
        let items = self.session.manifest().train.items_per_step as f64;
        self.observer.stepped(&Progress {
            step,
            steps: self.steps,
            numbers: self.session.numbers(),
            seconds,
            items_per_second: self.timing.steps_per_second().unwrap_or(0.0) * items,
        });
    }

    /// Every so often, and at the end.
    fn evaluation_is_due(&mut self) -> Result<bool> {
        let every = self.session.manifest().train.evaluate_every;
        Ok(self.session.completes(every)? || self.session.steps_done() == self.steps)
    }

    fn evaluate(&mut self) -> Result<Option<Numbers>> {
        let valid = self.session.evaluate()?;
        if let Some(numbers) = &valid {
            self.observer.evaluated(self.session.steps_done(), numbers);
        }
        Ok(valid)
    }

    fn append(&mut self, step: u32, valid: Option<&Numbers>, seconds: f64) -> Result<()> {
        match &mut self.files {
            Some(files) => files.append(step, self.session.numbers(), valid, seconds),
            None => Ok(()),
        }
    }

    fn save(&mut self) -> Result<()> {
        let step = self.session.steps_done();
        let Some(files) = &self.files else { return Ok(()) };
        if self.saved == step {
            return Ok(());
        }
        let checkpoints = files.directory.checkpoints();
        let path = checkpoints.path(step);
        self.session.save(&path)?;
        self.saved = step;
        // Only now that a newer one is safe may older ones go.
        checkpoints.tidy()?;
        self.observer.saved(step, &path);
        Ok(())
    }

    fn summarise(&mut self) -> Result<Summary> {
        let summary = Summary::of(self.session, self.valid.as_ref(), &self.timing)?;
        if let Some(files) = &self.files {
            files.directory.write_summary(&summary)?;
        }
        Ok(summary)
    }
}
