//! The artifact: a manifest (what to launch, on which bytes of one arena) and machine code.

mod manifest;

pub use manifest::*;
