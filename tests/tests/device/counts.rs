//! What the emulator counts while a plan runs: how well accesses coalesce, how much tensor cores do.

use super::{batch, compiled, example, on_gpu};
use serde_json::Value;
use std::collections::BTreeMap;
use trainc::{compile::Compilation, schedule::Plan};
use trainc_kernels::{Target, device_stages, tensor_precision};
use trainc_libcuda::child::{is_child, of_kind, report_of};
use trainc_runtime::{Options, Session, artifact::Isa, device::Place};
use trainc_tests::program;

/// What one kernel did in a step.
#[derive(Default)]
struct Counted {
    label: String,
    launches: u64,
    /// Sectors of global memory that were moved, and that the distinct bytes of each request need.
    sectors: u64,
    ideal: u64,
    tensor_macs: u64,
    fma_macs: u64,
}

impl Counted {
    fn coalescing(&self) -> f64 {
        if self.sectors == 0 { 1.0 } else { self.ideal as f64 / self.sectors as f64 }
    }
}

/// Runs one step of a program on the emulated device; what each kernel did, by number. `None` in the child.
fn counted(test: &str, text: &str) -> Option<BTreeMap<usize, Counted>> {
    if on_gpu() {
        return None;
    }
    if is_child() {
        let artifact = compiled(test, text, Target::Cuda, Isa::Sm80);
        let options = Options { device: Place::Cuda(0), ..Options::default() };
        let mut session = Session::new(artifact, &options).unwrap();
        let batch = batch(&session, 0);
        session.step_with(&batch).unwrap();
        return None;
    }
    let checked = program::check(test, text, &[]).unwrap_or_else(|found| panic!("{found}"));
    let plan = Compilation::for_target(checked, Target::Cuda).unwrap_or_else(|error| panic!("{error}")).plan;
    let mut kernels: BTreeMap<usize, Counted> = BTreeMap::new();
    for line in of_kind(&report_of(test, &[]), "launch") {
        let number = kernel_number(line);
        let counted = kernels.entry(number).or_default();
        counted.label.clone_from(&plan.kernels[number].label);
        add(counted, line);
    }
    Some(kernels)
}

/// Entries are named after the numbers of kernels and stages: `k12_0`.
fn kernel_number(launch: &Value) -> usize {
    let name = launch["kernel"].as_str().and_then(|name| name.strip_prefix('k')).expect("a name of ours");
    name.split('_').next().expect("the number").parse().expect("a number")
}

fn add(counted: &mut Counted, launch: &Value) {
    let number = |value: &Value| value.as_u64().expect("a count");
    counted.launches += 1;
    for traffic in [&launch["global_loads"], &launch["global_stores"]] {
        counted.sectors += number(&traffic["transactions"]);
        counted.ideal += number(&traffic["ideal"]);
    }
    counted.tensor_macs += number(&launch["tensor_macs"]);
    counted.fma_macs += number(&launch["fma_macs"]);
}

/// Ideal over actual sectors that every kernel reaches.
const LEAST_COALESCING: f64 = 0.95;

fn accesses_coalesce(kernels: &BTreeMap<usize, Counted>) {
    let row = |(number, kernel): (&usize, &Counted)| {
        let Counted { label, launches, sectors, .. } = kernel;
        format!("k{number:<4} {:.3} {sectors:>9} sectors {launches:>4} launches  {label}", kernel.coalescing())
    };
    let table: Vec<String> = kernels.iter().map(row).collect();
    let worst = kernels.values().map(Counted::coalescing).fold(1.0, f64::min);
    assert!(worst >= LEAST_COALESCING, "least coalescing {worst:.3}\n{}", table.join("\n"));
}

/// Sizes of which warps and sectors are a part, and that the emulator executes in seconds.
const SIZES: [(&str, &str); 5] = [
    ("width = 192", "width = 64"),
    ("depth = 4", "depth = 2"),
    ("heads = 6", "heads = 4"),
    ("context = 128", "context = 64"),
    ("batch 16", "batch 2"),
];

#[test]
fn accesses_of_each_kernel_of_a_transformer_coalesce() {
    let test = "counts::accesses_of_each_kernel_of_a_transformer_coalesce";
    if let Some(kernels) = counted(test, &example("gpt_rust", &SIZES)) {
        accesses_coalesce(&kernels);
    }
}

#[test]
fn accesses_of_each_kernel_of_a_transformer_with_shared_heads_coalesce() {
    let sizes = [&SIZES[..], &[("hidden = 512", "hidden = 160")]].concat();
    let test = "counts::accesses_of_each_kernel_of_a_transformer_with_shared_heads_coalesce";
    if let Some(kernels) = counted(test, &example("llama_small", &sizes)) {
        accesses_coalesce(&kernels);
    }
}

/// GPT-2 124M, planned for a device.
fn planned_gpt2() -> Plan {
    let text = example("gpt2_124m", &[]);
    let checked = program::check("gpt2_124m", &text, &[]).unwrap_or_else(|found| panic!("{found}"));
    Compilation::for_target(checked, Target::Cuda).unwrap_or_else(|error| panic!("{error}")).plan
}

/// 7 grids a layer forward, 13 backward, 17 for embedding, head and update. llm.c starts 496, with cuDNN 376.
#[test]
fn gpt2_starts_at_most_264_grids_a_step() {
    let plan = planned_gpt2();
    let stages: Vec<usize> = plan.kernels.iter().map(|kernel| device_stages(kernel).unwrap().len()).collect();
    let step = plan.entries.iter().find(|entry| entry.name == "step").expect("every program has steps");
    let grids: usize = step.launches.iter().map(|launch| stages[launch.kernel as usize]).sum();
    assert!(grids <= 264, "{grids} grids");
}

/// Share of the multiply-adds that tensor cores do where factors are bf16.
const LEAST_TENSOR_SHARE: f64 = 0.99;

/// What is left are the polynomials of exponentials and hyperbolic tangents, whose share falls with the width.
#[test]
fn tensor_cores_do_the_work_of_a_transformer_in_half_precision() {
    let sizes = [
        ("width = 768", "width = 512"),
        ("depth = 12", "depth = 1"),
        ("vocab = 50257", "vocab = 512"),
        ("heads = 12", "heads = 8"),
        ("context = 1024", "context = 64"),
        ("batch 4", "batch 1"),
    ];
    let test = "counts::tensor_cores_do_the_work_of_a_transformer_in_half_precision";
    let Some(kernels) = counted(test, &example("gpt2_124m", &sizes)) else { return };
    accesses_coalesce(&kernels);
    let tensor: u64 = kernels.values().map(|kernel| kernel.tensor_macs).sum();
    let other: u64 = kernels.values().map(|kernel| kernel.fma_macs).sum();
    let share = tensor as f64 / (tensor + other) as f64;
    assert!(share >= LEAST_TENSOR_SHARE, "{share:.4}");
}

/// The same by the plan: FLOPs of kernels whose products run on tensor cores, of all.
#[test]
fn the_plan_of_gpt2_gives_its_work_to_tensor_cores() {
    let plan = planned_gpt2();
    let entry = plan.report.entries.iter().find(|entry| entry.name == "step").expect("a step");
    let flops = |on_tensor_cores: bool| -> u64 {
        let launches = entry
            .launches
            .iter()
            .filter(|launch| !on_tensor_cores || tensor_precision(&plan.kernels[launch.kernel as usize]).is_some());
        launches.map(|launch| launch.facts.flops).sum()
    };
    let share = flops(true) as f64 / flops(false) as f64;
    assert!(share >= LEAST_TENSOR_SHARE, "{share:.4}");
}
