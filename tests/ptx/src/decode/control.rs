//! Branches, barriers and communication between lanes.

use super::mods::Mods;
use super::operands::{Class, class_of, error};
use super::program::{AtomicOp, Op, ShuffleOp, VoteOp};
use super::{Context, Result, arity};
use crate::syntax::tree::{Instruction, Operand, Type};

pub(super) fn decode(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    Ok(Some(match inst.opcode.as_str() {
        "bra" => branch(inst, mods, context)?,
        "brx" => branch_table(inst, mods, context)?,
        "ret" | "exit" => {
            mods.take("uni");
            Op::Return
        }
        "trap" | "brkpt" => Op::Trap,
        "bar" | "barrier" => barrier(inst, mods, context)?,
        "membar" | "fence" => {
            mods.skip_ordering();
            Op::Fence
        }
        "nanosleep" => {
            mods.take("u32");
            Op::Nop
        }
        "griddepcontrol" => {
            let _ = mods.take("wait") || mods.take("launch_dependents");
            Op::Nop
        }
        "shfl" => shuffle(inst, mods, context)?,
        "vote" => vote(inst, mods, context)?,
        "match" => matching(inst, mods, context)?,
        "redux" => reduce(inst, mods, context)?,
        "activemask" => {
            mods.take("b32");
            arity(inst, 1..=1)?;
            Op::ActiveMask { d: context.names.destination(inst, Type::B32, &inst.operands[0])? }
        }
        "call" => return mods.error("calls are not executed here; the compiler must inline them"),
        _ => return Ok(None),
    }))
}

fn branch(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    mods.take("uni");
    arity(inst, 1..=1)?;
    let Operand::Name(label) = &inst.operands[0] else { return Err(error(inst, "the target must be a label")) };
    Ok(Op::Branch { target: context.label(inst, label)?, reconverge: 0 })
}

fn branch_table(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    if !mods.take("idx") {
        return mods.error("only brx.idx exists");
    }
    mods.take("uni");
    arity(inst, 2..=2)?;
    let index = context.names.source(inst, Type::U32, &inst.operands[0])?;
    let table = match &inst.operands[1] {
        Operand::Name(name) => context.tables.get(name),
        _ => None,
    };
    let Some(table) = table else { return Err(error(inst, "the second operand must name `.branchtargets`")) };
    let targets = table.iter().map(|label| context.label(inst, label)).collect::<Result<Vec<_>>>()?;
    Ok(Op::BranchTable { targets: targets.into(), index, reconverge: 0 })
}

/// `bar.sync`, `barrier.cta.sync`, `bar.arrive`, `bar.warp.sync`.
fn barrier(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    if mods.take("warp") {
        mods.take("sync");
        arity(inst, 1..=1)?;
        return Ok(Op::WarpBarrier { members: context.names.source(inst, Type::B32, &inst.operands[0])? });
    }
    mods.take("cta");
    mods.take("aligned");
    let arrive_only = !mods.take("sync");
    if arrive_only && !mods.take("arrive") {
        return mods.error("only .sync and .arrive are supported");
    }
    arity(inst, 1..=2)?;
    let id = context.names.source(inst, Type::B32, &inst.operands[0])?;
    let threads = match inst.operands.get(1) {
        Some(operand) => Some(context.names.source(inst, Type::B32, operand)?),
        None => None,
    };
    if arrive_only && threads.is_none() {
        return mods.error("needs the number of threads");
    }
    Ok(Op::Barrier { id, threads, arrive_only })
}

/// `shfl.sync.bfly.b32 d|p, a, b, c, members`
fn shuffle(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    if !mods.take("sync") {
        return mods.error("only the .sync form exists on these targets");
    }
    let op = mods.one(&[
        ("up", ShuffleOp::Up),
        ("down", ShuffleOp::Down),
        ("bfly", ShuffleOp::Butterfly),
        ("idx", ShuffleOp::Index),
    ])?;
    let ty = mods.ty()?;
    arity(inst, 5..=5)?;
    let (d, p) = match &inst.operands[0] {
        Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
        d => (d, None),
    };
    let p = p.map(|p| context.names.predicate_destination(inst, p)).transpose()?.flatten();
    let d = context.names.destination(inst, ty, d)?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let b = context.names.source(inst, Type::B32, &inst.operands[2])?;
    let c = context.names.source(inst, Type::B32, &inst.operands[3])?;
    let members = context.names.source(inst, Type::B32, &inst.operands[4])?;
    if ty.bytes() != 4 {
        return mods.error("shuffles move 32 bits");
    }
    Ok(Op::Shuffle { op, d, p, a, b, c, members })
}

fn vote(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    if !mods.take("sync") {
        return mods.error("only the .sync form exists on these targets");
    }
    let op =
        mods.one(&[("all", VoteOp::All), ("any", VoteOp::Any), ("uni", VoteOp::Uniform), ("ballot", VoteOp::Ballot)])?;
    let ty = mods.ty()?;
    arity(inst, 3..=3)?;
    if ty != if op == VoteOp::Ballot { Type::B32 } else { Type::Pred } {
        return mods.error(format!("does not give a {ty}"));
    }
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let p = context.names.predicate(inst, &inst.operands[1])?;
    let members = context.names.source(inst, Type::B32, &inst.operands[2])?;
    Ok(Op::Vote { op, d, p, members })
}

fn matching(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    mods.take("sync");
    let all = mods.one(&[("all", true), ("any", false)])?;
    let ty = mods.ty()?;
    arity(inst, 3..=3)?;
    let (d, p) = match &inst.operands[0] {
        Operand::Pair(d, p) if all => (d.as_ref(), context.names.predicate_destination(inst, p)?),
        d => (d, None),
    };
    let d = context.names.destination(inst, Type::B32, d)?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let members = context.names.source(inst, Type::B32, &inst.operands[2])?;
    Ok(Op::Match { all, wide: class_of(ty) == Class::Wide, d, p, a, members })
}

fn reduce(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    mods.take("sync");
    let op = mods.one(&[
        ("add", AtomicOp::Add),
        ("min", AtomicOp::Min),
        ("max", AtomicOp::Max),
        ("and", AtomicOp::And),
        ("or", AtomicOp::Or),
        ("xor", AtomicOp::Xor),
    ])?;
    let ty = mods.ty()?;
    arity(inst, 3..=3)?;
    if ty.is_float() || ty.bytes() != 4 {
        return mods.error("reduces 32-bit integers");
    }
    let d = context.names.destination(inst, ty, &inst.operands[0])?;
    let a = context.names.source(inst, ty, &inst.operands[1])?;
    let members = context.names.source(inst, Type::B32, &inst.operands[2])?;
    Ok(Op::Reduce { op, ty, d, a, members })
}
