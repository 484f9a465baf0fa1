//! Numbers known when code is emitted, next to those known when it runs.

use super::{Builder, Elem, Loop, Value};

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
