//! Renyi differential privacy of the Poisson-subsampled Gaussian mechanism.

use super::{Mechanism, normal};
use libm::{exp, expm1, log, log1p};
use std::f64::consts::SQRT_2;

/// An epsilon with the order that proves it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The privacy loss.
    pub epsilon: f64,
    /// The Renyi order at which it is smallest.
    pub order: f64,
}

/// The orders that are tried: tenths to 10.9, integers to 63, powers of two beyond. Large noise and small rates need the
/// large ones.
pub fn orders() -> impl Iterator<Item = f64> {
    (11..110).map(|tenth| f64::from(tenth) / 10.0).chain(integer_orders().filter(|&order| order > 10.0))
}

/// The integer ones of [`orders`], which are cheap.
pub(super) fn integer_orders() -> impl Iterator<Item = f64> {
    (2..64).chain((7..13).map(|power| 1 << power)).map(f64::from)
}

/// The epsilon of composed mechanisms at `delta`: Renyi divergences add up at each order, and the best order is taken.
pub fn epsilon(mechanisms: &[Mechanism], delta: f64) -> Bound {
    best(mechanisms, delta, orders())
}

pub(super) fn best(mechanisms: &[Mechanism], delta: f64, orders: impl Iterator<Item = f64>) -> Bound {
    let mut best = Bound { epsilon: f64::INFINITY, order: f64::NAN };
    for order in orders {
        let divergence = mechanisms.iter().map(|mechanism| mechanism.steps as f64 * per_step(mechanism, order)).sum();
        let epsilon = converted(divergence, order, delta);
        if epsilon < best.epsilon {
            best = Bound { epsilon, order };
        }
    }
    best
}

/// Canonne, Kamath and Steinke 2020, proposition 12: the epsilon at `delta` that a Renyi divergence implies.
fn converted(divergence: f64, order: f64, delta: f64) -> f64 {
    (divergence + log1p(-1.0 / order) - (log(delta) + log(order)) / (order - 1.0)).max(0.0)
}

/// The Renyi divergence of one step at an order above 1 (Mironov, Talwar and Zhang 2019). Infinite where a fractional
/// order's series does not settle: such an order is never chosen.
pub fn per_step(mechanism: &Mechanism, order: f64) -> f64 {
    let Mechanism { sampling_rate: q, noise_multiplier: sigma, .. } = *mechanism;
    if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    let log_moment =
        if order.fract() == 0.0 { integer_log_moment(q, sigma, order) } else { fractional_log_moment(q, sigma, order) };
    log_moment.max(0.0) / (order - 1.0)
}

/// `log A` with `A = sum over i of C(alpha, i) (1-q)^(alpha-i) q^i exp((i^2-i) / (2 sigma^2))` (section 3.3, equation 8).
///
/// The binomial weights sum to 1, so that `A - 1` is a sum of terms above 0 from `i = 2` on, and small moments keep
/// their digits.
fn integer_log_moment(q: f64, sigma: f64, order: f64) -> f64 {
    let mut terms = Vec::new();
    let (log_q, log_rest) = (log(q), log1p(-q));
    let mut log_binomial = 0.0;
    for i in 1..=order as u32 {
        let i = f64::from(i);
        log_binomial += log((order - i + 1.0) / i);
        let exponent = (i * i - i) / (2.0 * sigma * sigma);
        // log(e^x - 1), which for large x is x.
        let log_excess = if exponent > 40.0 { exponent } else { log(expm1(exponent)) };
        terms.push(log_binomial + (order - i) * log_rest + i * log_q + log_excess);
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::INFINITY {
        return largest;
    }
    let log_sum = largest + log(terms.iter().map(|term| exp(term - largest)).sum());
    if log_sum > 40.0 { log_sum } else { log1p(exp(log_sum)) }
}

/// Terms of the series after which an order is given up.
const MOST_TERMS: u32 = 20_000;

/// A term below `e^-36` of the largest no longer counts.
const NEGLIGIBLE: f64 = 36.0;

/// `log A` for a fractional order: the two half-line integrals as one signed series each (section 3.3, with
/// `z0 = sigma^2 log(1/q - 1) + 1/2` where the two parts of the mixture are equally likely).
fn fractional_log_moment(q: f64, sigma: f64, order: f64) -> f64 {
    let split = sigma * sigma * log(1.0 / q - 1.0) + 0.5;
    let (log_q, log_rest) = (log(q), log1p(-q));
    let power = |i: f64| (i * i - i) / (2.0 * sigma * sigma);
    // log(erfc(x) / 2)
    let log_half_erfc = |x: f64| normal::log_cdf(-x * SQRT_2);
    let (mut log_binomial, mut sign) = (0.0, 1.0);
    let mut sum = Scaled::default();
    for i in 0..MOST_TERMS {
        let i = f64::from(i);
        let j = order - i;
        let below = log_binomial + i * log_q + j * log_rest + power(i) + log_half_erfc((i - split) / (SQRT_2 * sigma));
        let above = log_binomial + j * log_q + i * log_rest + power(j) + log_half_erfc((split - j) / (SQRT_2 * sigma));
        sum.add(sign, below);
        sum.add(sign, above);
        if i > order && below.max(above) < sum.scale.max(0.0) - NEGLIGIBLE {
            return sum.log();
        }
        let factor = j / (i + 1.0);
        log_binomial += log(factor.abs());
        sign *= factor.signum();
    }
    f64::INFINITY
}

/// A sum of signed numbers given by their logarithms.
struct Scaled {
    scale: f64,
    sum: f64,
}

impl Default for Scaled {
    fn default() -> Self {
        Scaled { scale: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl Scaled {
    fn add(&mut self, sign: f64, logarithm: f64) {
        if logarithm > self.scale {
            self.sum *= exp(self.scale - logarithm);
            self.scale = logarithm;
        }
        self.sum += sign * exp(logarithm - self.scale);
    }

    /// Infinite when cancellation has left nothing to take the logarithm of.
    fn log(&self) -> f64 {
        if self.sum > 0.0 { self.scale + log(self.sum) } else { f64::INFINITY }
    }
}
