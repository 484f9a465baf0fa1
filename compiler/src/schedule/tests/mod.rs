//! Plans are executed by the reference interpreter of kernels on an arena of bytes, and must give what the interpreter
//! of graphs gives.

mod harness;
mod programs;
mod stacks;

use crate::graph::{Rows, TensorType};
use harness::{Case, Memory, check, check_within};
use programs::*;
use trainc_kernels::ir::{DType, Precision};

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

/// Sums of equal terms, of as many as there are instances, some of them in partial sums of fewer than others have.
#[test]
fn long_sums_of_instances() {
    for (count, kernels) in [(200, 2), (5_003, 3)] {
        let case = long_repeat(count);
        let plan = case.plan(None);
        assert_eq!(plan.kernels.len(), kernels, "depth adds one kernel, once");
        let found = case.run(&plan).read(plan.entries[0].outputs[0].offset, &TensorType::f32([32]));
        let terms = &case.bindings().inputs[&0].data;
        for (found, term) in found.data.iter().zip(terms) {
            let error = (found / (count as f64 * term) - 1.0).abs();
            assert!(error < 1e-5, "{count} times {term} is not {found}: {error:e}");
        }
    }
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
fn gradients_of_attention_are_written_side_by_side() {
    for own_axis in [false, true] {
        let plan = check(&packed_gradients(own_axis));
        let labels: Vec<&str> = plan.kernels.iter().map(|kernel| kernel.label.as_str()).collect();
        assert_eq!(labels, ["attention", "attention backward", "matmul", "sum"], "no kernel copies");
    }
}

#[test]
fn reductions_and_scatters_over_any_axes_agree() {
    check(&reductions());
}

#[test]
fn a_memory_budget_is_met_by_recomputing_or_refused_with_the_least_that_was_found() {
    let case = Gpt::SMALL.step().rewritten(11);
    let free = case.plan(None);
    let entry = |plan: &super::Plan| plan.report.entries[0].clone();
    assert!(entry(&free).saved_bytes > 0);
    let program = case.program();
    let within = |budget| {
        super::schedule(&super::Request {
            program: &program,
            entries: &[("step", &case.graph)],
            memory_budget: Some(budget),
            target: Default::default(),
        })
    };
    let refused = within(1000).expect_err("parameters alone need more");
    let super::ScheduleError::OverBudget { needed, budget: 1000, persistent } = refused else { panic!("{refused}") };
    assert!(needed > persistent && needed < free.arena_bytes);
    let budget = (needed + free.arena_bytes) / 2;
    let tight = check_within(&case, Some(budget));
    assert!(tight.arena_bytes <= budget, "{} of {budget}", tight.arena_bytes);
    assert!(
        entry(&tight).recomputed.len() > entry(&free).recomputed.len()
            && entry(&tight).saved_bytes < entry(&free).saved_bytes
    );
}

/// Bytes of parameters, states and reports after three steps.
fn trained(case: &Case, plan: &super::Plan) -> Vec<Vec<u8>> {
    let mut memory = Memory::of(case, plan);
    (0..3).for_each(|_| memory.step(case, plan));
    let tensors = plan.tensors.iter().map(|tensor| (tensor.offset, &tensor.shape));
    let reports = plan.entries[0].outputs.iter().map(|report| (report.offset, &report.shape));
    tensors.chain(reports).map(|(offset, shape)| memory.bytes_at(offset, 4 * shape.iter().product::<u64>())).collect()
}

#[test]
fn values_are_kept_in_bf16_where_that_changes_no_bit() {
    let gpt = || Gpt { precision: Precision::Bf16, ..Gpt::SMALL }.step();
    for case in [gpt().rewritten(11), gpt().done(11)] {
        let (narrow, wide) = (case.plan(None), case.wide_plan());
        let kept = |plan: &super::Plan, dtype| {
            let buffers = plan.kernels.iter().flat_map(|kernel| &kernel.buffers);
            buffers.filter(|buffer| buffer.dtype == dtype).count()
        };
        assert!(kept(&narrow, DType::Bf16) > 20 && kept(&wide, DType::Bf16) == 0);
        assert!(narrow.arena_bytes < wide.arena_bytes, "{} and {}", narrow.arena_bytes, wide.arena_bytes);
        assert!(trained(&case, &narrow) == trained(&case, &wide));
    }
}

#[test]
fn kernels_are_the_same_at_any_depth_and_launches_grow_with_it() {
    let plan = |depth| Gpt { depth, ..Gpt::SMALL }.step().rewritten(11).plan(None);
    let (two, five) = (plan(2), plan(5));
    assert_eq!(plan(96).kernels.len(), two.kernels.len());
    let labels = |plan: &super::Plan| plan.kernels.iter().map(|kernel| kernel.label.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&two), labels(&five));
    let launches = |plan: &super::Plan| plan.entries[0].launches.len();
    let per_block = (launches(&five) - launches(&two)) / 3;
    assert_eq!(launches(&five), launches(&two) + 3 * per_block);
    assert!(per_block <= 18, "{per_block} launches per block, forward and backward");
}

/// GPT-2 with 124 M parameters, four sequences of 64 tokens, AdamW: parameters and states are 1.49 GB, gradients 0.5 GB.
#[test]
fn gpt2_trains_in_little_more_than_parameters_states_and_gradients() {
    let gpt = Gpt { depth: 12, width: 768, heads: 12, vocab: 50257, batch: 4, context: 64, ..Gpt::SMALL };
    let plan = gpt.step().rewritten(50257).plan(None);
    assert!(plan.arena_bytes < 2_600_000_000, "{} bytes", plan.arena_bytes);
    let report = &plan.report.entries[0];
    let (region, peak) = (report.region_bytes, report.peak_bytes);
    assert!(region <= peak + peak / 8, "the arena wastes little: {region} for {peak}");
}

#[test]
fn rows_in_chunks_train_as_the_graph_says() {
    let case = Gpt { width: 4, vocab: 23, batch: 4, ..Gpt::SMALL }.step().rewritten(23);
    let whole = check(&case).entries[0].launches.len();
    let rows = Rows::largest(&case.graph, 0).expect("the logits");
    assert_eq!(rows.counts(&case.graph), [2, 4]);
    for count in [2, 4] {
        let chunked = Case { graph: rows.chunked(&case.graph, count), ..case.clone() };
        let launches = check(&chunked).entries[0].launches.len();
        // A chunk takes two products, softmax and loss in one kernel, and a product that is added to zeros.
        assert_eq!(launches, whole + 4 * (count as usize - 1) + 1);
    }
}

#[test]
fn logits_exist_in_full_only_where_there_is_memory_or_little_to_gain() {
    let gpt = Gpt { depth: 2, width: 768, heads: 12, vocab: 50257, batch: 4, context: 1024, precision: Precision::F32 };
    let case = gpt.step().rewritten(50257);
    let in_chunks = |plan: &super::Plan| {
        let report = &plan.report.entries[0];
        let chunks = report.launches.iter().filter(|launch| launch.group == "rows").map(|launch| launch.instance + 1);
        (
            chunks.max().unwrap_or(0),
            report.launches.iter().any(|l| l.buffers.iter().any(|b| b.contains("4, 1024, 50257"))),
        )
    };
    let plan = case.plan(None);
    assert_eq!(in_chunks(&plan), (4, false));
    let logits = 4 * 1024 * 50257 * 4;
    let roomy = case.plan(Some(plan.arena_bytes + 2 * logits));
    assert_eq!(in_chunks(&roomy), (0, true));
    assert!(roomy.arena_bytes > plan.arena_bytes + logits, "{} {}", roomy.arena_bytes, plan.arena_bytes);
    // With few rows the gradient of the table is larger than its logits.
    assert_eq!(in_chunks(&Gpt { context: 64, ..gpt }.step().rewritten(50257).plan(None)).0, 0);
}

#[test]
fn random_graphs_and_their_gradients_agree_with_the_interpreter() {
    for seed in 0..100 {
        let case = random(seed, seed % 4 == 3);
        check(&case);
        if let Some(least) = case.least_memory() {
            check_within(&case, Some(least));
        }
    }
}
