//! The Gaussian mechanism, exactly (Balle and Wang 2018, theorem 8; Dong, Roth and Su 2022, corollary 1).

use super::normal;
use libm::exp;

/// `delta` at `epsilon` of a Gaussian mechanism with `mu = sensitivity / standard deviation`; `T` full-batch steps of noise
/// multiplier `sigma` have `mu = sqrt(T) / sigma`.
///
/// `delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)`.
pub fn delta(mu: f64, epsilon: f64) -> f64 {
    let shift = epsilon / mu;
    normal::cdf(0.5 * mu - shift) - exp(epsilon + normal::log_cdf(-0.5 * mu - shift))
}

/// The smallest `epsilon` for `delta`, rounded up.
pub fn epsilon(mu: f64, target: f64) -> f64 {
    if delta(mu, 0.0) <= target {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, mu);
    while delta(mu, high) > target {
        (low, high) = (high, 2.0 * high);
    }
    // Bisection to the last bit: `delta` falls with `epsilon`.
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return high;
        }
        if delta(mu, middle) > target { low = middle } else { high = middle }
    }
}
