//! Renyi differential privacy of the Gaussian mechanism on Poisson samples (Mironov, Talwar and Zhang 2019).
//!
//! With `mu0 = N(0, sigma^2)` and `mu = (1 - q) N(0, sigma^2) + q N(1, sigma^2)`, the divergence of order alpha is
//! `log(A) / (alpha - 1)`, `A = E_{z ~ mu0} (mu(z) / mu0(z))^alpha`. Divergences of steps add up. Conversion to (epsilon, delta):
//! Canonne, Kamath and Steinke 2020, Proposition 12.

use super::Mechanism;
use std::f64::consts::SQRT_2;

/// Orders that the best bound is sought among: fine where it mostly lies, and large ones for much noise.
pub fn orders() -> Vec<f64> {
    let fractional = (11..110).map(|tenths| f64::from(tenths) / 10.0);
    let whole = (11..=63).map(f64::from);
    fractional.chain(whole).chain([128.0, 256.0, 512.0, 1024.0]).collect()
}

/// Epsilon of all steps together, and the order that gives it.
pub fn epsilon(mechanisms: &[Mechanism], delta: f64) -> (f64, f64) {
    let of = |order: f64| {
        let divergence: f64 = mechanisms.iter().map(|m| m.steps as f64 * divergence(m, order)).sum();
        (converted(divergence, order, delta), order)
    };
    orders()
        .into_iter()
        .map(of)
        .fold((f64::INFINITY, f64::NAN), |best, found| if found.0 < best.0 { found } else { best })
}

fn converted(divergence: f64, order: f64, delta: f64) -> f64 {
    let epsilon = divergence + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0);
    epsilon.max(0.0)
}

/// The divergence of one step.
pub fn divergence(mechanism: &Mechanism, order: f64) -> f64 {
    let (q, sigma) = (mechanism.sampling_rate, mechanism.noise_multiplier);
    if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    let log_moment = if order.fract() == 0.0 { whole(q, sigma, order) } else { fractional(q, sigma, order) };
    (log_moment / (order - 1.0)).max(0.0)
}

/// log A for a whole order: a finite sum.
fn whole(q: f64, sigma: f64, order: f64) -> f64 {
    let term = |i: f64| {
        log_binomial(order, i).1 + i * q.ln() + (order - i) * (-q).ln_1p() + (i * i - i) / (2.0 * sigma * sigma)
    };
    (0..=order as u32).map(f64::from).fold(Signed::ZERO, |sum, i| sum.plus(1.0, term(i))).log
}

/// log A for any order: two series, of the integrals on either side of the point where both densities are alike.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    /// Terms below e^-30 of the sum no longer count.
    const NEGLIGIBLE: f64 = -30.0;
    let border = sigma * sigma * (1.0 / q - 1.0).ln() + 0.5;
    let scale = 2.0 * sigma * sigma;
    let mut sum = [Signed::ZERO; 2];
    for i in (0..).map(f64::from) {
        let j = order - i;
        let (sign, log_coefficient) = log_binomial(order, i);
        let left = log_coefficient + i * q.ln() + j * (-q).ln_1p() + (i * i - i) / scale;
        let right = log_coefficient + j * q.ln() + i * (-q).ln_1p() + (j * j - j) / scale;
        let left = left + log_half_erfc((i - border) / (SQRT_2 * sigma));
        let right = right + log_half_erfc((border - j) / (SQRT_2 * sigma));
        sum = [sum[0].plus(sign, left), sum[1].plus(sign, right)];
        let total = sum[0].plus(sum[1].sign, sum[1].log);
        if i > order && left.max(right) - total.log < NEGLIGIBLE {
            return total.log;
        }
    }
    unreachable!("the terms vanish")
}

/// Sign and logarithm of the absolute value of a binomial coefficient with any upper number.
fn log_binomial(n: f64, k: f64) -> (f64, f64) {
    let (numerator, a) = libm::lgamma_r(n + 1.0);
    let (denominator, b) = libm::lgamma_r(n - k + 1.0);
    (f64::from(a * b), numerator - libm::lgamma(k + 1.0) - denominator)
}

/// `log(erfc(x) / 2)`, where erfc itself has vanished by its asymptotic series.
fn log_half_erfc(x: f64) -> f64 {
    if x < 25.0 {
        return (0.5 * libm::erfc(x)).ln();
    }
    let y = 1.0 / (2.0 * x * x);
    -x * x - (2.0 * x * std::f64::consts::PI.sqrt()).ln() + (-y * (1.0 - 3.0 * y)).ln_1p()
}

/// A number by its sign and the logarithm of its absolute value.
#[derive(Clone, Copy)]
struct Signed {
    sign: f64,
    log: f64,
}

impl Signed {
    const ZERO: Signed = Signed { sign: 1.0, log: f64::NEG_INFINITY };

    fn plus(self, sign: f64, log: f64) -> Signed {
        let (large, small) = if self.log >= log { (self, Signed { sign, log }) } else { (Signed { sign, log }, self) };
        if small.log == f64::NEG_INFINITY {
            return large;
        }
        let ratio = (small.log - large.log).exp() * small.sign * large.sign;
        Signed { sign: large.sign, log: large.log + ratio.ln_1p() }
    }
}
