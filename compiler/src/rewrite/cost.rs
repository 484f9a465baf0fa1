//! What a term costs, in picoseconds of a modelled machine: an integer, so that sums are exact and their order is total.
//!
//! A term costs its arithmetic at the machine's speed, plus the memory traffic of operands and results at its bandwidth,
//! plus the launch of a kernel. What is fused does not touch memory: scheduling fuses element-wise work, views and
//! reductions with their neighbours, so these cost arithmetic and, since every now and then a result has several users and
//! is stored after all, a quarter of the traffic of the result. Contractions, attention, gathers and scatters are kernels of
//! their own and read and write all they work on. Their results are charged several times ([`Machine::stored`]): a stored value also
//! occupies memory until its last user, and what fits at all is decided by that. For the same reason the sum and not the larger of
//! arithmetic and traffic is charged. This is what makes attention worth its recomputation: per score, at 64 channels,
//! primitives cost about 13 ns forward and backward, attention 9 ns, and half of that under a causal mask.

use super::language::{Symbol, Term};
use crate::graph::{Arithmetic, Contraction, Mask, Op, TensorType, Traffic};

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
    /// How often the traffic of a stored result is charged.
    pub stored: u64,
}

impl Machine {
    /// A few CPU cores: 100 GFLOP/s in products, 16 G element-wise operations/s, 20 GB/s, 2 us for a launch.
    pub const CPU: Machine =
        Machine { contraction: 20_000, elementwise: 62_500, traffic: 50_000, launch: 2_000_000, stored: 8 };

    /// Picoseconds of a plan, of which no more is known than this: all arithmetic at the speed of products.
    pub fn time(&self, flops: u64, bytes: u64, launches: u64) -> u128 {
        thousandths(flops.into(), self.contraction) / 2
            + thousandths(bytes.into(), self.traffic)
            + u128::from(launches) * u128::from(self.launch)
    }
}

/// Bytes of an element.
const BYTES: u128 = 4;

/// More than any graph costs; of a term that must not be chosen. Sums of many of them stay within u128.
pub const NEVER: u128 = 1 << 100;

/// What a term does, before a machine puts a price on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How it runs.
    pub run: Run,
    /// Multiply-adds of contractions.
    pub multiply_adds: u128,
    /// Element-wise operations.
    pub elementwise: u128,
    /// Bytes of operands that are read from memory.
    pub read: u128,
    /// Bytes of results that are written; of what is fused, those that are written after all.
    pub written: u128,
}

/// How a term runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Not at all: it names a value.
    #[default]
    Free,
    /// Within the kernel of a neighbour.
    Fused,
    /// As a kernel.
    Kernel,
}

impl Work {
    /// Floating-point operations: two for each multiply-add.
    pub fn flops(&self) -> u128 {
        2 * self.multiply_adds + self.elementwise
    }

    /// Bytes to and from memory.
    pub fn bytes(&self) -> u128 {
        self.read + self.written
    }

    /// Picoseconds on a machine. What is fused costs 1 at least, so that of equal graphs the smaller is cheaper.
    fn cost(&self, machine: &Machine) -> u128 {
        let (charged, fixed) = match self.run {
            Run::Free => (0, 0),
            Run::Fused => (self.read + self.written, 1),
            Run::Kernel => (self.read + u128::from(machine.stored) * self.written, u128::from(machine.launch)),
        };
        fixed
            + thousandths(self.multiply_adds, machine.contraction)
            + thousandths(self.elementwise, machine.elementwise)
            + thousandths(charged, machine.traffic)
    }
}

/// Cost of a term with results and operands of these types.
pub fn cost(machine: &Machine, term: &Term, results: &[TensorType], operands: &[&[TensorType]]) -> u128 {
    work(term, results, operands).map_or(NEVER, |work| work.cost(machine))
}

/// What a term with results and operands of these types does; `None` of a helper term, which nothing computes.
pub fn work(term: &Term, results: &[TensorType], operands: &[&[TensorType]]) -> Option<Work> {
    let kernel = |multiply_adds: u128| Work {
        run: Run::Kernel,
        multiply_adds,
        read: BYTES * operands.iter().map(|types| elements(&types[0])).sum::<u128>(),
        written: BYTES * results.iter().map(elements).sum::<u128>(),
        ..Work::default()
    };
    Some(match &term.symbol {
        Symbol::Leaf(_) | Symbol::Result(_) => Work::default(),
        Symbol::Attention(spec) => kernel(scores(&operands[0][0], &operands[1][0], spec.mask, 2)),
        Symbol::AttentionBackward(spec) => kernel(scores(&operands[0][0], &operands[1][0], spec.mask, 5)),
        Symbol::Op(Op::Contract(c)) => kernel(multiply_adds(c, operands)),
        Symbol::Op(op) => match op.facts().traffic {
            Traffic::Stored => kernel(0),
            Traffic::Fused => fused(op, &results[0], operands),
            Traffic::Named => Work { run: Run::Fused, ..Work::default() },
        },
        Symbol::Softmax(_) | Symbol::SoftmaxGradient(_) => return None,
    })
}

/// Of an operation that runs within a kernel. A quarter of what it writes reaches memory.
fn fused(op: &Op, result: &TensorType, operands: &[&[TensorType]]) -> Work {
    let facts = op.facts();
    let elementwise = match facts.arithmetic {
        Arithmetic::Operand(position) => elements(&operands[position][0]),
        Arithmetic::Result => elements(result) * u128::from(facts.operations),
        Arithmetic::Nothing | Arithmetic::Instances | Arithmetic::Contraction | Arithmetic::Attention(_) => 0,
    };
    Work { run: Run::Fused, elementwise, written: elements(result) * BYTES / 4, ..Work::default() }
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
