//! Emission of MLIR text: the [`builder`], the transcendental functions ([`math`]), expressions over loop variables
//! ([`point`]), and sums of many terms ([`sum`]).

pub(crate) mod builder;
mod chacha;
pub(crate) mod math;
pub(crate) mod point;
pub(crate) mod sum;
