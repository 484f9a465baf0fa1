//! Room for recursion: parsing, checking and printing recurse with the nesting of a program, which is limited, but not to
//! what every thread of an embedding program has.

use std::cell::Cell;

/// Stack of the thread that works on a program. Only what is used of it becomes memory.
const STACK_BYTES: usize = 256 << 20;

thread_local! {
    /// Whether this thread has that stack.
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// Does some work with [`STACK_BYTES`] of stack: in a thread of its own, unless this is one already. Panics are passed on.
pub(crate) fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if IS_LARGE.get() {
        return work();
    }
    let work = || {
        IS_LARGE.set(true);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let joined = thread.expect("internal: a thread can be started").join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
