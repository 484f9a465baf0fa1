//! Same seed, same bits: for any number of threads, and across save and load.

use trainc_runtime::{Options, Session, Values};
use trainc_tests::program;

/// A small GPT on hashed tokens with every kind of state: dropout, two optimizers, a schedule, clipping.
fn session(threads: usize) -> Session {
    session_with(threads, &[])
}

fn session_with(threads: usize, set: &[(&str, &str)]) -> Session {
    let text = program::read("tests/programs/determinism.train");
    program::session("determinism", &text, set, &Options { threads: Some(threads), ..Options::default() })
}

fn tensors(session: &Session) -> Vec<(String, Values)> {
    session.tensors().iter().map(|tensor| (tensor.name.clone(), session.tensor(&tensor.name).unwrap())).collect()
}

fn steps(session: &mut Session, count: usize) {
    for _ in 0..count {
        session.step().unwrap();
    }
}

#[test]
fn thread_counts_do_not_change_a_bit() {
    for precision in ["f32", "tf32", "bf16"] {
        let [one, two, five] = [1, 2, 5].map(|threads| {
            let mut session = session_with(threads, &[("precision", precision)]);
            steps(&mut session, 6);
            tensors(&session)
        });
        assert_eq!(one, two, "{precision}");
        assert_eq!(one, five, "{precision}");
    }
}

#[test]
fn saving_and_loading_does_not_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut through = session(2);
    steps(&mut through, 4);
    through.save(folder.path().join("middle")).unwrap();
    steps(&mut through, 5);
    let mut resumed = session(1);
    resumed.load(folder.path().join("middle")).unwrap();
    assert_eq!(resumed.steps_done(), 4);
    steps(&mut resumed, 5);
    assert_eq!(tensors(&through), tensors(&resumed));
}

/// Under `clip` the optimizer waits for the norm of all gradients and runs behind the backward pass, otherwise within it. No
/// gradient is as long as this limit, so that it multiplies by 1.
#[test]
fn where_an_optimizer_runs_does_not_change_a_bit() {
    let text = program::read("dsl-examples/bench/w3.train");
    let clipped = text.replace("steps 20", "clip 1e30  steps 20");
    let launches = |text: &str| program::compile("w3", text, &[]).summary().launches_per_step;
    assert_ne!(launches(&text), launches(&clipped), "an optimizer within the pass is launched for each layer");
    let [within, behind] = [&text, &clipped].map(|text| {
        let mut session = program::session("w3", text, &[], &Options::default());
        steps(&mut session, 3);
        tensors(&session)
    });
    assert_eq!(within, behind);
}
