//! Memory.

use super::{Emitter, Point};
use crate::{
    emit::builder::{Elem, Type, Value},
    ir::{Access, DType, Expr, ExprId, Index, Store, Unary},
};

impl Emitter<'_> {
    pub(super) fn load(&mut self, point: &mut Point, buffer: u32, index: &Index, guard: Option<Value>) -> Value {
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
        let value = self.evaluate(point, self.exact(store));
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

    /// What a store narrows: rounding it before would change nothing.
    fn exact(&self, store: &Store) -> ExprId {
        match self.exprs.get(store.value) {
            Expr::Unary(Unary::RoundBf16, exact) if self.dtype(store.buffer) == DType::Bf16 && !store.accumulate => {
                *exact
            }
            _ => store.value,
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

    /// Elements of a buffer.
    pub fn elements(&self, buffer: u32) -> u64 {
        self.buffers[buffer as usize].elements
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
fn stored_elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::I32 => Elem::I32,
        DType::Bf16 => Elem::I16,
    }
}
