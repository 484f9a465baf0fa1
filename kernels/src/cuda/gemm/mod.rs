//! Lowering of [`Gemm`]s: a thread block computes a tile of the result.
//!
//! Factors pass through shared memory, some steps of the contraction ahead of the multiplication ([`factor`]). Strict f32
//! is multiplied by fused multiply-adds in the order of the contraction ([`scalar`]), tf32 and bf16 by tensor cores
//! ([`tensor`]).
//! The epilogue passes the sums through shared memory once more, so that neighbouring threads store neighbouring elements
//! and its code exists once.

mod factor;
mod long;
mod scalar;
mod tensor;
mod tf32;

use super::{DeviceStage, decode, entry};
use crate::{
    emit::{
        builder::{Block, Builder, Compare, Elem, Type, Value},
        point::{Emitter, Point},
    },
    gemm::prepare::prepare,
    ir::{Gemm, Kernel, Precision},
};
use factor::Factor;
use long::Pieces;

/// Threads of a block.
const THREADS: u64 = 256;
/// Blocks that fill a device.
const BLOCKS_WANTED: u64 = 96;
/// f32 elements that a row of results in shared memory is longer than it must be.
const PADDING: u64 = 4;

/// A tile of the result, and of the contraction per step.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: u64,
    columns: u64,
    depth: u64,
}

/// From large to small.
const SCALAR_TILES: [Tile; 3] = [
    Tile { rows: 128, columns: 128, depth: 16 },
    Tile { rows: 64, columns: 64, depth: 16 },
    Tile { rows: 32, columns: 32, depth: 32 },
];
const TENSOR_TILES: [Tile; 2] =
    [Tile { rows: 128, columns: 128, depth: 32 }, Tile { rows: 64, columns: 64, depth: 32 }];

/// Their factors are twice as large.
const TF32_TILES: [Tile; 2] = [Tile { rows: 128, columns: 128, depth: 16 }, Tile { rows: 64, columns: 64, depth: 16 }];

/// The largest tile of which there are enough.
fn choose(tiles: &[Tile], sizes: &Sizes) -> Tile {
    let blocks = |tile: &Tile| sizes.batch * sizes.rows.div_ceil(tile.rows) * sizes.columns.div_ceil(tile.columns);
    let fills = |tile: &&Tile| blocks(tile) >= BLOCKS_WANTED;
    *tiles.iter().find(fills).unwrap_or(&tiles[tiles.len() - 1])
}

/// Extents of a product.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: u64,
    rows: u64,
    columns: u64,
    depth: u64,
}

impl Sizes {
    fn of(gemm: &Gemm) -> Sizes {
        let [batch, rows, columns, depth] = [&gemm.batch, &gemm.m, &gemm.n, &gemm.k].map(|dims| dims.iter().product());
        Sizes { batch, rows, columns, depth }
    }
}

/// Lowers a verified product.
pub(super) fn lower(b: &mut Builder, kernel: &Kernel, gemm: &Gemm, name: &str) -> Vec<DeviceStage> {
    let gemm = prepare(gemm, 4);
    let sizes = Sizes::of(&gemm);
    let tensor = gemm.precision != Precision::F32;
    let tiles: &[Tile] = match gemm.precision {
        Precision::F32 => &SCALAR_TILES,
        Precision::Tf32 => &TF32_TILES,
        Precision::Bf16 => &TENSOR_TILES,
    };
    let pieces = Pieces::of(gemm.precision, sizes.depth);
    let tile = choose(pieces.map_or(tiles, |pieces| pieces.fitting(tiles)), &sizes);
    let factors = factor::factors(kernel, &gemm, tile);
    let symbol = format!("{name}_0");
    let mut shared_bytes = 0;
    // Large tiles and fragments need their registers; of small tiles two blocks hide each other's waiting.
    let together = Some(if tensor || tile.rows == 128 { 1 } else { 2 });
    entry(b, &symbol, Block { threads: THREADS as u32, together }, kernel.buffers.len(), |b, pointers, instance| {
        let e = Emitter::with_pointers(b, &gemm.exprs, &kernel.buffers, pointers, instance, 1);
        let mut lowering = Lowering { e, gemm: &gemm, tile, sizes, pieces, factors };
        shared_bytes = lowering.shared_bytes();
        lowering.block();
    });
    let blocks = sizes.batch * sizes.rows.div_ceil(tile.rows) * sizes.columns.div_ceil(tile.columns);
    vec![DeviceStage { symbol, blocks, threads: THREADS as u32, shared_bytes: shared_bytes as u32 }]
}

struct Lowering<'a> {
    e: Emitter<'a>,
    gemm: &'a Gemm,
    tile: Tile,
    sizes: Sizes,
    /// What a long contraction is cut into.
    pieces: Option<Pieces>,
    factors: [Factor; 2],
}

/// Where a block and a thread are.
struct Place {
    point: Point,
    thread: Value,
    /// First row and first column of the tile.
    first: [Value; 2],
}

impl Lowering<'_> {
    fn is_tensor(&self) -> bool {
        self.gemm.precision != Precision::F32
    }

    /// Steps of the contraction that shared memory holds.
    fn stages(&self) -> u64 {
        if self.factors.iter().any(Factor::is_asynchronous) { 3 } else { 2 }
    }

    /// Bytes of one step of both factors.
    fn stage_bytes(&self) -> u64 {
        self.factors.iter().map(Factor::bytes).sum()
    }

    /// Groups of rows that the epilogue handles one after the other.
    fn groups(&self) -> u64 {
        if self.is_tensor() { tensor::groups(self.tile) } else { scalar::groups(self.tile) }
    }

    fn shared_bytes(&self) -> u64 {
        let results = 4 * self.tile.rows / self.groups() * (self.tile.columns + PADDING);
        results.max(self.stages() * self.stage_bytes())
    }

    fn block(&mut self) {
        let (tile, gemm) = (self.tile, self.gemm);
        let b = &mut *self.e.b;
        let (thread, block) = (b.thread(), b.block());
        let (column_block, rest) = b.split(block, self.sizes.columns.div_ceil(tile.columns));
        let (row_block, batch) = b.split(rest, self.sizes.rows.div_ceil(tile.rows));
        let first = [b.times(row_block, tile.rows), b.times(column_block, tile.columns)];
        let mut point = Point::new(gemm.batch.len() + gemm.m.len() + gemm.n.len() + gemm.k.len(), 1);
        if !gemm.batch.is_empty() {
            point = decode(b, &point, 0, &gemm.batch, batch);
        }
        let mut roots = vec![gemm.lhs, gemm.rhs];
        roots.extend(gemm.stores.iter().flat_map(|store| std::iter::once(store.value).chain(store.index.values())));
        self.e.hoist(&mut point, &roots);
        let place = Place { point, thread, first };
        let sums = self.contraction(&place);
        self.epilogue(&place, &sums);
    }

    /// The thread's sums. While one step is multiplied, the ones after it are on their way.
    fn contraction(&mut self, place: &Place) -> Vec<Value> {
        let steps = self.sizes.depth.div_ceil(self.tile.depth);
        let ahead = self.stages() - 1;
        let asynchronous = self.factors.iter().any(Factor::is_asynchronous);
        for step in 0..ahead {
            if step < steps {
                let (step, number) = (self.e.b.i64(step as i64), self.e.b.i64(step as i64));
                let loaded = self.fetch(place, step, number, None);
                self.keep(place, &loaded, number);
            }
            if asynchronous {
                self.e.b.commit_copies();
            }
        }
        let sums = match self.pieces {
            None => {
                let all = (self.e.b.i64(0), self.e.b.i64(steps as i64));
                self.steps(place, all)
            }
            Some(pieces) => self.in_pieces(place, steps, pieces),
        };
        if asynchronous {
            self.e.b.await_copies(0);
        }
        sums
    }

    /// The thread's sums over some steps of the contraction.
    fn steps(&mut self, place: &Place, (low, high): (Value, Value)) -> Vec<Value> {
        let steps = self.sizes.depth.div_ceil(self.tile.depth);
        let ahead = self.stages() - 1;
        let asynchronous = self.factors.iter().any(Factor::is_asynchronous);
        let (zero, one) = (self.e.b.float(1, 0.0), self.e.b.i64(1));
        let open = self.e.b.begin_loop((low, high, one), &vec![zero; self.sums() as usize]);
        if asynchronous {
            self.e.b.await_copies(ahead - 1);
        }
        self.e.b.barrier();
        let next = self.e.b.plus(open.counter, ahead);
        let (now, _) = self.e.b.split(open.counter, self.stages());
        let (then, _) = self.e.b.split(next, self.stages());
        let limit = self.e.b.i64(steps as i64);
        let exists = self.e.b.compare(Compare::Less, next, limit);
        let loaded = if steps > ahead { self.fetch(place, next, then, Some(exists)) } else { Vec::new() };
        if asynchronous {
            self.e.b.commit_copies();
        }
        let stage = self.e.b.times(now, self.stage_bytes());
        let sums = match self.is_tensor() {
            true => self.multiply_tensors(place, stage, open.carried.clone()),
            false => self.multiply_scalars(place, stage, open.carried.clone()),
        };
        self.keep(place, &loaded, then);
        self.e.b.end_loop(open, &sums)
    }

    /// Sums of a thread.
    fn sums(&self) -> u64 {
        self.tile.rows * self.tile.columns / THREADS
    }

    /// Passes the sums through shared memory, a group of rows at a time, and executes the stores.
    fn epilogue(&mut self, place: &Place, sums: &[Value]) {
        for group in 0..self.groups() {
            self.e.b.barrier();
            match self.is_tensor() {
                true => self.share_tensors(place, sums, group),
                false => self.share_scalars(place, sums, group),
            }
            self.e.b.barrier();
            self.store_group(place, group);
        }
    }

    /// The byte address in shared memory.
    fn shared_at(&mut self, bytes: Value) -> Value {
        let base = self.e.b.shared(0);
        self.e.b.address(base, bytes, Elem::I8)
    }

    /// Where the sum of a row of the group and a column lies in shared memory.
    fn result(&mut self, row: Value, column: Value) -> Value {
        let position = self.e.b.times(row, self.tile.columns + PADDING);
        let position = self.e.b.add(position, column);
        let base = self.e.b.shared(0);
        self.e.b.float_at(base, position)
    }

    /// The stores of a group of rows, an element a thread.
    fn store_group(&mut self, place: &Place, group: u64) {
        let tile = self.tile;
        let height = tile.rows / self.groups();
        let open = self.e.b.begin_count(height * tile.columns / THREADS, &[]);
        let position = self.e.b.times(open.counter, THREADS);
        let position = self.e.b.add(position, place.thread);
        let (column, row) = self.e.b.split(position, tile.columns);
        let address = self.result(row, column);
        let row = match self.is_tensor() {
            true => tensor::row_of(self.e.b, tile, group, row),
            false => self.e.b.plus(row, group * height),
        };
        let (row, column) = (self.e.b.add(place.first[0], row), self.e.b.add(place.first[1], column));
        let inside =
            [self.inside(row, self.sizes.rows, tile.rows), self.inside(column, self.sizes.columns, tile.columns)];
        let inside = self.both(inside);
        let open_inside = inside.map(|inside| self.e.b.begin_if(inside, &[]));
        let sum = self.e.b.load(address, Type::scalar(Elem::F32), false);
        let first = self.gemm.batch.len() as u32;
        let point = decode(self.e.b, &place.point, first, &self.gemm.m, row);
        let mut point = decode(self.e.b, &point, first + self.gemm.m.len() as u32, &self.gemm.n, column);
        point.set_accumulator(0, sum);
        for store in &self.gemm.stores {
            self.e.evaluate(&mut point, store.value);
        }
        self.gemm.stores.iter().for_each(|store| self.e.store(&mut point, store));
        if let Some(inside) = open_inside {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(inside, &[]);
        }
        self.e.b.end_loop(open, &[]);
    }

    /// Whether a position is below its extent; `None` where tiles fit.
    fn inside(&mut self, position: Value, extent: u64, tile: u64) -> Option<Value> {
        let limit = self.e.b.i64(extent as i64);
        (!extent.is_multiple_of(tile)).then(|| self.e.b.compare(Compare::Less, position, limit))
    }

    fn both(&mut self, conditions: [Option<Value>; 2]) -> Option<Value> {
        match conditions {
            [Some(a), Some(b)] => Some(self.e.b.and(a, b)),
            [a, b] => a.or(b),
        }
    }
}
