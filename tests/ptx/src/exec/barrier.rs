//! Block barriers: who arrived, who is released, and what they learn about each other's accesses.

use std::collections::BTreeMap;

use super::machine::{Block, Machine};
use super::violation::ViolationKind;
use super::warp::{LANES, State, Warp};
use crate::memory::shared::MAX_WARPS;

/// Named barriers per block.
pub const BARRIERS: u32 = 16;

#[derive(Debug, Default)]
struct Barrier {
    /// Warps that wait, with the instruction at which they do.
    waiting: Vec<(usize, usize)>,
    /// Threads that arrived, waiting or not.
    arrived: usize,
    /// Threads that must arrive; `None`: all that have not left.
    expected: Option<usize>,
    knowledge: [u32; MAX_WARPS],
}

/// The barriers of a block.
#[derive(Debug, Default)]
pub struct Barriers {
    list: BTreeMap<u32, Barrier>,
}

impl Machine<'_> {
    /// A warp arrives at a barrier; `mask` are the lanes that execute the instruction.
    pub(super) fn arrive(
        &mut self,
        warp: &mut Warp,
        block: &mut Block,
        mask: u32,
        id: u32,
        threads: Option<u32>,
        arrive_only: bool,
    ) {
        if mask != warp.live {
            let missing = (warp.live & !mask).trailing_zeros() as usize;
            let detail = format!("only lanes {mask:#010x} of {:#010x} of warp {} arrive", warp.live, warp.index);
            self.report(warp, missing, ViolationKind::DivergentBarrier, detail);
            self.stopped = true;
            return;
        }
        if id >= BARRIERS || threads.is_some_and(|threads| threads == 0 || !threads.is_multiple_of(LANES as u32)) {
            let detail = format!("barrier {id} with {threads:?} threads: 0 to 15, and whole warps, are possible");
            self.report(warp, 0, ViolationKind::DivergentBarrier, detail);
            self.stopped = true;
            return;
        }
        let barrier = block.barriers.list.entry(id).or_default();
        let expected = threads.map(|threads| threads as usize);
        if barrier.arrived > 0 && barrier.expected != expected {
            let detail = format!("barrier {id} is waited for with different numbers of threads");
            self.report(warp, 0, ViolationKind::DivergentBarrier, detail);
            self.stopped = true;
            return;
        }
        barrier.expected = expected;
        barrier.arrived += LANES;
        for (known, new) in barrier.knowledge.iter_mut().zip(block.shared.knowledge(warp.index)) {
            *known = (*known).max(new);
        }
        block.shared.tick(warp.index);
        if !arrive_only {
            barrier.waiting.push((warp.index, self.pc));
            warp.state = State::Waiting(id);
        }
    }

    /// Lets go whoever waits at a complete barrier.
    pub(super) fn release_barriers(&mut self, block: &mut Block) {
        let live = block.warps.iter().filter(|warp| warp.state != State::Done).count() * LANES;
        let complete = |barrier: &Barrier| barrier.arrived > 0 && barrier.arrived >= barrier.expected.unwrap_or(live);
        let ids: Vec<u32> = block.barriers.list.iter().filter(|(_, b)| complete(b)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(barrier) = block.barriers.list.remove(&id) else { continue };
            for (warp, _) in barrier.waiting {
                block.warps[warp].state = State::Ready;
                block.shared.learn(warp, &barrier.knowledge);
            }
        }
    }

    /// Nobody can run: whoever waits waits for ever.
    pub(super) fn report_stuck_warps(&mut self, block: &mut Block) {
        let Some((&id, barrier)) = block.barriers.list.iter().next() else { return };
        let Some(&(warp, pc)) = barrier.waiting.first() else { return };
        let others: Vec<String> = block.warps.iter().map(|warp| describe(warp.index, warp.state)).collect();
        self.pc = pc;
        let detail = format!("barrier {id} never completes: {}", others.join(", "));
        let warp = std::mem::take(&mut block.warps[warp]);
        self.report(&warp, 0, ViolationKind::DivergentBarrier, detail);
        self.stopped = true;
    }
}

fn describe(index: usize, state: State) -> String {
    match state {
        State::Done => format!("warp {index} has left"),
        State::Waiting(id) => format!("warp {index} waits at barrier {id}"),
        State::Ready => format!("warp {index} can run"),
    }
}
