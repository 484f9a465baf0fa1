//! The claimed epsilon against an attack on the real step: canaries are sampled, clipped, drowned in noise and released as any
//! other record, and an attacker who sees all releases guesses which of them took part.
//!
//! The method is that of Steinke, Nasr and Jagielski (2023), "Privacy auditing with one (1) training run": each canary is among
//! the data if its own fair coin says so, and the share of right guesses bounds epsilon from below (their corollary 5.4). The
//! canaries are the strongest ones: their gradients are orthogonal, longer than the norm to clip at, and no other record has
//! a part in them (Nasr et al. 2023). A canary that does not take part is a record whose gradient is exactly 0, so that the
//! number of records, which is public, stays.

use trainc::{
    graph::{Graph, Op, Output, substitute},
    program::Program,
};
use trainc_kernels::{Target, host_isa, ir::Binary};
use trainc_runtime::{
    Options, Session,
    data::unit,
    privacy::audit::{Attack, Guesses},
};
use trainc_tests::program::{self, floats};

const CANARIES: usize = 16_000;
const WIDTH: usize = 4;
const DELTA: f64 = 1e-5;
/// Of each of the two bounds; both hold with 95 per cent.
const CONFIDENCE: f64 = 0.975;
const TABLES: [&str; 2] = ["embedding.table", "embedding_2.table"];

/// Steps of the Gaussian mechanism: a share of the canaries is expected in each.
struct Run {
    noise: f64,
    share: f64,
    steps: u32,
}

const SAMPLED: Run = Run { noise: 4.0, share: 0.5, steps: 4 };

/// A sample moves its own row of two tables, with a gradient of norm 10 in each if it is present.
fn text(Run { noise, share, steps }: &Run) -> String {
    let batch = (CANARIES as f64 * share) as u64;
    format!(
        "use std
model Canaries() {{
    input id: int[batch]
    input present: [batch, {WIDTH}]
    output z = present * (embedding(id, {CANARIES}, {WIDTH}) + embedding(id, {CANARIES}, {WIDTH}) - 10)
}}
data Coins {{
    csv \"canaries.csv\"
    field id = columns(0)
    field present = columns(1, {WIDTH})
}}
train {{
    model Canaries()
    data Coins
    loss mean(z^2)
    private {{ noise_multiplier {noise}  clip 1.0  delta {DELTA} }}
    optimizer sgd
    schedule constant(1)
    steps {steps}  batch {batch}
}}
"
    )
}

fn coin(canary: usize) -> bool {
    unit(7, canary as u64) < 0.5
}

fn write_canaries(base: &std::path::Path) {
    let line = |canary| format!("{canary}{}\n", if coin(canary) { ",1" } else { ",0" }.repeat(WIDTH));
    std::fs::write(base.join("canaries.csv"), (0..CANARIES).map(line).collect::<String>()).unwrap();
}

/// What an audit of one run finds.
struct Audit {
    /// The session's own account.
    claimed: f64,
    /// What the attack proves.
    bound: f64,
}

/// Runs a program and attacks what it releases.
fn audit(base: &std::path::Path, program: Program) -> Audit {
    let options = Options { base: Some(base.to_owned()), ..Options::default() };
    let mut session =
        Session::new(program::artifact_of("canaries", program, Target::Cpu, host_isa()), &options).unwrap();
    let (before, steps) = (rows(&session), session.horizon().unwrap());
    for _ in 0..steps {
        session.step().unwrap();
    }
    let scores: Vec<f64> = before.iter().zip(rows(&session)).map(|(before, after)| after - before).collect();
    let spec = session.manifest().private.as_ref().unwrap();
    // Members are drawn so often, and the noise of all steps has this deviation.
    let (drawn, noise) = (f64::from(steps) * spec.sampling_rate(), spec.noise_multiplier * f64::from(steps).sqrt());
    let bound = by_guesses(&scores).max(by_rates(&scores, drawn + noise));
    Audit { claimed: session.privacy().unwrap().unwrap().epsilon, bound }
}

/// The inner product of the parameters with each canary's direction, in units of the norm to clip at.
fn rows(session: &Session) -> Vec<f64> {
    let tables = TABLES.map(|name| floats(session, name));
    let batch = session.manifest().private.as_ref().unwrap().expected_batch;
    let scale = batch as f64 / (2.0 * WIDTH as f64).sqrt();
    let row = |canary: usize| canary * WIDTH..(canary + 1) * WIDTH;
    (0..CANARIES).map(|canary| scale * tables.iter().flat_map(|table| &table[row(canary)]).sum::<f64>()).collect()
}

/// By the share of right guesses. The highest scores are taken for members, as many of the lowest for others; about the rest no
/// guess is made.
fn by_guesses(scores: &[f64]) -> f64 {
    const MADE: usize = 400;
    let mut order: Vec<usize> = (0..CANARIES).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (others, members) = (&order[..MADE / 2], &order[CANARIES - MADE / 2..]);
    let right = others.iter().filter(|&&canary| !coin(canary)).count() + members.iter().filter(|&&c| coin(c)).count();
    Guesses { canaries: CANARIES as u64, made: MADE as u64, right: right as u64 }.epsilon(DELTA, CONFIDENCE).unwrap()
}

/// By the rates of both errors, at a threshold beyond what most members reach: noise is drawn for each element by itself, and
/// so are scores of different canaries.
fn by_rates(scores: &[f64], threshold: f64) -> f64 {
    let count = |member: bool| (0..CANARIES).filter(|&c| coin(c) == member).count() as u64;
    let above = |member: bool| (0..CANARIES).filter(|&c| coin(c) == member && scores[c] > threshold).count() as u64;
    let attack = Attack { members: count(true), recognised: above(true), others: count(false), mistaken: above(false) };
    attack.epsilon(DELTA, CONFIDENCE).unwrap()
}

/// The fault: gradients for a parameter are added up as they are.
fn without_clipping(mut program: Program, parameter: &str) -> Program {
    let index = program.parameters.iter().position(|own| own.name == parameter).expect("a parameter") as u32;
    leave_unclipped(&mut program.step, &Output::Parameter(index));
    let sum = format!("private.sum.{parameter}");
    let sum = program.states.iter().position(|own| own.name == sum).expect("its sum") as u32;
    leave_unclipped(program.accumulate.as_mut().expect("steps of several passes"), &Output::State(sum));
    program
}

/// The fault: noise for a smaller norm than gradients are clipped at. What the program says of its noise stays.
fn with_less_noise(mut program: Program, share: f64) -> Program {
    let private = program.private.as_mut().expect("a private program");
    private.noise_multiplier /= share;
    program
}

/// Computes an output with 1 for the factors `C / max(n, C)` of all rows.
fn leave_unclipped(graph: &mut Graph, output: &Output) {
    let bounded = |graph: &Graph, id| match graph.operands(id)[..] {
        [_, larger] => graph.node(larger).op == Op::Binary(Binary::Max) && graph.shape(id).len() == 1,
        _ => false,
    };
    let factor = graph.ids().find(|&id| graph.node(id).op == Op::Binary(Binary::Div) && bounded(graph, id));
    let factor = factor.expect("gradients are clipped");
    let one = graph.full_like(1.0, factor);
    let clipped = graph.output(output).expect("an output");
    let substituted = substitute(graph, &[(factor, one)], &[clipped]);
    assert_ne!(substituted.of(clipped), clipped, "the factor counts");
    graph.set_output(output.clone(), substituted.of(clipped));
}

#[test]
fn an_attack_stays_below_the_claimed_epsilon_and_catches_faults() {
    let base = tempfile::tempdir().unwrap();
    write_canaries(base.path());
    let checked = |run: &Run| program::checked_in(base.path(), "canaries", &text(run));
    let attacked = |what: &str, program| {
        let Audit { claimed, bound } = audit(base.path(), program);
        println!("{what}: epsilon is {claimed:.3} by the account, at least {bound:.3} by the attack");
        (claimed, bound)
    };
    // The less noise, and the less is left to chance, the more an attack can prove.
    let sound = [
        ("all records in one step", Run { noise: 1.0, share: 1.0, steps: 1 }, 0.5),
        ("little noise", Run { noise: 2.0, ..SAMPLED }, 0.35),
        ("much noise", SAMPLED, 0.25),
    ];
    for (what, run, share) in sound {
        let (claimed, bound) = attacked(what, checked(&run));
        assert!(bound < claimed, "{what}: {bound} refutes {claimed}");
        assert!(bound > share * claimed, "{what}: {bound} says little of {claimed}");
    }
    let (claimed, bound) = attacked("a table without clipping", without_clipping(checked(&SAMPLED), TABLES[0]));
    assert!(bound > 2.0 * claimed, "{bound} does not refute {claimed}");
    let quarter = with_less_noise(checked(&Run { noise: 1.0, ..SAMPLED }), 0.25);
    let (claimed, bound) = attacked("noise for a quarter of the norm", quarter);
    assert!(bound > 1.5 * claimed, "{bound} does not refute {claimed}");
}
