//! Streams: queues of work that is done when something waits for it.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;

use trainc_ptx::{Geometry, Kernel, Loaded, exec};

use crate::driver::Driver;
use crate::status::{Status, of_launch};

/// Queued work beyond which a stream starts to run.
const MOST_QUEUED: usize = 4096;

/// A function of the host in a stream.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

/// Bytes on the host that are copied to the device.
#[derive(Debug, Clone)]
pub enum Source {
    /// Pageable memory is read when the copy is asked for.
    Copied(Arc<[u8]>),
    /// Page-locked memory, and any memory in a graph, is read when the copy runs.
    Address(usize),
}

/// A piece of work in a stream or a graph.
#[derive(Debug, Clone)]
pub enum Work {
    Launch {
        kernel: Arc<Kernel>,
        loaded: Loaded,
        geometry: Geometry,
        params: Arc<[u8]>,
    },
    Upload {
        to: u64,
        source: Source,
        bytes: usize,
    },
    Download {
        to: usize,
        from: u64,
        bytes: usize,
    },
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    /// Repeats a pattern of 1, 2 or 4 bytes.
    Fill {
        to: u64,
        pattern: [u8; 4],
        width: usize,
        bytes: usize,
    },
    Free {
        address: u64,
    },
    Host {
        function: HostFunction,
        data: usize,
    },
    Record {
        event: usize,
        version: u64,
    },
    Wait {
        event: usize,
        version: u64,
    },
    Graph(Arc<Graph>),
}

/// Captured work, in an order that respects its dependencies.
#[derive(Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Work>,
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub queue: VecDeque<Work>,
    /// Created with `CU_STREAM_NON_BLOCKING`.
    pub non_blocking: bool,
    /// The capture that it takes part in.
    pub capture: Option<usize>,
    /// Pieces of work in that capture.
    pub captured: usize,
}

impl Driver {
    /// Puts work into a stream, or into the graph that the stream captures.
    pub fn submit(&mut self, call: &str, stream: usize, work: Work) -> Result<(), Status> {
        if let Some(capture) = self.streams.get(stream)?.capture {
            return self.capture_work(capture, stream, work);
        }
        if stream == 0 {
            self.forbid_legacy_stream(call)?;
        }
        let queue = &mut self.streams.get_mut(stream)?.queue;
        queue.push_back(work);
        if queue.len() > MOST_QUEUED { self.run_stream(stream) } else { Ok(()) }
    }

    /// Does all work of a stream.
    pub fn run_stream(&mut self, stream: usize) -> Result<(), Status> {
        while let Some(work) = self.streams.get_mut(stream)?.queue.pop_front() {
            self.run(&work)?;
        }
        Ok(())
    }

    /// Does all work of all streams.
    pub fn run_everything(&mut self) -> Result<(), Status> {
        self.streams.handles().into_iter().try_for_each(|stream| self.run_stream(stream))
    }

    /// Does what a version of an event waits for.
    pub fn run_until(&mut self, event: usize, version: u64) -> Result<(), Status> {
        loop {
            let Some(&stream) = self.events.get(event)?.pending.get(&version) else { return Ok(()) };
            match self.streams.get_mut(stream)?.queue.pop_front() {
                Some(work) => self.run(&work)?,
                None => return Ok(()),
            }
        }
    }

    /// One step of a stream that somebody polls; whether it has nothing left.
    pub fn poll(&mut self, stream: usize) -> Result<bool, Status> {
        if let Some(work) = self.streams.get_mut(stream)?.queue.pop_front() {
            self.run(&work)?;
        }
        Ok(self.streams.get(stream)?.queue.is_empty())
    }

    /// An error in queued work breaks the context, as on a device.
    fn run(&mut self, work: &Work) -> Result<(), Status> {
        let result = self.execute(work);
        if let Err(status) = result {
            self.broken = Some(status);
        }
        result
    }

    fn execute(&mut self, work: &Work) -> Result<(), Status> {
        match work {
            Work::Launch { kernel, loaded, geometry, params } => self.execute_launch(kernel, loaded, *geometry, params),
            Work::Upload { to, source: Source::Copied(bytes), .. } => {
                self.device_result("a copy to the device", |driver| driver.device.memory.write(*to, bytes))
            }
            Work::Upload { to, source: Source::Address(from), bytes } => {
                // SAFETY: the API obliges the caller to keep this memory until the copy is done.
                let source = unsafe { std::slice::from_raw_parts(*from as *const u8, *bytes) };
                self.device_result("a copy to the device", |driver| driver.device.memory.write(*to, source))
            }
            Work::Download { to, from, bytes } => {
                // SAFETY: the API obliges the caller to keep this memory until the copy is done.
                let target = unsafe { std::slice::from_raw_parts_mut(*to as *mut u8, *bytes) };
                self.device_result("a copy from the device", |driver| driver.device.memory.read(*from, target))
            }
            Work::Copy { to, from, bytes } => {
                self.device_result("a copy on the device", |driver| driver.device.memory.copy(*to, *from, *bytes))
            }
            Work::Fill { to, pattern, width, bytes } => self.fill(*to, &pattern[..*width], *bytes),
            Work::Free { address } => match self.device.memory.free(*address) {
                Ok(()) => Ok(()),
                Err(text) => self.refuse("cuMemFreeAsync", Status::InvalidValue, &text),
            },
            Work::Host { function, data } => {
                // SAFETY: the caller of cuLaunchHostFunc vouches for the function and its argument.
                unsafe { function(*data as *mut c_void) };
                Ok(())
            }
            Work::Record { event, version } => {
                if let Ok(event) = self.events.get_mut(*event) {
                    event.happened(*version);
                }
                Ok(())
            }
            // An event that was destroyed meanwhile has been completed by its destruction.
            Work::Wait { event, version } => self.run_until(*event, *version).or(Ok(())),
            Work::Graph(graph) => graph.nodes.iter().try_for_each(|node| self.execute(node)),
        }
    }

    fn fill(&mut self, to: u64, pattern: &[u8], bytes: usize) -> Result<(), Status> {
        self.device_result("a memset", |driver| match pattern {
            [value] => driver.device.memory.fill(to, *value, bytes),
            _ => driver.device.memory.write(to, &pattern.repeat(bytes / pattern.len())),
        })
    }

    fn device_result(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Driver) -> Result<(), trainc_ptx::memory::AccessError>,
    ) -> Result<(), Status> {
        match work(self) {
            Ok(()) => Ok(()),
            Err(error) => {
                let (kind, detail) = exec::violation::explain(error);
                self.refuse(what, Status::IllegalAddress, &format!("{}: {detail}", kind.name()))
            }
        }
    }

    fn execute_launch(
        &mut self,
        kernel: &Kernel,
        loaded: &Loaded,
        geometry: Geometry,
        params: &[u8],
    ) -> Result<(), Status> {
        if self.config.lose_after.is_some_and(|most| self.launches >= most) {
            return self.refuse("a launch", Status::Unknown, "the device is lost (as the environment asked)");
        }
        self.launches += 1;
        let device = &mut self.device;
        let report = exec::launch(kernel, geometry, params, &loaded.variables, &mut device.memory, &device.options);
        report.violations.iter().for_each(|violation| self.report.violation(violation));
        self.report.launch(&kernel.name, geometry, &report.counters);
        of_launch(&report).map_or(Ok(()), Err)
    }
}
