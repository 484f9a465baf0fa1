//! The driver API of CUDA, as far as a program that uses it through `cudarc` can reach, over the PTX interpreter.
//!
//! A program finds the shared object where `LD_LIBRARY_PATH` says ([`environment`] gives the value), loads it as it would load
//! NVIDIA's driver, and runs unchanged: kernels are interpreted and checked. It is never installed, and says what it is in the
//! device's name. Timings of events are those of the interpreter.
//!
//! Work is done as late as the API allows: a stream runs when something waits for it, so that a missing synchronisation
//! shows. [`config`] lists the environment variables that steer it; [`report`] says what it writes down.
//! [`child`] is for tests that run over it.

mod api;
mod capture;
pub mod child;
pub mod config;
mod driver;
mod handles;
pub mod report;
mod status;
mod stream;

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The file that cargo builds for packages that depend on this one, next to their test programs.
const BUILT: &str = "libtrainc_libcuda.so";

/// The environment variable, and its value, with which a child process finds this driver.
///
/// # Errors
/// If the shared object is not near the running program, or cannot be linked to under the driver's names.
pub fn environment() -> io::Result<(&'static str, PathBuf)> {
    let program = std::env::current_exe()?;
    let built = program.ancestors().skip(1).take(3).map(|folder| folder.join(BUILT)).find(|file| file.exists());
    let built = built.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {BUILT}")))?;
    let folder = built.with_file_name("emulated-driver");
    std::fs::create_dir_all(&folder)?;
    for name in ["libcuda.so", "libcuda.so.1"] {
        match symlink(Path::new("..").join(BUILT), folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(("LD_LIBRARY_PATH", folder))
}
