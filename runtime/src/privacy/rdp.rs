//! Renyi differential privacy of the Poisson-subsampled Gaussian mechanism.

use super::Mechanism;
use libm::{exp, exp2, expm1, log, log1p};
use std::f64::consts::PI;

/// An epsilon with the order that proves it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The privacy loss.
    pub epsilon: f64,
    /// The Renyi order at which it is smallest.
    pub order: f64,
}

/// Orders between 1 and 1.1, a square root of 2 apart. Large epsilons want low ones: the best order less 1 is about the square
/// root of `log(1/delta) / epsilon`.
const LOW_ORDERS: i32 = 20;

/// Evaluations by which the best order is made better; each narrows it down by the golden ratio.
const REFINEMENTS: u32 = 16;

/// The orders that are tried: 20 from 1.0001 to 1.07, tenths to 10.9, integers to 63, powers of two to 4096. Large noise and
/// small rates need the large ones.
pub fn orders() -> impl Iterator<Item = f64> {
    let low = (1..=LOW_ORDERS).rev().map(|step| 1.0 + 0.1 * exp2(-0.5 * f64::from(step)));
    let tenths = (11..110).map(|tenth| f64::from(tenth) / 10.0);
    let integers = (11..64).chain((7..13).map(|power| 1 << power)).map(f64::from);
    low.chain(tenths).chain(integers)
}

/// The epsilon of composed mechanisms at `delta`: Renyi divergences add up at each order, and the best order is taken, of
/// [`orders`] first and then between the neighbours of the best of these.
pub fn epsilon(mechanisms: &[Mechanism], delta: f64) -> Bound {
    let at = |order: f64| {
        let divergence = mechanisms.iter().map(|mechanism| mechanism.steps as f64 * per_step(mechanism, order)).sum();
        Bound { epsilon: converted(divergence, order, delta), order }
    };
    let bounds: Vec<Bound> = orders().map(at).collect();
    let least = |a: Bound, b: Bound| if b.epsilon < a.epsilon { b } else { a };
    let best = (1..bounds.len()).fold(0, |best, i| if bounds[i].epsilon < bounds[best].epsilon { i } else { best });
    let (mut low, mut high) = (bounds[best.saturating_sub(1)].order, bounds[(best + 1).min(bounds.len() - 1)].order);
    let mut best = bounds[best];
    for _ in 0..REFINEMENTS {
        // The next order divides the wider side of the best one.
        let (below, above) = (best.order - low, high - best.order);
        let next = at(if below > above { best.order - 0.382 * below } else { best.order + 0.382 * above });
        let (worse, better) = if next.epsilon < best.epsilon { (best, next) } else { (next, best) };
        *(if worse.order < better.order { &mut low } else { &mut high }) = worse.order;
        best = least(best, next);
    }
    best
}

/// Canonne, Kamath and Steinke 2020, proposition 12: the epsilon at `delta` that a Renyi divergence implies.
fn converted(divergence: f64, order: f64, delta: f64) -> f64 {
    (divergence + log1p(-1.0 / order) - (log(delta) + log(order)) / (order - 1.0)).max(0.0)
}

/// The Renyi divergence of one step at an order above 1 (Mironov, Talwar and Zhang 2019).
pub fn per_step(mechanism: &Mechanism, order: f64) -> f64 {
    let Mechanism { sampling_rate: q, noise_multiplier: sigma, .. } = *mechanism;
    if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    let log_moment = match order.fract() == 0.0 {
        true => integer_log_moment(q, sigma, order),
        false => log1p_exp(fractional_log_excess(mechanism, order)),
    };
    log_moment / (order - 1.0)
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
    log1p_exp(log_sum_exp(&terms))
}

/// How far from a peak, in standard deviations, the density still counts: it is `e^-42` there.
const REACH: f64 = 9.2;

/// Below this noise what lies between the two peaks of a moment counts for less than `e^-36`.
const APART: f64 = 0.05;

/// `log(A - 1)` for any order, by the trapezoidal rule.
///
/// With `r = P/Q` and `E r = 1` under `Q = N(0, sigma^2)`, `A - 1 = E[r^alpha - 1 - alpha (r - 1)]`, whose integrand is nowhere
/// negative, so that nothing cancels. It is analytic up to `pi sigma^2` off the real line, where `r` is 0, and vanishes at
/// both ends: with a spacing of at most `sigma^2 / 2` and `sigma / 2` the rule is exact up to about `e^-35` (Trefethen and
/// Weideman 2014, theorem 5.1). Where the noise is so small that the zero of `r` counts for nothing, `sigma / 64` will do.
fn fractional_log_excess(mechanism: &Mechanism, order: f64) -> f64 {
    let sigma = mechanism.noise_multiplier;
    let spacing = sigma * (0.5 * sigma).clamp(1.0 / 64.0, 0.5);
    let index = |z: f64| (z / spacing).round() as i64;
    let ends = [-REACH * sigma, REACH * sigma, order - REACH * sigma, order + REACH * sigma].map(index);
    // The two ranges of outputs that count are one where they meet.
    let apart = sigma < APART && ends[1] < ends[2];
    let (first, second) = if apart { (ends[0]..ends[1], ends[2]..ends[3] + 1) } else { (ends[0]..ends[3] + 1, 0..0) };
    let term = |k: i64| {
        let z = k as f64 * spacing;
        -0.5 * (z / sigma) * (z / sigma) + log_bernoulli_gap(mechanism.loss(z), order)
    };
    let terms: Vec<f64> = first.chain(second).map(term).collect();
    log_sum_exp(&terms) + log(spacing / sigma / (2.0 * PI).sqrt())
}

/// `log(r^alpha - 1 - alpha (r - 1))` for `r = e^w`; Bernoulli's inequality says that there is such a number.
fn log_bernoulli_gap(w: f64, order: f64) -> f64 {
    let scaled = order * w;
    if scaled.abs() < 0.03 {
        // The sum over k from 2 on of (alpha^k - alpha) w^k / k!.
        let term = |k: i32, factorial: f64| (order.powi(k) - order) * w.powi(k) / factorial;
        return log((2..8).zip([2.0, 6.0, 24.0, 120.0, 720.0, 5040.0]).map(|(k, factorial)| term(k, factorial)).sum());
    }
    if scaled < 500.0 {
        return log(expm1(scaled) - order * expm1(w));
    }
    scaled + log1p((order - 1.0) * exp(-scaled) - order * exp(w - scaled))
}

/// `log(1 + e^x)`.
fn log1p_exp(x: f64) -> f64 {
    if x > 40.0 { x } else { log1p(exp(x)) }
}

/// The logarithm of the sum of numbers given by their logarithms.
pub(super) fn log_sum_exp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + log(terms.iter().map(|term| exp(term - largest)).sum())
}
