//! Branches and the end of threads.

use super::machine::Machine;
use super::violation::ViolationKind;
use super::warp::{State, Warp, lanes_of};
use crate::decode::program::Reg;

impl Machine<'_> {
    /// Lanes of `taken` jump, the others of `active` go on.
    #[inline]
    pub(super) fn branch(&mut self, warp: &mut Warp, active: u32, taken: u32, target: u32, reconverge: u32) {
        let next = self.pc as u32 + 1;
        if taken == active || taken == 0 {
            let path = warp.stack.last_mut().expect("a running warp has a path");
            path.pc = if taken == 0 { next } else { target };
            return;
        }
        self.counters.divergent_branches += 1;
        warp.diverge(&[(next, active & !taken), (target, taken)], reconverge);
    }

    pub(super) fn branch_table(&mut self, warp: &mut Warp, active: u32, taken: u32, table: (&[u32], Reg, u32)) {
        let (targets, index, reconverge) = table;
        let indices = warp.registers.narrow[index as usize];
        let mut paths: Vec<(u32, u32)> = vec![(self.pc as u32 + 1, active & !taken)];
        for lane in lanes_of(taken) {
            let Some(&target) = targets.get(indices[lane] as usize) else {
                let detail = format!("index {} of a table of {}", indices[lane], targets.len());
                self.report(warp, lane, ViolationKind::OutOfBounds, detail);
                self.stopped = true;
                return;
            };
            match paths.iter_mut().find(|(pc, _)| *pc == target) {
                Some((_, mask)) => *mask |= 1 << lane,
                None => paths.push((target, 1 << lane)),
            }
        }
        paths.retain(|(_, mask)| *mask != 0);
        if let [(pc, _)] = paths[..] {
            warp.stack.last_mut().expect("a running warp has a path").pc = pc;
        } else {
            self.counters.divergent_branches += 1;
            warp.diverge(&paths, reconverge);
        }
    }

    /// Lanes of `mask` leave the kernel.
    pub(super) fn leave(&mut self, warp: &mut Warp, mask: u32) {
        warp.live &= !mask;
        if warp.live == 0 {
            warp.state = State::Done;
        }
    }
}
