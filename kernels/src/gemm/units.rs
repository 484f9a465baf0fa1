//! How many tiles of rows, or panels, a unit of work takes: threads should finish together, and each unit costs something.

use std::ops::RangeInclusive;

/// Threads that the pool may have. Code does not depend on their number, so a size is chosen that suits all of these.
const THREADS: [u64; 3] = [2, 4, 8];
/// Parts of a piece that costs are counted in.
const PARTS: u64 = 16;

/// What a unit pays besides its products, in sixteenths of the time of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitCost(pub u64);

/// The side of a product that is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// Tiles of rows, or panels.
    pub pieces: u64,
    /// Products that are cut alike, one after the other.
    pub batch: u64,
    pub cost: UnitCost,
}

impl Side {
    /// The size of units, in pieces, that lets the slowest thread finish first; the larger of two that are equal.
    pub fn unit(self, sizes: RangeInclusive<u64>) -> u64 {
        let least = *sizes.start();
        sizes.rev().min_by_key(|&size| self.time(size)).unwrap_or(least)
    }

    /// The slowest thread's time, summed over [`THREADS`]: few threads run longest and count most.
    fn time(self, size: u64) -> u64 {
        let slowest = |threads: u64| (0..threads).map(|thread| self.share(size, thread, threads)).max().unwrap_or(0);
        THREADS.into_iter().map(slowest).sum()
    }

    /// What a thread does of the units, which are dealt out evenly and in order. The last of a product may be smaller.
    fn share(self, size: u64, thread: u64, threads: u64) -> u64 {
        let each = self.pieces.div_ceil(size);
        let units = self.batch * each;
        let [begin, end] = [thread, thread + 1].map(|thread| units * thread / threads);
        let missing = (end / each - begin / each) * (each * size - self.pieces);
        PARTS * ((end - begin) * size - missing) + (end - begin) * self.cost.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(pieces: u64, batch: u64, cost: u64) -> Side {
        Side { pieces, batch, cost: UnitCost(cost) }
    }

    #[test]
    fn threads_share_all_pieces_and_units() {
        for (pieces, batch, size) in [(36, 1, 4), (342, 1, 10), (7, 3, 4), (1, 5, 2)] {
            let side = side(pieces, batch, 1);
            let shares: u64 = (0..4).map(|thread| side.share(size, thread, 4)).sum();
            assert_eq!(shares, PARTS * batch * pieces + batch * pieces.div_ceil(size));
        }
    }

    /// Nine units of four panels leave one of two threads with five; twelve of three suit two threads and four.
    #[test]
    fn units_divide_evenly_where_they_can() {
        assert_eq!(side(36, 1, 4).unit(1..=6), 3);
        assert_eq!(side(48, 1, 4).unit(1..=6), 6);
        assert_eq!(side(342, 1, 2).unit(4..=10), 9);
    }
}
