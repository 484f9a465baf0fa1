//! Control flow. What is emitted between a `begin` and its `end` is the region's body.

use super::{Builder, Type, Value, join};
use std::fmt::Write;

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
