//! A launch in progress.

use super::barrier::Barriers;
use super::counters::Counters;
use super::order::Shuffle;
use super::transfer::Place;
use super::violation::{Violation, ViolationKind, explain};
use super::warp::{LANES, Lanes, Path, State, Warp};
use super::{Geometry, Options, Report};
use crate::decode::program::{Fill, Kernel, Op, Special, TernaryOp};
use crate::memory::global::GlobalMemory;
use crate::memory::shared::{Access, Lane, SharedMemory};
use crate::memory::validity::Validity;
use crate::memory::{AccessError, LOCAL_WINDOW, PARAM_WINDOW};
use crate::syntax::tree::Type;

/// Everything a launch needs besides the block in progress.
pub(super) struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub geometry: Geometry,
    pub params: &'a [u8],
    variables: &'a [u64],
    pub memory: &'a mut GlobalMemory,
    pub options: &'a Options,
    /// Index of the allocation accessed last.
    pub hint: usize,
    pub counters: Counters,
    /// Executions and active lanes of each instruction.
    pub executed: Vec<(u64, u64)>,
    budget: u64,
    violations: Vec<Violation>,
    pub stopped: bool,
    block: [u32; 3],
    /// The instruction in progress.
    pub pc: usize,
}

/// The block in progress.
pub(super) struct Block {
    pub shared: SharedMemory,
    pub barriers: Barriers,
    pub warps: Vec<Warp>,
}

impl<'a> Machine<'a> {
    pub fn new(
        kernel: &'a Kernel,
        geometry: Geometry,
        params: &'a [u8],
        variables: &'a [u64],
        memory: &'a mut GlobalMemory,
        options: &'a Options,
    ) -> Machine<'a> {
        Machine {
            kernel,
            geometry,
            params,
            variables,
            memory,
            options,
            hint: 0,
            counters: Counters::default(),
            executed: vec![(0, 0); kernel.code.len()],
            budget: options.max_instructions,
            violations: Vec::new(),
            stopped: false,
            block: [0; 3],
            pc: 0,
        }
    }

    pub fn run(mut self) -> Report {
        let [gx, gy, gz] = self.geometry.grid.map(|extent| extent as usize);
        let mut shuffle = Shuffle::new(self.options.seed);
        let static_bytes = self.kernel.shared_bytes.next_multiple_of(self.kernel.dynamic_align);
        let shared_bytes = (static_bytes + self.geometry.dynamic_shared) as usize;
        let mut block = Block {
            shared: SharedMemory::new(shared_bytes, self.kernel.shared_granule, self.threads().div_ceil(LANES)),
            barriers: Barriers::default(),
            warps: (0..self.threads().div_ceil(LANES)).map(|index| Warp { index, ..Warp::default() }).collect(),
        };
        for number in shuffle.order(gx * gy * gz) {
            self.block = [(number % gx) as u32, (number / gx % gy) as u32, (number / gx / gy) as u32];
            self.run_block(&mut block, &mut shuffle);
            if self.stopped {
                break;
            }
        }
        self.summarise();
        Report { violations: self.violations, counters: self.counters }
    }

    fn threads(&self) -> usize {
        self.geometry.block.iter().map(|extent| *extent as usize).product()
    }

    fn run_block(&mut self, block: &mut Block, shuffle: &mut Shuffle) {
        block.shared.begin_block();
        block.barriers = Barriers::default();
        for index in 0..block.warps.len() {
            self.start_warp(&mut block.warps[index]);
        }
        loop {
            let mut progress = false;
            for index in shuffle.order(block.warps.len()) {
                if block.warps[index].state == State::Ready {
                    progress = true;
                    self.run_warp(block, index);
                }
                if self.stopped {
                    return;
                }
            }
            self.release_barriers(block);
            if !progress {
                break;
            }
        }
        self.report_stuck_warps(block);
    }

    fn start_warp(&mut self, warp: &mut Warp) {
        let lanes = (self.threads() - warp.index * LANES).min(LANES);
        warp.live = if lanes == LANES { u32::MAX } else { (1 << lanes) - 1 };
        warp.state = State::Ready;
        warp.stack.clear();
        warp.stack.push(Path { pc: 0, reconverge: u32::MAX, mask: warp.live });
        warp.copies.clear();
        warp.registers.poison(self.kernel.registers);
        let local = self.kernel.local_bytes as usize * LANES;
        warp.local.resize(local, 0);
        warp.local_valid = Validity::new(local);
        for &(reg, fill) in &self.kernel.fill32 {
            warp.registers.narrow[reg as usize] = self.constant(fill, warp.index).map(|value| value as u32);
        }
        for &(reg, fill) in &self.kernel.fill64 {
            warp.registers.wide[reg as usize] = self.constant(fill, warp.index);
        }
    }

    fn constant(&self, fill: Fill, warp: usize) -> Lanes<u64> {
        let dynamic = self.kernel.shared_bytes.next_multiple_of(self.kernel.dynamic_align);
        let value = match fill {
            Fill::Special(special) => return self.special(special, warp),
            Fill::Value(value) => value,
            Fill::Shared(offset) => offset,
            Fill::DynamicShared(offset) => dynamic.wrapping_add(offset),
            Fill::Local(offset) => LOCAL_WINDOW + offset,
            Fill::Variable(index, offset) => {
                self.variables.get(index as usize).copied().unwrap_or(0).wrapping_add(offset)
            }
            Fill::Param(offset) => PARAM_WINDOW + offset,
        };
        [value; LANES]
    }

    fn special(&self, special: Special, warp: usize) -> Lanes<u64> {
        let all = |value: u64| [value; LANES];
        let per_lane = |f: &dyn Fn(usize) -> u64| std::array::from_fn(f);
        let dynamic = self.geometry.dynamic_shared;
        match special {
            Special::Tid(axis) => per_lane(&|lane| u64::from(self.thread(warp, lane)[axis as usize])),
            Special::Ntid(axis) => all(u64::from(self.geometry.block[axis as usize])),
            Special::Ctaid(axis) => all(u64::from(self.block[axis as usize])),
            Special::Nctaid(axis) => all(u64::from(self.geometry.grid[axis as usize])),
            Special::Lane => per_lane(&|lane| lane as u64),
            Special::Warp => all(warp as u64),
            Special::WarpCount => all(self.threads().div_ceil(LANES) as u64),
            Special::LaneMaskEq => per_lane(&|lane| 1 << lane),
            Special::LaneMaskLt => per_lane(&|lane| (1 << lane) - 1),
            Special::LaneMaskLe => per_lane(&|lane| (2 << lane) - 1),
            Special::LaneMaskGt => per_lane(&|lane| !((2u64 << lane) - 1) & 0xffff_ffff),
            Special::LaneMaskGe => per_lane(&|lane| !((1u64 << lane) - 1) & 0xffff_ffff),
            Special::DynamicSharedSize => all(dynamic),
            Special::TotalSharedSize => all(dynamic + self.kernel.shared_bytes),
            Special::Clock => all(0),
        }
    }

    /// Coordinates of a thread in its block.
    pub fn thread(&self, warp: usize, lane: usize) -> [u32; 3] {
        let [x, y, _] = self.geometry.block;
        let number = (warp * LANES + lane) as u32;
        [number % x, number / x % y, number / x / y]
    }

    /// Runs a warp until it waits, leaves or the launch stops.
    fn run_warp(&mut self, block: &mut Block, index: usize) {
        let mut warp = std::mem::take(&mut block.warps[index]);
        while warp.state == State::Ready && !self.stopped {
            self.step(&mut warp, block);
        }
        block.warps[index] = warp;
    }

    /// Counts an instruction; stops a launch that does not end.
    #[inline(always)]
    pub fn count(&mut self, warp: &Warp, mask: u32) {
        let (executions, lanes) = &mut self.executed[self.pc];
        *executions += 1;
        *lanes += u64::from(mask.count_ones());
        self.budget -= 1;
        if self.budget == 0 {
            let most = self.options.max_instructions;
            self.report(warp, 0, ViolationKind::Endless, format!("{most} warp instructions did not end the launch"));
            self.stopped = true;
        }
    }

    /// An access to shared memory, checked as the options say.
    pub fn touch_shared<'s>(
        &self,
        shared: &'s mut SharedMemory,
        warp: &Warp,
        place: Place,
        access: Access,
    ) -> Result<&'s mut [u8], AccessError> {
        let lane = if self.options.warp_races { place.lane as u8 } else { 0 };
        shared.access(place.address, place.bytes, Lane { warp: warp.index as u8, lane }, access)
    }

    /// Notes a violation of the instruction in progress, once per kind and line.
    pub fn report(&mut self, warp: &Warp, lane: usize, kind: ViolationKind, detail: impl Into<String>) {
        self.note(warp, lane, kind, None, 0, detail.into());
    }

    pub fn report_access(&mut self, warp: &Warp, place: Place, error: AccessError) {
        let (kind, detail) = explain(error);
        self.note(warp, place.lane, kind, Some(place.address), place.bytes, detail);
    }

    fn note(
        &mut self,
        warp: &Warp,
        lane: usize,
        kind: ViolationKind,
        address: Option<u64>,
        bytes: usize,
        detail: String,
    ) {
        let line = self.kernel.code[self.pc].line;
        if self.violations.iter().any(|known| known.kind == kind && known.line == line) {
            return;
        }
        self.violations.push(Violation {
            kind,
            kernel: self.kernel.name.clone(),
            line,
            instruction: self.kernel.source_line(line).to_owned(),
            block: self.block,
            thread: self.thread(warp.index, lane),
            address,
            bytes,
            detail,
        });
        self.stopped |= self.violations.len() >= self.options.max_violations;
    }

    /// Totals from the counts per instruction.
    fn summarise(&mut self) {
        let kernel = self.kernel;
        for ((inst, opcode), &(executions, lanes)) in kernel.code.iter().zip(&kernel.opcodes).zip(&self.executed) {
            if executions == 0 {
                continue;
            }
            self.counters.warp_instructions += executions;
            self.counters.lane_instructions += lanes;
            match &inst.op {
                Op::Mma(mma) => {
                    let macs: u64 = mma.shape.iter().map(|extent| u64::from(*extent)).product();
                    self.counters.tensor_macs += executions * macs;
                }
                Op::Ternary { op: TernaryOp::Fma, ty, .. } => {
                    let packed = ty.bytes() == 4 && *ty != Type::F32;
                    self.counters.fma_macs += lanes * (1 + u64::from(packed));
                }
                _ => {}
            }
            *self.counters.mix.entry(opcode.clone()).or_default() += executions;
        }
    }
}
