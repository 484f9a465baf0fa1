//! Integer, logic and bit instructions over the lanes of a warp.

use super::warp::{LANES, Lanes, Registers, blend};
use crate::decode::program::{BinaryOp, Compare, CountOp, Elements, Mode, Op, Reg, TernaryOp, UnaryOp};
use crate::float::flush;
use crate::float::sixteen::Format;
use crate::syntax::tree::Type;

/// `d = f(a)` in 32-bit registers.
#[inline(always)]
pub fn map1(r: &mut Registers, mask: u32, d: Reg, a: Reg, f: impl Fn(u32) -> u32) {
    let value = r.narrow[a as usize].map(f);
    blend(&mut r.narrow[d as usize], &value, mask);
}

/// `d = f(a, b)` in 32-bit registers.
#[inline(always)]
pub fn map2(r: &mut Registers, mask: u32, d: Reg, [a, b]: [Reg; 2], f: impl Fn(u32, u32) -> u32) {
    let (a, b) = (&r.narrow[a as usize], &r.narrow[b as usize]);
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane], b[lane]);
    }
    blend(&mut r.narrow[d as usize], &value, mask);
}

/// `d = f(a, b, c)` in 32-bit registers.
#[inline(always)]
pub fn map3(r: &mut Registers, mask: u32, d: Reg, [a, b, c]: [Reg; 3], f: impl Fn(u32, u32, u32) -> u32) {
    let (a, b, c) = (&r.narrow[a as usize], &r.narrow[b as usize], &r.narrow[c as usize]);
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane], b[lane], c[lane]);
    }
    blend(&mut r.narrow[d as usize], &value, mask);
}

/// `d = f(a)` in 64-bit registers.
#[inline(always)]
pub fn wide1(r: &mut Registers, mask: u32, d: Reg, a: Reg, f: impl Fn(u64) -> u64) {
    let value = r.wide[a as usize].map(f);
    blend(&mut r.wide[d as usize], &value, mask);
}

/// `d = f(a, b)` in 64-bit registers.
#[inline(always)]
pub fn wide2(r: &mut Registers, mask: u32, d: Reg, [a, b]: [Reg; 2], f: impl Fn(u64, u64) -> u64) {
    let (a, b) = (&r.wide[a as usize], &r.wide[b as usize]);
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane], b[lane]);
    }
    blend(&mut r.wide[d as usize], &value, mask);
}

/// `d = f(a, b, c)` in 64-bit registers.
#[inline(always)]
pub fn wide3(r: &mut Registers, mask: u32, d: Reg, [a, b, c]: [Reg; 3], f: impl Fn(u64, u64, u64) -> u64) {
    let (a, b, c) = (&r.wide[a as usize], &r.wide[b as usize], &r.wide[c as usize]);
    let mut value = [0; LANES];
    for lane in 0..LANES {
        value[lane] = f(a[lane], b[lane], c[lane]);
    }
    blend(&mut r.wide[d as usize], &value, mask);
}

/// Sign-extends a value of a signed type, zero-extends others.
#[inline(always)]
fn extend(bits: u64, ty: Type) -> i64 {
    let shift = 64 - 8 * ty.bytes() as u32;
    if ty.is_signed() { ((bits << shift) as i64) >> shift } else { ((bits << shift) >> shift) as i64 }
}

fn narrow_mask(ty: Type) -> u32 {
    if ty.bytes() == 2 { 0xffff } else { u32::MAX }
}

/// Unary instructions on integers.
pub fn unary(r: &mut Registers, mask: u32, op: UnaryOp, ty: Type, d: Reg, a: Reg) {
    let bits = narrow_mask(ty);
    match (op, ty.bytes()) {
        (UnaryOp::Mov, 8) => wide1(r, mask, d, a, |a| a),
        (UnaryOp::Mov, _) => map1(r, mask, d, a, |a| a),
        (UnaryOp::Neg, 8) => wide1(r, mask, d, a, u64::wrapping_neg),
        (UnaryOp::Neg, _) => map1(r, mask, d, a, |a| a.wrapping_neg() & bits),
        (UnaryOp::Abs, 8) => wide1(r, mask, d, a, |a| (a as i64).unsigned_abs()),
        (UnaryOp::Abs, 2) => map1(r, mask, d, a, |a| u32::from((a as i16).unsigned_abs())),
        (UnaryOp::Abs, _) => map1(r, mask, d, a, |a| (a as i32).unsigned_abs()),
        (UnaryOp::Brev, 8) => wide1(r, mask, d, a, u64::reverse_bits),
        (UnaryOp::Brev, _) => map1(r, mask, d, a, u32::reverse_bits),
        (_, 8) => wide1(r, mask, d, a, |a| !a),
        (_, _) => map1(r, mask, d, a, |a| !a & bits),
    }
}

/// Binary instructions on integers.
pub fn binary(r: &mut Registers, mask: u32, (op, ty, mode): (BinaryOp, Type, Mode), d: Reg, s: [Reg; 2]) {
    match (ty.bytes(), ty.is_signed()) {
        (8, _) => binary64(r, mask, op, ty, d, s),
        (4, true) if mode.sat => match op {
            BinaryOp::Sub => map2(r, mask, d, s, |a, b| (a as i32).saturating_sub(b as i32) as u32),
            _ => map2(r, mask, d, s, |a, b| (a as i32).saturating_add(b as i32) as u32),
        },
        (4, _) => binary32(r, mask, op, ty.is_signed(), d, s),
        (bytes, _) => {
            let bits = if bytes == 2 { 0xffff } else { 0xff };
            let value = |a: u32, b: u32| scalar(op, extend(u64::from(a), ty), extend(u64::from(b), ty), ty);
            map2(r, mask, d, s, |a, b| value(a, b) as u32 & bits);
        }
    }
}

#[inline]
fn binary32(r: &mut Registers, mask: u32, op: BinaryOp, signed: bool, d: Reg, s: [Reg; 2]) {
    use BinaryOp::*;
    match (op, signed) {
        (Add, _) => map2(r, mask, d, s, u32::wrapping_add),
        (Sub, _) => map2(r, mask, d, s, u32::wrapping_sub),
        (Mul, _) => map2(r, mask, d, s, u32::wrapping_mul),
        (And, _) => map2(r, mask, d, s, |a, b| a & b),
        (Or, _) => map2(r, mask, d, s, |a, b| a | b),
        (Xor, _) => map2(r, mask, d, s, |a, b| a ^ b),
        (Min, true) => map2(r, mask, d, s, |a, b| (a as i32).min(b as i32) as u32),
        (Min, false) => map2(r, mask, d, s, u32::min),
        (Max, true) => map2(r, mask, d, s, |a, b| (a as i32).max(b as i32) as u32),
        (Max, false) => map2(r, mask, d, s, u32::max),
        (MulHi, true) => map2(r, mask, d, s, |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32),
        (MulHi, false) => map2(r, mask, d, s, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        (_, signed) => {
            let ty = if signed { Type::S32 } else { Type::U32 };
            let value = |a: u32, b: u32| scalar(op, extend(u64::from(a), ty), extend(u64::from(b), ty), ty);
            map2(r, mask, d, s, |a, b| value(a, b) as u32);
        }
    }
}

fn binary64(r: &mut Registers, mask: u32, op: BinaryOp, ty: Type, d: Reg, s: [Reg; 2]) {
    use BinaryOp::*;
    match op {
        Add => wide2(r, mask, d, s, u64::wrapping_add),
        Sub => wide2(r, mask, d, s, u64::wrapping_sub),
        Mul => wide2(r, mask, d, s, u64::wrapping_mul),
        And => wide2(r, mask, d, s, |a, b| a & b),
        Or => wide2(r, mask, d, s, |a, b| a | b),
        Xor => wide2(r, mask, d, s, |a, b| a ^ b),
        _ => wide2(r, mask, d, s, |a, b| scalar(op, a as i64, b as i64, ty) as u64),
    }
}

/// One lane of the less frequent operations; operands are extended by their sign. Division by zero gives all ones, as the
/// hardware does; the PTX ISA leaves it open.
fn scalar(op: BinaryOp, a: i64, b: i64, ty: Type) -> i64 {
    use BinaryOp::*;
    let (ua, ub) = (a as u64, b as u64);
    let width = 8 * ty.bytes() as u32;
    match (op, ty.is_signed()) {
        (Add, _) => a.wrapping_add(b),
        (Sub, _) => a.wrapping_sub(b),
        (Mul, _) => a.wrapping_mul(b),
        (Mul24, true) => ((a << 40) >> 40).wrapping_mul((b << 40) >> 40),
        (Mul24, false) => (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff),
        (MulHi, true) => ((i128::from(a) * i128::from(b)) >> width) as i64,
        (MulHi, false) => ((u128::from(ua) * u128::from(ub)) >> width) as i64,
        (Div, _) if b == 0 => -1,
        (Div, true) => a.wrapping_div(b),
        (Div, false) => (ua / ub) as i64,
        (Rem, _) if b == 0 => a,
        (Rem, true) => a.wrapping_rem(b),
        (Rem, false) => (ua % ub) as i64,
        (Min, true) => a.min(b),
        (Min, false) => ua.min(ub) as i64,
        (Max, true) => a.max(b),
        (Max, false) => ua.max(ub) as i64,
        (And, _) => a & b,
        (Or, _) => a | b,
        (Xor | CopySign, _) => a ^ b,
    }
}

/// Ternary instructions on integers.
pub fn ternary(r: &mut Registers, mask: u32, (op, ty, mode): (TernaryOp, Type, Mode), d: Reg, s: [Reg; 3]) {
    match (op, ty.bytes(), ty.is_signed()) {
        (TernaryOp::Mad, 8, _) => wide3(r, mask, d, s, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        (TernaryOp::Mad, 2, _) => map3(r, mask, d, s, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff),
        (TernaryOp::Mad, ..) => map3(r, mask, d, s, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        (TernaryOp::MadHi, 8, _) => {
            wide3(r, mask, d, s, |a, b, c| (scalar(BinaryOp::MulHi, a as i64, b as i64, ty) as u64).wrapping_add(c));
        }
        (TernaryOp::MadHi, ..) => {
            let high = |a, b| scalar(BinaryOp::MulHi, extend(u64::from(a), ty), extend(u64::from(b), ty), ty) as i32;
            let bits = narrow_mask(ty);
            if mode.sat {
                map3(r, mask, d, s, |a, b, c| high(a, b).saturating_add(c as i32) as u32);
            } else {
                map3(r, mask, d, s, |a, b, c| high(a, b).wrapping_add(c as i32) as u32 & bits);
            }
        }
        (TernaryOp::Sad, _, true) => {
            map3(r, mask, d, s, |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
        }
        (TernaryOp::Sad, ..) => map3(r, mask, d, s, |a, b, c| a.abs_diff(b).wrapping_add(c)),
        (TernaryOp::Prmt, ..) => map3(r, mask, d, s, permute_bytes),
        (TernaryOp::Lop3(table), ..) => map3(r, mask, d, s, |a, b, c| truth_table(table, a, b, c)),
        (TernaryOp::Funnel { left, wrap }, ..) => map3(r, mask, d, s, |a, b, c| funnel(left, wrap, a, b, c)),
        (TernaryOp::Fma, ..) => {}
    }
}

/// Default mode of `prmt`: nibble i of the selector picks byte i out of {b, a}; its top bit replicates that byte's sign.
fn permute_bytes(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = (u64::from(a) | u64::from(b) << 32).to_le_bytes();
    let pick = |i: usize| {
        let nibble = selector >> (4 * i);
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
    };
    u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
}

fn truth_table(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let row = |i: u8| {
        let (x, y, z) =
            (if i & 4 != 0 { a } else { !a }, if i & 2 != 0 { b } else { !b }, if i & 1 != 0 { c } else { !c });
        if table >> i & 1 != 0 { x & y & z } else { 0 }
    };
    (0..8).fold(0, |bits, i| bits | row(i))
}

/// Shifts the 64-bit value {b, a}; the left form returns the upper half.
fn funnel(left: bool, wrap: bool, a: u32, b: u32, c: u32) -> u32 {
    let amount = if wrap { c & 31 } else { c.min(32) };
    let both = u64::from(b) << 32 | u64::from(a);
    if left { ((both << amount) >> 32) as u32 } else { (both >> amount) as u32 }
}

/// Comparison of two registers in all lanes.
pub fn compare(r: &Registers, compare: Compare, ty: Type, ftz: bool, [a, b]: [Reg; 2]) -> u32 {
    let (a, b) = (a as usize, b as usize);
    match (ty, ty.bytes()) {
        (Type::F32, _) => {
            let value = |bits: u32| {
                let value = f32::from_bits(bits);
                if ftz { flush(value) } else { value }
            };
            bits_of(|lane| ordered(compare, value(r.narrow[a][lane]), value(r.narrow[b][lane])))
        }
        (Type::F64, _) => {
            bits_of(|lane| ordered(compare, f64::from_bits(r.wide[a][lane]), f64::from_bits(r.wide[b][lane])))
        }
        (Type::F16 | Type::Bf16, _) => {
            let format = if ty == Type::F16 { Format::F16 } else { Format::Bf16 };
            let value = |bits: u32| format.decode(bits as u16);
            bits_of(|lane| ordered(compare, value(r.narrow[a][lane]), value(r.narrow[b][lane])))
        }
        (_, 8) if ty.is_signed() => bits_of(|l| ordered(compare, r.wide[a][l] as i64, r.wide[b][l] as i64)),
        (_, 8) => bits_of(|lane| ordered(compare, r.wide[a][lane], r.wide[b][lane])),
        (_, 4) if ty.is_signed() => bits_of(|l| ordered(compare, r.narrow[a][l] as i32, r.narrow[b][l] as i32)),
        (_, 4) => bits_of(|lane| ordered(compare, r.narrow[a][lane], r.narrow[b][lane])),
        _ => {
            let value = |bits: u32| extend(u64::from(bits), ty);
            bits_of(|lane| ordered(compare, value(r.narrow[a][lane]), value(r.narrow[b][lane])))
        }
    }
}

#[inline(always)]
fn bits_of(holds: impl Fn(usize) -> bool) -> u32 {
    (0..LANES).fold(0, |bits, lane| bits | u32::from(holds(lane)) << lane)
}

#[inline(always)]
fn ordered<T: PartialOrd>(compare: Compare, a: T, b: T) -> bool {
    let order = a.partial_cmp(&b);
    match compare {
        Compare::Eq => a == b,
        Compare::Ne => order.is_some() && a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Equ => order.is_none() || a == b,
        Compare::Neu => a != b,
        Compare::Ltu => order.is_none() || a < b,
        Compare::Leu => order.is_none() || a <= b,
        Compare::Gtu => order.is_none() || a > b,
        Compare::Geu => order.is_none() || a >= b,
        Compare::Num => order.is_some(),
        Compare::Nan => order.is_none(),
    }
}

/// Instructions whose operands differ in width.
pub fn rest(r: &mut Registers, op: &Op, mask: u32) {
    match *op {
        Op::Wide { ty, d, a, b, c } => wide_product(r, mask, ty, d, [a, b], c),
        Op::Shift { left, ty, d, a, b } => shift(r, mask, left, ty, d, [a, b]),
        Op::Count { op, ty, d, a } => {
            let wide = ty.bytes() == 8;
            let value = r.read(a, wide).map(|bits| count(op, ty, bits));
            blend(&mut r.narrow[d as usize], &value, mask);
        }
        Op::BitExtract { ty, d, a, position, length } => {
            let (position, length) = (r.narrow[position as usize], r.narrow[length as usize]);
            let wide = ty.bytes() == 8;
            let a = r.read(a, wide);
            let value = std::array::from_fn(|lane| bit_extract(ty, a[lane], position[lane], length[lane]));
            r.write(d, wide, mask, &value);
        }
        Op::BitInsert { ty, d, a, b, position, length } => {
            let (position, length) = (r.narrow[position as usize], r.narrow[length as usize]);
            let wide = ty.bytes() == 8;
            let (a, b) = (r.read(a, wide), r.read(b, wide));
            let value = std::array::from_fn(|lane| bit_insert(ty, a[lane], b[lane], position[lane], length[lane]));
            r.write(d, wide, mask, &value);
        }
        Op::Pack { part, d, ref parts } => pack(r, mask, part, d, parts),
        Op::Unpack { part, ref parts, a } => unpack(r, mask, part, parts, a),
        _ => unreachable!("step handles every other instruction"),
    }
}

fn wide_product(r: &mut Registers, mask: u32, ty: Type, d: Reg, [a, b]: [Reg; 2], c: Option<Reg>) {
    let to_wide = ty.bytes() == 4;
    let addend = c.map_or([0; LANES], |c| r.read(c, to_wide));
    let (a, b) = (&r.narrow[a as usize], &r.narrow[b as usize]);
    let mut value: Lanes<u64> = [0; LANES];
    if ty == Type::U32 {
        for lane in 0..LANES {
            value[lane] = (u64::from(a[lane]) * u64::from(b[lane])).wrapping_add(addend[lane]);
        }
    } else {
        for lane in 0..LANES {
            let product = extend(u64::from(a[lane]), ty).wrapping_mul(extend(u64::from(b[lane]), ty));
            value[lane] = (product as u64).wrapping_add(addend[lane]);
        }
    }
    r.write(d, to_wide, mask, &value);
}

/// Amounts of the width or more shift everything out; arithmetic shifts leave the sign.
fn shift(r: &mut Registers, mask: u32, left: bool, ty: Type, d: Reg, [a, b]: [Reg; 2]) {
    match (ty.bytes(), left, ty.is_signed()) {
        (4, true, _) => map2(r, mask, d, [a, b], |a, b| a.checked_shl(b).unwrap_or(0)),
        (4, false, true) => map2(r, mask, d, [a, b], |a, b| ((a as i32) >> b.min(31)) as u32),
        (4, false, false) => map2(r, mask, d, [a, b], |a, b| a.checked_shr(b).unwrap_or(0)),
        (bytes, ..) => {
            let amounts = r.narrow[b as usize];
            let values = r.read(a, bytes == 8);
            let value: Lanes<u64> = std::array::from_fn(|lane| {
                let amount = amounts[lane].min(8 * bytes as u32);
                let value = extend(values[lane], ty);
                match (left, ty.is_signed()) {
                    (true, _) => (value as u64).checked_shl(amount).unwrap_or(0) & (u64::MAX >> (64 - 8 * bytes)),
                    (false, true) => (value >> amount.min(63)) as u64 & (u64::MAX >> (64 - 8 * bytes)),
                    (false, false) => (value as u64).checked_shr(amount).unwrap_or(0),
                }
            });
            r.write(d, bytes == 8, mask, &value);
        }
    }
}

fn count(op: CountOp, ty: Type, bits: u64) -> u32 {
    let width = 8 * ty.bytes() as u32;
    match op {
        CountOp::Population => bits.count_ones(),
        CountOp::LeadingZeros => bits.leading_zeros() - (64 - width),
        CountOp::FindTop { shift } => {
            let value = extend(bits, ty);
            let bits = if ty.is_signed() && value < 0 { !value as u64 } else { value as u64 };
            let bits = bits & (u64::MAX >> (64 - width));
            match (bits, shift) {
                (0, _) => u32::MAX,
                (_, true) => bits.leading_zeros() - (64 - width),
                (_, false) => 63 - bits.leading_zeros(),
            }
        }
    }
}

/// PTX ISA, "bfe": positions and lengths are taken modulo 256; a field past the top is filled by the sign.
fn bit_extract(ty: Type, a: u64, position: u32, length: u32) -> u64 {
    let top = 8 * ty.bytes() as u32 - 1;
    let (position, length) = (position & 0xff, length & 0xff);
    let bit = |at: u32| (a >> at.min(63)) & 1;
    let sign = if !ty.is_signed() || length == 0 { 0 } else { bit((position + length - 1).min(top)) };
    let mut value = 0;
    for i in 0..=top {
        let inside = i < length && position + i <= top;
        value |= (if inside { bit(position + i) } else { sign }) << i;
    }
    value
}

fn bit_insert(ty: Type, a: u64, b: u64, position: u32, length: u32) -> u64 {
    let width = 8 * ty.bytes() as u32;
    let (position, length) = (position & 0xff, length & 0xff);
    let mut value = b;
    for i in 0..length.min(width.saturating_sub(position)) {
        let at = position + i;
        value = value & !(1 << at) | (a >> i & 1) << at;
    }
    value
}

fn pack(r: &mut Registers, mask: u32, part: Type, d: (Reg, bool), parts: &Elements) {
    let bits = 8 * part.bytes();
    let mut value: Lanes<u64> = [0; LANES];
    for (index, reg) in parts.iter().flatten().enumerate() {
        let source = &r.narrow[*reg as usize];
        for lane in 0..LANES {
            value[lane] |= (u64::from(source[lane]) & ((1 << bits) - 1)) << (index * bits);
        }
    }
    r.write(d.0, d.1, mask, &value);
}

fn unpack(r: &mut Registers, mask: u32, part: Type, parts: &Elements, a: (Reg, bool)) {
    let bits = 8 * part.bytes();
    let source = r.read(a.0, a.1);
    for (index, reg) in parts.iter().enumerate() {
        if let Some(reg) = reg {
            let value = source.map(|value| (value >> (index * bits) & ((1 << bits) - 1)) as u32);
            blend(&mut r.narrow[*reg as usize], &value, mask);
        }
    }
}
