//! Rewriting: from the graph as the program says it to an equal graph that is cheaper to run.
//!
//! Two stages. [`canonical`] applies, destructively, the equalities that never need a choice. Then each scope becomes one
//! e-graph ([`region`]) that holds its forward and backward computation jointly; [`saturate`] applies the rules
//! ([`rules`], written as [`pattern`]s) until nothing is new, [`extract`] chooses the cheapest graph of equal terms by the
//! model in [`cost`], [`mod@rebuild`] makes it a [`Graph`] again. A repeat is one region however many instances it has, so the
//! work does not grow with depth.
//!
//! Rewriting comes after differentiation: no rule has to know how to be differentiated.

pub mod canonical;
pub mod cost;
pub mod explain;
pub mod extract;
pub mod language;
pub mod mask;
pub mod pattern;
pub mod rebuild;
pub mod recognise;
pub mod region;
pub mod rules;
pub mod saturate;

pub use explain::{Alternative, Explanation, ExplanationStep, explain};

use crate::graph::Graph;
use cost::Machine;
use rebuild::{Chosen, Rebuilt};
use saturate::Limits;
use serde::Serialize;
use std::collections::BTreeMap;
use trainc_kernels::ir::Precision;

/// What rewriting may assume and how much it may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounding of the factors of contractions that rewriting recognises.
    pub precision: Precision,
    /// The machine whose time is minimised.
    pub machine: Machine,
    /// How far saturation may go.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::F32, machine: Machine::CPU, limits: Limits::default() }
    }
}

/// An equal graph, and how it was found.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// The graph to schedule.
    pub graph: Graph,
    /// What was done.
    pub report: Report,
}

/// What rewriting did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Nodes of the source, of its canonical form, of the result.
    pub nodes: [usize; 3],
    /// Each scope that has operations.
    pub regions: Vec<RegionReport>,
}

impl Report {
    /// E-nodes of all regions together.
    pub fn e_nodes(&self) -> usize {
        self.regions.iter().map(|region| region.e_nodes).sum()
    }
}

/// What rewriting did in a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RegionReport {
    /// The scope's name.
    pub name: String,
    /// How many instances share the work.
    pub instances: u64,
    /// Terms in the e-graph.
    pub e_nodes: usize,
    /// Classes of equal terms.
    pub e_classes: usize,
    /// Iterations until nothing was new.
    pub iterations: usize,
    /// New equalities by rule.
    pub applications: BTreeMap<&'static str, usize>,
    /// Which limit ended saturation, if one did.
    pub limit: Option<&'static str>,
    /// Composites that the saturated e-graph holds, by name.
    pub recognised: BTreeMap<&'static str, usize>,
    /// Modelled cost of an instance before and after, in picoseconds.
    pub cost: [u64; 2],
}

/// The cheapest graph found that is equal to `graph`. A pure function of its arguments.
pub fn rewrite(graph: &Graph, options: &Options) -> Rewritten {
    let session = Session::new(graph, options);
    Rewritten { graph: session.rebuilt.graph, report: session.report }
}

/// Everything that rewriting found out.
struct Session {
    canonical: Graph,
    chosen: Vec<Chosen>,
    rebuilt: Rebuilt,
    report: Report,
}

impl Session {
    fn new(graph: &Graph, options: &Options) -> Self {
        let canonical = canonical::canonicalise(graph, options.precision);
        let live = canonical.live();
        let mut report = Report::default();
        let mut chosen = Vec::new();
        for mut region in region::regions(&canonical, &live) {
            let (saturation, _) = saturate::saturate(&mut region.egraph, &options.limits);
            let extraction = extract::extract(&region.egraph, &options.machine, &region.source(), &region.roots());
            let scope = canonical.scope(region.scope);
            report.regions.push(RegionReport {
                name: scope.name.clone(),
                instances: scope.count,
                e_nodes: region.egraph.total_number_of_nodes(),
                e_classes: region.egraph.number_of_classes(),
                iterations: saturation.iterations,
                applications: saturation.applications,
                limit: saturation.limit,
                recognised: recognise::recognise(&region.egraph),
                cost: [extraction.source_cost, extraction.cost].map(|cost| u64::try_from(cost).unwrap_or(u64::MAX)),
            });
            chosen.push(Chosen { region, extraction });
        }
        let rebuilt = rebuild::rebuild(&canonical, &live, &chosen, options.precision);
        report.nodes = [graph.len(), canonical.len(), rebuilt.graph.len()];
        Self { canonical, chosen, rebuilt, report }
    }
}

#[cfg(test)]
mod equations;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
