//! The loops of a sweep over the inner domain.

use super::{
    Lowering,
    reduce::{Accumulator, State},
    roots,
};
use crate::{
    emit::{
        builder::{Compare, Value},
        point::Point,
        sum::Cut,
    },
    ir::{Index, ReduceKind, Sweep},
};

impl Lowering<'_> {
    /// Runs a sweep over the inner domain; returns the accumulators of each point.
    pub(super) fn loop_over_inner(&mut self, sweep: &Sweep, points: &[Point]) -> Vec<Vec<Value>> {
        let across_inner = self.plan.vector.is_some() && !self.plan.is_parallel(self.nest);
        let width = if self.plan.vector.is_some() { self.e.lanes } else { 1 };
        let slots = if across_inner && !sweep.reductions.is_empty() { self.unroll() as usize } else { 1 };
        let kinds: Vec<ReduceKind> = sweep.reductions.iter().map(|r| r.kind).collect();
        let state = State::fresh(self.e.b, &kinds, width, [points.len(), slots]);
        let totals: Vec<Vec<Accumulator>> = match self.cut(sweep, slots as u64) {
            None => {
                let state = self.inner_dim(0, sweep, points, state);
                (0..points.len()).map(|point| state.totals(self.e.b, point)).collect()
            }
            Some(cut) => {
                let totals = State::of_pieces(self.e.b, &kinds, width, points.len());
                let totals = self.long_dim((0, cut), sweep, points, &state, totals);
                (0..points.len()).map(|point| totals.totals_of_pieces(self.e.b, point)).collect()
            }
        };
        let across = |lowering: &mut Self, (&kind, total): (&ReduceKind, Accumulator)| {
            let total = if across_inner { lowering.e.b.across(kind, total) } else { total };
            *total.last().expect("an accumulator has a value")
        };
        totals
            .into_iter()
            .map(|of_point| kinds.iter().zip(of_point).map(|reduced| across(self, reduced)).collect())
            .collect()
    }

    /// Where a sweep that adds up much is cut.
    fn cut(&self, sweep: &Sweep, slots: u64) -> Option<Cut> {
        let lanes = u64::from(self.e.lanes);
        let first = self.nest.parallel.len() as u32;
        let steps = (first..).zip(&self.nest.inner).map(|(var, &extent)| match self.plan.vector == Some(var) {
            true => extent.div_ceil(lanes * slots),
            false => extent,
        });
        let adds = sweep.reductions.iter().any(|reduction| reduction.kind == ReduceKind::Sum);
        adds.then(|| Cut::of(&steps.collect::<Vec<_>>()))?
    }

    /// The inner loops from `dim` on, in pieces: each is reduced from `fresh`, and added to the totals.
    fn long_dim(
        &mut self,
        (dim, cut): (usize, Cut),
        sweep: &Sweep,
        points: &[Point],
        fresh: &State,
        totals: State,
    ) -> State {
        let var = (self.nest.parallel.len() + dim) as u32;
        let mut points = points.to_vec();
        points.iter_mut().for_each(|point| self.e.hoist(point, &roots(sweep)));
        if dim == cut.dim && self.plan.vector == Some(var) {
            let [point] = &points[..] else { unreachable!("inner lanes advance one point") };
            return self.long_vector_dim(var, cut.piece, sweep, point, (fresh, totals));
        }
        let extent = self.nest.inner[dim];
        if dim == cut.dim {
            let all = self.up_to(extent);
            return self.in_pieces(all, cut.piece, totals, |lowering, range| {
                lowering.iterations(dim, range, sweep, &points, fresh.clone())
            });
        }
        let open = self.e.b.begin_count(extent, &totals.flat());
        let inside = totals.with(&open.carried);
        let at: Vec<Point> = points.iter().map(|point| point.at(var, open.counter)).collect();
        let next = self.long_dim((dim + 1, cut), sweep, &at, fresh, inside).flat();
        let after = self.e.b.end_loop(open, &next);
        totals.with(&after)
    }

    /// Adds to the totals what the body reduces each piece of `low..high` to.
    pub(super) fn in_pieces(
        &mut self,
        (low, high): (Value, Value),
        piece: u64,
        totals: State,
        emit: impl FnOnce(&mut Self, (Value, Value)) -> State,
    ) -> State {
        let step = self.e.b.i64(piece as i64);
        let open = self.e.b.begin_loop((low, high, step), &totals.flat());
        let until = self.e.b.add(open.counter, step);
        let until = self.e.b.min_signed(until, high);
        let inside = totals.with(&open.carried);
        let reduced = emit(self, (open.counter, until));
        let next = inside.with_piece(self.e.b, &reduced).flat();
        let after = self.e.b.end_loop(open, &next);
        totals.with(&after)
    }

    /// The inner loops from `dim` on.
    fn inner_dim(&mut self, dim: usize, sweep: &Sweep, points: &[Point], mut state: State) -> State {
        let var = (self.nest.parallel.len() + dim) as u32;
        let mut points = points.to_vec();
        if dim == self.nest.inner.len() {
            for (number, point) in points.into_iter().enumerate() {
                self.step(sweep, point, &mut state, number);
            }
            return state;
        }
        points.iter_mut().for_each(|point| self.e.hoist(point, &roots(sweep)));
        if self.plan.vector == Some(var) {
            let [point] = &points[..] else { unreachable!("inner lanes advance one point") };
            return self.vector_dim(var, sweep, point, state);
        }
        let all = self.up_to(self.nest.inner[dim]);
        self.iterations(dim, all, sweep, &points, state)
    }

    /// Some iterations of an inner loop that does not run along the lanes.
    fn iterations(
        &mut self,
        dim: usize,
        (low, high): (Value, Value),
        sweep: &Sweep,
        points: &[Point],
        state: State,
    ) -> State {
        let var = (self.nest.parallel.len() + dim) as u32;
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &state.flat());
        let inside = state.with(&open.carried);
        let at: Vec<Point> = points.iter().map(|point| point.at(var, open.counter)).collect();
        let next = self.inner_dim(dim + 1, sweep, &at, inside).flat();
        let after = self.e.b.end_loop(open, &next);
        state.with(&after)
    }

    /// The last inner loop, along the lanes: groups of `slots` vectors, then what is left.
    fn vector_dim(&mut self, var: u32, sweep: &Sweep, point: &Point, state: State) -> State {
        let groups = self.groups(var, state.slots as u64);
        let all = self.up_to(groups);
        let slots = state.slots as u64;
        let state = if groups > 0 { self.vector_groups(var, sweep, point, state, (0, all, slots)) } else { state };
        self.rest_of_vectors(var, sweep, point, state)
    }

    /// The same in pieces of so many groups.
    fn long_vector_dim(
        &mut self,
        var: u32,
        piece: u64,
        sweep: &Sweep,
        point: &Point,
        (fresh, totals): (&State, State),
    ) -> State {
        let slots = fresh.slots as u64;
        let all = self.up_to(self.groups(var, slots));
        let totals = self.in_pieces(all, piece, totals, |lowering, range| {
            lowering.vector_groups(var, sweep, point, fresh.clone(), (0, range, slots))
        });
        if self.extent_along(var).is_multiple_of(u64::from(self.e.lanes) * slots) {
            return totals;
        }
        let rest = self.rest_of_vectors(var, sweep, point, fresh.clone());
        totals.with_piece(self.e.b, &rest)
    }

    /// `0..extent`
    fn up_to(&mut self, extent: u64) -> (Value, Value) {
        (self.e.b.i64(0), self.e.b.i64(extent as i64))
    }

    fn extent_along(&self, var: u32) -> u64 {
        self.nest.inner[var as usize - self.nest.parallel.len()]
    }

    /// Whole groups of `slots` vectors along an inner loop.
    fn groups(&self, var: u32, slots: u64) -> u64 {
        self.extent_along(var) / (u64::from(self.e.lanes) * slots)
    }

    /// What the groups leave: single vectors, a partial one.
    fn rest_of_vectors(&mut self, var: u32, sweep: &Sweep, point: &Point, state: State) -> State {
        let (lanes, extent, slots) = (u64::from(self.e.lanes), self.extent_along(var), state.slots as u64);
        let done = self.groups(var, slots) * slots * lanes;
        let single = (extent - done) / lanes;
        let all = self.up_to(single);
        let mut state = if single > 0 { self.vector_groups(var, sweep, point, state, (done, all, 1)) } else { state };
        let tail = extent % lanes;
        if tail > 0 {
            let start = self.e.b.i64((extent - tail) as i64);
            self.step(sweep, point.along(var, start, tail as u32), &mut state, 0);
        }
        state
    }

    /// Groups `low..high` of `slots` vectors each, of which the first begins at `first`.
    fn vector_groups(
        &mut self,
        var: u32,
        sweep: &Sweep,
        point: &Point,
        state: State,
        (first, (low, high), slots): (u64, (Value, Value), u64),
    ) -> State {
        let lanes = self.e.lanes;
        let one = self.e.b.i64(1);
        let open = self.e.b.begin_loop((low, high, one), &state.flat());
        let mut inside = state.with(&open.carried);
        let start = self.e.b.times(open.counter, slots * u64::from(lanes));
        let start = self.e.b.plus(start, first);
        for slot in 0..slots {
            let start = self.e.b.plus(start, slot * u64::from(lanes));
            self.step(sweep, point.along(var, start, lanes), &mut inside, slot as usize);
        }
        let after = self.e.b.end_loop(open, &inside.flat());
        state.with(&after)
    }

    /// One iteration of a sweep: all values, then the reductions, then the stores. `place` is the state's row.
    fn step(&mut self, sweep: &Sweep, mut point: Point, state: &mut State, place: usize) {
        for root in roots(sweep) {
            self.e.evaluate(&mut point, root);
        }
        for (number, reduction) in sweep.reductions.iter().enumerate() {
            let value = self.e.evaluate_wide(&mut point, reduction.value);
            let old = state.at(place, number).clone();
            let new = self.accumulate(&mut point, reduction.kind, &old, value);
            let new = self.keep_inactive(&point, &old, new);
            *state.at(place, number) = new;
        }
        sweep.stores.iter().for_each(|store| self.e.store(&mut point, store));
    }

    fn accumulate(&mut self, point: &mut Point, kind: ReduceKind, old: &Accumulator, value: Value) -> Accumulator {
        match kind {
            ReduceKind::Sum => vec![self.e.b.add(old[0], value)],
            ReduceKind::Max => vec![self.e.b.max(old[0], value)],
            ReduceKind::ArgMax => {
                let index = Index::row_major(self.nest.parallel.len() as u32, &self.nest.inner);
                let position = self.e.position(point, &index);
                let position = self.e.b.splat(position, value.ty.lanes);
                let better = self.e.b.compare(Compare::Greater, value, old[0]);
                vec![self.e.b.select(better, value, old[0]), self.e.b.select(better, position, old[1])]
            }
        }
    }

    /// In a partial vector the lanes beyond the domain keep what they had.
    fn keep_inactive(&mut self, point: &Point, old: &Accumulator, new: Accumulator) -> Accumulator {
        let lanes = self.e.lanes;
        let Some(active) = point.lane.map(|lane| lane.active).filter(|&active| active < lanes) else { return new };
        let mask = self.e.b.mask(lanes, active);
        new.iter().zip(old).map(|(&new, &old)| self.e.b.select(mask, new, old)).collect()
    }
}
