//! Which kernels share a launch.
//!
//! A launch costs a few microseconds whatever it does, so independent nests of a region are launched together. Kernels are
//! put into *slots*, one after the other; a nest may go to an earlier slot than its turn would be if all that it needs is known
//! there, and if that does not keep more memory in use.

use super::{build::Template, lower::Key};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::{
    ir::{Access, Batch, Kernel, MAX_BUFFERS},
    may_join_a_batch,
};
use trainc_runtime::abi::BUFFER_ALIGNMENT;

/// A kernel that writes at most this fraction of what it reads may run early: what it reads is free the sooner.
const SHRINKS: u64 = 2;
/// Kernels that read at most that many bytes may wait.
const MAY_WAIT: u64 = 1 << 20;

/// Numbered steps (in an order that respects `before`), those of one launch together. Steps without kernels (loops) and with
/// others than nests stay alone.
pub(super) fn slots<'a>(
    order: &[usize],
    before: &[BTreeSet<usize>],
    kernels: &dyn Fn(usize) -> &'a [Template],
) -> Vec<Vec<usize>> {
    let footprints: BTreeMap<usize, Footprint> =
        order.iter().filter_map(|&step| Some((step, Footprint::of(kernels(step))?))).collect();
    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of: BTreeMap<usize, usize> = BTreeMap::new();
    for step in small_ends_last(order, before, &footprints) {
        let footprint = footprints.get(&step);
        let earliest = before[step].iter().filter_map(|source| slot_of.get(source)).max().map_or(0, |last| last + 1);
        let found = footprint.and_then(|footprint| footprint.place(&slots, earliest));
        let place = found.unwrap_or(slots.len());
        if place == slots.len() {
            slots.push(Slot { steps: Vec::new(), arguments: 0, open: footprint.is_some() });
        }
        slots[place].steps.push(step);
        slots[place].arguments += footprint.map_or(0, |footprint| footprint.arguments);
        slot_of.insert(step, place);
    }
    slots.into_iter().map(|slot| slot.steps).collect()
}

/// Steps that run together.
struct Slot {
    steps: Vec<usize>,
    arguments: usize,
    /// Whether nests may join.
    open: bool,
}

/// What moving a nest means for memory.
#[derive(Clone, Copy, Debug, Default)]
struct Footprint {
    arguments: usize,
    /// Bytes of passing values that it reads, and that it makes.
    read: u64,
    written: u64,
}

impl Footprint {
    /// Of a single nest.
    fn of(kernels: &[Template]) -> Option<Footprint> {
        let [Template { kernel, args }] = kernels else { return None };
        if !may_join_a_batch(kernel) {
            return None;
        }
        let mut footprint = Footprint { arguments: args.len(), ..Footprint::default() };
        let passing = |key: &Key| matches!(key, Key::Node(_) | Key::Partial(_) | Key::Temporary(..) | Key::Input(_));
        for (buffer, _) in kernel.buffers.iter().zip(args).filter(|(_, key)| passing(key)) {
            let bytes = buffer.elements * buffer.dtype.bytes();
            match buffer.access {
                Access::Write => footprint.written += bytes,
                Access::Read | Access::ReadWrite => footprint.read += bytes,
            }
        }
        Some(footprint)
    }

    /// The first slot from `earliest` on that it may join.
    fn place(&self, slots: &[Slot], earliest: usize) -> Option<usize> {
        let shrinks = self.written <= self.read / SHRINKS || self.written <= BUFFER_ALIGNMENT;
        let first = if shrinks { earliest } else { earliest.max(slots.len().saturating_sub(1)) };
        let fits = |&place: &usize| slots[place].open && slots[place].arguments + self.arguments <= MAX_BUFFERS;
        (first..slots.len()).find(fits)
    }
}

/// The same order with small steps that nothing large waits for at the end.
fn small_ends_last(order: &[usize], before: &[BTreeSet<usize>], footprints: &BTreeMap<usize, Footprint>) -> Vec<usize> {
    let mut needed: BTreeSet<usize> = BTreeSet::new();
    for &step in order.iter().rev() {
        let small = footprints.get(&step).is_some_and(|footprint| footprint.read <= MAY_WAIT);
        if needed.contains(&step) || !small {
            needed.insert(step);
            needed.extend(&before[step]);
        }
    }
    let (needed, ends): (Vec<usize>, Vec<usize>) = order.iter().partition(|step| needed.contains(step));
    [needed, ends].concat()
}

/// The same kernels in as few launches as their arguments allow; none may need another.
pub(super) fn together(kernels: &[Template]) -> Vec<Template> {
    let mut launches: Vec<Template> = Vec::new();
    let mut rest = kernels;
    while !rest.is_empty() {
        let mut arguments = 0;
        let fits = |template: &&Template| {
            arguments += template.args.len();
            arguments <= MAX_BUFFERS
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        launches.push(one(now));
        rest = later;
    }
    launches
}

fn one(kernels: &[Template]) -> Template {
    if let [kernel] = kernels {
        return kernel.clone();
    }
    let (batch, order) = Batch::of(&kernels.iter().map(|template| &template.kernel).collect::<Vec<&Kernel>>());
    let args = order.iter().flat_map(|&number| kernels[number].args.clone()).collect();
    Template { kernel: batch.kernel(), args }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::build::fill;
    use proptest::prelude::*;
    use trainc_kernels::ir::DType;

    fn zeros(number: usize) -> Template {
        fill(Key::Node(number), DType::F32, &[number as u64 + 1])
    }

    proptest! {
        /// Of 40 steps, every fifth a loop; `sources` says how far before it each finds what it needs.
        #[test]
        fn each_step_runs_once_after_all_that_it_needs(sources in prop::collection::vec((1usize..9, 1usize..30), 40)) {
            let before: Vec<BTreeSet<usize>> = sources.iter().enumerate()
                .map(|(step, &(near, far))| [near, far].iter().filter_map(|back| step.checked_sub(*back)).collect())
                .collect();
            let kernels: Vec<Vec<Template>> =
                (0..40).map(|step| if step % 5 == 4 { Vec::new() } else { vec![zeros(step)] }).collect();
            let slots = slots(&(0..40).collect::<Vec<_>>(), &before, &|step| &kernels[step]);
            let slot_of = |step: usize| slots.iter().position(|slot| slot.contains(&step)).expect("every step runs");
            prop_assert_eq!(slots.iter().map(Vec::len).sum::<usize>(), 40);
            for (step, sources) in before.iter().enumerate() {
                prop_assert!(sources.iter().all(|&source| slot_of(source) < slot_of(step)));
                prop_assert!(step % 5 != 4 || slots[slot_of(step)].len() == 1);
            }
        }
    }

    #[test]
    fn as_many_kernels_share_a_launch_as_its_arguments_allow() {
        let kernels: Vec<Template> = (0..2 * MAX_BUFFERS + 1).map(|number| zeros(number % 7)).collect();
        let launches = together(&kernels);
        assert_eq!(launches.iter().map(|launch| launch.args.len()).collect::<Vec<_>>(), [MAX_BUFFERS, MAX_BUFFERS, 1]);
        for Template { kernel, args } in &launches {
            assert_eq!(kernel.verify(), Ok(()));
            let matches = |(key, elements): (&Key, u64)| *key == Key::Node(elements as usize - 1);
            assert!(args.iter().zip(kernel.buffers.iter().map(|buffer| buffer.elements)).all(matches));
        }
    }
}
