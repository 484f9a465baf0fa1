//! Batches: many independent kernels that are launched as one.

use super::{Body, Kernel};
use serde::{Deserialize, Serialize};

/// Most labels that the label of a batch lists.
const NAMED_PARTS: usize = 3;

/// Kernels that do not need each other, in one launch. The launch arguments are those of all parts, one after the other. What
/// is written by one call of a part overlaps nothing that another one uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Batch {
    /// What runs, in the order of the launch arguments.
    pub parts: Vec<Part>,
}

/// A kernel that a batch calls, perhaps several times on different arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// A [`Body::Nest`], which runs in one stage.
    pub kernel: Kernel,
    /// How many calls; each has as many arguments as the kernel has buffers.
    pub times: u64,
}

impl Batch {
    /// One call of each of some kernels, equal ones as one part. Also says for each call, in the order of the batch's
    /// arguments, which of the kernels it is.
    pub fn of(kernels: &[&Kernel]) -> (Batch, Vec<usize>) {
        let mut calls: Vec<(&Kernel, Vec<usize>)> = Vec::new();
        for (number, &kernel) in kernels.iter().enumerate() {
            match calls.iter_mut().find(|(known, _)| *known == kernel) {
                Some((_, numbers)) => numbers.push(number),
                None => calls.push((kernel, vec![number])),
            }
        }
        let part =
            |(kernel, numbers): &(&Kernel, Vec<usize>)| Part { kernel: (*kernel).clone(), times: numbers.len() as u64 };
        let parts = calls.iter().map(part).collect();
        (Batch { parts }, calls.into_iter().flat_map(|(_, numbers)| numbers).collect())
    }

    /// The batch as a kernel.
    pub fn kernel(self) -> Kernel {
        let own = |part: &Part| part.kernel.buffers.repeat(part.times as usize);
        let buffers = self.parts.iter().flat_map(own).collect();
        Kernel { label: self.label(), buffers, body: Body::Batch(self) }
    }

    /// Parts with the position of their first launch argument.
    pub fn placed(&self) -> impl Iterator<Item = (usize, &Part)> {
        let mut next = 0;
        self.parts.iter().map(move |part| {
            let first = next;
            next = part.kernel.buffers.len().saturating_mul(part.times as usize).saturating_add(next);
            (first, part)
        })
    }

    /// What the parts are called, with how many calls there are of each name.
    fn label(&self) -> String {
        let mut names: Vec<(&str, u64)> = Vec::new();
        for part in &self.parts {
            match names.iter_mut().find(|(name, _)| *name == part.kernel.label) {
                Some((_, calls)) => *calls += part.times,
                None => names.push((&part.kernel.label, part.times)),
            }
        }
        let more = names.len() > NAMED_PARTS;
        let listed = names.into_iter().take(NAMED_PARTS);
        let listed = listed.map(|(name, calls)| if calls == 1 { name.into() } else { format!("{calls} x {name}") });
        let listed: Vec<String> = listed.chain(more.then(|| "...".into())).collect();
        listed.join(" | ")
    }
}
