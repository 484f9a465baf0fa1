//! The approximate functions: correctly rounded, or as wrong as the PTX ISA allows.

use super::flush;
use super::sixteen::Format;

/// How approximate instructions (`ex2.approx` and the like) behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Approximation {
    /// The result is the rounded exact value.
    #[default]
    Rounded,
    /// The result is off by the documented bound; the seed and the operand choose the direction.
    Worst {
        /// Changes the directions.
        seed: u64,
    },
}

/// The documented maximum error of an instruction (PTX ISA 9, the page of each instruction).
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Relative to the exact value.
    Relative(f64),
    /// Absolute.
    Absolute(f64),
    /// In units in the last place of the f32 result.
    Ulps(f64),
}

/// The unit in the last place of f32 at a value.
fn ulp(value: f64) -> f64 {
    let exponent = (value.abs().to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.max(-126) - 23)
}

impl Approximation {
    /// The exact value, moved by almost the bound if the worst is wanted; what the final rounding adds stays within it.
    fn apply(self, exact: f64, bound: Bound, operand: u32) -> f64 {
        let Approximation::Worst { seed } = self else { return exact };
        if !exact.is_finite() || exact == 0.0 {
            return exact;
        }
        let error = match bound {
            Bound::Relative(bound) => exact.abs() * bound,
            Bound::Absolute(bound) => bound,
            Bound::Ulps(count) => count * ulp(exact),
        };
        let error = (error - 0.5 * ulp(exact.abs() + error)).max(0.0);
        if direction(operand, seed) { exact + error } else { exact - error }
    }

    /// As `apply`, rounded to f32.
    fn apply32(self, exact: f64, bound: Bound, operand: u32) -> f32 {
        self.apply(exact, bound, operand) as f32
    }

    /// 2^x within 2 ulp.
    pub fn ex2(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(f64::from(x).exp2(), Bound::Ulps(2.0), x.to_bits()))
    }

    /// Binary logarithm: absolute error 2^-22 for x in (0.5, 2), relative error 2^-22 outside.
    pub fn lg2(self, x: f32, ftz: bool) -> f32 {
        let bound = 2f64.powi(-22);
        let bound = if x > 0.5 && x < 2.0 { Bound::Absolute(bound) } else { Bound::Relative(bound) };
        // The logarithm of -0 is -infinity, too.
        let exact = |x: f32| if x < 0.0 { f64::NAN } else { f64::from(x.abs()).log2() };
        flushing(x, ftz, |x| self.apply32(exact(x), bound, x.to_bits()))
    }

    /// 1 / x within 1 ulp.
    pub fn rcp(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(1.0 / f64::from(x), Bound::Ulps(1.0), x.to_bits()))
    }

    /// Square root: relative error 2^-23.
    pub fn sqrt(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(f64::from(x).sqrt(), Bound::Relative(2f64.powi(-23)), x.to_bits()))
    }

    /// 1 / sqrt(x): relative error 2^-22.9.
    pub fn rsqrt(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(1.0 / f64::from(x).sqrt(), Bound::Relative(2f64.powf(-22.9)), x.to_bits()))
    }

    /// Sine: absolute error 2^-20.5 in [-2 pi, 2 pi] and 2^-14.7 in [-100 pi, 100 pi]; beyond, none is documented.
    pub fn sin(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(f64::from(x).sin(), circular(x), x.to_bits()))
    }

    /// Cosine, as [`Self::sin`].
    pub fn cos(self, x: f32, ftz: bool) -> f32 {
        flushing(x, ftz, |x| self.apply32(f64::from(x).cos(), circular(x), x.to_bits()))
    }

    /// Hyperbolic tangent: relative error 2^-11.
    pub fn tanh(self, x: f32) -> f32 {
        self.apply32(f64::from(x).tanh(), Bound::Relative(2f64.powi(-11)), x.to_bits())
    }

    /// a / b within 2 ulp.
    pub fn div(self, a: f32, b: f32, ftz: bool) -> f32 {
        let exact = |a: f32, b: f32| f64::from(a) / f64::from(b);
        flushing(a, ftz, |a| {
            let b = if ftz { flush(b) } else { b };
            self.apply32(exact(a, b), Bound::Ulps(2.0), a.to_bits() ^ b.to_bits())
        })
    }

    /// 2^x of a 16-bit number, before it is rounded to its format: relative error 2^-9.9 for f16, 2^-7 for bf16.
    pub fn ex2_sixteen(self, x: f64, format: Format) -> f64 {
        let bound =
            if format == Format::F16 { 2f64.powf(-9.9) - 2f64.powi(-11) } else { 2f64.powi(-7) - 2f64.powi(-8) };
        self.apply(x.exp2(), Bound::Relative(bound), (x as f32).to_bits())
    }

    /// Hyperbolic tangent of a 16-bit number, before it is rounded: relative error 2^-10.987 for f16, 2^-8 for bf16. The
    /// rounding alone takes up half an ulp of it, so that no error is added.
    pub fn tanh_sixteen(self, x: f64) -> f64 {
        x.tanh()
    }
}

/// A function of a flushed operand, and its flushed result.
fn flushing(x: f32, ftz: bool, function: impl Fn(f32) -> f32) -> f32 {
    if ftz { flush(function(flush(x))) } else { function(x) }
}

fn circular(x: f32) -> Bound {
    let small = x.abs() <= 2.0 * std::f32::consts::PI;
    Bound::Absolute(2f64.powf(if small { -20.5 } else { -14.7 }))
}

/// The direction of an injected error, from the operand and the seed by SplitMix64's finalizer.
fn direction(operand: u32, seed: u64) -> bool {
    let mut hash = u64::from(operand) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash >> 33) & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::{Approximation, ulp};

    /// The largest error of a function over some operands, in units of `unit`.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, unit: impl Fn(f64) -> f64) -> f64 {
        let operands = (1..2000).map(|i| 0.003 * i as f32);
        operands.map(|x| ((f64::from(f(x)) - exact(x.into())) / unit(exact(x.into()))).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn injected_errors_reach_the_bound_and_stay_within_it() {
        let a = Approximation::Worst { seed: 1 };
        let within = |error: f64, bound: f64| assert!(error <= bound && error > 0.7 * bound, "{error} of {bound}");
        within(worst(|x| a.ex2(-x, false), |x| (-x).exp2(), ulp), 2.0);
        within(worst(|x| a.rcp(x, false), f64::recip, ulp), 1.0);
        within(worst(|x| a.rsqrt(x, false), |x| 1.0 / x.sqrt(), |y| y), 2f64.powf(-22.9));
        within(worst(|x| a.sin(x, false), f64::sin, |_| 1.0), 2f64.powf(-20.5));
        within(worst(|x| a.tanh(x), f64::tanh, |y| y), 2f64.powi(-11));
        let exact = Approximation::Rounded;
        assert!(worst(|x| exact.ex2(x, false), f64::exp2, ulp) <= 0.5);
    }

    #[test]
    fn special_operands() {
        for a in [Approximation::Rounded, Approximation::Worst { seed: 3 }] {
            assert_eq!(a.ex2(f32::NEG_INFINITY, false), 0.0);
            assert_eq!(a.lg2(-0.0, false), f32::NEG_INFINITY);
            assert!(a.lg2(-1.0, false).is_nan());
            assert_eq!(a.rcp(f32::INFINITY, false), 0.0);
            assert_eq!(a.rcp(1e-40, true), f32::INFINITY);
            assert_eq!(a.rsqrt(0.0, false), f32::INFINITY);
            assert!(a.sin(f32::INFINITY, false).is_nan());
        }
    }
}
