//! What the elements of each buffer are in memory.
//!
//! A value is kept in bf16 where that changes no result: all that read it round it to bf16 first, as the factors of
//! products in bf16 are, or it is rounded already. What lies in one buffer (what an instance hands to the next, the
//! slices of a stack) has one type.

use super::{
    dag::{Dag, Home, Id, Node},
    lower::Values,
};
use crate::graph::{Class, Op};
use std::collections::BTreeMap;
use trainc_kernels::ir::{DType, Precision, Unary};
use trainc_runtime::abi::ARGUMENT_ALIGNMENT;

/// The operand of [`Op::AttentionBackward`] that is no factor of a product, and the result of [`Op::Attention`] that it is.
const LOG_SUM_EXP: usize = 4;
const IS_LOG_SUM_EXP: Op = Op::Project { index: 1 };

/// By node, the type of its elements in memory.
pub(super) fn assign(values: &Values) -> Vec<DType> {
    let dag = values.dag;
    let is_bf16 = |node: &Node| precision(&node.op) == Some(Precision::Bf16);
    if !dag.nodes.iter().any(is_bf16) {
        return dag.nodes.iter().map(|node| node.dtype).collect();
    }
    let (buffers, users, exact) = (Buffers::new(dag), dag.users(), exact(dag));
    let mut narrow: Vec<bool> = (0..dag.nodes.len()).map(|id| is_open(values, id)).collect();
    loop {
        let rounded = rounded_by_readers(values, &users, &narrow);
        let next = buffers.settled(|id| narrow[id] && (exact[id] || rounded[id]));
        if next == narrow {
            break;
        }
        narrow = next;
    }
    let dtype = |(node, narrow): (&Node, bool)| if narrow { DType::Bf16 } else { node.dtype };
    dag.nodes.iter().zip(narrow).map(dtype).collect()
}

/// Whether a value lies in a buffer whose type is open: no tensor, input or report, nothing that is added up there, and
/// no slice whose neighbour would begin at an odd place.
fn is_open(values: &Values, id: Id) -> bool {
    let dag = values.dag;
    let node = &dag.nodes[id];
    let fixed = matches!(
        node.op,
        Op::Input { .. } | Op::Parameter { .. } | Op::State { .. } | Op::Scatter { .. } | Op::SumInstances
    );
    let is_log_sum_exp = node.op == IS_LOG_SUM_EXP && matches!(dag.nodes[node.operands[0]].op, Op::Attention(_));
    let has_place = matches!(dag.homes.get(&id), Some(Home::Tensor(_) | Home::Under(_)));
    let is_slice = matches!(node.op, Op::Layer { .. }) || matches!(dag.homes.get(&id), Some(Home::Slice(_)));
    let is_aligned = !is_slice || (node.elements() * DType::Bf16.bytes()).is_multiple_of(ARGUMENT_ALIGNMENT);
    let is_output = dag.outputs.iter().any(|(_, output)| dag.storage(*output) == id);
    node.dtype == DType::F32
        && values.in_memory(id)
        && !fixed
        && !is_log_sum_exp
        && !has_place
        && is_aligned
        && !is_output
}

/// Which nodes lie in one buffer, as a forest of sets.
struct Buffers {
    parent: Vec<Id>,
}

impl Buffers {
    fn new(dag: &Dag) -> Buffers {
        let mut buffers = Buffers { parent: (0..dag.nodes.len()).collect() };
        for (id, node) in dag.nodes.iter().enumerate() {
            match node.op {
                Op::Layer { .. } | Op::Stack { .. } | Op::Last => buffers.join(id, dag.storage(node.operands[0])),
                _ => {}
            }
        }
        for (&id, carry) in &dag.carries {
            buffers.join(id, dag.storage(carry.init));
            buffers.join(id, dag.storage(carry.next));
        }
        buffers
    }

    fn root(&self, mut id: Id) -> Id {
        while self.parent[id] != id {
            id = self.parent[id];
        }
        id
    }

    fn join(&mut self, a: Id, b: Id) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// By node, whether the condition holds for all that lies in its buffer.
    fn settled(&self, condition: impl Fn(Id) -> bool) -> Vec<bool> {
        let mut all: BTreeMap<Id, bool> = BTreeMap::new();
        for id in 0..self.parent.len() {
            *all.entry(self.root(id)).or_insert(true) &= condition(id);
        }
        (0..self.parent.len()).map(|id| all[&self.root(id)]).collect()
    }
}

/// By node, whether all that read it round it, given which values are kept in bf16.
fn rounded_by_readers(values: &Values, users: &[Vec<Id>], narrow: &[bool]) -> Vec<bool> {
    let mut rounded = vec![false; narrow.len()];
    for id in (0..narrow.len()).rev() {
        let rounds = |&user: &Id| match reading(values.dag, user, id) {
            Reading::Rounds => true,
            Reading::Computes => false,
            Reading::HandsOn if values.in_memory(user) => narrow[user],
            Reading::HandsOn => rounded[user],
        };
        rounded[id] = users[id].iter().all(rounds);
    }
    rounded
}

/// What a node does with an operand.
enum Reading {
    /// The same as with the operand rounded to bf16, or nothing.
    Rounds,
    /// Its elements become elements of the result as they are.
    HandsOn,
    Computes,
}

fn reading(dag: &Dag, user: Id, operand: Id) -> Reading {
    let node = &dag.nodes[user];
    match &node.op {
        Op::AttentionBackward(_) if node.operands[LOG_SUM_EXP] == operand => Reading::Computes,
        op if precision(op) == Some(Precision::Bf16) => Reading::Rounds,
        Op::Unary(Unary::RoundBf16) => Reading::Rounds,
        // These lie in the same buffer, or read no memory.
        op if op.facts().class == Class::Buffer => Reading::Rounds,
        op if moves(op, node.operands.iter().position(|&other| other == operand)) => Reading::HandsOn,
        _ => Reading::Computes,
    }
}

fn moves(op: &Op, position: Option<usize>) -> bool {
    position.is_some_and(|position| op.facts().moves_operand(position))
}

/// By node, whether all its elements are numbers of bf16.
fn exact(dag: &Dag) -> Vec<bool> {
    let mut exact: Vec<bool> = Vec::with_capacity(dag.nodes.len());
    for node in &dag.nodes {
        let facts = node.op.facts();
        let decides = |position: &usize| facts.keeps_rounding || facts.moves_operand(*position);
        let mut deciding = (0..node.operands.len()).filter(decides).peekable();
        let is_exact = match &node.op {
            Op::Unary(Unary::RoundBf16) => true,
            Op::Constant { value, .. } => Precision::Bf16.round(value.get()) == value.get(),
            _ => deciding.peek().is_some() && deciding.all(|position| exact[node.operands[position]]),
        };
        exact.push(is_exact);
    }
    exact
}

/// What the factors of an operation's products are rounded to.
fn precision(op: &Op) -> Option<Precision> {
    match op {
        Op::Contract(contraction) => Some(contraction.precision),
        Op::Attention(spec) | Op::AttentionBackward(spec) => Some(spec.precision),
        _ => None,
    }
}
