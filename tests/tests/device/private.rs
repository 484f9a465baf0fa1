//! Private training takes the steps that it takes on the processor, and those of independent records.

use super::{Bound, clean, compared, compared_each, example, opened};
use trainc_kernels::Target;
use trainc_runtime::{artifact::Isa, device::Place};
use trainc_tests::{program, traces::Recorded};

/// A private example with a smaller model and batch; its noise by the quicker accountant.
fn private_example(name: &str) -> String {
    example(
        name,
        &[("hidden = 64", "hidden = 12"), ("batch 256", "batch 16"), ("clip 1.0", "clip 1.0  accountant rdp")],
    )
}

#[test]
fn private_training_takes_the_same_steps_with_and_without_filters() {
    let programs = ["dp_digits", "doppler", "disk"].map(|name| (name, private_example(name), Bound::Relative(1e-5)));
    compared_each("private::private_training_takes_the_same_steps_with_and_without_filters", &programs);
}

#[test]
fn private_training_of_a_transformer_with_frozen_parts_takes_the_same_steps() {
    let sizes = [
        ("width = 192", "width = 24"),
        ("depth = 4", "depth = 2"),
        ("context = 128", "context = 40"),
        ("rows 16", "rows 4"),
        ("batch 128", "batch 4"),
        ("clip 0.1 automatic", "clip 0.1 automatic  accountant rdp"),
    ];
    let test = "private::private_training_of_a_transformer_with_frozen_parts_takes_the_same_steps";
    compared(test, "dp_gpt", &example("dp_gpt", &sizes), Bound::Relative(1e-4));
}

/// Recorded runs of each method, optimizer and way to clip; the processor repeats all of them.
const TRACES: [&str; 10] = [
    "dpsgd_noise",
    "dpsgd_auto_s_noise",
    "doppler2_noise",
    "doppler1_adamw_noise",
    "dpadambc_noise",
    "disk_noise",
    "disk_onepoint_noise",
    "disk_adamw_noise",
    "disk_back_noise",
    "disk_back_slow_noise",
];

#[test]
fn recorded_private_runs_are_repeated() {
    let test = "private::recorded_private_runs_are_repeated";
    clean(test, || {
        let recorded = Recorded::read();
        for trace in recorded.traces().iter().filter(|trace| TRACES.contains(&trace.name())) {
            let name = trace.shown();
            let artifact = program::artifact_of(&name, trace.replayed().program, Target::Cuda, Isa::Sm80);
            let distance = trace.distance(&mut opened(&name, artifact, Place::Cuda(0)));
            println!("{name}: {distance:e}");
            assert!(distance <= trace.tolerance_of_f32(), "{name}: {distance:e} from the record");
        }
    });
}
