//! Contractions of many blocks: their sums are added with the errors of these additions.

use super::Lowering;
use crate::emit::{
    builder::{Compare, Elem, Type, Value},
    sum::Running,
};

impl Lowering<'_> {
    /// Adds the sums of one block of the contraction, the terms, to those of a tile of `rows` rows; the first block's are the
    /// first terms, and after the last the sums are what the epilogue takes.
    pub(super) fn add_terms(&mut self, rows: u64, (sums, terms): (Value, Value), [start, is_last]: [Value; 2]) {
        let lanes = self.plan.tile.lanes;
        let errors = self.e.b.float_after(sums, self.plan.errors_offset());
        let zero = self.e.b.i64(0);
        let is_first = self.e.b.compare(Compare::Equal, start, zero);
        let count = self.e.b.i64((rows * self.plan.tile.columns()) as i64);
        let open = self.e.b.begin_steps(count, lanes.into());
        let [term, sum, error] = [terms, sums, errors].map(|base| {
            let address = self.e.b.float_at(base, open.counter);
            (address, self.e.b.load(address, Type::vector(Elem::F32, lanes), false))
        });
        let none = Running::zero(self.e.b, lanes);
        let before = Running {
            sum: self.e.b.select(is_first, none.sum, sum.1),
            error: self.e.b.select(is_first, none.error, error.1),
        };
        let after = before.plus(self.e.b, term.1);
        let total = after.total(self.e.b);
        let kept = self.e.b.select(is_last, total, after.sum);
        self.e.b.store(kept, sum.0);
        self.e.b.store(after.error, error.0);
        self.e.b.end_loop(open, &[]);
    }
}
