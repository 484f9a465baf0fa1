//! The state of the driver, and how calls reach it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use trainc_ptx::{Device, Kernel, Loaded};

use crate::capture::Capture;
use crate::config::Config;
use crate::handles::Handles;
use crate::report::Reporter;
use crate::status::Status;
use crate::stream::{Graph, Stream};

/// Shared memory that a kernel may use without asking (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`).
pub const DEFAULT_DYNAMIC_SHARED: u64 = 48 << 10;
/// The only context.
pub const CONTEXT: usize = 0xc0;

/// A kernel of a loaded module.
#[derive(Debug, Clone)]
pub struct Function {
    pub module: usize,
    pub kernel: Arc<Kernel>,
    pub max_dynamic_shared: u64,
}

/// A marker in a stream. Each record makes a new version; who waits, waits for the version that was the last one when it
/// asked, wherever later ones are recorded.
#[derive(Debug, Default)]
pub struct Event {
    pub recorded: u64,
    /// Versions whose streams have not come to them, with those streams.
    pub pending: BTreeMap<u64, usize>,
    /// When the last version happened.
    pub time: Option<Instant>,
    /// Capture, stream and its position, if it was last recorded in a capture.
    pub captured: Option<(usize, usize, usize)>,
}

impl Event {
    /// A new version, in a stream; returns its number.
    pub fn record(&mut self, stream: usize) -> u64 {
        self.recorded += 1;
        self.captured = None;
        self.pending.insert(self.recorded, stream);
        self.recorded
    }

    /// The stream of a version has come to it.
    pub fn happened(&mut self, version: u64) {
        self.pending.remove(&version);
        if version == self.recorded {
            self.time = Some(Instant::now());
        }
    }

    /// The stream of the last version, unless that has happened.
    pub fn last_pending(&self) -> Option<usize> {
        self.pending.get(&self.recorded).copied()
    }
}

/// Everything.
#[derive(Debug)]
pub struct Driver {
    pub config: Config,
    pub report: Reporter,
    pub device: Device,
    pub modules: Handles<Loaded>,
    pub functions: Handles<Function>,
    pub streams: Handles<Stream>,
    pub events: Handles<Event>,
    pub graphs: Handles<Arc<Graph>>,
    pub executables: Handles<Arc<Graph>>,
    pub captures: Handles<Capture>,
    /// Page-locked host memory: address to size.
    pub pinned: BTreeMap<usize, usize>,
    /// An error after which every call fails.
    pub broken: Option<Status>,
    pub context_uses: usize,
    pub launches: u64,
}

impl Driver {
    fn new() -> Driver {
        let config = Config::from_environment();
        let mut device = Device::new(config.options.clone());
        device.memory = trainc_ptx::memory::global::GlobalMemory::new(config.memory);
        let mut streams = Handles::new(0x1000);
        streams.insert_at(0, Stream::default());
        Driver {
            report: Reporter::new(&config),
            config,
            device,
            modules: Handles::new(0x2000),
            functions: Handles::new(0x10_0000),
            streams,
            events: Handles::new(0x1000_0000),
            graphs: Handles::new(0x4000),
            executables: Handles::new(0x6000),
            captures: Handles::new(0),
            pinned: BTreeMap::new(),
            broken: None,
            context_uses: 0,
            launches: 0,
        }
    }

    /// Refuses a call with a reason in the report.
    pub fn refuse<T>(&mut self, call: &str, status: Status, reason: &str) -> Result<T, Status> {
        self.report.host(call, reason);
        Err(status)
    }

    /// Whether host memory is page-locked, so that copies may touch it later.
    pub fn is_pinned(&self, address: usize, bytes: usize) -> bool {
        let below = self.pinned.range(..=address).next_back();
        below.is_some_and(|(start, size)| address + bytes <= start + size)
    }

    /// The last user of the context leaves: what is alive now leaks.
    pub fn release(&mut self) {
        let live = self.device.memory.live();
        let variables: Vec<u64> = self.modules.handles().iter().flat_map(|handle| self.variables(*handle)).collect();
        let own: Vec<_> = live.iter().filter(|block| !variables.contains(&block.address)).collect();
        let bytes = own.iter().map(|block| block.bytes as u64).sum();
        let leaks = [
            ("allocations", own.len(), bytes),
            ("streams", self.streams.len() - 1, 0),
            ("events", self.events.len(), 0),
            ("graphs", self.graphs.len() + self.executables.len(), 0),
            ("modules", self.modules.len(), 0),
            ("pinned allocations", self.pinned.len(), self.pinned.values().map(|size| *size as u64).sum()),
        ];
        for (what, count, bytes) in leaks.into_iter().filter(|(_, count, _)| *count > 0) {
            self.report.leak(what, count, bytes);
        }
    }

    fn variables(&self, module: usize) -> Vec<u64> {
        self.modules.get(module).map_or(Vec::new(), |loaded| loaded.variables.to_vec())
    }
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

/// Starts the driver if it is not running.
pub fn initialise() -> Status {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = driver.get_or_insert_with(Driver::new);
    if driver.config.devices > 0 { Status::Success } else { Status::NoDevice }
}

/// Does a call on the running driver; an earlier error that broke the context is returned instead.
pub fn call(name: &str, work: impl FnOnce(&mut Driver) -> Result<(), Status>) -> u32 {
    let mut driver = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(driver) = driver.as_mut() else { return Status::NotInitialized as u32 };
    if let Some(status) = driver.broken {
        return status as u32;
    }
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| work(driver)));
    match result {
        Ok(Ok(())) => Status::Success as u32,
        Ok(Err(status)) => status as u32,
        Err(_) => {
            driver.report.host(name, "the emulator failed inside this call; this is a fault of the emulator");
            driver.broken = Some(Status::Unknown);
            Status::Unknown as u32
        }
    }
}
