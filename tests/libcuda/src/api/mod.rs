//! The exported functions, by chapter of the driver API's reference. Handles are numbers in place of opaque pointers.
//!
//! Pointers come from the program under test, as with the real driver: it vouches for them.

mod context;
mod device;
mod event;
mod graph;
mod launch;
mod memory;
mod module;
mod stream;
mod unsupported;

use std::ffi::{CStr, c_char};

use crate::status::Status;

/// Writes a result through a pointer of the caller.
fn put<T>(target: *mut T, value: T) -> Result<(), Status> {
    if target.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, and the caller passes a place for a `T`.
    unsafe { target.write(value) };
    Ok(())
}

/// A C string of the caller.
fn text<'a>(name: *const c_char) -> Result<&'a str, Status> {
    if name.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: not null, and the caller passes a nul-terminated string.
    unsafe { CStr::from_ptr(name) }.to_str().map_err(|_| Status::InvalidValue)
}

/// Writes a nul-terminated string into a buffer, cut to its size.
fn put_text(target: *mut c_char, bytes: usize, text: &str) -> Result<(), Status> {
    if target.is_null() || bytes == 0 {
        return Err(Status::InvalidValue);
    }
    let kept = &text.as_bytes()[..text.len().min(bytes - 1)];
    // SAFETY: the buffer holds `bytes`, and `kept` and its end are no longer.
    unsafe {
        target.copy_from_nonoverlapping(kept.as_ptr().cast(), kept.len());
        target.add(kept.len()).write(0);
    }
    Ok(())
}
