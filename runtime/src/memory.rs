//! Anonymous memory from the operating system: the arena, scratch, and the pages that machine code lives on.

use std::io;
use std::ptr::NonNull;

/// Bytes per page of the address space; the granularity of [`Mapping`]s and of protection.
pub const PAGE_BYTES: usize = 4096;

/// From this size on, transparent huge pages are asked for: fewer TLB misses, and at most one page of waste.
const HUGE_PAGE_THRESHOLD: usize = 8 << 20;

/// Zeroed, private, page-aligned memory. Pages are taken from the system when first touched.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

/// What the processor may do with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Loads only.
    Read,
    /// Loads and instruction fetches.
    ReadExecute,
}

impl Mapping {
    /// Maps `bytes` (rounded up to whole pages, at least one) readable and writable.
    ///
    /// # Errors
    /// Whatever the system answers, usually that there is not so much memory.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = round_to_pages(bytes.max(1)).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh anonymous mapping at an address of the system's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes >= HUGE_PAGE_THRESHOLD {
            // SAFETY: advice about our own pages. Its failure only costs speed.
            unsafe { libc::madvise(address, bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { base, bytes })
    }

    /// First byte, aligned to [`PAGE_BYTES`].
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Size in bytes, whole pages.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never true: a mapping has at least one page.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes writing away from the pages `offset..offset + bytes` (multiples of the page size) for good.
    ///
    /// # Errors
    /// When the system refuses, e.g. because a policy forbids executable memory.
    pub fn protect(&mut self, offset: usize, bytes: usize, protection: Protection) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(PAGE_BYTES) && offset + bytes <= self.bytes,
            "protection of pages of this mapping"
        );
        let flags = match protection {
            Protection::Read => libc::PROT_READ,
            Protection::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        };
        // SAFETY: the range lies in this mapping, to which we hold the only reference.
        match unsafe { libc::mprotect(self.as_ptr().add(offset).cast(), bytes, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: a mapping is plain memory; who accesses it when is up to the owner of the raw pointer.
unsafe impl Send for Mapping {}
unsafe impl Sync for Mapping {}

/// `bytes` rounded up to whole pages; `None` on overflow.
pub fn round_to_pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}
