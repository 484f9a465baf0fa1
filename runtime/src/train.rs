//! Training to the end of the horizon: steps, evaluations, checkpoints, reports.

use crate::artifact::Duration;
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
/// handler): the step at hand is finished and saved first. A program that does not say when to save is saved every
/// [`Options::autosave`](crate::Options::autosave), if there is a directory. A run that is finished stays as it is.
///
/// # Errors
/// When data, files or numbers fail. The newest checkpoint is then still the last good state.
pub fn train(
    session: &mut Session,
    directory: Option<&RunDirectory>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    if let Some(summary) = directory.and_then(|directory| directory.finished(session)) {
        return Ok(Outcome::Finished(summary));
    }
    session.open_data()?;
    let steps = session.horizon()?;
    if let Some(directory) = directory {
        directory.keep(steps, session.base())?;
    }
    let files = directory.map(|directory| Files::open(directory, session.steps_done())).transpose()?;
    if let Some(files) = &files {
        session.count_lost_steps(files.metrics.cut());
    }
    let timing = Timing::with_capacity(steps - session.steps_done().min(steps));
    let saved = Saved { step: session.steps_done(), at: Instant::now() };
    let mut training = Training { steps, saved, session, files, observer, timing, valid: None };
    training.observer.started(training.session);
    training.warn_of_data();
    training.warn_of_seed()?;
    training.warn_of_budget()?;
    training.run(stop)
}

/// The open files of a run.
struct Files<'a> {
    directory: &'a RunDirectory,
    metrics: MetricsFile,
    /// There is none before the first step, so that a run that makes no step leaves no file.
    events: Option<EventFile>,
}

impl<'a> Files<'a> {
    fn open(directory: &'a RunDirectory, step: u32) -> Result<Self> {
        directory.checkpoints().tidy()?;
        Ok(Self { directory, metrics: directory.metrics(step)?, events: None })
    }

    fn append(&mut self, step: u32, numbers: &Numbers, valid: Option<&Numbers>, seconds: f64) -> Result<()> {
        let written = self.metrics.append(step, numbers, valid, seconds * 1e3);
        written.map_err(self.directory.io("metrics.jsonl"))?;
        let events = match &mut self.events {
            Some(events) => events,
            none => none.insert(self.directory.events(step)?),
        };
        let mut written = events.append(step, "", numbers);
        if let (Ok(()), Some(valid)) = (&written, valid) {
            written = events.append(step, "valid_", valid);
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
    saved: Saved,
}

/// The newest checkpoint of a run.
struct Saved {
    /// Updates that it holds.
    step: u32,
    /// When it was written; at first, when training began.
    at: Instant,
}

impl Training<'_> {
    fn warn_of_data(&mut self) {
        if let Some(change) = self.session.data_change() {
            self.observer.warned(&format!("the data have changed since the checkpoint: {change}"));
        }
    }

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
        let begin = Instant::now();
        self.session.step()?;
        let step = self.session.steps_done();
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
        self.check_rate(step)?;
        let valid = if self.evaluation_is_due()? { self.evaluate()? } else { None };
        self.append(step, valid.as_ref(), seconds)?;
        self.valid = valid.or(self.valid.take());
        if self.checkpoint_is_due()? { self.save() } else { Ok(()) }
    }

    /// Every so often; by the clock where the program does not say how often.
    fn checkpoint_is_due(&mut self) -> Result<bool> {
        match self.session.manifest().train.checkpoint_every {
            Duration::Steps(0) => Ok(self.saved.at.elapsed() >= self.session.autosave()),
            every => self.session.completes(every),
        }
    }

    /// The compiler has looked at some moments of the program's own horizon alone.
    fn check_rate(&self, step: u32) -> Result<()> {
        match self.session.numbers().get("rate") {
            Some(value) if !(value >= 0.0 && value.is_finite()) => Err(Error::Rate { value, step }),
            _ => Ok(()),
        }
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
        if self.saved.step == step {
            return Ok(());
        }
        let checkpoints = files.directory.checkpoints();
        let path = checkpoints.path(step);
        self.session.save(&path)?;
        self.saved = Saved { step, at: Instant::now() };
        // Only now that a newer one is safe may older ones go.
        checkpoints.tidy()?;
        self.observer.saved(step, &path);
        Ok(())
    }

    fn summarise(&mut self) -> Result<Summary> {
        let summary = Summary::of(self.session, self.valid.as_ref(), &self.timing)?;
        let Some(files) = &self.files else { return Ok(summary) };
        // Where no step was made, none was timed: what an earlier process measured stays.
        let earlier = files.directory.summary().filter(|earlier| earlier.is_of_the_same_state(&summary));
        if let (true, Some(earlier)) = (self.timing.is_empty(), earlier) {
            return Ok(earlier);
        }
        files.directory.write_summary(&summary)?;
        Ok(summary)
    }
}
