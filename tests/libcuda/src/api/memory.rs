//! Memory of the device, page-locked memory of the host, copies.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use super::context::require;
use super::put;
use crate::driver::{Driver, call};
use crate::status::Status;
use crate::stream::{Source, Work};

/// Alignment of page-locked memory.
const PAGE: usize = 4096;

fn allocate(driver: &mut Driver, bytes: usize) -> Result<u64, Status> {
    require()?;
    if bytes == 0 {
        return Err(Status::InvalidValue);
    }
    driver.device.memory.allocate(bytes, None).ok_or(Status::OutOfMemory)
}

/// Allocates; the contents are undefined, and reading them in a kernel is a violation.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> u32 {
    call("cuMemAlloc", |driver| {
        driver.forbid_in_capture("cuMemAlloc")?;
        let allocated = allocate(driver, bytes)?;
        put(address, allocated)
    })
}

/// Allocates in a stream; the memory is there at once.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: usize) -> u32 {
    call("cuMemAllocAsync", |driver| {
        driver.streams.get(stream)?;
        driver.forbid_if_capturing("cuMemAllocAsync", stream)?;
        let allocated = allocate(driver, bytes)?;
        put(address, allocated)
    })
}

/// Frees after all work is done, as the driver does.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> u32 {
    call("cuMemFree", |driver| {
        require()?;
        driver.forbid_in_capture("cuMemFree")?;
        if address == 0 {
            return Ok(());
        }
        driver.run_everything()?;
        match driver.device.memory.free(address) {
            Ok(()) => Ok(()),
            Err(text) => driver.refuse("cuMemFree", Status::InvalidValue, &text),
        }
    })
}

/// Frees when the stream gets there.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> u32 {
    call("cuMemFreeAsync", |driver| {
        require()?;
        driver.submit("cuMemFreeAsync", stream, Work::Free { address })
    })
}

/// Free and total memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    call("cuMemGetInfo", |driver| {
        require()?;
        let [capacity, used, _] = driver.device.memory.usage();
        put(free, (capacity - used) as usize)?;
        put(total, capacity as usize)
    })
}

/// Page-locked memory.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) -> u32 {
    call("cuMemHostAlloc", |driver| {
        require()?;
        driver.forbid_in_capture("cuMemHostAlloc")?;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Status::InvalidValue)?;
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(Status::OutOfMemory);
        }
        driver.pinned.insert(memory as usize, bytes);
        put(pointer, memory.cast())
    })
}

/// As [`cuMemHostAlloc`] without flags.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) -> u32 {
    cuMemHostAlloc(pointer, bytes, 0)
}

/// Frees page-locked memory once no copy needs it any more.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> u32 {
    call("cuMemFreeHost", |driver| {
        require()?;
        driver.run_everything()?;
        let bytes = driver.pinned.remove(&(pointer as usize)).ok_or(Status::InvalidValue)?;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Status::InvalidValue)?;
        // SAFETY: allocated by `cuMemHostAlloc` with this layout, and no longer registered.
        unsafe { dealloc(pointer.cast(), layout) };
        Ok(())
    })
}

/// The bytes of a copy to the device: pageable memory may be reused as soon as the call returns.
fn source(driver: &Driver, stream: usize, from: *const c_void, bytes: usize) -> Result<Source, Status> {
    if from.is_null() && bytes > 0 {
        return Err(Status::InvalidValue);
    }
    let later = driver.is_pinned(from as usize, bytes) || driver.streams.get(stream)?.capture.is_some();
    if later || bytes == 0 {
        return Ok(Source::Address(from as usize));
    }
    // SAFETY: not null, and the caller vouches for `bytes` bytes.
    Ok(Source::Copied(Arc::from(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), bytes) })))
}

/// Copies to the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: usize) -> u32 {
    call("cuMemcpyHtoDAsync", |driver| {
        require()?;
        if bytes == 0 {
            return Ok(());
        }
        let source = source(driver, stream, from, bytes)?;
        driver.submit("cuMemcpyHtoDAsync", stream, Work::Upload { to, source, bytes })
    })
}

/// Copies to the device and waits.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> u32 {
    synchronous("cuMemcpyHtoD", || cuMemcpyHtoDAsync_v2(to, from, bytes, 0))
}

/// Copies from the device; into pageable memory the call waits for its stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: usize) -> u32 {
    call("cuMemcpyDtoHAsync", |driver| {
        require()?;
        if bytes == 0 {
            return Ok(());
        }
        if to.is_null() {
            return Err(Status::InvalidValue);
        }
        let waits = !driver.is_pinned(to as usize, bytes) && driver.streams.get(stream)?.capture.is_none();
        driver.submit("cuMemcpyDtoHAsync", stream, Work::Download { to: to as usize, from, bytes })?;
        if waits { driver.run_stream(stream) } else { Ok(()) }
    })
}

/// Copies from the device and waits.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> u32 {
    synchronous("cuMemcpyDtoH", || cuMemcpyDtoHAsync_v2(to, from, bytes, 0))
}

/// Copies on the device.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> u32 {
    call("cuMemcpyDtoDAsync", |driver| {
        require()?;
        if bytes == 0 {
            return Ok(());
        }
        driver.submit("cuMemcpyDtoDAsync", stream, Work::Copy { to, from, bytes })
    })
}

/// Copies on the device, in the legacy stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32 {
    synchronous("cuMemcpyDtoD", || cuMemcpyDtoDAsync_v2(to, from, bytes, 0))
}

/// A copy in the legacy stream, and the wait for it.
fn synchronous(name: &str, copy: impl FnOnce() -> u32) -> u32 {
    let allowed = call(name, |driver| driver.forbid_in_capture(name));
    let queued = if allowed == 0 { copy() } else { allowed };
    if queued == 0 { call(name, |driver| driver.run_stream(0)) } else { queued }
}

fn fill(call_name: &str, to: u64, pattern: [u8; 4], width: usize, count: usize, stream: usize) -> u32 {
    call(call_name, |driver| {
        require()?;
        if count == 0 {
            return Ok(());
        }
        if !to.is_multiple_of(width as u64) {
            return Err(Status::InvalidValue);
        }
        let bytes = count.checked_mul(width).ok_or(Status::InvalidValue)?;
        driver.submit(call_name, stream, Work::Fill { to, pattern, width, bytes })
    })
}

/// Sets bytes.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: usize) -> u32 {
    fill("cuMemsetD8Async", to, [value; 4], 1, count, stream)
}

/// Sets bytes, in the legacy stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> u32 {
    synchronous("cuMemsetD8", || cuMemsetD8Async(to, value, count, 0))
}

/// Sets words.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: usize) -> u32 {
    fill("cuMemsetD32Async", to, value.to_le_bytes(), 4, count, stream)
}
