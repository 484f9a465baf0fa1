//! Moves, packing and conversions.

use super::mods::Mods;
use super::operands::{Class, class_of, error};
use super::program::{BoolOp, Cvt, Mode, Op, Predicate, Reg, Round, UnaryOp};
use super::{Context, Result, arity};
use crate::syntax::tree::{Instruction, Operand, Space, Type};

pub(super) fn decode(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    Ok(Some(match inst.opcode.as_str() {
        "mov" => mov(inst, mods, context)?,
        "cvt" => cvt(inst, mods, context)?,
        "cvta" => cvta(inst, mods, context)?,
        _ => return Ok(None),
    }))
}

fn mov(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let ty = mods.ty()?;
    arity(inst, 2..=2)?;
    let [to, from] = [&inst.operands[0], &inst.operands[1]];
    if ty == Type::Pred {
        return move_predicate(inst, to, from, context);
    }
    match (to, from) {
        (Operand::Vector(parts), _) => {
            let part = part_type(inst, ty, parts.len())?;
            let parts = parts_of(inst, to, parts.len(), part, true, context)?;
            let a = context.names.source(inst, ty, from)?;
            Ok(Op::Unpack { part, parts, a: (a, class_of(ty) == Class::Wide) })
        }
        (_, Operand::Vector(parts)) => {
            let part = part_type(inst, ty, parts.len())?;
            let parts = parts_of(inst, from, parts.len(), part, false, context)?;
            let d = context.names.destination(inst, ty, to)?;
            Ok(Op::Pack { part, d: (d, class_of(ty) == Class::Wide), parts })
        }
        _ => {
            let d = context.names.destination(inst, ty, to)?;
            let a = context.names.source(inst, ty, from)?;
            Ok(Op::Unary { op: UnaryOp::Mov, ty, mode: Mode::default(), d, a })
        }
    }
}

fn move_predicate(inst: &Instruction, to: &Operand, from: &Operand, context: &mut Context) -> Result<Op> {
    let d = context.names.predicate(inst, to)?.reg;
    let own = |negated| Predicate { reg: d, negated };
    if let Operand::Integer(value) = from {
        let op = if *value == 0 { BoolOp::And } else { BoolOp::Or };
        return Ok(Op::PredicateLogic { op, d, a: own(false), b: own(true) });
    }
    let a = context.names.predicate(inst, from)?;
    Ok(Op::PredicateLogic { op: BoolOp::And, d, a, b: a })
}

fn part_type(inst: &Instruction, whole: Type, count: usize) -> Result<Type> {
    match (whole.bytes(), count) {
        (8, 2) => Ok(Type::B32),
        (8, 4) | (4, 2) => Ok(Type::B16),
        (4, 4) | (2, 2) => Ok(Type::B8),
        _ => Err(error(inst, format!("{count} parts do not make a {whole}"))),
    }
}

fn parts_of(
    inst: &Instruction,
    operand: &Operand,
    count: usize,
    part: Type,
    written: bool,
    context: &mut Context,
) -> Result<[Option<Reg>; 4]> {
    context.names.elements(inst, operand, count, |names, element| {
        // 8-bit parts live in 16-bit registers.
        if written {
            Ok(names.loose_destination(inst, part, element, part != Type::B8)?.map(|(reg, _)| reg))
        } else {
            Ok(Some(names.loose_source(inst, part, element, part != Type::B8)?.0))
        }
    })
}

fn cvt(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let integral = mods.integral();
    let mut mode = mods.mode();
    // `.satfinite` replaces infinities by the largest finite number.
    let finite = mods.take("satfinite");
    let (to, from) = (mods.ty()?, mods.ty()?);
    mode.round = integral.unwrap_or(mode.round);
    let packed = matches!(to, Type::F16x2 | Type::Bf16x2);
    arity(inst, if packed { 3..=3 } else { 2..=2 })?;
    check_cvt(to, from, mode, integral, finite, mods)?;
    let exact = packed || to == Type::Tf32;
    let d = context.names.loose_destination(inst, to, &inst.operands[0], exact)?;
    let d = d.ok_or_else(|| error(inst, "the result cannot be dropped"))?;
    let a = context.names.loose_source(inst, from, &inst.operands[1], from.is_float())?;
    let b = if packed { Some(context.names.source(inst, from, &inst.operands[2])?) } else { None };
    Ok(Op::Cvt(Cvt { to, from, mode, integral: integral.is_some(), d, a, b }))
}

fn check_cvt(to: Type, from: Type, mode: Mode, integral: Option<Round>, finite: bool, mods: &Mods<'_>) -> Result<()> {
    use Type::*;
    let bits = |ty: Type| matches!(ty, B8 | B16 | B32 | B64 | B128 | Pred);
    let supported = match (to, from) {
        (F16x2 | Bf16x2, F32) => true,
        (Tf32, F32) => mode.round != Round::Zero || !mode.relu,
        (F16x2 | Bf16x2 | Tf32, _) | (_, F16x2 | Bf16x2 | Tf32) => false,
        _ => !bits(to) && !bits(from),
    };
    if !supported || finite {
        return mods.error(format!("the conversion from {from} to {to} is not supported"));
    }
    let narrowing = to.is_float() && (!from.is_float() || from.bytes() > to.bytes());
    if narrowing && mode.round == Round::default() && !mods.written("rn") {
        return mods.error("needs a rounding such as .rn");
    }
    if from.is_float() && !to.is_float() && integral.is_none() {
        return mods.error("needs a rounding to an integer such as .rzi");
    }
    Ok(())
}

fn cvta(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let to_space = mods.take("to");
    let space = mods.space();
    let ty = mods.ty()?;
    arity(inst, 2..=2)?;
    if ty != Type::U64 || space == Space::Generic {
        return mods.error("needs a state space and the type .u64");
    }
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    Ok(Op::Cvta { space, to_space, d, a })
}
