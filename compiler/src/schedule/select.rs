//! Which values are computed into buffers (or accumulators) by kernels, and which are recomputed by whoever uses them.
//!
//! Reductions, products, scatters and attention are always computed. An element-wise value is computed if something needs
//! it in memory (an output, a factor of a product), or if several users would otherwise repeat more work or read more
//! memory than storing it costs. Index maps are computed only where a user cannot follow them.

use super::{
    dag::{Dag, Id, Node},
    lower::{Lowering, Values},
    pack, refine,
};
use crate::graph::{Class, Contraction, Moves, Op};
use std::collections::{BTreeMap, BTreeSet};
use trainc_kernels::ir::{Expr, Index, Unary};

/// Work, in simple operations per element, that is repeated by several users rather than stored: about what one store
/// and one load from memory cost.
const REPEATED_WORK: u32 = 32;
/// Work per element on few elements that is not repeated for many.
const SPREAD_WORK: u32 = 2;
/// A value counts as spread when a user has at least this many times its elements.
const SPREAD_FACTOR: u64 = 4;
/// Most work that one expression may do: emission time grows with it.
const MAX_WORK: u32 = 400;

/// The class of a node.
pub(super) fn class(dag: &Dag, id: Id) -> Class {
    match &dag.nodes[id].op {
        Op::Contract(contraction) => contraction_class(dag, id, contraction),
        op => op.facts().class,
    }
}

/// Without summed labels a contraction is element-wise; with one row or column it is bound by memory like a reduction.
fn contraction_class(dag: &Dag, id: Id, contraction: &Contraction) -> Class {
    let sides = Sides::of(dag, id, contraction);
    let size = |labels: &[u8]| labels.iter().map(|label| sides.extents[label]).product::<u64>();
    match () {
        () if sides.k.is_empty() => Class::Element,
        () if size(&sides.m) == 1 || size(&sides.n) == 1 => Class::Reduction,
        () => Class::Product,
    }
}

/// The labels of a contraction by role.
pub(super) struct Sides {
    pub extents: BTreeMap<u8, u64>,
    /// Of both operands and the result.
    pub batch: Vec<u8>,
    /// Of the left operand and the result.
    pub m: Vec<u8>,
    /// Of the right operand and the result.
    pub n: Vec<u8>,
    /// Of both operands alone.
    pub k: Vec<u8>,
}

impl Sides {
    pub fn of(dag: &Dag, id: Id, contraction: &Contraction) -> Sides {
        let operands = &dag.nodes[id].operands;
        Sides::of_operands(dag, [operands[0], operands[1]], contraction)
    }

    pub fn of_operands(dag: &Dag, operands: [Id; 2], contraction: &Contraction) -> Sides {
        let Contraction { lhs, rhs, out, .. } = contraction;
        let shape = |position: usize| dag.nodes[operands[position]].shape.iter().copied();
        let extents = lhs.iter().copied().zip(shape(0)).chain(rhs.iter().copied().zip(shape(1))).collect();
        let of_out = |in_lhs: bool, in_rhs: bool| -> Vec<u8> {
            out.iter().copied().filter(|label| lhs.contains(label) == in_lhs && rhs.contains(label) == in_rhs).collect()
        };
        let k = lhs.iter().copied().filter(|label| !out.contains(label)).collect();
        Sides { extents, batch: of_out(true, true), m: of_out(true, false), n: of_out(false, true), k }
    }

    pub fn sizes(&self, labels: &[u8]) -> Vec<u64> {
        labels.iter().map(|label| self.extents[label]).collect()
    }
}

/// What recomputing a value means.
#[derive(Clone, Debug, Default)]
struct Work {
    /// Simple operations per element.
    operations: u32,
    /// Values in memory that are read.
    reads: BTreeSet<Id>,
    /// Whether it depends on anything but constants.
    varies: bool,
    /// Whether it draws random numbers, which are keyed by the instance that draws.
    draws: bool,
}

/// Chooses the computed values of a prepared graph.
pub(super) fn select(dag: &Dag) -> Values<'_> {
    let users = dag.users();
    let mut selection = Selection {
        values: Values {
            dag,
            computed: vec![false; dag.nodes.len()],
            layouts: BTreeMap::new(),
            stored: dag.nodes.iter().map(|node| node.dtype).collect(),
        },
        consumers: consumers(dag, &users),
        users,
        work: Vec::with_capacity(dag.nodes.len()),
    };
    for id in 0..dag.nodes.len() {
        selection.visit(id);
    }
    selection.values
}

/// By node, how many nodes use its value, index maps not counted but looked through.
fn consumers(dag: &Dag, users: &[Vec<Id>]) -> Vec<usize> {
    let mut seen: Vec<BTreeSet<Id>> = vec![BTreeSet::new(); dag.nodes.len()];
    for id in (0..dag.nodes.len()).rev() {
        for &user in &users[id] {
            let through = class(dag, user) == Class::Map && !dag.nodes[user].stored;
            let more = if through { seen[user].clone() } else { BTreeSet::from([user]) };
            seen[id].extend(more);
        }
    }
    seen.iter().map(BTreeSet::len).collect()
}

struct Selection<'a> {
    values: Values<'a>,
    users: Vec<Vec<Id>>,
    consumers: Vec<usize>,
    work: Vec<Work>,
}

impl Selection<'_> {
    fn visit(&mut self, id: Id) {
        let dag = self.values.dag;
        let class = class(dag, id);
        let work = self.work_of(id, class);
        self.values.computed[id] = match class {
            Class::Buffer => false,
            Class::Source | Class::Map => dag.nodes[id].stored || (work.draws && self.leaves_root(id)),
            Class::Element => dag.nodes[id].stored || self.worth_storing(id, &work),
            _ => true,
        };
        self.work.push(work);
        if self.values.computed[id] {
            self.work[id] = Work { reads: BTreeSet::from([id]), varies: true, ..Work::default() };
        }
        self.settle_operands(id, class);
        self.choose_layout(id, class);
    }

    fn work_of(&self, id: Id, class: Class) -> Work {
        let node = &self.values.dag.nodes[id];
        if class == Class::Buffer {
            return Work { reads: BTreeSet::from([id]), varies: true, ..Work::default() };
        }
        let mut work = Work {
            operations: operations(node),
            varies: matches!(node.op, Op::Control(_) | Op::Random { .. } | Op::Iota { .. }),
            draws: matches!(node.op, Op::Random { .. }),
            ..Work::default()
        };
        for &operand in &node.operands {
            let other = &self.work[operand];
            work.operations = work.operations.saturating_add(other.operations);
            work.reads.extend(&other.reads);
            work.varies |= other.varies;
            work.draws |= other.draws;
        }
        if let Op::Unwindow { axis, .. } = node.op {
            let size = self.values.dag.nodes[node.operands[0]].shape[axis + 1] as u32;
            work.operations = work.operations.saturating_mul(size);
        }
        if !work.varies {
            work.operations = 0;
        }
        work
    }

    fn worth_storing(&self, id: Id, work: &Work) -> bool {
        let dag = self.values.dag;
        let elements = dag.nodes[id].elements();
        let large = work.reads.iter().filter(|&&read| dag.nodes[read].elements() * SPREAD_FACTOR >= elements).count();
        let repeated = self.consumers[id] > 1 && work.operations > 0 && (large > 1 || work.operations > REPEATED_WORK);
        let expensive = !work.reads.is_empty() || work.draws || work.operations > REPEATED_WORK;
        let crosses = self.leaves_root(id) && work.operations > 0 && expensive;
        let rounded = dag.nodes[id].op == Op::Unary(Unary::RoundBf16) && work.operations > 1;
        rounded
            || repeated
            || crosses
            || work.operations > MAX_WORK
            || (work.operations >= SPREAD_WORK && self.is_spread(id))
    }

    /// Whether a root value is used within a repeat.
    fn leaves_root(&self, id: Id) -> bool {
        let scope = |id: Id| self.values.dag.nodes[id].scope;
        scope(id) == 0 && self.users[id].iter().any(|&user| scope(user) != 0)
    }

    /// Whether an index map copies the value to many more elements.
    fn is_spread(&self, id: Id) -> bool {
        let dag = self.values.dag;
        self.users[id].iter().any(|&user| match dag.nodes[user].op {
            Op::Broadcast { .. } => dag.nodes[user].elements() >= SPREAD_FACTOR * dag.nodes[id].elements(),
            Op::Reshape { .. } | Op::Permute { .. } | Op::StopGradient => self.is_spread(user),
            _ => false,
        })
    }

    /// Sees to it that factors of products and operands of attention can be read in place.
    fn settle_operands(&mut self, id: Id, class: Class) {
        let operands = self.values.dag.nodes[id].operands.clone();
        match (class, &self.values.dag.nodes[id].op) {
            (Class::Product, _) => operands.iter().for_each(|&operand| self.settle(operand, Reading::Strided)),
            (Class::Attention, _) => operands.iter().for_each(|&operand| self.settle(operand, Reading::View)),
            (_, Op::Gather) if self.work[operands[0]].operations > 0 => self.compute(operands[0]),
            _ => {}
        }
    }

    /// Computes the innermost value below index maps that makes `operand` readable in place.
    fn settle(&mut self, operand: Id, reading: Reading) {
        let mut chain = vec![operand];
        while let Some(inner) = self.below(chain[chain.len() - 1]) {
            chain.push(inner);
        }
        let bottom = chain[chain.len() - 1];
        if !self.values.in_memory(bottom) {
            self.compute(bottom);
        }
        for &id in chain.iter().rev() {
            if readable(&self.values, operand, reading) {
                return;
            }
            self.compute(id);
        }
    }

    /// The operand of an index map that is followed.
    fn below(&self, id: Id) -> Option<Id> {
        let dag = self.values.dag;
        let follows = class(dag, id) == Class::Map && !self.values.computed[id];
        follows.then(|| dag.nodes[id].operands[0])
    }

    fn compute(&mut self, id: Id) {
        if !self.values.in_memory(id) {
            self.values.computed[id] = true;
            self.work[id] = Work { reads: BTreeSet::from([id]), varies: true, ..Work::default() };
        }
    }

    /// Attention writes its results in the order of axes that its user reads; a product whose parts are used one by one
    /// keeps its rows together.
    fn choose_layout(&mut self, id: Id, class: Class) {
        let dag = self.values.dag;
        if let Some(order) = pack::layout(dag, id, &self.users[id]) {
            self.values.layouts.insert(id, order);
            return;
        }
        let in_parts = |&user: &Id| matches!(dag.nodes[user].op, Op::Slice { .. } | Op::Attention(_));
        if let (Class::Product, Op::Contract(contraction)) = (class, &dag.nodes[id].op)
            && !dag.nodes[id].stored
            && self.users[id].iter().all(in_parts)
        {
            let sides = Sides::of(dag, id, contraction);
            let order = [&sides.batch[..], &sides.m, &sides.n].concat();
            let axis =
                |label: &u8| contraction.out.iter().position(|other| other == label).expect("a label of the result");
            self.values.layouts.insert(id, order.iter().map(axis).collect());
            return;
        }
        let result_of_attention = match dag.nodes[id].op {
            Op::Project { .. } => self::class(dag, dag.nodes[id].operands[0]) == Class::Attention,
            _ => class == Class::Attention,
        };
        if !result_of_attention || dag.nodes[id].stored || dag.nodes[id].shape.len() != 4 {
            return;
        }
        let order = self.users[id].iter().find_map(|&user| match &dag.nodes[user].op {
            Op::Permute { axes } => Some(axes.clone()),
            _ => None,
        });
        if let Some(order) = order {
            self.values.layouts.insert(id, order);
        }
    }
}

/// How a kernel reads an operand in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Each axis may be split into several, each with a stride.
    Strided,
    /// Each axis has a stride.
    View,
}

/// Whether a value can be read from one buffer by strides.
fn readable(values: &Values, id: Id, reading: Reading) -> bool {
    let shape = values.dag.nodes[id].shape.clone();
    let mut lowering = Lowering::new(values, shape.clone(), BTreeMap::new());
    let coords: Vec<Index> = (0..shape.len() as u32).map(Index::var).collect();
    let Ok(value) = lowering.value(id, &coords, None) else { return false };
    let Expr::Load { index, guard: None, .. } = lowering.exprs.get(value).clone() else { return false };
    match reading {
        Reading::View => (0..shape.len() as u32).all(|var| index.stride_of(var, &lowering.exprs).is_some()),
        Reading::Strided => refine::is_affine_when_split(&index, &shape),
    }
}

/// Simple operations that a node adds to the work per element.
fn operations(node: &Node) -> u32 {
    let facts = node.op.facts();
    let times = if facts.moves == Moves::Joined { node.operands.len() as u32 } else { 1 };
    facts.operations * times
}
