//! Where to look: the exponent at which Chernoff's bound of a composition is best, and the epsilon that it gives.
//!
//! Nothing is claimed by what is found here. It says how the grid of a composition is laid and how its masses are tilted.
//! Renyi divergences will not do in its place: where losses are tiny, a tail that no step ever reaches makes their moments
//! explode long before the best exponent, and where losses are huge, the best order lies just above 1.

use super::discretise::reach;
use crate::privacy::{Mechanism, rdp::log_sum_exp};
use libm::{exp, log};

/// Outputs at which the losses of a step are looked at.
const OUTPUTS: u32 = 2048;

/// Logarithms of the exponents between which the best is looked for.
const EXPONENTS: (f64, f64) = (-16.0, 28.0);

/// Steps of the search; each makes the interval smaller by the golden ratio.
const SEARCH: u32 = 40;

/// Losses of steps, cut off where they are negligible.
pub(super) struct Losses(Vec<Sample>);

/// One mechanism's losses, evenly spread over the outputs.
struct Sample {
    /// For each output the logarithm of its probability, and its loss.
    outputs: Vec<(f64, f64)>,
    times: f64,
}

/// The least `(log M(lambda) - log delta) / lambda`.
pub(super) struct Best {
    /// `lambda`.
    pub exponent: f64,
    /// The value there.
    pub epsilon: f64,
}

impl Losses {
    /// The losses of all mechanisms, without a `tail` of each step's outputs on either side. Removing a record is the worse
    /// direction for the moments.
    pub fn new(mechanisms: &[Mechanism], tail: f64) -> Self {
        Losses(mechanisms.iter().map(|mechanism| Sample::new(mechanism, tail)).collect())
    }

    /// Chernoff's bound at its best exponent. `log M` is convex, so the bound falls and then rises.
    pub fn chernoff(&self, delta: f64) -> Best {
        let bound = |log_exponent: f64| {
            let exponent = exp(log_exponent);
            (self.log_moment(exponent) - log(delta)) / exponent
        };
        let (mut low, mut high) = EXPONENTS;
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        let inner = |low: f64, high: f64| [high - golden * (high - low), low + golden * (high - low)];
        let [mut left, mut right] = inner(low, high);
        let (mut of_left, mut of_right) = (bound(left), bound(right));
        for _ in 0..SEARCH {
            if of_left <= of_right {
                (high, right, of_right) = (right, left, of_left);
                left = inner(low, high)[0];
                of_left = bound(left);
            } else {
                (low, left, of_left) = (left, right, of_right);
                right = inner(low, high)[1];
                of_right = bound(right);
            }
        }
        Best { exponent: exp(left), epsilon: of_left }
    }

    /// `log M` of all steps together, where `M(lambda)` is the mean of `e^(lambda loss)`.
    fn log_moment(&self, exponent: f64) -> f64 {
        let moment = |sample: &Sample| {
            let terms: Vec<f64> = sample.outputs.iter().map(|(mass, loss)| mass + exponent * loss).collect();
            sample.times * log_sum_exp(&terms)
        };
        self.0.iter().map(moment).sum()
    }
}

impl Sample {
    fn new(mechanism: &Mechanism, tail: f64) -> Self {
        let (sigma, reach) = (mechanism.noise_multiplier, reach(mechanism, tail));
        let spacing = (1.0 + 2.0 * reach) / f64::from(OUTPUTS);
        let output = |index: u32| {
            let x = -reach + (f64::from(index) + 0.5) * spacing;
            let loss = mechanism.loss(x);
            // The density of the larger data set's output is that of the smaller one's times e^loss.
            (-0.5 * (x / sigma) * (x / sigma) + loss, loss)
        };
        let mut outputs: Vec<(f64, f64)> = (0..OUTPUTS).map(output).collect();
        let total = log_sum_exp(&outputs.iter().map(|(mass, _)| *mass).collect::<Vec<_>>());
        outputs.iter_mut().for_each(|(mass, _)| *mass -= total);
        Sample { outputs, times: mechanism.steps as f64 }
    }
}
