//! Lowering of [`Nest`]s.
//!
//! The parallel domain is cut into units: one iteration of all parallel loops, or, if a parallel loop runs along the
//! lanes, one iteration of the others times a block of columns of that loop. A tile is a range of units.

pub(crate) mod batch;
mod inner;
pub(crate) mod reduce;
pub(crate) mod scatter;
pub(crate) mod split;

use crate::{
    emit::{
        builder::{Builder, Compare, Type, Value},
        point::{Emitter, Point, argument},
    },
    ir::{Buffer, Draw, Expr, ExprId, Generator, Index, Kernel, Loops, Nest, ReduceKind, Reduction, Sweep},
    stage::{Lowered, Stage, emit_stage, tile_count},
};
use scatter::Grouped;

/// Work below which a tile is not worth its own launch, in element operations.
const WORK_PER_TILE: u64 = 32_768;
/// Units aimed at when columns are cut into blocks: enough for every thread of a large machine.
const UNITS_WANTED: u64 = 64;
/// What a transcendental function costs, in element operations.
const TRANSCENDENTAL_COST: u64 = 12;

/// Bytes of workspace that a nest needs.
pub(crate) fn workspace_bytes(kernel: &Kernel, nest: &Nest) -> u64 {
    let nest = merged(nest);
    if let Some(grouped) = Grouped::of(kernel, &nest) {
        return grouped.workspace_bytes();
    }
    let split = split::split(kernel, &nest);
    split.and_then(|split| split.buffers.last().map(|buffer| buffer.elements * buffer.dtype.bytes())).unwrap_or(0)
}

/// Lowers a verified nest.
pub(crate) fn lower(b: &mut Builder, kernel: &Kernel, nest: &Nest, lanes: u32, name: &str) -> Lowered {
    let nest = merged(nest);
    let stages = match (Grouped::of(kernel, &nest), split::split(kernel, &nest)) {
        (Some(grouped), _) => vec![
            scatter::lower_sort(b, kernel, &nest, &grouped, format!("{name}_0")),
            lower_grouped(b, kernel, &nest, (&grouped, lanes), format!("{name}_1")),
        ],
        (None, None) => vec![lower_stage(b, &kernel.buffers, &nest, lanes, format!("{name}_0"))],
        (None, Some(split)) => [split.first, split.second]
            .iter()
            .enumerate()
            .map(|(stage, nest)| lower_stage(b, &split.buffers, nest, lanes, format!("{name}_{stage}")))
            .collect(),
    };
    Lowered { stages, scratch_bytes: 0 }
}

fn lower_stage(b: &mut Builder, buffers: &[Buffer], nest: &Nest, lanes: u32, symbol: String) -> (String, u64) {
    let plan = Plan::new(nest, lanes);
    let tiles = tile_count(plan.units, plan.work, WORK_PER_TILE);
    emit_stage(b, &symbol, |b, stage| emit(b, buffers, nest, (plan, lanes), stage, tiles));
    (symbol, tiles)
}

/// The stage of a long scatter that adds.
fn lower_grouped(
    b: &mut Builder,
    kernel: &Kernel,
    nest: &Nest,
    (grouped, lanes): (&Grouped, u32),
    symbol: String,
) -> (String, u64) {
    let plan = scatter::plan(nest, lanes);
    let tiles = tile_count(plan.units, plan.work, WORK_PER_TILE);
    emit_stage(b, &symbol, |b, stage| {
        let workspace = argument(b, stage.args, kernel.buffers.len());
        let e = Emitter::new(b, &nest.exprs, &kernel.buffers, stage.args, stage.instance, lanes);
        Lowering { e, nest, plan, grouped: Some((grouped, workspace)) }.units(stage.begin, stage.end, tiles);
    });
    (symbol, tiles)
}

/// The part of a nest that falls to the stage's tiles of `tiles`.
fn emit(b: &mut Builder, buffers: &[Buffer], nest: &Nest, (plan, lanes): (Plan, u32), stage: Stage, tiles: u64) {
    let emitter = Emitter::new(b, &nest.exprs, buffers, stage.args, stage.instance, lanes);
    Lowering { e: emitter, nest, plan, grouped: None }.units(stage.begin, stage.end, tiles);
}

/// The nest with as few loops as its accesses allow.
pub(crate) fn merged(nest: &Nest) -> Nest {
    let stores = nest.sweeps.iter().flat_map(|sweep| sweep.stores.clone()).collect();
    let groups = vec![nest.parallel.clone(), nest.inner.clone()];
    let mut loops = Loops { groups, exprs: nest.exprs.clone(), stores };
    let moved = loops.merge();
    let mut stores = loops.stores.into_iter();
    let sweeps = nest.sweeps.iter().map(|sweep| Sweep {
        once: sweep.once,
        reductions: sweep.reductions.iter().map(|r| Reduction { value: moved[r.value.0 as usize], ..*r }).collect(),
        stores: stores.by_ref().take(sweep.stores.len()).collect(),
    });
    let sweeps = sweeps.collect();
    let [parallel, inner] = [loops.groups[0].clone(), loops.groups[1].clone()];
    Nest { parallel, inner, exprs: loops.exprs, sweeps }
}

/// Which loop runs along the lanes, and how the parallel domain is cut.
#[derive(Clone, Debug)]
struct Plan {
    vector: Option<u32>,
    /// Elements of the lane loop that a unit covers, if that is a parallel loop.
    block: u64,
    /// Blocks that the lane loop is cut into.
    blocks: u64,
    units: u64,
    work: u64,
}

impl Plan {
    fn new(nest: &Nest, lanes: u32) -> Plan {
        let vector = choose_vector(nest, lanes);
        let iterations: u64 = nest.parallel.iter().product();
        let per_iteration = nest.sweeps.iter().map(|sweep| sweep_work(nest, sweep)).sum::<u64>().max(1);
        let work = iterations.saturating_mul(per_iteration);
        let Some(columns) = vector.and_then(|var| nest.parallel.get(var as usize)) else {
            return Plan { vector, block: 1, blocks: 1, units: iterations, work };
        };
        let others = iterations / columns;
        let grain = u64::from(lanes) * if nest.inner.is_empty() { 32 } else { 4 };
        let wanted = UNITS_WANTED.min(work / WORK_PER_TILE).div_ceil(others).max(1);
        let block = columns.div_ceil(wanted).next_multiple_of(grain).min(*columns);
        let blocks = columns.div_ceil(block);
        Plan { vector, block, blocks, units: others * blocks, work }
    }

    fn is_parallel(&self, nest: &Nest) -> bool {
        self.vector.is_some_and(|var| (var as usize) < nest.parallel.len())
    }
}

/// Element operations of one parallel iteration.
fn sweep_work(nest: &Nest, sweep: &Sweep) -> u64 {
    let per_element: u64 = nest.exprs.reachable(&roots(sweep)).iter().map(|&id| node_cost(nest.exprs.get(id))).sum();
    (per_element + sweep.stores.len() as u64) * inner_iterations(nest, sweep)
}

fn inner_iterations(nest: &Nest, sweep: &Sweep) -> u64 {
    if sweep.once { 1 } else { nest.inner.iter().product() }
}

fn node_cost(expr: &Expr) -> u64 {
    match expr {
        Expr::Unary(function, _) if function.is_transcendental() => TRANSCENDENTAL_COST,
        Expr::Random(Draw { generator: Generator::Philox, .. }) => 4 * TRANSCENDENTAL_COST,
        Expr::Random(_) => 30 * TRANSCENDENTAL_COST,
        Expr::Constant(_) | Expr::Integer(_) | Expr::Accumulator(_) => 0,
        _ => 1,
    }
}

pub(crate) fn roots(sweep: &Sweep) -> Vec<ExprId> {
    let reduced = sweep.reductions.iter().map(|reduction| reduction.value);
    let stored = sweep.stores.iter().flat_map(|store| std::iter::once(store.value).chain(store.index.values()));
    reduced.chain(stored).collect()
}

/// The loop whose accesses are the most contiguous: the last inner one, or any parallel one.
pub(crate) fn choose_vector(nest: &Nest, lanes: u32) -> Option<u32> {
    let parallel = nest.parallel.len() as u32;
    let last_inner = (!nest.inner.is_empty()).then(|| parallel + nest.inner.len() as u32 - 1);
    let candidates = last_inner.into_iter().chain((0..parallel).rev());
    let mut best: Option<(u64, u32)> = None;
    for var in candidates {
        let cost = vector_cost(nest, var, lanes);
        if best.is_none_or(|(lowest, _)| cost < lowest) {
            best = Some((cost, var));
        }
    }
    best.map(|(_, var)| var)
}

/// Operations of one parallel iteration, times 1024, if `var` runs along the lanes.
fn vector_cost(nest: &Nest, var: u32, lanes: u32) -> u64 {
    let extent = [&nest.parallel[..], &nest.inner].concat()[var as usize];
    let is_inner = var as usize >= nest.parallel.len();
    let per_element = |operations: u64| operations * 1024 * extent.div_ceil(lanes.into()) / extent;
    let access = |index: &Index| match index.stride_of(var, &nest.exprs) {
        Some(0 | 1) => 1,
        _ => u64::from(lanes),
    };
    let mut cost = 0;
    for sweep in &nest.sweeps {
        let mut operations = sweep.stores.iter().map(|store| access(&store.index)).sum::<u64>();
        for id in nest.exprs.reachable(&roots(sweep)) {
            operations += match nest.exprs.get(id) {
                Expr::Load { index, .. } => access(index),
                expr => node_cost(expr),
            };
        }
        cost += match is_inner && sweep.once {
            true => 1024 * operations,
            false => per_element(operations).saturating_mul(inner_iterations(nest, sweep)),
        };
        if is_inner {
            cost += 1024 * 10 * sweep.reductions.len() as u64;
        }
    }
    cost
}

struct Lowering<'a> {
    e: Emitter<'a>,
    nest: &'a Nest,
    plan: Plan,
    /// Of a scatter whose rows are sorted, how, and where.
    grouped: Option<(&'a Grouped, Value)>,
}

impl Lowering<'_> {
    /// The loop over the units of tiles `begin..end`.
    fn units(&mut self, begin: Value, end: Value, tiles: u64) {
        let units = self.plan.units;
        let [low, high] = [begin, end].map(|tile| self.e.b.boundary(tile, units, tiles));
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &[]);
        self.unit(open.counter);
        self.e.b.end_loop(open, &[]);
    }

    fn unit(&mut self, unit: Value) {
        let accumulators = self.nest.sweeps.iter().map(|sweep| sweep.reductions.len()).sum();
        let mut point = Point::new(self.nest.parallel.len() + self.nest.inner.len(), accumulators);
        let is_parallel = self.plan.is_parallel(self.nest);
        let column = self.plan.vector.filter(|_| is_parallel);
        let (block, mut rest) = self.e.b.split(unit, self.plan.blocks);
        for var in (0..self.nest.parallel.len() as u32).rev().filter(|&var| Some(var) != column) {
            let (place, outer) = self.e.b.split(rest, self.nest.parallel[var as usize]);
            point = point.at(var, place);
            rest = outer;
        }
        self.hoist_all(&mut point);
        match column {
            Some(var) => self.block(&point, var, block),
            None => self.sweeps(vec![point]),
        }
    }

    /// Evaluates what all columns, or all inner iterations, share.
    fn hoist_all(&mut self, point: &mut Point) {
        let roots: Vec<ExprId> = self.nest.sweeps.iter().flat_map(roots).collect();
        self.e.hoist(point, &roots);
    }

    /// One block of columns; the last may be shorter.
    fn block(&mut self, point: &Point, var: u32, block: Value) {
        let columns = self.nest.parallel[var as usize];
        let full = self.plan.block;
        let size = self.e.b.i64(full as i64);
        let base = self.e.b.mul(block, size);
        let rest = columns - (self.plan.blocks - 1) * full;
        if rest == full {
            return self.columns(point, var, base, full);
        }
        let last = self.e.b.i64(self.plan.blocks as i64 - 1);
        let is_last = self.e.b.compare(Compare::Equal, block, last);
        let open = self.e.b.begin_if(is_last, &[]);
        self.columns(point, var, base, rest);
        self.e.b.begin_else(&[]);
        self.columns(point, var, base, full);
        self.e.b.end_if(open, &[]);
    }

    /// `count` columns from `base` on: groups of several vectors, single vectors, a partial one.
    fn columns(&mut self, point: &Point, var: u32, base: Value, count: u64) {
        let lanes = u64::from(self.e.lanes);
        let group = if self.nest.inner.is_empty() { 1 } else { self.unroll().min(count / lanes).max(1) };
        let groups = count / (lanes * group);
        self.column_groups(point, var, base, 0, groups, group);
        let done = groups * group * lanes;
        if group > 1 {
            self.column_groups(point, var, base, done, (count - done) / lanes, 1);
        }
        let tail = count % lanes;
        if tail > 0 {
            let offset = self.e.b.i64((count - tail) as i64);
            let start = self.e.b.add(base, offset);
            self.sweeps(vec![point.along(var, start, tail as u32)]);
        }
    }

    fn column_groups(&mut self, point: &Point, var: u32, base: Value, first: u64, groups: u64, group: u64) {
        if groups == 0 {
            return;
        }
        let lanes = self.e.lanes;
        let open = self.e.b.begin_count(groups, &[]);
        let (step, first) = (self.e.b.i64((group * u64::from(lanes)) as i64), self.e.b.i64(first as i64));
        let offset = self.e.b.mul(open.counter, step);
        let offset = self.e.b.add(offset, first);
        let start = self.e.b.add(base, offset);
        let points = (0..group).map(|member| {
            let shift = self.e.b.i64((member * u64::from(lanes)) as i64);
            let start = self.e.b.add(start, shift);
            point.along(var, start, lanes)
        });
        let points = points.collect();
        self.sweeps(points);
        self.e.b.end_loop(open, &[]);
    }

    /// How many vectors are in flight at once: enough to hide latencies, few where the body is long.
    fn unroll(&self) -> u64 {
        let roots: Vec<ExprId> = self.nest.sweeps.iter().flat_map(roots).collect();
        let cost: u64 = self.nest.exprs.reachable(&roots).iter().map(|&id| node_cost(self.nest.exprs.get(id))).sum();
        if cost < 2 * TRANSCENDENTAL_COST { 4 } else { 2 }
    }

    /// All sweeps for each of the points, which advance together.
    fn sweeps(&mut self, mut points: Vec<Point>) {
        if let Some((grouped, workspace)) = self.grouped {
            return self.keys(grouped, workspace, &points);
        }
        let mut first = 0;
        for sweep in &self.nest.sweeps {
            let values = match sweep.once || self.nest.inner.is_empty() {
                true => self.evaluate_once(sweep, &points),
                false => self.loop_over_inner(sweep, &points),
            };
            for (point, values) in points.iter_mut().zip(values) {
                values.into_iter().enumerate().for_each(|(place, value)| point.set_accumulator(first + place, value));
            }
            first += sweep.reductions.len();
        }
    }

    /// A sweep over a single iteration: each reduction is its value.
    fn evaluate_once(&mut self, sweep: &Sweep, points: &[Point]) -> Vec<Vec<Value>> {
        points.iter().map(|point| self.single(sweep, point.clone())).collect()
    }

    fn single(&mut self, sweep: &Sweep, mut point: Point) -> Vec<Value> {
        for root in roots(sweep) {
            self.e.evaluate(&mut point, root);
        }
        sweep.stores.iter().for_each(|store| self.e.store(&mut point, store));
        let values = sweep.reductions.iter().map(|reduction| match reduction.kind {
            ReduceKind::ArgMax => self.e.b.int(1, 0),
            ReduceKind::Sum | ReduceKind::Max => self.e.evaluate(&mut point, reduction.value),
        });
        values.collect()
    }
}

/// Tiles.
impl Builder {
    /// The first unit of a tile, where `units` are spread evenly over `tiles`.
    pub(crate) fn boundary(&mut self, tile: Value, units: u64, tiles: u64) -> Value {
        debug_assert_eq!(tile.ty, Type::I64);
        let (units, tiles) = (self.i64(units as i64), self.i64(tiles as i64));
        let product = self.mul(tile, units);
        self.div_unsigned(product, tiles)
    }
}
