//! The state of a warp: register files, the stack of diverged paths, pending asynchronous copies, local memory.

use super::async_copy::AsyncCopies;
use crate::decode::program::{Predicate, Reg};
use crate::memory::validity::Validity;

/// Lanes of a warp.
pub const LANES: usize = 32;
/// One value per lane.
pub type Lanes<T> = [T; LANES];

/// What registers hold before they are written: a signalling NaN.
const POISON: u32 = 0x7fba_dbad;

/// Register files.
#[derive(Debug, Default)]
pub struct Registers {
    /// 8, 16 and 32 bits.
    pub narrow: Vec<Lanes<u32>>,
    /// 64 bits.
    pub wide: Vec<Lanes<u64>>,
    /// A bit per lane.
    pub predicates: Vec<u32>,
}

impl Registers {
    /// Everything undefined.
    pub fn poison(&mut self, sizes: [usize; 3]) {
        self.narrow.clear();
        self.narrow.resize(sizes[0], [POISON; LANES]);
        self.wide.clear();
        self.wide.resize(sizes[1], [u64::from(POISON) << 32 | u64::from(POISON); LANES]);
        self.predicates.clear();
        self.predicates.resize(sizes[2], 0xaaaa_5555);
    }

    /// Lanes in which a predicate holds.
    #[inline(always)]
    pub fn test(&self, predicate: Predicate) -> u32 {
        let bits = self.predicates[predicate.reg as usize];
        if predicate.negated { !bits } else { bits }
    }

    /// Sets a predicate in the lanes of `mask`.
    #[inline(always)]
    pub fn set_predicate(&mut self, reg: Reg, mask: u32, bits: u32) {
        let old = &mut self.predicates[reg as usize];
        *old = (*old & !mask) | (bits & mask);
    }

    /// A register of either file, zero-extended.
    #[inline(always)]
    pub fn read(&self, reg: Reg, wide: bool) -> Lanes<u64> {
        if wide { self.wide[reg as usize] } else { self.narrow[reg as usize].map(u64::from) }
    }

    /// Writes a register of either file in the lanes of `mask`.
    #[inline(always)]
    pub fn write(&mut self, reg: Reg, wide: bool, mask: u32, values: &Lanes<u64>) {
        if wide {
            blend(&mut self.wide[reg as usize], values, mask);
        } else {
            blend(&mut self.narrow[reg as usize], &values.map(|value| value as u32), mask);
        }
    }
}

/// Overwrites the lanes of `mask`.
#[inline(always)]
pub fn blend<T: Copy>(old: &mut Lanes<T>, new: &Lanes<T>, mask: u32) {
    if mask == u32::MAX {
        *old = *new;
        return;
    }
    for lane in 0..LANES {
        if mask >> lane & 1 != 0 {
            old[lane] = new[lane];
        }
    }
}

/// The set bits of a mask.
pub fn lanes_of(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Lanes that run together until they reach `reconverge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Next instruction.
    pub pc: u32,
    /// Where the path ends and the one below goes on.
    pub reconverge: u32,
    /// Its lanes; those that have left the kernel may still be in it.
    pub mask: u32,
}

/// What a warp is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Can run.
    #[default]
    Ready,
    /// Waits at this barrier.
    Waiting(u32),
    /// All lanes have left.
    Done,
}

/// A warp.
#[derive(Debug, Default)]
pub struct Warp {
    /// Number in the block.
    pub index: usize,
    /// Its registers.
    pub registers: Registers,
    /// Diverged paths, the running one last.
    pub stack: Vec<Path>,
    /// Lanes that have not left the kernel.
    pub live: u32,
    /// Ready, waiting or done.
    pub state: State,
    /// Copies on the way.
    pub copies: AsyncCopies,
    /// Local memory, lane after lane.
    pub local: Vec<u8>,
    /// Which bytes of it were written.
    pub local_valid: Validity,
}

impl Warp {
    /// Splits the running path at a branch into one path per target.
    ///
    /// The path below waits at the meeting point; a loop that already waits there does not grow the stack.
    pub fn diverge(&mut self, targets: &[(u32, u32)], reconverge: u32) {
        let depth = self.stack.len();
        match self.stack.last_mut() {
            Some(path) if path.reconverge == reconverge && depth > 1 => drop(self.stack.pop()),
            Some(path) => path.pc = reconverge,
            None => return,
        }
        for &(pc, mask) in targets.iter().filter(|(pc, mask)| *pc != reconverge && *mask != 0) {
            self.stack.push(Path { pc, reconverge, mask });
        }
    }
}
