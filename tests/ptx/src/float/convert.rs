//! `cvt` between all scalar types, one lane at a time.

use super::round::{integral, to_f32, two_sum};
use super::sixteen::Format;
use super::{NAN32, flush};
use crate::decode::program::{Cvt, Mode, Round};
use crate::syntax::tree::Type;

/// A number on its way from one type to another.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

/// Converts the raw bits of one lane. Sources may be wider than their type; results are extended to the register.
pub fn convert(cvt: &Cvt, bits: u64) -> u64 {
    if let Some(value) = convert_quickly(cvt, bits) {
        return value;
    }
    let number = read(cvt.from, bits, cvt.mode);
    let value = match (number, cvt.to.is_float()) {
        (Number::Integer(value), false) => integer(value, cvt.to, cvt.mode.sat),
        (Number::Float(value), false) => float_to_integer(value, cvt.from, cvt.to, cvt.mode.round),
        (Number::Integer(value), true) => float(integer_to_float(value, cvt.to, cvt.mode.round), cvt),
        (Number::Float(value), true) if cvt.integral => float((integral(value, cvt.mode.round), 0.0), cvt),
        (Number::Float(value), true) => float((value, 0.0), cvt),
    };
    if cvt.d.1 || cvt.to.bytes() == 8 { value } else { value & 0xffff_ffff }
}

/// The frequent conversions without a detour over wide numbers.
#[inline]
fn convert_quickly(cvt: &Cvt, bits: u64) -> Option<u64> {
    let plain = !cvt.mode.sat && !cvt.mode.relu && !cvt.mode.ftz;
    match (cvt.from, cvt.to) {
        (Type::U32, Type::U64) if plain => Some(bits & 0xffff_ffff),
        (Type::S32, Type::S64) if plain => Some(i64::from(bits as i32) as u64),
        (Type::U64 | Type::S64, Type::U32 | Type::S32) if plain && !cvt.d.1 => Some(bits & 0xffff_ffff),
        (Type::Bf16, Type::F32) if plain && !cvt.integral && (bits & 0x7fff) <= 0x7f80 => Some((bits & 0xffff) << 16),
        (Type::F32, Type::Bf16) if plain && cvt.mode.round == Round::Nearest => Some(u64::from(to_bf16(bits as u32))),
        _ => None,
    }
}

/// Rounds an f32 to nearest, ties to even.
fn to_bf16(bits: u32) -> u16 {
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// Two f32 to a packed pair; `a` is the upper half.
pub fn convert_pair(cvt: &Cvt, a: u32, b: u32) -> u32 {
    if cvt.to == Type::Bf16x2 && cvt.mode == Mode::default() {
        return u32::from(to_bf16(a)) << 16 | u32::from(to_bf16(b));
    }
    let half = |bits: u32| {
        let value = float_in(bits, cvt.mode);
        let format = Format::of(cvt.to).expect("decoding admits 16-bit formats only");
        let value = if cvt.mode.relu && (value < 0.0 || value.is_nan()) { 0.0 } else { value };
        u32::from(format.encode_rounded(f64::from(value), cvt.mode.round))
    };
    half(a) << 16 | half(b)
}

fn float_in(bits: u32, mode: Mode) -> f32 {
    let value = f32::from_bits(bits);
    if mode.ftz { flush(value) } else { value }
}

fn read(ty: Type, bits: u64, mode: Mode) -> Number {
    match ty {
        Type::F16 => Number::Float(Format::F16.decode(bits as u16)),
        Type::Bf16 => Number::Float(Format::Bf16.decode(bits as u16)),
        Type::F32 => Number::Float(f64::from(float_in(bits as u32, mode))),
        Type::F64 => Number::Float(f64::from_bits(bits)),
        _ => {
            let shift = 64 - 8 * ty.bytes() as u32;
            let moved = bits << shift;
            Number::Integer(if ty.is_signed() {
                i128::from((moved as i64) >> shift)
            } else {
                i128::from(moved >> shift)
            })
        }
    }
}

fn range(ty: Type) -> (i128, i128) {
    let width = 8 * ty.bytes() as u32;
    if ty.is_signed() { (-(1 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) }
}

/// Two's complement of the target's width, extended by its sign to 64 bits.
fn integer(value: i128, to: Type, saturate: bool) -> u64 {
    let (least, most) = range(to);
    let value = if saturate { value.clamp(least, most) } else { value };
    let shift = 64 - 8 * to.bytes() as u32;
    let moved = (value as u64) << shift;
    if to.is_signed() { ((moved as i64) >> shift) as u64 } else { moved >> shift }
}

/// Out of range saturates; NaN becomes 0, or the top bit if either type has 64 bits.
fn float_to_integer(value: f64, from: Type, to: Type, round: Round) -> u64 {
    if value.is_nan() {
        let wide = from == Type::F64 || to.bytes() == 8;
        return if wide { 1 << (8 * to.bytes() - 1) } else { 0 };
    }
    // The conversion of Rust saturates to i128, which holds every target's range.
    integer(integral(value, round) as i128, to, true)
}

/// Rounds in f64 first, exactly enough for the target: the residual decides directed roundings.
fn integer_to_float(value: i128, to: Type, round: Round) -> (f64, f64) {
    let nearest = value as f64;
    let residual = (value - nearest as i128) as f64;
    if to == Type::F64 {
        let adjusted = match round {
            Round::Up if residual > 0.0 => nearest.next_up(),
            Round::Down if residual < 0.0 => nearest.next_down(),
            Round::Zero if residual < 0.0 && nearest > 0.0 => nearest.next_down(),
            Round::Zero if residual > 0.0 && nearest < 0.0 => nearest.next_up(),
            _ => nearest,
        };
        return (adjusted, 0.0);
    }
    if round == Round::Nearest && residual != 0.0 {
        // Avoids rounding twice: an f32 has fewer than half the bits, so a sticky last bit is enough.
        let low = if residual > 0.0 { nearest } else { nearest.next_down() };
        return (f64::from_bits(low.to_bits() | 1), 0.0);
    }
    two_sum(nearest, residual)
}

fn float(exact: (f64, f64), cvt: &Cvt) -> u64 {
    let value = exact.0;
    let clamped = match value {
        _ if cvt.mode.sat && (value.is_nan() || value <= 0.0) => (0.0, 0.0),
        _ if cvt.mode.sat && value >= 1.0 => (1.0, 0.0),
        _ if cvt.mode.relu && (value.is_nan() || value < 0.0) => (0.0, 0.0),
        _ => exact,
    };
    match cvt.to {
        Type::F64 => clamped.0.to_bits(),
        Type::F16 | Type::Bf16 => {
            let format = Format::of(cvt.to).expect("one of the two");
            u64::from(format.encode_rounded(clamped.0, rounding_of(cvt)))
        }
        Type::Tf32 => u64::from(tf32(clamped.0 as f32, cvt.mode.round)),
        _ => {
            let result = to_f32(clamped, rounding_of(cvt));
            let result = if cvt.mode.ftz { flush(result) } else { result };
            u64::from(if result.is_nan() { NAN32 } else { result.to_bits() })
        }
    }
}

/// Values that were rounded to integers are rounded to nearest if the target cannot hold them.
fn rounding_of(cvt: &Cvt) -> Round {
    if cvt.integral { Round::Nearest } else { cvt.mode.round }
}

/// Ten bits of mantissa; `.rna` rounds ties away from zero, `.rn` to even, `.rz` cuts.
pub fn tf32(value: f32, round: Round) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return NAN32;
    }
    if value.is_infinite() {
        return bits;
    }
    let rounded = match round {
        Round::NearestAway => bits + 0x1000,
        Round::Zero => bits,
        _ => bits + 0xfff + ((bits >> 13) & 1),
    };
    rounded & !0x1fff
}
