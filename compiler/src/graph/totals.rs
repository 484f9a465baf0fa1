//! Totals: a report on all records, which come batch by batch.
//!
//! What a program says of a batch it means of all records, as if they were one batch: `mean(x)` divides the sum over all by how
//! many there are, a quotient of two sums is that of both sums over all, and a perplexity is the exponential of the mean over
//! all. A mean of the batches' values is none of these. So a graph of reports is split where samples have met in sums: up
//! to there it yields, for each row of a batch, what the row adds to each *total*; the host adds up the rows that count.
//! What follows is a graph of its own that runs once, on the totals and on the number of records.
//!
//! A report whose samples meet otherwise (the largest value of a batch, statistics that normalise it) is left in the
//! first graph, as a value of each batch.

use super::{
    Coupled, Graph, NodeId, Op, Output, Place, Samples, ScopeId, TensorType,
    samples::{Step, after_sum},
    substitute,
};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::ir::Binary;
use trainc_runtime::artifact::{DType, total_name};

/// Most numbers of a total; each row of a batch holds as many.
const MOST_NUMBERS: u64 = 1 << 20;

/// A graph of reports, split at its totals.
#[derive(Clone, Debug)]
pub struct Split {
    /// What each row of a batch adds to each total, `[rows, ...]`, as reports named by [`total_name`]; and the reports of `whole`.
    pub batch: Graph,
    /// The other reports, from the totals; `None` if there are none. Its first input is the number of records, the others
    /// are the totals.
    pub conclusion: Option<Graph>,
    /// Types of the totals.
    pub totals: Vec<TensorType>,
    /// Reports that only a batch has, and why.
    pub whole: Vec<(String, Coupled)>,
}

/// The same graph for batches of another size, from which is seen what depends on that size.
#[derive(Clone, Copy, Debug)]
pub struct Twin<'a> {
    /// Built in the same way.
    pub graph: &'a Graph,
    /// Samples of its batch.
    pub rows: u64,
}

/// Splits a graph of reports over `rows` samples. Inputs of the conclusion are numbered from `first_input`.
pub fn split(graph: &Graph, rows: u64, twin: Option<Twin>, first_input: u32) -> Split {
    let standings = Standings::of(graph, rows, twin);
    let (whole, separate): (Vec<_>, Vec<_>) = reports(graph).partition(|&(_, node)| standings.is_mixed(node));
    let totals = standings.totals(graph, separate.iter().map(|&(_, node)| node));
    let conclusion = (!separate.is_empty()).then(|| standings.conclusion(graph, &separate, &totals, first_input));
    let reason = |(name, node): (String, NodeId)| (name, standings.mixed(node).expect("it is mixed"));
    Split {
        batch: standings.batch(graph, &whole, &totals),
        conclusion,
        totals: totals.iter().map(|&total| graph.node(total).ty.clone()).collect(),
        whole: whole.into_iter().map(reason).collect(),
    }
}

fn reports(graph: &Graph) -> impl Iterator<Item = (String, NodeId)> {
    graph.outputs().iter().filter_map(|(output, node)| match output {
        Output::Report(name) => Some((name.clone(), *node)),
        Output::Parameter(_) | Output::State(_) => None,
    })
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    /// Where its samples are.
    At(Place),
    /// It follows from totals.
    After,
    /// It is of one batch.
    Mixed(NodeId, &'static str),
}

/// How a constant follows from the number of samples in the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    /// So much for each sample.
    Times(f64),
    /// This, divided by the number of samples.
    Over(f64),
    /// Otherwise.
    Unknown,
}

struct Standings {
    of: Vec<Standing>,
    sizes: BTreeMap<NodeId, Size>,
    rows: u64,
}

/// Why a report is of a batch.
const MEET: &str = "compares samples with what all of them make";
const IN_REPEAT: &str = "computes with a sum over the samples within a repeat";
const OF_SIZE: &str = "depends on the size of the batch";
const MANY: &str = "makes a sum over the samples of too many numbers";

impl Standings {
    fn of(graph: &Graph, rows: u64, twin: Option<Twin>) -> Standings {
        let sizes = twin.and_then(|twin| sizes(graph, rows, twin));
        let unknown = sizes.is_none();
        let mut standings =
            Standings { of: vec![Standing::At(Place::Shared); graph.len()], sizes: sizes.unwrap_or_default(), rows };
        for component in graph.components() {
            while standings.settle(graph, &component) && component.len() > 1 {}
        }
        if unknown {
            let depends = |(node, _): (NodeId, &Standing)| Standing::Mixed(node, OF_SIZE);
            standings.of = graph.ids().zip(&standings.of).map(depends).collect();
        }
        standings
    }

    fn settle(&mut self, graph: &Graph, nodes: &[NodeId]) -> bool {
        let mut changed = false;
        for &node in nodes {
            let standing = self.derived(graph, node);
            changed |= std::mem::replace(&mut self.of[node.index()], standing) != standing;
        }
        changed
    }

    fn derived(&self, graph: &Graph, node: NodeId) -> Standing {
        let op = &graph.node(node).op;
        match (op, self.sizes.get(&node)) {
            (Op::Input { .. }, _) => return Standing::At(Place::Axis(0)),
            (_, Some(Size::Unknown)) => return Standing::Mixed(node, OF_SIZE),
            (_, Some(_)) => return Standing::After,
            _ => {}
        }
        let operands = if matches!(op, Op::Carry { .. }) { graph.awaits(node) } else { graph.operands(node) };
        let mut places = Vec::new();
        let mut follows = false;
        for &operand in &operands {
            match self.of[operand.index()] {
                Standing::At(place) => places.push(place),
                Standing::After => follows = true,
                mixed @ Standing::Mixed(..) => return mixed,
            }
        }
        let meets = places.iter().any(|place| matches!(place, Place::Axis(_)));
        if follows || places.contains(&Place::Summed) {
            return match (meets, follows) {
                (true, _) => Standing::Mixed(node, MEET),
                (false, false) if after_sum(op, &places).is_ok() => self.sum(graph, node),
                _ => self.after(graph, node, &operands),
            };
        }
        if !meets {
            return Standing::At(Place::Shared);
        }
        match (Step { graph, op, operands: &operands }).forward(&places, graph.shape(node)) {
            Ok(Place::Summed) => self.sum(graph, node),
            Ok(place) => Standing::At(place),
            Err(reason) => Standing::Mixed(node, reason),
        }
    }

    fn sum(&self, graph: &Graph, node: NodeId) -> Standing {
        let fits = graph.node(node).ty.elements() <= MOST_NUMBERS;
        if fits { Standing::At(Place::Summed) } else { Standing::Mixed(node, MANY) }
    }

    /// A value behind totals, which are values of the whole graph and not of an instance.
    fn after(&self, graph: &Graph, node: NodeId, operands: &[NodeId]) -> Standing {
        let is_sum = |operand: &&NodeId| self.of[operand.index()] == Standing::At(Place::Summed);
        let nested = |node: NodeId| graph.node(node).scope != ScopeId::ROOT;
        match nested(node) || operands.iter().filter(is_sum).any(|&operand| nested(operand)) {
            true => Standing::Mixed(node, IN_REPEAT),
            false => Standing::After,
        }
    }

    fn is_mixed(&self, node: NodeId) -> bool {
        self.mixed(node).is_some()
    }

    fn mixed(&self, node: NodeId) -> Option<Coupled> {
        match self.of[node.index()] {
            Standing::Mixed(node, reason) => Some(Coupled { node, reason }),
            // A report without an axis of samples does not depend on one of them alone.
            Standing::At(Place::Axis(_)) => Some(Coupled { node, reason: MEET }),
            _ => None,
        }
    }

    /// The sums that reports are, or follow from.
    fn totals(&self, graph: &Graph, reports: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let mut totals = BTreeSet::new();
        let mut pending: Vec<NodeId> = reports.collect();
        let mut met = BTreeSet::new();
        while let Some(node) = pending.pop() {
            if !met.insert(node) {
                continue;
            }
            match self.of[node.index()] {
                Standing::At(Place::Summed) => drop(totals.insert(node)),
                Standing::After => pending.extend(graph.operands(node)),
                _ => {}
            }
        }
        totals.into_iter().collect()
    }

    /// What each row adds to each total, and the reports of the batch.
    fn batch(&self, graph: &Graph, whole: &[(String, NodeId)], totals: &[NodeId]) -> Graph {
        let mut batch = graph.clone();
        let mut samples = Samples::known(self.of.iter().map(Standing::place).collect(), self.rows);
        let mut outputs: Vec<(Output, NodeId)> = Vec::new();
        for (number, &total) in totals.iter().enumerate() {
            outputs.push((Output::Report(total_name(number)), samples.shares(&mut batch, total)));
        }
        outputs.extend(whole.iter().map(|(name, node)| (Output::Report(name.clone()), *node)));
        batch.yielding(outputs)
    }

    /// The reports that follow from totals.
    fn conclusion(&self, graph: &Graph, reports: &[(String, NodeId)], totals: &[NodeId], first_input: u32) -> Graph {
        let mut conclusion = graph.clone();
        let mut input =
            |index: usize, ty: TensorType| conclusion.add(Op::Input { index: first_input + index as u32, ty }, &[]);
        let records = input(0, TensorType::f32([]));
        let mut pairs: Vec<(NodeId, NodeId)> =
            totals.iter().zip(1..).map(|(&total, index)| (total, input(index, graph.node(total).ty.clone()))).collect();
        let sizes: Vec<(NodeId, Size)> = self.sizes.iter().map(|(&node, &size)| (node, size)).collect();
        for (node, size) in sizes {
            if let Some(number) = of_records(&mut conclusion, size, records) {
                pairs.push((node, number));
            }
        }
        let wanted: Vec<NodeId> = reports.iter().map(|&(_, node)| node).collect();
        let substitution = substitute(&mut conclusion, &pairs, &wanted);
        let output = |(name, node): &(String, NodeId)| (Output::Report(name.clone()), substitution.of(*node));
        conclusion.yielding(reports.iter().map(output).collect()).renamed("conclude")
    }
}

impl Standing {
    fn place(&self) -> Place {
        match self {
            Standing::At(place) => *place,
            Standing::After | Standing::Mixed(..) => Place::Shared,
        }
    }
}

/// A constant of the batch's size as one of the number of records.
fn of_records(graph: &mut Graph, size: Size, records: NodeId) -> Option<NodeId> {
    let (function, number) = match size {
        Size::Times(number) => (Binary::Mul, number),
        Size::Over(number) => (Binary::Div, number),
        Size::Unknown => return None,
    };
    let number = graph.add(Op::constant(number), &[]);
    Some(graph.add(Op::Binary(function), &[number, records]))
}

/// The constants that depend on the size of the batch; `None` if more than constants and shapes does.
fn sizes(graph: &Graph, rows: u64, twin: Twin) -> Option<BTreeMap<NodeId, Size>> {
    if graph.len() != twin.graph.len() {
        return None;
    }
    let mut sizes = BTreeMap::new();
    for node in graph.ids() {
        match (&graph.node(node).op, &twin.graph.node(node).op) {
            (Op::Constant { value: a, dtype }, Op::Constant { value: b, .. }) if a != b => {
                sizes.insert(node, size(*dtype, [a.get(), b.get()], [rows as f64, twin.rows as f64]));
            }
            (a, b) if a.name() != b.name() => return None,
            _ => {}
        }
    }
    Some(sizes)
}

fn size(dtype: DType, [a, b]: [f64; 2], [rows, others]: [f64; 2]) -> Size {
    let close = |x: f64, y: f64| (x - y).abs() <= 1e-12 * x.abs();
    match () {
        () if dtype != DType::F32 => Size::Unknown,
        () if close(a / rows, b / others) => Size::Times(a / rows),
        () if close(a * rows, b * others) => Size::Over(a * rows),
        () => Size::Unknown,
    }
}
