//! How the iterations of a nest are spread over the threads of a grid.

use super::transpose::Transpose;
use crate::{
    cuda::simt::WARP,
    ir::Nest,
    nest::{choose_vector, scatter},
};

/// Threads of a block where nothing speaks for another number.
const THREADS: u64 = 256;
/// Threads of a block of columns at most: each may have 128 registers.
const COLUMN_THREADS: u64 = 512;
/// Blocks that fill a device.
pub(super) const BLOCKS_WANTED: u64 = 96;
/// Parallel iterations that fill a device without sharing their inner loops.
const PLENTY: u64 = 1 << 17;
/// Threads wanted for a scatter.
const SCATTER_THREADS: u64 = 1 << 15;
/// Parts that a scatter is divided into at most.
const MAX_PARTS: u64 = 64;

/// How parallel iterations are spread over threads.
#[derive(Clone, Debug)]
pub(in crate::cuda) struct Plan {
    /// The parallel loop whose iterations are neighbours.
    pub column: Option<u32>,
    /// Threads of a team.
    pub team: u64,
    /// Teams of a block.
    pub teams: u64,
    /// Neighbouring threads belong to different teams.
    pub interleaved: bool,
    /// Iterations of the parallel loops.
    pub iterations: u64,
    /// Teams that share one iteration's scatter, each adding to the elements of one residue class.
    pub parts: u64,
}

impl Plan {
    /// The plan of a nest with merged loops.
    pub fn new(nest: &Nest) -> Plan {
        let iterations: u64 = nest.parallel.iter().product();
        let inner: u64 = nest.inner.iter().product();
        let parallel = nest.parallel.len() as u32;
        let vector = choose_vector(nest, WARP);
        let column = vector.filter(|&var| var < parallel).or(parallel.checked_sub(1));
        let plan = Plan { column, team: 1, teams: THREADS, interleaved: false, iterations, parts: 1 };
        if nest.inner.is_empty() {
            return plan;
        }
        if is_ordered(nest) {
            let wanted = (SCATTER_THREADS / iterations).clamp(1, MAX_PARTS);
            let parts = if scatter::key(nest).is_some() { 1 << wanted.ilog2() } else { 1 };
            return Plan { teams: iterations.next_power_of_two().clamp(32, THREADS), parts, ..plan };
        }
        if vector.is_some_and(|var| var >= parallel) {
            let team = match inner {
                0..=128 => inner.next_power_of_two().min(WARP.into()),
                129..=1024 => WARP.into(),
                1025..=16384 => THREADS,
                _ => 2 * THREADS,
            };
            return Plan { team, teams: (THREADS / team).max(1), ..plan };
        }
        if iterations >= PLENTY || inner <= 16 {
            return plan;
        }
        // Eight neighbours fill a sector of memory; more only where there are blocks enough without.
        let enough = |teams: &u64| iterations.div_ceil(*teams) >= BLOCKS_WANTED;
        let teams = [32, 16].into_iter().find(enough).unwrap_or(8);
        let team = (inner / 16).next_power_of_two().clamp(4, (COLUMN_THREADS / teams).min(WARP.into()));
        Plan { team, teams, interleaved: true, ..plan }
    }

    /// What goes through shared memory, if something does.
    pub(super) fn turned(&self, nest: &Nest) -> Option<Transpose> {
        self.column.and_then(|across| Transpose::of(nest, across))
    }

    /// The same with more teams in a block. What a team computes stays as it is.
    pub fn widened(self, threads: u64) -> Plan {
        Plan { teams: threads / self.team, ..self }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u64 {
        self.team * self.teams
    }

    /// The long bodies of columns may have all registers that a block can.
    pub fn together(&self) -> Option<u32> {
        self.interleaved.then_some(1)
    }

    pub fn units(&self) -> u64 {
        self.iterations * self.parts
    }

    pub fn blocks(&self) -> u64 {
        self.units().div_ceil(self.teams)
    }

    /// Partial results of a team that go through shared memory.
    pub fn slots(&self) -> u64 {
        match (self.interleaved, self.team) {
            (true, team) => team * self.teams,
            (false, team) if team > WARP.into() => self.threads() / u64::from(WARP),
            _ => 0,
        }
    }

    pub fn shared_bytes(&self) -> u64 {
        // Value and position.
        2 * 4 * self.slots()
    }
}

/// Whether inner iterations add to elements that others add to, so that their order counts.
pub(super) fn is_ordered(nest: &Nest) -> bool {
    nest.sweeps.iter().any(|sweep| !sweep.once && sweep.stores.iter().any(|store| store.accumulate))
}
