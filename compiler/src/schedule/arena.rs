//! Placing buffers with known lifetimes in one block of memory.

use std::collections::BTreeMap;
use trainc_runtime::abi::BUFFER_ALIGNMENT;

/// With more buffers than this only the near-linear strategy is tried.
const SIZE_ORDER_LIMIT: usize = 4000;

/// A buffer that is in use from launch `first` to launch `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub bytes: u64,
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    fn overlaps(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where each buffer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub offsets: Vec<u64>,
    /// Size of the whole block.
    pub bytes: u64,
}

/// Rounded up to whole cache lines.
pub(super) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(BUFFER_ALIGNMENT)
}

/// Places buffers such that those in use at the same time do not overlap: in order of time (best fit) and in order of size
/// (lowest fit), whichever needs less.
pub(super) fn place(buffers: &[Lifetime]) -> Placement {
    let by_time = in_order_of_time(buffers);
    if buffers.len() > SIZE_ORDER_LIMIT || by_time.bytes == peak(buffers) {
        return by_time;
    }
    let by_size = in_order_of_size(buffers);
    if by_size.bytes < by_time.bytes { by_size } else { by_time }
}

/// The most that is in use at any time: no placement needs less.
pub(super) fn peak(buffers: &[Lifetime]) -> u64 {
    let mut changes: BTreeMap<usize, i128> = BTreeMap::new();
    for buffer in buffers {
        *changes.entry(buffer.first).or_default() += i128::from(aligned(buffer.bytes));
        *changes.entry(buffer.last + 1).or_default() -= i128::from(aligned(buffer.bytes));
    }
    let (mut used, mut most) = (0, 0);
    for change in changes.values() {
        used += change;
        most = most.max(used);
    }
    most as u64
}

/// Free space below the end of the block, by offset.
#[derive(Default)]
struct Free {
    gaps: BTreeMap<u64, u64>,
    end: u64,
}

impl Free {
    /// Takes the smallest gap that is large enough, or grows the block.
    fn take(&mut self, bytes: u64) -> u64 {
        let fitting = self.gaps.iter().filter(|(_, size)| **size >= bytes);
        if let Some((&offset, &size)) = fitting.min_by_key(|(offset, size)| (**size, **offset)) {
            self.gaps.remove(&offset);
            if size > bytes {
                self.gaps.insert(offset + bytes, size - bytes);
            }
            return offset;
        }
        let last = self.gaps.last_key_value().map(|(&offset, &size)| (offset, size));
        let start = match last {
            Some((offset, size)) if offset + size == self.end => {
                self.gaps.remove(&offset);
                offset
            }
            _ => self.end,
        };
        self.end = start + bytes;
        start
    }

    /// Gives memory back, joining it with the gaps around it.
    fn give(&mut self, mut offset: u64, mut bytes: u64) {
        if let Some((&before, &size)) = self.gaps.range(..offset).next_back()
            && before + size == offset
        {
            self.gaps.remove(&before);
            (offset, bytes) = (before, bytes + size);
        }
        if let Some(size) = self.gaps.remove(&(offset + bytes)) {
            bytes += size;
        }
        self.gaps.insert(offset, bytes);
    }
}

fn in_order_of_time(buffers: &[Lifetime]) -> Placement {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&n| (buffers[n].first, std::cmp::Reverse(buffers[n].bytes), n));
    let mut ends: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut free = Free::default();
    let mut offsets = vec![0; buffers.len()];
    for n in order {
        while let Some(entry) = ends.first_entry().filter(|entry| *entry.key() < buffers[n].first) {
            entry.remove().into_iter().for_each(|n| free.give(offsets[n], aligned(buffers[n].bytes)));
        }
        if buffers[n].bytes > 0 {
            offsets[n] = free.take(aligned(buffers[n].bytes));
            ends.entry(buffers[n].last).or_default().push(n);
        }
    }
    Placement { offsets, bytes: free.end }
}

fn in_order_of_size(buffers: &[Lifetime]) -> Placement {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&n| (std::cmp::Reverse(buffers[n].bytes), buffers[n].first, n));
    let mut offsets = vec![0; buffers.len()];
    // Placed buffers by offset, so that the gaps between those that overlap in time are met in order.
    let mut placed: BTreeMap<(u64, usize), u64> = BTreeMap::new();
    let mut end = 0;
    for n in order {
        let mut offset = 0;
        let size = aligned(buffers[n].bytes);
        for (&(start, other), &bytes) in &placed {
            if buffers[n].overlaps(&buffers[other]) {
                if start >= offset + size {
                    break;
                }
                offset = offset.max(start + bytes);
            }
        }
        offsets[n] = offset;
        placed.insert((offset, n), size);
        end = end.max(offset + size);
    }
    Placement { offsets, bytes: end }
}

/// Two buffers that are in use at the same time in the same place, if there are any.
pub(super) fn clash(buffers: &[Lifetime], placement: &Placement) -> Option<(usize, usize)> {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&n| buffers[n].bytes > 0).collect();
    order.sort_by_key(|&n| buffers[n].first);
    let mut live: Vec<usize> = Vec::new();
    for n in order {
        live.retain(|&other| buffers[other].last >= buffers[n].first);
        let range = |n: usize| placement.offsets[n]..placement.offsets[n] + buffers[n].bytes;
        let hit = live.iter().find(|&&other| range(other).start < range(n).end && range(n).start < range(other).end);
        if let Some(&other) = hit {
            return Some((other, n));
        }
        live.push(n);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buffers_that_live_together_never_overlap_and_little_is_wasted(
            spans in prop::collection::vec((1u64..5000, 0usize..60, 0usize..20), 1..80)
        ) {
            let buffers: Vec<Lifetime> =
                spans.into_iter().map(|(bytes, first, length)| Lifetime { bytes, first, last: first + length }).collect();
            for placement in [in_order_of_time(&buffers), in_order_of_size(&buffers), place(&buffers)] {
                prop_assert_eq!(clash(&buffers, &placement), None);
                prop_assert!(placement.offsets.iter().all(|offset| offset % BUFFER_ALIGNMENT == 0));
                prop_assert!(placement.bytes >= peak(&buffers));
                let fits = buffers.iter().zip(&placement.offsets).all(|(b, offset)| offset + b.bytes <= placement.bytes);
                prop_assert!(fits);
            }
        }
    }

    #[test]
    fn a_chain_of_equal_buffers_needs_two() {
        let buffers: Vec<Lifetime> = (0..100).map(|n| Lifetime { bytes: 64, first: n, last: n + 1 }).collect();
        assert_eq!(place(&buffers).bytes, 128);
    }
}
