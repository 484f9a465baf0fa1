//! A block's shared memory, with a happens-before race detector.
//!
//! Every warp has a vector clock; barriers join them (Lamport 1978; Mattern 1989). Each granule of memory remembers its last
//! write and its reads since, as FastTrack does (Flanagan and Freund, PLDI 2009). Lanes of one warp are ordered by
//! `bar.warp.sync` and block barriers only, as in the PTX memory model.

use super::AccessError;

/// Most warps of a block.
pub const MAX_WARPS: usize = 32;
/// Stands for more than one lane.
const SEVERAL: u8 = 255;
/// Stands for several warps that read at one clock.
const GROUP: u8 = 254;
/// Stands for several warps that read at different clocks, which are in a table.
const TABLE: u8 = 255;

/// Who accessed a granule, and when by that warp's clock.
#[derive(Debug, Clone, Copy, Default)]
struct Stamp {
    clock: u32,
    warp: u8,
    lane: u8,
    atomic: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    read: Stamp,
    /// The warps of a group of readers.
    readers: u32,
    /// Target of an asynchronous copy that was not waited for.
    pending: bool,
}

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    Atomic,
}

/// A lane of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// Warp in the block.
    pub warp: u8,
    /// Lane in the warp.
    pub lane: u8,
}

/// Shared memory of the block in progress; its shadow is reused from block to block.
#[derive(Debug)]
pub struct SharedMemory {
    data: Vec<u8>,
    cells: Vec<Cell>,
    granule_shift: u32,
    /// Clock at which the block started: older stamps belong to earlier blocks.
    start: u32,
    latest: u32,
    warps: usize,
    clocks: Box<[[u32; MAX_WARPS]; MAX_WARPS]>,
    /// For each warp, the clock up to which everything happened before whatever it does now.
    settled: [u32; MAX_WARPS],
    /// Clocks of granules that several warps read since they were written, and the unused places among them.
    readers: Vec<[u32; MAX_WARPS]>,
    unused: Vec<u32>,
}

impl SharedMemory {
    /// Memory of `bytes` for blocks of `warps` warps, checked in units of `granule` bytes (a power of two).
    pub fn new(bytes: usize, granule: usize, warps: usize) -> SharedMemory {
        let granule_shift = granule.trailing_zeros();
        SharedMemory {
            data: vec![0; bytes],
            cells: vec![Cell::default(); bytes.div_ceil(granule)],
            granule_shift,
            start: 0,
            latest: 0,
            warps,
            clocks: Box::new([[0; MAX_WARPS]; MAX_WARPS]),
            settled: [0; MAX_WARPS],
            readers: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// Forgets everything for the next block.
    pub fn begin_block(&mut self) {
        self.start = self.latest.max(self.start + self.readers.len() as u32) + 2;
        self.latest = self.start;
        self.readers.clear();
        self.unused.clear();
        for (warp, clocks) in self.clocks.iter_mut().enumerate() {
            clocks.fill(self.start - 1);
            clocks[warp] = self.start;
        }
        self.settled = [self.start - 1; MAX_WARPS];
    }

    fn settle(&mut self, warp: usize) {
        let clocks = &self.clocks[warp];
        let known = |other: usize| if other == warp { clocks[other] - 1 } else { clocks[other] };
        self.settled[warp] = (0..self.warps).map(known).min().unwrap_or(0);
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// What a warp knows of all clocks: what a barrier collects.
    pub fn knowledge(&self, warp: usize) -> [u32; MAX_WARPS] {
        self.clocks[warp]
    }

    /// Later accesses of a warp are later than everything it did so far.
    pub fn tick(&mut self, warp: usize) {
        self.clocks[warp][warp] += 1;
        self.latest = self.latest.max(self.clocks[warp][warp]);
        self.settle(warp);
    }

    /// A warp learns what others knew at a barrier. Its clock moves past all of theirs, so that warps that wait together go
    /// on with equal clocks, which lets their reads be remembered in groups.
    pub fn learn(&mut self, warp: usize, knowledge: &[u32; MAX_WARPS]) {
        for (known, new) in self.clocks[warp].iter_mut().zip(knowledge) {
            *known = (*known).max(*new);
        }
        let latest = knowledge.iter().copied().max().unwrap_or(0);
        self.clocks[warp][warp] = self.clocks[warp][warp].max(latest + 1);
        self.latest = self.latest.max(self.clocks[warp][warp]);
        self.settle(warp);
    }

    fn happened_before(&self, stamp: Stamp, readers: u32, who: Lane) -> bool {
        if stamp.clock < self.start {
            return true;
        }
        if stamp.warp == GROUP {
            let (clocks, own) = (self.clocks[who.warp as usize], 1 << who.warp);
            let known = |warp: usize| stamp.clock < clocks[warp] + u32::from(readers & (1 << warp) & !own != 0);
            return (0..self.warps).all(|warp| readers >> warp & 1 == 0 || known(warp));
        }
        if stamp.warp == TABLE {
            let own = self.clocks[who.warp as usize];
            let clocks = &self.readers[stamp.clock as usize - self.start as usize];
            return (0..MAX_WARPS).all(|warp| clocks[warp] < own[warp] + u32::from(warp != who.warp as usize));
        }
        let known = self.clocks[who.warp as usize][stamp.warp as usize];
        if stamp.warp == who.warp { stamp.lane == who.lane || stamp.clock < known } else { stamp.clock <= known }
    }

    fn range(&self, offset: u64, bytes: usize) -> Result<usize, AccessError> {
        if offset.saturating_add(bytes as u64) <= self.data.len() as u64 {
            return Ok(offset as usize);
        }
        let size = self.data.len();
        Err(AccessError::OutOfBounds(format!("offset {offset} of shared memory ({size} bytes)")))
    }

    /// Checks an access and remembers it; the offset is known to be aligned.
    pub fn access(&mut self, offset: u64, bytes: usize, who: Lane, access: Access) -> Result<&mut [u8], AccessError> {
        let start = self.range(offset, bytes)?;
        let first = start >> self.granule_shift;
        let last = (start + bytes - 1) >> self.granule_shift;
        let mut problem = None;
        for index in first..=last {
            if self.touch_quickly(index, who, access) {
                continue;
            }
            let found = self.touch(index, who, access);
            problem = problem.or(found.err());
        }
        match problem {
            Some(problem) => Err(problem),
            None => Ok(&mut self.data[start..start + bytes]),
        }
    }

    /// The access of a whole warp to one place, or to places in a row (`lanes` of them). `None` if something about it needs
    /// a closer look, lane by lane.
    pub fn access_together(
        &mut self,
        offset: u64,
        bytes: usize,
        lanes: std::ops::Range<u8>,
        warp: u8,
        access: Access,
    ) -> Option<&mut [u8]> {
        let same = lanes.len() == 1;
        let start = self.range(offset, bytes * lanes.len()).ok()?;
        let per_lane = (bytes >> self.granule_shift).max(1);
        let mut index = start >> self.granule_shift;
        for lane in lanes.clone() {
            let who = Lane { warp, lane: if same { SEVERAL } else { lane } };
            for _ in 0..per_lane {
                if !self.touch_quickly(index, who, access) {
                    return None;
                }
                index += 1;
            }
        }
        Some(&mut self.data[start..start + bytes * lanes.len()])
    }

    /// Remembers an access if it is right at first sight: everything before it is settled by barriers, or its own.
    #[inline(always)]
    fn touch_quickly(&mut self, index: usize, who: Lane, access: Access) -> bool {
        let (start, settled) = (self.start, self.settled[usize::from(who.warp)]);
        let now = self.clocks[usize::from(who.warp)][usize::from(who.warp)];
        let cell = &mut self.cells[index];
        let own = |stamp: Stamp| stamp.warp == who.warp && stamp.lane == who.lane && who.lane != SEVERAL;
        let stamp = Stamp { clock: now, warp: who.warp, lane: who.lane, atomic: false };
        let written_before = cell.write.clock <= settled || own(cell.write);
        if cell.pending || !written_before || access == Access::Atomic {
            return false;
        }
        let read = cell.read;
        let read_before = read.clock < start || (read.clock <= settled && read.warp != TABLE);
        if access == Access::Write {
            if read_before || own(read) {
                cell.write = stamp;
                return true;
            }
            return false;
        }
        if cell.write.clock < start {
            return false;
        }
        if read_before {
            cell.read = stamp;
        } else if read.warp == GROUP && read.clock == now {
            cell.readers |= 1 << who.warp;
        } else if read.warp == who.warp && read.clock == now {
            if read.lane != who.lane {
                cell.read.lane = SEVERAL;
            }
        } else {
            self.note_read(index, stamp);
        }
        true
    }

    fn touch(&mut self, index: usize, who: Lane, access: Access) -> Result<(), AccessError> {
        let now = self.clocks[usize::from(who.warp)][usize::from(who.warp)];
        let checked = self.check(index, self.cells[index], who, access);
        let stamp = Stamp { clock: now, warp: who.warp, lane: who.lane, atomic: access == Access::Atomic };
        if access == Access::Read {
            self.note_read(index, stamp);
        } else {
            self.cells[index].write = stamp;
        }
        checked
    }

    #[inline]
    fn check(&self, index: usize, cell: Cell, who: Lane, access: Access) -> Result<(), AccessError> {
        if cell.pending && cell.write.clock >= self.start {
            return Err(AccessError::PendingCopy(self.describe(index, cell.write, "copied to asynchronously")));
        }
        if access != Access::Write && cell.write.clock < self.start {
            let offset = index << self.granule_shift;
            let message = format!("byte {offset} of shared memory was never written in this block");
            return Err(AccessError::Uninitialised(message));
        }
        let both_atomic = access == Access::Atomic && cell.write.atomic;
        if !both_atomic && !self.happened_before(cell.write, 0, who) {
            return Err(AccessError::Race(self.describe(index, cell.write, "written")));
        }
        if access != Access::Read && !self.happened_before(cell.read, cell.readers, who) {
            return Err(AccessError::Race(self.describe(index, cell.read, "read")));
        }
        Ok(())
    }

    fn describe(&self, index: usize, stamp: Stamp, action: &str) -> String {
        let offset = index << self.granule_shift;
        let by = match (stamp.warp, stamp.lane) {
            (GROUP | TABLE, _) => "threads of several warps".to_owned(),
            (warp, SEVERAL) => format!("several threads of warp {warp}"),
            (warp, lane) => format!("thread {}", usize::from(warp) * 32 + usize::from(lane)),
        };
        format!("byte {offset} of shared memory was {action} by {by} and no barrier lies between")
    }

    fn note_read(&mut self, index: usize, stamp: Stamp) {
        let Cell { read: old, readers, .. } = self.cells[index];
        let who = Lane { warp: stamp.warp, lane: stamp.lane };
        let in_table = old.warp == TABLE && old.clock >= self.start;
        self.cells[index].read = if self.happened_before(old, readers, who) {
            if in_table {
                self.unused.push(old.clock - self.start);
            }
            stamp
        } else if in_table {
            self.readers[(old.clock - self.start) as usize][who.warp as usize] = stamp.clock;
            old
        } else if old.warp == stamp.warp && old.clock == stamp.clock {
            let lane = if old.lane == stamp.lane { stamp.lane } else { SEVERAL };
            Stamp { lane, ..stamp }
        } else if old.clock == stamp.clock {
            let members = if old.warp == GROUP { readers } else { 1 << old.warp };
            self.cells[index].readers = members | 1 << stamp.warp;
            Stamp { clock: stamp.clock, warp: GROUP, lane: SEVERAL, atomic: false }
        } else {
            let mut clocks = [0; MAX_WARPS];
            let members = if old.warp == GROUP { readers } else { 1 << old.warp };
            (0..self.warps).filter(|warp| members >> warp & 1 != 0).for_each(|warp| clocks[warp] = old.clock);
            clocks[who.warp as usize] = stamp.clock;
            Stamp { clock: self.start + self.table(clocks), warp: TABLE, lane: SEVERAL, atomic: false }
        };
    }

    /// A place in the table of readers.
    fn table(&mut self, clocks: [u32; MAX_WARPS]) -> u32 {
        match self.unused.pop() {
            Some(place) => {
                self.readers[place as usize] = clocks;
                place
            }
            None => {
                self.readers.push(clocks);
                (self.readers.len() - 1) as u32
            }
        }
    }

    /// An asynchronous copy was issued: its target must not be touched before it is waited for.
    pub fn begin_copy(&mut self, offset: u64, bytes: usize, who: Lane) -> Result<(), AccessError> {
        self.access(offset, bytes, who, Access::Write)?;
        self.set_pending(offset as usize, bytes, true);
        Ok(())
    }

    /// The copy arrives: from now on it is a write of the thread that waited.
    pub fn finish_copy(&mut self, offset: u64, data: &[u8], who: Lane) {
        let start = offset as usize;
        self.set_pending(start, data.len(), false);
        self.data[start..start + data.len()].copy_from_slice(data);
        let clock = self.clocks[who.warp as usize][who.warp as usize];
        let stamp = Stamp { clock, warp: who.warp, lane: who.lane, atomic: false };
        for cell in &mut self.cells[start >> self.granule_shift..=(start + data.len() - 1) >> self.granule_shift] {
            cell.write = stamp;
        }
    }

    fn set_pending(&mut self, start: usize, bytes: usize, pending: bool) {
        for cell in &mut self.cells[start >> self.granule_shift..=(start + bytes - 1) >> self.granule_shift] {
            cell.pending = pending;
        }
    }
}
