//! Element-wise nests whose arrays run along different loops. A block takes a square of the two loops; what lies across goes
//! through shared memory, so that every access to global memory is by neighbouring threads (Ruetsch and Micikevicius,
//! Optimizing Matrix Transpose in CUDA, 2009).

use super::{DeviceStage, roots};
use crate::{
    cuda::{entry, simt::WARP},
    emit::{
        builder::{Block, Builder, Compare, Type, Value},
        point::{Emitter, Point},
    },
    ir::{Buffer, Expr, ExprId, Index, Nest, Store, Sweep},
};

/// Elements along both sides of a square.
const SIDE: u64 = WARP as u64;
/// Lines of a square that a block handles at once.
const LINES: u64 = 8;
const THREADS: u64 = SIDE * LINES;
/// Elements from line to line in shared memory: columns, too, lie in different banks.
const ROW: u64 = SIDE + 1;
/// f32 or i32 elements of a square in shared memory.
const SLOT: u64 = SIDE * ROW;
/// Arrays that go through shared memory at most; further ones are accessed as they lie.
const MOST_TURNED: usize = 8;

/// Which accesses are turned.
pub(super) struct Transpose {
    /// The loop along which neighbouring threads evaluate.
    across: u32,
    /// The loop along which the turned arrays lie.
    down: u32,
    loads: Vec<ExprId>,
    stores: Vec<usize>,
}

impl Transpose {
    /// What to turn in a nest whose neighbouring threads would take neighbours along `across`; `None` if nothing.
    pub fn of(nest: &Nest, across: u32) -> Option<Transpose> {
        let [Sweep { reductions, stores, .. }] = &nest.sweeps[..] else { return None };
        if !nest.inner.is_empty() || !reductions.is_empty() {
            return None;
        }
        let loads: Vec<(ExprId, &Index)> = nest
            .exprs
            .reachable(&roots(&nest.sweeps[0]))
            .into_iter()
            .filter_map(|id| match nest.exprs.get(id) {
                Expr::Load { index, .. } => Some((id, index)),
                _ => None,
            })
            .collect();
        let down = loads
            .iter()
            .map(|&(_, index)| index)
            .chain(stores.iter().map(|store| &store.index))
            .find_map(|index| turned_along(nest, index, across))?;
        let is_turned = |index: &Index| turned_along(nest, index, across) == Some(down);
        let turned = loads.iter().filter(|(_, index)| is_turned(index)).map(|&(id, _)| id);
        let loads: Vec<ExprId> = turned.take(MOST_TURNED).collect();
        let turned = (0..stores.len()).filter(|&number| is_turned(&stores[number].index));
        let stores = turned.take(MOST_TURNED - loads.len()).collect();
        Some(Transpose { across, down, loads, stores })
    }

    fn slots(&self) -> u64 {
        (self.loads.len() + self.stores.len()) as u64
    }
}

/// The loop along which an array lies, if neighbours along `across` are apart in it.
fn turned_along(nest: &Nest, index: &Index, across: u32) -> Option<u32> {
    let stride = |var: u32| index.stride_of(var, &nest.exprs);
    if matches!(stride(across), Some(0 | 1)) {
        return None;
    }
    (0..nest.parallel.len() as u32).find(|&var| var != across && stride(var) == Some(1))
}

/// Lowers a nest to one launch.
pub(super) fn lower(b: &mut Builder, buffers: &[Buffer], nest: &Nest, plan: &Transpose, symbol: String) -> DeviceStage {
    let block = Block { threads: THREADS as u32, together: None };
    entry(b, &symbol, block, buffers.len(), |b, pointers, instance| {
        let e = Emitter::with_pointers(b, &nest.exprs, buffers, pointers, instance, 1);
        Lowering { e, nest, plan }.block();
    });
    let extent = |var: u32| nest.parallel[var as usize];
    let [across, down] = [plan.across, plan.down].map(extent);
    let others = nest.parallel.iter().product::<u64>() / (across * down);
    let blocks = others * across.div_ceil(SIDE) * down.div_ceil(SIDE);
    DeviceStage { symbol, blocks, threads: THREADS as u32, shared_bytes: (4 * SLOT * plan.slots()) as u32 }
}

struct Lowering<'a> {
    e: Emitter<'a>,
    nest: &'a Nest,
    plan: &'a Transpose,
}

/// The square of a block.
struct Square {
    /// Everything but the two loops.
    point: Point,
    lane: Value,
    line: Value,
    /// First iteration of the loop across, and of the one down.
    first: [Value; 2],
}

/// Which way neighbouring threads go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Across,
    Down,
}

impl Lowering<'_> {
    fn block(&mut self) {
        let square = self.square();
        let stores = &self.nest.sweeps[0].stores;
        let turned: Vec<&Store> = self.plan.stores.iter().map(|&number| &stores[number]).collect();
        let loads = self.plan.loads.len() as u64;
        let mut types = Vec::new();
        if loads > 0 {
            types = self.for_lines(&square, Way::Down, |lowering, mut point, [place, _]| {
                let values = lowering.plan.loads.iter().map(|&load| lowering.e.evaluate(&mut point, load)).collect();
                lowering.keep(0, values, place)
            });
            self.e.b.barrier();
        }
        let types = self.for_lines(&square, Way::Across, |lowering, mut point, [place, mirrored]| {
            lowering.take(&mut point, (0, &lowering.plan.loads), &types, mirrored);
            let values = lowering.evaluate(&mut point, &turned);
            lowering.keep(loads, values, place)
        });
        if turned.is_empty() {
            return;
        }
        self.e.b.barrier();
        let values: Vec<ExprId> = turned.iter().map(|store| store.value).collect();
        self.for_lines(&square, Way::Down, |lowering, mut point, [_, mirrored]| {
            lowering.take(&mut point, (loads, &values), &types, mirrored);
            turned.iter().for_each(|store| lowering.e.store(&mut point, store));
        });
    }

    fn square(&mut self) -> Square {
        let b = &mut *self.e.b;
        let (thread, block) = (b.thread(), b.block());
        let (lane, line) = b.split(thread, SIDE);
        let vars = self.nest.parallel.len();
        let mut point = Point::new(vars, 0);
        let mut rest = block;
        let first = [self.plan.across, self.plan.down].map(|var| {
            let (square, outer) = b.split(rest, self.nest.parallel[var as usize].div_ceil(SIDE));
            rest = outer;
            b.times(square, SIDE)
        });
        for var in (0..vars as u32).rev().filter(|var| ![self.plan.across, self.plan.down].contains(var)) {
            let (place, outer) = b.split(rest, self.nest.parallel[var as usize]);
            point = point.at(var, place);
            rest = outer;
        }
        self.e.hoist(&mut point, &roots(&self.nest.sweeps[0]));
        Square { point, lane, line, first }
    }

    /// Emits for each element of the square that exists. The body is given its place in shared memory, and the place of its
    /// mirror image, for which threads go the other way.
    fn for_lines<R>(&mut self, square: &Square, way: Way, emit: impl FnOnce(&mut Self, Point, [Value; 2]) -> R) -> R {
        let open = self.e.b.begin_count(SIDE / LINES, &[]);
        let line = self.e.b.times(open.counter, LINES);
        let line = self.e.b.add(line, square.line);
        let (across, down) = if way == Way::Across { (square.lane, line) } else { (line, square.lane) };
        let [across, down] = [(0, across), (1, down)].map(|(side, within)| self.e.b.add(square.first[side], within));
        let inside = [(self.plan.across, across), (self.plan.down, down)].map(|(var, at)| self.inside(var, at));
        let inside = match inside {
            [Some(a), Some(b)] => Some(self.e.b.and(a, b)),
            [a, b] => a.or(b),
        };
        let places = [(line, square.lane), (square.lane, line)].map(|(row, column)| {
            let row = self.e.b.times(row, ROW);
            self.e.b.add(row, column)
        });
        let point = square.point.at(self.plan.across, across).at(self.plan.down, down);
        let condition = inside.map(|inside| self.e.b.begin_if(inside, &[]));
        let result = emit(self, point, places);
        if let Some(condition) = condition {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(condition, &[]);
        }
        self.e.b.end_loop(open, &[]);
        result
    }

    /// Whether an iteration exists; `None` if all of a square do.
    fn inside(&mut self, var: u32, at: Value) -> Option<Value> {
        let extent = self.nest.parallel[var as usize];
        let limit = self.e.b.i64(extent as i64);
        (!extent.is_multiple_of(SIDE)).then(|| self.e.b.compare(Compare::Less, at, limit))
    }

    fn address(&mut self, slot: u64, place: Value) -> Value {
        let base = self.e.b.shared(slot * SLOT);
        self.e.b.float_at(base, place)
    }

    /// Writes values to the slots from `first` on; returns their types.
    fn keep(&mut self, first: u64, values: Vec<Value>, place: Value) -> Vec<Type> {
        for (slot, &value) in (first..).zip(&values) {
            let address = self.address(slot, place);
            self.e.b.store(value, address);
        }
        values.iter().map(|value| value.ty).collect()
    }

    /// Makes expressions known at a point: they were kept in the slots from `first` on.
    fn take(&mut self, point: &mut Point, (first, exprs): (u64, &[ExprId]), types: &[Type], place: Value) {
        for ((slot, &expr), &ty) in (first..).zip(exprs).zip(types) {
            let address = self.address(slot, place);
            point.set_value(expr, self.e.b.load(address, ty, false));
        }
    }

    /// Evaluates everything, then executes the stores that are not turned. Returns what the others store.
    fn evaluate(&mut self, point: &mut Point, turned: &[&Store]) -> Vec<Value> {
        let sweep = &self.nest.sweeps[0];
        for root in roots(sweep) {
            self.e.evaluate(point, root);
        }
        let direct = sweep.stores.iter().enumerate().filter(|(number, _)| !self.plan.stores.contains(number));
        direct.for_each(|(_, store)| self.e.store(point, store));
        turned.iter().map(|store| self.e.evaluate(point, store.value)).collect()
    }
}
