//! A typed SSA builder that prints MLIR text.
//!
//! Text, not C++ builder calls: the parser verifies what it reads and reports mistakes as errors, where misused builder
//! calls crash. Memory is addressed through plain LLVM pointers; loops are `scf`, arithmetic is `arith`, `math` and
//! `vector`. Loop counters and addresses are i64.

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
    /// The text of the module.
    pub fn finish(self) -> String {
        format!("module {{\n{}}}\n", self.module)
    }

    /// Adds a function; `emit` gets the arguments. Private functions are not inlined: they are shared by several callers.
    pub fn function(&mut self, name: &str, public: bool, types: &[Type], emit: impl FnOnce(&mut Builder, &[Value])) {
        self.next = 0;
        let args: Vec<Value> = types.iter().map(|&ty| self.fresh(ty)).collect();
        emit(self, &args);
        let constants = std::mem::take(&mut self.constants);
        let body = std::mem::take(&mut self.body);
        self.known.clear();
        self.integers.clear();
        let parameters = join(args.iter().map(|arg| format!("{arg}: {}", arg.ty)));
        let (noinline, linkage) =
            if public { ("", "") } else { ("\"noinline\", ", ", llvm.linkage = #llvm.linkage<internal>") };
        let _ = writeln!(
            self.module,
            "func.func @{name}({parameters}) attributes {{passthrough = [{noinline}\"nounwind\", \
             \"no-builtins\"]{linkage}}} {{\n{constants}{body}return\n}}"
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
        self.next = 0;
        let args: Vec<Value> = types.iter().map(|&ty| self.fresh(ty)).collect();
        emit(self, &args);
        let constants = std::mem::take(&mut self.constants);
        let body = std::mem::take(&mut self.body);
        self.known.clear();
        self.integers.clear();
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
             {constants}{body}llvm.return\n}}"
        );
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

/// Constants.
impl Builder {
    pub fn float(&mut self, lanes: u32, value: f32) -> Value {
        self.constant(Type::vector(Elem::F32, lanes), 0, value.to_bits().into())
    }

    pub fn int(&mut self, lanes: u32, value: i32) -> Value {
        self.constant(Type::vector(Elem::I32, lanes), 0, value.into())
    }

    pub fn i64(&mut self, value: i64) -> Value {
        self.constant(Type::I64, 0, value)
    }

    /// `0, step, 2·step, ...` in i32.
    pub fn iota(&mut self, lanes: u32, step: i32) -> Value {
        match lanes {
            1 => self.int(1, 0),
            _ => self.constant(Type::vector(Elem::I32, lanes), 1, step.into()),
        }
    }

    /// True in the first `active` lanes.
    pub fn mask(&mut self, lanes: u32, active: u32) -> Value {
        self.constant(Type::vector(Elem::I1, lanes), 2, active.into())
    }

    /// Zero of any type but a pointer.
    pub fn zero(&mut self, ty: Type) -> Value {
        self.constant(ty, 0, 0)
    }

    /// The value of an i64 constant.
    pub fn known_integer(&self, value: Value) -> Option<i64> {
        value.part.is_none().then(|| self.integers.get(&value.id).copied()).flatten()
    }

    fn constant(&mut self, ty: Type, kind: u32, payload: i64) -> Value {
        if let Some(&value) = self.known.get(&(ty, kind, payload)) {
            return value;
        }
        let value = self.fresh(ty);
        let literal = literal(ty, kind, payload);
        let literal = if ty.lanes == 1 { literal } else { format!("dense<{literal}>") };
        let _ = writeln!(self.constants, "{value} = arith.constant {literal} : {ty}");
        self.known.insert((ty, kind, payload), value);
        if ty == Type::I64 {
            self.integers.insert(value.id, payload);
        }
        value
    }
}

fn literal(ty: Type, kind: u32, payload: i64) -> String {
    let lanes = i64::from(ty.lanes);
    match (kind, ty.elem) {
        (1, _) => format!("[{}]", join((0..lanes).map(|lane| lane * payload))),
        (2, _) if lanes == 1 => (payload > 0).to_string(),
        (2, _) => format!("[{}]", join((0..lanes).map(|lane| lane < payload))),
        (_, Elem::F32) => format!("0x{:08X}", payload as u32),
        _ => payload.to_string(),
    }
}

/// Arithmetic, lane by lane. Operands have one type.
impl Builder {
    fn binary(&mut self, name: &str, a: Value, b: Value) -> Value {
        debug_assert_eq!(a.ty, b.ty, "{name}");
        self.define(a.ty, format_args!("{name} {a}, {b} : {}", a.ty))
    }

    fn unary(&mut self, name: &str, a: Value) -> Value {
        self.define(a.ty, format_args!("{name} {a} : {}", a.ty))
    }

    fn is_float(a: Value) -> bool {
        a.ty.elem == Elem::F32
    }

    /// Sum of floats or integers; folds i64 constants.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x + y),
            (Some(0), _) => b,
            (_, Some(0)) => a,
            _ => self.binary(if Self::is_float(a) { "arith.addf" } else { "arith.addi" }, a, b),
        }
    }

    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary(if Self::is_float(a) { "arith.subf" } else { "arith.subi" }, a, b)
    }

    /// Difference of i64; folds constants.
    pub fn sub_known(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x - y),
            (_, Some(0)) => a,
            _ => self.sub(a, b),
        }
    }

    /// Product of floats or integers; folds i64 constants.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x * y),
            (Some(1), _) => b,
            (_, Some(1)) => a,
            (Some(0), _) | (_, Some(0)) => self.i64(0),
            _ => self.binary(if Self::is_float(a) { "arith.mulf" } else { "arith.muli" }, a, b),
        }
    }

    /// Float quotient, correctly rounded.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.divf", a, b)
    }

    /// Quotient of integers that are not negative.
    pub fn div_unsigned(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x / y),
            (_, Some(1)) => a,
            _ => self.binary("arith.divui", a, b),
        }
    }

    /// Remainder of integers that are not negative.
    pub fn rem_unsigned(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x % y),
            (_, Some(1)) => self.i64(0),
            _ => self.binary("arith.remui", a, b),
        }
    }

    /// `a · b + c`, rounded once.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        debug_assert!(a.ty == b.ty && b.ty == c.ty);
        self.define(a.ty, format_args!("math.fma {a}, {b}, {c} : {}", a.ty))
    }

    /// The larger float; NaN if either is.
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.maximumf", a, b)
    }

    /// The smaller float; NaN if either is.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.minimumf", a, b)
    }

    /// The larger of two signed integers.
    pub fn max_signed(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.maxsi", a, b)
    }

    /// The smaller of two signed integers.
    pub fn min_signed(&mut self, a: Value, b: Value) -> Value {
        match (self.known_integer(a), self.known_integer(b)) {
            (Some(x), Some(y)) => self.i64(x.min(y)),
            _ => self.binary("arith.minsi", a, b),
        }
    }

    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.andi", a, b)
    }

    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.ori", a, b)
    }

    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.xori", a, b)
    }

    pub fn shift_left(&mut self, a: Value, bits: i32) -> Value {
        let bits = self.int(a.ty.lanes, bits);
        self.binary("arith.shli", a, bits)
    }

    pub fn shift_right(&mut self, a: Value, bits: i32) -> Value {
        let bits = self.int(a.ty.lanes, bits);
        self.binary("arith.shrui", a, bits)
    }

    pub fn shift_right_signed(&mut self, a: Value, bits: i32) -> Value {
        let bits = self.int(a.ty.lanes, bits);
        self.binary("arith.shrsi", a, bits)
    }

    /// Low and high half of the product of unsigned integers.
    pub fn mul_extended(&mut self, a: Value, b: Value) -> (Value, Value) {
        let (low, high) = (self.fresh(a.ty), self.fresh(a.ty));
        let _ = writeln!(self.body, "{low}, {high} = arith.mului_extended {a}, {b} : {}", a.ty);
        (low, high)
    }

    pub fn neg(&mut self, a: Value) -> Value {
        self.unary("arith.negf", a)
    }

    pub fn abs(&mut self, a: Value) -> Value {
        self.unary("math.absf", a)
    }

    pub fn sqrt(&mut self, a: Value) -> Value {
        self.unary("math.sqrt", a)
    }

    pub fn floor(&mut self, a: Value) -> Value {
        self.unary("math.floor", a)
    }

    /// The magnitude of `a` with the sign of `b`.
    pub fn copy_sign(&mut self, a: Value, b: Value) -> Value {
        self.binary("math.copysign", a, b)
    }

    pub fn compare(&mut self, how: Compare, a: Value, b: Value) -> Value {
        debug_assert_eq!(a.ty, b.ty);
        let float = Self::is_float(a);
        let predicate = match (how, float) {
            (Compare::Less, true) => "olt",
            (Compare::LessEqual, true) => "ole",
            (Compare::Greater, true) => "ogt",
            (Compare::Equal, true) => "oeq",
            (Compare::NotEqual, true) => "une",
            (Compare::Less, false) => "slt",
            (Compare::LessEqual, false) => "sle",
            (Compare::Greater, false) => "sgt",
            (Compare::Equal, false) => "eq",
            (Compare::NotEqual, false) => "ne",
        };
        let name = if float { "arith.cmpf" } else { "arith.cmpi" };
        self.define(a.ty.with(Elem::I1), format_args!("{name} {predicate}, {a}, {b} : {}", a.ty))
    }

    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        debug_assert_eq!(a.ty, b.ty);
        match condition.ty.lanes {
            1 => self.define(a.ty, format_args!("arith.select {condition}, {a}, {b} : {}", a.ty)),
            _ => self.define(a.ty, format_args!("arith.select {condition}, {a}, {b} : {}, {}", condition.ty, a.ty)),
        }
    }
}

/// Conversions and vectors.
impl Builder {
    /// The same i64 or pointer, of which the optimiser knows nothing.
    pub fn opaque(&mut self, a: Value) -> Value {
        self.define(a.ty, format_args!("llvm.inline_asm \"\", \"=r,0\" {a} : ({}) -> {}", a.ty, a.ty))
    }

    fn convert(&mut self, name: &str, a: Value, elem: Elem) -> Value {
        let ty = a.ty.with(elem);
        self.define(ty, format_args!("{name} {a} : {} to {ty}", a.ty))
    }

    pub fn bitcast(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.bitcast", a, elem)
    }

    /// The same bits as `lanes` elements of another type.
    pub fn reinterpret(&mut self, a: Value, ty: Type) -> Value {
        self.define(ty, format_args!("vector.bitcast {a} : {} to {ty}", a.ty))
    }

    /// f32 rounded to bf16, nearest even: one instruction where the processor has `avx512_bf16`.
    pub fn float_to_bf16(&mut self, a: Value) -> Value {
        self.convert("arith.truncf", a, Elem::Bf16)
    }

    /// `sum[i] + a[2i] c[2i] + a[2i + 1] c[2i + 1]` for 16 lanes of f32, each of `a` and `c` holding a pair of bf16:
    /// `vdpbf16ps`. LLVM aborts on it where the target lacks `avx512bf16`.
    pub fn dot_bf16(&mut self, a: Value, c: Value, sum: Value) -> Value {
        let pairs = Type::vector(Elem::Bf16, 2 * sum.ty.lanes);
        let (a, c) = (self.reinterpret(a, pairs), self.reinterpret(c, pairs));
        let (ty, operation) = (sum.ty, "llvm.call_intrinsic \"llvm.x86.avx512bf16.dpbf16ps.512\"");
        self.define(ty, format_args!("{operation}({sum}, {a}, {c}) : ({ty}, {pairs}, {pairs}) -> {ty}"))
    }

    pub fn int_to_float(&mut self, a: Value) -> Value {
        self.convert("arith.sitofp", a, Elem::F32)
    }

    /// Toward zero; the value must be in the range of i32.
    pub fn float_to_int(&mut self, a: Value) -> Value {
        self.convert("arith.fptosi", a, Elem::I32)
    }

    pub fn extend_signed(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extsi", a, elem)
    }

    pub fn extend_unsigned(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extui", a, elem)
    }

    pub fn truncate(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.trunci", a, elem)
    }

    /// The value in every lane.
    pub fn splat(&mut self, a: Value, lanes: u32) -> Value {
        if a.ty.lanes == lanes {
            return a;
        }
        let ty = Type::vector(a.ty.elem, lanes);
        self.define(ty, format_args!("vector.broadcast {a} : {} to {ty}", a.ty))
    }

    /// One lane; a scalar is its own lane.
    pub fn extract(&mut self, a: Value, lane: u32) -> Value {
        if a.ty.lanes == 1 {
            return a;
        }
        let ty = Type::scalar(a.ty.elem);
        self.define(ty, format_args!("vector.extract {a}[{lane}] : {ty} from {}", a.ty))
    }

    pub fn assemble(&mut self, lanes: &[Value]) -> Value {
        if let [lane] = lanes {
            return *lane;
        }
        let ty = Type::vector(lanes[0].ty.elem, lanes.len() as u32);
        self.define(ty, format_args!("vector.from_elements {} : {ty}", join(lanes)))
    }

    /// Lanes of the concatenation of `a` and `b`, by number.
    pub fn shuffle(&mut self, a: Value, b: Value, lanes: &[u32]) -> Value {
        let ty = Type::vector(a.ty.elem, lanes.len() as u32);
        self.define(ty, format_args!("vector.shuffle {a}, {b} [{}] : {}, {}", join(lanes), a.ty, b.ty))
    }
}

/// Memory.
impl Builder {
    /// The address of element `index` (i64) of an array.
    pub fn address(&mut self, base: Value, index: Value, elem: Elem) -> Value {
        if self.known_integer(index) == Some(0) {
            return base;
        }
        let (elem, ty) = (elem.name(), base.ty);
        self.define(ty, format_args!("llvm.getelementptr inbounds {base}[{index}] : ({ty}, i64) -> {ty}, {elem}"))
    }

    /// The address `offset` (i64) bytes from `base`.
    pub fn byte_at(&mut self, base: Value, offset: Value) -> Value {
        let operation = format_args!("llvm.getelementptr {base}[{offset}] : (!llvm.ptr, i64) -> !llvm.ptr, i8");
        self.define(Type::POINTER, operation)
    }

    /// A load aligned to one element. `invariant`: the memory does not change while the function runs.
    pub fn load(&mut self, address: Value, ty: Type, invariant: bool) -> Value {
        self.load_aligned(address, ty, ty.elem.bytes(), invariant)
    }

    /// A load whose address is known to be a multiple of `align` bytes.
    pub fn load_aligned(&mut self, address: Value, ty: Type, align: u32, invariant: bool) -> Value {
        let invariant = if invariant { " invariant" } else { "" };
        let from = address.ty;
        self.define(ty, format_args!("llvm.load {address}{invariant} {{alignment = {align} : i64}} : {from} -> {ty}"))
    }

    /// A store aligned to one element.
    pub fn store(&mut self, value: Value, address: Value) {
        self.store_aligned(value, address, value.ty.elem.bytes());
    }

    /// A store to an address that is known to be a multiple of `align` bytes.
    pub fn store_aligned(&mut self, value: Value, address: Value, align: u32) {
        let (ty, to) = (value.ty, address.ty);
        self.effect(format_args!("llvm.store {value}, {address} {{alignment = {align} : i64}} : {ty}, {to}"));
    }

    /// Loads the lanes that the mask selects; the others are those of `otherwise`.
    pub fn masked_load(&mut self, address: Value, mask: Value, otherwise: Value) -> Value {
        let (ty, align) = (otherwise.ty, otherwise.ty.elem.bytes());
        self.define(
            ty,
            format_args!(
                "llvm.intr.masked.load {address}, {mask}, {otherwise} {{alignment = {align} : i32}} : \
                 (!llvm.ptr, {}, {ty}) -> {ty}",
                mask.ty
            ),
        )
    }

    pub fn masked_store(&mut self, value: Value, address: Value, mask: Value) {
        let (ty, align) = (value.ty, value.ty.elem.bytes());
        let _ = writeln!(
            self.body,
            "llvm.intr.masked.store {value}, {address}, {mask} {{alignment = {align} : i32}} : {ty}, {} into !llvm.ptr",
            mask.ty
        );
    }
}

/// An open loop.
#[must_use]
pub(crate) struct Loop {
    pub counter: Value,
    /// The carried values at the start of an iteration.
    pub carried: Vec<Value>,
    group: u32,
}

/// An open conditional.
#[must_use]
pub(crate) struct Branch {
    types: Vec<Type>,
    group: u32,
}

/// Control flow. What is emitted between a `begin` and its `end` is the region's body.
impl Builder {
    /// `for counter in low..high step step`, carrying values around the loop.
    pub fn begin_loop(&mut self, (low, high, step): (Value, Value, Value), carried: &[Value]) -> Loop {
        let counter = self.fresh(Type::I64);
        let inside: Vec<Value> = carried.iter().map(|value| self.fresh(value.ty)).collect();
        let group = self.fresh(Type::I64).id;
        if carried.is_empty() {
            let _ = writeln!(self.body, "scf.for {counter} = {low} to {high} step {step} : i64 {{");
        } else {
            let pairs = join(inside.iter().zip(carried).map(|(inner, outer)| format!("{inner} = {outer}")));
            let types = join(carried.iter().map(|value| value.ty));
            let _ = writeln!(
                self.body,
                "%{group}:{} = scf.for {counter} = {low} to {high} step {step} iter_args({pairs}) -> ({types}) : i64 {{",
                carried.len()
            );
        }
        Loop { counter, carried: inside, group }
    }

    /// `for counter in 0..count` with a known count.
    pub fn begin_count(&mut self, count: u64, carried: &[Value]) -> Loop {
        let bounds = (self.i64(0), self.i64(count as i64), self.i64(1));
        self.begin_loop(bounds, carried)
    }

    /// Ends an iteration with the next carried values; returns those after the loop.
    pub fn end_loop(&mut self, open: Loop, next: &[Value]) -> Vec<Value> {
        debug_assert_eq!(open.carried.len(), next.len());
        self.yield_values(next);
        self.body.push_str("}\n");
        results(open.group, open.carried.iter().map(|value| value.ty))
    }

    /// Opens the region that runs where `condition` holds; the conditional will have results of these types.
    pub fn begin_if(&mut self, condition: Value, types: &[Type]) -> Branch {
        let group = self.fresh(Type::I64).id;
        if types.is_empty() {
            let _ = writeln!(self.body, "scf.if {condition} {{");
        } else {
            let _ = writeln!(self.body, "%{group}:{} = scf.if {condition} -> ({}) {{", types.len(), join(types));
        }
        Branch { types: types.to_vec(), group }
    }

    /// Ends the first region and opens the other.
    pub fn begin_else(&mut self, values: &[Value]) {
        self.yield_values(values);
        self.body.push_str("} else {\n");
    }

    /// Ends the conditional; returns its results.
    pub fn end_if(&mut self, open: Branch, values: &[Value]) -> Vec<Value> {
        self.yield_values(values);
        self.body.push_str("}\n");
        results(open.group, open.types)
    }

    fn yield_values(&mut self, values: &[Value]) {
        if !values.is_empty() {
            let types = join(values.iter().map(|value| value.ty));
            let _ = writeln!(self.body, "scf.yield {} : {types}", join(values));
        }
    }
}

/// The values that an operation with several results defines.
fn results(group: u32, types: impl IntoIterator<Item = Type>) -> Vec<Value> {
    types.into_iter().enumerate().map(|(part, ty)| Value { id: group, part: Some(part as u32), ty }).collect()
}

/// Numbers known when code is emitted, next to those known when it runs.
impl Builder {
    /// `value · factor`
    pub fn times(&mut self, value: Value, factor: u64) -> Value {
        let factor = self.i64(factor as i64);
        self.mul(value, factor)
    }

    /// `value + addend`
    pub fn plus(&mut self, value: Value, addend: u64) -> Value {
        let addend = self.i64(addend as i64);
        self.add(value, addend)
    }

    /// `(value mod size, value / size)`
    pub fn split(&mut self, value: Value, size: u64) -> (Value, Value) {
        let size = self.i64(size as i64);
        (self.rem_unsigned(value, size), self.div_unsigned(value, size))
    }

    /// The address of f32 element `position` from `base`.
    pub fn float_at(&mut self, base: Value, position: Value) -> Value {
        self.address(base, position, Elem::F32)
    }

    /// The address of f32 element number `position` from `base`.
    pub fn float_after(&mut self, base: Value, position: u64) -> Value {
        let position = self.i64(position as i64);
        self.float_at(base, position)
    }

    /// Opens `for counter in (0..size).step_by(step)`.
    pub fn begin_steps(&mut self, size: Value, step: u64) -> Loop {
        let bounds = (self.i64(0), size, self.i64(step as i64));
        self.begin_loop(bounds, &[])
    }
}
