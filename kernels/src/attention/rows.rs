//! Passes over the rows of a strip of scores, and quantities that rows have one of.

use super::{CHANNEL, Keys, Lowering, POSITION, Queries};
use crate::{
    emit::{
        builder::{Compare, Elem, Value},
        point::Point,
    },
    ir::{ReduceKind, Store},
    micro::Step,
};

/// What a query sees of the columns of a strip: all of `0..whole`, some of `whole..end`, both at panels' ends.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    whole: Value,
    end: Value,
    /// The first visible column and the one after the last, in i32 and all lanes.
    bounds: [Value; 2],
}

impl Lowering<'_> {
    /// What a query sees; where it does not exist, the columns are those of a query that does, and all are hidden.
    pub(super) fn reach(&mut self, query: Value, keys: Keys, exists: Option<Value>) -> Reach {
        let (shape, columns) = (self.sizes.shape, self.sizes.tile.columns());
        let next = self.e.b.plus(query, 1);
        let high = if shape.causal { self.e.b.min_signed(next, keys.high) } else { keys.high };
        let high = self.e.b.sub_known(high, keys.low);
        let low = match shape.window {
            None => self.e.b.i64(0),
            Some(window) => {
                let first = self.first_key(query, window);
                self.e.b.sub_known(first, keys.low)
            }
        };
        let up = self.e.b.plus(high, columns - 1);
        let [down, up] = [high, up].map(|column| self.e.b.split(column, columns).1);
        let whole = if shape.window.is_some() { self.e.b.i64(0) } else { self.e.b.times(down, columns) };
        let none = self.e.b.i64(0);
        let seen = exists.map_or(high, |exists| self.e.b.select(exists, high, none));
        let bounds = [low, seen].map(|bound| {
            let bound = self.e.b.truncate(bound, Elem::I32);
            self.e.b.splat(bound, self.sizes.tile.lanes)
        });
        Reach { whole, end: self.e.b.times(up, columns), bounds }
    }

    /// Emits for the panels that several queries see, of which the last sees the most: given the first column, and
    /// whether some of the panel may be hidden.
    pub(super) fn panels_of_rows(
        &mut self,
        reaches: &[Reach],
        carried: &[Value],
        mut emit: impl FnMut(&mut Self, Value, bool, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (whole, end) = (reaches[0].whole, reaches[reaches.len() - 1].end);
        let (zero, step) = (self.e.b.i64(0), self.e.b.i64(self.sizes.tile.columns() as i64));
        let mut state = carried.to_vec();
        for (from, to, masked) in [(zero, whole, false), (whole, end, true)] {
            let open = self.e.b.begin_loop((from, to, step), &state);
            let next = emit(self, open.counter, masked, &open.carried);
            state = self.e.b.end_loop(open, &next);
        }
        state
    }

    /// Where the columns end that [`Lowering::panels_of_rows`] visits.
    pub(super) fn end(&self, reaches: &[Reach]) -> Value {
        reaches[reaches.len() - 1].end
    }

    /// The two vectors of a panel.
    pub(super) fn halves(&mut self, column: Value) -> [Value; 2] {
        [column, self.e.b.plus(column, self.sizes.lanes())]
    }

    /// `value` where the lanes of the vector at `column` are visible, else `otherwise`.
    pub(super) fn where_visible(&mut self, column: Value, reach: Reach, value: Value, otherwise: Value) -> Value {
        let visible = self.within(column, reach.bounds);
        self.e.b.select(visible, value, otherwise)
    }

    /// Which lanes of the vector at `column` of a strip lie within bounds.
    fn within(&mut self, column: Value, [low, high]: [Value; 2]) -> Value {
        let lanes = self.sizes.tile.lanes;
        let base = self.e.b.truncate(column, Elem::I32);
        let (base, steps) = (self.e.b.splat(base, lanes), self.e.b.iota(lanes, 1));
        let position = self.e.b.add(base, steps);
        let before_end = self.e.b.compare(Compare::Less, position, high);
        if self.sizes.shape.window.is_none() {
            return before_end;
        }
        let from_start = self.e.b.compare(Compare::LessEqual, low, position);
        self.e.b.and(before_end, from_start)
    }

    /// Emits for groups of as many rows as there are lanes, until all of `count` are covered: the first row.
    pub(super) fn row_groups(&mut self, count: Value, emit: impl FnOnce(&mut Self, Value)) {
        let open = self.e.b.begin_steps(count, self.sizes.lanes());
        emit(self, open.counter);
        self.e.b.end_loop(open, &[]);
    }

    /// The vectors of a group of rows, each reduced to one lane of the result. Reducing the columns of their transpose
    /// takes a fraction of the shuffles that reducing one vector after the other would.
    pub(super) fn reduced(&mut self, kind: ReduceKind, vectors: Value, first_row: Value) -> Value {
        let lanes = self.sizes.lanes();
        let rows: Vec<Value> = (0..lanes)
            .map(|row| {
                let row = self.e.b.plus(first_row, row);
                let place = self.e.b.times(row, lanes);
                self.load_vector(vectors, place)
            })
            .collect();
        let mut parts = self.e.b.transpose(&rows);
        while parts.len() > 1 {
            let half = parts.len() / 2;
            let pairs = (0..half).map(|i| self.e.b.combine(kind, &vec![parts[i]], &vec![parts[half + i]])[0]);
            parts = pairs.collect();
        }
        parts[0]
    }

    /// Stores the vector of a row where [`Lowering::reduced`] finds it.
    pub(super) fn store_partial(&mut self, value: Value, vectors: Value, row: Value) {
        let place = self.e.b.times(row, self.sizes.lanes());
        self.store_vector(value, vectors, place);
    }

    /// Stores a panel of a row as factors of a product along the keys.
    pub(super) fn store_factors(&mut self, values: [Value; 2], row: Value, column: Value) {
        match self.sizes.step {
            Step::Float => {
                for (value, column) in values.into_iter().zip(self.halves(column)) {
                    let value = self.rounded(value);
                    self.store_vector(value, row, column);
                }
            }
            Step::Bf16Pair => {
                let pairs = self.e.b.pairs_of_bf16(values[0], values[1]);
                let (_, step) = self.e.b.split(column, 2);
                self.store_vector(pairs, row, step);
            }
        }
    }

    /// Zeros after the factors of a row, for tiles that reach further than it.
    pub(super) fn zeros_after(&mut self, row: Value, end: Value) {
        let zeros = self.e.b.float(self.sizes.tile.lanes, 0.0);
        let (_, step) = self.e.b.split(end, self.sizes.step.elements());
        self.store_vector(zeros, row, step);
    }

    /// Stores one number for each row through a view of rows.
    pub(super) fn store_of_rows(&mut self, store: &Store, point: &Point, queries: Queries, values: Value) {
        let open = self.e.b.begin_steps(queries.count, 1);
        let query = self.e.b.add(queries.start, open.counter);
        let value = self.load_scalar(values, open.counter);
        let zero = self.e.b.i64(0);
        let mut point = point.at(POSITION, query).at(CHANNEL, zero);
        point.set_accumulator(0, value);
        self.e.store(&mut point, store);
        self.e.b.end_loop(open, &[]);
    }
}
