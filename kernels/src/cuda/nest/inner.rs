//! The loops of a sweep over the inner domain, by the members of a team.

use super::{Lowering, Member};
use crate::{
    emit::{
        builder::{Builder, Compare, Value},
        point::Point,
        sum::{CHAIN, Cut},
    },
    ir::{Index, ReduceKind, Sweep},
    nest::{
        reduce::{Accumulator, State},
        roots,
    },
};

fn kinds(sweep: &Sweep) -> Vec<ReduceKind> {
    sweep.reductions.iter().map(|reduction| reduction.kind).collect()
}

/// Accumulators of nothing.
fn fresh(b: &mut Builder, sweep: &Sweep) -> State {
    State::fresh(b, &kinds(sweep), 1, [1, 1])
}

impl Lowering<'_> {
    /// Runs a sweep over the inner domain; returns the accumulators, which all members have.
    pub(super) fn over_inner(&mut self, sweep: &Sweep, point: &Point, member: Member) -> Vec<Value> {
        let state = fresh(self.e.b, sweep);
        let totals = match (self.cut(sweep), self.plan.team) {
            (None, 1) => self.serial(0, sweep, point, member, state).totals(self.e.b, 0),
            (None, _) => {
                let all = (self.e.b.i64(0), self.inner_iterations());
                self.strided(all, sweep, point, member, state).totals(self.e.b, 0)
            }
            (Some(cut), team) => {
                let totals = State::of_pieces(self.e.b, &kinds(sweep), 1, 1);
                let totals = match team {
                    1 => self.serial_pieces((0, cut), sweep, point, member, totals),
                    _ => self.strided_pieces(sweep, point, member, totals),
                };
                totals.totals_of_pieces(self.e.b, 0)
            }
        };
        let finished = totals.into_iter().zip(&sweep.reductions).map(|(total, reduction)| {
            let total = self.across_team(reduction.kind, total, member);
            *total.last().expect("an accumulator has a value")
        });
        finished.collect()
    }

    fn inner_iterations(&mut self) -> Value {
        self.e.b.i64(self.nest.inner.iter().product::<u64>() as i64)
    }

    /// Where a sweep that adds up much is cut.
    fn cut(&self, sweep: &Sweep) -> Option<Cut> {
        let steps = match self.plan.team {
            1 => self.nest.inner.clone(),
            team => vec![self.nest.inner.iter().product::<u64>().div_ceil(team)],
        };
        sweep.reductions.iter().any(|reduction| reduction.kind == ReduceKind::Sum).then(|| Cut::of(&steps))?
    }

    /// The inner loops from `dim` on, by one thread.
    fn serial(&mut self, dim: usize, sweep: &Sweep, point: &Point, member: Member, state: State) -> State {
        let mut point = point.clone();
        if dim == self.nest.inner.len() {
            return self.step(sweep, point, member, state);
        }
        self.e.hoist(&mut point, &roots(sweep));
        let all = (self.e.b.i64(0), self.e.b.i64(self.nest.inner[dim] as i64));
        self.iterations((dim, all), sweep, &point, member, state)
    }

    /// Some iterations of an inner loop, by one thread.
    fn iterations(
        &mut self,
        (dim, (low, high)): (usize, (Value, Value)),
        sweep: &Sweep,
        point: &Point,
        member: Member,
        state: State,
    ) -> State {
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &state.flat());
        let at = point.at((self.nest.parallel.len() + dim) as u32, open.counter);
        let next = self.serial(dim + 1, sweep, &at, member, state.with(&open.carried)).flat();
        let after = self.e.b.end_loop(open, &next);
        state.with(&after)
    }

    /// The inner loops from `dim` on in pieces, by one thread.
    fn serial_pieces(
        &mut self,
        (dim, cut): (usize, Cut),
        sweep: &Sweep,
        point: &Point,
        member: Member,
        totals: State,
    ) -> State {
        let mut point = point.clone();
        self.e.hoist(&mut point, &roots(sweep));
        let extent = self.e.b.i64(self.nest.inner[dim] as i64);
        if dim == cut.dim {
            return self.in_pieces((extent, cut.piece), sweep, totals, |lowering, range, state| {
                lowering.iterations((dim, range), sweep, &point, member, state)
            });
        }
        let open = self.e.b.begin_count(self.nest.inner[dim], &totals.flat());
        let at = point.at((self.nest.parallel.len() + dim) as u32, open.counter);
        let next = self.serial_pieces((dim + 1, cut), sweep, &at, member, totals.with(&open.carried)).flat();
        let after = self.e.b.end_loop(open, &next);
        totals.with(&after)
    }

    /// Adds to the totals what the body makes of fresh accumulators in each piece of `0..extent`.
    fn in_pieces(
        &mut self,
        (extent, piece): (Value, u64),
        sweep: &Sweep,
        totals: State,
        emit: impl FnOnce(&mut Self, (Value, Value), State) -> State,
    ) -> State {
        let (zero, step) = (self.e.b.i64(0), self.e.b.i64(piece as i64));
        let open = self.e.b.begin_loop((zero, extent, step), &totals.flat());
        let until = self.e.b.add(open.counter, step);
        let until = self.e.b.min_signed(until, extent);
        let fresh = fresh(self.e.b, sweep);
        let reduced = emit(self, (open.counter, until), fresh);
        let next = totals.with(&open.carried).with_piece(self.e.b, &reduced).flat();
        let after = self.e.b.end_loop(open, &next);
        totals.with(&after)
    }

    /// Every so-many-th iteration of a range of the flattened inner loops.
    fn strided(
        &mut self,
        (low, high): (Value, Value),
        sweep: &Sweep,
        point: &Point,
        member: Member,
        state: State,
    ) -> State {
        let first_own = self.e.b.add(low, member.number);
        let team = self.e.b.i64(self.plan.team as i64);
        let open = self.e.b.begin_loop((first_own, high, team), &state.flat());
        let first = self.nest.parallel.len() as u32;
        let point = crate::cuda::decode(self.e.b, point, first, &self.nest.inner, open.counter);
        let next = self.step(sweep, point, member, state.with(&open.carried)).flat();
        let after = self.e.b.end_loop(open, &next);
        state.with(&after)
    }

    /// The same for all of them, in pieces.
    fn strided_pieces(&mut self, sweep: &Sweep, point: &Point, member: Member, totals: State) -> State {
        let all = self.inner_iterations();
        self.in_pieces((all, CHAIN * self.plan.team), sweep, totals, |lowering, range, state| {
            lowering.strided(range, sweep, point, member, state)
        })
    }

    /// One inner iteration: values, reductions, stores.
    fn step(&mut self, sweep: &Sweep, mut point: Point, member: Member, mut state: State) -> State {
        if member.part.is_some() || self.errors.is_some() {
            self.scatter_step(sweep, &mut point, member);
            return state;
        }
        for (number, reduction) in sweep.reductions.iter().enumerate() {
            let value = self.e.evaluate(&mut point, reduction.value);
            let old = state.at(0, number).clone();
            *state.at(0, number) = self.accumulate(&mut point, reduction.kind, &old, value);
        }
        let condition = self.storing(member, false);
        self.store_all(sweep, &mut point, condition);
        state
    }

    fn accumulate(&mut self, point: &mut Point, kind: ReduceKind, old: &Accumulator, value: Value) -> Accumulator {
        let new = match kind {
            ReduceKind::Sum => return vec![self.e.b.add(old[0], value)],
            ReduceKind::Max => return vec![self.e.b.max(old[0], value)],
            ReduceKind::ArgMax => {
                let index = Index::row_major(self.nest.parallel.len() as u32, &self.nest.inner);
                [value, self.e.position(point, &index)]
            }
        };
        let better = self.e.b.compare(Compare::Greater, value, old[0]);
        new.into_iter().zip(old).map(|(new, &old)| self.e.b.select(better, new, old)).collect()
    }
}
