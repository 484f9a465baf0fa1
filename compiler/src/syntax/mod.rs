//! Text to tree: tokens, a parser that recovers, and the formatter that prints trees back.

pub mod tree;
