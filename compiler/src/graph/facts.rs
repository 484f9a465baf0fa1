//! What is true of an operation wherever it occurs, for those who plan: how it runs, what it costs, what it does to elements.
//!
//! The rewriter prices terms by it, the scheduler decides by it what becomes a kernel, and the reports count work by it. The
//! rows stand beside the operations in the table of `graph::ops`.

use super::{Op, ops};

/// What kind of kernel computes a value, if any does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Lies in a buffer that others fill.
    Buffer,
    /// Needs no memory: constants, positions, draws.
    Source,
    /// Says where elements come from.
    Map,
    /// A function of elements.
    Element,
    /// A reduction, or a contraction that is one (a dot product).
    Reduction,
    /// A matrix product.
    Product,
    /// Accumulation by ids.
    Scatter,
    /// Fused attention, forward or backward.
    Attention,
}

/// What counts as arithmetic, in the currency of the field ([`super::Work`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Nothing: naming and moving values is free.
    Nothing,
    /// One operation for each element of the result.
    Result,
    /// One operation for each element of the operand at a position.
    Operand(usize),
    /// One operation for each element in each instance of the operand's scope.
    Instances,
    /// Two operations for each multiplication and addition of a contraction.
    Contraction,
    /// Those of this many products of queries and keys.
    Attention(u64),
}

/// Whose elements become elements of the result as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// No one's.
    Nothing,
    /// Those of the operand.
    All,
    /// Those of all operands, next to one another.
    Joined,
    /// Those of the first operand; the others say which.
    First,
    /// Those of the operands behind the first, which says whose.
    Chosen,
}

/// Where the result of a term lies, as far as the rewriter knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Nowhere: it is read through.
    Named,
    /// In registers of its users' kernels, and now and then in memory.
    Fused,
    /// In memory, written by a kernel of its own.
    Stored,
}

/// What is true of an operation wherever it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How it runs. A contraction is a [`Class::Product`] here; the scheduler looks at its extents.
    pub class: Class,
    /// Simple operations that computing one element of the result takes, for each operand where operands are
    /// [`Moves::Joined`].
    pub operations: u32,
    /// What counts as arithmetic.
    pub arithmetic: Arithmetic,
    /// Whose elements are moved.
    pub moves: Moves,
    /// Whether the result is rounded to a format if all operands are, though it is computed.
    pub keeps_rounding: bool,
    /// Where the result lies.
    pub traffic: Traffic,
}

impl Facts {
    /// A value that lies in a buffer which others fill.
    pub(super) const BUFFER: Facts = Facts { class: Class::Buffer, ..Facts::SOURCE };

    /// A value that is known without reading any.
    pub(super) const SOURCE: Facts = Facts {
        class: Class::Source,
        operations: 0,
        arithmetic: Arithmetic::Nothing,
        moves: Moves::Nothing,
        keeps_rounding: false,
        traffic: Traffic::Named,
    };

    /// Other indices of the same elements.
    pub(super) const MAP: Facts = Facts { class: Class::Map, moves: Moves::All, ..Facts::SOURCE };

    /// Other indices of the same elements, which seldom can be followed for nothing.
    pub(super) const MOVE: Facts = Facts { traffic: Traffic::Fused, ..Facts::MAP };

    /// Elements that are computed when they are asked for, at this many simple operations each, but are only moved.
    pub(super) const fn picked(operations: u32, moves: Moves) -> Facts {
        Facts { class: Class::Element, operations, moves, ..Facts::MOVE }
    }

    /// A function of elements that takes this many simple operations.
    pub(super) const fn element(operations: u32) -> Facts {
        Facts { arithmetic: Arithmetic::Result, ..Facts::picked(operations, Moves::Nothing) }
    }

    /// A kernel of its own.
    pub(super) const fn kernel(class: Class, arithmetic: Arithmetic) -> Facts {
        Facts { class, arithmetic, traffic: Traffic::Stored, ..Facts::SOURCE }
    }

    /// Whether elements of the operand at a position become elements of the result as they are.
    pub fn moves_operand(&self, position: usize) -> bool {
        match self.moves {
            Moves::Nothing => false,
            Moves::All | Moves::Joined => true,
            Moves::First => position == 0,
            Moves::Chosen => position > 0,
        }
    }
}

impl Op {
    /// What is true of it wherever it occurs.
    pub fn facts(&self) -> Facts {
        ops::facts(self)
    }
}
