//! Products by fused multiply-adds: each thread has a square of sums, to each of which it adds in the order of the
//! contraction.

use super::{Lowering, Place, THREADS, Tile, factor::Factor};
use crate::emit::builder::{Elem, Type, Value};

/// Rows, and columns, of a thread.
fn each(tile: Tile) -> u64 {
    (tile.rows * tile.columns / THREADS).isqrt()
}

/// Neighbouring rows, or columns, of a thread.
fn vector(tile: Tile) -> u64 {
    each(tile).min(4)
}

/// Groups of neighbouring rows of a thread; they lie `rows / groups` apart.
pub(super) fn groups(tile: Tile) -> u64 {
    each(tile) / vector(tile)
}

impl Lowering<'_> {
    /// Adds the products of a stage: 4 steps of the contraction at a time.
    pub(super) fn multiply_scalars(&mut self, place: &Place, stage: Value, sums: Vec<Value>) -> Vec<Value> {
        let each = each(self.tile) as usize;
        let (across, down) = self.e.b.split(place.thread, self.tile.columns / each as u64);
        let open = self.e.b.begin_count(self.tile.depth / 4, &sums);
        let mut sums = open.carried.clone();
        let depth = self.e.b.times(open.counter, 4);
        let left = self.fragments(stage, 0, down, depth);
        let right = self.fragments(stage, 1, across, depth);
        for k in 0..4 {
            for (number, sum) in sums.iter_mut().enumerate() {
                let (row, column) = (number / each, number % each);
                *sum = self.e.b.fma(left[k][row], right[k][column], *sum);
            }
        }
        self.e.b.end_loop(open, &sums)
    }

    /// The thread's elements of a factor at `depth..depth + 4`.
    fn fragments(&mut self, stage: Value, side: usize, number: Value, depth: Value) -> Vec<Vec<Value>> {
        let factor = self.factors[side].clone();
        let base = self.e.b.plus(stage, factor.offset);
        if factor.along_depth {
            let width = if side == 0 { self.tile.rows } else { self.tile.columns };
            return self.fragments_along_depth(&factor, base, width, number, depth);
        }
        let vector = vector(self.tile);
        let width = if side == 0 { self.tile.rows } else { self.tile.columns };
        let mut steps = Vec::new();
        for k in 0..4 {
            let mut elements = Vec::new();
            for group in 0..groups(self.tile) {
                let line = self.e.b.plus(depth, k);
                let at = self.e.b.times(number, vector);
                let at = self.e.b.plus(at, group * (width / groups(self.tile)));
                elements.extend(self.shared_vector(&factor, base, line, at, vector));
            }
            steps.push(elements);
        }
        steps
    }

    /// Where lines run along the contraction, a vector has the four steps of one row. Neighbouring threads then take
    /// neighbouring rows, which start in different banks.
    fn fragments_along_depth(
        &mut self,
        factor: &Factor,
        base: Value,
        width: u64,
        number: Value,
        depth: Value,
    ) -> Vec<Vec<Value>> {
        let count = each(self.tile);
        let rows: Vec<Vec<Value>> = (0..count)
            .map(|i| {
                let line = self.e.b.plus(number, i * (width / count));
                self.shared_vector(factor, base, line, depth, 4)
            })
            .collect();
        (0..4).map(|k| rows.iter().map(|row| row[k]).collect()).collect()
    }

    fn shared_vector(&mut self, factor: &Factor, base: Value, line: Value, element: Value, count: u64) -> Vec<Value> {
        let line = self.e.b.times(line, factor.stride());
        let element = self.e.b.times(element, 4);
        let offset = self.e.b.add(line, element);
        let offset = self.e.b.add(base, offset);
        let address = self.shared_at(offset);
        let ty = Type::vector(Elem::F32, count as u32);
        let loaded = self.e.b.load_aligned(address, ty, 4 * count as u32, false);
        (0..count as u32).map(|lane| self.e.b.extract(loaded, lane)).collect()
    }

    /// The thread's `i`-th row or column, counted within its group.
    fn own(&mut self, side: usize, number: Value, i: u64) -> Value {
        let width = if side == 0 { self.tile.rows } else { self.tile.columns };
        match self.factors[side].along_depth {
            true => self.e.b.plus(number, i * (width / each(self.tile))),
            false => {
                let first = self.e.b.times(number, vector(self.tile));
                self.e.b.plus(first, i)
            }
        }
    }

    /// Writes the sums of a group of rows.
    pub(super) fn share_scalars(&mut self, place: &Place, sums: &[Value], group: u64) {
        let (each, vector) = (each(self.tile), vector(self.tile));
        let (across, down) = self.e.b.split(place.thread, self.tile.columns / each);
        for i in 0..vector {
            let row = self.own(0, down, i);
            for columns in 0..groups(self.tile) {
                for j in 0..vector {
                    let within = self.own(1, across, j);
                    let column = self.e.b.plus(within, columns * (self.tile.columns / groups(self.tile)));
                    let address = self.result(row, column);
                    let sum = sums[((group * vector + i) * each + columns * vector + j) as usize];
                    self.e.b.store(sum, address);
                }
            }
        }
    }
}
