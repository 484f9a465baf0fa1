//! Whole programs, from text to trained numbers.

mod depth;
mod determinism;
mod examples;
mod torch;
mod workloads;
