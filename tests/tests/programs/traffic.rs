//! What a layer of GPT-2 moves on its way forward, against the least that it could.

use trainc::schedule::{LaunchReport, Plan};
use trainc_kernels::ir::Access;
use trainc_tests::program;

/// Elements of a hidden state: batch, positions, width.
const HIDDEN: u64 = 4 * 1024 * 768;
/// Hidden states that a layer reads and writes if attention keeps its scores and products do what is done to their
/// elements: norm 2, queries, keys and values 4, attention 4, projection with residual 3, norm 2, up with GELU (whose
/// argument is kept) 9, down with residual 6.
const IDEAL: f64 = 30.0;

/// Bytes and elements of activations that a launch reads and writes.
fn moved(plan: &Plan, launch: &LaunchReport) -> [u64; 2] {
    let buffers = plan.kernels[launch.kernel as usize].buffers.iter().zip(&launch.buffers);
    let activations = buffers.filter(|(_, name)| name.starts_with('%'));
    activations.fold([0, 0], |[bytes, elements], (buffer, _)| {
        let times = if buffer.access == Access::ReadWrite { 2 } else { 1 };
        [bytes + times * buffer.elements * buffer.dtype.bytes(), elements + times * buffer.elements]
    })
}

#[test]
fn a_forward_layer_of_gpt2_moves_no_more_than_the_residual_stream_in_f32_adds_to_the_ideal() {
    let plan = program::compile("gpt2_124m", &program::read("dsl-examples/gpt2_124m.train"), &[]).plan;
    let in_layer = |launch: &&LaunchReport| launch.group == "block" && launch.instance == 5;
    let launches = plan.report.entries[0].launches.iter();
    let forward: Vec<[u64; 2]> = launches
        .skip_while(|launch| !in_layer(launch))
        .take_while(in_layer)
        .map(|launch| moved(&plan, launch))
        .collect();
    assert_eq!(forward.len(), 7);
    let hidden =
        |which: usize, size: u64| forward.iter().map(|moved| moved[which]).sum::<u64>() as f64 / (size * HIDDEN) as f64;
    let (bytes, elements) = (hidden(0, 2), hidden(1, 1));
    // Log-sum-exps and statistics of rows are a twentieth; the residual stream is read four times and written twice.
    assert!((IDEAL..IDEAL + 0.05).contains(&elements), "{elements} hidden states");
    assert!((IDEAL + 6.0..IDEAL + 6.1).contains(&bytes), "{bytes} hidden states of bf16");
}
