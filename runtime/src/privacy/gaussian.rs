//! The Gaussian mechanism on all records, exactly (Balle and Wang 2018, Theorem 8).
//!
//! T steps with noise multiplier sigma are one with `mu = sqrt(T) / sigma`, and
//! `delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`.

use super::Mechanism;
use std::f64::consts::SQRT_2;

/// The one Gaussian mechanism that these are together, if all take every record: `1 / sigma` of it.
pub fn mu(mechanisms: &[Mechanism]) -> f64 {
    mechanisms.iter().map(|m| m.steps as f64 / (m.noise_multiplier * m.noise_multiplier)).sum::<f64>().sqrt()
}

/// The smallest delta for an epsilon.
pub fn delta(mu: f64, epsilon: f64) -> f64 {
    phi(mu / 2.0 - epsilon / mu) - (epsilon + log_phi(-mu / 2.0 - epsilon / mu)).exp()
}

/// The smallest epsilon for a delta, rounded up.
pub fn epsilon(mu: f64, target: f64) -> f64 {
    if delta(mu, 0.0) <= target {
        return 0.0;
    }
    let mut above = 1.0;
    while delta(mu, above) > target {
        above *= 2.0;
    }
    let mut below = 0.0;
    for _ in 0..200 {
        let middle = 0.5 * (below + above);
        if delta(mu, middle) > target { below = middle } else { above = middle }
    }
    above
}

/// The standard normal distribution function.
pub(super) fn phi(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// Its logarithm; far below 0, where the function itself vanishes, by its asymptotic series.
fn log_phi(x: f64) -> f64 {
    if x > -30.0 {
        return phi(x).ln();
    }
    let y = 1.0 / (x * x);
    -0.5 * x * x - (-x * (2.0 * std::f64::consts::PI).sqrt()).ln() + (-y * (1.0 - y * (2.5 - y * 12.333_333))).ln_1p()
}
