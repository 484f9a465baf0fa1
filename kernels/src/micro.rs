//! The microkernel that every matrix product runs in, and the shapes of packed operands.
//!
//! A register tile has [`Tile::rows`] rows of two vectors: 6 x 16 with 16 registers of 8 lanes, 12 x 32 with 32 of 16
//! (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008; the shapes are those of BLIS).
//! The left factor is read element by element through two strides, so that a row-major operand needs no packing; the
//! right one lies in panels of one tile's columns, `panel[k][column]`.

use crate::{
    caches::Caches,
    emit::builder::{Builder, Elem, Type, Value},
    ir::Precision,
};
use std::collections::BTreeSet;

/// Iterations of the contraction that the microkernel's loop does at once.
const UNROLL: i64 = 4;

/// The register tile of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// Rows of the tile.
    pub rows: u64,
    /// f32 lanes of a vector.
    pub lanes: u32,
}

impl Tile {
    pub fn new(lanes: u32) -> Tile {
        Tile { rows: if lanes == 16 { 12 } else { 6 }, lanes }
    }

    /// Columns of the tile.
    pub fn columns(self) -> u64 {
        2 * u64::from(self.lanes)
    }
}

/// What one step of a contraction multiplies. Both have the size of an f32, so that packing and addressing are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// An f32 with an f32.
    Float,
    /// Two neighbours along the contraction, as bf16, with two others.
    Bf16Pair,
}

impl Step {
    /// Elements of the contraction in a step.
    pub fn elements(self) -> u64 {
        match self {
            Step::Float => 1,
            Step::Bf16Pair => 2,
        }
    }
}

/// What microkernels and packing can use of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// f32 lanes of a vector.
    pub lanes: u32,
    /// Whether there is an instruction for [`Step::Bf16Pair`].
    pub bf16_pairs: bool,
    /// What blocks are sized by.
    pub caches: Caches,
}

impl Machine {
    /// All kinds of machine that code is generated for.
    pub const ALL: [Machine; 3] = [Machine::new(8, false), Machine::new(16, false), Machine::new(16, true)];

    pub const fn new(lanes: u32, bf16_pairs: bool) -> Machine {
        Machine { lanes, bf16_pairs, caches: Caches::PORTABLE }
    }

    /// The steps of a product whose factors are rounded like this.
    pub fn step(self, precision: Precision) -> Step {
        if self.bf16_pairs && precision == Precision::Bf16 { Step::Bf16Pair } else { Step::Float }
    }
}

/// The left factor of a microkernel call: element (row, k) lies at `pointer + row · row_stride + k · k_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub pointer: Value,
    pub row_stride: Value,
    pub k_stride: Value,
}

/// Where a microkernel call leaves its result: rows of one tile's columns, `row_stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub pointer: Value,
    pub row_stride: Value,
    /// 1 to add to what is there, 0 to replace it (i64).
    pub accumulate: Value,
}

/// The microkernels that a module calls.
pub(crate) struct MicroKernels {
    pub machine: Machine,
    pub tile: Tile,
    used: BTreeSet<(Step, u64)>,
}

impl MicroKernels {
    pub fn new(machine: Machine) -> MicroKernels {
        MicroKernels { machine, tile: Tile::new(machine.lanes), used: BTreeSet::new() }
    }

    /// Calls the microkernel for `rows` rows (at most a tile's): `result = left · right [+ result]` over `depth` steps.
    pub fn call(
        &mut self,
        b: &mut Builder,
        (step, rows): (Step, u64),
        left: Left,
        (right, depth): (Value, Value),
        result: Output,
    ) {
        debug_assert!((1..=self.tile.rows).contains(&rows));
        self.used.insert((step, rows));
        let args = [
            left.pointer,
            left.row_stride,
            left.k_stride,
            right,
            depth,
            result.pointer,
            result.row_stride,
            result.accumulate,
        ];
        b.call(&symbol(step, rows), &args);
    }

    /// Emits the functions that were called.
    pub fn emit(&self, b: &mut Builder) {
        self.used.iter().for_each(|&(step, rows)| emit(b, self.tile, step, rows));
    }
}

fn symbol(step: Step, rows: u64) -> String {
    match step {
        Step::Float => format!("multiply_{rows}"),
        Step::Bf16Pair => format!("multiply_bf16_{rows}"),
    }
}

fn emit(b: &mut Builder, tile: Tile, step: Step, rows: u64) {
    let (p, i) = (Type::POINTER, Type::I64);
    b.function(&symbol(step, rows), false, &[p, i, i, p, i, p, i, i], |b, args| {
        let &[left, row_stride, k_stride, right, depth, result, result_stride, accumulate] = args else {
            unreachable!("eight parameters were declared")
        };
        let zero = b.float(tile.lanes, 0.0);
        let sums = vec![zero; 2 * rows as usize];
        let left = Left { pointer: left, row_stride, k_stride };
        let sums = contraction(b, (tile, step), left, (right, depth), sums);
        finish(b, tile, &sums, Output { pointer: result, row_stride: result_stride, accumulate });
    });
}

/// The loops over the steps: unrolled, then the rest. Two pointers advance; rows are reached by offsets in bytes. LLVM must take
/// these and the advanced pointer as unrelated numbers, or it would chain their additions (and the loop wait for them)
/// or keep their combinations in more registers than there are.
fn contraction(
    b: &mut Builder,
    (tile, kind): (Tile, Step),
    left: Left,
    (right, depth): (Value, Value),
    sums: Vec<Value>,
) -> Vec<Value> {
    let (zero, one, unroll) = (b.i64(0), b.i64(1), b.i64(UNROLL));
    let rows = sums.len() as u64 / 2;
    let offsets: Vec<Value> = (1..rows)
        .map(|row| {
            let offset = b.times(left.row_stride, 4 * row);
            b.opaque(offset)
        })
        .collect();
    let k_stride = b.times(left.k_stride, 4);
    let rest = b.rem_unsigned(depth, unroll);
    let main = b.sub(depth, rest);
    let mut state = [&[left.pointer, right], &sums[..]].concat();
    for (low, high, step) in [(zero, main, unroll), (main, depth, one)] {
        let open = b.begin_loop((low, high, step), &state);
        let mut inside = open.carried.clone();
        let iterations = if step == one { 1 } else { UNROLL };
        for _ in 0..iterations {
            let sums = rank_one(b, (tile, kind), (inside[0], &offsets), inside[1], &inside[2..]);
            let advanced = b.byte_at(inside[0], k_stride);
            inside[0] = b.opaque(advanced);
            inside[1] = b.float_after(inside[1], tile.columns());
            inside.splice(2.., sums);
        }
        state = b.end_loop(open, &inside);
    }
    state.split_off(2)
}

/// `sums += left[.., k] ⊗ right[k, ..]`, for one step `k` of the contraction.
fn rank_one(
    b: &mut Builder,
    (tile, step): (Tile, Step),
    (left, offsets): (Value, &[Value]),
    right: Value,
    sums: &[Value],
) -> Vec<Value> {
    let halves = [0, u64::from(tile.lanes)].map(|half| {
        let address = b.float_after(right, half);
        b.load(address, Type::vector(Elem::F32, tile.lanes), false)
    });
    let mut next = Vec::with_capacity(sums.len());
    for (row, sums) in sums.chunks(2).enumerate() {
        let address = if row == 0 { left } else { b.byte_at(left, offsets[row - 1]) };
        let factor = b.load(address, Type::scalar(Elem::F32), false);
        let factor = b.splat(factor, tile.lanes);
        next.extend([0, 1].map(|half| match step {
            Step::Float => b.fma(factor, halves[half], sums[half]),
            Step::Bf16Pair => b.dot_bf16(factor, halves[half], sums[half]),
        }));
    }
    next
}

/// Writes the sums, or adds them to what is there.
fn finish(b: &mut Builder, tile: Tile, sums: &[Value], result: Output) {
    let zero = b.i64(0);
    let fresh = b.compare(crate::emit::builder::Compare::Equal, result.accumulate, zero);
    let open = b.begin_if(fresh, &[]);
    for (number, &sum) in sums.iter().enumerate() {
        let address = result_address(b, tile, result, number);
        b.store(sum, address);
    }
    b.begin_else(&[]);
    for (number, &sum) in sums.iter().enumerate() {
        let address = result_address(b, tile, result, number);
        let old = b.load(address, sum.ty, false);
        let new = b.add(old, sum);
        b.store(new, address);
    }
    b.end_if(open, &[]);
}

fn result_address(b: &mut Builder, tile: Tile, result: Output, number: usize) -> Value {
    let (row, half) = (b.i64(number as i64 / 2), b.i64(number as i64 % 2 * i64::from(tile.lanes)));
    let offset = b.mul(row, result.row_stride);
    let offset = b.add(offset, half);
    b.address(result.pointer, offset, Elem::F32)
}

/// Transposition.
impl Builder {
    /// The columns of a square block given by rows: as many vectors as lanes (8 or 16).
    pub fn transpose(&mut self, rows: &[Value]) -> Vec<Value> {
        let lanes = rows.len();
        debug_assert!(rows.iter().all(|row| row.ty.lanes as usize == lanes));
        let quads: Vec<Vec<Value>> = rows.chunks(4).map(|four| self.transpose_quads(four)).collect();
        let mut columns = vec![rows[0]; lanes];
        for place in 0..4 {
            let parts: Vec<Value> = quads.iter().map(|quad| quad[place]).collect();
            for (chunk, column) in self.regroup(&parts).into_iter().enumerate() {
                columns[4 * chunk + place] = column;
            }
        }
        columns
    }

    /// Transposes the 4 x 4 blocks in the 128-bit chunks of four rows.
    fn transpose_quads(&mut self, rows: &[Value]) -> Vec<Value> {
        let lanes = rows[0].ty.lanes;
        let pattern = |picks: [u32; 4], from_second: [bool; 4]| -> Vec<u32> {
            let in_chunk = |chunk: u32, i: usize| chunk + picks[i] + if from_second[i] { lanes } else { 0 };
            (0..lanes).map(|lane| in_chunk(lane & !3, lane as usize & 3)).collect()
        };
        let alternate = [false, true, false, true];
        let (low32, high32) = (pattern([0, 0, 1, 1], alternate), pattern([2, 2, 3, 3], alternate));
        let paired = [false, false, true, true];
        let (low64, high64) = (pattern([0, 1, 0, 1], paired), pattern([2, 3, 2, 3], paired));
        let first = [self.shuffle(rows[0], rows[1], &low32), self.shuffle(rows[0], rows[1], &high32)];
        let second = [self.shuffle(rows[2], rows[3], &low32), self.shuffle(rows[2], rows[3], &high32)];
        let mut columns = Vec::with_capacity(4);
        for (first, second) in first.into_iter().zip(second) {
            columns.push(self.shuffle(first, second, &low64));
            columns.push(self.shuffle(first, second, &high64));
        }
        columns
    }

    /// Of n vectors of n 128-bit chunks, the vectors of all first chunks, all second chunks, and so on.
    fn regroup(&mut self, parts: &[Value]) -> Vec<Value> {
        let lanes = parts[0].ty.lanes;
        let chunks = |order: &[u32]| -> Vec<u32> { order.iter().flat_map(|chunk| 4 * chunk..4 * chunk + 4).collect() };
        if lanes == 8 {
            return [[0, 2], [1, 3]].map(|order| self.shuffle(parts[0], parts[1], &chunks(&order))).to_vec();
        }
        let mut halves = Vec::new();
        for pair in parts.chunks(2) {
            halves.push([[0, 4, 1, 5], [2, 6, 3, 7]].map(|order| self.shuffle(pair[0], pair[1], &chunks(&order))));
        }
        let mut columns = Vec::new();
        for (first, second) in halves[0].into_iter().zip(halves[1]) {
            for order in [[0, 1, 4, 5], [2, 3, 6, 7]] {
                columns.push(self.shuffle(first, second, &chunks(&order)));
            }
        }
        columns
    }
}
