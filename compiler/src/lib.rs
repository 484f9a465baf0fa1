//! `trainc`: text in, artifact and diagnostics out.
//!
//! The folder tree reads like the way of a program: [`syntax`] -> `check` -> [`graph`] -> `rewrite` -> `schedule` ->
//! (kernels) -> artifact. Nothing here does I/O outside the binaries: sources come in through
//! [`source::SourceMap`], artifacts go out as values.

pub mod check;
pub mod clauses;
pub mod compile;
pub mod diagnostic;
pub mod divergence;
pub mod exhausted;
pub mod graph;
mod ladder;
pub mod plot;
pub mod program;
pub mod protocol;
pub mod rewrite;
pub mod roofline;
pub mod schedule;
pub mod source;
pub mod stack;
pub mod syntax;
pub mod visible;
