//! Sums of independent discrete losses by Fourier transform, on a cyclic window, and the epsilon of the sum.
//!
//! # The window
//! Let `Y = h K` be the finite part of the sum of all losses, and `c_k = P(K = k)`. A cyclic transform of `n` points cannot
//! tell `k` from `k + n`. Two things make what it returns an upper bound of `delta(epsilon)` for `epsilon >= 0`:
//!
//! * *Tilting.* The masses `p_k` of each step are replaced by `p_k e^(lambda k h) / M(lambda)`, where
//!   `M(lambda) = sum of p_k e^(lambda k h)`, `lambda > 0`. The sum of such steps has masses
//!   `c_k e^(lambda k h) / M_total`, so that multiplying by `M_total e^(-lambda k h)` afterwards gives `c_k` back: rounding
//!   errors are relative to the tail around epsilon and not to the whole distribution. At window position `k` the
//!   transform thus yields `sum over integer m of c_(k + m n) e^(lambda m n h)`, in which all terms are at least 0 and
//!   the term `m = 0` is right. What falls below the window (`m < 0`) therefore only adds to delta, by at most
//!   `e^(-lambda n h) P(Y below the window)`.
//! * *The upper end.* What lies above the window (`m > 0`) may land below epsilon and be lost. Its mass is at most
//!   `P(Y >= top) <= M_total(theta) e^(-theta top)` for every `theta > 0` (Chernoff). `top` is chosen to make this bound
//!   `negligible`, and `negligible` is added to the mass at infinity, where it counts in full: whatever the lost mass was
//!   worth, it is paid for.
//!
//! `M_total` is computed from the very masses that are transformed, so that nothing rests on the accuracy of the grid. The
//! lower end keeps `0`, and is low enough that what `m < 0` adds is at most `negligible`.

use super::discretise::Discrete;
use libm::{cos, exp, expm1, log, log1p, sin};
use realfft::{RealFftPlanner, num_complex::Complex64};

/// What is fixed before composing.
pub struct Plan {
    /// The grid step `h`.
    pub step: f64,
    /// The exponent `lambda` of tilting; half of Chernoff's best one for epsilon, because the moments of strongly subsampled
    /// steps grow abruptly beyond that one.
    pub tilt: f64,
    /// The exponent `theta` of the bound on the upper tail.
    pub outer_tilt: f64,
    /// Mass that may go to infinity.
    pub negligible: f64,
    /// Share of delta that is negligible.
    pub share: f64,
}

/// A loss and how often it is drawn.
pub struct Step {
    first: i64,
    /// Logarithms of the masses from `first` on.
    log_mass: Vec<f64>,
    infinite: f64,
    times: f64,
}

impl Step {
    /// `times` independent draws of `loss`.
    pub fn new(loss: Discrete, times: u64) -> Self {
        let log_mass = loss.mass.into_iter().map(log).collect();
        Step { first: loss.first, log_mass, infinite: loss.infinite, times: times as f64 }
    }

    /// `log(p_k e^(lambda k h))` with `k`.
    fn tilted(&self, lambda: f64, h: f64) -> impl Iterator<Item = (i64, f64)> {
        (self.first..).zip(&self.log_mass).map(move |(k, log_mass)| (k, log_mass + lambda * h * k as f64))
    }

    /// `log M(lambda)` of one draw.
    fn log_moment(&self, lambda: f64, h: f64) -> f64 {
        let largest = self.tilted(lambda, h).fold(f64::NEG_INFINITY, |largest, (_, term)| largest.max(term));
        largest + log(self.tilted(lambda, h).map(|(_, term)| exp(term - largest)).sum())
    }
}

/// A stretch of the grid: `size` points from `first` on.
struct Window {
    first: i64,
    size: usize,
}

/// The epsilon of all steps together at `delta`; never below the true one of the discrete losses.
pub fn epsilon(steps: &[Step], plan: &Plan, delta: f64) -> f64 {
    let log_finite: f64 = steps.iter().map(|step| step.times * log1p(-step.infinite)).sum();
    let infinite = plan.negligible - expm1(log_finite);
    if infinite >= delta {
        return f64::INFINITY;
    }
    let total = |lambda| steps.iter().map(|step| step.times * step.log_moment(lambda, plan.step)).sum::<f64>();
    let window = window(plan, &total);
    let moments: Vec<f64> = steps.iter().map(|step| step.log_moment(plan.tilt, plan.step)).collect();
    let mut masses = tilted_sum(steps, &moments, &window, plan);
    let log_total: f64 = steps.iter().zip(&moments).map(|(step, moment)| step.times * moment).sum();
    for (position, mass) in masses.iter_mut().enumerate() {
        let loss = (window.first + position as i64) as f64 * plan.step;
        // Rounding may leave a mass below 0; raising it to 0 is safe.
        *mass = exp(log(mass.max(0.0)) + log_total - plan.tilt * loss);
    }
    invert(&masses, &window, infinite, plan.step, delta)
}

/// The window of the module's proof.
fn window(plan: &Plan, total: &impl Fn(f64) -> f64) -> Window {
    let exponent = -log(plan.negligible);
    let reach = |log_moment: f64| (log_moment + exponent) / plan.outer_tilt;
    let log_tilted = total(plan.tilt);
    let tilted_reach = |theta: f64| (total(theta) - log_tilted - log(plan.share)) / (theta - plan.tilt);
    let unfolded = tilted_reach(1.5 * plan.tilt).min(tilted_reach(2.0 * plan.tilt));
    let top = reach(total(plan.outer_tilt)).max(unfolded).max(plan.step);
    // Below, either tilting has made the mass negligible, or there was little to begin with.
    let bottom = (top - exponent / plan.tilt).max(-reach(total(-plan.outer_tilt))).min(0.0);
    let (first, last) = ((bottom / plan.step).floor() as i64, (top / plan.step).ceil() as i64);
    Window { first, size: smooth_size((last - first + 1) as usize) }
}

/// The least even number from `least` on of the form `2^a 3^b`, `b` at most 2: quick to transform.
fn smooth_size(least: usize) -> usize {
    [1usize, 3, 9].into_iter().map(|odd| odd * least.div_ceil(odd).max(2).next_power_of_two()).min().unwrap_or(least)
}

/// Masses of the tilted sum, by position in the window.
fn tilted_sum(steps: &[Step], moments: &[f64], window: &Window, plan: &Plan) -> Vec<f64> {
    let mut planner = RealFftPlanner::<f64>::new();
    let forward = planner.plan_fft_forward(window.size);
    let mut product = vec![Complex64::new(1.0, 0.0); window.size / 2 + 1];
    for (step, moment) in steps.iter().zip(moments) {
        let mut cyclic = tilted(step, *moment, window.size, plan);
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut cyclic, &mut spectrum).expect("the lengths are the plan's own");
        for (factor, value) in product.iter_mut().zip(spectrum) {
            *factor *= power(value, step.times);
        }
    }
    // The spectrum of a real sequence is real at both ends; rounding must not say otherwise.
    product[0].im = 0.0;
    product[window.size / 2].im = 0.0;
    let inverse = planner.plan_fft_inverse(window.size);
    let mut sum = inverse.make_output_vec();
    inverse.process(&mut product, &mut sum).expect("the lengths are the plan's own, and the ends are real");
    sum.rotate_left(window.first.rem_euclid(window.size as i64) as usize);
    let scale = 1.0 / window.size as f64;
    sum.iter_mut().for_each(|mass| *mass *= scale);
    sum
}

/// One draw's tilted masses, each at its index modulo `size`.
fn tilted(step: &Step, log_moment: f64, size: usize, plan: &Plan) -> Vec<f64> {
    let mut cyclic = vec![0.0; size];
    // In logarithms: a weight alone may be beyond the range of numbers.
    for (k, term) in step.tilted(plan.tilt, plan.step) {
        cyclic[k.rem_euclid(size as i64) as usize] += exp(term - log_moment);
    }
    cyclic
}

fn power(value: Complex64, exponent: f64) -> Complex64 {
    let squared = value.norm_sqr();
    if squared == 0.0 {
        return Complex64::new(0.0, 0.0);
    }
    let magnitude = exp(0.5 * exponent * log(squared));
    let angle = exponent * libm::atan2(value.im, value.re);
    Complex64::new(magnitude * cos(angle), magnitude * sin(angle))
}

/// The epsilon at which `infinite + sum of c_i (1 - e^(epsilon - i h))` over the `i h` above it falls to `delta`.
///
/// Walking down from the top, `above` is the sum of `c_i` and `weighted` that of `c_i e^(k h - i h)` over `i > k`: within
/// the cell from `k h` on, the curve is `infinite + above - e^(epsilon - k h) weighted`, which is solved exactly.
fn invert(masses: &[f64], window: &Window, infinite: f64, h: f64, delta: f64) -> f64 {
    let decay = exp(-h);
    let (mut above, mut weighted) = (0.0, 0.0);
    for position in (0..masses.len()).rev() {
        let k = window.first + position as i64;
        if k < 0 {
            break;
        }
        let reached = infinite + above - weighted;
        if reached > delta {
            return k as f64 * h + log((infinite + above - delta) / weighted);
        }
        if reached.is_nan() {
            // Out of the range of numbers: nothing is claimed.
            return f64::INFINITY;
        }
        above += masses[position];
        weighted = (weighted + masses[position]) * decay;
    }
    0.0
}
