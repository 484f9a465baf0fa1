//! What a running session has spent.

use super::{Accountant, Error, Mechanism, calibrate::steps_after, epsilon, validate_delta};
use serde::{Deserialize, Serialize};

/// The steps done so far, as a session keeps and a checkpoint stores them.
///
/// Composing anew at every step would cost more than many a step. [`epsilon`](Ledger::epsilon) therefore answers for a
/// number of steps rounded up to four binary digits (but never beyond the plan): as epsilon grows with the steps, that is an
/// upper bound, exact at the end of the plan and at most an eighth more steps before. A run composes at most eight times
/// per doubling of its steps; in between, the answer is remembered. Whether the next step fits a budget
/// ([`would_exceed`](Ledger::would_exceed)) is decided by the exact epsilon, found once per phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    delta: f64,
    accountant: Accountant,
    /// Finished phases, then the one at work.
    spent: Vec<Mechanism>,
    /// Steps that the phase at work is planned to take.
    planned: u64,
    #[serde(skip)]
    remembered: Option<Answer>,
    #[serde(skip)]
    limit: Option<Limit>,
}

/// Epsilon up to a number of steps of the phase at work.
#[derive(Clone, Copy, Debug)]
struct Answer {
    steps: u64,
    epsilon: f64,
}

/// The steps of the phase at work that a budget allows.
#[derive(Clone, Copy, Debug)]
struct Limit {
    budget: f64,
    mechanism: Mechanism,
    steps: u64,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// `delta` is outside `(0, 1)`.
    pub fn new(delta: f64, accountant: Accountant) -> Result<Self, Error> {
        validate_delta(delta)?;
        Ok(Ledger { delta, accountant, spent: Vec::new(), planned: 0, remembered: None, limit: None })
    }

    /// Begins a phase of `planned.steps` steps, of which none is done yet. A phase with the values of the one before goes on
    /// with it.
    ///
    /// # Errors
    /// A value of `planned` is outside its range.
    pub fn begin(&mut self, planned: Mechanism) -> Result<(), Error> {
        planned.validate()?;
        (self.remembered, self.limit) = (None, None);
        match self.spent.last() {
            Some(last) if same(last, &planned) => self.planned = last.steps.saturating_add(planned.steps),
            _ => {
                self.spent.push(Mechanism { steps: 0, ..planned });
                self.planned = planned.steps;
            }
        }
        Ok(())
    }

    /// Counts one step of the phase at work. Call it before the step's result is used: a step whose noisy gradient has been
    /// seen is spent, whatever comes of it.
    ///
    /// # Panics
    /// No phase has begun.
    pub fn record(&mut self) {
        self.spent.last_mut().expect("a phase has begun").steps += 1;
    }

    /// The `delta` of all answers.
    pub fn delta(&self) -> f64 {
        self.delta
    }

    /// The steps done, by phase.
    pub fn spent(&self) -> &[Mechanism] {
        &self.spent
    }

    /// An upper bound of the epsilon spent, cheap enough for every line of metrics; see the type for its coarseness.
    ///
    /// # Errors
    /// The ledger was read from a file with values outside their ranges.
    pub fn epsilon(&mut self) -> Result<f64, Error> {
        let Some(current) = self.spent.last().copied() else { return Ok(0.0) };
        let steps = rounded_up(current.steps, self.planned);
        if let Some(answer) = self.remembered.filter(|answer| answer.steps == steps) {
            return Ok(answer.epsilon);
        }
        let epsilon = self.after(steps)?;
        self.remembered = Some(Answer { steps, epsilon });
        Ok(epsilon)
    }

    /// The epsilon spent, composed anew.
    ///
    /// # Errors
    /// As [`Ledger::epsilon`].
    pub fn exact_epsilon(&self) -> Result<f64, Error> {
        epsilon(&self.spent, self.delta, self.accountant)
    }

    /// Whether one more step of the phase at work would spend more than `budget`.
    ///
    /// # Errors
    /// As [`Ledger::epsilon`], or the budget is not a positive number.
    pub fn would_exceed(&mut self, budget: f64) -> Result<bool, Error> {
        Ok(self.steps_left(budget)? == 0)
    }

    /// How many more steps of the phase at work `budget` allows; those up to the end of the plan if it allows these.
    ///
    /// # Errors
    /// As [`Ledger::would_exceed`].
    pub fn steps_left(&mut self, budget: f64) -> Result<u64, Error> {
        if !(budget > 0.0 && budget.is_finite()) {
            return Err(Error::Epsilon(budget));
        }
        let Some(current) = self.spent.last().copied() else { return Ok(u64::MAX) };
        let limit = match self.limit.filter(|limit| limit.budget == budget && same(&limit.mechanism, &current)) {
            Some(limit) => limit.steps,
            None => self.find_limit(budget, current)?,
        };
        Ok(limit.saturating_sub(current.steps))
    }

    /// The steps that `budget` allows the phase at work. A plan that fits, the usual case, costs one composition.
    fn find_limit(&mut self, budget: f64, current: Mechanism) -> Result<u64, Error> {
        let steps = if current.steps < self.planned && self.after(self.planned)? <= budget {
            self.planned
        } else {
            let (_, earlier) = self.spent.split_last().expect("a phase has begun");
            steps_after(earlier, budget, self.delta, &current, self.accountant)?
        };
        self.limit = Some(Limit { budget, mechanism: current, steps });
        Ok(steps)
    }

    /// Epsilon once the phase at work has taken `steps` steps.
    fn after(&self, steps: u64) -> Result<f64, Error> {
        let mut all = self.spent.clone();
        if let Some(current) = all.last_mut() {
            current.steps = steps;
        }
        epsilon(&all, self.delta, self.accountant)
    }
}

fn same(a: &Mechanism, b: &Mechanism) -> bool {
    (a.sampling_rate, a.noise_multiplier) == (b.sampling_rate, b.noise_multiplier)
}

/// `steps` rounded up to four binary digits, and not beyond `planned` unless they are beyond it already.
fn rounded_up(steps: u64, planned: u64) -> u64 {
    let unit = 1u64 << (64 - steps.leading_zeros()).saturating_sub(4);
    let rounded = steps.div_ceil(unit).saturating_mul(unit);
    if steps <= planned { rounded.min(planned) } else { rounded }
}
