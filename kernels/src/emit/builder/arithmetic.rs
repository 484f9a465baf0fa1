//! Arithmetic, lane by lane. Operands have one type.

use super::{Builder, Compare, Elem, Value};
use std::fmt::Write;

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
