//! Work that is shared with as many threads as can be had.

use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// Most threads that a session uses. Each has a stack, and a stage hands something to each of them.
pub const MOST_THREADS: usize = 1024;

/// Processors that this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does each piece of some work once, on up to so many threads. The caller's is one of them; where the system has no other, it
/// does all.
///
/// Which thread does which piece is left to chance: no result may depend on it.
pub fn side_by_side<T>(threads: usize, pieces: impl ExactSizeIterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let threads = threads.min(pieces.len());
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let do_all = || {
        while let Some(piece) = next() {
            work(piece);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if Builder::new().spawn_scoped(scope, do_all).is_err() {
                break;
            }
        }
        do_all();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_done_once_by_any_number_of_threads() {
        for threads in [0, 1, 2, 7] {
            let mut counts = [0; 100];
            side_by_side(threads, counts.iter_mut(), |count| *count += 1);
            assert_eq!(counts, [1; 100]);
        }
    }
}
