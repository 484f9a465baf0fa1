//! Modules: PTX text to kernels, with the driver's answers to text that it cannot use.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::context::require;
use super::{put, put_text, text};
use crate::driver::{DEFAULT_DYNAMIC_SHARED, Driver, Function, call};
use crate::status::Status;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
const MAX_DYNAMIC_SHARED: u32 = 8;
/// `CU_JIT_ERROR_LOG_BUFFER` and the option with its size.
const ERROR_LOG: (u32, u32) = (5, 6);

fn load(driver: &mut Driver, source: &str) -> Result<usize, (Status, String)> {
    let parsed = trainc_ptx::Program::load(source).map_err(|error| (Status::InvalidPtx, error.to_string()))?;
    let newest = driver.config.newest_ptx();
    if parsed.version > newest {
        let ((major, minor), (most, least)) = (parsed.version, newest);
        return Err((Status::UnsupportedPtx, format!("PTX {major}.{minor}; this driver reads {most}.{least} at most")));
    }
    if parsed.target > driver.config.capability {
        let text = format!("built for sm_{}; the device is sm_{}", parsed.target, driver.config.capability);
        return Err((Status::NoBinary, text));
    }
    let loaded = driver.device.load(source).map_err(|error| (Status::OutOfMemory, error.to_string()))?;
    Ok(driver.modules.insert(loaded))
}

/// Loads PTX; cubin and fat binaries are not understood.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_void) -> u32 {
    cuModuleLoadDataEx(module, image, 0, std::ptr::null(), std::ptr::null())
}

/// Loads PTX; of the options, the buffer for errors is used.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_void,
    count: c_uint,
    options: *const u32,
    values: *const *mut c_void,
) -> u32 {
    call("cuModuleLoadData", |driver| {
        require()?;
        if image.is_null() || (count > 0 && (options.is_null() || values.is_null())) {
            return Err(Status::InvalidValue);
        }
        // SAFETY: not null; PTX images are nul-terminated text. Binary images end early and do not parse.
        let source = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy().into_owned();
        match load(driver, &source) {
            Ok(handle) => put(module, handle),
            Err((status, message)) => {
                // SAFETY: the caller passes `count` options with as many values.
                let options = (0..count as usize).map(|i| unsafe { (*options.add(i), *values.add(i)) });
                write_log(options.collect(), &message)?;
                driver.refuse("cuModuleLoadData", status, &message)
            }
        }
    })
}

fn write_log(options: Vec<(u32, *mut c_void)>, message: &str) -> Result<(), Status> {
    let find = |wanted| options.iter().find(|(option, _)| *option == wanted).map(|(_, value)| *value);
    match (find(ERROR_LOG.0), find(ERROR_LOG.1)) {
        (Some(buffer), Some(bytes)) => put_text(buffer.cast(), bytes as usize, message),
        _ => Ok(()),
    }
}

/// Loads PTX from a file.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleLoad(module: *mut usize, path: *const c_char) -> u32 {
    call("cuModuleLoad", |driver| {
        require()?;
        let source = std::fs::read_to_string(text(path)?).map_err(|_| Status::NotFound)?;
        match load(driver, &source) {
            Ok(handle) => put(module, handle),
            Err((status, message)) => driver.refuse("cuModuleLoad", status, &message),
        }
    })
}

/// Unloads a module; its kernels and variables are gone.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: usize) -> u32 {
    call("cuModuleUnload", |driver| {
        require()?;
        driver.run_everything()?;
        let loaded = driver.modules.remove(module)?;
        for variable in loaded.variables.iter().filter(|address| **address != 0) {
            // Each was allocated when the module was loaded.
            let _ = driver.device.memory.free(*variable);
        }
        for handle in driver.functions.handles() {
            if driver.functions.get(handle)?.module == module {
                driver.functions.remove(handle)?;
            }
        }
        Ok(())
    })
}

/// A kernel by its name.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> u32 {
    call("cuModuleGetFunction", |driver| {
        require()?;
        let kernel = driver.modules.get(module)?.program.kernel(text(name)?).cloned().ok_or(Status::NotFound)?;
        let handle = driver.functions.insert(Function { module, kernel, max_dynamic_shared: DEFAULT_DYNAMIC_SHARED });
        put(function, handle)
    })
}

/// A variable of a module.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: usize,
    name: *const c_char,
) -> u32 {
    call("cuModuleGetGlobal", |driver| {
        require()?;
        let loaded = driver.modules.get(module)?;
        let wanted = text(name)?;
        let found = loaded.program.variables.iter().position(|variable| variable.name == wanted);
        let index = found.filter(|index| loaded.variables[*index] != 0).ok_or(Status::NotFound)?;
        let (start, size) = (loaded.variables[index], loaded.program.variables[index].bytes as usize);
        // Either pointer may be null.
        put(address, start).or(put(bytes, size))?;
        let _ = put(bytes, size);
        Ok(())
    })
}

/// Sets how much dynamic shared memory launches may ask for; other attributes change nothing here.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: usize, attribute: u32, value: c_int) -> u32 {
    call("cuFuncSetAttribute", |driver| {
        require()?;
        let most = driver.config.options.max_shared_bytes;
        let function = driver.functions.get_mut(function)?;
        if attribute == MAX_DYNAMIC_SHARED {
            let bytes = u64::try_from(value).map_err(|_| Status::InvalidValue)?;
            if bytes + function.kernel.shared_bytes > most {
                return Err(Status::InvalidValue);
            }
            function.max_dynamic_shared = bytes.max(DEFAULT_DYNAMIC_SHARED);
        }
        Ok(())
    })
}

/// Facts about a kernel. The number of registers is the interpreter's, not an assembler's.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: u32, function: usize) -> u32 {
    call("cuFuncGetAttribute", |driver| {
        let capability = driver.config.capability as c_int;
        let function = driver.functions.get(function)?;
        let kernel = &function.kernel;
        put(
            value,
            match attribute {
                0 => kernel.max_threads.unwrap_or(1024).min(1024) as c_int,
                1 => kernel.shared_bytes as c_int,
                3 => kernel.local_bytes as c_int,
                4 => (kernel.registers[0] + 2 * kernel.registers[1]).min(255) as c_int,
                5 | 6 => capability,
                8 => function.max_dynamic_shared as c_int,
                _ => 0,
            },
        )
    })
}

/// How the first-level cache is divided changes nothing here.
#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetCacheConfig(function: usize, _config: u32) -> u32 {
    call("cuFuncSetCacheConfig", |driver| driver.functions.get(function).map(drop))
}
