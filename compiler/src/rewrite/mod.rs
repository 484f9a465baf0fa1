//! Rewriting: from the graph as the program says it to an equal graph that is cheaper to run.
//!
//! Two stages. [`canonical`] applies, destructively, the equalities that never need a choice.

pub mod canonical;

use crate::graph::Graph;
use serde::Serialize;
use trainc_kernels::ir::Precision;

/// What rewriting may assume and how much it may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounding of the factors of contractions that rewriting recognises.
    pub precision: Precision,
}

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::F32 }
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
    /// Nodes before and after canonicalisation.
    pub canonicalised: (usize, usize),
}

/// The cheapest graph found that is equal to `graph`. A pure function of its arguments.
pub fn rewrite(graph: &Graph, options: &Options) -> Rewritten {
    let canonical = canonical::canonicalise(graph, options.precision);
    let report = Report { canonicalised: (graph.len(), canonical.len()) };
    Rewritten { graph: canonical, report }
}
