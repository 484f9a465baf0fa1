//! The terms of the e-graph: the graph's operations, values that enter a region, and helper terms.
//!
//! Operations with several results are one [`Symbol`] of a tuple type whose results are taken by [`Symbol::Result`], the
//! first one included: an e-class holds equal values, so "the operation behind this value" would not mean anything.
//!
//! Helper terms name what a group of primitives computes (a softmax with its mask and scale) so that rules stay short. They
//! cost more than any graph could and none survives extraction.

use super::mask::Mask as HalfPlanes;
use crate::graph::{AttentionSpec, Op, Real, TensorType};
use egg::{Analysis, DidMerge, EGraph, Id, Language};
use trainc_kernels::ir::ReduceKind;

/// An e-graph of a region.
pub type Egraph = EGraph<Term, Types>;

/// The head of a term.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// An operation with one result that depends on nothing but its operands.
    Op(Op),
    /// A value that enters the region; its number there.
    Leaf(u32),
    /// Attention: q, k, v to the tuple (o, log-sum-exp).
    Attention(AttentionSpec),
    /// Its gradient: q, k, v, o, log-sum-exp, do to the tuple (dq, dk, dv).
    AttentionBackward(AttentionSpec),
    /// A result of a tuple, from 0.
    Result(u32),
    /// Helper: the softmax of a scaled and masked operand.
    Softmax(SoftmaxSpec),
    /// Helper: (p, dp) to the gradient of the scores whose softmax over these axes is p: `p * (dp - sum(p * dp))`.
    SoftmaxGradient(Vec<usize>),
}

/// What a softmax is over: `softmax(where(mask, scale * x, -infinity))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SoftmaxSpec {
    /// The axes that each probability distribution spans.
    pub axes: Vec<usize>,
    /// Factor on the operand.
    pub scale: Real,
    /// Which elements take part, if not all.
    pub mask: HalfPlanes,
}

/// A term: an e-node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// Its head.
    pub symbol: Symbol,
    /// The e-classes of its operands.
    pub children: Vec<Id>,
}

impl Term {
    /// A term.
    pub fn new(symbol: Symbol, children: impl Into<Vec<Id>>) -> Self {
        Self { symbol, children: children.into() }
    }
}

impl Language for Term {
    type Discriminant = &'static str;

    fn discriminant(&self) -> Self::Discriminant {
        self.symbol.kind()
    }

    fn matches(&self, other: &Self) -> bool {
        self.symbol == other.symbol && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl Symbol {
    /// The name by which rules call this kind of term, whatever its attributes.
    pub fn kind(&self) -> &'static str {
        match self {
            Symbol::Op(op) => op_kind(op),
            Symbol::Leaf(_) => "leaf",
            Symbol::Attention(_) => "attention",
            Symbol::AttentionBackward(_) => "attention_backward",
            Symbol::Result(0) => "result0",
            Symbol::Result(1) => "result1",
            Symbol::Result(_) => "result2",
            Symbol::Softmax(_) => "softmax",
            Symbol::SoftmaxGradient(_) => "softmax_gradient",
        }
    }
}

/// The name of an operation's kind.
pub fn op_kind(op: &Op) -> &'static str {
    match op {
        Op::Unary(f) => f.name(),
        Op::Binary(f) => f.name(),
        Op::Reduce { kind: ReduceKind::Sum, .. } => "sum",
        Op::Reduce { kind: ReduceKind::Max, .. } => "maximum",
        Op::Reduce { kind: ReduceKind::ArgMax, .. } => "argmax",
        Op::Constant { .. } => "constant",
        Op::Iota { .. } => "iota",
        Op::Select => "select",
        Op::ToFloat => "to_float",
        Op::ToInteger => "to_integer",
        Op::Broadcast { .. } => "broadcast",
        Op::Reshape { .. } => "reshape",
        Op::Permute { .. } => "permute",
        Op::Slice { .. } => "slice",
        Op::Pad { .. } => "pad",
        Op::Concat { .. } => "concat",
        Op::Window { .. } => "window",
        Op::Unwindow { .. } => "unwindow",
        Op::Gather => "gather",
        Op::Scatter { .. } => "scatter",
        Op::Contract(_) => "contract",
        Op::Input { .. } => "input",
        Op::Parameter { .. } => "parameter",
        Op::State { .. } => "state",
        Op::Control(_) => "control",
        Op::Random { .. } => "random",
        Op::StopGradient => "stop_gradient",
        Op::Layer { .. } => "layer",
        Op::Carry { .. } => "carry",
        Op::Last => "last",
        Op::Stack { .. } => "stack",
        Op::SumInstances => "sum_instances",
        Op::Attention(_) => "attention",
        Op::AttentionBackward(_) => "attention_backward",
        Op::Project { .. } => "project",
    }
}

/// What is known of an e-class.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Type of the value; types of the results of a tuple.
    pub types: Vec<TensorType>,
    /// The value of all elements, if it is known and one.
    pub uniform: Option<f64>,
    /// The value as a function of the element's indices, if it is an affine one.
    pub affine: Option<super::mask::Affine>,
    /// Where the value is 1, if it is 0 or 1 and the border is affine.
    pub mask: Option<HalfPlanes>,
}

/// The analysis: types, which must agree between all terms of a class, and what is known of closed values.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// Types of the leaves.
    pub leaves: Vec<TensorType>,
}

impl Analysis<Term> for Types {
    type Data = Fact;

    fn make(egraph: &mut Egraph, term: &Term, _id: Id) -> Fact {
        let facts: Vec<&Fact> = term.children.iter().map(|child| &egraph[*child].data).collect();
        let operands: Vec<&[TensorType]> = facts.iter().map(|fact| fact.types.as_slice()).collect();
        let types = result_types(&egraph.analysis.leaves, &term.symbol, &operands);
        let uniform = super::mask::uniform(&term.symbol, &facts);
        let affine = super::mask::affine(&term.symbol, &facts, &types[0]);
        let mask = super::mask::mask(&term.symbol, &facts);
        Fact { types, uniform, affine, mask }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        assert_eq!(a.types, b.types, "internal: a rule equated values of different types");
        let before = a.clone();
        a.uniform = a.uniform.or(b.uniform);
        a.affine = a.affine.take().or(b.affine.clone());
        a.mask = a.mask.take().or(b.mask.clone());
        DidMerge(*a != before, *a != b)
    }
}

/// Types of a term's results, for operands of these types.
pub fn result_types(leaves: &[TensorType], symbol: &Symbol, operands: &[&[TensorType]]) -> Vec<TensorType> {
    let types: Vec<&TensorType> = operands.iter().map(|types| &types[0]).collect();
    let of = |op: Op| {
        op.results(&types).unwrap_or_else(|error| panic!("internal: a rule built {op:?} on {types:?}: {error}"))
    };
    match symbol {
        Symbol::Leaf(number) => vec![leaves[*number as usize].clone()],
        Symbol::Op(op) => of(op.clone()),
        Symbol::Attention(spec) => of(Op::Attention(*spec)),
        Symbol::AttentionBackward(spec) => of(Op::AttentionBackward(*spec)),
        Symbol::Result(index) => vec![operands[0][*index as usize].clone()],
        Symbol::Softmax(_) | Symbol::SoftmaxGradient(_) => vec![types[0].clone()],
    }
}
