//! The next batch, on its way while a step runs.
//!
//! It is filled into pinned memory and copied to device memory of its own, on a stream of its own: neither waits for the step.
//! Behind the step a copy on the device puts it where the launches read.

use super::driver::{Context, CudaError, Doing, Event, Memory, Pinned, Stream};
use cudarc::driver::{result, sys};

/// Room for one batch, here and on the device.
pub(super) struct Ahead {
    pinned: Pinned,
    memory: Memory,
    /// The batch has come to the device.
    arrived: Event,
    /// It has been taken from there: the next one may come.
    taken: Event,
    stream: Stream,
}

impl Ahead {
    pub fn new(context: &Context, bytes: u64) -> Result<Self, CudaError> {
        let stream = Stream::new()?;
        let memory = Memory::new(context, bytes, &stream)?;
        let pinned = Pinned::new(bytes as usize)?;
        Ok(Self { pinned, memory, arrived: Event::new()?, taken: Event::new()?, stream })
    }

    /// Sends a batch, which `fill` writes here.
    ///
    /// # Errors
    /// When the device fails; `fill` decides about its own.
    pub fn send<E: From<CudaError>>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        // The batch before has left the pinned memory.
        self.stream.wait()?;
        let batch = self.pinned.slice_mut(0, self.pinned.bytes());
        fill(batch)?;
        self.stream.wait_for(&self.taken)?;
        // SAFETY: of equal sizes; the pinned memory is not touched before the stream has been waited for.
        unsafe { result::memcpy_htod_async(self.memory.0, batch, self.stream.0) }.doing("copying a batch ahead")?;
        Ok(self.arrived.record(&self.stream)?)
    }

    /// Puts the batch that was sent last, piece by piece (where to, bytes), where launches on that stream read it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take(&self, launches: &Stream, pieces: &[(sys::CUdeviceptr, u64)]) -> Result<(), CudaError> {
        launches.wait_for(&self.arrived)?;
        let mut from = self.memory.0;
        for &(to, bytes) in pieces {
            // SAFETY: the pieces of a batch are as long as the memory, and their targets lie in the arena.
            unsafe { result::memcpy_dtod_async(to, from, bytes as usize, launches.0) }.doing("placing a batch")?;
            from += bytes;
        }
        self.taken.record(launches)
    }
}
