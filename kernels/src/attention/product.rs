//! Products of a block of queries, tile by tile. Under a causal mask what no query of a tile sees is left out.

use super::{DEPTH_BLOCK, Keys, Lowering, Matrix, Queries};
use crate::{
    emit::builder::{Compare, Value},
    micro::{Left, Output},
};

/// Rows of a left factor; `rest` is their remainder modulo the tile's rows where they are the last.
#[derive(Clone, Copy)]
struct Rows {
    /// The first one, at a tile's start.
    from: Value,
    to: Value,
    rest: u64,
}

/// Panels of a right factor, each `depth` steps long in memory.
#[derive(Clone, Copy)]
struct Panels {
    pointer: Value,
    depth: u64,
    count: Value,
}

/// The steps `first..first + count` of a contraction.
#[derive(Clone, Copy)]
struct Steps {
    first: Value,
    count: Value,
}

impl Lowering<'_> {
    /// `to = left · keysᵀ` over the visible panels; the first column of `to` belongs to key `keys.low`.
    pub(super) fn scores(&mut self, left: Matrix, queries: Queries, keys: Keys, packed: Matrix, to: Matrix) {
        let columns = self.sizes.tile.columns();
        let steps = Steps { first: self.e.b.i64(0), count: self.e.b.i64(packed.stride as i64) };
        let offset = self.e.b.times(keys.low, packed.stride);
        let right =
            Panels { pointer: self.e.b.float_at(packed.pointer, offset), depth: packed.stride, count: keys.panels };
        let (left, fresh) = (self.row_major(left), self.e.b.i64(0));
        self.panels(right, |lowering, panel, pointer| {
            let column = lowering.e.b.times(panel, columns);
            let key = lowering.e.b.add(keys.low, column);
            let rows = lowering.rows_that_see(queries, key);
            let to = lowering.columns_from(to, column);
            lowering.row_tiles((left, pointer), rows, to, fresh, |_, _| steps);
        });
    }

    /// `to = weights · right` over the visible keys, a piece of them at a time. `weights` is a strip whose first column
    /// belongs to key `keys.low`; `right` holds all keys in panels of channels.
    pub(super) fn weigh(&mut self, weights: Matrix, queries: Queries, keys: Keys, right: Matrix, to: Matrix) {
        if self.sizes.shape.window.is_some() {
            self.clear_unseen(keys, queries.count, to);
        }
        let (columns, each) = (self.sizes.tile.columns(), self.sizes.step.elements());
        let piece = self.e.b.i64((DEPTH_BLOCK * each) as i64);
        let open = self.e.b.begin_loop((keys.low, keys.high, piece), &[]);
        let first_key = open.counter;
        let rest = self.e.b.sub_known(keys.high, first_key);
        let used = self.e.b.min_signed(piece, rest);
        let before = self.e.b.sub_known(first_key, keys.low);
        let (_, steps_before) = self.e.b.split(before, each);
        let left = self.columns_from(weights, steps_before);
        let left = self.row_major(left);
        let (_, first_step) = self.e.b.split(first_key, each);
        let offset = self.e.b.times(first_step, columns);
        let panels = self.channel_panels(right, offset);
        let rows = self.rows_that_see(queries, first_key);
        self.panels(panels, |lowering, panel, pointer| {
            let column = lowering.e.b.times(panel, columns);
            let to = lowering.columns_from(to, column);
            lowering.row_tiles((left, pointer), rows, to, before, |lowering, row| {
                let seen = lowering.seen_by(queries, row, first_key, used);
                let seen = lowering.e.b.plus(seen, each - 1);
                Steps { first: lowering.e.b.i64(0), count: lowering.e.b.split(seen, each).1 }
            });
        });
        self.e.b.end_loop(open, &[]);
    }

    /// `to[keys] += stripᵀ · packed` over the queries of a block, whose steps lie where their first rows were. The last row tile
    /// may reach into the zeros after what queries see.
    pub(super) fn add_transposed(
        &mut self,
        strip: Matrix,
        (keys, queries): (Keys, Queries),
        packed: Matrix,
        to: Matrix,
    ) {
        let (tile, each) = (self.sizes.tile, self.sizes.step.elements());
        let seen = self.e.b.sub_known(keys.high, keys.low);
        let seen = self.e.b.plus(seen, tile.rows - 1);
        let (_, tiles) = self.e.b.split(seen, tile.rows);
        let zero = self.e.b.i64(0);
        let rows = Rows { from: zero, to: self.e.b.times(tiles, tile.rows), rest: 0 };
        let offset = self.e.b.times(keys.low, to.stride);
        let to = Matrix { pointer: self.e.b.float_at(to.pointer, offset), ..to };
        let count = self.e.b.plus(queries.count, each - 1);
        let (_, count) = self.e.b.split(count, each);
        let strip = Matrix { stride: each * strip.stride, ..strip };
        let (left, adding) = (self.transposed(strip), self.e.b.i64(1));
        let panels = self.channel_panels(packed, zero);
        self.panels(panels, |lowering, panel, pointer| {
            let column = lowering.e.b.times(panel, tile.columns());
            let to = lowering.columns_from(to, column);
            lowering.row_tiles((left, pointer), rows, to, adding, |lowering, row| {
                let key = lowering.e.b.add(keys.low, row);
                let unseeing = lowering.queries_before(queries, key);
                let first = lowering.e.b.split(unseeing, each).1;
                Steps { first, count: lowering.e.b.sub_known(count, first) }
            });
        });
    }

    /// How many queries of a block come before the first that sees `key`, which the last one does.
    fn queries_before(&mut self, queries: Queries, key: Value) -> Value {
        let zero = self.e.b.i64(0);
        if !self.sizes.shape.causal {
            return zero;
        }
        let before = self.e.b.sub_known(key, queries.start);
        self.e.b.max_signed(before, zero)
    }

    /// The rows of a block from the first tile on in which a query sees `key` or one after it.
    fn rows_that_see(&mut self, queries: Queries, key: Value) -> Rows {
        let before = self.queries_before(queries, key);
        let (within, _) = self.e.b.split(before, self.sizes.tile.rows);
        let rest = self.sizes.shape.queries % self.sizes.tile.rows;
        Rows { from: self.e.b.sub_known(before, within), to: queries.count, rest }
    }

    /// How many of `used` keys from `first_key` on the tile that starts at `row` sees.
    fn seen_by(&mut self, queries: Queries, row: Value, first_key: Value, used: Value) -> Value {
        if !self.sizes.shape.causal {
            return used;
        }
        let end = self.e.b.add(queries.start, row);
        let end = self.e.b.plus(end, self.sizes.tile.rows);
        let seen = self.e.b.sub_known(end, first_key);
        self.e.b.min_signed(seen, used)
    }

    /// The panels of all channels, from a place in each on.
    fn channel_panels(&mut self, packed: Matrix, offset: Value) -> Panels {
        let count = self.e.b.i64((self.sizes.channels() / self.sizes.tile.columns()) as i64);
        Panels { pointer: self.e.b.float_at(packed.pointer, offset), depth: packed.stride, count }
    }

    fn columns_from(&mut self, matrix: Matrix, column: Value) -> Matrix {
        Matrix { pointer: self.e.b.float_at(matrix.pointer, column), ..matrix }
    }

    /// Emits for each panel, given its number and where it lies.
    fn panels(&mut self, panels: Panels, emit: impl FnOnce(&mut Self, Value, Value)) {
        let open = self.e.b.begin_steps(panels.count, 1);
        let offset = self.e.b.times(open.counter, panels.depth * self.sizes.tile.columns());
        let pointer = self.e.b.float_at(panels.pointer, offset);
        emit(self, open.counter, pointer);
        self.e.b.end_loop(open, &[]);
    }

    /// Multiplies rows of `left` with one panel; `steps` says which steps of the contraction the tile at a row needs.
    fn row_tiles(
        &mut self,
        factors: (Left, Value),
        rows: Rows,
        to: Matrix,
        accumulate: Value,
        steps: impl Fn(&mut Self, Value) -> Steps,
    ) {
        let height = self.sizes.tile.rows;
        let (within, _) = self.e.b.split(rows.to, height);
        let full = self.e.b.sub_known(rows.to, within);
        let step = self.e.b.i64(height as i64);
        let open = self.e.b.begin_loop((rows.from, full, step), &[]);
        let needed = steps(self, open.counter);
        self.row_tile(factors, (open.counter, height), needed, to, accumulate);
        self.e.b.end_loop(open, &[]);
        if rows.rest > 0 {
            let is_partial = self.e.b.compare(Compare::Less, full, rows.to);
            let open = self.e.b.begin_if(is_partial, &[]);
            let needed = steps(self, full);
            self.row_tile(factors, (full, rows.rest), needed, to, accumulate);
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    fn row_tile(
        &mut self,
        (left, right): (Left, Value),
        (row, rows): (Value, u64),
        steps: Steps,
        to: Matrix,
        accumulate: Value,
    ) {
        let (row_offset, step_offset) = (self.e.b.mul(row, left.row_stride), self.e.b.mul(steps.first, left.k_stride));
        let offset = self.e.b.add(row_offset, step_offset);
        let pointer = self.e.b.float_at(left.pointer, offset);
        let offset = self.e.b.times(steps.first, self.sizes.tile.columns());
        let right = self.e.b.float_at(right, offset);
        let offset = self.e.b.times(row, to.stride);
        let target = self.e.b.float_at(to.pointer, offset);
        let output = Output { pointer: target, row_stride: self.e.b.i64(to.stride as i64), accumulate };
        self.micro.call(self.e.b, (self.sizes.step, rows), Left { pointer, ..left }, (right, steps.count), output);
    }

    /// A row-major left factor.
    fn row_major(&mut self, from: Matrix) -> Left {
        Left { pointer: from.pointer, row_stride: self.e.b.i64(from.stride as i64), k_stride: self.e.b.i64(1) }
    }

    /// The transpose of a row-major matrix as left factor.
    fn transposed(&mut self, from: Matrix) -> Left {
        Left { pointer: from.pointer, row_stride: self.e.b.i64(1), k_stride: self.e.b.i64(from.stride as i64) }
    }

    /// Where a block sees no key at all, as many rows of zeros as it has queries.
    fn clear_unseen(&mut self, keys: Keys, count: Value, to: Matrix) {
        let unseen = self.e.b.compare(Compare::Equal, keys.low, keys.high);
        let open = self.e.b.begin_if(unseen, &[]);
        let size = self.e.b.times(count, to.stride);
        self.clear(to.pointer, size);
        self.e.b.begin_else(&[]);
        self.e.b.end_if(open, &[]);
    }
}
