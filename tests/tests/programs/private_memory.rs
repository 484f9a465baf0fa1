//! The memory budget steers how norms and sums of samples' gradients are computed. At 100 positions and width 256 the gradients
//! themselves are cheaper, and products of pairs of positions, with what goes into them kept, are smaller.

use super::cli::{code, run, stderr};
use trainc::{
    compile::Compilation,
    graph::Op,
    program::Program,
    schedule::ScheduleError,
    source::{FileId, Span},
};
use trainc_kernels::{Target, host_isa};
use trainc_runtime::{Batch, Options, Session};
use trainc_tests::program::{artifact_of, check, floats};

const ROWS: u64 = 2;
const POSITIONS: u64 = 100;
const WIDTH: u64 = 256;

fn text(memory: &str) -> String {
    format!(
        "use std
model Net() {{
    input x: [batch, {POSITIONS}, {WIDTH}]
    input y: [batch, {POSITIONS}, {WIDTH}]
    z = x
    repeat 3 {{
        z = z + linear(tanh(linear(z, {WIDTH})), {WIDTH})
    }}
    output out = linear(z, {WIDTH})
}}

train {{
    model Net()
    loss mse(out, y)
    optimizer sgd
    schedule 0.1
    steps 8  batch {ROWS}  {memory}
    private {{ noise_multiplier 0.01  clip 0.1  records 1000  rows {ROWS}  delta 1e-4  accountant rdp }}
}}
"
    )
}

/// The program with so many bytes for its arena.
fn within(budget: Option<u64>) -> Program {
    let mut program = check("memory", &text(""), &[]).unwrap_or_else(|found| panic!("{found}"));
    let anywhere = Span { file: FileId(0), start: 0, end: 0 };
    program.train.memory = budget.map(|bytes| (bytes, anywhere));
    program
}

fn compiled(budget: Option<u64>) -> Compilation {
    Compilation::new(within(budget)).unwrap_or_else(|error| panic!("{error}"))
}

/// Products in the step with a matrix of this shape for each sample.
fn products(of: &Compilation, extent: u64) -> usize {
    let graph = &of.entries[0].1.graph;
    let is_one = |id: &_| matches!(graph.node(*id).op, Op::Contract(_)) && graph.shape(*id) == [ROWS, extent, extent];
    graph.ids().filter(is_one).count()
}

/// All parameters after two steps.
fn trained(budget: Option<u64>) -> Vec<f64> {
    let artifact = artifact_of("memory", within(budget), Target::Cpu, host_isa());
    let mut session = Session::new(artifact, &Options::default()).expect("the artifact is loaded");
    let count = (ROWS * POSITIONS * WIDTH) as usize;
    let values = |seed| (0..count).map(|i| trainc_runtime::data::unit(seed, i as u64) as f32 - 0.5).collect::<Vec<_>>();
    let batch = Batch::new().with("x", values(1)).with("y", values(2));
    (0..2).for_each(|_| drop(session.step_with(&batch).expect("a step").clone()));
    let names: Vec<String> = session.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    names.iter().flat_map(|name| floats(&session, name)).collect()
}

#[test]
fn a_budget_changes_the_way_to_norms_before_it_computes_anything_again() {
    let free = compiled(None);
    assert_eq!((products(&free, WIDTH), products(&free, POSITIONS)), (3, 0), "gradients of samples");
    assert_eq!(free.price_of_storing(), 1);
    // Less than that: gradients computed again would be slower than pairs of positions.
    let budget = free.plan.arena_bytes * 9 / 10;
    let tight = compiled(Some(budget));
    assert_eq!((products(&tight, WIDTH), products(&tight, POSITIONS)), (0, 6), "pairs of positions");
    assert!(tight.plan.arena_bytes <= budget && tight.price_of_storing() > 1);
    assert!(tight.plan.report.entries.iter().all(|entry| entry.recomputed.is_empty()));
    let (with_gradients, with_pairs) = (trained(None), trained(Some(budget)));
    let largest = with_gradients.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    for (a, b) in with_gradients.iter().zip(&with_pairs) {
        assert!((a - b).abs() <= 1e-5 * largest, "{a} and {b}");
    }
}

#[test]
fn a_budget_that_no_way_meets_is_refused_with_the_least_of_all_ways() {
    let refused = Compilation::new(within(Some(1_000_000))).expect_err("parameters alone need more");
    let ScheduleError::OverBudget { needed, .. } = refused else { panic!("{refused}") };
    assert!(compiled(Some(needed)).plan.arena_bytes <= needed);
    assert!(Compilation::new(within(Some(needed - 1))).is_err());
}

#[test]
fn an_explanation_says_that_the_budget_chose() {
    let folder = tempfile::tempdir().unwrap();
    let explained = |memory: &str| {
        std::fs::write(folder.path().join("net.train"), text(memory)).unwrap();
        let output = run(folder.path(), &["explain", "net.train", "sum"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let chosen = |told: &str, form: &str| told.lines().any(|line| line.contains("->") && line.contains(form));
    let free = explained("");
    assert!(chosen(&free, "contract[2, 256, 256]") && !free.contains("to keep to `memory`"), "{free}");
    let tight = explained("memory 8500 KB");
    assert!(chosen(&tight, "contract[2, 100, 100]"), "{tight}");
    assert!(tight.contains("to keep to `memory` (8.50 MB), stored results are priced 8 times as high"), "{tight}");
}
