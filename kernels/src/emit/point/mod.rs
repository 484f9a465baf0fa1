//! Expressions at a point of the loop domain.
//!
//! An [`Emitter`] turns expressions into SSA values; a [`Point`] says where: which value each loop variable has, which
//! variable runs along the lanes of vectors, and what is computed already. A value that is equal in all lanes stays a
//! scalar until an operation needs it as a vector.
//!
//! Here is what is evaluated when; [`functions`], [`draw`], [`index`] and [`memory`] emit single operations.

mod draw;
mod functions;
mod index;
mod memory;

use super::builder::{Builder, Compare, Elem, Type, Value};
use crate::ir::{Access, Binary, Buffer, Expr, ExprId, Exprs};
use draw::Block;
use functions::is_simple_exponent;
use std::collections::BTreeMap;

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
}

/// Loads the address of launch argument `number`.
pub(crate) fn argument(b: &mut Builder, args: Value, number: usize) -> Value {
    let number = b.i64(number as i64);
    let address = b.address(args, number, Elem::Pointer);
    b.load(address, Type::POINTER, true)
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
