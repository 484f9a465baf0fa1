//! Arithmetic over the lanes of a warp: integers are passed on, floating point is done here.
//!
//! The frequent f32 instructions without modifiers run in vector code for AVX2 and FMA where the host has them; the results
//! are the same without.

use super::integer_lanes::{self, map1, map2, map3, wide1, wide2, wide3};
use super::machine::Machine;
use super::warp::Registers;
use crate::decode::program::{BinaryOp, Mode, Reg, Round, TernaryOp, UnaryOp};
use crate::float::approximate::Approximation;
use crate::float::sixteen::Format;
use crate::float::{NAN32, bits32, flush, round};
use crate::syntax::tree::Type;

/// Nothing but rounding to nearest.
const PLAIN: Mode = Mode { round: Round::Nearest, ftz: false, sat: false, approx: false, nan: false, relu: false };

impl Machine<'_> {
    pub(super) fn unary(&self, r: &mut Registers, mask: u32, (op, ty, mode): (UnaryOp, Type, Mode), d: Reg, a: Reg) {
        match ty {
            Type::F32 => unary32(r, mask, op, mode, self.options.approximation, d, a),
            Type::F64 => unary64(r, mask, op, mode, d, a),
            _ if ty.is_float() && op != UnaryOp::Mov => unary16(r, mask, op, ty, self.options.approximation, d, a),
            _ => integer_lanes::unary(r, mask, op, ty, d, a),
        }
    }

    pub(super) fn binary(
        &self,
        r: &mut Registers,
        mask: u32,
        (op, ty, mode): (BinaryOp, Type, Mode),
        d: Reg,
        s: [Reg; 2],
    ) {
        let logic = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
        match ty {
            Type::F32 if mode == PLAIN && op == BinaryOp::Add => map2(r, mask, d, s, |a, b| bits32(f(a) + f(b))),
            Type::F32 if mode == PLAIN && op == BinaryOp::Sub => map2(r, mask, d, s, |a, b| bits32(f(a) - f(b))),
            Type::F32 if mode == PLAIN && op == BinaryOp::Mul => map2(r, mask, d, s, |a, b| bits32(f(a) * f(b))),
            Type::F32 => {
                let approximation = self.options.approximation;
                map2(r, mask, d, s, |a, b| bits32(scalar32(op, mode, approximation, f(a), f(b))));
            }
            Type::F64 => wide2(r, mask, d, s, |a, b| scalar64(op, f64::from_bits(a), f64::from_bits(b)).to_bits()),
            _ if ty.is_float() && !logic => binary16(r, mask, op, ty, mode, d, s),
            _ => integer_lanes::binary(r, mask, (op, ty, mode), d, s),
        }
    }

    pub(super) fn ternary(
        &self,
        r: &mut Registers,
        mask: u32,
        (op, ty, mode): (TernaryOp, Type, Mode),
        d: Reg,
        s: [Reg; 3],
    ) {
        match ty {
            Type::F32 if mode == PLAIN => fma_lanes(r, mask, d, s),
            Type::F32 => map3(r, mask, d, s, |a, b, c| {
                let [a, b, c] = [f(a), f(b), f(c)].map(|value| if mode.ftz { flush(value) } else { value });
                bits32(finish(round::fma(a, b, c, mode.round), mode))
            }),
            Type::F64 => wide3(r, mask, d, s, |a, b, c| {
                f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()
            }),
            _ if ty.is_float() => fma16(r, mask, ty, mode, d, s),
            _ => integer_lanes::ternary(r, mask, (op, ty, mode), d, s),
        }
    }
}

#[inline(always)]
fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// `fma.rn.f32`: with FMA instructions where the host has them.
fn fma_lanes(r: &mut Registers, mask: u32, d: Reg, s: [Reg; 3]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the features that the function is compiled for.
        unsafe { fma_lanes_avx2(r, mask, d, s) };
        return;
    }
    map3(r, mask, d, s, |a, b, c| bits32(f(a).mul_add(f(b), f(c))));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fma_lanes_avx2(r: &mut Registers, mask: u32, d: Reg, s: [Reg; 3]) {
    map3(r, mask, d, s, |a, b, c| bits32(f(a).mul_add(f(b), f(c))));
}

/// Flushes and clamps a result.
fn finish(value: f32, mode: Mode) -> f32 {
    let value = if mode.ftz { flush(value) } else { value };
    match mode {
        Mode { sat: true, .. } if value.is_nan() => 0.0,
        Mode { sat: true, .. } => value.clamp(0.0, 1.0) + 0.0,
        Mode { relu: true, .. } if value.is_nan() || value < 0.0 => 0.0,
        _ => value,
    }
}

fn scalar32(op: BinaryOp, mode: Mode, approximation: Approximation, a: f32, b: f32) -> f32 {
    let [a, b] = [a, b].map(|value| if mode.ftz { flush(value) } else { value });
    let result = match op {
        BinaryOp::Add => round::add(a, b, mode.round),
        BinaryOp::Sub => round::add(a, -b, mode.round),
        BinaryOp::Mul => round::mul(a, b, mode.round),
        BinaryOp::Div if mode.approx => approximation.div(a, b, mode.ftz),
        BinaryOp::Div => round::div(a, b, mode.round),
        // `copysign d, a, b`: the sign of a on the magnitude of b.
        BinaryOp::CopySign => b.copysign(a),
        _ => extremum(op == BinaryOp::Max, mode.nan, f64::from(a), f64::from(b)) as f32,
    };
    finish(result, mode)
}

fn scalar64(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::CopySign => b.copysign(a),
        _ => extremum(op == BinaryOp::Max, false, a, b),
    }
}

/// Minimum or maximum: -0 is less than +0; a NaN loses, or wins with `.NaN`.
fn extremum(max: bool, keep_nan: bool, a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return match (a.is_nan(), keep_nan) {
            (_, true) => f64::NAN,
            (true, false) => b,
            (false, false) => a,
        };
    }
    let a_less = a < b || (a == b && a.is_sign_negative());
    if a_less == max { b } else { a }
}

fn unary32(r: &mut Registers, mask: u32, op: UnaryOp, mode: Mode, approximation: Approximation, d: Reg, a: Reg) {
    let ftz = mode.ftz;
    let input = |bits: u32| if ftz { flush(f(bits)) } else { f(bits) };
    match op {
        UnaryOp::Mov => map1(r, mask, d, a, |a| a),
        UnaryOp::Neg => map1(r, mask, d, a, |a| sign_bits(-input(a), a ^ 0x8000_0000)),
        UnaryOp::Abs => map1(r, mask, d, a, |a| sign_bits(input(a).abs(), a & 0x7fff_ffff)),
        UnaryOp::Rcp if mode.approx => map1(r, mask, d, a, |a| bits32(approximation.rcp(f(a), ftz))),
        UnaryOp::Rcp => map1(r, mask, d, a, |a| bits32(finish(round::div(1.0, input(a), mode.round), mode))),
        UnaryOp::Sqrt if mode.approx => map1(r, mask, d, a, |a| bits32(approximation.sqrt(f(a), ftz))),
        UnaryOp::Sqrt => map1(r, mask, d, a, |a| bits32(finish(round::sqrt(input(a), mode.round), mode))),
        UnaryOp::Rsqrt => map1(r, mask, d, a, |a| bits32(approximation.rsqrt(f(a), ftz))),
        UnaryOp::Ex2 => map1(r, mask, d, a, |a| bits32(approximation.ex2(f(a), ftz))),
        UnaryOp::Lg2 => map1(r, mask, d, a, |a| bits32(approximation.lg2(f(a), ftz))),
        UnaryOp::Sin => map1(r, mask, d, a, |a| bits32(approximation.sin(f(a), ftz))),
        UnaryOp::Cos => map1(r, mask, d, a, |a| bits32(approximation.cos(f(a), ftz))),
        UnaryOp::Tanh => map1(r, mask, d, a, |a| bits32(approximation.tanh(f(a)))),
        UnaryOp::Not | UnaryOp::Brev => {}
    }
}

/// Negation and absolute value of NaN give the canonical NaN.
fn sign_bits(value: f32, bits: u32) -> u32 {
    if value.is_nan() {
        NAN32
    } else if value == 0.0 {
        value.to_bits()
    } else {
        bits
    }
}

fn unary64(r: &mut Registers, mask: u32, op: UnaryOp, mode: Mode, d: Reg, a: Reg) {
    let map = |bits: u64, f: fn(f64) -> f64| f(f64::from_bits(bits)).to_bits();
    match op {
        UnaryOp::Neg => wide1(r, mask, d, a, |a| a ^ 1 << 63),
        UnaryOp::Abs => wide1(r, mask, d, a, |a| a & !(1 << 63)),
        UnaryOp::Sqrt => wide1(r, mask, d, a, |a| map(a, f64::sqrt)),
        // `rcp.approx.ftz.f64` keeps the upper 32 bits of the result only.
        UnaryOp::Rcp if mode.approx => wide1(r, mask, d, a, |a| map(a, f64::recip) & !0xffff_ffff),
        UnaryOp::Rcp => wide1(r, mask, d, a, |a| map(a, f64::recip)),
        _ => wide1(r, mask, d, a, |a| a),
    }
}

/// Applies a function of f64 to 16-bit numbers, packed or not.
#[inline(always)]
fn sixteen<const N: usize>(ty: Type, operands: [u32; N], f: impl Fn([f64; N]) -> f64) -> u32 {
    let format = Format::of(ty).expect("decoding admits 16-bit formats only");
    let one = |bits: [u16; N]| format.encode(f(bits.map(|bits| format.decode(bits))));
    if ty.bytes() == 4 { Format::pairs(operands, one) } else { u32::from(one(operands.map(|bits| bits as u16))) }
}

fn unary16(r: &mut Registers, mask: u32, op: UnaryOp, ty: Type, approximation: Approximation, d: Reg, a: Reg) {
    let signs = if ty.bytes() == 4 { 0x8000_8000 } else { 0x8000 };
    match op {
        UnaryOp::Neg => map1(r, mask, d, a, |a| a ^ signs),
        UnaryOp::Abs => map1(r, mask, d, a, |a| a & !signs),
        UnaryOp::Ex2 => {
            let format = Format::of(ty).expect("decoding admits 16-bit formats only");
            map1(r, mask, d, a, |a| sixteen(ty, [a], |[a]| approximation.ex2_sixteen(a, format)));
        }
        _ => map1(r, mask, d, a, |a| sixteen(ty, [a], |[a]| approximation.tanh_sixteen(a))),
    }
}

fn binary16(r: &mut Registers, mask: u32, op: BinaryOp, ty: Type, mode: Mode, d: Reg, s: [Reg; 2]) {
    let operation = |a: f64, b: f64| match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        _ => extremum(op == BinaryOp::Max, mode.nan, a, b),
    };
    map2(r, mask, d, s, |a, b| sixteen(ty, [a, b], |[a, b]| clamp(operation(a, b), mode)));
}

fn fma16(r: &mut Registers, mask: u32, ty: Type, mode: Mode, d: Reg, s: [Reg; 3]) {
    map3(r, mask, d, s, |a, b, c| sixteen(ty, [a, b, c], |[a, b, c]| clamp(a.mul_add(b, c), mode)));
}

fn clamp(value: f64, mode: Mode) -> f64 {
    match mode {
        Mode { sat: true, .. } if value.is_nan() => 0.0,
        Mode { sat: true, .. } => value.clamp(0.0, 1.0),
        Mode { relu: true, .. } if value.is_nan() || value < 0.0 => 0.0,
        _ => value,
    }
}
