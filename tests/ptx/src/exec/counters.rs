//! What a launch did: instructions, memory transactions, bank conflicts, multiply-adds.

use std::collections::BTreeMap;

/// Bytes of a global memory sector.
pub const SECTOR: u64 = 32;

/// Traffic of one state space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Transactions: 32-byte sectors of global memory, passes over the banks of shared memory.
    pub transactions: u64,
    /// Transactions that the distinct bytes need at least.
    pub ideal: u64,
}

impl Traffic {
    /// Ideal over actual transactions; 1 without any.
    pub fn efficiency(&self) -> f64 {
        if self.transactions == 0 { 1.0 } else { self.ideal as f64 / self.transactions as f64 }
    }

    fn add(&mut self, other: &Traffic) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.transactions += other.transactions;
        self.ideal += other.ideal;
    }
}

/// Counters of a launch, or the sum over several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions.
    pub warp_instructions: u64,
    /// Instructions times active lanes.
    pub lane_instructions: u64,
    /// Branches that split a warp.
    pub divergent_branches: u64,
    /// Global loads.
    pub global_loads: Traffic,
    /// Global stores and atomics.
    pub global_stores: Traffic,
    /// Shared memory, both ways.
    pub shared: Traffic,
    /// Multiply-adds on tensor cores.
    pub tensor_macs: u64,
    /// Floating-point multiply-adds outside them.
    pub fma_macs: u64,
    /// Warp instructions by opcode.
    pub mix: BTreeMap<String, u64>,
}

impl Counters {
    /// Adds the counters of another launch.
    pub fn add(&mut self, other: &Counters) {
        self.warp_instructions += other.warp_instructions;
        self.lane_instructions += other.lane_instructions;
        self.divergent_branches += other.divergent_branches;
        self.global_loads.add(&other.global_loads);
        self.global_stores.add(&other.global_stores);
        self.shared.add(&other.shared);
        self.tensor_macs += other.tensor_macs;
        self.fma_macs += other.fma_macs;
        for (name, count) in &other.mix {
            *self.mix.entry(name.clone()).or_default() += count;
        }
    }

    /// Ideal over actual sectors of all global accesses.
    pub fn coalescing(&self) -> f64 {
        let mut all = self.global_loads;
        all.add(&self.global_stores);
        all.efficiency()
    }
}

/// How the addresses of a warp's request lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// All lanes want the same.
    Same,
    /// Lane after lane without gap, all 32.
    Contiguous,
    /// Anything else.
    Scattered,
}

impl Pattern {
    /// The pattern of accesses of `bytes` by the lanes of `mask`.
    #[inline]
    pub fn of(addresses: &[u64; 32], mask: u32, bytes: u64) -> Pattern {
        if mask != u32::MAX {
            return Pattern::Scattered;
        }
        let (mut same, mut contiguous) = (0, 0);
        for (lane, &address) in (0..).zip(addresses) {
            same |= address ^ addresses[0];
            contiguous |= address ^ addresses[0].wrapping_add(lane * bytes);
        }
        match (same, contiguous) {
            (0, _) => Pattern::Same,
            (_, 0) => Pattern::Contiguous,
            _ => Pattern::Scattered,
        }
    }
}

/// Sectors that accesses of `bytes` at `addresses` touch, and the least number that holds their distinct bytes.
pub fn sectors(addresses: &[u64], bytes: u64) -> (u64, u64) {
    let Some((&first, rest)) = addresses.split_first() else { return (0, 0) };
    if rest.iter().zip(1..).all(|(&address, index)| address == first + index * bytes) {
        let total = addresses.len() as u64 * bytes;
        return ((first + total).div_ceil(SECTOR) - first / SECTOR, total.div_ceil(SECTOR));
    }
    let mut sorted = [0; 32];
    let sorted = &mut sorted[..addresses.len()];
    sorted.copy_from_slice(addresses);
    sorted.sort_unstable();
    let (mut count, mut distinct, mut last_sector, mut end) = (0, 0, u64::MAX, 0);
    for &address in sorted.iter() {
        let sector = address / SECTOR;
        count += u64::from(sector != last_sector);
        last_sector = sector;
        distinct += bytes - end.max(address).min(address + bytes).saturating_sub(address);
        end = end.max(address + bytes);
    }
    (count, distinct.div_ceil(SECTOR))
}

/// Passes over the 32 four-byte banks that one shared access needs, and the passes without conflicts.
///
/// Lanes go in groups of 32, 16 or 8 for accesses of up to 4, 8 or 16 bytes; a word that several lanes want counts once.
pub fn bank_passes(offsets: &[(usize, u64)], bytes: u64) -> (u64, u64) {
    let words = bytes.div_ceil(4);
    let group = (32 / words) as usize;
    let (mut passes, mut ideal) = (0, 0);
    let mut at = 0;
    while at < offsets.len() {
        let part = offsets[at].0 / group;
        let end = at + offsets[at..].iter().take_while(|(lane, _)| lane / group == part).count();
        passes += conflict_degree(&offsets[at..end], words);
        ideal += 1;
        at = end;
    }
    (passes, ideal)
}

fn conflict_degree(offsets: &[(usize, u64)], words: u64) -> u64 {
    let mut wanted = [0u64; 32];
    let mut count = 0;
    for &(_, offset) in offsets {
        for word in offset / 4..offset / 4 + words {
            if count < 32 && !wanted[..count].contains(&word) {
                wanted[count] = word;
                count += 1;
            }
        }
    }
    let mut banks = [0u8; 32];
    wanted[..count].iter().for_each(|word| banks[(word % 32) as usize] += 1);
    u64::from(banks.into_iter().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{bank_passes, sectors};

    #[test]
    fn sectors_of_contiguous_strided_and_equal_addresses() {
        let contiguous: Vec<u64> = (0..32).map(|lane| 4096 + 4 * lane).collect();
        assert_eq!(sectors(&contiguous, 4), (4, 4));
        let shifted: Vec<u64> = contiguous.iter().map(|address| address + 4).collect();
        assert_eq!(sectors(&shifted, 4), (5, 4));
        let strided: Vec<u64> = (0..32).map(|lane| 4096 + 128 * lane).collect();
        assert_eq!(sectors(&strided, 4), (32, 4));
        assert_eq!(sectors(&[4096; 32], 4), (1, 1));
    }

    #[test]
    fn bank_conflicts_of_strides() {
        let stride = |words: u64| (0..32).map(|lane| (lane, 4 * words * lane as u64)).collect::<Vec<_>>();
        assert_eq!(bank_passes(&stride(1), 4), (1, 1));
        assert_eq!(bank_passes(&stride(2), 4), (2, 1));
        assert_eq!(bank_passes(&stride(32), 4), (32, 1));
        assert_eq!(bank_passes(&stride(0), 4), (1, 1));
        assert_eq!(bank_passes(&stride(33), 4), (1, 1));
        let vectors: Vec<_> = (0..32).map(|lane| (lane, 16 * lane as u64)).collect();
        assert_eq!(bank_passes(&vectors, 16), (4, 4));
    }
}
