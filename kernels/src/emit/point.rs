//! Expressions at a point of the loop domain.
//!
//! An [`Emitter`] turns expressions into SSA values; a [`Point`] says where: which value each loop variable has, which
//! variable runs along the lanes of vectors, and what is computed already. A value that is equal in all lanes stays a
//! scalar until an operation needs it as a vector.

use super::builder::{Builder, Compare, Elem, Type, Value};
use crate::ir::{Access, Binary, Buffer, DType, Draw, Expr, ExprId, Exprs, Generator, Index, Precision, Store, Unary};
use std::{collections::BTreeMap, mem::offset_of};
use trainc_runtime::artifact::Control;

/// Where the control block has the step, in words.
const CONTROL_STEP: u64 = (offset_of!(Control, step) / size_of::<u32>()) as u64;
/// Where it has the key.
const CONTROL_KEY: u64 = (offset_of!(Control, key) / size_of::<u32>()) as u64;

/// The variable that runs along the lanes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub var: u32,
    /// How many lanes, from the first, are inside the domain.
    pub active: u32,
}

/// A place in the loop domain with what is known there.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// The value (i64) of each loop variable that is fixed; of the lane variable, its value in lane 0.
    vars: Vec<Option<Value>>,
    pub lane: Option<Lane>,
    accumulators: Vec<Option<Value>>,
    values: BTreeMap<ExprId, Value>,
    /// Blocks of ChaCha20 that draws at this point have taken words of.
    blocks: Vec<Block>,
}

/// The words that one element of a stream has.
#[derive(Clone, Debug)]
struct Block {
    stream: u32,
    element: Index,
    words: [Value; 16],
}

impl Point {
    /// A point where nothing is known yet.
    pub fn new(vars: usize, accumulators: usize) -> Point {
        Point {
            vars: vec![None; vars],
            lane: None,
            accumulators: vec![None; accumulators],
            values: BTreeMap::new(),
            blocks: Vec::new(),
        }
    }

    /// The point with one more variable fixed.
    pub fn at(&self, var: u32, value: Value) -> Point {
        let mut point = self.clone();
        point.vars[var as usize] = Some(value);
        point
    }

    /// The point with `var` fixed along the lanes, starting at `value`.
    pub fn along(&self, var: u32, value: Value, active: u32) -> Point {
        let mut point = self.at(var, value);
        point.lane = Some(Lane { var, active });
        point
    }

    /// The value (in lane 0) of a variable that is fixed.
    pub fn value_of(&self, var: u32) -> Value {
        self.vars[var as usize].expect("the variable is fixed")
    }

    /// Makes the value of an expression known.
    pub fn set_value(&mut self, expr: ExprId, value: Value) {
        self.values.insert(expr, value);
    }

    /// Makes an accumulator known.
    pub fn set_accumulator(&mut self, number: usize, value: Value) {
        self.accumulators[number] = Some(value);
    }
}

/// What an expression needs before it can be evaluated.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    /// Loop variables, as a bit set.
    vars: u64,
    /// Accumulators, as a bit set.
    accumulators: u64,
    /// Reads a buffer that the kernel also writes: not to be moved across a store.
    volatile: bool,
}

/// Emits the expressions of one kernel into one function.
pub(crate) struct Emitter<'a> {
    pub b: &'a mut Builder,
    pub exprs: &'a Exprs,
    buffers: &'a [Buffer],
    pointers: Vec<Value>,
    instance: Value,
    /// Lanes of a full vector.
    pub lanes: u32,
    needs: Vec<Needs>,
}

impl<'a> Emitter<'a> {
    /// `args` and `instance` are those of [`trainc_runtime::abi::StageFn`].
    pub fn new(
        b: &'a mut Builder,
        exprs: &'a Exprs,
        buffers: &'a [Buffer],
        args: Value,
        instance: Value,
        lanes: u32,
    ) -> Self {
        let pointers = (0..buffers.len()).map(|number| argument(b, args, number)).collect();
        Emitter::with_pointers(b, exprs, buffers, pointers, instance, lanes)
    }

    /// The same where the buffers' addresses are values already.
    pub fn with_pointers(
        b: &'a mut Builder,
        exprs: &'a Exprs,
        buffers: &'a [Buffer],
        pointers: Vec<Value>,
        instance: Value,
        lanes: u32,
    ) -> Self {
        let mut needs = Vec::with_capacity(exprs.len());
        for (id, _) in exprs.iter() {
            needs.push(needs_of(exprs, buffers, &needs, id));
        }
        Emitter { b, exprs, buffers, pointers, instance, lanes, needs }
    }

    /// The address of a buffer.
    pub fn pointer(&self, buffer: u32) -> Value {
        self.pointers[buffer as usize]
    }

    /// Evaluates now whatever below `roots` can be evaluated at this point, so that deeper points share it.
    pub fn hoist(&mut self, point: &mut Point, roots: &[ExprId]) {
        let known = |flags: &[Option<Value>]| {
            flags.iter().enumerate().filter(|(_, value)| value.is_some()).fold(0u64, |bits, (i, _)| bits | 1 << i)
        };
        let (vars, accumulators) = (known(&point.vars), known(&point.accumulators));
        for id in self.exprs.reachable(roots) {
            let needs = self.needs[id.0 as usize];
            if !needs.volatile && needs.vars & !vars == 0 && needs.accumulators & !accumulators == 0 {
                self.evaluate(point, id);
            }
        }
    }

    /// The value of an expression: a scalar if it is the same in all lanes.
    pub fn evaluate(&mut self, point: &mut Point, root: ExprId) -> Value {
        if !point.values.contains_key(&root) {
            for id in self.exprs.reachable(&[root]) {
                if !point.values.contains_key(&id) {
                    let value = self.node(point, id);
                    point.values.insert(id, value);
                }
            }
        }
        point.values[&root]
    }

    /// The value of an expression in every lane of the point.
    pub fn evaluate_wide(&mut self, point: &mut Point, root: ExprId) -> Value {
        let value = self.evaluate(point, root);
        let lanes = self.width(point);
        self.b.splat(value, lanes)
    }

    /// The lanes of values at this point.
    pub fn width(&self, point: &Point) -> u32 {
        if point.lane.is_some() { self.lanes } else { 1 }
    }

    /// Emits one expression; its operands are known at the point.
    fn node(&mut self, point: &mut Point, id: ExprId) -> Value {
        let exprs = self.exprs;
        match exprs.get(id) {
            Expr::Constant(bits) => self.b.float(1, f32::from_bits(*bits)),
            Expr::Integer(value) => self.b.int(1, *value),
            Expr::Position(index) => self.position(point, index),
            Expr::Load { buffer, index, guard } => {
                let guard = guard.map(|guard| self.evaluate(point, guard));
                self.load(point, *buffer, index, guard)
            }
            Expr::Unary(function, a) => {
                let a = self.evaluate(point, *a);
                self.unary(*function, a)
            }
            Expr::Binary(Binary::Pow, a, b) if self.constant(*b).is_some_and(is_simple_exponent) => {
                let exponent = self.constant(*b).expect("just seen");
                let a = self.evaluate(point, *a);
                self.simple_power(a, exponent)
            }
            Expr::Binary(function, a, b) => {
                let operands = [self.evaluate(point, *a), self.evaluate(point, *b)];
                let [a, b] = self.unify(operands);
                self.binary(*function, a, b)
            }
            Expr::Select(condition, a, b) => {
                let operands = [*condition, *a, *b].map(|operand| self.evaluate(point, operand));
                let [condition, a, b] = self.unify(operands);
                let holds = self.is_set(condition);
                self.b.select(holds, a, b)
            }
            Expr::ToFloat(a) => {
                let a = self.evaluate(point, *a);
                self.b.int_to_float(a)
            }
            Expr::ToInteger(a) => {
                let a = self.evaluate(point, *a);
                self.b.saturating_int(a)
            }
            Expr::Random(draw) => self.random(point, draw),
            Expr::Accumulator(number) => {
                point.accumulators[*number as usize].expect("verified: accumulators are read by later sweeps")
            }
        }
    }

    fn constant(&self, id: ExprId) -> Option<f32> {
        match self.exprs.get(id) {
            Expr::Constant(bits) => Some(f32::from_bits(*bits)),
            _ => None,
        }
    }

    /// Brings operands to equal numbers of lanes.
    fn unify<const N: usize>(&mut self, operands: [Value; N]) -> [Value; N] {
        let lanes = operands.iter().map(|operand| operand.ty.lanes).max().unwrap_or(1);
        operands.map(|operand| self.b.splat(operand, lanes))
    }

    /// Where a float used as a condition is not 0.
    fn is_set(&mut self, condition: Value) -> Value {
        let zero = self.b.float(condition.ty.lanes, 0.0);
        self.b.compare(Compare::NotEqual, condition, zero)
    }

    /// A factor of a product, as it is multiplied.
    pub fn rounded(&mut self, factor: Value, precision: Precision) -> Value {
        precision.rounding().map_or(factor, |rounding| self.unary(rounding, factor))
    }

    fn unary(&mut self, function: Unary, x: Value) -> Value {
        let b = &mut *self.b;
        match function {
            Unary::Neg => b.neg(x),
            Unary::Abs => b.abs(x),
            Unary::Exp => b.exp(x),
            Unary::Log => b.log(x),
            Unary::Sqrt => b.sqrt(x),
            Unary::Rsqrt => {
                let root = b.sqrt(x);
                let one = b.float(x.ty.lanes, 1.0);
                b.div(one, root)
            }
            Unary::Reciprocal => {
                let one = b.float(x.ty.lanes, 1.0);
                b.div(one, x)
            }
            Unary::Tanh => b.tanh(x),
            Unary::Sin => b.sin(x),
            Unary::Cos => b.cos(x),
            Unary::Sign => b.sign(x),
            Unary::Floor => b.floor(x),
            Unary::Erf => b.erf(x),
            Unary::RoundTf32 => b.round_tf32(x),
            Unary::RoundBf16 => b.round_bf16(x),
        }
    }

    fn binary(&mut self, function: Binary, x: Value, y: Value) -> Value {
        let float = x.ty.elem == Elem::F32;
        let b = &mut *self.b;
        match function {
            Binary::Add => b.add(x, y),
            Binary::Sub => b.sub(x, y),
            Binary::Mul => b.mul(x, y),
            Binary::Div => b.div(x, y),
            Binary::Max if float => b.max(x, y),
            Binary::Max => b.max_signed(x, y),
            Binary::Min if float => b.min(x, y),
            Binary::Min => b.min_signed(x, y),
            Binary::Pow => b.pow(x, y),
            Binary::Less => self.truth(Compare::Less, x, y),
            Binary::LessEqual => self.truth(Compare::LessEqual, x, y),
            Binary::Equal => self.truth(Compare::Equal, x, y),
        }
    }

    fn truth(&mut self, how: Compare, x: Value, y: Value) -> Value {
        let holds = self.b.compare(how, x, y);
        let (one, zero) = (self.b.float(x.ty.lanes, 1.0), self.b.float(x.ty.lanes, 0.0));
        self.b.select(holds, one, zero)
    }

    /// `a^e` for the exponents of [`is_simple_exponent`].
    fn simple_power(&mut self, a: Value, exponent: f32) -> Value {
        if exponent == 0.5 {
            return self.b.sqrt(a);
        }
        let mut power = a;
        for _ in 1..exponent as u32 {
            power = self.b.mul(power, a);
        }
        power
    }

    fn random(&mut self, point: &mut Point, draw: &Draw) -> Value {
        match draw.generator {
            Generator::Philox => {
                let element = self.position(point, &draw.element);
                let key = [0, 1].map(|word| self.control_word(draw, word));
                let counter = self.counter(draw);
                self.b.uniform(element, key, counter)
            }
            Generator::ChaCha20 { word } => {
                let words = self.block(point, draw);
                self.b.fraction(words[usize::from(word)])
            }
        }
    }

    /// What a draw depends on besides key and element: instance, step and stream.
    fn counter(&mut self, draw: &Draw) -> [Value; 3] {
        let instance = self.b.truncate(self.instance, Elem::I32);
        let step = self.control_word(draw, CONTROL_STEP);
        let stream = self.b.int(1, draw.stream as i32);
        [instance, step, stream]
    }

    fn control_word(&mut self, draw: &Draw, word: u64) -> Value {
        let control = self.pointer(draw.control);
        let word = self.b.i64(word as i64);
        let address = self.b.address(control, word, Elem::I32);
        self.b.load(address, Type::scalar(Elem::I32), true)
    }

    /// The block of ChaCha20 that a draw takes a word of.
    fn block(&mut self, point: &mut Point, draw: &Draw) -> [Value; 16] {
        let known = point.blocks.iter().find(|known| known.stream == draw.stream && known.element == draw.element);
        if let Some(known) = known {
            return known.words;
        }
        let element = self.position(point, &draw.element);
        let key = std::array::from_fn(|word| self.control_word(draw, CONTROL_KEY + word as u64));
        let counter = self.counter(draw);
        let words = self.b.chacha20(element, key, counter);
        point.blocks.push(Block { stream: draw.stream, element: draw.element.clone(), words });
        words
    }
}

/// Indices.
impl Emitter<'_> {
    /// The index as i64, in the given lane.
    fn index(&mut self, point: &mut Point, index: &Index, lane: u32) -> Value {
        match index {
            Index::Constant(value) => self.b.i64(*value),
            Index::Var(var) => {
                let base = point.vars[*var as usize].expect("verified: the variable is in scope");
                let offset = if point.lane.is_some_and(|along| along.var == *var) { lane } else { 0 };
                let offset = self.b.i64(offset.into());
                self.b.add(base, offset)
            }
            Index::Add(a, b) => {
                let (a, b) = (self.index(point, a, lane), self.index(point, b, lane));
                self.b.add(a, b)
            }
            Index::Mul(a, factor) => {
                let (a, factor) = (self.index(point, a, lane), self.b.i64(*factor));
                self.b.mul(a, factor)
            }
            Index::Div(a, divisor) => {
                let (a, divisor) = (self.index(point, a, lane), self.b.i64(*divisor));
                self.b.div_unsigned(a, divisor)
            }
            Index::Mod(a, divisor) => {
                let (a, divisor) = (self.index(point, a, lane), self.b.i64(*divisor));
                self.b.rem_unsigned(a, divisor)
            }
            Index::Value(id) => {
                let value = self.evaluate(point, *id);
                let value = self.b.extract(value, lane);
                self.b.extend_signed(value, Elem::I64)
            }
        }
    }

    /// The index as i32: a vector if it differs between lanes.
    pub fn position(&mut self, point: &mut Point, index: &Index) -> Value {
        let stride = self.lane_stride(point, index);
        if let Some(stride) = stride {
            let base = self.index(point, index, 0);
            let base = self.b.truncate(base, Elem::I32);
            if stride == 0 {
                return base;
            }
            let (base, steps) = (self.b.splat(base, self.lanes), self.b.iota(self.lanes, stride as i32));
            return self.b.add(base, steps);
        }
        match index {
            Index::Value(id) => self.evaluate(point, *id),
            Index::Add(a, b) => {
                let operands = [self.position(point, a), self.position(point, b)];
                let [a, b] = self.unify(operands);
                self.b.add(a, b)
            }
            Index::Mul(a, factor) => self.position_with(point, a, *factor, Builder::mul),
            Index::Div(a, divisor) => self.position_with(point, a, *divisor, Builder::div_unsigned),
            Index::Mod(a, divisor) => self.position_with(point, a, *divisor, Builder::rem_unsigned),
            Index::Constant(_) | Index::Var(_) => unreachable!("constants and variables are affine"),
        }
    }

    fn position_with(
        &mut self,
        point: &mut Point,
        index: &Index,
        constant: i64,
        operation: fn(&mut Builder, Value, Value) -> Value,
    ) -> Value {
        let index = self.position(point, index);
        let constant = self.b.int(index.ty.lanes, constant as i32);
        operation(self.b, index, constant)
    }

    /// By how much the index grows from lane to lane; `None` if irregularly.
    pub fn lane_stride(&self, point: &Point, index: &Index) -> Option<i64> {
        point.lane.map_or(Some(0), |lane| index.stride_of(lane.var, self.exprs))
    }
}

/// Memory.
impl Emitter<'_> {
    fn load(&mut self, point: &mut Point, buffer: u32, index: &Index, guard: Option<Value>) -> Value {
        let stored = self.load_stored(point, buffer, index, guard);
        self.widen(buffer, stored)
    }

    /// The elements of bf16 (i16, one for each lane) that an expression is, if it is no more than that.
    pub fn stored_bf16(&mut self, point: &mut Point, id: ExprId) -> Option<Value> {
        let exprs = self.exprs;
        let Expr::Load { buffer, index, guard: None } = exprs.get(id) else { return None };
        if self.dtype(*buffer) != DType::Bf16 {
            return None;
        }
        let stored = self.load_stored(point, *buffer, index, None);
        let lanes = self.width(point);
        Some(self.b.splat(stored, lanes))
    }

    /// As it lies in memory.
    fn load_stored(&mut self, point: &mut Point, buffer: u32, index: &Index, guard: Option<Value>) -> Value {
        let guard = guard.map(|guard| self.is_set(guard));
        let uniform_guard = guard.is_none_or(|guard| guard.ty.lanes == 1);
        match self.lane_stride(point, index) {
            Some(0) if uniform_guard => self.load_lane(point, buffer, index, 0, guard),
            Some(1) if self.can_mask(point, buffer, guard) => self.load_vector(point, buffer, index, guard),
            _ => self.gather(point, buffer, index, guard),
        }
    }

    /// Whether a contiguous access needs no mask, or one that the processor has.
    fn can_mask(&self, point: &Point, buffer: u32, guard: Option<Value>) -> bool {
        let full = guard.is_none() && point.lane.is_some_and(|lane| lane.active == self.lanes);
        full || self.buffers[buffer as usize].dtype != DType::Bf16
    }

    fn load_vector(&mut self, point: &mut Point, buffer: u32, index: &Index, guard: Option<Value>) -> Value {
        let address = self.element(point, buffer, index, 0);
        let ty = Type::vector(self.stored(buffer), self.lanes);
        match self.mask(point, guard) {
            None => self.b.load(address, ty, self.is_read_only(buffer)),
            Some(mask) => {
                let zero = self.zero(ty);
                self.b.masked_load(address, mask, zero)
            }
        }
    }

    /// The active lanes in which the guard holds; `None` if that is all of them.
    fn mask(&mut self, point: &Point, guard: Option<Value>) -> Option<Value> {
        let guard = guard.map(|guard| self.b.splat(guard, self.lanes));
        let active = point.lane.map_or(self.lanes, |lane| lane.active);
        let tail = (active < self.lanes).then(|| self.b.mask(self.lanes, active));
        match (guard, tail) {
            (Some(guard), Some(tail)) => Some(self.b.and(guard, tail)),
            (guard, tail) => guard.or(tail),
        }
    }

    fn gather(&mut self, point: &mut Point, buffer: u32, index: &Index, guard: Option<Value>) -> Value {
        let active = point.lane.map_or(self.lanes, |lane| lane.active);
        let lanes: Vec<Value> = (0..self.lanes)
            .map(|lane| match lane < active {
                true => self.load_lane(point, buffer, index, lane, guard),
                false => self.zero(Type::scalar(self.stored(buffer))),
            })
            .collect();
        self.b.assemble(&lanes)
    }

    /// Loads one stored element. Where the guard does not hold, element 0 is read instead and dropped.
    fn load_lane(&mut self, point: &mut Point, buffer: u32, index: &Index, lane: u32, guard: Option<Value>) -> Value {
        let ty = Type::scalar(self.stored(buffer));
        let mut position = self.index(point, index, lane);
        let guard = guard.map(|guard| self.b.extract(guard, lane));
        if let Some(guard) = guard {
            let zero = self.b.i64(0);
            position = self.b.select(guard, position, zero);
        }
        let address = self.b.address(self.pointer(buffer), position, ty.elem);
        let value = self.b.load(address, ty, self.is_read_only(buffer));
        match guard {
            None => value,
            Some(guard) => {
                let zero = self.zero(ty);
                self.b.select(guard, value, zero)
            }
        }
    }

    /// Executes a store (after its value, and those of its neighbours, have been evaluated).
    pub fn store(&mut self, point: &mut Point, store: &Store) {
        let value = self.evaluate(point, store.value);
        if point.lane.is_none() {
            return self.store_lane(point, store, value, 0);
        }
        let value = self.b.splat(value, self.lanes);
        let contiguous = self.lane_stride(point, &store.index) == Some(1);
        if contiguous && self.can_mask(point, store.buffer, None) {
            return self.store_vector(point, store, value);
        }
        for lane in 0..point.lane.map_or(1, |lane| lane.active) {
            self.store_lane(point, store, value, lane);
        }
    }

    fn store_vector(&mut self, point: &mut Point, store: &Store, value: Value) {
        let address = self.element(point, store.buffer, &store.index, 0);
        let mask = self.mask(point, None);
        let value = if store.accumulate {
            let ty = Type::vector(self.stored(store.buffer), self.lanes);
            let old = match mask {
                None => self.b.load(address, ty, false),
                Some(mask) => {
                    let zero = self.zero(ty);
                    self.b.masked_load(address, mask, zero)
                }
            };
            let old = self.widen(store.buffer, old);
            self.b.add(old, value)
        } else {
            value
        };
        let stored = self.narrow(store.buffer, value);
        match mask {
            None => self.b.store(stored, address),
            Some(mask) => self.b.masked_store(stored, address, mask),
        }
    }

    fn store_lane(&mut self, point: &mut Point, store: &Store, value: Value, lane: u32) {
        let address = self.element(point, store.buffer, &store.index, lane);
        let mut value = self.b.extract(value, lane);
        if store.accumulate {
            let old = self.b.load(address, Type::scalar(self.stored(store.buffer)), false);
            let old = self.widen(store.buffer, old);
            value = self.b.add(old, value);
        }
        let stored = self.narrow(store.buffer, value);
        self.b.store(stored, address);
    }

    /// The address of an element.
    pub fn element(&mut self, point: &mut Point, buffer: u32, index: &Index, lane: u32) -> Value {
        let position = self.index(point, index, lane);
        self.b.address(self.pointer(buffer), position, self.stored(buffer))
    }

    /// The storage type of a buffer.
    pub fn dtype(&self, buffer: u32) -> DType {
        self.buffers[buffer as usize].dtype
    }

    fn is_read_only(&self, buffer: u32) -> bool {
        self.buffers[buffer as usize].access == Access::Read
    }

    /// What an element is in memory.
    fn stored(&self, buffer: u32) -> Elem {
        stored_elem(self.buffers[buffer as usize].dtype)
    }

    fn widen(&mut self, buffer: u32, stored: Value) -> Value {
        match self.buffers[buffer as usize].dtype {
            DType::Bf16 => self.b.widen_bf16(stored),
            DType::F32 | DType::I32 => stored,
        }
    }

    fn narrow(&mut self, buffer: u32, value: Value) -> Value {
        match self.buffers[buffer as usize].dtype {
            DType::Bf16 => self.b.narrow_bf16(value),
            DType::F32 | DType::I32 => value,
        }
    }

    fn zero(&mut self, ty: Type) -> Value {
        self.b.zero(ty)
    }
}

/// What an element of a buffer is in memory.
pub(crate) fn stored_elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::I32 => Elem::I32,
        DType::Bf16 => Elem::I16,
    }
}

/// Loads the address of launch argument `number`.
pub(crate) fn argument(b: &mut Builder, args: Value, number: usize) -> Value {
    let number = b.i64(number as i64);
    let address = b.address(args, number, Elem::Pointer);
    b.load(address, Type::POINTER, true)
}

/// Exponents for which a power is a root or a short product.
fn is_simple_exponent(exponent: f32) -> bool {
    [0.5, 1.0, 2.0, 3.0, 4.0].contains(&exponent)
}

fn needs_of(exprs: &Exprs, buffers: &[Buffer], earlier: &[Needs], id: ExprId) -> Needs {
    let mut needs = Needs::default();
    let index = match exprs.get(id) {
        Expr::Position(index) => Some(index),
        Expr::Random(draw) => Some(&draw.element),
        Expr::Load { buffer, index, .. } => {
            needs.volatile = buffers[*buffer as usize].access != Access::Read;
            Some(index)
        }
        Expr::Accumulator(number) => {
            needs.accumulators = 1 << number;
            None
        }
        _ => None,
    };
    if let Some(index) = index {
        needs.vars = (0..64).filter(|&var| index.mentions(var)).fold(0, |bits, var| bits | 1 << var);
    }
    for operand in exprs.operands(id) {
        let operand = earlier[operand.0 as usize];
        needs.vars |= operand.vars;
        needs.accumulators |= operand.accumulators;
        needs.volatile |= operand.volatile;
    }
    needs
}
