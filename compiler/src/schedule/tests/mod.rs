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

#[test]
fn a_gpt_trains_as_the_graph_says_with_attention_written_out() {
    check(&Gpt::SMALL.step().done(11));
}

#[test]
fn a_gpt_trains_as_the_graph_says_after_rewriting() {
    check(&Gpt::SMALL.step().rewritten(11));
}

#[test]
fn convolutions_pooling_and_their_gradients_agree() {
    check(&convolution());
}

#[test]
fn repeats_hand_on_share_stack_and_sum() {
    check(&recurrent());
}

#[test]
fn updates_that_would_overwrite_what_is_needed_are_copied() {
    check(&exchange());
}

#[test]
fn attention_reads_views_and_writes_further_results() {
    check(&attention());
}

#[test]
fn reductions_and_scatters_over_any_axes_agree() {
    check(&reductions());
}
