//! What a sweep reduces to: accumulators, and how they combine.

use crate::{
    emit::{
        builder::{Builder, Compare, Value},
        sum::Running,
    },
    ir::ReduceKind,
};

/// The running value of a reduction: the value, or value and position. That of pieces: of a sum, the sum and its error.
pub(crate) type Accumulator = Vec<Value>;

/// The accumulators of a running sweep: for each point and slot, one for each reduction.
#[derive(Clone)]
pub(crate) struct State {
    /// Independent accumulators of one reduction, to hide the latency of its operation.
    pub slots: usize,
    kinds: Vec<ReduceKind>,
    values: Vec<Accumulator>,
}

impl State {
    /// Accumulators of nothing, all of them constants.
    pub fn fresh(b: &mut Builder, kinds: &[ReduceKind], width: u32, [points, slots]: [usize; 2]) -> State {
        let each: Vec<Accumulator> = kinds.iter().map(|&kind| b.identity(kind, width)).collect();
        State { slots, kinds: kinds.to_vec(), values: vec![each; points * slots].concat() }
    }

    /// What pieces are added up in, before the first.
    pub fn of_pieces(b: &mut Builder, kinds: &[ReduceKind], width: u32, points: usize) -> State {
        let each: Vec<Accumulator> = kinds.iter().map(|&kind| b.identity_of_pieces(kind, width)).collect();
        State { slots: 1, kinds: kinds.to_vec(), values: vec![each; points].concat() }
    }

    pub fn at(&mut self, place: usize, reduction: usize) -> &mut Accumulator {
        let position = place * self.kinds.len() + reduction;
        &mut self.values[position]
    }

    pub fn flat(&self) -> Vec<Value> {
        self.values.concat()
    }

    /// The same shape with other values, given flat.
    pub fn with(&self, flat: &[Value]) -> State {
        let mut rest = flat;
        let values = self.values.iter().map(|old| {
            let (head, tail) = rest.split_at(old.len());
            rest = tail;
            head.to_vec()
        });
        State { values: values.collect(), kinds: self.kinds.clone(), slots: self.slots }
    }

    /// The reductions of one point, slots combined in order.
    pub fn totals(&self, b: &mut Builder, point: usize) -> Vec<Accumulator> {
        let of =
            |slot: usize, number: usize| self.values[(point * self.slots + slot) * self.kinds.len() + number].clone();
        let total = |(number, &kind)| {
            (1..self.slots).fold(of(0, number), |total, slot| b.combine(kind, &total, &of(slot, number)))
        };
        self.kinds.iter().enumerate().map(total).collect()
    }

    /// Of pieces: with one more, which was reduced to `piece`.
    pub fn with_piece(&self, b: &mut Builder, piece: &State) -> State {
        let points = self.values.len() / self.kinds.len();
        let pieces: Vec<Accumulator> = (0..points).flat_map(|point| piece.totals(b, point)).collect();
        let added = self.values.iter().zip(&pieces).zip(self.kinds.iter().cycle());
        let values = added.map(|((total, piece), &kind)| b.add_piece(kind, total, piece)).collect();
        State { slots: 1, kinds: self.kinds.clone(), values }
    }

    /// Of pieces: the reductions of one point.
    pub fn totals_of_pieces(&self, b: &mut Builder, point: usize) -> Vec<Accumulator> {
        let own = &self.values[point * self.kinds.len()..];
        self.kinds.iter().zip(own).map(|(&kind, total)| b.total_of_pieces(kind, total)).collect()
    }
}

/// Reductions.
impl Builder {
    pub(crate) fn identity(&mut self, kind: ReduceKind, lanes: u32) -> Accumulator {
        match kind {
            ReduceKind::Sum => vec![self.float(lanes, 0.0)],
            ReduceKind::Max => vec![self.float(lanes, f32::NEG_INFINITY)],
            ReduceKind::ArgMax => vec![self.float(lanes, f32::NEG_INFINITY), self.int(lanes, 0)],
        }
    }

    pub(crate) fn combine(&mut self, kind: ReduceKind, a: &Accumulator, b: &Accumulator) -> Accumulator {
        match kind {
            ReduceKind::Sum => vec![self.add(a[0], b[0])],
            ReduceKind::Max => vec![self.max(a[0], b[0])],
            ReduceKind::ArgMax => {
                let greater = self.compare(Compare::Greater, b[0], a[0]);
                let equal = self.compare(Compare::Equal, b[0], a[0]);
                let before = self.compare(Compare::Less, b[1], a[1]);
                let tie = self.and(equal, before);
                let better = self.or(greater, tie);
                vec![self.select(better, b[0], a[0]), self.select(better, b[1], a[1])]
            }
        }
    }

    /// What pieces are combined into, before the first.
    pub(crate) fn identity_of_pieces(&mut self, kind: ReduceKind, lanes: u32) -> Accumulator {
        match kind {
            ReduceKind::Sum => {
                let Running { sum, error } = Running::zero(self, lanes);
                vec![sum, error]
            }
            ReduceKind::Max | ReduceKind::ArgMax => self.identity(kind, lanes),
        }
    }

    /// With one more piece.
    pub(crate) fn add_piece(&mut self, kind: ReduceKind, total: &Accumulator, piece: &Accumulator) -> Accumulator {
        match kind {
            ReduceKind::Sum => {
                let Running { sum, error } = Running { sum: total[0], error: total[1] }.plus(self, piece[0]);
                vec![sum, error]
            }
            ReduceKind::Max | ReduceKind::ArgMax => self.combine(kind, total, piece),
        }
    }

    /// The reduction of all pieces.
    pub(crate) fn total_of_pieces(&mut self, kind: ReduceKind, total: &Accumulator) -> Accumulator {
        match kind {
            ReduceKind::Sum => vec![Running { sum: total[0], error: total[1] }.total(self)],
            ReduceKind::Max | ReduceKind::ArgMax => total.clone(),
        }
    }

    /// Combines all lanes, by halves.
    pub(crate) fn across(&mut self, kind: ReduceKind, mut total: Vec<Value>) -> Vec<Value> {
        let mut lanes = total[0].ty.lanes;
        while lanes > 2 {
            lanes /= 2;
            let half = |b: &mut Builder, start: u32| -> Accumulator {
                let chosen: Vec<u32> = (start..start + lanes).collect();
                total.iter().map(|&value| b.shuffle(value, value, &chosen)).collect()
            };
            let (low, high) = (half(self, 0), half(self, lanes));
            total = self.combine(kind, &low, &high);
        }
        let lane =
            |b: &mut Builder, lane: u32| -> Accumulator { total.iter().map(|&value| b.extract(value, lane)).collect() };
        let (low, high) = (lane(self, 0), lane(self, 1));
        self.combine(kind, &low, &high)
    }
}
