//! Whole programs, from text to trained numbers.

mod cli;
mod depth;
mod determinism;
mod examples;
mod torch;
mod workloads;
