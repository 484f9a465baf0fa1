//! The end of a process whose memory is exhausted: a sentence and an exit code.
//!
//! What the language does by itself is to report and abort, which is an exit code that says nothing, and with `RUST_BACKTRACE`
//! set it may wait for ever for a lock that the report holds while it wants more memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::NonNull,
};

/// The system's allocator; where that has no memory, the process ends. It is for binaries alone:
/// `#[global_allocator] static ALLOCATOR: OrEnd = OrEnd;`.
pub struct OrEnd;

/// The exit code of a run that failed.
const FAILED: i32 = 3;

// SAFETY: all of it is the system's allocator, which returns no null pointer any more.
unsafe impl GlobalAlloc for OrEnd {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_end(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_end(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        or_end(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) };
    }
}

fn or_end(pointer: *mut u8, bytes: usize) -> *mut u8 {
    NonNull::new(pointer).unwrap_or_else(|| end(bytes)).as_ptr()
}

/// Neither allocates nor waits. Files are replaced in one step, so that ending here loses what a killed process loses.
#[cold]
fn end(bytes: usize) -> ! {
    let mut digits = [0; 20];
    let parts: [&[u8]; 3] = [
        b"error: out of memory: the system has no ",
        decimal(bytes, &mut digits),
        b" bytes more for this process (see `ulimit -v`, and what else runs)\n",
    ];
    // SAFETY: the pointers are those of slices with these lengths; `_exit` runs nothing of this process.
    unsafe {
        for part in parts {
            libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len());
        }
        libc::_exit(FAILED)
    }
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[first..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_memory() {
        for number in [0, 7, 10, 1234567890, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
