//! Moves, packing, `cvt`.

use super::support::{check, d, f, s};

#[test]
fn floats_to_integers() {
    for (rounding, values) in
        [("rni", [0, 2, 2, s(-2)]), ("rzi", [0, 1, 2, s(-1)]), ("rmi", [0, 1, 2, s(-2)]), ("rpi", [1, 2, 3, s(-1)])]
    {
        let rows = [0.5, 1.5, 2.5, -1.5].map(f);
        let text = format!("cvt.{rounding}.s32.f32 %r0, %r1;");
        for (operand, expected) in rows.iter().zip(values) {
            check(&text, &[(&[*operand], expected)]);
        }
    }
    check("cvt.rzi.s32.f32 %r0, %r1;", &[(&[f(1e20)], 0x7fff_ffff), (&[f(-1e20)], s(i32::MIN)), (&[f(f32::NAN)], 0)]);
    check("cvt.rzi.u32.f32 %r0, %r1;", &[(&[f(-5.0)], 0), (&[f(4e9)], 4_000_000_000)]);
    check("cvt.rzi.s64.f32 %d0, %r1;", &[(&[f(f32::NAN)], 1 << 63), (&[f(-3.5)], (-3i64) as u64)]);
    check("cvt.rzi.u16.f32 %h0, %r1;", &[(&[f(70000.0)], 0xffff)]);
    check("cvt.rni.f32.f32 %r0, %r1;", &[(&[f(2.5)], f(2.0)), (&[f(-0.25)], f(-0.0))]);
    check("cvt.rmi.f64.f64 %d0, %d1;", &[(&[d(-0.5)], d(-1.0))]);
}

#[test]
fn integers_to_floats() {
    check("cvt.rn.f32.u32 %r0, %r1;", &[(&[0xffff_ffff], f(4294967296.0)), (&[0x0100_0001], f(16777216.0))]);
    check("cvt.rz.f32.u32 %r0, %r1;", &[(&[0xffff_ffff], f(4294967040.0))]);
    check("cvt.rp.f32.s32 %r0, %r1;", &[(&[0x0100_0001], f(16777218.0)), (&[s(-0x0100_0001)], f(-16777216.0))]);
    // Rounding through f64 would end on a tie and go to even.
    check("cvt.rn.f32.u64 %r0, %d1;", &[(&[(1 << 60) + (1 << 36) + 1], f(1152921642045800448.0))]);
    check("cvt.rn.f64.s64 %d0, %d1;", &[(&[u64::MAX], d(-1.0)), (&[(1 << 53) + 1], d(9007199254740992.0))]);
    check("cvt.rn.f16.s32 %h0, %r1;", &[(&[2049], 0x6800), (&[70000], 0x7c00)]);
    check("cvt.rn.bf16.u16 %h0, %h1;", &[(&[3], 0x4040)]);
}

#[test]
fn integers_to_integers() {
    check("cvt.s64.s32 %d0, %r1;", &[(&[s(-1)], u64::MAX)]);
    check("cvt.u64.u32 %d0, %r1;", &[(&[s(-1)], 0xffff_ffff)]);
    check("cvt.s32.s8 %r0, %r1;", &[(&[0x1ff], s(-1))]);
    check("cvt.u32.u8 %r0, %h1;", &[(&[0x1ff], 0xff)]);
    check("cvt.u16.u32 %h0, %r1;", &[(&[0x1_2345], 0x2345)]);
    check("cvt.sat.u8.s32 %r0, %r1;", &[(&[300], 255), (&[s(-1)], 0)]);
    check("cvt.sat.s16.s32 %r0, %r1;", &[(&[40000], 0x7fff)]);
}

#[test]
fn floats_to_floats() {
    check("cvt.rn.f32.f64 %r0, %d1;", &[(&[d(0.1)], f(0.1)), (&[d(1e300)], f(f32::INFINITY))]);
    check("cvt.rz.f32.f64 %r0, %d1;", &[(&[d(1e300)], f(f32::MAX)), (&[d(-0.1)], f((-0.1f32).next_up()))]);
    check("cvt.f64.f32 %d0, %r1;", &[(&[f(0.1)], d(f64::from(0.1f32)))]);
    check(
        "cvt.f32.f16 %r0, %h1;",
        &[(&[0x3555], f(0.33325195)), (&[0x0001], f(5.9604645e-8)), (&[0xfc00], f(f32::NEG_INFINITY))],
    );
    check("cvt.f32.bf16 %r0, %h1;", &[(&[0x3fc0], f(1.5))]);
    check(
        "cvt.rn.f16.f32 %h0, %r1;",
        &[(&[f(65520.0)], 0x7c00), (&[f(65519.0)], 0x7bff), (&[f(1e-8)], 0), (&[f(f32::NAN)], 0x7fff)],
    );
    check("cvt.rz.f16.f32 %h0, %r1;", &[(&[f(1e9)], 0x7bff)]);
    // A tie goes to even, whatever lies below it does not.
    check("cvt.rn.bf16.f32 %h0, %r1;", &[(&[0x3f80_8000], 0x3f80), (&[0x3f81_8000], 0x3f82), (&[0x3f80_8001], 0x3f81)]);
    check("cvt.rn.bf16x2.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(2.0)], 0x3f80_4000)]);
    check("cvt.rn.relu.bf16x2.f32 %r0, %r1, %r2;", &[(&[f(-1.0), f(2.0)], 0x4000)]);
    check("cvt.rn.f16x2.f32 %r0, %r1, %r2;", &[(&[f(1.0), f(-2.0)], 0x3c00_c000)]);
    check("cvt.rna.tf32.f32 %r0, %r1;", &[(&[0x3f80_1000], 0x3f80_2000), (&[0x3f80_0fff], 0x3f80_0000)]);
    check("cvt.sat.f32.f32 %r0, %r1;", &[(&[f(1.5)], f(1.0)), (&[f(f32::NAN)], 0)]);
}

#[test]
fn packing() {
    check("mov.b64 %d0, {%r1, %r2};", &[(&[1, 2], 0x2_0000_0001)]);
    check("mov.b32 %r0, {%h1, %h2};", &[(&[1, 2], 0x2_0001)]);
    check("mov.b64 {%r9, %r0}, %d1;", &[(&[0x2_0000_0001], 2)]);
    check("mov.b32 {%h0, _}, %r1;", &[(&[0x2_0001], 1)]);
    check("mov.b64 %d0, {%h1, %h2, %h3, %h4};", &[(&[1, 2, 3, 4], 0x4_0003_0002_0001)]);
    check("mov.b32 %r0, 0f3F800000;\nadd.u32 %r0, %r0, %r1;", &[(&[0], f(1.0))]);
    check("mov.b64 %d0, 0d3FF0000000000000;\nadd.u64 %d0, %d0, %d1;", &[(&[0], d(1.0))]);
    check("mov.b16 %h0, -1;\nadd.u16 %h0, %h0, %h1;", &[(&[0], 0xffff)]);
}
