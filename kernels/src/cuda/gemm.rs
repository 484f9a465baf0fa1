//! Lowering of [`Gemm`]s: a thread block computes a tile of the result.
//!
//! Factors are evaluated where they are used (a prologue is an expression like any other), rounded as the product says,
//! and kept in shared memory, two steps of the contraction at a time: while one is multiplied, the next is loaded. The
//! sums of one element are added in the order of the contraction. The epilogue passes them through shared memory once
//! more, so that neighbouring threads store neighbouring elements and its code exists once.

use super::{DeviceStage, decode, entry};
use crate::{
    emit::{
        builder::{Builder, Compare, Elem, Type, Value},
        point::{Emitter, Point},
    },
    gemm::prepare::prepare,
    ir::{ExprId, Gemm, Kernel, Precision},
};

/// Elements that a row in shared memory is longer than it must be, so that rows start in different banks.
const PADDING: u64 = 4;
/// Blocks that fill a device.
const BLOCKS_WANTED: u64 = 96;

/// A tile of the result.
#[derive(Clone, Copy, Debug)]
struct Tile {
    rows: u64,
    columns: u64,
    /// Of the contraction, per step.
    depth: u64,
    /// Rows and columns of a thread.
    thread: u64,
}

/// From large to small. All have 256 threads.
const TILES: [Tile; 3] = [
    Tile { rows: 128, columns: 128, depth: 16, thread: 8 },
    Tile { rows: 64, columns: 64, depth: 16, thread: 4 },
    Tile { rows: 32, columns: 32, depth: 32, thread: 2 },
];

impl Tile {
    fn choose(m: u64, n: u64, batch: u64) -> Tile {
        let blocks = |tile: &Tile| batch * m.div_ceil(tile.rows) * n.div_ceil(tile.columns);
        let fills = |tile: &&Tile| blocks(tile) >= BLOCKS_WANTED;
        *TILES.iter().find(fills).unwrap_or(&TILES[TILES.len() - 1])
    }

    /// Threads side by side.
    fn across(self) -> u64 {
        self.columns / self.thread
    }

    fn threads(self) -> u64 {
        self.across() * self.rows / self.thread
    }

    /// Neighbouring elements that a thread loads from shared memory at once.
    fn vector(self) -> u64 {
        self.thread.min(4)
    }

    /// Vectors of rows of a thread; they lie `rows / groups` apart.
    fn groups(self) -> u64 {
        self.thread / self.vector()
    }

    /// Elements of one step of both factors.
    fn stage(self) -> u64 {
        self.depth * (self.rows + self.columns + 2 * PADDING)
    }

    fn shared_bytes(self) -> u64 {
        let epilogue = self.rows / self.groups() * (self.columns + PADDING);
        4 * (2 * self.stage()).max(epilogue)
    }
}

/// Lowers a verified product.
pub(super) fn lower(b: &mut Builder, kernel: &Kernel, gemm: &Gemm, name: &str) -> Vec<DeviceStage> {
    let gemm = prepare(gemm, 4);
    let [batch, rows, columns, depth] =
        [&gemm.batch, &gemm.m, &gemm.n, &gemm.k].map(|dims| dims.iter().product::<u64>());
    let tile = Tile::choose(rows, columns, batch);
    let symbol = format!("{name}_0");
    let threads = tile.threads() as u32;
    entry(b, &symbol, threads, kernel.buffers.len(), |b, pointers, instance| {
        let e = Emitter::with_pointers(b, &gemm.exprs, &kernel.buffers, pointers, instance, 1);
        Lowering { e, gemm: &gemm, tile, rows, columns, depth }.block();
    });
    let blocks = batch * rows.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
    vec![DeviceStage { symbol, blocks, threads, shared_bytes: tile.shared_bytes() as u32 }]
}

struct Lowering<'a> {
    e: Emitter<'a>,
    gemm: &'a Gemm,
    tile: Tile,
    rows: u64,
    columns: u64,
    depth: u64,
}

/// A factor: `extent` rows (of the left one) or columns (of the right one), a tile of them from `first` on.
#[derive(Clone, Copy)]
struct Factor<'a> {
    value: ExprId,
    /// Its own dims and the number of their first variable.
    dims: &'a [u64],
    first_var: u32,
    extent: u64,
    first: Value,
    /// Elements of the tile along `dims`.
    width: u64,
    /// Where it lies in a stage.
    offset: u64,
}

/// Where a block and a thread are.
struct Place {
    point: Point,
    thread: Value,
    row: Value,
    column: Value,
}

impl Lowering<'_> {
    fn block(&mut self) {
        let tile = self.tile;
        let gemm = self.gemm;
        let b = &mut *self.e.b;
        let (thread, block) = (b.thread(), b.block());
        let (column_block, rest) = b.split(block, self.columns.div_ceil(tile.columns));
        let (row_block, batch) = b.split(rest, self.rows.div_ceil(tile.rows));
        let (row, column) = (b.times(row_block, tile.rows), b.times(column_block, tile.columns));
        let mut point = Point::new(gemm.batch.len() + gemm.m.len() + gemm.n.len() + gemm.k.len(), 1);
        if !gemm.batch.is_empty() {
            point = decode(b, &point, 0, &gemm.batch, batch);
        }
        let mut roots = vec![gemm.lhs, gemm.rhs];
        roots.extend(gemm.stores.iter().flat_map(|store| std::iter::once(store.value).chain(store.index.values())));
        self.e.hoist(&mut point, &roots);
        let place = Place { point, thread, row, column };
        let sums = self.contraction(&place);
        self.epilogue(&place, &sums);
    }

    fn factors(&self, place: &Place) -> [Factor<'_>; 2] {
        let (batch, m) = (self.gemm.batch.len() as u32, self.gemm.m.len() as u32);
        let left = Factor {
            value: self.gemm.lhs,
            dims: &self.gemm.m,
            first_var: batch,
            extent: self.rows,
            first: place.row,
            width: self.tile.rows,
            offset: 0,
        };
        let right = Factor {
            value: self.gemm.rhs,
            dims: &self.gemm.n,
            first_var: batch + m,
            extent: self.columns,
            first: place.column,
            width: self.tile.columns,
            offset: self.tile.depth * (self.tile.rows + PADDING),
        };
        [left, right]
    }

    /// The sums of the thread's elements, row by row.
    fn contraction(&mut self, place: &Place) -> Vec<Value> {
        let steps = self.depth.div_ceil(self.tile.depth);
        let zero = self.e.b.float(1, 0.0);
        let sums = vec![zero; (self.tile.thread * self.tile.thread) as usize];
        let first = self.e.b.i64(0);
        let loaded = self.load(place, first);
        self.keep(place, &loaded, first);
        self.e.b.barrier();
        let open = self.e.b.begin_count(steps, &sums);
        let next = self.e.b.plus(open.counter, 1);
        let last = self.e.b.i64(steps as i64 - 1);
        let clamped = self.e.b.min_signed(next, last);
        let loaded = if steps > 1 { self.load(place, clamped) } else { Vec::new() };
        let [now, then] = [open.counter, next].map(|step| {
            let (odd, _) = self.e.b.split(step, 2);
            self.e.b.times(odd, self.tile.stage())
        });
        let sums = self.multiply(place, now, open.carried.clone());
        if steps > 1 {
            self.keep(place, &loaded, then);
            self.e.b.barrier();
        }
        self.e.b.end_loop(open, &sums)
    }

    /// The thread's elements of both factors at a step.
    fn load(&mut self, place: &Place, step: Value) -> Vec<Value> {
        let depth = self.e.b.times(step, self.tile.depth);
        (0..2).flat_map(|side| self.load_factor(place, side, depth)).collect()
    }

    fn load_factor(&mut self, place: &Place, side: usize, depth: Value) -> Vec<Value> {
        let count = self.factors(place)[side].width * self.tile.depth / self.tile.threads();
        (0..count).map(|number| self.load_element(place, side, depth, number)).collect()
    }

    /// The place in the tile of the thread's element `number`: along the factor's own dims, and along the contraction.
    /// Neighbouring threads go along the loop in which the factor is contiguous.
    fn element(&mut self, place: &Place, side: usize, number: u64) -> (Value, Value) {
        let factor = self.factors(place)[side];
        let (width, threads, depth) = (factor.width, self.tile.threads(), self.tile.depth);
        let along_depth = self.is_contiguous_along_depth(factor.value);
        let position = self.e.b.plus(place.thread, number * threads);
        match along_depth {
            true => {
                let (k, at) = self.e.b.split(position, depth);
                (at, k)
            }
            false => self.e.b.split(position, width),
        }
    }

    fn is_contiguous_along_depth(&self, factor: ExprId) -> bool {
        let gemm = self.gemm;
        let Some(last) = gemm.k.len().checked_sub(1) else { return false };
        let var = (gemm.batch.len() + gemm.m.len() + gemm.n.len() + last) as u32;
        let mut loads = gemm.exprs.reachable(&[factor]).into_iter().filter_map(|id| match gemm.exprs.get(id) {
            crate::ir::Expr::Load { index, .. } => Some(index),
            _ => None,
        });
        loads.any(|index| index.stride_of(var, &gemm.exprs) == Some(1))
    }

    fn load_element(&mut self, place: &Place, side: usize, depth: Value, number: u64) -> Value {
        let (at, k) = self.element(place, side, number);
        let factor = self.factors(place)[side];
        let (value, dims, first_var) = (factor.value, factor.dims.to_vec(), factor.first_var);
        let (extent, first, width) = (factor.extent, factor.first, factor.width);
        let (at, k) = (self.e.b.add(first, at), self.e.b.add(depth, k));
        let in_width = self.inside(at, extent, width);
        let in_depth = self.inside(k, self.depth, self.tile.depth);
        let condition = match (in_width, in_depth) {
            (Some(a), Some(b)) => Some(self.e.b.and(a, b)),
            (a, b) => a.or(b),
        };
        let depth_var = (self.gemm.batch.len() + self.gemm.m.len() + self.gemm.n.len()) as u32;
        let open = condition.map(|condition| self.e.b.begin_if(condition, &[Type::scalar(Elem::F32)]));
        let point = decode(self.e.b, &place.point, first_var, &dims, at);
        let mut point = decode(self.e.b, &point, depth_var, &self.gemm.k, k);
        let value = self.e.evaluate(&mut point, value);
        let value = self.rounded(value);
        let Some(open) = open else { return value };
        self.e.b.begin_else(&[value]);
        let zero = self.e.b.float(1, 0.0);
        self.e.b.end_if(open, &[zero])[0]
    }

    /// Whether a position is below its extent; `None` where tiles fit.
    fn inside(&mut self, position: Value, extent: u64, tile: u64) -> Option<Value> {
        let limit = self.e.b.i64(extent as i64);
        (!extent.is_multiple_of(tile)).then(|| self.e.b.compare(Compare::Less, position, limit))
    }

    fn rounded(&mut self, value: Value) -> Value {
        match self.gemm.precision {
            Precision::F32 => value,
            Precision::Bf16 => self.e.b.round_bf16(value),
        }
    }

    /// Stores loaded elements into a stage, `factor[k][at]`.
    fn keep(&mut self, place: &Place, loaded: &[Value], stage: Value) {
        let mut loaded = loaded.iter();
        for side in 0..2 {
            let factor = self.factors(place)[side];
            let (width, offset) = (factor.width, factor.offset);
            for number in 0..width * self.tile.depth / self.tile.threads() {
                let (at, k) = self.element(place, side, number);
                let row = self.e.b.times(k, width + PADDING);
                let position = self.e.b.add(row, at);
                let position = self.e.b.add(position, stage);
                let base = self.e.b.shared(offset);
                let address = self.e.b.float_at(base, position);
                self.e.b.store(*loaded.next().expect("as many as were loaded"), address);
            }
        }
    }

    /// Adds the products of a stage.
    fn multiply(&mut self, place: &Place, stage: Value, sums: Vec<Value>) -> Vec<Value> {
        let tile = self.tile;
        let (across, down) = self.e.b.split(place.thread, tile.across());
        let unroll = 4;
        let open = self.e.b.begin_count(tile.depth / unroll, &sums);
        let mut sums = open.carried.clone();
        for part in 0..unroll {
            let k = self.e.b.times(open.counter, unroll);
            let k = self.e.b.plus(k, part);
            let left = self.fragment(stage, (0, tile.rows), down, k);
            let right = self.fragment(stage, (tile.depth * (tile.rows + PADDING), tile.columns), across, k);
            for (number, sum) in sums.iter_mut().enumerate() {
                let (row, column) = (number / tile.thread as usize, number % tile.thread as usize);
                *sum = self.e.b.fma(left[row], right[column], *sum);
            }
        }
        self.e.b.end_loop(open, &sums)
    }

    /// The thread's elements of a factor at depth `k`.
    fn fragment(&mut self, stage: Value, (offset, width): (u64, u64), number: Value, k: Value) -> Vec<Value> {
        let (vector, groups) = (self.tile.vector(), self.tile.groups());
        let row = self.e.b.times(k, width + PADDING);
        let row = self.e.b.add(row, stage);
        let mut elements = Vec::new();
        for group in 0..groups {
            let at = self.e.b.times(number, vector);
            let at = self.e.b.plus(at, group * (width / groups));
            let at = self.e.b.add(row, at);
            let base = self.e.b.shared(offset);
            let address = self.e.b.float_at(base, at);
            let ty = Type::vector(Elem::F32, vector as u32);
            let loaded = self.e.b.load_aligned(address, ty, 4 * vector as u32, false);
            elements.extend((0..vector as u32).map(|lane| self.e.b.extract(loaded, lane)));
        }
        elements
    }

    /// Passes the sums through shared memory, a group of rows at a time, and executes the stores.
    fn epilogue(&mut self, place: &Place, sums: &[Value]) {
        let tile = self.tile;
        let (vector, groups) = (tile.vector(), tile.groups());
        let (across, down) = self.e.b.split(place.thread, tile.across());
        for group in 0..groups {
            self.e.b.barrier();
            for row in 0..vector {
                let at = self.e.b.times(down, vector);
                let at = self.e.b.plus(at, row);
                for columns in 0..groups {
                    let first = (group * vector + row) * tile.thread + columns * vector;
                    let values: Vec<Value> = (0..vector).map(|lane| sums[(first + lane) as usize]).collect();
                    let column = self.e.b.times(across, vector);
                    let column = self.e.b.plus(column, columns * (tile.columns / groups));
                    let address = self.result(at, column);
                    let values = self.e.b.assemble(&values);
                    self.e.b.store_aligned(values, address, 4 * vector as u32);
                }
            }
            self.e.b.barrier();
            self.store_group(place, group);
        }
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
        let height = tile.rows / tile.groups();
        let open = self.e.b.begin_count(height * tile.columns / tile.threads(), &[]);
        let position = self.e.b.times(open.counter, tile.threads());
        let position = self.e.b.add(position, place.thread);
        let (column, row) = self.e.b.split(position, tile.columns);
        let address = self.result(row, column);
        let first = self.e.b.plus(place.row, group * height);
        let (row, column) = (self.e.b.add(first, row), self.e.b.add(place.column, column));
        let conditions = [self.inside(row, self.rows, tile.rows), self.inside(column, self.columns, tile.columns)];
        let condition = match conditions {
            [Some(a), Some(b)] => Some(self.e.b.and(a, b)),
            [a, b] => a.or(b),
        };
        let inside = condition.map(|condition| self.e.b.begin_if(condition, &[]));
        let sum = self.e.b.load(address, Type::scalar(Elem::F32), false);
        let first = self.gemm.batch.len() as u32;
        let point = decode(self.e.b, &place.point, first, &self.gemm.m, row);
        let mut point = decode(self.e.b, &point, first + self.gemm.m.len() as u32, &self.gemm.n, column);
        point.set_accumulator(0, sum);
        for store in &self.gemm.stores {
            self.e.evaluate(&mut point, store.value);
        }
        self.gemm.stores.iter().for_each(|store| self.e.store(&mut point, store));
        if let Some(inside) = inside {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(inside, &[]);
        }
        self.e.b.end_loop(open, &[]);
    }
}
