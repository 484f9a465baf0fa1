//! The inverses of [`epsilon`]: the noise, or the number of steps, that a budget allows.

use super::{Accountant, Error, Mechanism, composed, gaussian, pld::GRID_ERROR, validate_delta};
use libm::{exp, expm1, log};

/// Grid error, relative to epsilon, of the quick search that precedes the precise one.
const COARSE: f64 = 1e-4;

/// Relative precision of a calibrated noise multiplier.
const NOISE_PRECISION: f64 = 1e-5;

/// Noise multipliers that are searched.
const NOISE_RANGE: (f64, f64) = (1e-2, 1e6);

/// No run takes more steps.
const MOST_STEPS: f64 = 1e12;

/// The smallest noise multiplier, up to a relative 1e-5, whose epsilon is at most `target`; never one that exceeds it.
///
/// # Errors
/// A value is outside its range, `steps` is 0, or no noise multiplier up to 1e6 is enough.
pub fn noise_multiplier(
    target: f64,
    delta: f64,
    sampling_rate: f64,
    steps: u64,
    accountant: Accountant,
) -> Result<f64, Error> {
    noise_multiplier_after(&[], target, delta, sampling_rate, steps, accountant)
}

/// [`noise_multiplier`] of steps that come after `earlier`, for a target that all together keep to.
///
/// # Errors
/// As there; no noise multiplier is enough if `earlier` alone exceeds the target.
pub fn noise_multiplier_after(
    earlier: &[Mechanism],
    target: f64,
    delta: f64,
    sampling_rate: f64,
    steps: u64,
    accountant: Accountant,
) -> Result<f64, Error> {
    let mechanism = |noise_multiplier| Mechanism { sampling_rate, noise_multiplier, steps };
    validate_target(target, delta, &mechanism(1.0))?;
    if steps == 0 {
        return Err(Error::NoSteps);
    }
    // Epsilon falls with the noise; the search wants a rising function, hence minus the logarithm.
    let excess =
        |x: f64, error: f64| Ok(log(composed(&with(earlier, mechanism(exp(-x))), delta, accountant, error)? / target));
    let (least, most) = (-log(NOISE_RANGE.1), -log(NOISE_RANGE.0));
    let guess = guess(least, most, |x| limit_epsilon(&mechanism(exp(-x)), delta) > target);
    let coarse = (COARSE * target).max(GRID_ERROR);
    let near = last_not_above(|x| excess(x, coarse), (least, most), guess, 0.03, NOISE_PRECISION)?.unwrap_or(least);
    let precise = |x| excess(x, GRID_ERROR);
    let found = last_not_above(precise, (least, most), near, 4.0 * NOISE_PRECISION, NOISE_PRECISION)?;
    found.map(|x| exp(-x)).ok_or(Error::Unreachable { epsilon: target, limit: NOISE_RANGE.1 })
}

/// The largest number of steps whose epsilon is at most `budget`; at most 1e12.
///
/// # Errors
/// A value is outside its range.
pub fn steps(
    budget: f64,
    delta: f64,
    sampling_rate: f64,
    noise_multiplier: f64,
    accountant: Accountant,
) -> Result<u64, Error> {
    steps_after(&[], budget, delta, &Mechanism { sampling_rate, noise_multiplier, steps: 1 }, accountant)
}

/// The largest number of steps of `next` for which `earlier` and they together stay within `budget`; 0 also if `earlier`
/// alone does not. How many steps `next` has does not matter.
///
/// # Errors
/// A value is outside its range.
pub fn steps_after(
    earlier: &[Mechanism],
    budget: f64,
    delta: f64,
    next: &Mechanism,
    accountant: Accountant,
) -> Result<u64, Error> {
    validate_target(budget, delta, next)?;
    let taken = |steps: f64| Mechanism { steps: steps as u64, ..*next };
    let excess =
        |steps: f64, error: f64| Ok(log(composed(&with(earlier, taken(steps)), delta, accountant, error)? / budget));
    let alone = |steps: f64| limit_epsilon(&taken(steps), delta) > budget;
    let guess = guess(0.0, log(MOST_STEPS), |x| alone(exp(x)));
    let (range, guess) = ((0.0, MOST_STEPS), exp(guess).round());
    let coarse = (COARSE * budget).max(GRID_ERROR);
    let near = last_not_above(|x| excess(x, coarse), range, guess, (0.03 * guess).round(), 1.0)?.unwrap_or(0.0);
    let found = last_not_above(|x| excess(x, GRID_ERROR), range, near, (1e-4 * near).round(), 1.0)?;
    Ok(found.map_or(0, |steps| steps as u64))
}

fn with(earlier: &[Mechanism], next: Mechanism) -> Vec<Mechanism> {
    earlier.iter().copied().chain([next]).collect()
}

fn validate_target(target: f64, delta: f64, mechanism: &Mechanism) -> Result<(), Error> {
    validate_delta(delta)?;
    mechanism.validate()?;
    if target > 0.0 && target.is_finite() { Ok(()) } else { Err(Error::Epsilon(target)) }
}

/// Epsilon in the limit of many steps, where the composition is a Gaussian mechanism of
/// `mu = q sqrt(T (e^(1/sigma^2) - 1))` (Bu, Dong, Long and Su 2020): no guarantee, a place to begin the search.
fn limit_epsilon(mechanism: &Mechanism, delta: f64) -> f64 {
    let Mechanism { sampling_rate: q, noise_multiplier: sigma, steps } = *mechanism;
    let variance = if q == 1.0 { 1.0 / (sigma * sigma) } else { expm1(1.0 / (sigma * sigma)) };
    let mu = q * (steps as f64 * variance).sqrt();
    if mu == 0.0 {
        return 0.0;
    }
    if mu < 1e3 { gaussian::epsilon(mu, delta) } else { f64::INFINITY }
}

/// Where a cheap predicate turns true, to a few digits.
fn guess(mut low: f64, mut high: f64, above: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if above(middle) { high = middle } else { low = middle }
    }
    low
}

/// The last multiple of `resolution` (from `range.0` on) in `range` at which a rising function is not above 0, as far as
/// it was evaluated: what is returned has been found not to be above. `None` if it is above 0 at `range.0` already.
///
/// A bracket grows around `guess`, from `stride` on; false position with halving (Illinois) narrows it.
fn last_not_above(
    function: impl Fn(f64) -> Result<f64, Error>,
    range: (f64, f64),
    guess: f64,
    stride: f64,
    resolution: f64,
) -> Result<Option<f64>, Error> {
    let clamped = |x: f64| x.clamp(range.0, range.1);
    let (mut good, mut bad) = (None, None);
    let (mut x, mut stride) = (clamped(guess), stride.max(resolution));
    while good.is_none() || bad.is_none() {
        let value = function(x)?;
        *(if value <= 0.0 { &mut good } else { &mut bad }) = Some((x, value));
        if value <= 0.0 && x == range.1 {
            return Ok(Some(x));
        }
        if value > 0.0 && x == range.0 {
            return Ok(None);
        }
        x = clamped(if value <= 0.0 { x + stride } else { x - stride });
        stride *= 4.0;
    }
    let (Some(mut good), Some(mut bad)) = (good, bad) else { return Ok(None) };
    while bad.0 - good.0 > resolution * 1.5 {
        let cells = ((bad.0 - good.0) / resolution).round();
        let share = if good.1.is_finite() && bad.1.is_finite() { good.1 / (good.1 - bad.1) } else { 0.5 };
        let middle = good.0 + resolution * (share * cells).round().clamp(1.0, cells - 1.0);
        let value = function(middle)?;
        if value <= 0.0 {
            good = (middle, value);
            bad.1 *= 0.5;
        } else {
            bad = (middle, value);
            good.1 *= 0.5;
        }
    }
    Ok(Some(good.0))
}
