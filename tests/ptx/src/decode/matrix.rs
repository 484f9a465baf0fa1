//! `ldmatrix`, `mma.sync` and `mma.sp.sync`.

use super::mods::Mods;
use super::operands::error;
use super::program::{Elements, Mma, Op, Sparsity};
use super::{Context, Result, arity};
use crate::syntax::tree::{Instruction, Operand, Type};

pub(super) fn decode(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Option<Op>> {
    Ok(Some(match inst.opcode.as_str() {
        "ldmatrix" => load_matrix(inst, mods, context)?,
        "mma" => mma(inst, mods, context)?,
        _ => return Ok(None),
    }))
}

fn load_matrix(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    mods.take("sync");
    mods.take("aligned");
    if !mods.take("m8n8") || !(mods.take("shared") | mods.take("shared::cta")) {
        return mods.error("only .m8n8 from .shared is supported");
    }
    let count = mods.one(&[("x1", 1u8), ("x2", 2), ("x4", 4)])?;
    let transposed = mods.take("trans");
    if mods.ty()? != Type::B16 {
        return mods.error("loads .b16 elements");
    }
    arity(inst, 2..=2)?;
    let d = registers(inst, &inst.operands[0], count as usize, true, context)?;
    let address = context.names.address(inst, &inst.operands[1])?;
    Ok(Op::LoadMatrix { count, transposed, d, address })
}

/// Shapes by input type: k, registers of A, B and D for dense products with 32-bit results.
fn fragment_sizes(input: Type, output: Type, k: u8, sparse: bool) -> Option<[usize; 3]> {
    let result = if output == Type::F16 { 2 } else { 4 };
    let (a, b) = match (input, k, sparse) {
        (Type::F16 | Type::Bf16, 8, false) => (2, 1),
        (Type::F16 | Type::Bf16, 16, false) => (4, 2),
        (Type::Tf32, 4, false) => (2, 1),
        (Type::Tf32, 8, false) => (4, 2),
        (Type::F16 | Type::Bf16, 16, true) => (2, 2),
        (Type::F16 | Type::Bf16, 32, true) => (4, 4),
        (Type::Tf32, 8, true) => (2, 2),
        (Type::Tf32, 16, true) => (4, 4),
        _ => return None,
    };
    let output_fits = output == Type::F32 || (output == Type::F16 && input == Type::F16);
    output_fits.then_some([a, b, result])
}

fn mma(inst: &Instruction, mods: &mut Mods<'_>, context: &mut Context) -> Result<Op> {
    let ordered = mods.take("sp::ordered_metadata");
    let sparse = ordered || mods.take("sp");
    mods.take("sync");
    mods.take("aligned");
    let shape = mods.one(&[
        ("m16n8k4", [16u8, 8, 4]),
        ("m16n8k8", [16, 8, 8]),
        ("m16n8k16", [16, 8, 16]),
        ("m16n8k32", [16, 8, 32]),
    ])?;
    if !(mods.take("row") && mods.take("col")) {
        return mods.error("A must be in rows and B in columns (.row.col)");
    }
    let [output, input, other, accumulator] = [mods.ty()?, mods.ty()?, mods.ty()?, mods.ty()?];
    let sizes = fragment_sizes(input, output, shape[2], sparse);
    let (Some([a, b, d]), true) = (sizes, input == other && output == accumulator) else {
        return mods.error("this shape with these types is not supported");
    };
    let extra = if sparse { 2 } else { 0 };
    arity(inst, 4 + extra..=4 + extra)?;
    let mma = Mma {
        shape,
        input,
        output,
        d: registers(inst, &inst.operands[0], d, true, context)?,
        a: registers(inst, &inst.operands[1], a, false, context)?,
        b: registers(inst, &inst.operands[2], b, false, context)?,
        c: registers(inst, &inst.operands[3], d, false, context)?,
        sparse: if sparse { Some(sparsity(inst, ordered, context)?) } else { None },
    };
    Ok(Op::Mma(Box::new(mma)))
}

fn sparsity(inst: &Instruction, ordered: bool, context: &mut Context) -> Result<Sparsity> {
    let metadata = context.names.source(inst, Type::B32, &inst.operands[4])?;
    let Operand::Integer(selector @ 0..=3) = inst.operands[5] else {
        return Err(error(inst, "the sparsity selector must be a constant from 0 to 3"));
    };
    Ok(Sparsity { metadata, selector: selector as u8, ordered })
}

fn registers(
    inst: &Instruction,
    operand: &Operand,
    count: usize,
    written: bool,
    context: &mut Context,
) -> Result<Elements> {
    context.names.elements(inst, operand, count, |names, element| {
        Ok(Some(if written {
            names.destination(inst, Type::B32, element)?
        } else {
            names.source(inst, Type::B32, element)?
        }))
    })
}
