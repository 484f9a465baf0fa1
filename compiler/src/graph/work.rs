//! How much arithmetic a graph asks for.

use super::{Graph, NodeId, Op, ops::attention_products};
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
        let operand = |position: usize| &self.node(self.operands(node)[position]).ty;
        match &self.node(node).op {
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::ToFloat | Op::ToInteger => elementwise(elements),
            Op::Reduce { .. } | Op::Unwindow { .. } => elementwise(operand(0).elements()),
            Op::Scatter { .. } => elementwise(operand(1).elements()),
            Op::SumInstances => elementwise(elements * self.scope(self.node(self.operands(node)[0]).scope).count),
            Op::Contract(labels) => {
                let summed = labels.lhs.iter().zip(&operand(0).shape).filter(|(label, _)| !labels.out.contains(label));
                Work { products: 2 * elements * summed.map(|(_, extent)| extent).product::<u64>(), elementwise: 0 }
            }
            Op::Attention(_) => Work { products: 2 * attention_products(operand(0), operand(1)), elementwise: 0 },
            Op::AttentionBackward(_) => {
                Work { products: 4 * attention_products(operand(0), operand(1)), elementwise: 0 }
            }
            _ => Work::default(),
        }
    }

    /// The work of the whole graph, repeats included.
    pub fn total_work(&self) -> Work {
        let all = |node| self.work(node) * self.scope(self.node(node).scope).count;
        self.ids().map(all).fold(Work::default(), Work::add)
    }
}
