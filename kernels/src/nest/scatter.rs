//! Scatters of many rows: what is added to one element is added up in pieces, in the order of the rows.
//!
//! A stage of its own sorts the rows by key (a counting sort, which keeps the order of equal keys); then each key's rows are
//! reduced like a sum, in registers, and the table is touched once for each key that occurs.

use super::{Lowering, Plan, reduce::State};
use crate::{
    emit::{
        builder::{Builder, Compare, Elem, Type, Value},
        point::{Emitter, Point, argument},
        sum::CHAIN,
    },
    ir::{DType, Expr, ExprId, Exprs, Kernel, Nest, ReduceKind, Store},
    stage::{Stage, emit_stage},
};

/// Rows from which on a scatter is more than additions to memory.
const LONG: u64 = 4 * CHAIN;

/// The gathered value by which a pure scatter can be divided: stores of iterations where it differs never meet.
pub(crate) fn key(nest: &Nest) -> Option<ExprId> {
    let [sweep] = &nest.sweeps[..] else { return None };
    let [key] = sweep.stores.first()?.index.values()[..] else { return None };
    let divides = |store: &Store| store.accumulate && is_apart(nest, store, key) && !reads_target(&nest.exprs, store);
    (!sweep.once && sweep.reductions.is_empty() && sweep.stores.iter().all(divides)).then_some(key)
}

/// Whether a store never meets one of another key.
fn is_apart(nest: &Nest, store: &Store, key: ExprId) -> bool {
    let rest = store.index.without_values();
    let (low, high) = rest.range(&extents(nest));
    let within = low >= 0 && high < stride(nest, store);
    let alone = store.index.values() == [key] && rest.values().is_empty();
    alone && (within || is_fixed(nest, store)) && stride(nest, store) > 0
}

/// Whether only the key decides, for given places in the parallel loops, to which element a store adds.
fn is_fixed(nest: &Nest, store: &Store) -> bool {
    let rest = store.index.without_values();
    let first = nest.parallel.len() as u32;
    !(first..first + nest.inner.len() as u32).any(|var| rest.mentions(var))
}

fn extents(nest: &Nest) -> Vec<u64> {
    [&nest.parallel[..], &nest.inner].concat()
}

/// Elements from key to key.
fn stride(nest: &Nest, store: &Store) -> i64 {
    let zeros = vec![0; extents(nest).len()];
    let at = |value: i64| store.index.evaluate(&zeros, &mut |_| value);
    at(1) - at(0)
}

fn reads_target(exprs: &Exprs, store: &Store) -> bool {
    let loads = exprs.reachable(&[store.value]);
    loads.iter().any(|&id| matches!(exprs.get(id), Expr::Load { buffer, .. } if *buffer == store.buffer))
}

/// Whether a nest is a scatter of so many rows that additions one after the other would be wrong by too much.
pub(crate) fn is_long(nest: &Nest) -> bool {
    nest.inner.iter().product::<u64>() > LONG && key(nest).is_some()
}

/// A long scatter whose rows are sorted by their keys.
#[derive(Clone, Debug)]
pub(super) struct Grouped {
    key: ExprId,
    keys: u64,
    rows: u64,
}

impl Grouped {
    /// What a nest with merged loops is, if it is one.
    pub fn of(kernel: &Kernel, nest: &Nest) -> Option<Grouped> {
        let key = key(nest).filter(|_| is_long(nest))?;
        let stores = &nest.sweeps[0].stores;
        let parallel = 0..nest.parallel.len() as u32;
        let shared = !parallel.clone().any(|var| nest.exprs.depends_on(key, var));
        let fixed = stores.iter().all(|store| is_fixed(nest, store));
        let keys = stores.iter().map(|store| {
            let (_, high) = store.index.without_values().range(&extents(nest));
            let elements = kernel.buffers[store.buffer as usize].elements as i64;
            ((elements - 1 - high) / stride(nest, store) + 1).max(1) as u64
        });
        let (keys, rows) = (keys.max()?, nest.inner.iter().product());
        let countable = keys.max(rows) < i32::MAX as u64;
        (shared && fixed && countable).then_some(Grouped { key, keys, rows })
    }

    /// Bytes of workspace: where each key's rows begin, and the rows sorted.
    pub fn workspace_bytes(&self) -> u64 {
        (self.bounds() + self.rows) * DType::I32.bytes()
    }

    /// Bounds in the workspace: rows of key k begin at number k + 1, and end at the next.
    fn bounds(&self) -> u64 {
        self.keys + 2
    }
}

/// The plan of a nest whose inner iterations are taken one by one.
pub(super) fn plan(nest: &Nest, lanes: u32) -> Plan {
    let plan = Plan::new(nest, lanes);
    let vector = plan.vector.filter(|&var| (var as usize) < nest.parallel.len());
    Plan { vector, ..plan }
}

/// Lowers the stage that sorts the rows; it is one tile.
pub(super) fn lower_sort(
    b: &mut Builder,
    kernel: &Kernel,
    nest: &Nest,
    grouped: &Grouped,
    symbol: String,
) -> (String, u64) {
    emit_stage(b, &symbol, |b, stage: Stage| {
        let workspace = argument(b, stage.args, kernel.buffers.len());
        let e = Emitter::new(b, &nest.exprs, &kernel.buffers, stage.args, stage.instance, 1);
        Sort { e, nest, grouped, workspace }.emit();
    });
    (symbol, 1)
}

struct Sort<'a> {
    e: Emitter<'a>,
    nest: &'a Nest,
    grouped: &'a Grouped,
    workspace: Value,
}

impl Sort<'_> {
    /// Clears the counts, counts, turns counts into ends, and puts the rows before the ends of their keys, the last row first:
    /// ends become beginnings.
    fn emit(&mut self) {
        let (bounds, rows) = (self.grouped.bounds(), self.grouped.rows);
        let zero = self.e.b.int(1, 0);
        let open = self.e.b.begin_count(bounds, &[]);
        self.e.b.store_int(self.workspace, open.counter, zero);
        self.e.b.end_loop(open, &[]);

        let open = self.e.b.begin_count(rows, &[]);
        let end = self.end_of(open.counter);
        self.step(end, 1);
        self.e.b.end_loop(open, &[]);

        let open = self.e.b.begin_count(bounds, &[zero]);
        let count = self.e.b.load_int(self.workspace, open.counter);
        let end = self.e.b.add(open.carried[0], count);
        self.e.b.store_int(self.workspace, open.counter, end);
        self.e.b.end_loop(open, &[end]);

        let open = self.e.b.begin_count(rows, &[]);
        let last = self.e.b.i64(rows as i64 - 1);
        let row = self.e.b.sub(last, open.counter);
        let end = self.end_of(row);
        let place = self.step(end, -1);
        let place = self.e.b.extend_signed(place, Elem::I64);
        let place = self.e.b.plus(place, bounds);
        let row = self.e.b.truncate(row, Elem::I32);
        self.e.b.store_int(self.workspace, place, row);
        self.e.b.end_loop(open, &[]);
    }

    /// Which bound belongs to a row: the one after its key's number.
    fn end_of(&mut self, row: Value) -> Value {
        let vars = self.nest.parallel.len() + self.nest.inner.len();
        let point = Point::new(vars, 0);
        let mut point = at_row(self.e.b, self.nest, &point, row);
        let key = self.e.evaluate(&mut point, self.grouped.key);
        let key = self.e.b.extend_signed(key, Elem::I64);
        self.e.b.plus(key, 1)
    }

    /// Adds to a bound; returns what it is then.
    fn step(&mut self, bound: Value, by: i32) -> Value {
        let (old, by) = (self.e.b.load_int(self.workspace, bound), self.e.b.int(1, by));
        let new = self.e.b.add(old, by);
        self.e.b.store_int(self.workspace, bound, new);
        new
    }
}

/// The point with the inner loops at a row, which is their flattened position.
fn at_row(b: &mut Builder, nest: &Nest, point: &Point, row: Value) -> Point {
    let (mut point, mut rest) = (point.clone(), row);
    for (axis, &extent) in nest.inner.iter().enumerate().rev() {
        let (place, outer) = if axis == 0 { (rest, rest) } else { b.split(rest, extent) };
        point = point.at((nest.parallel.len() + axis) as u32, place);
        rest = outer;
    }
    point
}

impl Builder {
    fn load_int(&mut self, base: Value, place: Value) -> Value {
        let address = self.address(base, place, Elem::I32);
        self.load(address, Type::scalar(Elem::I32), false)
    }

    fn store_int(&mut self, base: Value, place: Value, value: Value) {
        let address = self.address(base, place, Elem::I32);
        self.store(value, address);
    }
}

impl Lowering<'_> {
    /// Adds what belongs to each key, for each of the points.
    pub(super) fn keys(&mut self, grouped: &Grouped, workspace: Value, points: &[Point]) {
        let open = self.e.b.begin_count(grouped.keys, &[]);
        let [begin, end] = [1, 2].map(|next| {
            let bound = self.e.b.plus(open.counter, next);
            let bound = self.e.b.load_int(workspace, bound);
            self.e.b.extend_signed(bound, Elem::I64)
        });
        let occurs = self.e.b.compare(Compare::Less, begin, end);
        let branch = self.e.b.begin_if(occurs, &[]);
        let bounds = self.e.b.i64(grouped.bounds() as i64);
        let sorted = self.e.b.address(workspace, bounds, Elem::I32);
        let sums = self.sums_of_rows((sorted, begin, end), points);
        self.add_to_table(grouped.key, open.counter, points, &sums);
        self.e.b.begin_else(&[]);
        self.e.b.end_if(branch, &[]);
        self.e.b.end_loop(open, &[]);
    }

    /// The sums over rows `begin..end` of the sorted ones: for each point, of what each store adds.
    fn sums_of_rows(&mut self, (sorted, begin, end): (Value, Value, Value), points: &[Point]) -> Vec<Vec<Value>> {
        let stores = &self.nest.sweeps[0].stores;
        let width = if self.plan.vector.is_some() { self.e.lanes } else { 1 };
        let kinds = vec![ReduceKind::Sum; stores.len()];
        let fresh = State::fresh(self.e.b, &kinds, width, [points.len(), 1]);
        let totals = State::of_pieces(self.e.b, &kinds, width, points.len());
        let totals = self.in_pieces((begin, end), CHAIN, totals, |lowering, (low, high)| {
            let one = lowering.e.b.i64(1);
            let open = lowering.e.b.begin_loop((low, high, one), &fresh.flat());
            let mut state = fresh.with(&open.carried);
            let row = lowering.e.b.load_int(sorted, open.counter);
            let row = lowering.e.b.extend_signed(row, Elem::I64);
            for (place, point) in points.iter().enumerate() {
                let mut point = at_row(lowering.e.b, lowering.nest, point, row);
                for (number, store) in stores.iter().enumerate() {
                    let value = lowering.e.evaluate_wide(&mut point, store.value);
                    let sum = &mut state.at(place, number)[0];
                    *sum = lowering.e.b.add(*sum, value);
                }
            }
            let after = lowering.e.b.end_loop(open, &state.flat());
            fresh.with(&after)
        });
        (0..points.len()).map(|point| totals.totals_of_pieces(self.e.b, point).concat()).collect()
    }

    /// Executes the stores for one key, with the sums in the place of their values.
    fn add_to_table(&mut self, key: ExprId, number: Value, points: &[Point], sums: &[Vec<Value>]) {
        let number = self.e.b.truncate(number, Elem::I32);
        for (point, sums) in points.iter().zip(sums) {
            let mut point = point.clone();
            point.set_value(key, number);
            for (store, &sum) in self.nest.sweeps[0].stores.iter().zip(sums) {
                point.set_value(store.value, sum);
                self.e.store(&mut point, store);
            }
        }
    }
}
