//! Room for recursion: parsing, checking and printing recurse with the nesting of a program, which is limited, but not to
//! what every thread of an embedding program has.

use std::{cell::Cell, io};

/// Stack of the thread that works on a program. Only what is used of it becomes memory.
pub const STACK_BYTES: usize = 256 << 20;

thread_local! {
    /// Whether this thread has that stack.
    static IS_LARGE: Cell<bool> = const { Cell::new(false) };
}

/// [`on_large_stack`] for what has no way to say that there is no such thread.
///
/// # Panics
/// Where the system has no thread. The command line has asked before.
pub(crate) fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_large_stack(work).expect("a thread with a large stack can be started")
}

/// Does some work with as much stack as programs may need: in a thread of its own, unless this is one already. Panics are passed on.
///
/// # Errors
/// When the system has no thread, or not so much room for its stack; nothing was done then.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if IS_LARGE.get() {
        return Ok(work());
    }
    let work = || {
        IS_LARGE.set(true);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        Ok(thread?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
