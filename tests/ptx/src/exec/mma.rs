//! `mma.sync` and `mma.sp.sync` on the fragment layouts of the PTX ISA ("Matrix Fragments for mma.m16n8k*").
//!
//! Each element of the result is the sum of its exact products and of C, accumulated in f64 in ascending k and rounded once.
//! Tensor cores round differently inside (Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021), so results agree
//! with hardware within a few units in the last place of the largest term, and exactly for sums that f32 holds.

use super::machine::Machine;
use super::violation::ViolationKind;
use super::warp::{LANES, Lanes, Registers, Warp};
use crate::decode::program::{Elements, Mma, Sparsity};
use crate::float::bits32;
use crate::float::sixteen::Format;
use crate::syntax::tree::Type;

const M: usize = 16;
const N: usize = 8;
const MAX_K: usize = 32;

/// Elements per register of an input fragment.
fn per_register(ty: Type) -> usize {
    if ty == Type::Tf32 { 1 } else { 2 }
}

fn number(ty: Type, bits: u32, part: usize) -> f64 {
    match Format::of(ty) {
        Some(format) => format.decode((bits >> (16 * part)) as u16),
        // The hardware ignores the lower bits of an f32 that is used as a tf32.
        None => f64::from(f32::from_bits(bits & !0x1fff)),
    }
}

impl Machine<'_> {
    pub(super) fn mma(&mut self, warp: &mut Warp, mask: u32, mma: &Mma) {
        if !self.whole_warp(warp, mask) {
            return;
        }
        let k = usize::from(mma.shape[2]);
        let stored_k = if mma.sparse.is_some() { k / 2 } else { k };
        let stored = read_a(&warp.registers, mma, stored_k);
        let b = read_b(&warp.registers, mma, k);
        let a = match mma.sparse {
            None => stored,
            Some(sparsity) => match expand(&stored, &warp.registers, mma.input, k, sparsity) {
                Ok(a) => a,
                Err((lane, detail)) => {
                    self.report(warp, lane, ViolationKind::BadMetadata, detail);
                    return;
                }
            },
        };
        multiply(&mut warp.registers, mma, k, &a, &b);
    }
}

type MatrixA = [[f64; MAX_K]; M];
type MatrixB = [[f64; N]; MAX_K];

/// A: lane = 4 * (row % 8) + (column / elements) % 4; registers go through the upper and lower half of the rows, then
/// through groups of columns.
fn read_a(r: &Registers, mma: &Mma, k: usize) -> MatrixA {
    let mut a = [[0.0; MAX_K]; M];
    let per = per_register(mma.input);
    for (index, reg) in mma.a.iter().flatten().enumerate().take(k / (2 * per)) {
        let values: &Lanes<u32> = &r.narrow[*reg as usize];
        for (lane, bits) in values.iter().enumerate() {
            let row = lane / 4 + 8 * (index % 2);
            let column = per * (lane % 4) + 4 * per * (index / 2);
            for part in 0..per {
                a[row][column + part] = number(mma.input, *bits, part);
            }
        }
    }
    a
}

/// B: lane = 4 * column + (row / elements) % 4; registers go through groups of rows.
fn read_b(r: &Registers, mma: &Mma, k: usize) -> MatrixB {
    let mut b = [[0.0; N]; MAX_K];
    let per = per_register(mma.input);
    for (index, reg) in mma.b.iter().flatten().enumerate().take(k / (4 * per)) {
        for (lane, bits) in r.narrow[*reg as usize].iter().enumerate() {
            let row = per * (lane % 4) + 4 * per * index;
            for part in 0..per {
                b[row + part][lane / 4] = number(mma.input, *bits, part);
            }
        }
    }
    b
}

/// C and D: lane = 4 * (row % 8) + column / 2.
fn multiply(r: &mut Registers, mma: &Mma, k: usize, a: &MatrixA, b: &MatrixB) {
    let mut d = [[0.0; N]; M];
    for (row, sums) in d.iter_mut().enumerate() {
        for (factor, values) in a[row].iter().zip(b).take(k) {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += factor * value;
            }
        }
    }
    let half = mma.output == Type::F16;
    let c: [Option<Lanes<u32>>; 4] = mma.c.map(|reg| reg.map(|reg| r.narrow[reg as usize]));
    let result = |index: usize, lane: usize| {
        // Four f32 registers, or two of packed f16.
        let at = |index: usize, bits: f64| d[lane / 4 + 8 * (index / 2)][2 * (lane % 4) + index % 2] + bits;
        let c = |index: usize| c[index].map_or(0, |values| values[lane]);
        if half {
            let sum = |part: usize| Format::F16.encode(at(2 * index + part, number(Type::F16, c(index), part)));
            u32::from(sum(0)) | u32::from(sum(1)) << 16
        } else {
            bits32(at(index, f64::from(f32::from_bits(c(index)))) as f32)
        }
    };
    let registers: Elements = mma.d;
    let values: [Lanes<u32>; 4] = std::array::from_fn(|index| {
        if registers[index].is_some() { std::array::from_fn(|lane| result(index, lane)) } else { [0; LANES] }
    });
    for (reg, value) in registers.iter().zip(&values) {
        if let Some(reg) = reg {
            r.narrow[*reg as usize] = *value;
        }
    }
}

/// Puts the kept elements of a 2:4-sparse A (1:2 for tf32) where its metadata says.
///
/// PTX ISA, "Sparse matrix storage": two indices of two bits per group of four elements; the threads of a quad that the
/// selector names give the metadata of its rows.
fn expand(
    stored: &MatrixA,
    r: &Registers,
    input: Type,
    k: usize,
    sparsity: Sparsity,
) -> Result<MatrixA, (usize, String)> {
    let mut a = [[0.0; MAX_K]; M];
    let metadata = &r.narrow[sparsity.metadata as usize];
    let groups = if input == Type::Tf32 { k / 2 } else { k / 4 };
    for row in 0..M {
        for group in 0..groups {
            let (lane, bits) = super::sparse_metadata::nibble(metadata, input, k, sparsity.selector, row, group)
                .ok_or_else(|| (0, format!("the selector {} is not possible here", sparsity.selector)))?;
            let problem = |text: &str| {
                let ordered = if sparsity.ordered { "" } else { " (indices)" };
                (lane, format!("row {row}, group {group}: metadata {bits:#06b}{ordered} {text}"))
            };
            if input == Type::Tf32 {
                // Each element of a group of two stands for two positions: 0b1110 keeps the second, 0b0100 the first.
                let at = match bits {
                    0b1110 => 1,
                    0b0100 => 0,
                    _ => return Err(problem("must be 0b1110 or 0b0100")),
                };
                a[row][2 * group + at] = stored[row][group];
            } else {
                let (first, second) = ((bits & 3) as usize, (bits >> 2) as usize);
                if first >= second {
                    return Err(problem("must name two elements in ascending order"));
                }
                a[row][4 * group + first] = stored[row][2 * group];
                a[row][4 * group + second] = stored[row][2 * group + 1];
            }
        }
    }
    Ok(a)
}
