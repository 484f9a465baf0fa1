//! The way to a plan within the memory budget.
//!
//! Two things make an arena smaller: equal graphs that store less, such as other ways to the norms of samples' gradients, and
//! values that the backward pass computes again. They are one ladder. Its rungs are prices of stored results
//! ([`Machine::stored`]); on each, all graphs are extracted at that price, and as little is computed again as the budget takes
//! ([`schedule`]). A program that fits as it is stays on the first rung. Otherwise all are tried, and of the plans that fit
//! the one with the least work and traffic is taken; of equal ones, the first.

use crate::{
    graph::Graph,
    program::Program,
    rewrite::{self, Rewritten, cost::Machine},
    schedule::{self, Plan, Request, ScheduleError},
};
use std::{collections::BTreeMap, time::Instant};
use trainc_kernels::Target;

/// Prices of stored results, as multiples of the machine's own.
const PRICES: [u64; 3] = [1, 8, 64];

/// What a program becomes on a rung.
pub struct Rung {
    /// How its graphs were rewritten.
    pub options: rewrite::Options,
    /// The entries after rewriting, by name.
    pub entries: Vec<(&'static str, Rewritten)>,
    /// The plan, within the budget if there is one.
    pub plan: Plan,
}

/// The rung that a program is compiled on for a kind of machine; adds the milliseconds by stage.
///
/// # Errors
/// If no rung has a plan within the budget: the smallest arena that was found. Or if a graph cannot be expressed.
pub fn climb(
    program: &Program,
    target: Target,
    milliseconds: &mut BTreeMap<&'static str, f64>,
) -> Result<Rung, ScheduleError> {
    let mut found: Vec<Rung> = Vec::new();
    let mut refused: Vec<(u64, ScheduleError)> = Vec::new();
    for price in PRICES {
        match rung(program, target, price, milliseconds) {
            Ok(rung) if price == 1 && rung.plan.report.recomputed_for_budget == 0 => return Ok(rung),
            Ok(rung) => found.push(rung),
            Err(error @ ScheduleError::OverBudget { needed, .. }) => refused.push((needed, error)),
            Err(defect) => return Err(defect),
        }
    }
    let least = refused.into_iter().min_by_key(|&(needed, _)| needed);
    let fastest = found.into_iter().min_by_key(Rung::time);
    fastest.ok_or_else(|| least.expect("a rung has a plan or an error").1)
}

fn rung(
    program: &Program,
    target: Target,
    price: u64,
    milliseconds: &mut BTreeMap<&'static str, f64>,
) -> Result<Rung, ScheduleError> {
    let machine = Machine { stored: price * Machine::CPU.stored, ..Machine::CPU };
    let options = rewrite::Options { precision: program.train.precision, machine, ..rewrite::Options::default() };
    let entries = timed(milliseconds, "rewrite", || rewritten(program, &options));
    let plan = timed(milliseconds, "schedule", || {
        let graphs: Vec<(&str, &Graph)> = entries.iter().map(|(name, rewritten)| (*name, &rewritten.graph)).collect();
        let memory_budget = program.train.memory.map(|(bytes, _)| bytes);
        schedule::schedule(&Request { program, entries: &graphs, memory_budget, target })
    })?;
    Ok(Rung { options, entries, plan })
}

impl Rung {
    /// Modelled picoseconds of an update.
    fn time(&self) -> u128 {
        let of_training =
            self.plan.report.entries.iter().filter(|entry| ["step", "accumulate"].contains(&&*entry.name));
        let time = |entry: &schedule::EntryReport| {
            let facts = &entry.totals;
            Machine::CPU.time(facts.flops, facts.bytes_read + facts.bytes_written, entry.launches.len() as u64)
        };
        of_training.map(time).sum()
    }
}

fn rewritten(program: &Program, options: &rewrite::Options) -> Vec<(&'static str, Rewritten)> {
    let graphs = [
        ("step", Some(&program.step)),
        ("accumulate", program.accumulate.as_ref()),
        ("evaluate", program.evaluate.as_ref()),
        ("conclude", program.conclude.as_ref()),
        ("generate", program.generate.as_ref()),
    ];
    graphs.into_iter().filter_map(|(name, graph)| Some((name, rewrite::rewrite(graph?, options)))).collect()
}

fn timed<T>(milliseconds: &mut BTreeMap<&'static str, f64>, stage: &'static str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *milliseconds.entry(stage).or_default() += start.elapsed().as_secs_f64() * 1e3;
    result
}
