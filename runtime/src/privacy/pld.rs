//! The privacy loss distribution: how much an outcome speaks for one of two neighbouring data sets, composed over steps.
//!
//! With `P` the distribution of a step's result when the record is there and `Q` when it is not, the loss of an outcome is
//! `l = log(P / Q)`. Losses of steps add up, so the distribution of a run's loss is a convolution, and
//! `delta(epsilon) = E_P [1 - e^(epsilon - l)]+` (Sommer et al. 2019; Koskela et al. 2020).
//!
//! # Why the answer is never too small
//!
//! * *Discretisation.* Each bucket of losses between two grid points is replaced by masses at both ends, such that its mass
//!   under `P` and under `Q` stays what it is (connect the dots: Doroshenko et al. 2022). Any two masses on a bucket with
//!   these two sums are at most as far apart as those at its ends, so the result dominates the true mechanism, and
//!   composition keeps that. Mass below the grid moves up to it; mass above becomes infinite loss.
//! * *The window.* The convolution is cyclic on a window `[-L, L)`. A sum below `-L` comes out too large, which is safe. A sum
//!   above `L` would come out too small: its probability is at most `min over s of exp(T K(s) - s L)` (Chernoff), `K` being the
//!   logarithm of the moment generating function of the *discretised* loss, which is computed exactly. `L` is chosen so
//!   that this bound is at most [`TAIL`] times delta, and that much is added to the mass of infinite loss.
//!
//! Both directions of adjacency are composed (a record removed, a record added); the larger epsilon counts. What remains
//! are rounding errors of the transform, about 1e-15 in delta.

use super::{Mechanism, gaussian::phi, rdp};
use realfft::{RealFftPlanner, num_complex::Complex};

/// Distance of grid points for an answer that is printed.
pub const FINE: f64 = 1e-5;
/// Distance of grid points for answers that are sought by trial, or many.
pub const COARSE: f64 = 1e-4;

/// Share of delta that the window may leave outside.
const TAIL: f64 = 1e-6;
/// Most grid points of a window.
const MOST_POINTS: usize = 1 << 22;
/// Mass of a step's outcomes that is neither resolved nor forgotten: it counts as infinite loss.
const UNRESOLVED: f64 = 1e-24;

/// Who has the record more.
#[derive(Clone, Copy)]
enum Direction {
    Remove,
    Add,
}

/// The composed loss of a run of any number of steps of its last mechanism.
pub struct Curve {
    directions: [Composed; 2],
}

/// In one direction, the transform of a step's discretised loss.
struct Composed {
    grid: f64,
    points: usize,
    /// Each mechanism: the spectrum of its masses, its infinite mass, its number of steps.
    parts: Vec<Part>,
    /// Bound on the mass outside the window.
    outside: f64,
}

struct Part {
    spectrum: Vec<Complex<f64>>,
    infinite: f64,
    steps: u64,
}

impl Curve {
    /// Discretises the loss on a grid of this step, or a coarser one if the window would have too many points. `delta` is the
    /// smallest that will be asked about.
    pub fn new(mechanisms: &[Mechanism], delta: f64, grid: f64) -> Curve {
        let expected = 1.5 * rdp::epsilon(mechanisms, TAIL * delta).0 + 1.0;
        let coarser = (2.0 * expected / (grid * MOST_POINTS as f64)).max(1.0);
        let grid = grid * coarser.log2().ceil().exp2();
        Curve { directions: [Direction::Remove, Direction::Add].map(|d| Composed::new(mechanisms, d, delta, grid)) }
    }

    /// The smallest epsilon for a delta.
    pub fn epsilon(&self, delta: f64) -> f64 {
        self.directions.iter().map(|composed| composed.epsilon(delta, None)).fold(0.0, f64::max)
    }

    /// The same, had the last mechanism made this many steps: at most as many as when the curve was made.
    pub fn epsilon_after(&self, steps: u64, delta: f64) -> f64 {
        self.directions.iter().map(|composed| composed.epsilon(delta, Some(steps))).fold(0.0, f64::max)
    }
}

impl Composed {
    fn new(mechanisms: &[Mechanism], direction: Direction, delta: f64, grid: f64) -> Composed {
        let steps: Vec<(Masses, u64)> = mechanisms.iter().map(|m| (Masses::of(m, direction, grid), m.steps)).collect();
        let (window, outside) = window(&steps, delta);
        let widest = steps.iter().map(|(masses, _)| masses.reach()).max().unwrap_or(1);
        let points = ((2.0 * window / grid) as usize).max(2 * widest + 2).next_power_of_two();
        let mut planner = RealFftPlanner::<f64>::new();
        let forward = planner.plan_fft_forward(points);
        let parts = steps.into_iter().map(|(masses, steps)| {
            let mut wrapped = vec![0.0; points];
            for (k, mass) in (masses.first..).zip(&masses.masses) {
                wrapped[k.rem_euclid(points as i64) as usize] += mass;
            }
            let mut spectrum = forward.make_output_vec();
            forward.process(&mut wrapped, &mut spectrum).expect("lengths are the plan's");
            Part { spectrum, infinite: masses.infinite, steps }
        });
        Composed { grid, points, parts: parts.collect(), outside }
    }

    /// The masses of the composed loss around 0, in cyclic order, and the infinite mass.
    fn composed(&self, last: Option<u64>) -> (Vec<f64>, f64) {
        let mut product = vec![Complex::new(1.0, 0.0); self.parts[0].spectrum.len()];
        let mut finite = 1.0;
        for (number, part) in self.parts.iter().enumerate() {
            let steps = last.filter(|_| number + 1 == self.parts.len()).unwrap_or(part.steps);
            finite *= (steps as f64 * (-part.infinite).ln_1p()).exp();
            for (product, value) in product.iter_mut().zip(&part.spectrum) {
                *product *= powered(*value, steps);
            }
        }
        let inverse = RealFftPlanner::<f64>::new().plan_fft_inverse(self.points);
        let mut masses = inverse.make_output_vec();
        let end = product.len() - 1;
        (product[0].im, product[end].im) = (0.0, 0.0);
        inverse.process(&mut product, &mut masses).expect("lengths are the plan's");
        masses.iter_mut().for_each(|mass| *mass /= self.points as f64);
        (masses, 1.0 - finite + self.outside)
    }

    /// Between grid points delta is `infinite + A - e^epsilon B`, with A and B sums over the losses above: solved exactly.
    fn epsilon(&self, delta: f64, last: Option<u64>) -> f64 {
        let (masses, infinite) = self.composed(last);
        let (mut a, mut b) = (0.0, 0.0);
        for k in (0..self.points / 2).rev() {
            let loss = k as f64 * self.grid;
            if infinite + a - loss.exp() * b > delta {
                return if b > 0.0 { ((infinite + a - delta) / b).ln().max(0.0) } else { f64::INFINITY };
            }
            a += masses[k];
            b += masses[k] * (-loss).exp();
        }
        if infinite + a - b > delta { ((infinite + a - delta) / b).ln().max(0.0) } else { 0.0 }
    }
}

/// `z^n` by repeated squaring.
fn powered(z: Complex<f64>, n: u64) -> Complex<f64> {
    let (mut base, mut rest, mut power) = (z, n, Complex::new(1.0, 0.0));
    while rest > 0 {
        if rest & 1 == 1 {
            power *= base;
        }
        base *= base;
        rest >>= 1;
    }
    power
}

/// Half the window, and a bound on the mass of sums above it.
fn window(steps: &[(Masses, u64)], delta: f64) -> (f64, f64) {
    let target = (TAIL * delta).ln();
    // For each s, the L at which the bound meets the target.
    let needed = |s: f64| {
        let moment: f64 = steps.iter().map(|(masses, count)| *count as f64 * masses.log_moment(s)).sum();
        (moment - target) / s
    };
    let exponents = (-4..=10).map(|power| 2.0_f64.powi(power));
    let half = exponents.map(needed).filter(|half| half.is_finite()).fold(f64::INFINITY, f64::min);
    (half.max(1.0), target.exp())
}

/// The discretised loss of one step.
struct Masses {
    grid: f64,
    /// Number of the first grid point.
    first: i64,
    masses: Vec<f64>,
    infinite: f64,
}

impl Masses {
    /// Largest number of a grid point, by absolute value.
    fn reach(&self) -> usize {
        (self.first.unsigned_abs() as usize).max((self.first + self.masses.len() as i64).unsigned_abs() as usize)
    }

    /// The logarithm of the moment generating function.
    fn log_moment(&self, s: f64) -> f64 {
        let top = (self.first + self.masses.len() as i64) as f64 * self.grid * s;
        let terms = (self.first..).zip(&self.masses).map(|(k, mass)| mass * (k as f64 * self.grid * s - top).exp());
        top + terms.sum::<f64>().ln()
    }

    fn of(mechanism: &Mechanism, direction: Direction, grid: f64) -> Masses {
        let step = Outcome { q: mechanism.sampling_rate, sigma: mechanism.noise_multiplier };
        let (low, high) = step.range(direction);
        let first = (low / grid).floor() as i64;
        let last = ((high / grid).ceil() as i64).max(first + 1);
        let mut masses = vec![0.0; (last - first + 1) as usize];
        let share = 1.0 / -(-grid).exp_m1();
        // What lies below the grid moves up to its first point.
        masses[0] = step.between(direction, f64::NEG_INFINITY, first as f64 * grid).0;
        for (j, k) in (first..last).enumerate() {
            let (from, to) = (k as f64 * grid, (k + 1) as f64 * grid);
            let (with, without) = step.between(direction, from, to);
            let upper = ((with - without * from.exp()) * share).clamp(0.0, with);
            masses[j] += with - upper;
            masses[j + 1] += upper;
        }
        let infinite = step.between(direction, last as f64 * grid, f64::INFINITY).0;
        Masses { grid, first, masses, infinite: infinite + UNRESOLVED }
    }
}

/// The result of a step along the line on which the record moves it: noise around 0, or with probability q around 1.
struct Outcome {
    q: f64,
    sigma: f64,
}

impl Outcome {
    /// Losses outside are rarer than [`UNRESOLVED`].
    fn range(&self, direction: Direction) -> (f64, f64) {
        /// Standard deviations that a normal number keeps to, but for 1e-24.
        const FAR: f64 = 10.2;
        let losses = [self.loss(-FAR * self.sigma), self.loss(1.0 + FAR * self.sigma)];
        match direction {
            Direction::Remove => (losses[0], losses[1]),
            Direction::Add => (-losses[1], -losses[0]),
        }
    }

    /// `log(P(x) / Q(x))`.
    fn loss(&self, x: f64) -> f64 {
        let ratio = (2.0 * x - 1.0) / (2.0 * self.sigma * self.sigma);
        if self.q == 1.0 {
            return ratio;
        }
        if ratio > 0.0 {
            return ratio + (self.q + (1.0 - self.q) * (-ratio).exp()).ln();
        }
        (self.q * ratio.exp_m1()).ln_1p()
    }

    /// The outcome that has this loss.
    fn outcome(&self, loss: f64) -> f64 {
        if loss == f64::INFINITY {
            return loss;
        }
        let ratio = if self.q == 1.0 {
            loss
        } else if loss > 30.0 {
            // e^loss alone counts.
            loss - self.q.ln() + (-(1.0 - self.q) * (-loss).exp()).ln_1p()
        } else {
            let inner = loss.exp_m1() / self.q;
            if inner <= -1.0 { f64::NEG_INFINITY } else { inner.ln_1p() }
        };
        self.sigma * self.sigma * ratio + 0.5
    }

    /// Probabilities that the loss lies in `(from, to]`: if the direction's first data set is the true one, and if the second is.
    fn between(&self, direction: Direction, from: f64, to: f64) -> (f64, f64) {
        match direction {
            Direction::Remove => {
                let (with, without) = self.masses(self.outcome(from), self.outcome(to));
                (with, without)
            }
            Direction::Add => {
                let (with, without) = self.masses(self.outcome(-to), self.outcome(-from));
                (without, with)
            }
        }
    }

    /// Probabilities of outcomes between two: with the record and without.
    fn masses(&self, from: f64, to: f64) -> (f64, f64) {
        let without = normal_between(from / self.sigma, to / self.sigma);
        let moved = normal_between((from - 1.0) / self.sigma, (to - 1.0) / self.sigma);
        ((1.0 - self.q) * without + self.q * moved, without)
    }
}

/// Mass of the standard normal between two points, as a difference in the tail in which they lie.
fn normal_between(from: f64, to: f64) -> f64 {
    let mass = if from > 0.0 { phi(-from) - phi(-to) } else { phi(to) - phi(from) };
    mass.max(0.0)
}
