//! Loads, stores, atomics and `ldmatrix`.

use super::counters::{Pattern, bank_passes, sectors};
use super::machine::{Block, Machine};
use super::warp::{LANES, Lanes, Warp, blend, lanes_of};
use crate::decode::program::{Address, AtomicOp, Elements, Op, Transfer};
use crate::float::sixteen::Format;
use crate::memory::shared::{Access, SharedMemory};
use crate::memory::{AccessError, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::syntax::tree::{Space, Type};

/// What a lane accesses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub lane: usize,
    pub address: u64,
    pub bytes: usize,
}

/// The accesses of a warp.
struct Request<'a> {
    space: Space,
    addresses: &'a Lanes<u64>,
    mask: u32,
    /// Per lane.
    bytes: usize,
    pattern: Pattern,
}

impl<'a> Request<'a> {
    fn new(space: Space, addresses: &'a Lanes<u64>, mask: u32, bytes: usize) -> Request<'a> {
        Request { space, addresses, mask, bytes, pattern: Pattern::of(addresses, mask, bytes as u64) }
    }

    /// First address and size of all accesses together, if they are aligned and without gaps.
    fn run(&self) -> Option<(u64, usize)> {
        let aligned = self.addresses[0].is_multiple_of(self.bytes as u64);
        match self.pattern {
            Pattern::Same if aligned => Some((self.addresses[0], self.bytes)),
            Pattern::Contiguous if aligned => Some((self.addresses[0], LANES * self.bytes)),
            _ => None,
        }
    }
}

/// Copies `N` bytes for each lane, `step` bytes apart.
fn spread<const N: usize>(source: &[u8], step: usize, data: &mut [[u8; 16]; LANES]) {
    for (lane, target) in data.iter_mut().enumerate() {
        target[..N].copy_from_slice(&source[lane * step..lane * step + N]);
    }
}

/// The addresses of the lanes of `mask`, packed, and their number.
fn active(addresses: &Lanes<u64>, mask: u32) -> (Lanes<u64>, usize) {
    if mask == u32::MAX {
        return (*addresses, LANES);
    }
    let mut packed = [0; LANES];
    let mut count = 0;
    for lane in lanes_of(mask) {
        packed[count] = addresses[lane];
        count += 1;
    }
    (packed, count)
}

/// The offset in shared memory of an address in the shared space or the generic one.
pub(super) fn shared_offset(address: u64) -> u64 {
    if address >= SHARED_WINDOW { address - SHARED_WINDOW } else { address }
}

/// The space of a generic address.
fn resolve(space: Space, address: u64) -> Space {
    let within = |window: u64| (window..window + WINDOW_BYTES).contains(&address);
    match space {
        Space::Generic if within(SHARED_WINDOW) => Space::Shared,
        Space::Generic if within(LOCAL_WINDOW) => Space::Local,
        Space::Generic if within(PARAM_WINDOW) => Space::Param,
        Space::Generic | Space::Const => Space::Global,
        written => written,
    }
}

/// The bytes of a lane's access as one number, least significant first.
fn bits_from(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn extended(bits: u64, ty: Type) -> u64 {
    if !ty.is_signed() {
        return bits;
    }
    let shift = 64 - 8 * ty.bytes() as u32;
    (((bits << shift) as i64) >> shift) as u64
}

impl Machine<'_> {
    pub(super) fn addresses(&self, warp: &Warp, address: &Address) -> Lanes<u64> {
        let base = warp.registers.read(address.base, address.wide);
        base.map(|base| base.wrapping_add(address.offset as u64))
    }

    /// Counts a request to global memory.
    pub(super) fn count_global(&mut self, addresses: &Lanes<u64>, mask: u32, bytes: usize, store: bool) {
        let (active, count) = active(addresses, mask);
        let (transactions, ideal) = sectors(&active[..count], bytes as u64);
        let traffic = if store { &mut self.counters.global_stores } else { &mut self.counters.global_loads };
        traffic.requests += 1;
        traffic.bytes += (count * bytes) as u64;
        traffic.transactions += transactions;
        traffic.ideal += ideal;
    }

    fn count_shared(&mut self, addresses: &Lanes<u64>, mask: u32, bytes: usize, pattern: Pattern) {
        let mut offsets = [(0, 0); LANES];
        let mut count = 0;
        let (transactions, ideal) = if pattern == Pattern::Scattered {
            for lane in lanes_of(mask) {
                offsets[count] = (lane, shared_offset(addresses[lane]));
                count += 1;
            }
            bank_passes(&offsets[..count], bytes as u64)
        } else {
            count = LANES;
            let passes = bytes.div_ceil(4) as u64;
            (passes, passes)
        };
        self.counters.shared.requests += 1;
        self.counters.shared.bytes += (count * bytes) as u64;
        self.counters.shared.transactions += transactions;
        self.counters.shared.ideal += ideal;
    }

    /// Counts a request to whichever space its first lane names.
    fn count_request(&mut self, request: &Request<'_>, store: bool) {
        match resolve(request.space, request.addresses[request.mask.trailing_zeros() as usize]) {
            Space::Global => self.count_global(request.addresses, request.mask, request.bytes, store),
            Space::Shared => self.count_shared(request.addresses, request.mask, request.bytes, request.pattern),
            _ => {}
        }
    }

    pub(super) fn load(&mut self, warp: &mut Warp, block: &mut Block, transfer: &Transfer, mask: u32) {
        let addresses = self.addresses(warp, &transfer.address);
        let size = transfer.ty.bytes();
        let request = Request::new(transfer.space, &addresses, mask, size * usize::from(transfer.count));
        self.count_request(&request, false);
        let mut data = [[0; 16]; LANES];
        if !self.read_together(warp, &mut block.shared, &request, &mut data) {
            for lane in lanes_of(mask) {
                let place = Place { lane, address: addresses[lane], bytes: request.bytes };
                match self.read_lane(warp, &mut block.shared, transfer.space, place) {
                    Ok(value) => data[lane] = value,
                    Err(error) => self.report_access(warp, place, error),
                }
            }
        }
        for (index, reg) in transfer.registers[..usize::from(transfer.count)].iter().enumerate() {
            let Some(reg) = reg else { continue };
            if size == 4 && !transfer.wide {
                let word = |d: &[u8; 16]| [d[4 * index], d[4 * index + 1], d[4 * index + 2], d[4 * index + 3]];
                let value = std::array::from_fn(|lane| u32::from_le_bytes(word(&data[lane])));
                blend(&mut warp.registers.narrow[*reg as usize], &value, mask);
            } else {
                let bits = |lane: usize| bits_from(&data[lane][size * index..size * (index + 1)]);
                let value = std::array::from_fn(|lane| extended(bits(lane), transfer.ty));
                warp.registers.write(*reg, transfer.wide, mask, &value);
            }
        }
    }

    /// Reads for all lanes at once if they want the same or neighbouring places and nothing is wrong with that.
    fn read_together(
        &mut self,
        warp: &Warp,
        shared: &mut SharedMemory,
        request: &Request<'_>,
        data: &mut [[u8; 16]; LANES],
    ) -> bool {
        let Some((start, total)) = request.run() else { return false };
        let source = match resolve(request.space, start) {
            Space::Global => self.memory.load(start, total, &mut self.hint).ok(),
            Space::Shared => self.shared_run(shared, warp, request, Access::Read).map(|bytes| &*bytes),
            _ => None,
        };
        let Some(source) = source else { return false };
        let step = if request.pattern == Pattern::Same { 0 } else { request.bytes };
        match request.bytes {
            4 => spread::<4>(source, step, data),
            8 => spread::<8>(source, step, data),
            16 => spread::<16>(source, step, data),
            2 => spread::<2>(source, step, data),
            _ => spread::<1>(source, step, data),
        }
        true
    }

    fn shared_run<'s>(
        &self,
        shared: &'s mut SharedMemory,
        warp: &Warp,
        request: &Request<'_>,
        access: Access,
    ) -> Option<&'s mut [u8]> {
        let (start, _) = request.run()?;
        let lanes = if request.pattern == Pattern::Same { 0..1 } else { 0..LANES as u8 };
        if !self.options.warp_races {
            return None;
        }
        shared.access_together(shared_offset(start), request.bytes, lanes, warp.index as u8, access)
    }

    fn read_lane(
        &mut self,
        warp: &Warp,
        shared: &mut SharedMemory,
        space: Space,
        place: Place,
    ) -> Result<[u8; 16], AccessError> {
        let mut data = [0; 16];
        let Place { address, bytes, .. } = place;
        if !address.is_multiple_of(bytes as u64) {
            return Err(AccessError::Misaligned);
        }
        let source = match resolve(space, address) {
            Space::Shared => {
                let place = Place { address: shared_offset(address), ..place };
                &*self.touch_shared(shared, warp, place, Access::Read)?
            }
            Space::Local => {
                let start = self.local_offset(place)?;
                if warp.local_valid.first_invalid(start, bytes).is_some() {
                    return Err(AccessError::Uninitialised("local memory that was never written".to_owned()));
                }
                &warp.local[start..start + bytes]
            }
            Space::Param => {
                let offset = if address >= PARAM_WINDOW { address - PARAM_WINDOW } else { address } as usize;
                let end = offset.checked_add(bytes).filter(|end| *end <= self.params.len());
                let end = end.ok_or_else(|| AccessError::OutOfBounds(format!("offset {offset} of the parameters")))?;
                &self.params[offset..end]
            }
            _ => self.memory.load(address, bytes, &mut self.hint)?,
        };
        data[..bytes].copy_from_slice(source);
        Ok(data)
    }

    fn local_offset(&self, place: Place) -> Result<usize, AccessError> {
        let size = self.kernel.local_bytes;
        let offset = if place.address >= LOCAL_WINDOW { place.address - LOCAL_WINDOW } else { place.address };
        if offset.saturating_add(place.bytes as u64) > size {
            return Err(AccessError::OutOfBounds(format!("offset {offset} of local memory ({size} bytes)")));
        }
        Ok(place.lane * size as usize + offset as usize)
    }

    pub(super) fn store(&mut self, warp: &mut Warp, block: &mut Block, transfer: &Transfer, mask: u32) {
        let addresses = self.addresses(warp, &transfer.address);
        let size = transfer.ty.bytes();
        let request = Request::new(transfer.space, &addresses, mask, size * usize::from(transfer.count));
        self.count_request(&request, true);
        let mut data = [[0; 16]; LANES];
        for (index, reg) in transfer.registers.iter().flatten().enumerate() {
            let value = warp.registers.read(*reg, transfer.wide);
            for (bytes, value) in data.iter_mut().zip(value) {
                bytes[size * index..size * (index + 1)].copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        if self.write_together(warp, &mut block.shared, &request, &data) {
            return;
        }
        for lane in lanes_of(mask) {
            let place = Place { lane, address: addresses[lane], bytes: request.bytes };
            let bytes = &data[lane][..request.bytes];
            if let Err(error) = self.write_lane(warp, &mut block.shared, transfer.space, place, bytes) {
                self.report_access(warp, place, error);
            }
        }
    }

    /// Writes for all lanes at once if they want neighbouring places and nothing is wrong with that.
    fn write_together(
        &mut self,
        warp: &Warp,
        shared: &mut SharedMemory,
        request: &Request<'_>,
        data: &[[u8; 16]; LANES],
    ) -> bool {
        let Some((start, total)) = request.run().filter(|_| request.pattern == Pattern::Contiguous) else {
            return false;
        };
        let target = match resolve(request.space, start) {
            Space::Global => self.memory.store(start, total, &mut self.hint).ok(),
            Space::Shared => self.shared_run(shared, warp, request, Access::Write),
            _ => None,
        };
        let Some(target) = target else { return false };
        for (bytes, data) in target.chunks_exact_mut(request.bytes).zip(data) {
            bytes.copy_from_slice(&data[..request.bytes]);
        }
        true
    }

    fn write_lane(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        space: Space,
        place: Place,
        data: &[u8],
    ) -> Result<(), AccessError> {
        let Place { address, bytes, .. } = place;
        if !address.is_multiple_of(bytes as u64) {
            return Err(AccessError::Misaligned);
        }
        let target = match resolve(space, address) {
            Space::Shared => {
                let place = Place { address: shared_offset(address), ..place };
                self.touch_shared(shared, warp, place, Access::Write)?
            }
            Space::Local => {
                let start = self.local_offset(place)?;
                warp.local_valid.set(start, bytes);
                &mut warp.local[start..start + bytes]
            }
            Space::Param => return Err(AccessError::ReadOnly("the parameters".to_owned())),
            _ => self.memory.store(address, bytes, &mut self.hint)?,
        };
        target.copy_from_slice(data);
        Ok(())
    }

    pub(super) fn atomic(&mut self, warp: &mut Warp, block: &mut Block, op: &Op, mask: u32) {
        let Op::Atomic { op, space, ty, d, wide, address, a, b } = op else { return };
        let addresses = self.addresses(warp, address);
        let bytes = ty.bytes();
        self.count_request(&Request::new(*space, &addresses, mask, bytes), true);
        let operand = warp.registers.read(*a, *wide);
        let second = b.map_or([0; LANES], |b| warp.registers.read(b, *wide));
        let mut old = [0; LANES];
        for lane in lanes_of(mask) {
            let place = Place { lane, address: addresses[lane], bytes };
            let update = |old: u64| apply(*op, *ty, old, operand[lane], second[lane]);
            match self.update_lane(warp, &mut block.shared, *space, place, update) {
                Ok(value) => old[lane] = value,
                Err(error) => self.report_access(warp, place, error),
            }
        }
        if let Some(d) = d {
            warp.registers.write(*d, *wide, mask, &old);
        }
    }

    fn update_lane(
        &mut self,
        warp: &Warp,
        shared: &mut SharedMemory,
        space: Space,
        place: Place,
        update: impl Fn(u64) -> u64,
    ) -> Result<u64, AccessError> {
        let Place { address, bytes, .. } = place;
        if !address.is_multiple_of(bytes as u64) {
            return Err(AccessError::Misaligned);
        }
        let target = match resolve(space, address) {
            Space::Shared => {
                let place = Place { address: shared_offset(address), ..place };
                self.touch_shared(shared, warp, place, Access::Atomic)?
            }
            Space::Global => {
                self.memory.load(address, bytes, &mut self.hint)?;
                self.memory.store(address, bytes, &mut self.hint)?
            }
            _ => return Err(AccessError::OutOfBounds("atomics need global or shared memory".to_owned())),
        };
        let old = bits_from(target);
        target.copy_from_slice(&update(old).to_le_bytes()[..bytes]);
        Ok(old)
    }

    /// `ldmatrix`: lane i gives the address of row i % 8 of matrix i / 8; lane i receives elements 2 (i % 4) and the next of
    /// row i / 4, or of that column if transposed.
    pub(super) fn load_matrix(
        &mut self,
        warp: &mut Warp,
        block: &mut Block,
        mask: u32,
        (count, transposed): (u8, bool),
        d: &Elements,
        address: &Address,
    ) {
        if !self.whole_warp(warp, mask) {
            return;
        }
        let addresses = self.addresses(warp, address);
        let rows = 8 * usize::from(count);
        let row_mask = if rows == LANES { u32::MAX } else { (1 << rows) - 1 };
        self.count_shared(&addresses, row_mask, 16, Pattern::Scattered);
        let mut matrix = [[0u16; 8]; LANES];
        for (lane, row) in matrix.iter_mut().enumerate().take(rows) {
            let place = Place { lane, address: addresses[lane], bytes: 16 };
            match self.read_lane(warp, &mut block.shared, Space::Shared, place) {
                Ok(data) => {
                    let halves = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                    row.iter_mut().zip(halves).for_each(|(element, half)| *element = half);
                }
                Err(error) => self.report_access(warp, place, error),
            }
        }
        for (index, reg) in d.iter().flatten().enumerate() {
            let rows = &matrix[8 * index..8 * index + 8];
            let element =
                |row: usize, column: usize| u32::from(if transposed { rows[column][row] } else { rows[row][column] });
            warp.registers.narrow[*reg as usize] = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, 2 * (lane % 4));
                element(row, column) | element(row, column + 1) << 16
            });
        }
    }
}

/// The new value of an atomic update.
pub(super) fn apply(op: AtomicOp, ty: Type, old: u64, a: u64, b: u64) -> u64 {
    let sixteen = |format: Format| {
        let add = |[x, y]: [u16; 2]| format.encode(format.decode(x) + format.decode(y));
        if ty.bytes() == 4 {
            u64::from(Format::pairs([old as u32, a as u32], add))
        } else {
            u64::from(add([old as u16, a as u16]))
        }
    };
    let signed = |bits: u64| if ty.bytes() == 4 { i64::from(bits as i32) } else { bits as i64 };
    match op {
        AtomicOp::Add => match (ty, Format::of(ty)) {
            (Type::F32, _) => u64::from((f32::from_bits(old as u32) + f32::from_bits(a as u32)).to_bits()),
            (Type::F64, _) => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
            (_, Some(format)) => sixteen(format),
            _ => old.wrapping_add(a),
        },
        AtomicOp::Min if ty.is_signed() => {
            if signed(old) <= signed(a) {
                old
            } else {
                a
            }
        }
        AtomicOp::Max if ty.is_signed() => {
            if signed(old) >= signed(a) {
                old
            } else {
                a
            }
        }
        AtomicOp::Min => old.min(a),
        AtomicOp::Max => old.max(a),
        AtomicOp::And => old & a,
        AtomicOp::Or => old | a,
        AtomicOp::Xor => old ^ a,
        AtomicOp::Exchange => a,
        AtomicOp::CompareSwap => {
            if old == a {
                b
            } else {
                old
            }
        }
        AtomicOp::Inc => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
    }
}
