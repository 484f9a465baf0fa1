//! Objects behind the opaque pointers of the API.

use std::collections::BTreeMap;

use crate::status::Status;

/// Objects by handle. Handles are small numbers, never real addresses, and are not reused.
#[derive(Debug)]
pub struct Handles<T> {
    map: BTreeMap<usize, T>,
    next: usize,
}

impl<T> Handles<T> {
    /// Empty; `base` keeps handles of different kinds apart.
    pub fn new(base: usize) -> Handles<T> {
        Handles { map: BTreeMap::new(), next: base + 1 }
    }

    /// Stores an object under a new handle.
    pub fn insert(&mut self, value: T) -> usize {
        let handle = self.next;
        self.next += 1;
        self.map.insert(handle, value);
        handle
    }

    /// Stores an object under a given handle.
    pub fn insert_at(&mut self, handle: usize, value: T) {
        self.map.insert(handle, value);
    }

    /// The object of a handle.
    pub fn get(&self, handle: usize) -> Result<&T, Status> {
        self.map.get(&handle).ok_or(Status::InvalidHandle)
    }

    /// The object of a handle, to change.
    pub fn get_mut(&mut self, handle: usize) -> Result<&mut T, Status> {
        self.map.get_mut(&handle).ok_or(Status::InvalidHandle)
    }

    /// Takes an object out.
    pub fn remove(&mut self, handle: usize) -> Result<T, Status> {
        self.map.remove(&handle).ok_or(Status::InvalidHandle)
    }

    /// All handles in order.
    pub fn handles(&self) -> Vec<usize> {
        self.map.keys().copied().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.map.len()
    }
}
