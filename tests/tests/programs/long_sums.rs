//! Sums of a million equal terms, where rounding errors do not cancel: held to `n x`, for any number of threads.

use trainc_runtime::{Options, Session};
use trainc_tests::program;

/// Positions of a batch, the channels of each, and the term that each adds everywhere.
const POSITIONS: f64 = 1024.0 * 1024.0;
const CHANNELS: f64 = 5.0;
const TERM: f32 = 0.1;

/// The loss, its gradient by the bias, and that by the table, after one step from 0 at a rate of 1.
fn sums(threads: usize) -> [Vec<f64>; 3] {
    let text = program::read("tests/programs/long_sums.train");
    let options = Options { threads: Some(threads), ..Options::default() };
    let mut session: Session = program::session("long_sums", &text, &[], &options);
    let loss = session.step().unwrap().get("loss").expect("reported");
    let negated = |name: &str| program::floats(&session, name).iter().map(|x| -x).collect();
    [vec![loss], negated("biased.bias"), negated("looked_up.table")]
}

fn assert_close(what: &str, found: f64, terms: f64) {
    let error = (found / (terms * f64::from(TERM)) - 1.0).abs();
    assert!(error < 1e-5, "{what}: {found} of {terms} terms, {error:e}");
}

#[test]
fn long_sums_of_a_program() {
    let [one, two, five] = [1, 2, 5].map(sums);
    assert_eq!(one, two);
    assert_eq!(one, five);
    let [loss, bias, table] = one;
    assert_close("loss", loss[0], CHANNELS * POSITIONS);
    bias.iter().for_each(|&sum| assert_close("bias", sum, POSITIONS));
    let (met, others) = table.split_at(CHANNELS as usize);
    met.iter().for_each(|&sum| assert_close("table", sum, POSITIONS));
    assert!(others.iter().all(|&sum| sum == 0.0));
}
