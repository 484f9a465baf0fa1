//! NVIDIA's driver as far as a session needs it: owned handles, and errors that say what to do.
//!
//! The library is loaded when the first device is opened; machines without it lose nothing but `--device cuda`.

use cudarc::driver::{
    DriverError,
    result::{self, stream::StreamKind},
    sys,
};
use std::ffi::{CString, c_int, c_void};

/// Why a CUDA device cannot be used, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no driver library.
    #[error(
        "there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded): install one, or run on the CPU"
    )]
    NoDriver,
    /// There is a driver, but not that device.
    #[error("there is no CUDA device {wanted}: the driver knows {count}")]
    NoDevice {
        /// The device's number.
        wanted: u32,
        /// How many there are.
        count: u32,
    },
    /// The driver does not know the version of the code.
    #[error(
        "the program's code is PTX {}.{}, which needs NVIDIA driver {needed} or newer; this driver supports CUDA {}.{}",
        ptx.0, ptx.1, driver / 1000, driver % 1000 / 10
    )]
    DriverTooOld {
        /// Version of the code.
        ptx: (u32, u32),
        /// The first driver that knows it.
        needed: &'static str,
        /// Version of CUDA that the driver supports: 12080 for 12.8.
        driver: u32,
    },
    /// The device is older than the code.
    #[error("{device} has compute capability {}.{}; the artifact needs {}.{} at least", has / 10, has % 10, needs / 10, needs % 10)]
    Capability {
        /// The device's name.
        device: String,
        /// Its capability, 80 for 8.0.
        has: u32,
        /// The least that the artifact has code for.
        needs: u32,
    },
    /// The program does not fit.
    #[error(
        "the program needs {:.1} MB on {device}, which has {:.1} MB free of {:.1} MB: make the batch or the model \
         smaller, or write `memory` into the train block",
        *bytes as f64 / 1e6, *free as f64 / 1e6, *total as f64 / 1e6
    )]
    Memory {
        /// The device's name.
        device: String,
        /// Size of the arena.
        bytes: u64,
        /// What was free.
        free: u64,
        /// What there is in all.
        total: u64,
    },
    /// The driver refuses the code.
    #[error("the driver cannot load the program's code: {reason}")]
    Code {
        /// The driver's answer.
        reason: String,
    },
    /// A call failed: the device is gone, or a kernel went wrong. Nothing more can be done with it in this process.
    #[error("the device failed while {doing}: {reason}")]
    Failed {
        /// What was asked of it.
        doing: &'static str,
        /// The driver's answer.
        reason: String,
    },
}

pub(super) type Result<T> = std::result::Result<T, CudaError>;

/// The driver's name of an error, and its explanation.
pub(super) fn reason(error: DriverError) -> String {
    let text =
        |text: std::result::Result<&std::ffi::CStr, DriverError>| text.map(|text| text.to_string_lossy().into_owned());
    match (text(error.error_name()), text(error.error_string())) {
        (Ok(name), Ok(explanation)) => format!("{name}: {explanation}"),
        _ => format!("error {}", error.0 as u32),
    }
}

pub(super) trait Doing<T> {
    /// Names what a failed call was for.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, DriverError> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|error| CudaError::Failed { doing, reason: reason(error) })
    }
}

/// Versions of PTX with the version of CUDA and the driver that first knew them.
const DRIVERS: [((u32, u32), u32, &str); 10] = [
    ((8, 0), 12000, "525.60"),
    ((8, 1), 12010, "530.30"),
    ((8, 2), 12020, "535.54"),
    ((8, 3), 12030, "545.23"),
    ((8, 4), 12040, "550.54"),
    ((8, 5), 12050, "555.42"),
    ((8, 6), 12070, "565.57"),
    ((8, 7), 12080, "570.26"),
    ((8, 8), 12090, "575.51"),
    ((9, 0), 13000, "580.65"),
];

/// Checks that a driver of that version of CUDA knows the PTX of a module.
pub(super) fn check_version(ptx: &str, driver: u32) -> Result<()> {
    let version = ptx_version(ptx).ok_or_else(|| CudaError::Code { reason: "it has no PTX version".into() })?;
    let known = DRIVERS.iter().find(|(first, _, _)| *first >= version);
    match known {
        Some(&(_, needed, _)) if driver >= needed => Ok(()),
        Some(&(_, _, needed)) => Err(CudaError::DriverTooOld { ptx: version, needed, driver }),
        None => Err(CudaError::DriverTooOld { ptx: version, needed: "of that version", driver }),
    }
}

fn ptx_version(ptx: &str) -> Option<(u32, u32)> {
    let line = ptx.lines().find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A device with its primary context, current on the calling thread.
#[derive(Debug)]
pub(super) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
    pub name: String,
    /// 80 for 8.0.
    pub capability: u32,
    /// Version of CUDA that the driver supports.
    pub driver: u32,
}

impl Context {
    pub fn open(number: u32) -> Result<Self> {
        // SAFETY: looks for a library, nothing else.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let count = match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
            initialised => {
                initialised.doing("starting the driver")?;
                result::device::get_count().doing("counting devices")? as u32
            }
        };
        if number >= count {
            return Err(CudaError::NoDevice { wanted: number, count });
        }
        let device = result::device::get(number as c_int).doing("opening the device")?;
        let attribute = |attribute| {
            // SAFETY: the device exists.
            unsafe { result::device::get_attribute(device, attribute) }.doing("asking for the device's capability")
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
        let mut driver = 0;
        // SAFETY: writes the number.
        unsafe { sys::cuDriverGetVersion(&mut driver) }.result().doing("asking for the driver's version")?;
        let name = result::device::get_name(device).doing("asking for the device's name")?;
        // SAFETY: the device exists; released on drop.
        let raw = unsafe { result::primary_ctx::retain(device) }.doing("opening the device")?;
        let context = Self { device, raw, name, capability: 10 * major + minor, driver: driver as u32 };
        context.enter()?;
        Ok(context)
    }

    /// Makes the context current on this thread.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: retained until drop.
        unsafe { result::ctx::set_current(self.raw) }.doing("using the device")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `open`. Errors of a lost device have been reported before.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A stream, or an event, of the current context.
#[derive(Debug)]
pub(super) struct Stream(pub sys::CUstream);

impl Stream {
    pub fn new() -> Result<Self> {
        result::stream::create(StreamKind::NonBlocking).doing("making a stream").map(Self)
    }

    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.0) }.doing("waiting for the launches of a step")
    }

    /// What is enqueued from here on waits for what `other` has been given so far.
    pub fn after(&self, other: &Stream, event: &Event) -> Result<()> {
        event.record(other)?;
        self.wait_for(event)
    }

    /// What is enqueued from here on waits for what the event was recorded behind; for nothing if it never was.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        // SAFETY: both live.
        unsafe { result::stream::wait_event(self.0, event.0, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
            .doing("waiting for an event")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

#[derive(Debug)]
pub(super) struct Event(sys::CUevent);

impl Event {
    pub fn new() -> Result<Self> {
        result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).doing("making an event").map(Self)
    }

    /// Marks what a stream has been given so far.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        unsafe { result::event::record(self.0, stream.0) }.doing("recording an event")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

/// Device memory.
#[derive(Debug)]
pub(super) struct Memory(pub sys::CUdeviceptr);

impl Memory {
    /// Zeroed memory.
    pub fn new(context: &Context, bytes: u64, stream: &Stream) -> Result<Self> {
        let (free, total) = result::mem_get_info().doing("asking for free memory")?;
        let refused =
            || CudaError::Memory { device: context.name.clone(), bytes, free: free as u64, total: total as u64 };
        let size = usize::try_from(bytes).map_err(|_| refused())?;
        // SAFETY: owned from here on, freed on drop.
        let memory = match unsafe { result::malloc_sync(size.max(1)) } {
            Ok(pointer) => Memory(pointer),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => return Err(refused()),
            Err(error) => return Err(error).doing("allocating the arena"),
        };
        // SAFETY: just allocated, of that size.
        unsafe { result::memset_d8_async(memory.0, 0, size, stream.0) }.doing("clearing the arena")?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once.
        let _ = unsafe { result::free_sync(self.0) };
    }
}

/// Host memory that the device copies from while the processor goes on.
#[derive(Debug)]
pub(super) struct Pinned {
    pointer: *mut u8,
    bytes: usize,
}

impl Pinned {
    pub fn new(bytes: usize) -> Result<Self> {
        // SAFETY: owned from here on, freed on drop; cleared before anything reads it.
        unsafe {
            let pointer: *mut u8 = result::malloc_host(bytes.max(1), 0).doing("allocating staging memory")?.cast();
            pointer.write_bytes(0, bytes.max(1));
            Ok(Self { pointer, bytes })
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn slice_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(offset + bytes <= self.bytes, "staging memory is handed out within its size");
        // SAFETY: in bounds, initialised, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(offset), bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once.
        let _ = unsafe { result::free_host(self.pointer.cast()) };
    }
}

/// A loaded module.
#[derive(Debug)]
pub(super) struct Module(sys::CUmodule);

impl Module {
    pub fn load(ptx: &str) -> Result<Self> {
        let image = CString::new(ptx).map_err(|_| CudaError::Code { reason: "it is no text".into() })?;
        // SAFETY: a nul-terminated text, which the driver copies.
        let loaded = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) };
        loaded.map(Self).map_err(|error| CudaError::Code { reason: reason(error) })
    }

    /// An entry, allowed the shared memory that its launches will ask for.
    pub fn function(&self, name: &str, shared_bytes: u32) -> Result<sys::CUfunction> {
        let symbol = CString::new(name).map_err(|_| CudaError::Code { reason: format!("`{name}` is no name") })?;
        // SAFETY: the module lives.
        let function = unsafe { result::module::get_function(self.0, symbol) }
            .map_err(|error| CudaError::Code { reason: format!("`{name}`: {}", reason(error)) })?;
        if shared_bytes > FREE_SHARED_BYTES {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as Limit;
            // SAFETY: the function was just found.
            unsafe { result::function::set_function_attribute(function, Limit, shared_bytes as i32) }
                .doing("reserving shared memory")?;
        }
        Ok(function)
    }
}

/// Shared memory that a launch may ask for without further ado.
const FREE_SHARED_BYTES: u32 = 48 * 1024;

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded by `load`, unloaded once.
        let _ = unsafe { result::module::unload(self.0) };
    }
}

/// Launches that the device executes as one.
#[derive(Debug)]
pub(super) struct Graph(sys::CUgraphExec);

impl Graph {
    /// Records what `enqueue` gives to the stream.
    pub fn capture(stream: &Stream, enqueue: impl FnOnce() -> Result<()>) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives; the graph is destroyed once it is instantiated.
        unsafe {
            result::stream::begin_capture(stream.0, mode).doing("recording the launches")?;
            let enqueued = enqueue();
            let graph = result::stream::end_capture(stream.0).doing("recording the launches")?;
            enqueued?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable.doing("preparing the launches").map(Self)
        }
    }

    pub fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both live.
        unsafe { result::graph::launch(self.0, stream.0) }.doing("launching a step")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated by `capture`, destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_version_is_checked_against_the_codes() {
        let ptx = |version: &str| format!("//\n.version {version}\n.target sm_80\n");
        assert_eq!(check_version(&ptx("8.0"), 12000), Ok(()));
        assert_eq!(check_version(&ptx("7.8"), 12040), Ok(()));
        let error = check_version(&ptx("8.6"), 12040).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the program's code is PTX 8.6, which needs NVIDIA driver 565.57 or newer; this driver supports CUDA 12.4"
        );
        assert!(check_version("no version", 12040).is_err());
    }
}
