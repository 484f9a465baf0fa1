//! Lowering of [`Nest`]s to thread blocks.
//!
//! A parallel iteration belongs to a team of threads: one thread where iterations are many or ordered, part of a warp, a
//! warp or a block where neighbouring threads can read neighbouring elements of the inner loops, or a column of threads
//! where neighbouring iterations do. The members of a team share the inner iterations and combine what they have reduced
//! in a fixed order.

mod inner;
mod order;
mod plan;
mod scatter;
mod spread;
mod transpose;

use super::{
    DeviceStage,
    simt::{WARP, guarded},
};
use crate::{
    emit::{
        builder::{Block, Builder, Compare, Type, Value},
        point::{Emitter, Point},
    },
    ir::{Buffer, ExprId, Kernel, Nest, ReduceKind, Sweep},
    nest::{reduce::Accumulator, roots, split},
};
pub(super) use order::ordered;
pub(super) use plan::Plan;
use plan::{BLOCKS_WANTED, is_ordered};

/// A nest that is one launch, and the buffers that it is given.
struct Stage {
    nest: Nest,
    buffers: Vec<Buffer>,
    /// The buffer with the errors of what a scatter adds to.
    errors: Option<u32>,
}

/// The launches of a nest.
fn stages(kernel: &Kernel, nest: &Nest) -> Vec<Stage> {
    let nest = ordered(nest);
    if let Some(stages) = scatter::stages(kernel, &nest) {
        return stages;
    }
    if let Some(split) = split::split(kernel, &nest) {
        let stage = |nest| Stage { nest, buffers: split.buffers.clone(), errors: None };
        return vec![stage(split.first), stage(split.second)];
    }
    match spread::spread(kernel, &nest) {
        Some(stages) => stages.into(),
        None => vec![Stage { nest, buffers: kernel.buffers.clone(), errors: None }],
    }
}

/// Bytes of workspace that a nest needs: what its first stage takes beside the kernel's buffers.
pub(super) fn workspace_bytes(kernel: &Kernel, nest: &Nest) -> u64 {
    let stages = stages(kernel, nest);
    let workspace = &stages[0].buffers[kernel.buffers.len()..];
    workspace.iter().map(|buffer| buffer.elements * buffer.dtype.bytes()).sum()
}

/// Whether arrays of a nest go through shared memory because they lie along different loops.
pub(crate) fn is_turned(nest: &Nest) -> bool {
    let nest = ordered(nest);
    Plan::new(&nest).turned(&nest).is_some()
}

/// Lowers a verified nest.
pub(super) fn lower(b: &mut Builder, kernel: &Kernel, nest: &Nest, name: &str) -> Vec<DeviceStage> {
    let stages = stages(kernel, nest).into_iter().enumerate();
    stages.map(|(number, stage)| launch(b, &stage, format!("{name}_{number}"))).collect()
}

/// Lowers one nest to one launch.
pub(super) fn lower_stage(b: &mut Builder, buffers: &[Buffer], nest: &Nest, symbol: String) -> DeviceStage {
    launch(b, &Stage { nest: nest.clone(), buffers: buffers.to_vec(), errors: None }, symbol)
}

fn launch(b: &mut Builder, Stage { nest, buffers, errors }: &Stage, symbol: String) -> DeviceStage {
    let plan = Plan::new(nest);
    if let Some(transpose) = plan.turned(nest) {
        return transpose::lower(b, buffers, nest, &transpose, symbol);
    }
    let threads = plan.threads() as u32;
    super::entry(b, &symbol, Block { threads, together: plan.together() }, buffers.len(), |b, pointers, instance| {
        let block = b.block();
        emit_with(b, (buffers, pointers), nest, (&plan, *errors), [instance, block]);
    });
    DeviceStage { symbol, blocks: plan.blocks(), threads, shared_bytes: plan.shared_bytes() as u32 }
}

/// What block number `block` of a nest does, on buffers at the given addresses.
pub(super) fn emit(b: &mut Builder, arguments: (&[Buffer], Vec<Value>), nest: &Nest, plan: &Plan, place: [Value; 2]) {
    emit_with(b, arguments, nest, (plan, None), place);
}

fn emit_with(
    b: &mut Builder,
    (buffers, pointers): (&[Buffer], Vec<Value>),
    nest: &Nest,
    (plan, errors): (&Plan, Option<u32>),
    [instance, block]: [Value; 2],
) {
    let e = Emitter::with_pointers(b, &nest.exprs, buffers, pointers, instance, 1);
    let updates = buffers.iter().any(|buffer| buffer.access == crate::ir::Access::ReadWrite);
    Lowering { e, nest, plan, errors, ordered: updates && nest.sweeps.len() > 1 }.block(block);
}

struct Lowering<'a> {
    e: Emitter<'a>,
    nest: &'a Nest,
    plan: &'a Plan,
    /// The buffer with the errors of what a scatter adds to.
    errors: Option<u32>,
    /// Later sweeps may load what earlier ones stored.
    ordered: bool,
}

/// Who a thread is.
#[derive(Clone, Copy)]
struct Member {
    /// Number in the team.
    number: Value,
    /// Number of the team in the block.
    team: Value,
    /// Whether the team has an iteration; `None` if all have.
    active: Option<Value>,
    /// Which residue class of a scatter is this team's.
    part: Option<Value>,
}

impl Lowering<'_> {
    fn block(&mut self, block: Value) {
        let plan = self.plan;
        let b = &mut *self.e.b;
        let thread = b.thread();
        let (number, team) = match (plan.team, plan.interleaved) {
            (1, _) => (b.i64(0), thread),
            (_, true) => {
                let (team, number) = b.split(thread, plan.teams);
                (number, team)
            }
            (_, false) if plan.teams == 1 => (thread, b.i64(0)),
            (team, false) => b.split(thread, team),
        };
        let first = b.times(block, plan.teams);
        let unit = b.add(first, team);
        let full = plan.units().is_multiple_of(plan.teams);
        let limit = b.i64(plan.units() as i64);
        let active = if full { None } else { Some(b.compare(Compare::Less, unit, limit)) };
        if plan.team == 1 {
            let open = active.map(|active| self.e.b.begin_if(active, &[]));
            self.unit(unit, Member { number, team, active: None, part: None });
            if let Some(open) = open {
                self.e.b.begin_else(&[]);
                self.e.b.end_if(open, &[]);
            }
            return;
        }
        // All threads of a block meet at its barriers: those without an iteration repeat the last one and store nothing.
        let last = self.e.b.i64(plan.units() as i64 - 1);
        let unit = if full { unit } else { self.e.b.min_signed(unit, last) };
        self.unit(unit, Member { number, team, active, part: None });
    }

    fn unit(&mut self, unit: Value, mut member: Member) {
        let accumulators = self.nest.sweeps.iter().map(|sweep| sweep.reductions.len()).sum();
        let mut point = Point::new(self.nest.parallel.len() + self.nest.inner.len(), accumulators);
        let mut rest = unit;
        if self.plan.parts > 1 {
            let (iteration, part) = self.e.b.split(unit, self.plan.iterations);
            (rest, member.part) = (iteration, Some(part));
        }
        let others = (0..self.nest.parallel.len() as u32).rev().filter(|&var| Some(var) != self.plan.column);
        let order: Vec<u32> = self.plan.column.into_iter().chain(others).collect();
        for (place, &var) in order.iter().enumerate() {
            let extent = self.nest.parallel[var as usize];
            let (at, outer) = if place + 1 == order.len() { (rest, rest) } else { self.e.b.split(rest, extent) };
            point = point.at(var, at);
            rest = outer;
        }
        let all: Vec<ExprId> = self.nest.sweeps.iter().flat_map(roots).collect();
        self.e.hoist(&mut point, &all);
        self.sweeps(point, member);
    }

    fn sweeps(&mut self, mut point: Point, member: Member) {
        let mut first = 0;
        for (number, sweep) in self.nest.sweeps.iter().enumerate() {
            let once = sweep.once || self.nest.inner.is_empty();
            let values = if once {
                self.evaluate_once(sweep, &mut point, member)
            } else {
                self.over_inner(sweep, &point, member)
            };
            values.into_iter().enumerate().for_each(|(place, value)| point.set_accumulator(first + place, value));
            first += sweep.reductions.len();
            if self.ordered && number + 1 < self.nest.sweeps.len() {
                self.wait();
            }
        }
    }

    /// Waits for the team.
    fn wait(&mut self) {
        match self.plan.team {
            1 => {}
            team if team <= u64::from(WARP) && !self.plan.interleaved => self.e.b.warp_barrier(),
            _ => self.e.b.barrier(),
        }
    }

    /// A sweep over a single iteration: every member has its values, one stores.
    fn evaluate_once(&mut self, sweep: &Sweep, point: &mut Point, member: Member) -> Vec<Value> {
        let values: Vec<Value> = sweep
            .reductions
            .iter()
            .map(|reduction| match reduction.kind {
                ReduceKind::ArgMax => self.e.b.int(1, 0),
                ReduceKind::Sum | ReduceKind::Max => self.e.evaluate(point, reduction.value),
            })
            .collect();
        if self.ordered {
            self.wait();
        }
        let condition = self.storing(member, true);
        self.store_all(sweep, &mut point.clone(), condition);
        values
    }

    /// The condition under which a member stores; with `one`, only the first of a team does.
    fn storing(&mut self, member: Member, one: bool) -> Option<Value> {
        if !one || self.plan.team == 1 {
            return member.active;
        }
        let zero = self.e.b.i64(0);
        let first = self.e.b.compare(Compare::Equal, member.number, zero);
        Some(member.active.map_or(first, |active| self.e.b.and(active, first)))
    }

    fn store_all(&mut self, sweep: &Sweep, point: &mut Point, condition: Option<Value>) {
        if sweep.stores.is_empty() {
            return;
        }
        let open = condition.map(|condition| self.e.b.begin_if(condition, &[]));
        for root in sweep.stores.iter().flat_map(|store| std::iter::once(store.value).chain(store.index.values())) {
            self.e.evaluate(point, root);
        }
        sweep.stores.iter().for_each(|store| self.e.store(point, store));
        if let Some(open) = open {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    /// Combines what the members of a team have reduced; every member gets the same bits.
    fn across_team(&mut self, kind: ReduceKind, mut total: Accumulator, member: Member) -> Accumulator {
        if self.plan.team == 1 {
            return total;
        }
        if !self.plan.interleaved {
            let mut distance = (self.plan.team as u32).min(WARP) / 2;
            while distance > 0 {
                let other: Accumulator = total.iter().map(|&value| self.e.b.shuffle_xor(value, distance)).collect();
                total = self.e.b.combine(kind, &total, &other);
                distance /= 2;
            }
            if self.plan.team <= u64::from(WARP) {
                return total;
            }
        }
        self.through_shared(kind, &total, member)
    }

    /// Partial results go through shared memory; every member combines them in the order of their slots.
    fn through_shared(&mut self, kind: ReduceKind, partial: &Accumulator, member: Member) -> Accumulator {
        let plan = self.plan;
        let (slots, stride) = (plan.slots(), if plan.interleaved { plan.teams } else { 1 });
        let b = &mut *self.e.b;
        let (slot, writer) = match plan.interleaved {
            true => (b.thread(), None),
            false => {
                let thread = b.thread();
                let (lane, warp) = b.split(thread, WARP.into());
                let zero = b.i64(0);
                (warp, Some(b.compare(Compare::Equal, lane, zero)))
            }
        };
        b.barrier();
        guarded(b, writer, |b| {
            for (part, &value) in partial.iter().enumerate() {
                let base = b.shared(part as u64 * slots);
                let address = b.float_at(base, slot);
                b.store(value, address);
            }
        });
        b.barrier();
        let own = slots / plan.teams;
        let first = if plan.interleaved { member.team } else { b.times(member.team, own) };
        let load = |b: &mut Builder, number: u64| -> Accumulator {
            let slot = b.plus(first, number * stride);
            let parts = partial.iter().enumerate().map(|(part, value)| {
                let base = b.shared(part as u64 * slots);
                let address = b.float_at(base, slot);
                b.load(address, Type::scalar(value.ty.elem), false)
            });
            parts.collect()
        };
        let total = load(b, 0);
        (1..own).fold(total, |total, number| {
            let next = load(b, number);
            b.combine(kind, &total, &next)
        })
    }
}
