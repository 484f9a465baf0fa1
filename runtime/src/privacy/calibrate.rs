//! The inverse questions: how much noise, or how many steps, a budget allows.

use super::{Accountant, Mechanism, PrivacyError, check_delta, gaussian, pld, rdp};

/// Most noise that is sought.
const MOST_NOISE: f64 = 1e6;
/// Noise multipliers are multiples of this: numbers that can be read, and the same on every machine.
const RESOLUTION: f64 = 1e-5;

/// The smallest noise multiplier with which this many steps keep to the budget, rounded up to a multiple of 1e-5.
///
/// # Errors
/// For numbers that describe no mechanism or no budget, or if no noise is enough.
pub fn noise_multiplier(
    epsilon: f64,
    delta: f64,
    sampling_rate: f64,
    steps: u64,
    accountant: Accountant,
) -> Result<f64, PrivacyError> {
    let with = |noise_multiplier: f64| Mechanism { sampling_rate, noise_multiplier, steps };
    check(epsilon, delta, with(1.0))?;
    let spent = |noise: f64| quick(&with(noise), delta, accountant);
    let mut enough = 1.0;
    while spent(enough) > epsilon {
        enough *= 2.0;
        if enough > MOST_NOISE {
            return Err(PrivacyError::OutOfReach(MOST_NOISE));
        }
    }
    let mut lacking = enough / 2.0;
    while spent(lacking) <= epsilon && lacking > RESOLUTION {
        (enough, lacking) = (lacking, lacking / 2.0);
    }
    while enough - lacking > RESOLUTION * 0.5 {
        let middle = 0.5 * (enough + lacking);
        if spent(middle) <= epsilon { enough = middle } else { lacking = middle }
    }
    Ok((enough / RESOLUTION).ceil() * RESOLUTION)
}

/// The largest number of steps that keep to the budget.
///
/// # Errors
/// As [`noise_multiplier`].
pub fn steps(
    epsilon: f64,
    delta: f64,
    sampling_rate: f64,
    noise_multiplier: f64,
    accountant: Accountant,
) -> Result<u64, PrivacyError> {
    /// More than any run makes.
    const MOST: u64 = 1 << 32;
    let after = |steps: u64| Mechanism { sampling_rate, noise_multiplier, steps };
    check(epsilon, delta, after(1))?;
    if noise_multiplier == 0.0 {
        return Ok(0);
    }
    let fits = |steps: u64| quick(&after(steps), delta, accountant) <= epsilon;
    let mut beyond = 1;
    while beyond < MOST && fits(beyond) {
        beyond *= 2;
    }
    let mut within = beyond / 2;
    while beyond - within > 1 {
        let middle = within + (beyond - within) / 2;
        if fits(middle) { within = middle } else { beyond = middle }
    }
    Ok(within)
}

fn check(epsilon: f64, delta: f64, mechanism: Mechanism) -> Result<(), PrivacyError> {
    check_delta(delta)?;
    mechanism.check()?;
    if epsilon > 0.0 && epsilon.is_finite() { Ok(()) } else { Err(PrivacyError::Epsilon(epsilon)) }
}

/// Epsilon, on a coarser grid where that is much faster: at least the true one all the same.
fn quick(mechanism: &Mechanism, delta: f64, accountant: Accountant) -> f64 {
    let mechanisms = [*mechanism];
    match accountant {
        Accountant::Rdp => rdp::epsilon(&mechanisms, delta).0,
        Accountant::Pld if mechanism.sampling_rate == 1.0 => gaussian::epsilon(gaussian::mu(&mechanisms), delta),
        // Far above every budget the grid would have to be absurdly large.
        Accountant::Pld if rdp::epsilon(&mechanisms, delta).0 > 200.0 => f64::INFINITY,
        Accountant::Pld => pld::Curve::new(&mechanisms, delta, pld::COARSE).epsilon(delta),
    }
}
