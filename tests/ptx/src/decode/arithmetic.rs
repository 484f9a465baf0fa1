//! Integer, logic and floating-point arithmetic, comparisons and selection.

use super::mods::Mods;
use super::operands::{Class, class_of, error};
use super::program::{BinaryOp, BoolOp, Compare, CountOp, Mode, Op, TernaryOp, UnaryOp};
use super::{Context, Result, arity};
use crate::syntax::tree::{Instruction, Operand, Type};

pub(super) fn decode(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    if let Some(op) = unary(inst, mods, context)? {
        return Ok(Some(op));
    }
    Ok(Some(match inst.opcode.as_str() {
        "add" | "sub" | "div" | "rem" | "min" | "max" | "and" | "or" | "xor" | "copysign" => {
            binary(inst, mods, context)?
        }
        "mul" | "mul24" | "mad" | "fma" => product(inst, mods, context)?,
        "shl" | "shr" => shift(inst, mods, context)?,
        "popc" | "clz" | "bfind" => count(inst, mods, context)?,
        "bfe" | "bfi" => bit_field(inst, mods, context)?,
        "prmt" | "shf" | "lop3" | "sad" => ternary(inst, mods, context)?,
        "setp" => setp(inst, mods, context)?,
        "selp" => selp(inst, mods, context)?,
        _ => return Ok(None),
    }))
}

fn unary(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    let op = match inst.opcode.as_str() {
        "neg" => UnaryOp::Neg,
        "abs" => UnaryOp::Abs,
        "not" => UnaryOp::Not,
        "brev" => UnaryOp::Brev,
        "rcp" => UnaryOp::Rcp,
        "sqrt" => UnaryOp::Sqrt,
        "rsqrt" => UnaryOp::Rsqrt,
        "ex2" => UnaryOp::Ex2,
        "lg2" => UnaryOp::Lg2,
        "sin" => UnaryOp::Sin,
        "cos" => UnaryOp::Cos,
        "tanh" => UnaryOp::Tanh,
        _ => return Ok(None),
    };
    let mode = mods.mode();
    let ty = mods.ty()?;
    arity(inst, 2..=2)?;
    if ty == Type::Pred && op == UnaryOp::Not {
        let d = context.names.predicate(inst, &inst.operands[0])?.reg;
        let mut a = context.names.predicate(inst, &inst.operands[1])?;
        a.negated = !a.negated;
        return Ok(Some(Op::PredicateLogic { op: BoolOp::And, d, a, b: a }));
    }
    let bits = matches!(op, UnaryOp::Not | UnaryOp::Brev);
    let supported = match op {
        UnaryOp::Neg | UnaryOp::Abs => ty.is_float() || ty.is_signed(),
        UnaryOp::Not | UnaryOp::Brev => !ty.is_float(),
        UnaryOp::Rcp | UnaryOp::Sqrt => matches!(ty, Type::F32 | Type::F64),
        UnaryOp::Ex2 | UnaryOp::Tanh => matches!(ty, Type::F32 | Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2),
        _ => ty == Type::F32,
    };
    if !supported || ty == Type::Tf32 || (op == UnaryOp::Brev && ty.bytes() < 4) {
        return mods.error(format!("the type {ty} is not supported"));
    }
    let approximate = !bits && !matches!(op, UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Rcp | UnaryOp::Sqrt);
    if approximate && !mode.approx && ty == Type::F32 {
        return mods.error("only the `.approx` form exists");
    }
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    Ok(Some(Op::Unary { op, ty, mode, d, a }))
}

fn binary(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let op = match inst.opcode.as_str() {
        "add" => BinaryOp::Add,
        "sub" => BinaryOp::Sub,
        "div" => BinaryOp::Div,
        "rem" => BinaryOp::Rem,
        "min" => BinaryOp::Min,
        "max" => BinaryOp::Max,
        "and" => BinaryOp::And,
        "or" => BinaryOp::Or,
        "xor" => BinaryOp::Xor,
        _ => BinaryOp::CopySign,
    };
    let mode = mods.mode();
    let ty = mods.ty()?;
    arity(inst, 3..=3)?;
    let logic = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
    if logic && ty == Type::Pred {
        let op = match op {
            BinaryOp::And => BoolOp::And,
            BinaryOp::Or => BoolOp::Or,
            _ => BoolOp::Xor,
        };
        let d = context.names.predicate(inst, &inst.operands[0])?.reg;
        let a = context.names.predicate(inst, &inst.operands[1])?;
        let b = context.names.predicate(inst, &inst.operands[2])?;
        return Ok(Op::PredicateLogic { op, d, a, b });
    }
    check_binary(op, ty, mode, mods)?;
    three(op, ty, mode, inst, context)
}

fn check_binary(op: BinaryOp, ty: Type, mode: Mode, mods: &Mods<'_>) -> Result<()> {
    use BinaryOp::*;
    let float = ty.is_float();
    let supported = match op {
        And | Or | Xor => !float && ty.bytes() > 1,
        Rem => !float && ty.bytes() > 1,
        Div => !matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Tf32),
        CopySign => matches!(ty, Type::F32 | Type::F64),
        _ => ty != Type::Tf32 && ty != Type::Pred && ty.bytes() > 1,
    };
    if !supported {
        return mods.error(format!("the type {ty} is not supported"));
    }
    if float && ty != Type::F32 && mode.round != Default::default() {
        return mods.error("directed rounding is supported for .f32 only");
    }
    if op == Div && float && ty == Type::F64 && mode.approx {
        return mods.error("there is no approximate division of .f64");
    }
    Ok(())
}

fn three(op: BinaryOp, ty: Type, mode: Mode, inst: &Instruction, context: &mut Context) -> Result<Op> {
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, ty, &inst.operands[2])?;
    Ok(Op::Binary { op, ty, mode, d, a, b })
}

/// `mul`, `mad` and `fma` of all kinds.
fn product(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let adds = matches!(inst.opcode.as_str(), "mad" | "fma");
    let (low, high, wide) = (mods.take("lo"), mods.take("hi"), mods.take("wide"));
    let mode = mods.mode();
    let ty = mods.ty()?;
    arity(inst, if adds { 4..=4 } else { 3..=3 })?;
    if wide {
        return wide_product(inst, ty, adds, mods, context);
    }
    if !ty.is_float() && !low && !high {
        return mods.error("needs one of .lo, .hi, .wide");
    }
    if matches!(ty, Type::Tf32 | Type::Pred) || ty.bytes() < 2 || (ty.is_float() && (low || high)) {
        return mods.error(format!("the type {ty} is not supported"));
    }
    if ty.is_float() && ty != Type::F32 && mode.round != Default::default() {
        return mods.error("directed rounding is supported for .f32 only");
    }
    if inst.opcode == "mul24" && (ty.bytes() != 4 || high) {
        return mods.error("only mul24.lo of 32 bits is supported");
    }
    if !adds {
        let op = match (inst.opcode.as_str(), high) {
            ("mul24", _) => BinaryOp::Mul24,
            (_, true) => BinaryOp::MulHi,
            _ => BinaryOp::Mul,
        };
        return three(op, ty, mode, inst, context);
    }
    let op = match (ty.is_float(), high) {
        (true, _) => TernaryOp::Fma,
        (false, true) => TernaryOp::MadHi,
        (false, false) => TernaryOp::Mad,
    };
    four(op, ty, mode, inst, context)
}

fn four(op: TernaryOp, ty: Type, mode: Mode, inst: &Instruction, context: &mut Context) -> Result<Op> {
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, ty, &inst.operands[2])?;
    let c = context.names.source(inst, ty, &inst.operands[3])?;
    Ok(Op::Ternary { op, ty, mode, d, a, b, c })
}

fn wide_product(inst: &Instruction, ty: Type, adds: bool, mods: &Mods<'_>, context: &mut Context) -> Result<Op> {
    let result = match ty {
        Type::U32 => Type::U64,
        Type::S32 => Type::S64,
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        _ => return mods.error(format!("there is no wide product of {ty}")),
    };
    let d = context.names.destination(inst, result, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, ty, &inst.operands[2])?;
    let c = if adds { Some(context.names.source(inst, result, &inst.operands[3])?) } else { None };
    Ok(Op::Wide { ty, d, a, b, c })
}

fn shift(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let ty = mods.ty()?;
    arity(inst, 3..=3)?;
    if ty.is_float() || ty.bytes() < 2 {
        return mods.error(format!("the type {ty} is not supported"));
    }
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, Type::U32, &inst.operands[2])?;
    Ok(Op::Shift { left: inst.opcode == "shl", ty, d, a, b })
}

fn count(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let op = match inst.opcode.as_str() {
        "popc" => CountOp::Population,
        "clz" => CountOp::LeadingZeros,
        _ => CountOp::FindTop { shift: mods.take("shiftamt") },
    };
    let ty = mods.ty()?;
    arity(inst, 2..=2)?;
    if ty.is_float() || ty.bytes() < 4 {
        return mods.error(format!("the type {ty} is not supported"));
    }
    let d = context.names.destination(inst, Type::U32, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    Ok(Op::Count { op, ty, d, a })
}

fn bit_field(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let ty = mods.ty()?;
    let insert = inst.opcode == "bfi";
    arity(inst, if insert { 5..=5 } else { 4..=4 })?;
    if ty.is_float() || ty.bytes() < 4 {
        return mods.error(format!("the type {ty} is not supported"));
    }
    let operands = &inst.operands;
    let d = context.names.destination(inst, ty, &operands[0])?;
    let a = context.names.source(inst, ty, &operands[1])?;
    let position = context.names.source(inst, Type::U32, &operands[operands.len() - 2])?;
    let length = context.names.source(inst, Type::U32, &operands[operands.len() - 1])?;
    if !insert {
        return Ok(Op::BitExtract { ty, d, a, position, length });
    }
    let b = context.names.source(inst, ty, &operands[2])?;
    Ok(Op::BitInsert { ty, d, a, b, position, length })
}

fn ternary(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let op = match inst.opcode.as_str() {
        "prmt" => TernaryOp::Prmt,
        "sad" => TernaryOp::Sad,
        "shf" => {
            let left = mods.one(&[("l", true), ("r", false)])?;
            TernaryOp::Funnel { left, wrap: mods.one(&[("wrap", true), ("clamp", false)])? }
        }
        _ => {
            arity(inst, 5..=5)?;
            let Operand::Integer(table @ 0..=255) = inst.operands[4] else {
                return Err(error(inst, "the truth table must be a constant from 0 to 255"));
            };
            TernaryOp::Lop3(table as u8)
        }
    };
    let ty = mods.ty()?;
    arity(inst, 4..=5)?;
    if ty.bytes() != 4 || ty.is_float() {
        return mods.error(format!("the type {ty} is not supported"));
    }
    four(op, ty, Mode::default(), inst, context)
}

const COMPARISONS: [(&str, Compare); 18] = [
    ("eq", Compare::Eq),
    ("ne", Compare::Ne),
    ("lt", Compare::Lt),
    ("le", Compare::Le),
    ("gt", Compare::Gt),
    ("ge", Compare::Ge),
    ("lo", Compare::Lt),
    ("ls", Compare::Le),
    ("hi", Compare::Gt),
    ("hs", Compare::Ge),
    ("equ", Compare::Equ),
    ("neu", Compare::Neu),
    ("ltu", Compare::Ltu),
    ("leu", Compare::Leu),
    ("gtu", Compare::Gtu),
    ("geu", Compare::Geu),
    ("num", Compare::Num),
    ("nan", Compare::Nan),
];

/// `setp.lt.and.f32 p|q, a, b, c`
fn setp(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let compare = mods.one(&COMPARISONS)?;
    let combine = mods.take_one(&[("and", BoolOp::And), ("or", BoolOp::Or), ("xor", BoolOp::Xor)]);
    let ftz = mods.take("ftz");
    let ty = mods.ty()?;
    arity(inst, if combine.is_some() { 4..=4 } else { 3..=3 })?;
    let unordered =
        !matches!(compare, Compare::Eq | Compare::Ne | Compare::Lt | Compare::Le | Compare::Gt | Compare::Ge);
    if unordered && !ty.is_float() || ty.bytes() < 2 || matches!(ty, Type::F16x2 | Type::Bf16x2 | Type::Tf32) {
        return mods.error(format!("this comparison of {ty} is not supported"));
    }
    let (p, q) = match &inst.operands[0] {
        Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
        p => (p, None),
    };
    let p = context.names.predicate_destination(inst, p)?;
    let q = q.map(|q| context.names.predicate_destination(inst, q)).transpose()?.flatten();
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, ty, &inst.operands[2])?;
    let with = match combine {
        Some(op) => Some((op, context.names.predicate(inst, &inst.operands[3])?)),
        None => None,
    };
    Ok(Op::Setp { compare, ty, ftz, with, p, q, a, b })
}

fn selp(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let ty = mods.ty()?;
    arity(inst, 4..=4)?;
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, ty, &inst.operands[2])?;
    let p = context.names.predicate(inst, &inst.operands[3])?;
    Ok(Op::Selp { wide: class_of(ty) == Class::Wide, d, a, b, p })
}
