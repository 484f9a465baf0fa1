//! Device memory: the address map, allocations with bounds and validity, and a block's shared memory with race detection.

pub mod global;
pub mod shared;
pub mod validity;

/// First address of device memory. It lies above what a host process can map, so that a device pointer that the host
/// dereferences faults.
pub const GLOBAL_BASE: u64 = 1 << 48;
/// Generic addresses of shared memory.
pub const SHARED_WINDOW: u64 = 1 << 50;
/// Generic addresses of local memory.
pub const LOCAL_WINDOW: u64 = 1 << 51;
/// Generic addresses of kernel parameters.
pub const PARAM_WINDOW: u64 = 1 << 52;
/// Size of each window.
pub const WINDOW_BYTES: u64 = 1 << 32;

/// Why an access is wrong, without the place in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessError {
    /// Outside every allocation, or across the end of one.
    OutOfBounds(String),
    /// Not a multiple of its size.
    Misaligned,
    /// Reads bytes that nothing wrote.
    Uninitialised(String),
    /// Writes read-only memory.
    ReadOnly(String),
    /// Conflicts with an access of another thread that no barrier orders.
    Race(String),
    /// Touches the target of an asynchronous copy that was not waited for.
    PendingCopy(String),
}
