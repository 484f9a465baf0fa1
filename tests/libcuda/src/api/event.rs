//! Events.

use std::ffi::c_uint;

use super::context::require;
use super::put;
use crate::driver::{Driver, Event, call};
use crate::status::Status;
use crate::stream::Work;

/// Creates an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: *mut usize, _flags: c_uint) -> u32 {
    call("cuEventCreate", |driver| {
        require()?;
        put(event, driver.events.insert(Event::default()))
    })
}

/// Destroys an event; whoever waits for it does not see it vanish early.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> u32 {
    call("cuEventDestroy", |driver| {
        let versions: Vec<u64> = driver.events.get(event)?.pending.keys().copied().collect();
        versions.into_iter().try_for_each(|version| driver.run_until(event, version))?;
        driver.events.remove(event).map(drop)
    })
}

/// Marks a place in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> u32 {
    call("cuEventRecord", |driver| {
        require()?;
        if driver.streams.get(stream)?.capture.is_some() {
            return driver.submit("cuEventRecord", stream, Work::Record { event, version: 0 });
        }
        let version = driver.events.get_mut(event)?.record(stream);
        driver.submit("cuEventRecord", stream, Work::Record { event, version })
    })
}

/// Makes a stream wait for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> u32 {
    call("cuStreamWaitEvent", |driver| {
        require()?;
        if driver.wait_for_captured(stream, event)? {
            return Ok(());
        }
        let version = driver.events.get(event)?.recorded;
        driver.submit("cuStreamWaitEvent", stream, Work::Wait { event, version })
    })
}

fn forbid_captured(driver: &mut Driver, call: &str, event: usize) -> Result<(), Status> {
    match driver.events.get(event)?.captured {
        Some(_) => driver.refuse(call, Status::CapturedEvent, "the event was last recorded in a capture"),
        None => Ok(()),
    }
}

/// Waits for an event.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> u32 {
    call("cuEventSynchronize", |driver| {
        require()?;
        forbid_captured(driver, "cuEventSynchronize", event)?;
        let version = driver.events.get(event)?.recorded;
        driver.run_until(event, version)
    })
}

/// Whether an event has happened; each question lets its stream do one thing.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: usize) -> u32 {
    call("cuEventQuery", |driver| {
        forbid_captured(driver, "cuEventQuery", event)?;
        let Some(stream) = driver.events.get(event)?.last_pending() else { return Ok(()) };
        driver.poll(stream)?;
        driver.events.get(event)?.last_pending().map_or(Ok(()), |_| Err(Status::NotReady))
    })
}

/// Milliseconds between two events: the interpreter's time, not that of a GPU.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: usize, end: usize) -> u32 {
    call("cuEventElapsedTime", |driver| {
        let time = |event: usize| {
            let event = driver.events.get(event)?;
            match event.last_pending() {
                Some(_) => Err(Status::NotReady),
                None => event.time.ok_or(Status::InvalidHandle),
            }
        };
        let (start, end) = (time(start)?, time(end)?);
        put(milliseconds, end.saturating_duration_since(start).as_secs_f32() * 1e3)
    })
}

/// As the first version.
#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: usize, end: usize) -> u32 {
    cuEventElapsedTime(milliseconds, start, end)
}
