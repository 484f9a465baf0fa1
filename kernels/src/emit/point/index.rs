//! Indices.

use super::{Emitter, Point};
use crate::{
    emit::builder::{Builder, Elem, Value},
    ir::Index,
};

impl Emitter<'_> {
    /// The index as i64, in the given lane.
    pub(super) fn index(&mut self, point: &mut Point, index: &Index, lane: u32) -> Value {
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
