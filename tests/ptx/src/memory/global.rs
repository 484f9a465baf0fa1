//! Allocations of device memory. Addresses are never reused and lie far apart, so that a wild access hits nothing.

use super::validity::Validity;
use super::{AccessError, GLOBAL_BASE};

/// Alignment of allocations, as the driver promises.
const ALIGNMENT: u64 = 256;
/// Unmapped bytes after each allocation.
const GAP: u64 = 1 << 20;

#[derive(Debug)]
struct Allocation {
    base: u64,
    bytes: usize,
    data: Vec<u8>,
    valid: Validity,
    label: String,
    freed: bool,
    read_only: bool,
}

impl Allocation {
    fn describe(&self) -> String {
        let freed = if self.freed { ", freed" } else { "" };
        format!("{} ({} bytes at {:#x}{freed})", self.label, self.bytes, self.base)
    }
}

/// All device memory of a context.
#[derive(Debug)]
pub struct GlobalMemory {
    allocations: Vec<Allocation>,
    next: u64,
    used: u64,
    peak: u64,
    capacity: u64,
}

/// An allocation that is still alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// First address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: usize,
    /// Name in messages.
    pub label: String,
}

impl GlobalMemory {
    /// Memory of `capacity` bytes.
    pub fn new(capacity: u64) -> GlobalMemory {
        GlobalMemory { allocations: Vec::new(), next: GLOBAL_BASE, used: 0, peak: 0, capacity }
    }

    /// Bytes in all, in use, and in use at most so far.
    pub fn usage(&self) -> [u64; 3] {
        [self.capacity, self.used, self.peak]
    }

    /// Reserves memory; `None` if the capacity does not suffice.
    pub fn allocate(&mut self, bytes: usize, label: Option<&str>) -> Option<u64> {
        let rounded = (bytes as u64).checked_next_multiple_of(ALIGNMENT)?;
        let used = self.used.checked_add(rounded).filter(|used| *used <= self.capacity)?;
        let base = self.next;
        self.next += rounded + GAP;
        self.used = used;
        self.peak = self.peak.max(used);
        let label = label.map_or_else(|| format!("allocation {}", self.allocations.len()), str::to_owned);
        let data = vec![0; bytes];
        let valid = Validity::new(bytes);
        self.allocations.push(Allocation { base, bytes, data, valid, label, freed: false, read_only: false });
        Some(base)
    }

    /// Makes an allocation read-only for kernels.
    pub fn protect(&mut self, address: u64) {
        if let Ok((index, 0)) = self.find(address, 0, &mut 0) {
            self.allocations[index].read_only = true;
        }
    }

    /// Frees what starts at `address`; the message says what is wrong if nothing does.
    pub fn free(&mut self, address: u64) -> Result<(), String> {
        let found = self.allocations.iter_mut().find(|allocation| allocation.base == address);
        match found {
            Some(allocation) if !allocation.freed => {
                allocation.freed = true;
                allocation.data = Vec::new();
                allocation.valid = Validity::default();
                self.used -= (allocation.bytes as u64).next_multiple_of(ALIGNMENT);
                Ok(())
            }
            Some(allocation) => Err(format!("{} is freed twice", allocation.describe())),
            None => Err(format!("{address:#x} is not the start of an allocation")),
        }
    }

    /// Allocations that were not freed.
    pub fn live(&self) -> Vec<Live> {
        let live = self.allocations.iter().filter(|allocation| !allocation.freed);
        live.map(|a| Live { address: a.base, bytes: a.bytes, label: a.label.clone() }).collect()
    }

    /// The allocation that holds an address and the offset in it. `hint` remembers the last answer.
    #[inline]
    fn find(&self, address: u64, bytes: usize, hint: &mut usize) -> Result<(usize, usize), AccessError> {
        if let Some(allocation) = self.allocations.get(*hint) {
            let offset = address.wrapping_sub(allocation.base);
            if offset.saturating_add(bytes as u64) <= allocation.data.len() as u64 {
                return Ok((*hint, offset as usize));
            }
        }
        self.search(address, bytes, hint)
    }

    fn search(&self, address: u64, bytes: usize, hint: &mut usize) -> Result<(usize, usize), AccessError> {
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        let Some(index) = after.checked_sub(1) else {
            return Err(AccessError::OutOfBounds(self.describe_outside(address)));
        };
        let allocation = &self.allocations[index];
        let offset = address - allocation.base;
        if allocation.freed && offset < allocation.bytes as u64 {
            return Err(AccessError::OutOfBounds(format!("inside {}", allocation.describe())));
        }
        if offset.saturating_add(bytes as u64) > allocation.data.len() as u64 {
            return Err(AccessError::OutOfBounds(self.describe_outside(address)));
        }
        *hint = index;
        Ok((index, offset as usize))
    }

    fn describe_outside(&self, address: u64) -> String {
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        let below = after.checked_sub(1).map(|index| &self.allocations[index]);
        match (below, self.allocations.get(after)) {
            (Some(below), _) if address - below.base < below.bytes as u64 + GAP / 2 => {
                let offset = address - below.base;
                format!("offset {offset} of {}", below.describe())
            }
            (_, Some(above)) if above.base - address <= GAP => {
                format!("{} bytes before {}", above.base - address, above.describe())
            }
            _ => "not near any allocation".to_owned(),
        }
    }

    /// Reads for a kernel: bounds and validity are checked.
    #[inline]
    pub fn load(&self, address: u64, bytes: usize, hint: &mut usize) -> Result<&[u8], AccessError> {
        let (index, offset) = self.find(address, bytes, hint)?;
        let allocation = &self.allocations[index];
        if let Some(first) = allocation.valid.first_invalid(offset, bytes) {
            let message = format!("byte {first} of {} was never written", allocation.describe());
            return Err(AccessError::Uninitialised(message));
        }
        Ok(&allocation.data[offset..offset + bytes])
    }

    /// Gives a kernel bytes to write: bounds are checked.
    #[inline]
    pub fn store(&mut self, address: u64, bytes: usize, hint: &mut usize) -> Result<&mut [u8], AccessError> {
        let (index, offset) = self.find(address, bytes, hint)?;
        let allocation = &mut self.allocations[index];
        if allocation.read_only {
            return Err(AccessError::ReadOnly(allocation.describe()));
        }
        allocation.valid.set(offset, bytes);
        Ok(&mut allocation.data[offset..offset + bytes])
    }

    /// Writes from the host.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let (index, offset) = self.find(address, bytes.len(), &mut 0)?;
        let allocation = &mut self.allocations[index];
        allocation.data[offset..offset + bytes.len()].copy_from_slice(bytes);
        allocation.valid.set(offset, bytes.len());
        Ok(())
    }

    /// Reads from the host; bytes that were never written come as zero.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        let (index, offset) = self.find(address, bytes.len(), &mut 0)?;
        bytes.copy_from_slice(&self.allocations[index].data[offset..offset + bytes.len()]);
        Ok(())
    }

    /// Sets bytes from the host.
    pub fn fill(&mut self, address: u64, value: u8, bytes: usize) -> Result<(), AccessError> {
        let (index, offset) = self.find(address, bytes, &mut 0)?;
        let allocation = &mut self.allocations[index];
        allocation.data[offset..offset + bytes].fill(value);
        allocation.valid.set(offset, bytes);
        Ok(())
    }

    /// Copies inside device memory; what was never written stays so.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), AccessError> {
        let (source, start) = self.find(from, bytes, &mut 0)?;
        let (target, offset) = self.find(to, bytes, &mut 0)?;
        let data = self.allocations[source].data[start..start + bytes].to_vec();
        let valid: Vec<bool> = (start..start + bytes).map(|at| self.allocations[source].valid.is_valid(at)).collect();
        let allocation = &mut self.allocations[target];
        allocation.data[offset..offset + bytes].copy_from_slice(&data);
        allocation.valid.set(offset, bytes);
        for at in valid.iter().enumerate().filter(|(_, valid)| !**valid).map(|(at, _)| at) {
            allocation.valid.clear(offset + at, 1);
        }
        Ok(())
    }
}
