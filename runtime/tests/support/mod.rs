//! Hand-made artifacts around `fixtures/kernels.c`, so that the runtime is tested without a compiler.
#![allow(dead_code, reason = "each test binary uses its part")]

use trainc_runtime::artifact::*;

/// Object code of `fixtures/kernels.c`.
pub const KERNELS: &[u8] = include_bytes!("../fixtures/kernels.o");

const CONTROL: u64 = 0;
const W: u64 = 64;
const B: u64 = 128;
const MOMENTUM_W: u64 = 192;
const MOMENTUM_B: u64 = 256;
const X: u64 = 320;
const Y: u64 = 448;
const RESIDUAL: u64 = 512;
const LOSS: u64 = 576;
const TOKENS: u64 = 640;
const TARGETS: u64 = 704;
const LOGITS: u64 = 768;
const ARENA: u64 = LOGITS + 16 * 256 * 4;

pub fn tensor(name: &str, shape: &[u64], offset: u64, kind: TensorKind, init: Init) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.into(), offset, kind, init }
}

pub fn parameter() -> TensorKind {
    TensorKind::Parameter { roles: vec!["weights".into()], trainable: true }
}

fn kernel(label: &str, stages: &[(&str, u64)], buffer_bytes: &[u64]) -> KernelSpec {
    let stages =
        stages.iter().map(|&(symbol, tiles)| StageSpec { symbol: symbol.into(), tiles, block: None }).collect();
    KernelSpec { label: label.into(), stages, scratch_bytes: 256, buffer_bytes: buffer_bytes.into() }
}

fn launch(kernel: u32, args: &[u64]) -> Launch {
    Launch { kernel, args: args.into(), instance: 0 }
}

pub fn input(name: &str, field: &str, shift: u64, dtype: DType, shape: &[u64], offset: u64) -> InputBinding {
    let below = (dtype == DType::I32).then_some(256);
    InputBinding { name: name.into(), field: field.into(), shift, dtype, shape: shape.into(), offset, below }
}

fn number(name: &str, offset: u64) -> OutputBinding {
    OutputBinding { name: name.into(), dtype: DType::F32, shape: vec![], offset }
}

fn train(item: &str) -> TrainSpec {
    TrainSpec {
        steps: Duration::Steps(20),
        seed: 1,
        evaluate_every: Duration::Steps(5),
        evaluate_batches: Some(2),
        checkpoint_every: Duration::Steps(5),
        keep: 2,
        items_per_step: 16,
        item: item.into(),
        flops_per_step: 1000,
    }
}

fn artifact(name: &str, tensors: Vec<TensorSpec>, entries: Vec<Entry>, train: TrainSpec) -> Artifact {
    let kernels = vec![
        kernel("forward", &[("regression_forward", 8), ("regression_loss", 1)], &[16, 4, 128, 32, 32, 4]),
        kernel("update", &[("regression_update", 5)], &[16, 4, 128, 32, 16, 4]),
        kernel("successor", &[("successor_logits", 16)], &[64, 16 * 256 * 4]),
        kernel("diverge", &[("diverge_at_three", 1)], &[16, 4, 16]),
        kernel("absorb", &[("absorb_tokens", 1)], &[64, 64, 16, 4]),
        kernel("accumulate", &[("private_accumulate", 1)], &[32, 128, 16, 32, 4, 16]),
        kernel("private step", &[("private_step", 1)], &[32, 128, 16, 32, 4, 16, 4]),
    ];
    let manifest = Manifest {
        format: FORMAT_VERSION,
        name: name.into(),
        program_digest: format!("digest of {name}"),
        settings: vec![],
        compiler: "0.0.0".into(),
        source: "model hand_made".into(),
        arena_bytes: ARENA,
        control_offset: CONTROL,
        tensors,
        entries,
        variants: vec![Variant { isa: Isa::X86V3, kernels }],
        data: None,
        private: None,
        train,
    };
    let seals = vec![seal(&manifest.variants[0].kernels)];
    Artifact { manifest, code: vec![(Isa::X86V3, vec![KERNELS.to_vec()])], seals }
}

/// y = w . x + b on batches of 8 rows with 4 features, SGD with momentum; entries `step` and `evaluate`.
pub fn regression() -> Artifact {
    let tensors = vec![
        tensor("w", &[4], W, parameter(), Init::Normal { std: 0.5, stream: 1 }),
        tensor("b", &[], B, parameter(), Init::Constant { value: 0.0 }),
        tensor("momentum.w", &[4], MOMENTUM_W, TensorKind::State, Init::Constant { value: 0.0 }),
        tensor("momentum.b", &[], MOMENTUM_B, TensorKind::State, Init::Constant { value: 0.0 }),
    ];
    let inputs = vec![input("x", "x", 0, DType::F32, &[8, 4], X), input("y", "y", 0, DType::F32, &[8], Y)];
    let forward = launch(0, &[W, B, X, Y, RESIDUAL, LOSS]);
    let update = launch(1, &[W, B, X, RESIDUAL, MOMENTUM_W, MOMENTUM_B]);
    let outputs = vec![number("loss", LOSS)];
    let step = Entry {
        name: "step".into(),
        mask: None,
        totals: vec![],
        inputs: inputs.clone(),
        outputs: outputs.clone(),
        launches: vec![forward.clone(), update],
    };
    let evaluate =
        Entry { name: "evaluate".into(), mask: None, totals: vec![], inputs, outputs, launches: vec![forward] };
    artifact("regression", tensors, vec![step, evaluate], train("samples"))
}

/// Batches of 2 x 8 tokens; `generate` predicts that every token is followed by its successor.
pub fn language_model() -> Artifact {
    let tensors = vec![tensor("w", &[4], W, parameter(), Init::Uniform { low: -1.0, high: 1.0, stream: 2 })];
    let tokens = input("tokens", "tokens", 0, DType::I32, &[2, 8], TOKENS);
    let inputs = vec![tokens.clone(), input("targets", "tokens", 1, DType::I32, &[2, 8], TARGETS)];
    let absorb = launch(4, &[TOKENS, TARGETS, W, LOSS]);
    let step = Entry {
        name: "step".into(),
        mask: None,
        totals: vec![],
        inputs,
        outputs: vec![number("loss", LOSS)],
        launches: vec![absorb],
    };
    let logits = OutputBinding { name: "logits".into(), dtype: DType::F32, shape: vec![2, 8, 256], offset: LOGITS };
    let successor = launch(2, &[TOKENS, LOGITS]);
    let generate = Entry {
        name: "generate".into(),
        mask: None,
        totals: vec![],
        inputs: vec![tokens],
        outputs: vec![logits],
        launches: vec![successor],
    };
    artifact("successor", tensors, vec![step, generate], train("tokens"))
}

/// Counts its steps in `w[0]`; the loss is the step's number, and infinite at step 3.
pub fn divergent() -> Artifact {
    let tensors = vec![tensor("w", &[4], W, parameter(), Init::Constant { value: 0.0 })];
    let count = launch(3, &[CONTROL, LOSS, W]);
    let step = Entry {
        name: "step".into(),
        mask: None,
        totals: vec![],
        inputs: vec![],
        outputs: vec![number("loss", LOSS)],
        launches: vec![count],
    };
    artifact("divergent", tensors, vec![step], train("steps"))
}

/// Adds up the records of a private run in `w`: batches of 8 rows with 4 features, drawn with probability 0.1 of 40. Entries
/// `step` and `accumulate`.
pub fn private_sums() -> Artifact {
    let tensors = vec![
        tensor("w", &[4], W, parameter(), Init::Constant { value: 0.0 }),
        tensor("private.sum.w", &[4], MOMENTUM_W, TensorKind::State, Init::Constant { value: 0.0 }),
    ];
    let bad = OutputBinding { name: BAD_ROWS.into(), dtype: DType::F32, shape: vec![8], offset: RESIDUAL };
    let args = [Y, X, MOMENTUM_W, RESIDUAL, LOSS, W];
    let entry = |name: &str, launch: Launch, outputs: Vec<OutputBinding>| Entry {
        name: name.into(),
        inputs: vec![input("x", "x", 0, DType::F32, &[8, 4], X)],
        mask: Some(MaskBinding { offset: Y, rows: 8 }),
        totals: vec![],
        outputs,
        launches: vec![launch],
    };
    let step_args: Vec<u64> = args.into_iter().chain([TOKENS]).collect();
    let step_outputs = vec![number("loss", LOSS), bad.clone(), number("rows", TOKENS)];
    let step = entry("step", launch(6, &step_args), step_outputs);
    let accumulate = entry("accumulate", launch(5, &args), vec![number("loss", LOSS), bad]);
    let mut artifact = artifact("sums", tensors, vec![step, accumulate], train("samples"));
    artifact.manifest.private = Some(PrivateSpec {
        sampling: Sampling::Poisson { rate: 0.1 },
        records: 40,
        expected_batch: 4,
        noise_multiplier: 2.0,
        clip: 1.0,
        delta: 1e-3,
        epsilon: None,
        accountant: trainc_runtime::privacy::Accountant::Pld,
        secure: false,
    });
    artifact
}
