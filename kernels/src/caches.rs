//! The caches that blocks of a product are sized by.

use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

/// What one core has of caches that it need not share, in bytes.
///
/// Blocks that follow them change no bit of a result: rows, panels and units only say which sums are made when. The block of
/// the contraction does change bits, since sums of blocks are added one after the other; it is a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    second: u64,
}

impl Caches {
    /// Those that named targets are compiled for, so that artifacts are the same wherever they are made.
    pub const PORTABLE: Caches = Caches { second: 1 << 20 };

    /// A second-level cache of so many bytes, brought between 128 KiB and 4 MiB: processors have no other, and a size
    /// that a hypervisor made up must not make blocks without end.
    pub fn new(second: u64) -> Caches {
        Caches { second: second.clamp(128 << 10, 4 << 20) }
    }

    /// Those of this machine, by CPUID; [`Caches::PORTABLE`] where that says nothing.
    pub fn host() -> Caches {
        second_level(&mut descriptions()).map_or(Caches::PORTABLE, Caches::new)
    }

    /// Bytes of the second level.
    pub(crate) fn second(self) -> u64 {
        self.second
    }
}

impl Default for Caches {
    fn default() -> Self {
        Caches::PORTABLE
    }
}

/// The descriptions of the leaf that the processor has: 4 (Intel's), or 0x8000001D (AMD's, if its topology extensions are there).
fn descriptions() -> impl Iterator<Item = CpuidResult> {
    let topology = __cpuid(0x8000_0000).eax >= 0x8000_001D && __cpuid(0x8000_0001).ecx >> 22 & 1 == 1;
    let intel = __cpuid(0).eax >= 4;
    let leaf = if topology { Some(0x8000_001D) } else { intel.then_some(4) };
    // A real processor ends the list; what emulates one may not.
    leaf.into_iter().flat_map(|leaf| (0..16).map(move |place| __cpuid_count(leaf, place)))
}

/// Bytes of the data or unified cache of level 2 in a list that ends with a description of type 0.
fn second_level(descriptions: &mut dyn Iterator<Item = CpuidResult>) -> Option<u64> {
    let holds_data = |kind: u32| kind == 1 || kind == 3;
    let listed = descriptions.take_while(|description| description.eax & 31 != 0);
    let mut fitting = listed.filter(|description| description.eax >> 5 & 7 == 2 && holds_data(description.eax & 31));
    fitting.next().map(bytes)
}

/// Ways, partitions, bytes of a line and sets, each stored less one (Intel SDM volume 2, CPUID leaf 4).
fn bytes(description: CpuidResult) -> u64 {
    let field = |from: u32, width: u32| u64::from(description.ebx >> from & ((1 << width) - 1)) + 1;
    let sets = u64::from(description.ecx) + 1;
    [field(22, 10), field(12, 10), field(0, 12), sets].into_iter().fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and level, ways, partitions, line and sets as the leaf has them.
    fn description(kind: u32, level: u32, [ways, partitions, line, sets]: [u32; 4]) -> CpuidResult {
        let ebx = (ways - 1) << 22 | (partitions - 1) << 12 | (line - 1);
        CpuidResult { eax: kind | level << 5, ebx, ecx: sets - 1, edx: 0 }
    }

    #[test]
    fn the_second_level_is_read_past_instructions_and_others() {
        let end = description(0, 2, [1, 1, 64, 1]);
        let first = description(1, 1, [8, 1, 64, 64]);
        let instructions = description(2, 2, [8, 1, 64, 64]);
        let second = description(3, 2, [8, 1, 64, 2048]);
        let found = |list: &[CpuidResult]| second_level(&mut list.iter().copied());
        assert_eq!(found(&[first, instructions, second, end]), Some(1 << 20));
        assert_eq!(found(&[first, end, second]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn absurd_sizes_are_brought_into_bounds() {
        let all_ones = CpuidResult { eax: 3 | 2 << 5, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX };
        let second = second_level(&mut [all_ones].into_iter()).expect("it is of level 2");
        assert_eq!(Caches::new(second).second(), 4 << 20);
        assert_eq!(Caches::new(0).second(), 128 << 10);
    }
}
