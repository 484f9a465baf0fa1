//! When each stage of a run of launches began and ended, and how long each thread worked in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// One stage of one launch. Times are nanoseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// Number of the launch in its entry.
    pub launch: u32,
    /// Number of the stage in its kernel.
    pub stage: u32,
    /// When the caller began to hand it out.
    pub begin: u64,
    /// When all threads had finished.
    pub end: u64,
    /// When the first and the last thread with tiles finished: what lies between is imbalance.
    pub finished: [u64; 2],
}

/// Records the stages of the last run.
#[derive(Debug)]
pub(super) struct Timeline {
    origin: Instant,
    stages: Vec<StageTime>,
    first: AtomicU64,
    last: AtomicU64,
}

impl Timeline {
    pub fn new() -> Self {
        Self { origin: Instant::now(), stages: Vec::new(), first: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    /// Forgets the run before.
    pub fn restart(&mut self) {
        self.stages.clear();
        self.origin = Instant::now();
    }

    pub fn stages(&self) -> &[StageTime] {
        &self.stages
    }

    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// A stage begins: the time.
    pub fn begin(&self) -> u64 {
        self.first.store(u64::MAX, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
        self.now()
    }

    /// A thread has done its tiles of the stage. The barrier of the pool orders this before [`Timeline::end`].
    pub fn finished(&self) {
        let now = self.now();
        self.first.fetch_min(now, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// The stage has ended.
    pub fn end(&mut self, launch: u32, stage: u32, begin: u64) {
        let finished = [*self.first.get_mut(), *self.last.get_mut()];
        self.stages.push(StageTime { launch, stage, begin, end: self.now(), finished });
    }
}
