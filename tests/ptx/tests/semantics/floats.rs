//! Floating-point arithmetic: roundings, flushing, saturation, NaN, the 16-bit formats.

use super::support::{check, d, f};

const NAN: u64 = 0x7fff_ffff;
/// The smallest subnormal f32.
const TINY: u64 = 1;
/// 1 + 2^-23.
const NEXT: f32 = 1.0 + f32::EPSILON;

#[test]
fn sums_round_as_asked() {
    let third = f32::EPSILON / 3.0;
    let rows = |nearest, zero, down, up| {
        check("add.rn.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(third)], f(nearest))]);
        check("add.rz.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(third)], f(zero))]);
        check("add.rm.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(third)], f(down))]);
        check("add.rp.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(third)], f(up))]);
    };
    rows(1.0, 1.0, 1.0, NEXT);
    check("sub.rz.f32 %r0, %r1, %r2;", &[(&[f(-1.0), f(third)], f(-1.0))]);
    check("sub.rm.f32 %r0, %r1, %r2;", &[(&[f(-1.0), f(third)], f(-NEXT)), (&[f(2.0), f(2.0)], f(-0.0))]);
    check("sub.rn.f32 %r0, %r1, %r2;", &[(&[f(2.0), f(2.0)], f(0.0)), (&[f(f32::INFINITY), f(f32::INFINITY)], NAN)]);
    // The last digit is far below what an f64 sum holds.
    check("add.rp.f32 %r0, %r1, %r2;", &[(&[f(1e30), TINY], f(1e30f32.next_up()))]);
    check("add.rz.f32 %r0, %r1, %r2;", &[(&[f(f32::MAX), f(f32::MAX)], f(f32::MAX))]);
    check(
        "add.sat.f32 %r0, %r1, %r2;",
        &[(&[f(1.0), f(1.0)], f(1.0)), (&[f(-1.0), f(0.5)], f(0.0)), (&[NAN, f(1.0)], 0)],
    );
    check("add.f64 %d0, %d1, %d2;", &[(&[d(0.1), d(0.2)], d(0.30000000000000004))]);
}

#[test]
fn products_round_as_asked() {
    check("mul.rn.f32 %r0, %r1, %r2;", &[(&[f(NEXT), f(NEXT)], f(1.0 + 2.0 * f32::EPSILON))]);
    check("mul.rp.f32 %r0, %r1, %r2;", &[(&[f(NEXT), f(NEXT)], f(1.0 + 3.0 * f32::EPSILON))]);
    check("mul.rz.f32 %r0, %r1, %r2;", &[(&[f(-NEXT), f(NEXT)], f(-1.0 - 2.0 * f32::EPSILON))]);
    check("mul.ftz.f32 %r0, %r1, %r2;", &[(&[TINY, f(1e30)], 0), (&[f(-1e-30), f(1e-10)], f(-0.0))]);
    check("mul.f32 %r0, %r1, %r2;", &[(&[f(0.0), f(f32::INFINITY)], NAN), (&[f(1e-30), f(1e-10)], f(1e-40))]);
    // One rounding: the product alone would lose the last bit.
    check("fma.rn.f32 %r0, %r1, %r2, %r3;", &[(&[f(NEXT), f(NEXT), f(-1.0 - 2.0 * f32::EPSILON)], f(2f32.powi(-46)))]);
    check("fma.rp.f32 %r0, %r1, %r2, %r3;", &[(&[f(1.0), f(1.0), f(2f32.powi(-60))], f(NEXT))]);
    check("fma.rm.f32 %r0, %r1, %r2, %r3;", &[(&[f(1.0), f(1.0), f(-1.0)], f(-0.0))]);
    check("mad.rn.f32 %r0, %r1, %r2, %r3;", &[(&[f(2.0), f(3.0), f(4.0)], f(10.0))]);
    check("fma.rn.f64 %d0, %d1, %d2, %d3;", &[(&[d(2.0), d(3.0), d(4.0)], d(10.0))]);
    check("fma.rn.ftz.sat.f32 %r0, %r1, %r2, %r3;", &[(&[f(2.0), f(3.0), f(4.0)], f(1.0))]);
}

#[test]
fn quotients_and_roots() {
    check("div.rn.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(3.0)], 0x3eaa_aaab), (&[f(1.0), f(0.0)], f(f32::INFINITY))]);
    check("div.rz.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(3.0)], 0x3eaa_aaaa), (&[f(6.0), f(3.0)], f(2.0))]);
    check("div.rp.f32 %r0, %r1, %r2;", &[(&[f(-1.0), f(3.0)], 0xbeaa_aaaa)]);
    check("div.approx.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(3.0)], 0x3eaa_aaab)]);
    check("div.full.f32 %r0, %r1, %r2;", &[(&[f(6.0), f(3.0)], f(2.0))]);
    check("div.rn.f64 %d0, %d1, %d2;", &[(&[d(1.0), d(3.0)], d(1.0 / 3.0))]);
    check("rcp.rn.f32 %r0, %r1;", &[(&[f(3.0)], 0x3eaa_aaab)]);
    check("rcp.rm.f32 %r0, %r1;", &[(&[f(3.0)], 0x3eaa_aaaa)]);
    check("rcp.approx.ftz.f32 %r0, %r1;", &[(&[f(4.0)], f(0.25)), (&[TINY], f(f32::INFINITY))]);
    check("sqrt.rn.f32 %r0, %r1;", &[(&[f(2.0)], 0x3fb5_04f3), (&[f(-1.0)], NAN), (&[f(-0.0)], f(-0.0))]);
    check("sqrt.rp.f32 %r0, %r1;", &[(&[f(2.0)], 0x3fb5_04f4), (&[f(4.0)], f(2.0))]);
    check("sqrt.approx.f32 %r0, %r1;", &[(&[f(9.0)], f(3.0))]);
    check("sqrt.rn.f64 %d0, %d1;", &[(&[d(2.0)], d(2f64.sqrt()))]);
    check("rsqrt.approx.f32 %r0, %r1;", &[(&[f(4.0)], f(0.5)), (&[f(0.0)], f(f32::INFINITY))]);
}

#[test]
fn approximate_functions_are_rounded_by_default() {
    check("ex2.approx.f32 %r0, %r1;", &[(&[f(3.0)], f(8.0)), (&[f(-149.0)], TINY), (&[f(f32::NEG_INFINITY)], 0)]);
    check("ex2.approx.ftz.f32 %r0, %r1;", &[(&[f(-149.0)], 0)]);
    check("lg2.approx.f32 %r0, %r1;", &[(&[f(8.0)], f(3.0)), (&[f(-1.0)], NAN), (&[f(-0.0)], f(f32::NEG_INFINITY))]);
    check("sin.approx.f32 %r0, %r1;", &[(&[f(1.0)], f(1f64.sin() as f32)), (&[f(-0.0)], f(-0.0))]);
    check("cos.approx.f32 %r0, %r1;", &[(&[f(1.0)], f(1f64.cos() as f32))]);
    check("tanh.approx.f32 %r0, %r1;", &[(&[f(1.0)], f(1f64.tanh() as f32))]);
    check("ex2.approx.ftz.bf16x2 %r0, %r1;", &[(&[0x4000_3f80], 0x4080_4000)]);
    check("tanh.approx.f16 %h0, %h1;", &[(&[0], 0)]);
}

#[test]
fn extrema_and_signs() {
    check("min.f32 %r0, %r1, %r2;", &[(&[f(0.0), f(-0.0)], f(-0.0)), (&[NAN, f(1.0)], f(1.0)), (&[NAN, NAN], NAN)]);
    check("max.f32 %r0, %r1, %r2;", &[(&[f(-0.0), f(0.0)], f(0.0)), (&[f(1.0), NAN], f(1.0))]);
    check("max.NaN.f32 %r0, %r1, %r2;", &[(&[f(1.0), NAN], NAN), (&[f(1.0), f(2.0)], f(2.0))]);
    check("abs.f32 %r0, %r1;", &[(&[f(-1.5)], f(1.5)), (&[0xffc0_0000], NAN)]);
    check("neg.f32 %r0, %r1;", &[(&[f(0.0)], f(-0.0))]);
    check("neg.ftz.f32 %r0, %r1;", &[(&[TINY], f(-0.0))]);
    check("abs.f64 %d0, %d1;", &[(&[d(-1.5)], d(1.5))]);
    check("copysign.f32 %r0, %r1, %r2;", &[(&[f(-1.0), f(2.0)], f(-2.0))]);
    check("max.f64 %d0, %d1, %d2;", &[(&[d(-1.0), d(2.0)], d(2.0))]);
}

#[test]
fn comparisons_with_nan() {
    for (name, ordered, unordered) in
        [("eq", 1, 0), ("ne", 0, 0), ("lt", 0, 0), ("ge", 1, 0), ("equ", 1, 1), ("ltu", 0, 1)]
    {
        let text = format!("setp.{name}.f32 %p0, %r1, %r2;");
        check(&text, &[(&[f(1.0), f(1.0)], ordered), (&[f(1.0), NAN], unordered)]);
    }
    check("setp.num.f32 %p0, %r1, %r2;", &[(&[f(1.0), f(1.0)], 1), (&[NAN, f(1.0)], 0)]);
    check("setp.nan.f64 %p0, %d1, %d2;", &[(&[d(f64::NAN), d(1.0)], 1)]);
    check("setp.eq.ftz.f32 %p0, %r1, %r2;", &[(&[TINY, 0], 1)]);
    check("setp.gt.bf16 %p0, %h1, %h2;", &[(&[0x4000, 0x3f80], 1)]);
}

#[test]
fn sixteen_bits() {
    // f16: 1.0 = 3c00, 2.0 = 4000, 1 + 2^-10 = 3c01; bf16: 1.0 = 3f80, 2.0 = 4000, 1 + 2^-7 = 3f81.
    check("add.f16 %h0, %h1, %h2;", &[(&[0x3c00, 0x3c00], 0x4000), (&[0x7bff, 0x7bff], 0x7c00)]);
    check("mul.f16x2 %r0, %r1, %r2;", &[(&[0x3c00_4000, 0x4000_4000], 0x4000_4400)]);
    check("sub.bf16x2 %r0, %r1, %r2;", &[(&[0x4000_3f80, 0x3f80_3f80], 0x3f80_0000)]);
    check("fma.rn.f16 %h0, %h1, %h2, %h3;", &[(&[0x3c01, 0x3c01, 0xbc02], 0x0010)]);
    check("fma.rn.bf16x2 %r0, %r1, %r2, %r3;", &[(&[0x3f80_4000, 0x3f80_4000, 0x3f80_3f80], 0x4000_40a0)]);
    check("fma.rn.relu.bf16 %h0, %h1, %h2, %h3;", &[(&[0xbf80, 0x4000, 0x3f80], 0)]);
    check("max.bf16 %h0, %h1, %h2;", &[(&[0x7fff, 0x3f80], 0x3f80)]);
    check("max.NaN.bf16x2 %r0, %r1, %r2;", &[(&[0x7fff_3f80, 0x3f80_4000], 0x7fff_4000)]);
    check("neg.bf16x2 %r0, %r1;", &[(&[0x3f80_bf80], 0xbf80_3f80)]);
    check("abs.f16x2 %r0, %r1;", &[(&[0xbc00_3c00], 0x3c00_3c00)]);
}
