//! Plans are executed by the reference interpreter of kernels on an arena of bytes, and must give what the interpreter
//! of graphs gives.

mod harness;
mod programs;

use harness::{Case, check};
use programs::*;

#[test]
fn a_multilayer_perceptron_trains_as_the_graph_says() {
    check(&perceptron());
}
