//! Tree to decoded kernels: names become indices, every modifier is accounted for, branches know where lanes meet again.
//!
//! This is also the verifier: what it accepts cannot index out of a register file or jump out of the code.

mod arithmetic;
mod cfg;
mod control;
mod convert;
mod matrix;
mod memory;
mod mods;
mod operands;
pub mod program;

use std::collections::HashMap;
use std::sync::Arc;

use self::mods::Mods;
use self::operands::{Names, Symbol};
use self::program::{Fill, Inst, Kernel, Op, Param, Reg};
use crate::syntax::PtxError;
use crate::syntax::tree::{Function, Instruction, Module, Space, Statement, Variable};

type Result<T> = std::result::Result<T, PtxError>;

/// A module whose kernels can be launched.
#[derive(Debug, Clone)]
pub struct Program {
    /// PTX ISA version.
    pub version: (u32, u32),
    /// Compute capability the text was written for.
    pub target: u32,
    /// `.global` and `.const` variables; [`Fill::Variable`] is an index into them.
    pub variables: Vec<Variable>,
    /// Kernels.
    pub kernels: Vec<Arc<Kernel>>,
}

impl Program {
    /// Parses and decodes a PTX text.
    pub fn load(source: &str) -> Result<Program> {
        let module = crate::syntax::parse(source)?;
        let source: Arc<str> = source.into();
        let kernels = module.kernels.iter().map(|function| decode(&module, function, &source).map(Arc::new));
        Ok(Program {
            version: module.version,
            target: module.target,
            kernels: kernels.collect::<Result<_>>()?,
            variables: module.variables,
        })
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }
}

/// What decoding an instruction needs.
struct Context {
    names: Names,
    labels: HashMap<String, u32>,
    tables: HashMap<String, Vec<String>>,
    shared_granule: usize,
}

impl Context {
    fn label(&self, inst: &Instruction, name: &str) -> Result<u32> {
        let target = self.labels.get(name).copied();
        target.ok_or_else(|| operands::error(inst, format!("there is no label `{name}` in this kernel")))
    }
}

/// Where variables of the kernel lie.
#[derive(Default)]
struct Layout {
    shared: u64,
    dynamic_align: u64,
    local: u64,
}

fn decode(module: &Module, function: &Function, source: &Arc<str>) -> Result<Kernel> {
    let mut names = Names::default();
    let mut layout = Layout { dynamic_align: 1, ..Layout::default() };
    for (index, variable) in module.variables.iter().enumerate() {
        place(variable, index, &mut names, &mut layout)?;
    }
    let params = place_params(function, &mut names);
    let mut context = Context { names, labels: HashMap::new(), tables: HashMap::new(), shared_granule: 16 };
    let instructions = declare(function, &mut context, &mut layout)?;
    let mut opcodes: Vec<String> = instructions.iter().map(|inst| full_name(inst)).collect();
    opcodes.push("ret".to_owned());
    let mut code = instructions.iter().map(|inst| instruction(inst, &mut context)).collect::<Result<Vec<_>>>()?;
    code.push(Inst {
        guard: None,
        op: Op::Return,
        line: function.body.last().map_or(function.line, |_| function.line),
    });
    set_meeting_points(&mut code);
    let Names { counts, fill32, fill64, .. } = context.names;
    Ok(Kernel {
        name: function.name.clone(),
        code,
        opcodes,
        param_bytes: params.last().map_or(0, |param: &Param| param.offset + param.bytes),
        params,
        shared_bytes: layout.shared,
        dynamic_align: layout.dynamic_align,
        local_bytes: layout.local,
        max_threads: function.max_threads,
        required_threads: function.required_threads,
        registers: counts,
        fill32,
        fill64,
        shared_granule: context.shared_granule,
        source: source.clone(),
    })
}

/// The opcode with its modifiers.
fn full_name(inst: &Instruction) -> String {
    let parts = std::iter::once(&inst.opcode).chain(&inst.modifiers);
    parts.map(String::as_str).collect::<Vec<_>>().join(".")
}

fn place_params(function: &Function, names: &mut Names) -> Vec<Param> {
    let mut end = 0;
    let mut params = Vec::new();
    for variable in &function.params {
        let offset = usize::next_multiple_of(end, variable.align as usize);
        end = offset + variable.bytes as usize;
        names.params.insert(variable.name.clone(), offset);
        params.push(Param { name: variable.name.clone(), offset, bytes: variable.bytes as usize });
    }
    params
}

/// Gives a variable its place in its state space.
fn place(variable: &Variable, index: usize, names: &mut Names, layout: &mut Layout) -> Result<()> {
    let error = |message: &str| PtxError::new(variable.line, format!("`{}` {message}", variable.name));
    if !variable.align.is_power_of_two() || variable.align > 1 << 16 {
        return Err(error("has an alignment that is no power of two"));
    }
    let fill = match variable.space {
        Space::Global | Space::Const if variable.external => return Err(error("is defined nowhere")),
        Space::Global | Space::Const => Fill::Variable(index as u32, 0),
        Space::Shared if variable.bytes == 0 => {
            layout.dynamic_align = layout.dynamic_align.max(variable.align);
            Fill::DynamicShared(0)
        }
        Space::Shared => Fill::Shared(reserve(&mut layout.shared, variable, 1 << 24).ok_or(error("is too large"))?),
        Space::Local => Fill::Local(reserve(&mut layout.local, variable, 1 << 20).ok_or(error("is too large"))?),
        Space::Param | Space::Generic => return Err(error("cannot be declared here")),
    };
    names.symbols.insert(variable.name.clone(), Symbol(fill));
    Ok(())
}

fn reserve(end: &mut u64, variable: &Variable, limit: u64) -> Option<u64> {
    let start = end.next_multiple_of(variable.align);
    *end = start.checked_add(variable.bytes).filter(|end| *end <= limit)?;
    Some(start)
}

/// Registers, variables and labels first, as instructions may name what is declared after them.
fn declare<'a>(function: &'a Function, context: &mut Context, layout: &mut Layout) -> Result<Vec<&'a Instruction>> {
    let mut instructions = Vec::new();
    for statement in &function.body {
        match statement {
            Statement::Registers(ty, list) => list.iter().for_each(|name| context.names.declare(*ty, name)),
            Statement::Variable(variable) => place(variable, 0, &mut context.names, layout)?,
            Statement::Label(name, line) => {
                if context.labels.insert(name.clone(), instructions.len() as u32).is_some() {
                    return Err(PtxError::new(*line, format!("the label `{name}` is defined twice")));
                }
            }
            Statement::BranchTargets(name, targets) => {
                context.tables.insert(name.clone(), targets.clone());
            }
            Statement::Instruction(inst) => instructions.push(inst),
        }
    }
    Ok(instructions)
}

fn instruction(inst: &Instruction, context: &mut Context) -> Result<Inst> {
    let guard = match &inst.guard {
        Some((name, negated)) => Some(context.names.named_predicate(inst, name, *negated)?),
        None => None,
    };
    let mut mods = Mods::new(inst);
    let families = [arithmetic::decode, convert::decode, memory::decode, control::decode, matrix::decode];
    for family in families {
        if let Some(op) = family(inst, &mut mods, context)? {
            mods.finish()?;
            return Ok(Inst { guard, op, line: inst.line });
        }
    }
    Err(PtxError::new(inst.line, format!("the instruction `{}` is not supported", inst.opcode)))
}

/// Checks the number of operands.
fn arity(inst: &Instruction, counts: std::ops::RangeInclusive<usize>) -> Result<()> {
    if counts.contains(&inst.operands.len()) {
        return Ok(());
    }
    let (least, most) = (counts.start(), counts.end());
    let expected = if least == most { format!("{least}") } else { format!("{least} to {most}") };
    Err(operands::error(inst, format!("takes {expected} operands, not {}", inst.operands.len())))
}

fn set_meeting_points(code: &mut [Inst]) {
    let successors: Vec<Vec<usize>> = code.iter().enumerate().map(|(at, inst)| successors(at, inst)).collect();
    let meeting = cfg::immediate_postdominators(&successors);
    for (inst, meet) in code.iter_mut().zip(meeting) {
        if let Op::Branch { reconverge, .. } | Op::BranchTable { reconverge, .. } = &mut inst.op {
            *reconverge = meet as Reg;
        }
    }
}

fn successors(at: usize, inst: &Inst) -> Vec<usize> {
    let mut next = match &inst.op {
        Op::Branch { target, .. } => vec![*target as usize],
        Op::BranchTable { targets, .. } => targets.iter().map(|target| *target as usize).collect(),
        Op::Return | Op::Trap => vec![],
        _ => return vec![at + 1],
    };
    if inst.guard.is_some() {
        next.push(at + 1);
    }
    next.sort_unstable();
    next.dedup();
    next
}
