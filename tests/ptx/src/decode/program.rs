//! Decoded kernels: what the executor runs.
//!
//! Operands are indices into a warp's register files. Immediates, special registers and addresses of symbols get registers
//! of their own that are filled once per warp, so that executing an instruction never asks what kind an operand is.

use std::sync::Arc;

use crate::syntax::tree::{Space, Type};

/// Index into one of the three register files of a warp: 32-bit (8 and 16 bits too), 64-bit, predicates. Which one
/// follows from the instruction.
pub type Reg = u32;

/// A predicate operand, perhaps negated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predicate {
    /// Register.
    pub reg: Reg,
    /// `!p`
    pub negated: bool,
}

/// What a register that stands for a constant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fill {
    /// A number.
    Value(u64),
    /// A special register.
    Special(Special),
    /// Offset in the statically allocated shared memory.
    Shared(u64),
    /// Offset past the static shared memory, where dynamic shared memory starts.
    DynamicShared(u64),
    /// Offset in a thread's local memory.
    Local(u64),
    /// A module variable and an offset in it.
    Variable(u32, u64),
    /// Offset in the parameters, as a generic address.
    Param(u64),
}

/// Special registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    WarpCount,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicSharedSize,
    TotalSharedSize,
    Clock,
}

/// IEEE rounding, or rounding to an integral value, whichever the instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Round {
    /// To nearest, ties to even (`.rn`, `.rni`).
    #[default]
    Nearest,
    /// To nearest, ties away from zero (`.rna`).
    NearestAway,
    /// Towards zero (`.rz`, `.rzi`).
    Zero,
    /// Towards minus infinity (`.rm`, `.rmi`).
    Down,
    /// Towards plus infinity (`.rp`, `.rpi`).
    Up,
}

/// Modifiers of floating-point instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// Rounding of the result.
    pub round: Round,
    /// Subnormal inputs and results become zero.
    pub ftz: bool,
    /// Results are clamped to [0, 1]; NaN becomes 0. On integers: to the range of the type.
    pub sat: bool,
    /// `.approx` or `.full`: the result carries the documented error.
    pub approx: bool,
    /// `.NaN`: minima and maxima pass NaN on.
    pub nan: bool,
    /// `.relu`: negative results and NaN become 0.
    pub relu: bool,
}

/// One operand in, one out, both of the instruction's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum UnaryOp {
    Mov,
    Neg,
    Abs,
    Not,
    Brev,
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// Two operands in, one out, all of the instruction's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    MulHi,
    Mul24,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    CopySign,
}

/// Three operands in, one out, all of the instruction's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TernaryOp {
    Mad,
    MadHi,
    Fma,
    Sad,
    /// Bytes of two words chosen by the third (default mode).
    Prmt,
    /// Any function of three bits, by its truth table.
    Lop3(u8),
    /// Funnel shift left or right; clamped or wrapped amount.
    Funnel {
        left: bool,
        wrap: bool,
    },
}

/// Counts of bits: 32 or 64 bits in, 32 bits out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CountOp {
    Population,
    LeadingZeros,
    /// Position of the most significant non-sign bit; `shift` counts from the top instead.
    FindTop {
        shift: bool,
    },
}

/// Comparisons of `setp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unordered variants: true if an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Neither is NaN.
    Num,
    /// One is NaN.
    Nan,
}

/// Boolean operations on predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BoolOp {
    And,
    Or,
    Xor,
}

/// Read-modify-write operations of `atom` and `red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    /// Increment or decrement with wrap at the operand.
    Inc,
    Dec,
}

/// Where a `shfl` takes its value from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ShuffleOp {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Votes over a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VoteOp {
    All,
    Any,
    Uniform,
    Ballot,
}

/// An address operand: register (32 or 64 bits) and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Register with the base.
    pub base: Reg,
    /// Whether the base is a 64-bit register.
    pub wide: bool,
    /// Constant offset in bytes.
    pub offset: i64,
}

/// Up to four registers of a vector access; `None` drops the element.
pub type Elements = [Option<Reg>; 4];

/// Reads memory into registers, or writes them to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// State space as written; generic addresses are told apart when they are known.
    pub space: Space,
    /// Element type in memory.
    pub ty: Type,
    /// Number of elements: 1, 2 or 4 (8 for 256-bit vectors is not supported).
    pub count: u8,
    /// Registers.
    pub registers: Elements,
    /// Whether the registers are 64-bit ones.
    pub wide: bool,
    /// Address of the first element.
    pub address: Address,
    /// Through the read-only path (`.nc`): writes in the same launch are not seen.
    pub read_only: bool,
}

/// `mma.sync` and `mma.sp.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma {
    /// Extents of the product (m, n, k).
    pub shape: [u8; 3],
    /// Type of the elements of A and B.
    pub input: Type,
    /// Type of the elements of C and D.
    pub output: Type,
    /// Fragments; unused registers repeat the first.
    pub d: Elements,
    /// Fragment of A.
    pub a: Elements,
    /// Fragment of B.
    pub b: Elements,
    /// Fragment of C.
    pub c: Elements,
    /// 2:4 structured sparsity of A.
    pub sparse: Option<Sparsity>,
}

/// Metadata of a structured-sparse operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparsity {
    /// Register with the indices of the kept elements.
    pub metadata: Reg,
    /// Which threads of a quad give the metadata.
    pub selector: u8,
    /// `::ordered_metadata`: indices must ascend.
    pub ordered: bool,
}

/// Two register files in play where types of different widths meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cvt {
    /// Type of the result.
    pub to: Type,
    /// Type of the operand.
    pub from: Type,
    /// Rounding and clamping.
    pub mode: Mode,
    /// Whether a rounding to an integral value was asked (`.rni` and the like).
    pub integral: bool,
    /// Destination and whether it is a 64-bit register.
    pub d: (Reg, bool),
    /// Source and whether it is a 64-bit register.
    pub a: (Reg, bool),
    /// Lower half of a packed conversion (`cvt.rn.f16x2.f32 d, a, b`).
    pub b: Option<Reg>,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    Unary {
        op: UnaryOp,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Reg,
    },
    Binary {
        op: BinaryOp,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Ternary {
        op: TernaryOp,
        ty: Type,
        mode: Mode,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    /// `mul.wide` and `mad.wide` (with `c`): operands of half the width of the result.
    Wide {
        ty: Type,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Option<Reg>,
    },
    /// The amount is 32 bits, whatever the type.
    Shift {
        left: bool,
        ty: Type,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    Count {
        op: CountOp,
        ty: Type,
        d: Reg,
        a: Reg,
    },
    BitExtract {
        ty: Type,
        d: Reg,
        a: Reg,
        position: Reg,
        length: Reg,
    },
    BitInsert {
        ty: Type,
        d: Reg,
        a: Reg,
        b: Reg,
        position: Reg,
        length: Reg,
    },
    Setp {
        compare: Compare,
        ty: Type,
        ftz: bool,
        with: Option<(BoolOp, Predicate)>,
        p: Option<Reg>,
        q: Option<Reg>,
        a: Reg,
        b: Reg,
    },
    Selp {
        wide: bool,
        d: Reg,
        a: Reg,
        b: Reg,
        p: Predicate,
    },
    PredicateLogic {
        op: BoolOp,
        d: Reg,
        a: Predicate,
        b: Predicate,
    },
    /// `mov.b64 d, {a, b}` and the like: parts from the least significant.
    Pack {
        part: Type,
        d: (Reg, bool),
        parts: Elements,
    },
    Unpack {
        part: Type,
        parts: Elements,
        a: (Reg, bool),
    },
    Cvt(Cvt),
    /// Generic address to one of a space, or back.
    Cvta {
        space: Space,
        to_space: bool,
        d: Reg,
        a: Reg,
    },
    Ld(Transfer),
    St(Transfer),
    Atomic {
        op: AtomicOp,
        space: Space,
        ty: Type,
        d: Option<Reg>,
        wide: bool,
        address: Address,
        a: Reg,
        b: Option<Reg>,
    },
    Branch {
        target: u32,
        reconverge: u32,
    },
    BranchTable {
        targets: Arc<[u32]>,
        index: Reg,
        reconverge: u32,
    },
    Return,
    Trap,
    Barrier {
        id: Reg,
        threads: Option<Reg>,
        arrive_only: bool,
    },
    WarpBarrier {
        members: Reg,
    },
    Fence,
    Nop,
    Shuffle {
        op: ShuffleOp,
        d: Reg,
        p: Option<Reg>,
        a: Reg,
        b: Reg,
        c: Reg,
        members: Reg,
    },
    Vote {
        op: VoteOp,
        d: Reg,
        p: Predicate,
        members: Reg,
    },
    /// Lanes of `members` with the same value.
    Match {
        all: bool,
        wide: bool,
        d: Reg,
        p: Option<Reg>,
        a: Reg,
        members: Reg,
    },
    Reduce {
        op: AtomicOp,
        ty: Type,
        d: Reg,
        a: Reg,
        members: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    LoadMatrix {
        count: u8,
        transposed: bool,
        d: Elements,
        address: Address,
    },
    AsyncCopy {
        bytes: u8,
        source_bytes: Option<Reg>,
        to: Address,
        from: Address,
    },
    AsyncCommit,
    /// Waits until at most this many groups are pending; `None`: for all copies.
    AsyncWait {
        pending: Option<u32>,
    },
    Mma(Box<Mma>),
}

/// An instruction with its guard.
#[derive(Debug, Clone, PartialEq)]
pub struct Inst {
    /// Predicate that must hold.
    pub guard: Option<Predicate>,
    /// What it does.
    pub op: Op,
    /// Line of the PTX text.
    pub line: u32,
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Symbol.
    pub name: String,
    /// Offset in the parameter block.
    pub offset: usize,
    /// Size in bytes.
    pub bytes: usize,
}

/// A kernel, ready to run.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Symbol.
    pub name: String,
    /// Instructions; jumps are indices.
    pub code: Vec<Inst>,
    /// The opcode of each instruction with its modifiers.
    pub opcodes: Vec<String>,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Bytes of the parameter block.
    pub param_bytes: usize,
    /// Bytes of static shared memory.
    pub shared_bytes: u64,
    /// Alignment of the dynamic shared memory that follows.
    pub dynamic_align: u64,
    /// Bytes of local memory per thread.
    pub local_bytes: u64,
    /// Threads per block at most, if declared.
    pub max_threads: Option<u64>,
    /// Threads per block exactly, if declared.
    pub required_threads: Option<[u32; 3]>,
    /// Sizes of the register files: 32-bit, 64-bit, predicates.
    pub registers: [usize; 3],
    /// Constants of the 32-bit file.
    pub fill32: Vec<(Reg, Fill)>,
    /// Constants of the 64-bit file.
    pub fill64: Vec<(Reg, Fill)>,
    /// Bytes that one shared-memory check covers: the smallest shared access of the kernel.
    pub shared_granule: usize,
    /// The PTX text.
    pub source: Arc<str>,
}

impl Kernel {
    /// The text of a line of the module, trimmed.
    pub fn source_line(&self, line: u32) -> &str {
        self.source.lines().nth(line.saturating_sub(1) as usize).unwrap_or("").trim()
    }
}
