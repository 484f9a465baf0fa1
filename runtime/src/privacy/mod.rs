//! How private a run is: accounting for noisy sums over randomly drawn samples.
//!
//! A step draws every record with probability q (Poisson sampling), bounds what each contributes, adds Gaussian noise whose
//! standard deviation is sigma times that bound, and publishes the sum. Two data sets that differ in one record then lead to
//! nearly the same results: `P(result) <= e^epsilon P'(result) + delta`, for data sets of which one has a record more
//! (add-or-remove adjacency). [`Mechanism`] says how the steps of a run were made, [`epsilon`] what they give away together.
//!
//! Two accountants: [`pld`], close to the truth and never below it, and [`rdp`], with closed formulas, as a cross-check. Steps
//! that take all records (q = 1) have an exact answer, [`gaussian`].

mod calibrate;
pub mod gaussian;
mod ledger;
pub mod pld;
pub mod rdp;

pub use calibrate::{noise_multiplier, steps};
pub use ledger::Ledger;

use serde::{Deserialize, Serialize};

/// How a guarantee is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accountant {
    /// Distribution of the privacy loss, composed numerically.
    #[default]
    Pld,
    /// Renyi differential privacy.
    Rdp,
}

/// Steps that were made alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mechanism {
    /// Probability with which a record takes part in a step.
    pub sampling_rate: f64,
    /// Standard deviation of the noise in units of the largest contribution.
    pub noise_multiplier: f64,
    /// Number of steps.
    pub steps: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PrivacyError {
    /// Of no use as a probability of failure.
    #[error("delta must lie between 0 and 1, and is {0}")]
    Delta(f64),
    /// Not a probability, or 0.
    #[error("the sampling rate must lie between 0 and 1, and is {0}")]
    SamplingRate(f64),
    /// Not an amount of noise.
    #[error("the noise multiplier must not be negative, and is {0}")]
    NoiseMultiplier(f64),
    /// Not a budget.
    #[error("epsilon must be positive, and is {0}")]
    Epsilon(f64),
    /// More noise than can be accounted for would be needed.
    #[error("no noise multiplier up to {0} keeps to the budget")]
    OutOfReach(f64),
}

/// What these steps give away together, in order or interleaved: epsilon at this delta. Infinite without noise.
///
/// # Errors
/// For numbers that describe no mechanism.
pub fn epsilon(mechanisms: &[Mechanism], delta: f64, accountant: Accountant) -> Result<f64, PrivacyError> {
    check_delta(delta)?;
    mechanisms.iter().try_for_each(Mechanism::check)?;
    let made: Vec<Mechanism> = mechanisms.iter().copied().filter(|mechanism| mechanism.steps > 0).collect();
    if made.is_empty() {
        return Ok(0.0);
    }
    if made.iter().any(|mechanism| mechanism.noise_multiplier == 0.0) {
        return Ok(f64::INFINITY);
    }
    Ok(match accountant {
        Accountant::Rdp => rdp::epsilon(&made, delta).0,
        Accountant::Pld if made.iter().all(|mechanism| mechanism.sampling_rate == 1.0) => {
            gaussian::epsilon(gaussian::mu(&made), delta)
        }
        Accountant::Pld => pld::Curve::new(&made, delta, pld::FINE).epsilon(delta),
    })
}

impl Mechanism {
    fn check(&self) -> Result<(), PrivacyError> {
        if !(self.sampling_rate > 0.0 && self.sampling_rate <= 1.0) {
            return Err(PrivacyError::SamplingRate(self.sampling_rate));
        }
        let sane = self.noise_multiplier >= 0.0 && self.noise_multiplier.is_finite();
        if sane { Ok(()) } else { Err(PrivacyError::NoiseMultiplier(self.noise_multiplier)) }
    }
}

fn check_delta(delta: f64) -> Result<(), PrivacyError> {
    if delta > 0.0 && delta < 1.0 { Ok(()) } else { Err(PrivacyError::Delta(delta)) }
}
