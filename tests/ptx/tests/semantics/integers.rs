//! Integer, logic and bit instructions.

use super::support::{check, d, s};

#[test]
fn sums_and_products() {
    check("add.s32 %r0, %r1, %r2;", &[(&[s(-1), 1], 0), (&[0x7fff_ffff, 1], 0x8000_0000)]);
    check("add.sat.s32 %r0, %r1, %r2;", &[(&[0x7fff_ffff, 1], 0x7fff_ffff), (&[s(i32::MIN), s(-1)], s(i32::MIN))]);
    check("sub.u64 %d0, %d1, %d2;", &[(&[0, 1], u64::MAX), (&[1 << 40, 1], (1 << 40) - 1)]);
    check("add.u16 %h0, %h1, %h2;", &[(&[0xffff, 2], 1)]);
    check("mul.lo.s32 %r0, %r1, %r2;", &[(&[s(-3), 7], s(-21)), (&[0x1_0000, 0x1_0000], 0)]);
    check("mul.hi.u32 %r0, %r1, %r2;", &[(&[0xffff_ffff, 0xffff_ffff], 0xffff_fffe), (&[0x8000_0000, 2], 1)]);
    check("mul.hi.s32 %r0, %r1, %r2;", &[(&[s(-1), 1], s(-1)), (&[s(i32::MIN), s(i32::MIN)], 0x4000_0000)]);
    check("mul.hi.u64 %d0, %d1, %d2;", &[(&[u64::MAX, u64::MAX], u64::MAX - 1), (&[1 << 63, 4], 2)]);
    check("mul.hi.s64 %d0, %d1, %d2;", &[(&[u64::MAX, 5], u64::MAX)]);
    check("mul.wide.u32 %d0, %r1, %r2;", &[(&[0xffff_ffff, 0xffff_ffff], 0xffff_fffe_0000_0001)]);
    check("mul.wide.s32 %d0, %r1, %r2;", &[(&[s(-1), 5], (-5i64) as u64)]);
    check("mul.wide.u16 %r0, %h1, %h2;", &[(&[0xffff, 0xffff], 0xfffe_0001)]);
    check("mul.wide.s16 %r0, %h1, %h2;", &[(&[0xffff, 3], s(-3))]);
    check("mul24.lo.u32 %r0, %r1, %r2;", &[(&[0xff00_0003, 5], 15)]);
    check("mad.lo.s32 %r0, %r1, %r2, %r3;", &[(&[3, 4, s(-5)], 7)]);
    check("mad.lo.u64 %d0, %d1, %d2, %d3;", &[(&[1 << 33, 2, 1], (1 << 34) + 1)]);
    check("mad.hi.u32 %r0, %r1, %r2, %r3;", &[(&[0x8000_0000, 6, 10], 13)]);
    check("mad.wide.u32 %d0, %r1, %r2, %d3;", &[(&[1 << 31, 4, 5], (1 << 33) + 5)]);
    check("mad.wide.s32 %d0, %r1, %r2, %d3;", &[(&[s(-2), 3, 10], 4)]);
    check("sad.u32 %r0, %r1, %r2, %r3;", &[(&[3, 10, 1], 8)]);
    check("sad.s32 %r0, %r1, %r2, %r3;", &[(&[s(-3), 10, 1], 14)]);
}

#[test]
fn quotients_and_extrema() {
    check("div.s32 %r0, %r1, %r2;", &[(&[s(-7), 2], s(-3)), (&[7, s(-2)], s(-3))]);
    check("div.u32 %r0, %r1, %r2;", &[(&[s(-7), 2], 0x7fff_fffc)]);
    check("rem.s32 %r0, %r1, %r2;", &[(&[s(-7), 2], s(-1)), (&[7, s(-2)], 1)]);
    check("rem.u64 %d0, %d1, %d2;", &[(&[(1 << 40) + 3, 1 << 20], 3)]);
    check("min.s32 %r0, %r1, %r2;", &[(&[s(-1), 1], s(-1))]);
    check("min.u32 %r0, %r1, %r2;", &[(&[s(-1), 1], 1)]);
    check("max.s64 %d0, %d1, %d2;", &[(&[u64::MAX, 1], 1)]);
    check("max.u16 %h0, %h1, %h2;", &[(&[0xffff, 1], 0xffff)]);
    check("max.s16 %h0, %h1, %h2;", &[(&[0xffff, 1], 1)]);
    check("neg.s32 %r0, %r1;", &[(&[5], s(-5)), (&[s(i32::MIN)], s(i32::MIN))]);
    check("abs.s32 %r0, %r1;", &[(&[s(-5)], 5)]);
    check("abs.s64 %d0, %d1;", &[(&[(-5i64) as u64], 5)]);
}

#[test]
fn logic_and_shifts() {
    check("and.b32 %r0, %r1, %r2;", &[(&[0b1100, 0b1010], 0b1000)]);
    check("or.b64 %d0, %d1, %d2;", &[(&[1 << 40, 1], (1 << 40) + 1)]);
    check("xor.b16 %h0, %h1, %h2;", &[(&[0xf0f0, 0xffff], 0x0f0f)]);
    check("not.b32 %r0, %r1;", &[(&[0], 0xffff_ffff)]);
    check("not.b16 %h0, %h1;", &[(&[1], 0xfffe)]);
    check("shl.b32 %r0, %r1, %r2;", &[(&[1, 31], 1 << 31), (&[1, 32], 0), (&[1, 1 << 20], 0)]);
    check("shr.u32 %r0, %r1, %r2;", &[(&[1 << 31, 31], 1), (&[1 << 31, 32], 0)]);
    check("shr.s32 %r0, %r1, %r2;", &[(&[1 << 31, 4], 0xf800_0000), (&[1 << 31, 99], 0xffff_ffff)]);
    check("shl.b64 %d0, %d1, %r2;", &[(&[1, 63], 1 << 63), (&[1, 64], 0)]);
    check("shr.s64 %d0, %d1, %r2;", &[(&[1 << 63, 62], u64::MAX - 1), (&[1 << 63, 64], u64::MAX)]);
    check("shr.s16 %h0, %h1, %r2;", &[(&[0x8000, 3], 0xf000)]);
    check("shl.b16 %h0, %h1, %r2;", &[(&[0xffff, 4], 0xfff0)]);
    check("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", &[(&[0xaaaa_0000, 1, 8], 0x1aa), (&[0xaaaa_0000, 1, 40], 0x1aa)]);
    check("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", &[(&[0xff, 1, 4], 0x1000_000f), (&[0xff, 1, 99], 1)]);
    check("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", &[(&[0b1111, 0b0011, 0b0101], 0b1001)]);
    check("lop3.b32 %r0, %r1, %r2, %r3, 0xe8;", &[(&[0b1100, 0b1010, 0b0110], 0b1110)]);
}

#[test]
fn bits() {
    check("popc.b32 %r0, %r1;", &[(&[0xf0f0], 8)]);
    check("popc.b64 %r0, %d1;", &[(&[u64::MAX], 64)]);
    check("clz.b32 %r0, %r1;", &[(&[0], 32), (&[1], 31)]);
    check("clz.b64 %r0, %d1;", &[(&[1], 63)]);
    check("brev.b32 %r0, %r1;", &[(&[0b1011], 0xd000_0000)]);
    check("bfind.u32 %r0, %r1;", &[(&[0x400], 10), (&[0], 0xffff_ffff)]);
    check("bfind.s32 %r0, %r1;", &[(&[s(-1)], 0xffff_ffff), (&[s(-5)], 2)]);
    check("bfind.shiftamt.u32 %r0, %r1;", &[(&[0x400], 21)]);
    check(
        "bfe.u32 %r0, %r1, %r2, %r3;",
        &[(&[0xabcd_1234, 8, 8], 0x12), (&[0xabcd_1234, 28, 8], 0xa), (&[7, 0, 0], 0)],
    );
    check("bfe.s32 %r0, %r1, %r2, %r3;", &[(&[0x80, 4, 4], s(-8)), (&[0xabcd_1234, 28, 8], s(-6))]);
    check("bfe.u64 %d0, %d1, %r2, %r3;", &[(&[0xab_0000_0000, 32, 8], 0xab)]);
    check(
        "bfi.b32 %r0, %r1, %r2, %r3, %r4;",
        &[(&[0xf, 0xffff_0000, 4, 8], 0xffff_00f0), (&[0xf, 0, 30, 8], 0xc000_0000)],
    );
    check("prmt.b32 %r0, %r1, %r2, %r3;", &[(&[0x3322_1100, 0x7766_5544, 0x5410], 0x5544_1100)]);
    check("prmt.b32 %r0, %r1, %r2, %r3;", &[(&[0x8022_1100, 0x7766_5544, 0xbb30], 0xffff_8000)]);
}

#[test]
fn comparisons_and_selection() {
    check("setp.lt.s32 %p0, %r1, %r2;", &[(&[s(-1), 1], 1), (&[1, 1], 0)]);
    check("setp.lo.u32 %p0, %r1, %r2;", &[(&[s(-1), 1], 0)]);
    check("setp.hs.u64 %p0, %d1, %d2;", &[(&[u64::MAX, 1], 1)]);
    check("setp.ne.b16 %p0, %h1, %h2;", &[(&[0xffff, 0xffff], 0)]);
    check("setp.lt.s16 %p0, %h1, %h2;", &[(&[0xffff, 0], 1)]);
    check("setp.eq.and.s32 %p0, %r1, %r2, %p3;", &[(&[1, 1, 1], 1), (&[1, 1, 0], 0), (&[1, 2, 1], 0)]);
    check("setp.eq.or.s32 %p0, %r1, %r2, !%p3;", &[(&[1, 2, 0], 1), (&[1, 2, 1], 0)]);
    check("setp.eq.s32 %p9|%p0, %r1, %r2;", &[(&[1, 1], 0), (&[1, 2], 1)]);
    check("selp.b32 %r0, %r1, %r2, %p3;", &[(&[5, 6, 1], 5), (&[5, 6, 0], 6)]);
    check("selp.f64 %d0, %d1, %d2, %p3;", &[(&[d(0.5), d(1.5), 0], d(1.5))]);
    check("and.pred %p0, %p1, !%p2;", &[(&[1, 0], 1), (&[1, 1], 0)]);
    check("xor.pred %p0, %p1, %p2;", &[(&[1, 0], 1), (&[1, 1], 0)]);
    check("not.pred %p0, %p1;", &[(&[1], 0), (&[0], 1)]);
    check("mov.pred %p0, %p1;", &[(&[1], 1), (&[0], 0)]);
}

/// Philox4x32-10 needs exactly mul.hi, mul.lo and xor: a known answer of Random123 (Salmon et al., SC 2011) for zero counter
/// and key.
#[test]
fn philox_gives_its_known_answer() {
    let mut body = String::from(
        "mov.b32 %r1, 0; mov.b32 %r2, 0; mov.b32 %r3, 0; mov.b32 %r4, 0; mov.b32 %r5, 0; mov.b32 %r6, 0;\n",
    );
    for _ in 0..10 {
        body += "mul.hi.u32 %r7, %r1, 0xD2511F53; mul.lo.u32 %r8, %r1, 0xD2511F53;
                 mul.hi.u32 %r9, %r3, 0xCD9E8D57; mul.lo.u32 %r10, %r3, 0xCD9E8D57;
                 xor.b32 %r1, %r9, %r2; xor.b32 %r1, %r1, %r5; mov.b32 %r2, %r10;
                 xor.b32 %r3, %r7, %r4; xor.b32 %r3, %r3, %r6; mov.b32 %r4, %r8;
                 add.u32 %r5, %r5, 0x9E3779B9; add.u32 %r6, %r6, 0xBB67AE85;\n";
    }
    body += "st.global.v4.b32 [%out], {%r1, %r2, %r3, %r4};";
    let output = super::support::run(&body, 1, &[0], 4);
    assert_eq!(output, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
}
