//! The one block of memory that a program computes in.

use crate::memory::Mapping;
use std::io;

/// Zeroed memory of exactly the planned size, aligned to pages.
#[derive(Debug)]
pub struct Arena {
    memory: Mapping,
    bytes: u64,
}

impl Arena {
    /// Allocates `bytes`.
    ///
    /// # Errors
    /// When the system has not so much memory.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let size = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory: Mapping::new(size)?, bytes })
    }

    /// Planned size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// First byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// A stretch of the arena; offsets come from a verified manifest.
    pub fn slice(&self, offset: u64, bytes: u64) -> &[u8] {
        self.check(offset, bytes);
        // SAFETY: in bounds (just checked), initialised (zeroed), and no kernel runs while we are borrowed.
        unsafe { std::slice::from_raw_parts(self.as_ptr().add(offset as usize), bytes as usize) }
    }

    /// A writable stretch of the arena.
    pub fn slice_mut(&mut self, offset: u64, bytes: u64) -> &mut [u8] {
        self.check(offset, bytes);
        // SAFETY: as above, and we are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().add(offset as usize), bytes as usize) }
    }

    fn check(&self, offset: u64, bytes: u64) {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(inside, "bytes {offset}..+{bytes} lie in the arena of {} bytes", self.bytes);
    }
}
