//! Long contractions: a thread's sums begin anew with each piece, and totals of the pieces wait in registers.

use super::{Lowering, Place, Tile};
use crate::{
    emit::{
        builder::Value,
        sum::{CHAIN, Running},
    },
    ir::Precision,
};

/// Additions that may follow each other without pieces: what most products take.
const WHOLE: u64 = 4 * CHAIN;
/// Additions in two levels, the totals plain sums. More are added with their errors.
const TWO_LEVELS: u64 = 1 << 15;
/// Rows of the largest tile whose sums, totals and errors fit the registers of its threads.
const MOST_ROWS: u64 = 64;

/// What a long contraction is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Elements of the contraction in a piece.
    depth: u64,
    /// Whether totals have errors beside them.
    corrected: bool,
}

impl Pieces {
    /// The pieces of a contraction of `depth` elements; `None` if it is short.
    pub fn of(precision: Precision, depth: u64) -> Option<Pieces> {
        let at_once = match precision {
            Precision::F32 => 1,
            Precision::Tf32 => super::tf32::DEPTH,
            Precision::Bf16 => super::tensor::DEPTH,
        };
        let additions = depth.div_ceil(at_once);
        let corrected = additions > TWO_LEVELS;
        let piece = if corrected { CHAIN } else { CHAIN.max(additions.isqrt()) };
        (additions > WHOLE).then_some(Pieces { depth: piece * at_once, corrected })
    }

    /// The tiles that leave registers for the totals.
    pub fn fitting(self, tiles: &[Tile]) -> &[Tile] {
        let large = tiles.iter().take_while(|tile| self.corrected && tile.rows > MOST_ROWS).count();
        &tiles[large..]
    }
}

impl Lowering<'_> {
    /// The thread's sums over `steps` steps of the contraction.
    pub(super) fn in_pieces(&mut self, place: &Place, steps: u64, pieces: Pieces) -> Vec<Value> {
        let (zero, none) = (self.e.b.i64(0), self.e.b.float(1, 0.0));
        let (end, piece) = (self.e.b.i64(steps as i64), self.e.b.i64((pieces.depth / self.tile.depth).max(1) as i64));
        let count = self.sums() as usize;
        let kept = if pieces.corrected { 2 * count } else { count };
        let open = self.e.b.begin_loop((zero, end, piece), &vec![none; kept]);
        let until = self.e.b.add(open.counter, piece);
        let until = self.e.b.min_signed(until, end);
        let sums = self.steps(place, (open.counter, until));
        let next = self.with_piece(&open.carried, &sums);
        let totals = self.e.b.end_loop(open, &next);
        match pieces.corrected {
            false => totals,
            true => running(&totals, count).map(|total| total.total(self.e.b)).collect(),
        }
    }

    /// Totals, and errors if there are any, after the sums of one more piece.
    fn with_piece(&mut self, totals: &[Value], sums: &[Value]) -> Vec<Value> {
        if totals.len() == sums.len() {
            return totals.iter().zip(sums).map(|(&total, &sum)| self.e.b.add(total, sum)).collect();
        }
        let next: Vec<Running> =
            running(totals, sums.len()).zip(sums).map(|(total, &sum)| total.plus(self.e.b, sum)).collect();
        next.iter().map(|total| total.sum).chain(next.iter().map(|total| total.error)).collect()
    }
}

/// Totals of which the first `count` values are the sums, the others their errors.
fn running(totals: &[Value], count: usize) -> impl Iterator<Item = Running> {
    let (sums, errors) = totals.split_at(count);
    sums.iter().zip(errors).map(|(&sum, &error)| Running { sum, error })
}
