//! What a term costs, in picoseconds of a modelled machine: an integer, so that sums are exact and their order is total.
//!
//! A term costs its arithmetic at the machine's speed, plus the memory traffic of operands and results at its bandwidth,
//! plus the launch of a kernel. What is fused does not touch memory: scheduling fuses element-wise work, views and
//! reductions with their neighbours, so these cost arithmetic and, since every now and then a result has several users and
//! is stored after all, a quarter of the traffic of the result. Contractions, attention, gathers and scatters are kernels of
//! their own and read and write all they work on. Their results are charged [`STORED`] times: a stored value also occupies
//! memory until its last user, and what fits at all is decided by that. For the same reason the sum and not the larger of
//! arithmetic and traffic is charged. This is what makes attention worth its recomputation: per score, at 64 channels,
//! primitives cost about 13 ns forward and backward, attention 9 ns, and half of that under a causal mask.

use super::language::{Symbol, Term};
use crate::graph::{Contraction, Mask, Op, TensorType};
use trainc_kernels::ir::{ReduceKind, Unary};

/// Speed of the modelled machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Picoseconds for a thousand multiply-adds of a contraction.
    pub contraction: u64,
    /// Picoseconds for a thousand element-wise operations.
    pub elementwise: u64,
    /// Picoseconds for a thousand bytes to or from memory.
    pub traffic: u64,
    /// Picoseconds to launch a kernel.
    pub launch: u64,
}

impl Machine {
    /// A few CPU cores: 100 GFLOP/s in products, 16 G element-wise operations/s, 20 GB/s, 2 us for a launch.
    pub const CPU: Machine = Machine { contraction: 20_000, elementwise: 62_500, traffic: 50_000, launch: 2_000_000 };
}

/// How often the traffic of a stored result is charged.
const STORED: u128 = 8;

/// Bytes of an element.
const BYTES: u128 = 4;

/// More than any graph costs; of a term that must not be chosen. Sums of many of them stay within u128.
pub const NEVER: u128 = 1 << 100;

/// Cost of a term with results and operands of these types.
pub fn cost(machine: &Machine, term: &Term, results: &[TensorType], operands: &[&[TensorType]]) -> u128 {
    let result = elements(&results[0]);
    let moved = STORED * results.iter().map(elements).sum::<u128>()
        + operands.iter().map(|types| elements(&types[0])).sum::<u128>();
    let kernel = |multiply_adds: u128| {
        thousandths(multiply_adds, machine.contraction)
            + thousandths(BYTES * moved, machine.traffic)
            + u128::from(machine.launch)
    };
    match &term.symbol {
        symbol if symbol.is_helper() => NEVER,
        Symbol::Leaf(_) | Symbol::Result(_) => 0,
        Symbol::Attention(spec) => kernel(scores(&operands[0][0], &operands[1][0], spec.mask, 2)),
        Symbol::AttentionBackward(spec) => kernel(scores(&operands[0][0], &operands[1][0], spec.mask, 5)),
        Symbol::Op(Op::Contract(c)) => kernel(multiply_adds(c, operands)),
        Symbol::Op(op) if moves_memory(op) => kernel(0),
        Symbol::Op(op) => fused(machine, op, result, operands),
        Symbol::Softmax(_) | Symbol::SoftmaxGradient(_) => NEVER,
    }
}

/// Of an operation that runs within a kernel. 1 at least, so that of equal graphs the smaller is cheaper.
fn fused(machine: &Machine, op: &Op, result: u128, operands: &[&[TensorType]]) -> u128 {
    let work = match op {
        Op::Constant { .. } | Op::Broadcast { .. } | Op::Reshape { .. } | Op::Iota { .. } => return 1,
        Op::Permute { .. } | Op::Slice { .. } | Op::Pad { .. } => return 1 + thousandths(result, machine.traffic),
        Op::Reduce { .. } => elements(&operands[0][0]),
        _ => result * weight(op),
    };
    1 + thousandths(work, machine.elementwise) + thousandths(result, machine.traffic)
}

/// Element-wise operations that one is worth.
fn weight(op: &Op) -> u128 {
    match op {
        Op::Unary(Unary::Exp | Unary::Log | Unary::Tanh | Unary::Sin | Unary::Cos | Unary::Erf) => 10,
        Op::Unary(Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal) => 4,
        Op::Binary(trainc_kernels::ir::Binary::Div) => 4,
        Op::Binary(trainc_kernels::ir::Binary::Pow) => 20,
        _ => 1,
    }
}

fn moves_memory(op: &Op) -> bool {
    matches!(op, Op::Gather | Op::Scatter { .. } | Op::Concat { .. } | Op::Reduce { kind: ReduceKind::ArgMax, .. })
}

fn elements(ty: &TensorType) -> u128 {
    u128::from(ty.elements())
}

fn thousandths(count: u128, rate: u64) -> u128 {
    count * u128::from(rate) / 1000
}

fn multiply_adds(c: &Contraction, operands: &[&[TensorType]]) -> u128 {
    let summed = c.rhs.iter().zip(&operands[1][0].shape).filter(|(label, _)| !c.lhs.contains(label));
    elements(&operands[0][0]) * summed.map(|(_, &extent)| u128::from(extent)).product::<u128>()
}

/// Multiply-adds of `products` products over the scores that the mask leaves.
fn scores(q: &TensorType, k: &TensorType, mask: Mask, products: u128) -> u128 {
    let keys = u128::from(k.shape[2]);
    let seen = match mask {
        Mask::Full => keys,
        Mask::Causal => keys.div_ceil(2),
        Mask::Window(width) => keys.min(u128::from(width)),
    };
    elements(q) * seen * products
}
