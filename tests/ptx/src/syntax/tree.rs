//! The tree of a PTX module.

use std::fmt;

/// State spaces of variables and accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Kernel parameters.
    Param,
    /// Device memory.
    Global,
    /// Read-only device memory.
    Const,
    /// One per block.
    Shared,
    /// One per thread.
    Local,
    /// Any of the above but parameters, told apart by address.
    Generic,
}

/// Fundamental and packed types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

impl Type {
    const NAMES: [(&'static str, Type); 21] = [
        ("pred", Type::Pred),
        ("b8", Type::B8),
        ("b16", Type::B16),
        ("b32", Type::B32),
        ("b64", Type::B64),
        ("b128", Type::B128),
        ("u8", Type::U8),
        ("u16", Type::U16),
        ("u32", Type::U32),
        ("u64", Type::U64),
        ("s8", Type::S8),
        ("s16", Type::S16),
        ("s32", Type::S32),
        ("s64", Type::S64),
        ("f16", Type::F16),
        ("f16x2", Type::F16x2),
        ("bf16", Type::Bf16),
        ("bf16x2", Type::Bf16x2),
        ("tf32", Type::Tf32),
        ("f32", Type::F32),
        ("f64", Type::F64),
    ];

    /// The type that PTX spells `.name`.
    pub fn from_name(name: &str) -> Option<Type> {
        Type::NAMES.iter().find(|(spelling, _)| *spelling == name).map(|(_, ty)| *ty)
    }

    /// Size in bytes; a predicate has none in memory and counts as 0.
    pub fn bytes(self) -> usize {
        match self {
            Type::Pred => 0,
            Type::B8 | Type::U8 | Type::S8 => 1,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 2,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
            Type::B128 => 16,
            _ => 4,
        }
    }

    /// Whether values are signed integers.
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// Whether values are floating-point numbers, packed ones included.
    pub fn is_float(self) -> bool {
        use Type::*;
        matches!(self, F16 | F16x2 | Bf16 | Bf16x2 | Tf32 | F32 | F64)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Type::NAMES.iter().find(|(_, ty)| ty == self).unwrap_or(&Type::NAMES[0]);
        write!(f, ".{name}")
    }
}

/// A module: everything in one PTX text.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// PTX ISA version, (8, 0) for `.version 8.0`.
    pub version: (u32, u32),
    /// Compute capability, 80 for `.target sm_80`.
    pub target: u32,
    /// Variables outside functions.
    pub variables: Vec<Variable>,
    /// Kernels (`.entry`).
    pub kernels: Vec<Function>,
}

/// A variable in memory.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Where it lives.
    pub space: Space,
    /// Alignment in bytes.
    pub align: u64,
    /// Its symbol.
    pub name: String,
    /// Size in bytes; 0 for `name[]`, whose size the launch gives.
    pub bytes: u64,
    /// Initial bytes of module variables; may be shorter than `bytes`, the rest is zero.
    pub initial: Option<Vec<u8>>,
    /// Declared `.extern`.
    pub external: bool,
    /// Line of the declaration.
    pub line: u32,
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its symbol.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<Variable>,
    /// `.maxntid` as a number of threads.
    pub max_threads: Option<u64>,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// Statements in order, nested blocks flattened.
    pub body: Vec<Statement>,
    /// Line of the name.
    pub line: u32,
}

/// A statement of a body.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `name:`
    Label(String, u32),
    /// `.reg .b32 %r<10>;` as one entry per register.
    Registers(Type, Vec<String>),
    /// A `.shared` or `.local` variable.
    Variable(Variable),
    /// `name: .branchtargets a, b;`
    BranchTargets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
}

/// `@!%p1 ld.global.b32 %r1, [%rd1+4];`
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Predicate register and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The first word.
    pub opcode: String,
    /// What follows it, without dots.
    pub modifiers: Vec<String>,
    /// Operands, destination first.
    pub operands: Vec<Operand>,
    /// Line of the opcode.
    pub line: u32,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register, symbol or label, `%tid.x` with its component.
    Name(String),
    /// A symbol and an offset: `table+8`.
    Offset(String, i64),
    /// An integer, in two's complement if negative.
    Integer(i64),
    /// Bits of an f32.
    Single(u32),
    /// Bits of an f64.
    Double(u64),
    /// `!%p1`
    Not(String),
    /// `%p1|%p2`
    Pair(Box<Operand>, Box<Operand>),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `[base + offset]`; without base the offset is the address.
    Address(Option<String>, i64),
    /// `_`: the result is dropped.
    Sink,
}
