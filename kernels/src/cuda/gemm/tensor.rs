//! Products on tensor cores: 2 x 4 warps, each with a rectangle of 16 x 8 fragments of sums. Fragments of bf16 come by
//! `ldmatrix`; those of tf32 element by element ([`super::tf32`]).

use super::{Lowering, Place, Tile};
use crate::{
    cuda::{matrix::Order, simt::WARP},
    emit::builder::{Builder, Elem, Type, Value},
    ir::Precision,
};

const WARPS_DOWN: u64 = 2;
const WARPS_ACROSS: u64 = 4;
/// Rows and columns of a fragment of sums.
const ROWS: u64 = 16;
pub(super) const COLUMNS: u64 = 8;
/// Depth of a multiplication of bf16.
pub(super) const DEPTH: u64 = 16;

/// Fragments of a warp, down and across.
fn fragments(tile: Tile) -> (u64, u64) {
    (tile.rows / (WARPS_DOWN * ROWS), tile.columns / (WARPS_ACROSS * COLUMNS))
}

/// One row of fragments of each warp at a time.
pub(super) fn groups(tile: Tile) -> u64 {
    fragments(tile).0
}

/// The row of the tile that is row `row` of a group.
pub(super) fn row_of(b: &mut Builder, tile: Tile, group: u64, row: Value) -> Value {
    let (within, warp) = b.split(row, ROWS);
    let first = b.times(warp, tile.rows / WARPS_DOWN);
    let first = b.plus(first, group * ROWS);
    b.add(first, within)
}

/// Where a thread is among warps and in its warp.
pub(super) struct Lanes {
    pub lane: Value,
    down: Value,
    across: Value,
}

impl Lowering<'_> {
    fn lanes(&mut self, place: &Place) -> Lanes {
        let (lane, warp) = self.e.b.split(place.thread, WARP.into());
        let (across, down) = self.e.b.split(warp, WARPS_ACROSS);
        Lanes { lane, down, across }
    }

    /// Adds the products of a stage.
    pub(super) fn multiply_tensors(&mut self, place: &Place, stage: Value, mut sums: Vec<Value>) -> Vec<Value> {
        let (down, across) = fragments(self.tile);
        let lanes = self.lanes(place);
        let (first_row, first_column) =
            (self.e.b.times(lanes.down, down * ROWS), self.e.b.times(lanes.across, across * COLUMNS));
        let is_tf32 = self.gemm.precision == Precision::Tf32;
        let depth = if is_tf32 { super::tf32::DEPTH } else { DEPTH };
        for step in 0..self.tile.depth / depth {
            let left: Vec<[Value; 4]> = (0..down)
                .map(|i| {
                    let row = self.e.b.plus(first_row, i * ROWS);
                    match is_tf32 {
                        true => self.left_tf32(stage, &lanes, row, step * depth),
                        false => self.left_fragment(stage, &lanes, row, step * depth),
                    }
                })
                .collect();
            let right: Vec<[Value; 2]> = (0..across / 2)
                .flat_map(|j| {
                    let column = self.e.b.plus(first_column, j * 2 * COLUMNS);
                    let [a, b, c, d] = match is_tf32 {
                        true => self.right_tf32(stage, &lanes, column, step * depth),
                        false => self.right_fragments(stage, &lanes, column, step * depth),
                    };
                    [[a, b], [c, d]]
                })
                .collect();
            for (number, sum) in sums.chunks_mut(4).enumerate() {
                let (i, j) = (number / across as usize, number % across as usize);
                let old = [sum[0], sum[1], sum[2], sum[3]];
                let new = match is_tf32 {
                    true => self.e.b.multiply_tf32_matrices(left[i], right[j], old),
                    false => self.e.b.multiply_matrices(left[i], right[j], old),
                };
                sum.copy_from_slice(&new);
            }
        }
        sums
    }

    /// 16 rows from `row` on, at depths `depth..depth + 16`: 8 x 8 matrices in the order (rows, depths) = (0, 0), (8, 0),
    /// (0, 8), (8, 8).
    fn left_fragment(&mut self, stage: Value, lanes: &Lanes, row: Value, depth: u64) -> [Value; 4] {
        let (within, matrix) = self.e.b.split(lanes.lane, 8);
        let (row_half, depth_half) = self.e.b.split(matrix, 2);
        self.matrices(stage, 0, (row, row_half), (depth, depth_half), within)
    }

    /// 16 columns from `column` on: (columns, depths) = (0, 0), (0, 8), (8, 0), (8, 8).
    fn right_fragments(&mut self, stage: Value, lanes: &Lanes, column: Value, depth: u64) -> [Value; 4] {
        let (within, matrix) = self.e.b.split(lanes.lane, 8);
        let (depth_half, column_half) = self.e.b.split(matrix, 2);
        self.matrices(stage, 1, (column, column_half), (depth, depth_half), within)
    }

    /// Loads the matrices whose halves along the own dims and along the contraction the lane is given.
    fn matrices(
        &mut self,
        stage: Value,
        side: usize,
        (own, own_half): (Value, Value),
        (depth, depth_half): (u64, Value),
        within: Value,
    ) -> [Value; 4] {
        let factor = self.factors[side].clone();
        let own_half = self.e.b.times(own_half, 8);
        let depth_half = self.e.b.times(depth_half, 8);
        let own = self.e.b.add(own, own_half);
        let along = self.e.b.plus(depth_half, depth);
        let (line, element, order) = match factor.along_depth {
            true => (self.e.b.add(own, within), along, Order::Straight),
            false => (self.e.b.add(along, within), own, Order::Transposed),
        };
        let line = self.e.b.times(line, factor.stride());
        let element = self.e.b.times(element, factor.size);
        let offset = self.e.b.add(line, element);
        let offset = self.e.b.add(offset, stage);
        let offset = self.e.b.plus(offset, factor.offset);
        let address = self.shared_at(offset);
        self.e.b.load_matrices(address, order)
    }

    /// Writes one row of fragments of each warp.
    pub(super) fn share_tensors(&mut self, place: &Place, sums: &[Value], group: u64) {
        let (_, across) = fragments(self.tile);
        let lanes = self.lanes(place);
        let (pair, row) = self.e.b.split(lanes.lane, 4);
        let first_row = self.e.b.times(lanes.down, ROWS);
        let row = self.e.b.add(first_row, row);
        let first_column = self.e.b.times(lanes.across, across * COLUMNS);
        let pair = self.e.b.times(pair, 2);
        let first_column = self.e.b.add(first_column, pair);
        for j in 0..across {
            let sum = &sums[((group * across + j) * 4) as usize..][..4];
            for half in 0..2 {
                let row = self.e.b.plus(row, half * 8);
                let column = self.e.b.plus(first_column, j * COLUMNS);
                let address = self.result(row, column);
                let values = self.e.b.assemble(&[sum[2 * half as usize], sum[2 * half as usize + 1]]);
                debug_assert_eq!(values.ty, Type::vector(Elem::F32, 2));
                self.e.b.store_aligned(values, address, 8);
            }
        }
    }
}
