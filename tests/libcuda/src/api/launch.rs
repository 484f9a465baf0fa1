//! Launches, host functions, occupancy.

use std::ffi::{c_int, c_uint, c_void};

use trainc_ptx::Geometry;

use super::context::require;
use super::put;
use crate::driver::{Driver, Function, call};
use crate::status::Status;
use crate::stream::{HostFunction, Work};

/// Threads, blocks and shared memory of a multiprocessor of compute capability 8.0.
const THREADS: u64 = 2048;
const BLOCKS: u64 = 32;
const RESERVED_SHARED: u64 = 1024;

#[allow(clippy::too_many_arguments)]
fn launch(
    driver: &mut Driver,
    function: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: usize,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Result<(), Status> {
    require()?;
    let function = driver.functions.get(function)?.clone();
    let geometry = Geometry { grid, block, dynamic_shared: u64::from(shared) };
    if let Err((status, reason)) = check(&function, geometry) {
        return driver.refuse("cuLaunchKernel", status, &format!("kernel `{}`: {reason}", function.kernel.name));
    }
    if !extra.is_null() {
        return driver.refuse("cuLaunchKernel", Status::NotSupported, "parameters in one buffer (`extra`)");
    }
    if params.is_null() && !function.kernel.params.is_empty() {
        return Err(Status::InvalidValue);
    }
    let mut block_of_params = vec![0; function.kernel.param_bytes];
    for (index, param) in function.kernel.params.iter().enumerate() {
        // SAFETY: the caller passes a pointer for each parameter to a value of its size, which is copied now.
        let value = unsafe { std::slice::from_raw_parts((*params.add(index)).cast::<u8>(), param.bytes) };
        block_of_params[param.offset..param.offset + param.bytes].copy_from_slice(value);
    }
    let loaded = driver.modules.get(function.module)?.clone();
    let work = Work::Launch { kernel: function.kernel, loaded, geometry, params: block_of_params.into() };
    driver.submit("cuLaunchKernel", stream, work)
}

/// What the driver refuses when a launch is asked for.
fn check(function: &Function, geometry: Geometry) -> Result<(), (Status, String)> {
    let threads: u64 = geometry.block.iter().map(|extent| u64::from(*extent)).product();
    let blocks_fit = geometry.grid.iter().all(|extent| *extent > 0) && geometry.grid[1..].iter().all(|e| *e <= 65535);
    if !blocks_fit || threads == 0 || geometry.block[2] > 64 {
        return Err((Status::InvalidValue, format!("grid {:?} and block {:?}", geometry.grid, geometry.block)));
    }
    if threads > function.kernel.max_threads.unwrap_or(1024).min(1024) {
        let most = function.kernel.max_threads.unwrap_or(1024);
        return Err((Status::InvalidValue, format!("{threads} threads per block; at most {most}")));
    }
    if geometry.dynamic_shared > function.max_dynamic_shared {
        let reason = format!(
            "{} bytes of dynamic shared memory; {} are allowed (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
            geometry.dynamic_shared, function.max_dynamic_shared
        );
        return Err((Status::InvalidValue, reason));
    }
    Ok(())
}

/// Launches a kernel.
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: usize,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> u32 {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    call("cuLaunchKernel", |driver| launch(driver, function, grid, block, shared, stream, params, extra))
}

/// Calls a function of the host when the stream gets there.
#[unsafe(no_mangle)]
pub extern "C" fn cuLaunchHostFunc(stream: usize, function: Option<HostFunction>, data: *mut c_void) -> u32 {
    call("cuLaunchHostFunc", |driver| {
        require()?;
        let function = function.ok_or(Status::InvalidValue)?;
        driver.submit("cuLaunchHostFunc", stream, Work::Host { function, data: data as usize })
    })
}

/// Blocks per multiprocessor by threads and shared memory; registers are not known here.
#[unsafe(no_mangle)]
pub extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    shared: usize,
) -> u32 {
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0)
}

/// As without flags.
#[unsafe(no_mangle)]
pub extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    shared: usize,
    _flags: c_uint,
) -> u32 {
    call("cuOccupancyMaxActiveBlocksPerMultiprocessor", |driver| {
        let in_all = driver.config.options.max_shared_bytes + RESERVED_SHARED;
        let kernel = &driver.functions.get(function)?.kernel;
        let threads = u64::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(Status::InvalidValue)?;
        let by_threads = THREADS / threads.next_multiple_of(32);
        let by_shared = in_all / (kernel.shared_bytes + shared as u64 + RESERVED_SHARED);
        put(blocks, by_threads.min(by_shared).min(BLOCKS) as c_int)
    })
}
