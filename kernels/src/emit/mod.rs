//! Emission of MLIR text: the [`builder`], the transcendental functions ([`math`]), and expressions over loop variables
//! ([`point`]).

pub(crate) mod builder;
mod chacha;
pub(crate) mod math;
pub(crate) mod point;
