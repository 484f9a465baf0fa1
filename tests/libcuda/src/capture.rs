//! Stream capture and its rules (CUDA driver API, "Stream Management" and the programming guide's chapter on graphs).

use std::sync::Arc;
use std::thread::ThreadId;

use crate::driver::Driver;
use crate::status::Status;
use crate::stream::{Graph, Work};

/// A capture in progress.
#[derive(Debug)]
pub struct Capture {
    /// The stream in which it began.
    origin: usize,
    nodes: Vec<Work>,
    /// A rule was broken: no graph will come of it.
    invalid: bool,
    /// 0: global, 1: thread local, 2: relaxed.
    mode: u32,
    thread: ThreadId,
    /// Other streams that take part, with the position up to which the capture has waited for them.
    forks: Vec<(usize, Option<usize>)>,
}

impl Driver {
    pub fn begin_capture(&mut self, stream: usize, mode: u32) -> Result<(), Status> {
        if stream == 0 {
            return self.refuse(
                "cuStreamBeginCapture",
                Status::CaptureUnsupported,
                "the legacy stream cannot be captured",
            );
        }
        if self.streams.get(stream)?.capture.is_some() {
            return self.refuse("cuStreamBeginCapture", Status::InvalidValue, "the stream is capturing already");
        }
        let thread = std::thread::current().id();
        let capture = Capture { origin: stream, nodes: vec![], invalid: false, mode, thread, forks: vec![] };
        let capture = self.captures.insert(capture);
        self.join(stream, capture)
    }

    fn join(&mut self, stream: usize, capture: usize) -> Result<(), Status> {
        let stream = self.streams.get_mut(stream)?;
        stream.capture = Some(capture);
        stream.captured = 0;
        Ok(())
    }

    pub fn end_capture(&mut self, stream: usize) -> Result<Arc<Graph>, Status> {
        let Some(id) = self.streams.get(stream)?.capture else {
            return self.refuse("cuStreamEndCapture", Status::InvalidValue, "the stream is not capturing");
        };
        if self.captures.get(id)?.origin != stream {
            self.captures.get_mut(id)?.invalid = true;
            return self.refuse("cuStreamEndCapture", Status::CaptureUnmatched, "the capture began in another stream");
        }
        let capture = self.captures.remove(id)?;
        let mut unjoined = false;
        for (fork, joined) in &capture.forks {
            if let Ok(fork) = self.streams.get_mut(*fork) {
                unjoined |= *joined != Some(fork.captured);
                fork.capture = None;
            }
        }
        self.streams.get_mut(stream)?.capture = None;
        if capture.invalid {
            return Err(Status::CaptureInvalidated);
        }
        if unjoined {
            let reason = "work in another captured stream is not waited for by the stream in which the capture began";
            return self.refuse("cuStreamEndCapture", Status::CaptureUnjoined, reason);
        }
        Ok(Arc::new(Graph { nodes: capture.nodes }))
    }

    /// 0: not capturing, 1: capturing, 2: a rule was broken.
    pub fn capture_status(&self, stream: usize) -> Result<u32, Status> {
        Ok(match self.streams.get(stream)?.capture {
            None => 0,
            Some(capture) => 1 + u32::from(self.captures.get(capture)?.invalid),
        })
    }

    pub fn capture_work(&mut self, id: usize, stream: usize, work: Work) -> Result<(), Status> {
        let capture = self.captures.get_mut(id)?;
        if capture.invalid {
            return Err(Status::CaptureInvalidated);
        }
        match work {
            Work::Record { event, .. } => {
                let position = self.streams.get(stream)?.captured;
                self.events.get_mut(event)?.captured = Some((id, stream, position));
            }
            Work::Wait { event, .. } => return self.capture_wait(id, stream, event),
            Work::Free { .. } => return self.break_capture(id, "cuMemFreeAsync", "memory is freed during a capture"),
            Work::Graph(graph) => {
                capture.nodes.extend(graph.nodes.iter().cloned());
                self.streams.get_mut(stream)?.captured += 1;
            }
            work => {
                capture.nodes.push(work);
                self.streams.get_mut(stream)?.captured += 1;
            }
        }
        Ok(())
    }

    fn capture_wait(&mut self, id: usize, stream: usize, event: usize) -> Result<(), Status> {
        match self.events.get(event)?.captured {
            Some((capture, from, position)) if capture == id => {
                let capture = self.captures.get_mut(id)?;
                if let Some((_, joined)) = capture.forks.iter_mut().find(|(fork, _)| *fork == from) {
                    *joined = Some(position);
                }
                // Waiting is work: a stream that only waited must be joined, too.
                self.streams.get_mut(stream)?.captured += 1;
                Ok(())
            }
            Some(_) => {
                self.break_capture_with(id, Status::CaptureMerge, "cuStreamWaitEvent", "two captures would merge")
            }
            None => {
                let reason = "a capturing stream waits for an event that was recorded outside the capture";
                self.break_capture_with(id, Status::CaptureIsolation, "cuStreamWaitEvent", reason)
            }
        }
    }

    /// A stream outside any capture waits for a captured event: it takes part from now on.
    pub fn wait_for_captured(&mut self, stream: usize, event: usize) -> Result<bool, Status> {
        let Some((id, from, position)) = self.events.get(event)?.captured else { return Ok(false) };
        if self.streams.get(stream)?.capture.is_some() || self.captures.get(id).is_err() {
            return Ok(false);
        }
        if stream == 0 {
            return self.break_capture_with(
                id,
                Status::CaptureImplicit,
                "cuStreamWaitEvent",
                "the legacy stream waits",
            );
        }
        self.join(stream, id)?;
        let capture = self.captures.get_mut(id)?;
        if let Some((_, joined)) = capture.forks.iter_mut().find(|(fork, _)| *fork == from) {
            *joined = Some(position);
        }
        capture.forks.push((stream, None));
        Ok(true)
    }

    fn break_capture<T>(&mut self, id: usize, call: &str, reason: &str) -> Result<T, Status> {
        self.break_capture_with(id, Status::CaptureUnsupported, call, reason)
    }

    fn break_capture_with<T>(&mut self, id: usize, status: Status, call: &str, reason: &str) -> Result<T, Status> {
        self.captures.get_mut(id)?.invalid = true;
        self.refuse(call, status, reason)
    }

    /// Calls that synchronise or allocate are not allowed while a capture that is not relaxed is in progress.
    pub fn forbid_in_capture(&mut self, call: &str) -> Result<(), Status> {
        let here = std::thread::current().id();
        for id in self.captures.handles() {
            let capture = self.captures.get(id)?;
            let affected = capture.mode == 0 || (capture.mode == 1 && capture.thread == here);
            if affected && !capture.invalid {
                return self.break_capture(id, call, "this call is not allowed while a stream is capturing");
            }
        }
        Ok(())
    }

    /// Synchronising with a capturing stream is never allowed.
    pub fn forbid_if_capturing(&mut self, call: &str, stream: usize) -> Result<(), Status> {
        match self.streams.get(stream)?.capture {
            Some(id) => self.break_capture(id, call, "the stream is capturing and cannot be waited for"),
            None => Ok(()),
        }
    }

    /// The legacy stream waits for all blocking streams, so none of them may be capturing.
    pub fn forbid_legacy_stream(&mut self, call: &str) -> Result<(), Status> {
        for handle in self.streams.handles() {
            let stream = self.streams.get(handle)?;
            if let (Some(id), false) = (stream.capture, stream.non_blocking) {
                let reason = "work in the legacy stream would wait for a blocking stream that is capturing";
                return self.break_capture_with(id, Status::CaptureImplicit, call, reason);
            }
        }
        Ok(())
    }
}
