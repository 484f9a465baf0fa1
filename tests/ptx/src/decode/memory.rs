//! Loads, stores, atomics and asynchronous copies.

use super::mods::Mods;
use super::operands::{Class, class_of, error};
use super::program::{AtomicOp, Op, Transfer};
use super::{Context, Result, arity};
use crate::syntax::tree::{Instruction, Operand, Space, Type};

pub(super) fn decode(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    Ok(Some(match inst.opcode.as_str() {
        "ld" | "ldu" => transfer(inst, mods, context, true)?,
        "st" => transfer(inst, mods, context, false)?,
        "atom" | "red" => atomic(inst, mods, context)?,
        "cp" => async_copy(inst, mods, context)?,
        "prefetch" | "prefetchu" | "discard" | "applypriority" => {
            while mods.take("global") || mods.take("L1") || mods.take("L2") {}
            Op::Nop
        }
        _ => return Ok(None),
    }))
}

impl Context {
    /// Shared memory is checked in granules of the smallest access to it.
    fn note_shared(&mut self, space: Space, bytes: usize) {
        if matches!(space, Space::Shared | Space::Generic) {
            self.shared_granule = self.shared_granule.min(bytes);
        }
    }
}

fn transfer(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context, load: bool) -> Result<Op> {
    let read_only = mods.take("nc") || inst.opcode == "ldu";
    let space = mods.space();
    mods.skip_ordering();
    let count = mods.take_one(&[("v2", 2u8), ("v4", 4)]).unwrap_or(1);
    let ty = mods.ty()?;
    arity(inst, 2..=2)?;
    if matches!(ty, Type::Pred | Type::B128 | Type::F16x2 | Type::Bf16x2 | Type::Tf32) {
        return mods.error(format!("the type {ty} is not supported"));
    }
    if ty.bytes() * count as usize > 16 {
        return mods.error("a vector access has at most 16 bytes");
    }
    if !load && matches!(space, Space::Param | Space::Const) {
        return mods.error("this state space is read-only");
    }
    let (value, address) = if load { (0, 1) } else { (1, 0) };
    let mut wide = None;
    let registers = context.names.elements(inst, &inst.operands[value], count as usize, |names, operand| {
        let found = if load {
            names.loose_destination(inst, ty, operand, false)?
        } else {
            Some(names.loose_source(inst, ty, operand, false)?)
        };
        if let Some((_, is_wide)) = found
            && *wide.get_or_insert(is_wide) != is_wide
        {
            return Err(error(inst, "the elements must be registers of one width"));
        }
        Ok(found.map(|(reg, _)| reg))
    })?;
    let address = context.names.address(inst, &inst.operands[address])?;
    context.note_shared(space, ty.bytes() * count as usize);
    let wide = wide.unwrap_or(class_of(ty) == Class::Wide);
    let transfer = Transfer { space, ty, count, registers, wide, address, read_only };
    Ok(if load { Op::Ld(transfer) } else { Op::St(transfer) })
}

const ATOMICS: [(&str, AtomicOp); 10] = [
    ("add", AtomicOp::Add),
    ("min", AtomicOp::Min),
    ("max", AtomicOp::Max),
    ("and", AtomicOp::And),
    ("or", AtomicOp::Or),
    ("xor", AtomicOp::Xor),
    ("exch", AtomicOp::Exchange),
    ("cas", AtomicOp::CompareSwap),
    ("inc", AtomicOp::Inc),
    ("dec", AtomicOp::Dec),
];

fn atomic(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let space = mods.space();
    mods.skip_ordering();
    mods.take("noftz");
    let op = mods.one(&ATOMICS)?;
    let ty = mods.ty()?;
    let returns = inst.opcode == "atom";
    let count = 2 + usize::from(returns) + usize::from(op == AtomicOp::CompareSwap);
    arity(inst, count..=count)?;
    let float_ok = ty.is_float() && ty != Type::Tf32 && op == AtomicOp::Add;
    let half_ok = matches!(op, AtomicOp::Exchange | AtomicOp::CompareSwap) && ty == Type::B16;
    if !(float_ok || half_ok || !ty.is_float() && ty.bytes() >= 4) || matches!(space, Space::Param | Space::Const) {
        return mods.error(format!("this operation on {ty} is not supported"));
    }
    let at = usize::from(returns);
    let d = if returns { context.names.loose_destination(inst, ty, &inst.operands[0], true)? } else { None };
    let address = context.names.address(inst, &inst.operands[at])?;
    let a = context.names.source(inst, ty, &inst.operands[at + 1])?;
    let b = match op {
        AtomicOp::CompareSwap => Some(context.names.source(inst, ty, &inst.operands[at + 2])?),
        _ => None,
    };
    context.note_shared(space, ty.bytes());
    let wide = class_of(ty) == Class::Wide;
    Ok(Op::Atomic { op, space, ty, d: d.map(|(reg, _)| reg), wide, address, a, b })
}

/// `cp.async.cg.shared.global [to], [from], 16{, source_bytes}` and its groups.
fn async_copy(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    if !mods.take("async") {
        return mods.error("only cp.async is supported");
    }
    if mods.take("commit_group") {
        arity(inst, 0..=0)?;
        return Ok(Op::AsyncCommit);
    }
    if mods.take("wait_all") {
        arity(inst, 0..=0)?;
        return Ok(Op::AsyncWait { pending: None });
    }
    if mods.take("wait_group") {
        arity(inst, 1..=1)?;
        let Operand::Integer(pending @ 0..=255) = inst.operands[0] else {
            return Err(error(inst, "the number of pending groups must be a constant"));
        };
        return Ok(Op::AsyncWait { pending: Some(pending as u32) });
    }
    let whole_lines = mods.take("cg");
    mods.skip_ordering();
    if !(mods.take("shared") || mods.take("shared::cta")) || !mods.take("global") {
        return mods.error("only copies from .global to .shared are supported");
    }
    arity(inst, 3..=4)?;
    let bytes = match inst.operands[2] {
        Operand::Integer(16) => 16,
        Operand::Integer(bytes @ (4 | 8)) if !whole_lines => bytes as u8,
        _ => return Err(error(inst, "copies 4, 8 or 16 bytes; with `.cg` always 16")),
    };
    let to = context.names.address(inst, &inst.operands[0])?;
    let from = context.names.address(inst, &inst.operands[1])?;
    let source_bytes = match inst.operands.get(3) {
        Some(operand) => Some(context.names.source(inst, Type::U32, operand)?),
        None => None,
    };
    context.note_shared(Space::Shared, bytes as usize);
    Ok(Op::AsyncCopy { bytes, source_bytes, to, from })
}
