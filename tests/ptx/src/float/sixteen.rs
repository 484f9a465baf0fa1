//! The 16-bit formats. Every operation is done in f64 and rounded once: sums and products of such numbers are exact there
//! whenever the rounding to 16 bits could be in doubt.

use super::round::integral;
use crate::decode::program::Round;
use crate::syntax::tree::Type;

/// One of the two 16-bit formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Format {
    /// The format of a type's elements, packed or not.
    pub fn of(ty: Type) -> Option<Format> {
        match ty {
            Type::F16 | Type::F16x2 => Some(Format::F16),
            Type::Bf16 | Type::Bf16x2 => Some(Format::Bf16),
            _ => None,
        }
    }

    /// Bits of the mantissa and the exponent of the smallest normal number.
    fn layout(self) -> (i32, i32) {
        match self {
            Format::F16 => (10, -14),
            Format::Bf16 => (7, -126),
        }
    }

    /// The number that some bits stand for.
    #[inline(always)]
    pub fn decode(self, bits: u16) -> f64 {
        if self == Format::Bf16 {
            return f64::from(f32::from_bits(u32::from(bits) << 16));
        }
        // An f16 scaled by 2^-112 has the bits of an f32.
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let scaled = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { magnitude };
        let value = f32::from_bits(scaled | u32::from(bits & 0x8000) << 16);
        f64::from(value) * (1u128 << 112) as f64
    }

    /// Canonical NaN.
    pub fn nan(self) -> u16 {
        0x7fff
    }

    /// Rounds to nearest, ties to even; NaN becomes the canonical one.
    pub fn encode(self, value: f64) -> u16 {
        self.encode_rounded(value, Round::Nearest)
    }

    /// Rounds in any direction.
    pub fn encode_rounded(self, value: f64, round: Round) -> u16 {
        if value.is_nan() {
            return self.nan();
        }
        let (mantissa, least) = self.layout();
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let infinity = ((3 - 2 * least) as u16) << mantissa;
        if value.is_infinite() {
            return sign | infinity;
        }
        let exponent = ((value.abs().to_bits() >> 52) as i32 - 1023).max(least);
        let steps = integral(value * 2f64.powi(mantissa - exponent), round).abs() as i64;
        let bits = (i64::from(exponent - least) << mantissa) + steps;
        if bits < i64::from(infinity) {
            return sign | bits as u16;
        }
        let outward =
            matches!((round, sign), (Round::Nearest | Round::NearestAway, _) | (Round::Up, 0) | (Round::Down, 0x8000));
        sign | if outward { infinity } else { infinity - 1 }
    }

    /// Applies a function to each half of a packed pair.
    #[inline(always)]
    pub fn pairs<const N: usize>(operands: [u32; N], f: impl Fn([u16; N]) -> u16) -> u32 {
        let low = f(operands.map(|bits| bits as u16));
        let high = f(operands.map(|bits| (bits >> 16) as u16));
        u32::from(low) | u32::from(high) << 16
    }
}
