//! Integer expressions that say which element an iteration touches.

use super::ExprId;
use serde::{Deserialize, Serialize};

/// An integer expression over loop variables. Values are never negative where they address memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Index {
    /// A number.
    Constant(i64),
    /// A loop variable.
    Var(u32),
    /// Sum.
    Add(Box<Index>, Box<Index>),
    /// Product with a constant.
    Mul(Box<Index>, i64),
    /// Quotient by a positive constant, of a value that is not negative.
    Div(Box<Index>, i64),
    /// Remainder by a positive constant, of a value that is not negative.
    Mod(Box<Index>, i64),
    /// The value of an i32 expression (a gather).
    Value(ExprId),
}
