//! The approximate functions: correctly rounded, or as wrong as the PTX ISA allows.

use super::flush;

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

/// The documented maximum error of an instruction (PTX ISA 8.x, the page of each instruction).
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// Relative to the exact value.
    Relative(f64),
    /// Absolute.
    Absolute(f64),
}

/// Half an ulp relative to the value: what the final rounding adds to an injected error.
const HALF_ULP: f64 = 1.0 / (1u64 << 24) as f64;

impl Approximation {
    fn apply(self, exact: f64, bound: Bound, operand: u32) -> f32 {
        let Approximation::Worst { seed } = self else { return exact as f32 };
        if !exact.is_finite() || exact == 0.0 {
            return exact as f32;
        }
        // SplitMix64's finalizer; one bit of it is the direction.
        let mut hash = u64::from(operand) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sign = if (hash >> 33) & 1 == 0 { 1.0 } else { -1.0 };
        let error = match bound {
            Bound::Relative(bound) => exact * (bound - HALF_ULP).max(0.0),
            Bound::Absolute(bound) => (bound - exact.abs() * HALF_ULP).max(0.0),
        };
        (exact + sign * error) as f32
    }

    /// 2^x.
    pub fn ex2(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        let y = self.apply(f64::from(x).exp2(), Bound::Relative(2f64.powi(-22)), x.to_bits());
        if ftz { flush(y) } else { y }
    }

    /// Binary logarithm: absolute error 2^-22 for x in (0.5, 2), relative error 2^-22 outside.
    pub fn lg2(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        let bound = 2f64.powi(-22);
        let bound = if x > 0.5 && x < 2.0 { Bound::Absolute(bound) } else { Bound::Relative(bound) };
        // The logarithm of -0 is -infinity, too.
        self.apply(f64::from(x).abs().log2() + if x < 0.0 { f64::NAN } else { 0.0 }, bound, x.to_bits())
    }

    /// 1 / x.
    pub fn rcp(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        let y = self.apply(1.0 / f64::from(x), Bound::Relative(2f64.powi(-23)), x.to_bits());
        if ftz { flush(y) } else { y }
    }

    /// Square root.
    pub fn sqrt(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        self.apply(f64::from(x).sqrt(), Bound::Relative(2f64.powi(-23)), x.to_bits())
    }

    /// 1 / sqrt(x).
    pub fn rsqrt(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        self.apply(1.0 / f64::from(x).sqrt(), Bound::Relative(2f64.powf(-22.9)), x.to_bits())
    }

    /// Sine: absolute error 2^-20.5 in [-2 pi, 2 pi]; outside, the error of reducing the operand is not documented.
    pub fn sin(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        self.apply(f64::from(x).sin(), Bound::Absolute(2f64.powf(-20.5)), x.to_bits())
    }

    /// Cosine, as [`Self::sin`].
    pub fn cos(self, x: f32, ftz: bool) -> f32 {
        let x = if ftz { flush(x) } else { x };
        self.apply(f64::from(x).cos(), Bound::Absolute(2f64.powf(-20.5)), x.to_bits())
    }

    /// Hyperbolic tangent: relative error 2^-11.
    pub fn tanh(self, x: f32) -> f32 {
        self.apply(f64::from(x).tanh(), Bound::Relative(2f64.powi(-11)), x.to_bits())
    }

    /// a / b within 2 ulp.
    pub fn div(self, a: f32, b: f32, ftz: bool) -> f32 {
        let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
        let y = self.apply(f64::from(a) / f64::from(b), Bound::Relative(2f64.powi(-23)), a.to_bits() ^ b.to_bits());
        if ftz { flush(y) } else { y }
    }
}
