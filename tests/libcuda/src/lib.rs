//! The driver API of CUDA, as far as a program that uses it through `cudarc` can reach, over the PTX interpreter.
//!
//! The shared object is named `libcuda.so`. A program finds it where `LD_LIBRARY_PATH` says ([`environment`] gives the value),
//! loads it as it would load NVIDIA's driver, and runs unchanged: kernels are interpreted and checked. It is never
//! installed, and says what it is in the device's name. Timings of events are those of the interpreter.
//!
//! Work is done as late as the API allows: a stream runs when something waits for it, so that a missing synchronisation
//! shows. [`config`] lists the environment variables that steer it; [`report`] says what it writes down.

mod api;
mod capture;
pub mod config;
mod driver;
mod handles;
pub mod report;
mod status;
mod stream;

use std::path::PathBuf;

/// The folder of the shared object: next to the running test, or above it.
///
/// `None` if it was not built, which cargo does for packages that depend on this one.
pub fn folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().skip(1).take(3).find(|folder| folder.join("libcuda.so").exists()).map(PathBuf::from)
}

/// The environment variable and its value with which a child process finds this driver.
pub fn environment() -> Option<(&'static str, PathBuf)> {
    folder().map(|folder| ("LD_LIBRARY_PATH", folder))
}
