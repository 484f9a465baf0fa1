//! Constants.

use super::{Builder, Elem, Type, Value, join};
use std::fmt::Write;

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
