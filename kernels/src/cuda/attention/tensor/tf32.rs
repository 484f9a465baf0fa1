//! The two products of attention in tf32: fragments are taken element by element and rounded then.

use super::{ACROSS, COLUMNS, Lowering, Sums, TILE, channels};
use crate::{
    emit::builder::{Elem, Type, Value},
    ir::Precision,
};

/// Depth of a multiplication.
const DEPTH: u64 = 8;

impl Lowering<'_> {
    pub(super) fn is_tf32(&self) -> bool {
        self.shape.precision == Precision::Tf32
    }

    /// Place of the thread in its group of four lanes, and number of the group.
    fn quad(&mut self) -> (Value, Value) {
        let (lane, _) = self.lane();
        self.e.b.split(lane, 4)
    }

    fn rounded_element(&mut self, tile: u64, row: Value, channel: Value) -> Value {
        let address = self.tile_at(tile, row, channel);
        let value = self.e.b.load(address, Type::scalar(Elem::F32), false);
        self.e.b.fragment_tf32(value)
    }

    /// As [`Lowering::tensor_scores`].
    pub(super) fn scores_tf32(&mut self, left: u64, right: u64, mut sums: Sums) -> Sums {
        let (place, group) = self.quad();
        let own = self.own_row();
        for first in (0..channels(&self.shape)).step_by(DEPTH as usize) {
            let a = [(0, 0), (8, 0), (0, 4), (8, 4)].map(|(below, further)| {
                let (row, channel) = (self.e.b.plus(own, below), self.e.b.plus(place, first + further));
                self.rounded_element(left, row, channel)
            });
            for j in 0..ACROSS {
                let row = self.e.b.plus(group, j * COLUMNS);
                let b = [0, 4].map(|further| {
                    let channel = self.e.b.plus(place, first + further);
                    self.rounded_element(right, row, channel)
                });
                let sum = &mut sums[j as usize];
                *sum = self.e.b.multiply_tf32_matrices(a, b, *sum);
            }
        }
        sums
    }

    /// As [`Lowering::tensor_weigh`]. A thread has neighbouring scores of a row where a left fragment wants scores four apart:
    /// the contraction goes through each eight in the order 0, 2, 4, 6, 1, 3, 5, 7.
    pub(super) fn weigh_tf32(&mut self, scores: &Sums, tile: u64, channel: u64, mut sums: Sums) -> Sums {
        let (place, group) = self.quad();
        let even = self.e.b.times(place, 2);
        for step in 0..TILE / DEPTH {
            let score = scores[step as usize];
            let a = [0, 2, 1, 3].map(|number| self.e.b.fragment_tf32(score[number]));
            for (j, sum) in (0..).zip(&mut sums) {
                let column = self.e.b.plus(group, channel + j * COLUMNS);
                let b = [0, 1].map(|odd| {
                    let row = self.e.b.plus(even, step * DEPTH + odd);
                    self.rounded_element(tile, row, column)
                });
                *sum = self.e.b.multiply_tf32_matrices(a, b, *sum);
            }
        }
        sums
    }
}
