//! How much arithmetic a graph asks for.

use super::{Arithmetic, Graph, NodeId, Op, ops::attention_products};
use std::ops::{Add, Mul};

/// Numbers of operations, in the currency of the field: what a formula says, not what a processor executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Of matrix products (and attention, masked scores included): `2 m n k` each.
    pub products: u64,
    /// Of element-wise operations and reductions: one per element read or made, whichever are more.
    pub elementwise: u64,
}

impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        Work { products: self.products + other.products, elementwise: self.elementwise + other.elementwise }
    }
}

impl Mul<u64> for Work {
    type Output = Work;

    fn mul(self, times: u64) -> Work {
        Work { products: self.products * times, elementwise: self.elementwise * times }
    }
}

impl Graph {
    /// The work of a node in one instance of its scope. Moving elements is none.
    pub fn work(&self, node: NodeId) -> Work {
        let elements = self.node(node).ty.elements();
        let elementwise = |elementwise| Work { products: 0, elementwise };
        let products = |products| Work { products, elementwise: 0 };
        let operand = |position: usize| &self.node(self.operands(node)[position]).ty;
        match self.node(node).op.facts().arithmetic {
            Arithmetic::Nothing => Work::default(),
            Arithmetic::Result => elementwise(elements),
            Arithmetic::Operand(position) => elementwise(operand(position).elements()),
            Arithmetic::Instances => elementwise(elements * self.scope(self.node(self.operands(node)[0]).scope).count),
            Arithmetic::Contraction => products(2 * elements * self.summed(node)),
            Arithmetic::Attention(count) => products(count * attention_products(operand(0), operand(1))),
        }
    }

    /// How many products each element of a contraction is the sum of.
    fn summed(&self, node: NodeId) -> u64 {
        let Op::Contract(labels) = &self.node(node).op else { return 1 };
        let shape = self.shape(self.operands(node)[0]);
        labels
            .lhs
            .iter()
            .zip(shape)
            .filter(|(label, _)| !labels.out.contains(label))
            .map(|(_, extent)| extent)
            .product()
    }

    /// The work of the whole graph, repeats included.
    pub fn total_work(&self) -> Work {
        let all = |node| self.work(node) * self.scope(self.node(node).scope).count;
        self.ids().map(all).fold(Work::default(), Work::add)
    }
}
