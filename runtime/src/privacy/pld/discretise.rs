//! One step's privacy loss on a grid, by connecting the dots of its curve (Doroshenko, Ghazi, Kamath, Kumar and
//! Manurangsi 2022): among all distributions on the grid whose curve lies nowhere below, the one with the lowest curve.

use crate::privacy::{Mechanism, normal::Point};
use libm::{exp, expm1, log, log1p};

/// Which of two neighbouring data sets the output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the larger one: `P = (1-q) N(0, s^2) + q N(1, s^2)` against `Q = N(0, s^2)`.
    Remove,
    /// From the smaller one: `Q` against `P`.
    Add,
}

/// A privacy loss on the grid `k * h`.
pub struct Discrete {
    /// The index `k` of the first mass.
    pub first: i64,
    /// Masses from `first` on.
    pub mass: Vec<f64>,
    /// The mass at infinite loss.
    pub infinite: f64,
}

/// How far from the mean of a Gaussian all but `tail` of its mass lies on either side: `P(Z > z) <= e^(-z^2/2) / 2`.
pub fn reach(mechanism: &Mechanism, tail: f64) -> f64 {
    mechanism.noise_multiplier * (-2.0 * log(tail)).sqrt()
}

/// The losses between which all but `2 * tail` of the mass lies.
pub fn loss_range(mechanism: &Mechanism, direction: Direction, tail: f64) -> (f64, f64) {
    let reach = reach(mechanism, tail);
    match direction {
        Direction::Remove => (mechanism.loss(-reach), mechanism.loss(1.0 + reach)),
        Direction::Add => (-mechanism.loss(reach), -mechanism.loss(-reach)),
    }
}

/// The inverse of [`Mechanism::loss`]: `x = s^2 log1p(expm1(l) / q) + 1/2`; minus infinity for a loss that is never reached.
fn output_at(mechanism: &Mechanism, loss: f64) -> f64 {
    let Mechanism { sampling_rate: q, noise_multiplier: sigma, .. } = *mechanism;
    if loss > 40.0 {
        return sigma * sigma * (loss - log(q) + log1p((q - 1.0) * exp(-loss))) + 0.5;
    }
    let ratio = expm1(loss) / q;
    if ratio <= -1.0 { f64::NEG_INFINITY } else { sigma * sigma * log1p(ratio) + 0.5 }
}

/// An output `x`, seen by both Gaussians.
#[derive(Clone, Copy)]
struct Boundary {
    at_zero: Point,
    at_one: Point,
}

impl Boundary {
    fn new(mechanism: &Mechanism, x: f64) -> Self {
        let sigma = mechanism.noise_multiplier;
        Boundary { at_zero: Point::new(x / sigma), at_one: Point::new((x - 1.0) / sigma) }
    }

    /// Masses of `P` and of `Q` between two outputs.
    fn masses(self, upper: Self, q: f64) -> (f64, f64) {
        let without = self.at_zero.mass_up_to(upper.at_zero);
        ((1.0 - q) * without + q * self.at_one.mass_up_to(upper.at_one), without)
    }
}

/// Puts one step's loss on the grid of step `h`. Beyond [`loss_range`], mass above goes to infinity and mass below to the
/// lowest point.
///
/// A cell from `a` to `a + h` holds mass `M` of the measure the output comes from and `N` of the other one. The curve is
/// kept at both ends when `M` and `N` are: `u + d = M` and `u e^-(a+h) + d e^-a = N` give
/// `u = (M - N e^a) / (1 - e^-h)` at the upper end and `M - u` at the lower.
pub fn discretise(mechanism: &Mechanism, direction: Direction, h: f64, tail: f64) -> Discrete {
    let (low, high) = loss_range(mechanism, direction, tail);
    let (first, last) = ((low / h).floor() as i64, (high / h).ceil() as i64);
    let boundary = |loss: f64| {
        let x = output_at(mechanism, if direction == Direction::Add { -loss } else { loss });
        Boundary::new(mechanism, x)
    };
    // (mass where the output comes from, mass of the other measure) between two losses
    let masses = |lower: Boundary, upper: Boundary| {
        let q = mechanism.sampling_rate;
        match direction {
            Direction::Remove => lower.masses(upper, q),
            Direction::Add => {
                let (with, without) = upper.masses(lower, q);
                (without, with)
            }
        }
    };
    let (bottom, top) = match direction {
        Direction::Remove => (f64::NEG_INFINITY, f64::INFINITY),
        Direction::Add => (f64::INFINITY, f64::NEG_INFINITY),
    };
    let mut mass = vec![0.0; (last - first + 1) as usize];
    let mut lower = boundary(first as f64 * h);
    mass[0] = masses(Boundary::new(mechanism, bottom), lower).0;
    let share = -expm1(-h);
    for cell in 0..mass.len() - 1 {
        let upper = boundary((first + cell as i64 + 1) as f64 * h);
        let (here, other) = masses(lower, upper);
        // In logarithms, or a vanishing mass times an overflowing factor would be no number.
        let matched = exp(log(other.max(0.0)) + (first + cell as i64) as f64 * h);
        let up = ((here - matched) / share).clamp(0.0, here.max(0.0));
        mass[cell] += here.max(0.0) - up;
        mass[cell + 1] += up;
        lower = upper;
    }
    Discrete { first, mass, infinite: masses(lower, Boundary::new(mechanism, top)).0.max(0.0) }
}
