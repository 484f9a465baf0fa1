//! Scalar floating-point semantics that the host's arithmetic does not give: directed rounding, flushing, saturation,
//! 16-bit formats and the approximate functions.

pub mod approximate;
pub mod convert;
pub mod round;
pub mod sixteen;

/// The NaN that single-precision instructions return (PTX ISA, "Floating-Point Instructions").
pub const NAN32: u32 = 0x7fff_ffff;

/// Bits of an f32 result; all NaN become one.
#[inline(always)]
pub fn bits32(value: f32) -> u32 {
    if value.is_nan() { NAN32 } else { value.to_bits() }
}

/// Zero of the same sign instead of a subnormal number.
#[inline(always)]
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}
