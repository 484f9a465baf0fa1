//! Logits that exist for some rows at a time train as logits that exist in full do.

use trainc_runtime::{Options, Session};
use trainc_tests::program;

const STEPS: usize = 6;
/// Logits of 1024 positions: 33.6 MB.
const LOGITS: u64 = 16 * 64 * 8192 * 4;

/// The program under a memory budget.
fn session(memory: &str, threads: usize) -> Session {
    let text = program::read("tests/programs/rows.train").replace("memory 200 MB", memory);
    program::session("rows", &text, &[], &Options { threads: Some(threads), ..Options::default() })
}

/// What is reported of each step, and the table in the end.
fn trained(mut session: Session) -> (Vec<[f64; 3]>, Vec<f64>) {
    let report = |session: &Session| {
        ["loss", "accuracy", "grad_norm"].map(|name| session.numbers().get(name).expect("reported"))
    };
    let reports = (0..STEPS).map(|_| {
        session.step().unwrap();
        report(&session)
    });
    (reports.collect(), program::floats(&session, "table"))
}

#[test]
fn a_program_trains_alike_with_logits_in_full_and_in_chunks() {
    let (whole, chunked) = (session("memory 200 MB", 2), session("", 2));
    let arena = |session: &Session| session.manifest().arena_bytes;
    assert!(arena(&whole) > 2 * LOGITS && arena(&chunked) < LOGITS, "{} {}", arena(&whole), arena(&chunked));
    let (whole, chunked) = (trained(whole), trained(chunked));
    let close = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance * a.abs().max(1.0);
    for (step, (one, other)) in whole.0.iter().zip(&chunked.0).enumerate() {
        assert!(one.iter().zip(other).all(|(&a, &b)| close(a, b, 1e-5)), "step {step}: {one:?} {other:?}");
    }
    assert!(whole.0[STEPS - 1][0] < whole.0[0][0], "it learns: {:?}", whole.0);
    assert!(whole.1.iter().zip(&chunked.1).all(|(&a, &b)| close(a, b, 1e-3)));
}

#[test]
fn chunks_are_the_same_for_any_number_of_threads() {
    assert_eq!(trained(session("", 1)), trained(session("", 3)));
}
