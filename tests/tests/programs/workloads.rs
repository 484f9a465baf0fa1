//! The benchmark workloads: hashed initial values and data, so that any system can be compared by its losses.

use trainc_runtime::{Options, Session, artifact::Isa};
use trainc_tests::program;

/// Losses before the update at step 0 and at step 3, in f32.
const EXPECTED: [(&str, f64, f64); 4] =
    [("w1", 11.05648, 8.43941), ("w2", 5.61925, 5.16266), ("w3", 4.88039, 4.70358), ("w4", 2.59728, 2.25107)];

fn check_losses(name: &str) {
    check_losses_on(trainc_kernels::host_isa(), name, &[], [1e-4, 1e-3]);
}

/// `tolerances` are those of the losses at step 0 and at step 3.
fn check_losses_on(isa: Isa, name: &str, set: &[(&str, &str)], tolerances: [f64; 2]) {
    let &(_, first, fourth) = EXPECTED.iter().find(|(known, _, _)| *known == name).expect("a workload");
    let text = program::read(&format!("dsl-examples/bench/{name}.train"));
    let artifact = program::artifact_for(isa, name, &text, set);
    let mut session = Session::new(artifact, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let losses: Vec<f64> = (0..4).map(|_| session.step().unwrap().loss()).collect();
    let context = format!("{name} {isa:?} {set:?}: {losses:?}");
    assert!((losses[0] - first).abs() < tolerances[0], "{context}, expected {first} first");
    assert!((losses[3] - fourth).abs() < tolerances[1], "{context}, expected {fourth} at step 3");
}

/// Every instruction set that this machine executes, not only the best.
#[test]
fn each_instruction_set_gives_the_known_losses_in_both_precisions() {
    for isa in [Isa::X86V3, Isa::X86V4, Isa::X86V4Bf16].into_iter().filter(|&isa| isa <= trainc_kernels::host_isa()) {
        for name in ["w3", "w4"] {
            check_losses_on(isa, name, &[], [1e-4, 1e-3]);
            check_losses_on(isa, name, &[("precision", "bf16")], [2e-3, 1e-2]);
        }
    }
}

fn check_arena(name: &str, most: u64) {
    let text = program::read(&format!("dsl-examples/bench/{name}.train"));
    let planned = program::compile(name, &text, &[]).plan.arena_bytes;
    assert!(planned <= most, "{name}: planned {planned} bytes");
}

/// GPT-2 124M: parameters and states are 1.49 GB, the gradient of the embedding 154 MB.
#[test]
fn w1_gives_the_known_losses_without_memory_for_the_gradients_of_all_layers() {
    check_arena("w1", 1_750_000_000);
    check_losses("w1");
}

/// Parameters and states are 130 MB; of 16 values for each position and channel a layer keeps 10, 63 MB.
#[test]
fn w2_gives_the_known_losses_without_keeping_what_is_cheap_to_recompute() {
    check_arena("w2", 600_000_000);
    check_losses("w2");
}

#[test]
fn w3_gives_the_known_losses() {
    check_losses("w3");
}

#[test]
fn w4_gives_the_known_losses() {
    check_losses("w4");
}
