//! Whole programs, from text to trained numbers.

mod cli;
mod codegen;
mod data_files;
mod depth;
mod determinism;
mod examples;
mod filters;
mod front_end_fuzz;
mod generated;
mod held_out;
mod layers;
mod long_sums;
mod privacy_cli;
mod private;
mod private_audit;
mod private_error;
mod private_memory;
mod private_runs;
mod private_traces;
mod rows;
mod run_life;
mod saturation;
mod schedules;
mod torch;
mod traffic;
mod workloads;
