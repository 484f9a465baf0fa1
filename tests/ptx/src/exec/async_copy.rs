//! `cp.async`: copies are made when they are waited for, not before, so that a missing wait shows.

use super::machine::Machine;
use super::transfer::Place;
use super::warp::{LANES, Lanes, Warp, lanes_of};
use crate::memory::shared::Lane;
use crate::memory::{AccessError, shared::SharedMemory};

#[derive(Debug, Clone, Copy)]
struct Copy {
    lane: u8,
    group: u32,
    to: u64,
    from: u64,
    bytes: u8,
    source_bytes: u8,
}

/// Copies of a warp that were issued and not waited for.
#[derive(Debug, Default)]
pub struct AsyncCopies {
    pending: Vec<Copy>,
    /// Number of the group that each lane is filling.
    groups: Lanes<u32>,
}

impl AsyncCopies {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pending.clear();
        self.groups = [0; LANES];
    }

    /// The current group of each lane is complete.
    pub fn commit(&mut self, mask: u32) {
        lanes_of(mask).for_each(|lane| self.groups[lane] += 1);
    }
}

impl Machine<'_> {
    /// Issues a copy per lane. Reads of the source are checked now, its bytes are read when the copy is waited for.
    pub(super) fn issue_copies(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        (to, from): (Lanes<u64>, Lanes<u64>),
        bytes: u8,
        source_bytes: Lanes<u32>,
    ) {
        self.count_global(&from, mask, usize::from(bytes), false);
        for lane in lanes_of(mask) {
            let read = source_bytes[lane].min(u32::from(bytes)) as u8;
            let who = Lane { warp: warp.index as u8, lane: lane as u8 };
            let aligned = |address: u64| address.is_multiple_of(u64::from(bytes));
            let (to, from) = (super::transfer::shared_offset(to[lane]), from[lane]);
            let checked = if !aligned(to) || !aligned(from) {
                Err((if aligned(to) { from } else { to }, AccessError::Misaligned))
            } else {
                let target = shared.begin_copy(to, usize::from(bytes), who).map_err(|error| (to, error));
                let load = self.memory.load(from, usize::from(read), &mut self.hint);
                target.and(load.map(drop).map_err(|error| (from, error)))
            };
            match checked {
                Ok(()) => {
                    let group = warp.copies.groups[lane];
                    warp.copies.pending.push(Copy { lane: lane as u8, group, to, from, bytes, source_bytes: read });
                }
                Err((address, error)) => {
                    self.report_access(warp, Place { lane, address, bytes: usize::from(bytes) }, error);
                }
            }
        }
    }

    /// Delivers what lanes of `mask` wait for: all copies, or all groups but the latest `pending`.
    pub(super) fn deliver_copies(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        pending: Option<u32>,
    ) {
        let groups = warp.copies.groups;
        let due = |copy: &Copy| {
            let lane = copy.lane as usize;
            mask >> lane & 1 != 0 && pending.is_none_or(|pending| copy.group + pending < groups[lane])
        };
        let (arriving, waiting) = warp.copies.pending.drain(..).partition(due);
        warp.copies.pending = waiting;
        let arriving: Vec<Copy> = arriving;
        for copy in arriving {
            let mut data = [0; 16];
            let source_bytes = usize::from(copy.source_bytes);
            if let Ok(source) = self.memory.load(copy.from, source_bytes, &mut self.hint) {
                data[..source_bytes].copy_from_slice(source);
            }
            let who = Lane { warp: warp.index as u8, lane: copy.lane };
            shared.finish_copy(copy.to, &data[..usize::from(copy.bytes)], who);
        }
    }
}
