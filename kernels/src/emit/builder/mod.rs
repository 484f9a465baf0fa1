//! A typed SSA builder that prints MLIR text.
//!
//! Text, not C++ builder calls: the parser verifies what it reads and reports mistakes as errors, where misused builder
//! calls crash. Memory is addressed through plain LLVM pointers; loops are `scf`, arithmetic is `arith`, `math` and
//! `vector`. Loop counters and addresses are i64.
//!
//! Here are types, functions and entries; [`constants`], [`arithmetic`], [`vectors`], [`memory`], [`control`] flow and
//! [`known`] numbers are what goes into them.

mod arithmetic;
mod constants;
mod control;
mod known;
mod memory;
mod vectors;

pub(crate) use control::Loop;

use std::{collections::BTreeMap, fmt::Write};

/// What a value, or each lane of a vector, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Elem {
    F32,
    Bf16,
    I1,
    I8,
    I16,
    I32,
    I64,
    Pointer,
    /// A pointer to the shared memory of a thread block.
    Shared,
}

/// A scalar (`lanes == 1`) or a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Type {
    pub elem: Elem,
    pub lanes: u32,
}

/// An SSA value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    id: u32,
    /// Which result, of an operation that has several.
    part: Option<u32>,
    pub ty: Type,
}

/// The thread blocks that an entry is launched with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub threads: u32,
    /// Blocks that must fit a multiprocessor at once, which bounds the registers of a thread; `None` leaves the bound to
    /// the assembler.
    pub together: Option<u32>,
}

/// How two numbers are compared: the predicates of `arith.cmpf` (ordered) and `arith.cmpi` (signed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Less,
    LessEqual,
    Greater,
    Equal,
    /// Floats only: unordered, or not equal.
    NotEqual,
}

/// Builds one module.
#[derive(Default)]
pub(crate) struct Builder {
    /// Whether the processor rounds vectors to bfloat16 in one instruction.
    pub(in crate::emit) has_bf16: bool,
    module: String,
    /// Constants of the open function; printed before its body.
    constants: String,
    known: BTreeMap<(Type, u32, i64), Value>,
    /// Values of the integer constants, for folding.
    integers: BTreeMap<u32, i64>,
    body: String,
    next: u32,
}

impl Elem {
    fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::Bf16 => "bf16",
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::Pointer => "!llvm.ptr",
            Elem::Shared => "!llvm.ptr<3>",
        }
    }

    fn bytes(self) -> u32 {
        match self {
            Elem::I1 | Elem::I8 => 1,
            Elem::I16 | Elem::Bf16 => 2,
            Elem::F32 | Elem::I32 => 4,
            Elem::I64 | Elem::Pointer | Elem::Shared => 8,
        }
    }
}

impl Type {
    pub const POINTER: Type = Type::scalar(Elem::Pointer);
    pub const I64: Type = Type::scalar(Elem::I64);

    pub const fn scalar(elem: Elem) -> Type {
        Type { elem, lanes: 1 }
    }

    pub const fn vector(elem: Elem, lanes: u32) -> Type {
        Type { elem, lanes }
    }

    /// The same shape with other elements.
    pub const fn with(self, elem: Elem) -> Type {
        Type { elem, lanes: self.lanes }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.lanes {
            1 => f.write_str(self.elem.name()),
            lanes => write!(f, "vector<{lanes}x{}>", self.elem.name()),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.part {
            None => write!(f, "%{}", self.id),
            Some(part) => write!(f, "%{}#{part}", self.id),
        }
    }
}

fn join<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Functions and calls.
impl Builder {
    pub fn new(has_bf16: bool) -> Builder {
        Builder { has_bf16, ..Builder::default() }
    }

    /// The text of the module.
    pub fn finish(self) -> String {
        format!("module {{\n{}}}\n", self.module)
    }

    /// Adds a function; `emit` gets the arguments. Private functions are not inlined: they are shared by several callers.
    pub fn function(&mut self, name: &str, public: bool, types: &[Type], emit: impl FnOnce(&mut Builder, &[Value])) {
        let (args, body) = self.body(types, emit);
        let parameters = join(args.iter().map(|arg| format!("{arg}: {}", arg.ty)));
        let (noinline, linkage) =
            if public { ("", "") } else { ("\"noinline\", ", ", llvm.linkage = #llvm.linkage<internal>") };
        let _ = writeln!(
            self.module,
            "func.func @{name}({parameters}) attributes {{passthrough = [{noinline}\"nounwind\", \
             \"no-builtins\"]{linkage}}} {{\n{body}return\n}}"
        );
    }

    pub fn call(&mut self, name: &str, args: &[Value]) {
        let types = join(args.iter().map(|arg| arg.ty));
        let _ = writeln!(self.body, "func.call @{name}({}) : ({types}) -> ()", join(args));
    }

    /// Adds a definition beside the functions.
    pub fn global(&mut self, definition: std::fmt::Arguments) {
        let _ = writeln!(self.module, "{definition}");
    }

    /// Adds an entry of the device. Pointers do not alias each other.
    pub fn kernel(&mut self, name: &str, block: Block, types: &[Type], emit: impl FnOnce(&mut Builder, &[Value])) {
        let (args, body) = self.body(types, emit);
        let parameters = join(args.iter().map(|arg| match arg.ty {
            Type::POINTER => format!("{arg}: {} {{llvm.noalias}}", arg.ty),
            ty => format!("{arg}: {ty}"),
        }));
        let Block { threads, together } = block;
        let together = together.map_or(String::new(), |blocks| format!("nvvm.minctasm = {blocks} : i32, "));
        // Subnormal numbers are flushed as they are on the processor.
        let _ = writeln!(
            self.module,
            "llvm.func @{name}({parameters}) attributes {{nvvm.kernel, nvvm.maxntid = array<i32: {threads}>, {together}passthrough = \
             [[\"denormal-fp-math-f32\", \"preserve-sign,preserve-sign\"], \"nounwind\", \"no-builtins\"]}} {{\n\
             {body}llvm.return\n}}"
        );
    }

    /// Arguments and text of a function.
    fn body(&mut self, types: &[Type], emit: impl FnOnce(&mut Builder, &[Value])) -> (Vec<Value>, String) {
        self.next = 0;
        let args: Vec<Value> = types.iter().map(|&ty| self.fresh(ty)).collect();
        emit(self, &args);
        self.known.clear();
        self.integers.clear();
        let constants = std::mem::take(&mut self.constants);
        (args, constants + &std::mem::take(&mut self.body))
    }

    fn fresh(&mut self, ty: Type) -> Value {
        self.next += 1;
        Value { id: self.next, part: None, ty }
    }

    /// Adds an operation without a result.
    pub fn effect(&mut self, operation: std::fmt::Arguments) {
        let _ = writeln!(self.body, "{operation}");
    }

    /// Adds an operation with one result.
    pub fn define(&mut self, ty: Type, operation: std::fmt::Arguments) -> Value {
        let value = self.fresh(ty);
        let _ = writeln!(self.body, "{value} = {operation}");
        value
    }
}
