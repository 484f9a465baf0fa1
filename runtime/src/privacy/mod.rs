//! The privacy accountant: what a sequence of noisy steps spends, in epsilon at a given delta.
//!
//! A step draws each record with probability `q` (Poisson sampling), sums the clipped gradients (norm at most `C`) and
//! adds `N(0, (sigma C)^2)` to each coordinate. Neighbouring data sets differ by one record, added or removed. Steps may
//! depend on the results of earlier ones; whatever is computed from noisy sums alone costs nothing.
//!
//! [`epsilon`] composes any number of such steps, [`noise_multiplier`] and [`steps`] are its inverses, and a [`Ledger`]
//! accompanies a running session. Every answer is an upper bound; `spec/privacy.md` derives the formulas. Lower bounds,
//! which an attack on a real run proves, are in [`audit`].

pub mod audit;
mod calibrate;
pub mod gaussian;
mod ledger;
mod normal;
pub mod pld;
pub mod rdp;

pub use calibrate::{noise_multiplier, noise_multiplier_after, steps, steps_after};
pub use ledger::Ledger;

use libm::{exp, expm1, log, log1p};
use serde::{Deserialize, Serialize};

/// A number of equal steps of the Poisson-subsampled Gaussian mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mechanism {
    /// Probability `q` that a record takes part in a step, in `(0, 1]`.
    pub sampling_rate: f64,
    /// Standard deviation `sigma` of the noise over the clipping norm. Zero is no noise and gives an infinite epsilon.
    pub noise_multiplier: f64,
    /// How many steps.
    pub steps: u64,
}

/// How steps are composed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accountant {
    /// Privacy loss distribution: tight up to a small error on the safe side, and never above [`Accountant::Rdp`].
    Pld,
    /// Renyi differential privacy: looser and older; a cross-check.
    Rdp,
}

/// A value for which no guarantee can be stated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// `delta` is not a probability strictly between 0 and 1.
    #[error(
        "delta {0} is outside (0, 1): it is a probability of failure; choose one well below 1 over the number of samples"
    )]
    Delta(f64),
    /// `q` is not a sampling probability.
    #[error("sampling rate {0} is outside (0, 1]: it is the expected batch size over the number of samples")]
    SamplingRate(f64),
    /// `sigma` is no number, or negative.
    #[error(
        "noise multiplier {0} is not a number of at least 0: it is the noise's standard deviation over the clipping norm"
    )]
    NoiseMultiplier(f64),
    /// The target or the budget is not positive.
    #[error("epsilon {0} is not a positive number: without any privacy loss nothing can be learned")]
    Epsilon(f64),
    /// A bound is never certain.
    #[error("confidence {0} is outside (0, 1): write for example 0.95")]
    Confidence(f64),
    /// A part is larger than what it is a part of.
    #[error("{part} of {whole}: there cannot be more answers than trials, nor more guesses than canaries")]
    Counts {
        /// How many were counted.
        part: u64,
        /// Out of how many.
        whole: u64,
    },
    /// No step to calibrate for.
    #[error("0 steps need no noise: give a number of steps of at least 1")]
    NoSteps,
    /// No noise multiplier in the range that is searched meets the target.
    #[error("no noise multiplier up to {limit:e} keeps epsilon at {epsilon}: sample fewer records or take fewer steps")]
    Unreachable {
        /// The target.
        epsilon: f64,
        /// Where the search ended.
        limit: f64,
    },
}

impl Mechanism {
    /// Says whether a guarantee can be stated for these values.
    ///
    /// # Errors
    /// The sampling rate is outside `(0, 1]`, or the noise multiplier negative or not finite.
    pub fn validate(&self) -> Result<(), Error> {
        if !(self.sampling_rate > 0.0 && self.sampling_rate <= 1.0) {
            return Err(Error::SamplingRate(self.sampling_rate));
        }
        if !(self.noise_multiplier >= 0.0 && self.noise_multiplier.is_finite()) {
            return Err(Error::NoiseMultiplier(self.noise_multiplier));
        }
        Ok(())
    }

    /// The privacy loss of one step at an output `x`, in units of the clipping norm, along the direction in which the two
    /// data sets differ: `log P(x) / Q(x) = log(1 - q + q e^((2x-1) / (2 sigma^2)))`.
    fn loss(&self, x: f64) -> f64 {
        let Mechanism { sampling_rate: q, noise_multiplier: sigma, .. } = *self;
        let exponent = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
        if exponent > 40.0 {
            exponent + log(q) + log1p((1.0 - q) / q * exp(-exponent))
        } else {
            log1p(q * expm1(exponent))
        }
    }
}

/// The smallest epsilon known for which these steps together are `(epsilon, delta)`-private; infinite without noise, 0
/// without steps.
///
/// ```
/// use trainc_runtime::privacy::{Accountant, Mechanism, epsilon};
///
/// let warm_up = Mechanism { sampling_rate: 0.004, noise_multiplier: 1.2, steps: 100 };
/// let rest = Mechanism { sampling_rate: 0.01, noise_multiplier: 1.0, steps: 900 };
/// let spent = epsilon(&[warm_up, rest], 1e-5, Accountant::Pld).unwrap();
/// assert!(spent > 1.7 && spent < 1.83);
/// ```
///
/// # Errors
/// A value is outside its range; see [`Error`].
pub fn epsilon(mechanisms: &[Mechanism], delta: f64, accountant: Accountant) -> Result<f64, Error> {
    composed(mechanisms, delta, accountant, pld::GRID_ERROR)
}

/// [`epsilon`], raised by the grid of the losses by about `grid_error`: a coarse grid is quick.
fn composed(mechanisms: &[Mechanism], delta: f64, accountant: Accountant, grid_error: f64) -> Result<f64, Error> {
    validate_delta(delta)?;
    mechanisms.iter().try_for_each(Mechanism::validate)?;
    let mechanisms = merged(mechanisms);
    if mechanisms.is_empty() {
        return Ok(0.0);
    }
    if mechanisms.iter().any(|mechanism| mechanism.noise_multiplier == 0.0) {
        return Ok(f64::INFINITY);
    }
    Ok(match accountant {
        Accountant::Rdp => rdp::epsilon(&mechanisms, delta).epsilon,
        Accountant::Pld => match mechanisms[..] {
            // The merged full-batch steps are one Gaussian mechanism, whose curve is known exactly.
            [only] if only.sampling_rate == 1.0 => gaussian::epsilon(1.0 / only.noise_multiplier, delta),
            // Both are upper bounds, so the lower one is; far from practical values the grid is coarse.
            _ => pld::epsilon(&mechanisms, delta, grid_error).min(rdp::epsilon(&mechanisms, delta).epsilon),
        },
    })
}

fn validate_delta(delta: f64) -> Result<(), Error> {
    if delta > 0.0 && delta < 1.0 { Ok(()) } else { Err(Error::Delta(delta)) }
}

/// Equal steps counted together, idle mechanisms left out. Order does not matter to composition. Full-batch steps are
/// one Gaussian mechanism of `1 / sigma^2 = sum of T / sigma^2`.
fn merged(mechanisms: &[Mechanism]) -> Vec<Mechanism> {
    let mut merged: Vec<Mechanism> = Vec::new();
    let mut full_batch = 0.0;
    for mechanism in mechanisms.iter().filter(|mechanism| mechanism.steps > 0) {
        let same = |other: &&mut Mechanism| Mechanism { steps: 0, ..**other } == Mechanism { steps: 0, ..*mechanism };
        if mechanism.sampling_rate == 1.0 {
            full_batch += mechanism.steps as f64 / mechanism.noise_multiplier / mechanism.noise_multiplier;
        } else if let Some(known) = merged.iter_mut().find(same) {
            known.steps = known.steps.saturating_add(mechanism.steps);
        } else {
            merged.push(*mechanism);
        }
    }
    if full_batch > 0.0 {
        merged.push(Mechanism { sampling_rate: 1.0, noise_multiplier: 1.0 / full_batch.sqrt(), steps: 1 });
    }
    merged
}
