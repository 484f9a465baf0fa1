//! What the elements of each buffer are in memory.
//!
//! A value is kept in bf16 where that changes no result: all that read it round it to bf16 first, as the factors of
//! products in bf16 are, or it is rounded already. What lies in one buffer (what an instance hands to the next, the
//! slices of a stack) has one type.

use super::{
    dag::{Dag, Home, Id},
    lower::Values,
};
use crate::graph::Op;
use std::collections::BTreeMap;
use trainc_kernels::ir::{Binary, DType, Precision, Unary, round_bf16};

/// The operand of [`Op::AttentionBackward`] that is no factor of a product.
const LOG_SUM_EXP: usize = 4;

/// By node, the type of its elements in memory.
pub(super) fn assign(values: &Values) -> Vec<DType> {
    let dag = values.dag;
    if !dag.nodes.iter().any(|node| precision(&node.op) == Some(Precision::Bf16)) {
        return dag.nodes.iter().map(|node| node.dtype).collect();
    }
    let buffers = Buffers::new(dag);
    let mut narrow: Vec<bool> = (0..dag.nodes.len()).map(|id| is_open(values, id)).collect();
    let users = dag.users();
    loop {
        let readers = Readers { values, users: &users, narrow: &narrow };
        let next = buffers.settled(|id| readers.may_be_narrow(id));
        if next == narrow {
            break;
        }
        narrow = next;
    }
    let dtype = |(node, narrow): (&super::dag::Node, bool)| if narrow { DType::Bf16 } else { node.dtype };
    dag.nodes.iter().zip(narrow).map(dtype).collect()
}

/// Whether a value lies in a buffer whose type is open: no tensor, input or report, and nothing that is added up there.
fn is_open(values: &Values, id: Id) -> bool {
    let dag = values.dag;
    let node = &dag.nodes[id];
    let fixed = matches!(
        node.op,
        Op::Input { .. } | Op::Parameter { .. } | Op::State { .. } | Op::Scatter { .. } | Op::SumInstances
    );
    let has_place = matches!(dag.homes.get(&id), Some(Home::Tensor(_) | Home::Under(_)));
    let is_output = dag.outputs.iter().any(|(_, output)| dag.storage(*output) == id);
    node.dtype == DType::F32 && values.in_memory(id) && !fixed && !has_place && !is_output
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

/// Who reads values, given which of them are kept in bf16.
struct Readers<'a> {
    values: &'a Values<'a>,
    users: &'a [Vec<Id>],
    narrow: &'a [bool],
}

impl Readers<'_> {
    fn may_be_narrow(&self, id: Id) -> bool {
        self.narrow[id] && (is_exact(self.values.dag, id) || self.users[id].iter().all(|&user| self.rounds(user, id)))
    }

    /// Whether what `user` makes of the operand `id` is the same if that is rounded first.
    fn rounds(&self, user: Id, id: Id) -> bool {
        let node = &self.values.dag.nodes[user];
        match &node.op {
            Op::AttentionBackward(_) if node.operands[LOG_SUM_EXP] == id => false,
            Op::Unary(Unary::RoundBf16) => true,
            op if precision(op).is_some() => precision(op) == Some(Precision::Bf16),
            // These lie in the same buffer, or read no memory.
            Op::Layer { .. } | Op::Stack { .. } | Op::Last | Op::Carry { .. } => true,
            Op::SumInstances | Op::Project { .. } => true,
            op if !hands_on(op, node.operands.iter().position(|&operand| operand == id)) => false,
            _ if self.values.in_memory(user) => self.narrow[user],
            _ => self.users[user].iter().all(|&next| self.rounds(next, user)),
        }
    }
}

/// Whether all elements of a value are numbers of bf16.
fn is_exact(dag: &Dag, id: Id) -> bool {
    let node = &dag.nodes[id];
    let all = |operands: &[Id]| operands.iter().all(|&operand| is_exact(dag, operand));
    match &node.op {
        Op::Unary(Unary::RoundBf16) => true,
        Op::Constant { value, .. } => f64::from(round_bf16(value.get() as f32)) == value.get(),
        Op::Unary(Unary::Neg | Unary::Abs) | Op::Binary(Binary::Max | Binary::Min) => all(&node.operands),
        op if hands_on(op, Some(1)) => all(&node.operands[usize::from(*op == Op::Select)..]),
        _ => false,
    }
}

/// What the factors of an operation's products are rounded to.
fn precision(op: &Op) -> Option<Precision> {
    match op {
        Op::Contract(contraction) => Some(contraction.precision),
        Op::Attention(spec) | Op::AttentionBackward(spec) => Some(spec.precision),
        _ => None,
    }
}

/// Whether elements of the operand at a position become elements of the result as they are.
fn hands_on(op: &Op, position: Option<usize>) -> bool {
    match op {
        Op::StopGradient | Op::Broadcast { .. } | Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } => true,
        Op::Window { .. } | Op::Pad { .. } | Op::Concat { .. } => true,
        Op::Gather => position == Some(0),
        Op::Select => position.is_some_and(|position| position > 0),
        _ => false,
    }
}
