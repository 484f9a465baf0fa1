//! Operands to register indices.

use std::collections::HashMap;

use super::program::{Address, Elements, Fill, Predicate, Reg, Special};
use crate::float::sixteen::Format;
use crate::syntax::PtxError;
use crate::syntax::tree::{Instruction, Operand, Type};

/// Register files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    Narrow,
    Wide,
    Predicate,
}

pub fn class_of(ty: Type) -> Class {
    match ty.bytes() {
        0 => Class::Predicate,
        8 => Class::Wide,
        _ => Class::Narrow,
    }
}

/// What a symbol stands for: an address.
#[derive(Debug, Clone, Copy)]
pub struct Symbol(pub Fill);

/// Registers, constants and symbols of a kernel.
#[derive(Default)]
pub struct Names {
    registers: HashMap<String, (Type, Reg)>,
    constants: HashMap<(Class, Fill), Reg>,
    pub symbols: HashMap<String, Symbol>,
    pub params: HashMap<String, usize>,
    pub counts: [usize; 3],
    pub fill32: Vec<(Reg, Fill)>,
    pub fill64: Vec<(Reg, Fill)>,
}

type Result<T> = std::result::Result<T, PtxError>;

impl Names {
    fn allocate(&mut self, class: Class) -> Reg {
        let count = &mut self.counts[class as usize];
        *count += 1;
        (*count - 1) as Reg
    }

    pub fn declare(&mut self, ty: Type, name: &str) {
        let reg = self.allocate(class_of(ty));
        self.registers.insert(name.to_owned(), (ty, reg));
    }

    fn constant(&mut self, class: Class, fill: Fill) -> Reg {
        if let Some(&reg) = self.constants.get(&(class, fill)) {
            return reg;
        }
        let reg = self.allocate(class);
        self.constants.insert((class, fill), reg);
        if class == Class::Wide {
            self.fill64.push((reg, fill))
        } else {
            self.fill32.push((reg, fill))
        }
        reg
    }

    pub fn register(&self, name: &str) -> Option<(Type, Reg)> {
        self.registers.get(name).copied()
    }

    fn sized(&self, inst: &Instruction, ty: Type, name: &str, exact: bool) -> Result<Option<(Type, Reg)>> {
        let Some((declared, reg)) = self.register(name) else { return Ok(None) };
        let fits = if exact { declared.bytes() == ty.bytes() } else { declared.bytes() >= ty.bytes() };
        if !fits || (declared == Type::Pred) != (ty == Type::Pred) {
            return Err(error(inst, format!("`{name}` is declared {declared}, the instruction works on {ty}")));
        }
        Ok(Some((declared, reg)))
    }

    /// A destination of exactly the size of `ty`.
    pub fn destination(&self, inst: &Instruction, ty: Type, operand: &Operand) -> Result<Reg> {
        match self.loose_destination(inst, ty, operand, true)? {
            Some((reg, _)) => Ok(reg),
            None => Err(error(inst, "the result cannot be dropped")),
        }
    }

    /// A destination that may be wider than `ty` unless `exact`, and whether it is a 64-bit register; `None` for `_`.
    pub fn loose_destination(
        &self,
        inst: &Instruction,
        ty: Type,
        operand: &Operand,
        exact: bool,
    ) -> Result<Option<(Reg, bool)>> {
        match operand {
            Operand::Sink => Ok(None),
            Operand::Name(name) => match self.sized(inst, ty, name, exact)? {
                Some((declared, reg)) => Ok(Some((reg, class_of(declared) == Class::Wide))),
                None => Err(error(inst, format!("`{name}` is not a register"))),
            },
            _ => Err(error(inst, "the destination must be a register")),
        }
    }

    /// A source of exactly the size of `ty`: register, constant, special register or symbol.
    pub fn source(&mut self, inst: &Instruction, ty: Type, operand: &Operand) -> Result<Reg> {
        self.loose_source(inst, ty, operand, true).map(|(reg, _)| reg)
    }

    /// A source that may be wider than `ty` unless `exact`, and whether it is a 64-bit register.
    pub fn loose_source(
        &mut self,
        inst: &Instruction,
        ty: Type,
        operand: &Operand,
        exact: bool,
    ) -> Result<(Reg, bool)> {
        let class = class_of(ty);
        let fill = match operand {
            Operand::Name(name) => {
                if let Some((declared, reg)) = self.sized(inst, ty, name, exact)? {
                    return Ok((reg, class_of(declared) == Class::Wide));
                }
                self.named_constant(inst, name, 0)?
            }
            Operand::Offset(name, offset) => self.named_constant(inst, name, *offset)?,
            Operand::Integer(value) if !ty.is_float() || matches!(ty, Type::F16x2 | Type::Bf16x2) => {
                Fill::Value(truncate(*value as u64, ty))
            }
            Operand::Integer(value) => Fill::Value(float_literal(*value as f64, ty)),
            Operand::Single(bits) if ty.bytes() == 4 => Fill::Value(u64::from(*bits)),
            Operand::Single(bits) => Fill::Value(float_literal(f64::from(f32::from_bits(*bits)), ty)),
            Operand::Double(bits) if ty.bytes() == 8 => Fill::Value(*bits),
            Operand::Double(bits) => Fill::Value(float_literal(f64::from_bits(*bits), ty)),
            _ => return Err(error(inst, "this operand must be a register or a constant")),
        };
        Ok((self.constant(class, fill), class == Class::Wide))
    }

    fn named_constant(&self, inst: &Instruction, name: &str, offset: i64) -> Result<Fill> {
        if let Some(special) = special(name) {
            return Ok(Fill::Special(special));
        }
        let moved = |base: u64| base.wrapping_add(offset as u64);
        if let Some(&offset) = self.params.get(name) {
            return Ok(Fill::Param(moved(offset as u64)));
        }
        let Some(Symbol(fill)) = self.symbols.get(name) else {
            return Err(error(inst, format!("`{name}` is neither a register nor a symbol")));
        };
        Ok(match *fill {
            Fill::Shared(base) => Fill::Shared(moved(base)),
            Fill::DynamicShared(base) => Fill::DynamicShared(moved(base)),
            Fill::Local(base) => Fill::Local(moved(base)),
            Fill::Variable(index, base) => Fill::Variable(index, moved(base)),
            other => other,
        })
    }

    pub fn predicate(&self, inst: &Instruction, operand: &Operand) -> Result<Predicate> {
        let (name, negated) = match operand {
            Operand::Name(name) => (name, false),
            Operand::Not(name) => (name, true),
            _ => return Err(error(inst, "this operand must be a predicate")),
        };
        self.named_predicate(inst, name, negated)
    }

    pub fn named_predicate(&self, inst: &Instruction, name: &str, negated: bool) -> Result<Predicate> {
        match self.register(name) {
            Some((Type::Pred, reg)) => Ok(Predicate { reg, negated }),
            _ => Err(error(inst, format!("`{name}` is not a predicate"))),
        }
    }

    pub fn predicate_destination(&self, inst: &Instruction, operand: &Operand) -> Result<Option<Reg>> {
        match operand {
            Operand::Sink => Ok(None),
            _ => self.predicate(inst, operand).map(|predicate| Some(predicate.reg)),
        }
    }

    /// `[base + offset]`.
    pub fn address(&mut self, inst: &Instruction, operand: &Operand) -> Result<Address> {
        let Operand::Address(base, offset) = operand else {
            return Err(error(inst, "this operand must be an address in brackets"));
        };
        let Some(name) = base else {
            let base = self.constant(Class::Wide, Fill::Value(*offset as u64));
            return Ok(Address { base, wide: true, offset: 0 });
        };
        match self.register(name) {
            Some((ty, base)) if ty.bytes() >= 4 => Ok(Address { base, wide: ty.bytes() == 8, offset: *offset }),
            Some(_) => Err(error(inst, format!("`{name}` is too narrow for an address"))),
            None => {
                let fill = self.named_constant(inst, name, *offset)?;
                Ok(Address { base: self.constant(Class::Wide, fill), wide: true, offset: 0 })
            }
        }
    }

    /// Elements of `{a, b}` or of a single operand through `find`; at most four.
    pub fn elements(
        &mut self,
        inst: &Instruction,
        operand: &Operand,
        count: usize,
        mut find: impl FnMut(&mut Names, &Operand) -> Result<Option<Reg>>,
    ) -> Result<Elements> {
        let single = std::slice::from_ref(operand);
        let list = if let Operand::Vector(list) = operand { list.as_slice() } else { single };
        if list.len() != count || count > 4 {
            return Err(error(inst, format!("expected {count} elements, found {}", list.len())));
        }
        let mut elements = [None; 4];
        for (element, operand) in elements.iter_mut().zip(list) {
            *element = find(self, operand)?;
        }
        Ok(elements)
    }
}

pub fn error(inst: &Instruction, message: impl Into<String>) -> PtxError {
    PtxError::new(inst.line, format!("`{}`: {}", inst.opcode, message.into()))
}

fn truncate(value: u64, ty: Type) -> u64 {
    if ty.bytes() >= 8 { value } else { value & ((1 << (8 * ty.bytes())) - 1) }
}

fn float_literal(value: f64, ty: Type) -> u64 {
    match ty {
        Type::F16 => u64::from(Format::F16.encode(value)),
        Type::Bf16 => u64::from(Format::Bf16.encode(value)),
        Type::F64 => value.to_bits(),
        _ => u64::from((value as f32).to_bits()),
    }
}

fn special(name: &str) -> Option<Special> {
    let axis = |component: &str| ["x", "y", "z"].iter().position(|axis| *axis == component).map(|axis| axis as u8);
    let (base, component) = name.split_once('.').unwrap_or((name, ""));
    Some(match base {
        "%tid" => Special::Tid(axis(component)?),
        "%ntid" => Special::Ntid(axis(component)?),
        "%ctaid" => Special::Ctaid(axis(component)?),
        "%nctaid" => Special::Nctaid(axis(component)?),
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%dynamic_smem_size" => Special::DynamicSharedSize,
        "%total_smem_size" => Special::TotalSharedSize,
        "%clock" | "%clock64" | "%globaltimer" => Special::Clock,
        _ => return None,
    })
}
