//! The way of a factor to shared memory.
//!
//! A factor that is an array in memory, contiguous along its own dims or along the contraction, is moved by 16 bytes: by
//! asynchronous copies, which no register sees, if it lies there as it is multiplied; an array of f32 goes to tensor cores
//! through registers, where it is rounded. Anything else is evaluated element by element. Shared memory keeps the order of memory, so that both ends are
//! contiguous.

use super::{Lowering, Place, THREADS, Tile, decode};
use crate::{
    emit::builder::{Elem, Type, Value},
    ir::{DType, Expr, ExprId, Gemm, Index, Kernel, Precision},
};

/// Bytes that a thread moves at once.
const VECTOR_BYTES: u64 = 16;

/// What a factor is and how it is kept.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    value: ExprId,
    /// Its own dims (rows of the left factor, columns of the right one) and the number of their first variable.
    dims: Vec<u64>,
    first_var: u32,
    extent: u64,
    /// Elements of a tile along the own dims, and along the contraction.
    width: u64,
    depth: u64,
    /// Contiguous along the contraction rather than along the own dims.
    pub along_depth: bool,
    /// If it is moved by vectors, the array.
    array: Option<Array>,
    /// Bytes of an element in shared memory.
    pub size: u64,
    /// Bytes that a line is longer than it must be, so that lines start in different banks.
    padding: u64,
    /// Where it begins in a stage, in bytes.
    pub offset: u64,
}

/// An array whose elements along a line lie side by side, in vectors of 16 bytes.
#[derive(Clone, Debug)]
struct Array {
    buffer: u32,
    index: Index,
    /// Bytes of an element.
    size: u64,
}

/// Left and right factor.
pub(super) fn factors(kernel: &Kernel, gemm: &Gemm, tile: Tile) -> [Factor; 2] {
    let (batch, m) = (gemm.batch.len() as u32, gemm.m.len() as u32);
    let mut left = Factor::new(kernel, gemm, (gemm.lhs, &gemm.m, batch), (tile.rows, tile.depth));
    let mut right = Factor::new(kernel, gemm, (gemm.rhs, &gemm.n, batch + m), (tile.columns, tile.depth));
    left.offset = 0;
    right.offset = left.bytes();
    [left, right]
}

impl Factor {
    fn new(
        kernel: &Kernel,
        gemm: &Gemm,
        (value, dims, first_var): (ExprId, &[u64], u32),
        (width, depth): (u64, u64),
    ) -> Factor {
        let depth_var = (gemm.batch.len() + gemm.m.len() + gemm.n.len() + gemm.k.len()).checked_sub(1);
        let last_depth = depth_var.filter(|_| !gemm.k.is_empty()).map(|var| var as u32);
        let along_depth = last_depth.is_some_and(|var| contiguous(gemm, value, var));
        let (line, var) = match along_depth {
            true => (&gemm.k[..], last_depth),
            false => (dims, (first_var + dims.len() as u32).checked_sub(1).filter(|_| !dims.is_empty())),
        };
        let array = var.and_then(|var| vectors(kernel, gemm, value, (line, var)));
        let size = if gemm.precision == Precision::Bf16 { 2 } else { 4 };
        let extent = dims.iter().product();
        // Where fragments take four lines at once, those must be eight banks apart.
        let padding = if gemm.precision == Precision::Tf32 && !along_depth { 32 } else { 16 };
        let dims = dims.to_vec();
        Factor { value, dims, first_var, extent, width, depth, along_depth, array, size, padding, offset: 0 }
    }

    /// Whether copies bypass the registers.
    pub fn is_asynchronous(&self) -> bool {
        self.array.as_ref().is_some_and(|array| array.size == self.size)
    }

    /// Elements that are contiguous in shared memory, and lines of them.
    fn lines(&self) -> (u64, u64) {
        if self.along_depth { (self.depth, self.width) } else { (self.width, self.depth) }
    }

    /// Bytes from line to line.
    pub fn stride(&self) -> u64 {
        self.lines().0 * self.size + self.padding
    }

    pub fn bytes(&self) -> u64 {
        self.lines().1 * self.stride()
    }

    /// Elements that a thread moves at once.
    fn vector(&self) -> u64 {
        self.array.as_ref().map_or(1, |array| VECTOR_BYTES / array.size)
    }

    /// How often a thread moves something.
    fn moves(&self) -> u64 {
        self.width * self.depth / (self.vector() * THREADS)
    }
}

fn contiguous(gemm: &Gemm, value: ExprId, var: u32) -> bool {
    let mut loads = gemm.exprs.reachable(&[value]).into_iter().filter_map(|id| match gemm.exprs.get(id) {
        Expr::Load { index, .. } => Some(index),
        _ => None,
    });
    loads.any(|index| index.stride_of(var, &gemm.exprs) == Some(1))
}

/// The array that a factor is, if the elements of a vector along `var`, the last of the dims `line`, always lie side by
/// side and at a multiple of 16 bytes. Arguments of a launch whose size is such a multiple begin at one.
fn vectors(kernel: &Kernel, gemm: &Gemm, value: ExprId, (line, var): (&[u64], u32)) -> Option<Array> {
    let Expr::Load { buffer, index, guard: None } = gemm.exprs.get(value) else { return None };
    let array = &kernel.buffers[*buffer as usize];
    let size = array.dtype.bytes();
    let (vector, step) = (VECTOR_BYTES / size, (VECTOR_BYTES / size) as i64);
    let stride = |other: u32| index.stride_of(other, &gemm.exprs);
    let vars = (gemm.batch.len() + gemm.m.len() + gemm.n.len() + gemm.k.len()) as u32;
    let others = (0..vars).all(|other| other == var || stride(other).is_some_and(|stride| stride % step == 0));
    let base = index.evaluate(&vec![0; vars as usize], &mut |_| 0);
    let whole = line.last().is_some_and(|last| last.is_multiple_of(vector));
    let kept = gemm.precision == Precision::Bf16 || array.dtype == DType::F32;
    let aligned = others && base % step == 0 && index.values().is_empty() && array.elements.is_multiple_of(vector);
    (kept && whole && aligned && stride(var) == Some(1)).then(|| Array { buffer: *buffer, index: index.clone(), size })
}

/// Elements on their way, those of one vector together.
pub(super) type Loaded = Vec<Vec<Value>>;

impl Lowering<'_> {
    /// Starts copies of a step into stage `number`, and loads what goes through registers; nothing if not `exists`.
    pub(super) fn fetch(&mut self, place: &Place, step: Value, number: Value, exists: Option<Value>) -> Loaded {
        let depth = self.e.b.times(step, self.tile.depth);
        let stage = self.e.b.times(number, self.stage_bytes());
        let mut loaded = Vec::new();
        for side in 0..2 {
            let factor = self.factors[side].clone();
            if !factor.is_asynchronous() {
                // What is loaded past the end is not used.
                let last = self.e.b.i64((self.sizes.depth.div_ceil(self.tile.depth) - 1) as i64);
                let clamped = self.e.b.min_signed(step, last);
                let depth = self.e.b.times(clamped, self.tile.depth);
                loaded.extend((0..factor.moves()).map(|turn| self.load(place, (side, &factor), depth, turn)));
                continue;
            }
            let open = exists.map(|exists| self.e.b.begin_if(exists, &[]));
            (0..factor.moves()).for_each(|turn| self.copy(place, (side, &factor), (depth, stage), turn));
            if let Some(open) = open {
                self.e.b.begin_else(&[]);
                self.e.b.end_if(open, &[]);
            }
        }
        loaded
    }

    /// Stores what went through registers into stage `number`.
    pub(super) fn keep(&mut self, place: &Place, loaded: &[Vec<Value>], number: Value) {
        let stage = self.e.b.times(number, self.stage_bytes());
        let mut loaded = loaded.iter();
        for side in 0..2 {
            let factor = self.factors[side].clone();
            if factor.is_asynchronous() {
                continue;
            }
            for turn in 0..factor.moves() {
                let Some(values) = loaded.next() else { return };
                let (line, element) = self.position(place, &factor, turn);
                let address = self.kept_at(&factor, stage, line, element);
                self.keep_vector(&factor, values, address);
            }
        }
    }

    fn keep_vector(&mut self, factor: &Factor, values: &[Value], address: Value) {
        if factor.size == 4 {
            let vector = self.e.b.assemble(values);
            return self.e.b.store_aligned(vector, address, 4 * values.len() as u32);
        }
        match values {
            [value] => {
                let stored = self.e.b.narrow_bf16(*value);
                self.e.b.store(stored, address);
            }
            _ => {
                let pairs: Vec<Value> = values.chunks(2).map(|pair| self.e.b.pack_bf16(pair[0], pair[1])).collect();
                let vector = self.e.b.assemble(&pairs);
                self.e.b.store_aligned(vector, address, 8);
            }
        }
    }

    /// The line, and the first element in it, of what a thread moves at a turn.
    fn position(&mut self, place: &Place, factor: &Factor, turn: u64) -> (Value, Value) {
        let position = self.e.b.plus(place.thread, turn * THREADS);
        let (vector, line) = self.e.b.split(position, factor.lines().0 / factor.vector());
        (line, self.e.b.times(vector, factor.vector()))
    }

    pub(super) fn kept_at(&mut self, factor: &Factor, stage: Value, line: Value, element: Value) -> Value {
        let line = self.e.b.times(line, factor.stride());
        let element = self.e.b.times(element, factor.size);
        let offset = self.e.b.add(line, element);
        let offset = self.e.b.add(offset, stage);
        let offset = self.e.b.plus(offset, factor.offset);
        self.shared_at(offset)
    }

    /// Where in the product the element lies: along the own dims and along the contraction; and whether it exists.
    fn coordinates(
        &mut self,
        place: &Place,
        (side, factor): (usize, &Factor),
        depth: Value,
        turn: u64,
    ) -> (Value, Value, Option<Value>) {
        let (line, element) = self.position(place, factor, turn);
        let (own, along) = if factor.along_depth { (line, element) } else { (element, line) };
        let (own, along) = (self.e.b.add(place.first[side], own), self.e.b.add(depth, along));
        let conditions =
            [self.inside(own, factor.extent, factor.width), self.inside(along, self.sizes.depth, factor.depth)];
        let exists = self.both(conditions);
        (own, along, exists)
    }

    /// The point of an element; `own` and `along` must exist.
    fn factor_point(&mut self, place: &Place, factor: &Factor, own: Value, along: Value) -> crate::emit::point::Point {
        let first_depth = (self.gemm.batch.len() + self.gemm.m.len() + self.gemm.n.len()) as u32;
        let point = decode(self.e.b, &place.point, factor.first_var, &factor.dims, own);
        decode(self.e.b, &point, first_depth, &self.gemm.k, along)
    }

    fn copy(&mut self, place: &Place, (side, factor): (usize, &Factor), (depth, stage): (Value, Value), turn: u64) {
        let (own, along, exists) = self.coordinates(place, (side, factor), depth, turn);
        let (line, element) = self.position(place, factor, turn);
        let to = self.kept_at(factor, stage, line, element);
        let Array { buffer, index, .. } = factor.array.clone().expect("asynchronous factors are arrays");
        let mut point = self.factor_point(place, factor, own, along);
        // An address that does not exist is not read, but must be one.
        let base = self.e.pointer(buffer);
        let from = self.e.element(&mut point, buffer, &index, 0);
        let from = exists.map_or(from, |exists| self.e.b.select(exists, from, base));
        self.e.b.copy_async(to, from, exists);
    }

    fn load(&mut self, place: &Place, (side, factor): (usize, &Factor), depth: Value, turn: u64) -> Vec<Value> {
        let (own, along, exists) = self.coordinates(place, (side, factor), depth, turn);
        let ty = Type::vector(Elem::F32, factor.vector() as u32);
        let open = exists.map(|exists| self.e.b.begin_if(exists, &[ty]));
        let mut point = self.factor_point(place, factor, own, along);
        let mut value = match &factor.array {
            None => {
                let value = self.e.evaluate(&mut point, factor.value);
                self.e.b.splat(value, 1)
            }
            Some(Array { buffer, index, .. }) => {
                let address = self.e.element(&mut point, *buffer, index, 0);
                self.e.b.load_aligned(address, ty, 16, true)
            }
        };
        if let Some(open) = open {
            self.e.b.begin_else(&[value]);
            let zero = self.e.b.zero(ty);
            value = self.e.b.end_if(open, &[zero])[0];
        }
        (0..factor.vector() as u32).map(|lane| self.e.b.extract(value, lane)).collect()
    }
}
