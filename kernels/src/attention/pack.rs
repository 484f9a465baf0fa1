//! Packing: operands from their buffers into scratch, in the steps that the microkernel multiplies.

use super::{CHANNEL, Lowering, Matrix, POSITION, Step, operands::is_bf16};
use crate::{
    emit::{
        builder::{Compare, Value},
        point::Point,
    },
    ir::ExprId,
};

impl Lowering<'_> {
    /// A factor of a product at a point; rounded as the shape says, unless it will be when it is paired.
    fn factor(&mut self, point: &mut Point, load: ExprId) -> Value {
        let value = self.e.evaluate_wide(point, load);
        if is_bf16(&self.e, load) { value } else { self.rounded(value) }
    }

    /// `active` channels of a row from `channel` on.
    fn elements(&mut self, load: ExprId, row: &Point, (channel, active): (Value, u64)) -> Value {
        let value = self.factor(&mut row.along(CHANNEL, channel, active as u32), load);
        if self.sizes.step == Step::Float || active == self.sizes.lanes() {
            return value;
        }
        let lanes = self.sizes.tile.lanes;
        let (mask, zeros) = (self.e.b.mask(lanes, active as u32), self.e.b.float(lanes, 0.0));
        self.e.b.select(mask, value, zeros)
    }

    /// A vector of steps along the channels of a row: `active` channels from `channel` on.
    fn steps(&mut self, load: ExprId, row: &Point, (channel, active): (Value, u64)) -> Value {
        let lanes = self.sizes.lanes();
        let first = self.elements(load, row, (channel, active.min(lanes)));
        if self.sizes.step == Step::Float {
            return first;
        }
        let second = match active.checked_sub(lanes) {
            None | Some(0) => self.e.b.float(lanes as u32, 0.0),
            Some(rest) => {
                let channel = self.e.b.plus(channel, lanes);
                self.elements(load, row, (channel, rest))
            }
        };
        self.e.b.pairs_of_bf16(first, second)
    }

    /// Emits for the vectors of steps of a row of channels; the body is given the first step, and the first channel with
    /// the number of channels that the vector holds.
    fn channel_steps(&mut self, mut emit: impl FnMut(&mut Self, Value, (Value, u64))) {
        let (lanes, each) = (self.sizes.lanes(), self.sizes.step.elements());
        self.pieces_of_channels(lanes * each, |lowering, channel, active| {
            let (_, step) = lowering.e.b.split(channel, each);
            emit(lowering, step, (channel, active));
        });
    }

    /// Copies rows `start..start + count` of an operand: row-major, in steps along the channels.
    pub(super) fn copy_rows(&mut self, load: ExprId, point: &Point, (start, count): (Value, Value), to: Matrix) {
        let open = self.e.b.begin_steps(count, 1);
        let position = self.e.b.add(start, open.counter);
        let point = point.at(POSITION, position);
        let row = self.e.b.times(open.counter, to.stride);
        self.channel_steps(|lowering, step, channels| {
            let value = lowering.steps(load, &point, channels);
            let place = lowering.e.b.add(row, step);
            lowering.store_vector(value, to.pointer, place);
        });
        self.e.b.end_loop(open, &[]);
    }

    /// Copies rows of an operand into panels of channels, `panel[row step][channel]`, each `to.stride` steps long. `total`
    /// is how many rows the operand has.
    pub(super) fn pack_rows(
        &mut self,
        load: ExprId,
        point: &Point,
        (start, count): (Value, Value),
        total: u64,
        to: Matrix,
    ) {
        let columns = self.sizes.tile.columns();
        let each = self.sizes.step.elements();
        let open = self.e.b.begin_steps(count, each);
        let position = self.e.b.add(start, open.counter);
        let (_, step) = self.e.b.split(open.counter, each);
        self.channels(|lowering, channel, active| {
            let value = lowering.step_of_rows(load, point, (position, total), (channel, active));
            let (within, panel) = lowering.e.b.split(channel, columns);
            let row = lowering.e.b.times(panel, to.stride);
            let row = lowering.e.b.add(row, step);
            let place = lowering.e.b.times(row, columns);
            let place = lowering.e.b.add(place, within);
            lowering.store_vector(value, to.pointer, place);
        });
        self.e.b.end_loop(open, &[]);
    }

    /// Row `position` at some channels, paired with the next one if steps are pairs: with zeros after the last.
    fn step_of_rows(
        &mut self,
        load: ExprId,
        point: &Point,
        (position, total): (Value, u64),
        (channel, active): (Value, u32),
    ) -> Value {
        let row = |lowering: &mut Self, position: Value| {
            lowering.factor(&mut point.at(POSITION, position).along(CHANNEL, channel, active), load)
        };
        let first = row(self, position);
        if self.sizes.step == Step::Float {
            return first;
        }
        let next = self.e.b.plus(position, 1);
        if total.is_multiple_of(2) {
            let second = row(self, next);
            return self.e.b.pair_bf16(first, second);
        }
        let last = self.e.b.i64(total as i64 - 1);
        let exists = self.e.b.compare(Compare::LessEqual, next, last);
        let next = self.e.b.min_signed(next, last);
        let (second, zeros) = (row(self, next), self.e.b.float(self.sizes.tile.lanes, 0.0));
        let second = self.e.b.select(exists, second, zeros);
        self.e.b.pair_bf16(first, second)
    }

    /// Copies all keys of an operand into panels of keys, `panel[channel step][key]`. Beyond the last key the last repeats.
    pub(super) fn pack_transposed(&mut self, load: ExprId, point: &Point, to: Matrix) {
        let (lanes, columns) = (self.sizes.lanes(), self.sizes.tile.columns());
        let keys = self.e.b.i64(self.sizes.keys() as i64);
        let open = self.e.b.begin_steps(keys, lanes);
        let (within, panel) = self.e.b.split(open.counter, columns);
        let panel = self.e.b.times(panel, to.stride * columns);
        let base = self.e.b.add(panel, within);
        let each = self.sizes.step.elements();
        self.channel_steps(|lowering, step, channels| {
            let rows: Vec<Value> = (0..lanes)
                .map(|lane| {
                    let key = lowering.e.b.plus(open.counter, lane);
                    let last = lowering.e.b.i64(lowering.sizes.shape.keys as i64 - 1);
                    let key = lowering.e.b.min_signed(key, last);
                    lowering.steps(load, &point.at(POSITION, key), channels)
                })
                .collect();
            let transposed = lowering.e.b.transpose(&rows);
            for (number, &column) in transposed.iter().enumerate().take(channels.1.div_ceil(each) as usize) {
                let step = lowering.e.b.plus(step, number as u64);
                let place = lowering.e.b.times(step, columns);
                let place = lowering.e.b.add(base, place);
                lowering.store_vector(column, to.pointer, place);
            }
        });
        self.e.b.end_loop(open, &[]);
    }
}
