//! Initialisation, versions, errors, devices.

use std::ffi::{c_char, c_int, c_uint};

use super::{put, put_text};
use crate::driver::{call, initialise};
use crate::status::Status;

/// Starts the driver.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> u32 {
    initialise() as u32
}

/// Version of CUDA that the driver supports; works before `cuInit`.
#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    let configured = crate::config::Config::from_environment().driver_version;
    put(version, configured).err().unwrap_or(Status::Success) as u32
}

/// Name of a result.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(error: u32, name: *mut *const c_char) -> u32 {
    let Some(status) = Status::from_code(error) else { return Status::InvalidValue as u32 };
    put(name, status.name().as_ptr()).err().unwrap_or(Status::Success) as u32
}

/// Explanation of a result.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(error: u32, text: *mut *const c_char) -> u32 {
    let Some(status) = Status::from_code(error) else { return Status::InvalidValue as u32 };
    put(text, status.text().as_ptr()).err().unwrap_or(Status::Success) as u32
}

/// Number of devices.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    call("cuDeviceGetCount", |driver| put(count, driver.config.devices))
}

/// A device by its number.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32 {
    call("cuDeviceGet", |driver| {
        if !(0..driver.config.devices).contains(&ordinal) {
            return Err(Status::InvalidDevice);
        }
        put(device, ordinal)
    })
}

/// The device's name says what it is.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetName(name: *mut c_char, bytes: c_int, _device: c_int) -> u32 {
    call("cuDeviceGetName", |_| put_text(name, usize::try_from(bytes).unwrap_or(0), "trainc PTX emulator"))
}

/// Memory in all.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> u32 {
    call("cuDeviceTotalMem", |driver| put(bytes, driver.config.memory as usize))
}

/// Attributes, those of an A100 where they do not follow from the configuration.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: u32, _device: c_int) -> u32 {
    call("cuDeviceGetAttribute", |driver| put(value, attribute_value(&driver.config, attribute)))
}

fn attribute_value(config: &crate::config::Config, attribute: u32) -> c_int {
    let shared = config.options.max_shared_bytes as c_int;
    match attribute {
        // Threads per block, extents of blocks and grids.
        1..=3 => 1024,
        4 => 64,
        5 => c_int::MAX,
        6 | 7 => 65535,
        // Shared memory: by default, opted in, per multiprocessor, reserved.
        8 => 48 << 10,
        97 => shared,
        81 => shared + 1024,
        111 => 1024,
        9 => 64 << 10,
        10 => 32,
        // Registers per block and multiprocessor.
        12 | 82 => 65536,
        // Clock in kHz, multiprocessors, memory clock and bus, L2 cache.
        13 => 1_410_000,
        16 => 108,
        36 => 1_215_000,
        37 => 5120,
        38 => 40 << 20,
        39 => 2048,
        106 => 32,
        75 => (config.capability / 10) as c_int,
        76 => (config.capability % 10) as c_int,
        // Copy engines, concurrent kernels, unified addresses, mapped host memory.
        40 => 2,
        15 | 19 | 31 | 41 | 78 => 1,
        // Memory pools.
        115 => 1,
        _ => 0,
    }
}

/// A fixed identity.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _device: c_int) -> u32 {
    call("cuDeviceGetUuid", |_| put(uuid, *b"PTX emulator 001"))
}

/// As the second version.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> u32 {
    cuDeviceGetUuid_v2(uuid, device)
}
