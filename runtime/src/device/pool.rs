//! A fixed set of threads that split tiles statically.
//!
//! Thread `i` of `T` computes the tiles `[i * n / T, (i + 1) * n / T)`, so nothing is fetched, stolen or counted while
//! a stage runs. The caller is thread 0. Each stage is one *epoch*: the caller publishes the job, raises the epoch,
//! does its share, and waits until every worker has reported that very epoch. Since no epoch starts before all
//! workers have finished the last one, none can be late and pick up a job that is not its own.
//!
//! Workers spin for [`SPIN`] after a stage and then park: a wake-up costs more than most stages take, but an idle
//! trainer must not burn the processor.

use crate::threads::processors;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread keeps looking for work before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Looks at the shared word between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 64;

/// The function of a job: thread number and its tiles.
type Work<'a> = dyn Fn(usize, Range<u64>) + Sync + 'a;

/// Threads for running stages.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Looks at the clock make no sense when threads outnumber processors: then every wait gives way at once.
    spin: Duration,
}

/// A stage to run. Valid from the raising of its epoch until every worker has reported it.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    tiles: u64,
}

struct Shared {
    epoch: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    workers: Box<[WorkerState]>,
    shutdown: AtomicBool,
}

/// One cache line per worker: nobody else writes there while it works.
#[repr(align(128))]
#[derive(Default)]
struct WorkerState {
    /// The last epoch it has finished.
    finished: AtomicU64,
    /// Set before it goes to sleep.
    parked: AtomicBool,
}

// SAFETY: `job` is written by the caller only while all workers wait (see the module's header), and the pointer in it
// is to something `Sync`.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}

/// The tiles of thread `index` among `threads`.
pub fn share(tiles: u64, index: usize, threads: usize) -> Range<u64> {
    let bound = |i: usize| (u128::from(tiles) * i as u128 / threads as u128) as u64;
    bound(index)..bound(index + 1)
}

impl Pool {
    /// Starts `threads - 1` workers; the caller of [`Pool::run`] is the remaining thread.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let spin = if threads > processors() { Duration::ZERO } else { SPIN };
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            workers: (1..threads).map(|_| WorkerState::default()).collect(),
            shutdown: AtomicBool::new(false),
        });
        let mut pool = Self { shared, workers: Vec::new(), spin };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("trainc-{index}"));
            pool.workers.push(builder.spawn(move || worker(&shared, index, threads, spin))?);
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work` on all tiles and returns when they are done. Work of a single tile stays on the caller.
    pub fn run(&mut self, tiles: u64, work: &Work<'_>) {
        if tiles <= 1 || self.workers.is_empty() {
            return work(0, 0..tiles);
        }
        let work_pointer: *const Work<'_> = work;
        // SAFETY: only the lifetime is erased; this function does not return before all workers are done with it.
        let work_pointer = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work_pointer) };
        // SAFETY: all workers have finished the previous epoch and wait for the next; `&mut self` keeps others out.
        unsafe { *self.shared.job.get() = Some(Job { work: work_pointer, tiles }) };
        let epoch = self.start_epoch();
        // Even if our share panics, the workers must be done with `work` before it goes away.
        let _wait = WaitOnDrop { shared: &self.shared, epoch, spin: self.spin };
        work(0, share(tiles, 0, self.threads()));
    }

    fn start_epoch(&self) -> u64 {
        let epoch = self.shared.epoch.load(Ordering::Relaxed) + 1;
        // Sequentially consistent with `parked`: either the worker sees the epoch or we see that it sleeps.
        self.shared.epoch.store(epoch, Ordering::SeqCst);
        for (state, handle) in self.shared.workers.iter().zip(&self.workers) {
            if state.parked.load(Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        epoch
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        self.start_epoch();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

struct WaitOnDrop<'a> {
    shared: &'a Shared,
    epoch: u64,
    spin: Duration,
}

impl Drop for WaitOnDrop<'_> {
    fn drop(&mut self) {
        for state in &self.shared.workers {
            let done = || state.finished.load(Ordering::Acquire) == self.epoch;
            while !spin_until(self.spin, done) {
                std::thread::yield_now();
            }
        }
    }
}

fn worker(shared: &Shared, index: usize, threads: usize, spin: Duration) {
    super::float::set_mode();
    let state = &shared.workers[index - 1];
    let mut finished = 0;
    loop {
        finished = wait_for_epoch(shared, state, finished, spin);
        if shared.shutdown.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: written before the epoch was raised, and not written again before we report it finished.
        let job = unsafe { *shared.job.get() }.expect("an epoch has a job");
        // SAFETY: the caller keeps the closure alive until we report.
        unsafe { (*job.work)(index, share(job.tiles, index, threads)) };
        state.finished.store(finished, Ordering::Release);
    }
}

/// Waits until the epoch has moved on from `last`, spinning first, and returns it.
fn wait_for_epoch(shared: &Shared, state: &WorkerState, last: u64, spin: Duration) -> u64 {
    let news = || shared.epoch.load(Ordering::SeqCst) != last;
    if !spin_until(spin, news) {
        state.parked.store(true, Ordering::SeqCst);
        while !news() {
            std::thread::park();
        }
        state.parked.store(false, Ordering::SeqCst);
    }
    shared.epoch.load(Ordering::SeqCst)
}

/// Looks until `condition` holds (true) or the time is up (false).
fn spin_until(time: Duration, condition: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() >= time {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU32;

    proptest! {
        #[test]
        fn shares_cover_all_tiles_once_and_differ_by_at_most_one(tiles in 0u64..10_000, threads in 1usize..40) {
            let shares: Vec<_> = (0..threads).map(|i| share(tiles, i, threads)).collect();
            prop_assert_eq!(shares[0].start, 0);
            prop_assert_eq!(shares[threads - 1].end, tiles);
            prop_assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            let lengths = shares.iter().map(|share| share.end - share.start);
            prop_assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
        }
    }

    #[test]
    fn every_tile_runs_once_in_every_epoch_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let mut pool = Pool::new(threads).unwrap();
            let counts: Vec<_> = (0..97).map(|_| AtomicU32::new(0)).collect();
            for epoch in 1..=2_000 {
                let tiles = 2 + epoch % 96;
                pool.run(tiles, &|_, range| {
                    for tile in range {
                        counts[tile as usize].fetch_add(1, Ordering::Relaxed);
                    }
                });
                let seen = |tile: u64| u64::from(counts[tile as usize].swap(0, Ordering::Relaxed));
                assert!((0..97).all(|tile| seen(tile) == u64::from(tile < tiles)), "{threads} threads, epoch {epoch}");
            }
        }
    }

    #[test]
    fn parked_workers_wake_up() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            let sum = AtomicU64::new(0);
            pool.run(10, &|_, range| {
                sum.fetch_add(range.sum(), Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 45);
        }
    }

    #[test]
    fn a_single_tile_runs_on_the_caller() {
        let mut pool = Pool::new(2).unwrap();
        let caller = std::thread::current().id();
        pool.run(1, &|thread, _| assert!(thread == 0 && std::thread::current().id() == caller));
    }
}
