//! Scatters. A long one keeps, in the workspace, the error of each element that it adds to: three launches, which clear the errors,
//! add, and correct.

use super::{Lowering, Member, Stage};
use crate::{
    emit::{
        builder::{Compare, Elem, Type, Value},
        point::Point,
        sum::Running,
    },
    ir::{Access, Binary, Buffer, DType, Expr, Exprs, Index, Kernel, Nest, Store, Sweep},
    nest::scatter,
};

/// The launches of a long scatter.
pub(super) fn stages(kernel: &Kernel, nest: &Nest) -> Option<Vec<Stage>> {
    let is_float = |store: &Store| kernel.buffers[store.buffer as usize].dtype == DType::F32;
    let [Sweep { stores, .. }] = &nest.sweeps[..] else { return None };
    if !(scatter::is_long(nest) && stores.iter().all(is_float)) {
        return None;
    }
    let elements = |store: &Store| kernel.buffers[store.buffer as usize].elements;
    let total = stores.iter().map(elements).sum();
    let workspace = Buffer { dtype: DType::F32, elements: total, access: Access::ReadWrite };
    let buffers = [&kernel.buffers[..], &[workspace]].concat();
    let errors = kernel.buffers.len() as u32;
    let mut launches = vec![cleared(errors, total), nest.clone()];
    let mut first = 0;
    for store in stores {
        launches.push(corrected(store.buffer, elements(store), (errors, first)));
        first += elements(store);
    }
    let adding = |number: usize| (number == 1).then_some(errors);
    let stages = launches.into_iter().enumerate();
    Some(stages.map(|(number, nest)| Stage { nest, buffers: buffers.clone(), errors: adding(number) }).collect())
}

fn element_wise(elements: u64, exprs: Exprs, store: Store) -> Nest {
    let sweeps = vec![Sweep { once: false, reductions: Vec::new(), stores: vec![store] }];
    Nest { parallel: vec![elements], inner: Vec::new(), exprs, sweeps }
}

fn cleared(buffer: u32, elements: u64) -> Nest {
    let mut exprs = Exprs::default();
    let value = exprs.add(Expr::Constant(0));
    element_wise(elements, exprs, Store { buffer, index: Index::var(0), value, accumulate: false })
}

/// Adds the errors, except those of sums that are not finite: those are no numbers.
fn corrected(buffer: u32, elements: u64, (errors, first): (u32, u64)) -> Nest {
    let mut exprs = Exprs::default();
    let error = exprs.load(errors, Index::var(0).add(Index::constant(first as i64)));
    let zero = exprs.add(Expr::Constant(0));
    let is_number = exprs.add(Expr::Binary(Binary::Equal, error, error));
    let value = exprs.add(Expr::Select(is_number, error, zero));
    element_wise(elements, exprs, Store { buffer, index: Index::var(0), value, accumulate: true })
}

impl Lowering<'_> {
    /// Adds if there is an iteration, and the element belongs to this team's part.
    pub(super) fn scatter_step(&mut self, sweep: &Sweep, point: &mut Point, member: Member) {
        let mine = member.part.map(|part| self.is_in_part(point, part)).or(member.active);
        let Some(errors) = self.errors else { return self.store_all(sweep, point, mine) };
        let open = mine.map(|mine| self.e.b.begin_if(mine, &[]));
        let mut first = 0;
        for store in &sweep.stores {
            self.add_with_error(point, store, (errors, first));
            first += self.e.elements(store.buffer);
        }
        if let Some(open) = open {
            self.e.b.begin_else(&[]);
            self.e.b.end_if(open, &[]);
        }
    }

    fn is_in_part(&mut self, point: &mut Point, part: Value) -> Value {
        let key = scatter::key(self.nest).expect("parts were planned by it");
        let key = self.e.evaluate(point, key);
        let key = self.e.b.extend_signed(key, Elem::I64);
        let parts = self.e.b.i64(self.plan.parts as i64);
        let class = self.e.b.rem_unsigned(key, parts);
        self.e.b.compare(Compare::Equal, class, part)
    }

    /// Adds to an element and to its error, which lies in the workspace from `first` on.
    fn add_with_error(&mut self, point: &mut Point, store: &Store, (errors, first): (u32, u64)) {
        let value = self.e.evaluate(point, store.value);
        let kept = store.index.clone().add(Index::constant(first as i64));
        let [sum_at, error_at] = [(store.buffer, &store.index), (errors, &kept)]
            .map(|(buffer, index)| self.e.element(point, buffer, index, 0));
        let [sum, error] = [sum_at, error_at].map(|at| self.e.b.load(at, Type::scalar(Elem::F32), false));
        let after = Running { sum, error }.plus(self.e.b, value);
        self.e.b.store(after.sum, sum_at);
        self.e.b.store(after.error, error_at);
    }
}
