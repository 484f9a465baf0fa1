//! Streams and capture.

use std::ffi::{c_int, c_uint};

use super::context::require;
use super::put;
use crate::driver::call;
use crate::status::Status;
use crate::stream::Stream;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: c_uint = 1;

/// Creates a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> u32 {
    call("cuStreamCreate", |driver| {
        require()?;
        let created = Stream { non_blocking: flags & NON_BLOCKING != 0, ..Stream::default() };
        put(stream, driver.streams.insert(created))
    })
}

/// There is one priority.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreateWithPriority(stream: *mut usize, flags: c_uint, _priority: c_int) -> u32 {
    cuStreamCreate(stream, flags)
}

/// Destroys a stream; work in it is done first.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> u32 {
    call("cuStreamDestroy", |driver| {
        if stream == 0 {
            return Err(Status::InvalidHandle);
        }
        driver.run_stream(stream)?;
        driver.streams.remove(stream).map(drop)
    })
}

/// Waits for a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> u32 {
    call("cuStreamSynchronize", |driver| {
        require()?;
        driver.forbid_if_capturing("cuStreamSynchronize", stream)?;
        driver.run_stream(stream)
    })
}

/// Whether a stream has nothing left to do; each question lets it do one thing.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: usize) -> u32 {
    call("cuStreamQuery", |driver| {
        driver.forbid_if_capturing("cuStreamQuery", stream)?;
        if driver.poll(stream)? { Ok(()) } else { Err(Status::NotReady) }
    })
}

/// Begins to capture.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: u32) -> u32 {
    call("cuStreamBeginCapture", |driver| {
        require()?;
        driver.begin_capture(stream, mode)
    })
}

/// Ends a capture; if a rule was broken there is no graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> u32 {
    call("cuStreamEndCapture", |driver| {
        require()?;
        put(graph, 0)?;
        let captured = driver.end_capture(stream)?;
        put(graph, driver.graphs.insert(captured))
    })
}

/// Whether a stream is capturing.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut u32) -> u32 {
    call("cuStreamIsCapturing", |driver| put(status, driver.capture_status(stream)?))
}
