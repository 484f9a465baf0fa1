//! The standard normal distribution, accurate in both tails.

use libm::{erfc, log, log1p};
use std::f64::consts::{PI, SQRT_2};

/// `P(Z <= z)`.
pub fn cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}

/// `log P(Z <= z)`, also where the probability itself is no longer a number above 0.
pub fn log_cdf(z: f64) -> f64 {
    // Below, the continued asymptotic series (Abramowitz and Stegun 7.1.23) has an error under 1e-10.
    if z > -30.0 {
        return log(cdf(z));
    }
    let inverse = 1.0 / (z * z);
    let series = -inverse * (1.0 - inverse * (3.0 - 15.0 * inverse));
    -0.5 * z * z - log(-z * (2.0 * PI).sqrt()) + log1p(series)
}

/// A point of the line with the mass of its smaller tail, so that masses far out do not cancel.
#[derive(Clone, Copy)]
pub struct Point {
    z: f64,
    tail: f64,
}

impl Point {
    /// The point `z`, which may be infinite.
    pub fn new(z: f64) -> Self {
        Point { z, tail: 0.5 * erfc(z.abs() / SQRT_2) }
    }

    /// `P(self < Z < upper)`.
    pub fn mass_up_to(self, upper: Point) -> f64 {
        if self.z >= 0.0 {
            self.tail - upper.tail
        } else if upper.z <= 0.0 {
            upper.tail - self.tail
        } else {
            1.0 - self.tail - upper.tail
        }
    }
}
