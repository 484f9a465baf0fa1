//! What a run can do wrong, and where.

use std::fmt;

use crate::memory::AccessError;

/// Kinds of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum ViolationKind {
    OutOfBounds,
    Misaligned,
    Uninitialised,
    ReadOnly,
    Race,
    PendingCopy,
    DivergentBarrier,
    DivergentLanes,
    Deadlock,
    BadMetadata,
    BadShuffle,
    StackUse,
    Trap,
    Endless,
    BadLaunch,
}

impl ViolationKind {
    /// Short name, as in reports.
    pub fn name(self) -> &'static str {
        match self {
            ViolationKind::OutOfBounds => "out of bounds",
            ViolationKind::Misaligned => "misaligned",
            ViolationKind::Uninitialised => "uninitialised read",
            ViolationKind::ReadOnly => "write to read-only memory",
            ViolationKind::Race => "shared-memory race",
            ViolationKind::PendingCopy => "asynchronous copy not waited for",
            ViolationKind::DivergentBarrier => "divergent barrier",
            ViolationKind::DivergentLanes => "lanes missing",
            ViolationKind::Deadlock => "deadlock",
            ViolationKind::BadMetadata => "wrong sparsity metadata",
            ViolationKind::BadShuffle => "shuffle from an inactive lane",
            ViolationKind::StackUse => "bad use of an address space",
            ViolationKind::Trap => "trap",
            ViolationKind::Endless => "endless loop",
            ViolationKind::BadLaunch => "bad launch",
        }
    }
}

/// A violation with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind.
    pub kind: ViolationKind,
    /// Kernel.
    pub kernel: String,
    /// Line of the PTX text, 0 if it concerns the launch as a whole.
    pub line: u32,
    /// That line's text.
    pub instruction: String,
    /// Block.
    pub block: [u32; 3],
    /// Thread in the block.
    pub thread: [u32; 3],
    /// Address in its space, if the violation is an access.
    pub address: Option<u64>,
    /// Size of the access in bytes.
    pub bytes: usize,
    /// What is wrong in words.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: kernel `{}`", self.kind.name(), self.kernel)?;
        if self.line != 0 {
            let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
            write!(f, ", line {} `{}`", self.line, self.instruction)?;
            write!(f, ", block ({bx}, {by}, {bz}) thread ({tx}, {ty}, {tz})")?;
        }
        if let Some(address) = self.address {
            write!(f, ": {} bytes at {address:#x}", self.bytes)?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Kind and words of an access error.
pub fn explain(error: AccessError) -> (ViolationKind, String) {
    match error {
        AccessError::OutOfBounds(text) => (ViolationKind::OutOfBounds, text),
        AccessError::Misaligned => (ViolationKind::Misaligned, "not a multiple of the access's size".to_owned()),
        AccessError::Uninitialised(text) => (ViolationKind::Uninitialised, text),
        AccessError::ReadOnly(text) => (ViolationKind::ReadOnly, text),
        AccessError::Race(text) => (ViolationKind::Race, text),
        AccessError::PendingCopy(text) => (ViolationKind::PendingCopy, text),
    }
}
