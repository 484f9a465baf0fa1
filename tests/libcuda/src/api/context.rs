//! The primary context, the only one there is.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};

use super::put;
use crate::driver::{CONTEXT, call};
use crate::status::Status;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Calls on the device need a context that is current on the calling thread.
pub(super) fn require() -> Result<(), Status> {
    if CURRENT.get() == CONTEXT { Ok(()) } else { Err(Status::InvalidContext) }
}

/// Another user of the context.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _device: c_int) -> u32 {
    call("cuDevicePrimaryCtxRetain", |driver| {
        driver.context_uses += 1;
        put(context, CONTEXT)
    })
}

/// One user less; after the last, what is alive is reported as a leak.
#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> u32 {
    call("cuDevicePrimaryCtxRelease", |driver| {
        driver.context_uses = driver.context_uses.checked_sub(1).ok_or(Status::InvalidContext)?;
        if driver.context_uses == 0 {
            driver.release();
        }
        Ok(())
    })
}

/// The context that is current on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: *mut usize) -> u32 {
    call("cuCtxGetCurrent", |_| put(context, CURRENT.get()))
}

/// Makes a context current on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    call("cuCtxSetCurrent", |driver| {
        if context != 0 && (context != CONTEXT || driver.context_uses == 0) {
            return Err(Status::InvalidContext);
        }
        CURRENT.set(context);
        Ok(())
    })
}

/// The device of the current context.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(device: *mut c_int) -> u32 {
    call("cuCtxGetDevice", |_| {
        require()?;
        put(device, 0)
    })
}

/// Waits for everything.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> u32 {
    call("cuCtxSynchronize", |driver| {
        require()?;
        driver.forbid_in_capture("cuCtxSynchronize")?;
        driver.run_everything()
    })
}

/// How the host waits makes no difference here.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetFlags(_flags: c_uint) -> u32 {
    call("cuCtxSetFlags", |_| require())
}

/// There is one priority.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> u32 {
    call("cuCtxGetStreamPriorityRange", |_| {
        put(least, 0)?;
        put(greatest, 0)
    })
}
