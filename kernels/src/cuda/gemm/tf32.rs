//! Fragments of tf32 (PTX ISA 8.0, "Matrix Fragments for mma.m16n8k8"): shared memory keeps f32, which each thread rounds
//! when it takes them, so that asynchronous copies can bring them.

use super::{
    Lowering,
    tensor::{COLUMNS, Lanes},
};
use crate::emit::builder::{Elem, Type, Value};

/// Depth of a multiplication.
pub(super) const DEPTH: u64 = 8;

impl Lowering<'_> {
    /// 16 rows from `row` on, at depths `depth..depth + 8`: the thread's row and the one 8 below, at its depth, then at the
    /// one 4 further.
    pub(super) fn left_tf32(&mut self, stage: Value, lanes: &Lanes, row: Value, depth: u64) -> [Value; 4] {
        [(0, 0), (8, 0), (0, 4), (8, 4)].map(|(below, further)| {
            let row = self.e.b.plus(row, below);
            self.element_tf32(stage, 0, lanes, row, depth + further)
        })
    }

    /// Two fragments of 8 columns from `column` on: the thread's column at its depth and at the one 4 further, of each.
    pub(super) fn right_tf32(&mut self, stage: Value, lanes: &Lanes, column: Value, depth: u64) -> [Value; 4] {
        [(0, 0), (0, 4), (COLUMNS, 0), (COLUMNS, 4)].map(|(beside, further)| {
            let column = self.e.b.plus(column, beside);
            self.element_tf32(stage, 1, lanes, column, depth + further)
        })
    }

    /// The thread's element of a factor, in 8 rows (or columns) from `own` on and 4 depths from `depth` on.
    fn element_tf32(&mut self, stage: Value, side: usize, lanes: &Lanes, own: Value, depth: u64) -> Value {
        let (along, within) = self.e.b.split(lanes.lane, 4);
        let own = self.e.b.add(own, within);
        let along = self.e.b.plus(along, depth);
        let factor = self.factors[side].clone();
        let (line, element) = if factor.along_depth { (own, along) } else { (along, own) };
        let address = self.kept_at(&factor, stage, line, element);
        let value = self.e.b.load(address, Type::scalar(Elem::F32), false);
        self.e.b.fragment_tf32(value)
    }
}
