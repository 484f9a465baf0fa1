//! Random order without memory: a keyed bijection of `0..n`, evaluated one position at a time.
//!
//! A balanced Feistel network over the smallest even number of bits that holds `n`, with Philox as the round function;
//! values outside `0..n` are fed through again until they fall inside ("cycle walking", Black and Rogaway, CT-RSA
//! 2002). The domain is less than four times `n`, so that takes under four passes on average. An order is thus given by
//! `(seed, epoch)` alone, and resuming needs a position and nothing else.

use crate::philox::philox4x32;

/// Rounds of the network; three make it pseudorandom (Luby and Rackoff), the others are for small domains.
const ROUNDS: u32 = 6;

/// Keeps these draws apart from all others under the same seed.
pub(crate) const STREAM: u32 = u32::from_le_bytes(*b"perm");

/// A bijection of `0..n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    key: [u32; 2],
    epoch: u32,
}

impl Permutation {
    /// The order of `n > 0` things in an epoch of a run.
    pub fn new(n: u64, seed: u64, epoch: u32) -> Self {
        assert!(n > 0, "a permutation of something");
        let bits = u64::BITS - (n - 1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), key: [seed as u32, (seed >> 32) as u32], epoch }
    }

    /// What stands at `position < n`.
    pub fn at(&self, position: u64) -> u64 {
        assert!(position < self.n, "position {position} of {}", self.n);
        let mut value = self.pass(position);
        while value >= self.n {
            value = self.pass(value);
        }
        value
    }

    fn pass(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (self.round(round, right) & mask));
        }
        left << self.half_bits | right
    }

    fn round(&self, round: u32, half: u64) -> u64 {
        u64::from(philox4x32([half as u32, round, self.epoch, STREAM], self.key)[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_bijection(n in 1u64..3_000, seed: u64, epoch: u32) {
            let order = Permutation::new(n, seed, epoch);
            let mut seen = vec![false; n as usize];
            for position in 0..n {
                let value = order.at(position) as usize;
                prop_assert!(!seen[value]);
                seen[value] = true;
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_positions_mix() {
        let order = |seed, epoch| (0..1000).map(|i| Permutation::new(1000, seed, epoch).at(i)).collect::<Vec<_>>();
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        let ascents = order(1, 0).windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((420..580).contains(&ascents), "{ascents} ascents of 999");
    }

    #[test]
    fn large_domains_stay_inside() {
        let n = (1 << 40) + 7;
        assert!((0..100).all(|i| Permutation::new(n, 5, 0).at(n - 1 - i) < n));
    }
}
