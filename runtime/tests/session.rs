//! Sessions: stepping with own batches, initial values, tensors, generation, checkpoints.

mod support;

use support::*;
use trainc_runtime::artifact::*;
use trainc_runtime::*;

fn session(artifact: Artifact, threads: usize) -> Session {
    Session::new(artifact, &Options { threads: Some(threads), ..Options::default() }).unwrap()
}

/// Rows with y = x . (1, -2, 3, 0.5) + 0.25, different every step.
fn batch(step: u64) -> Batch {
    let x: Vec<f32> = (0..32).map(|i| (data::unit(step, i) as f32 - 0.5) * 2.0).collect();
    let y: Vec<f32> = x.chunks(4).map(|x| x[0] - 2.0 * x[1] + 3.0 * x[2] + 0.5 * x[3] + 0.25).collect();
    Batch::new().with("x", x).with("y", y)
}

fn trained(threads: usize) -> Session {
    let mut session = session(regression(), threads);
    for step in 0..20 {
        session.step_with(&batch(step)).unwrap();
    }
    session
}

#[test]
fn training_lowers_the_loss_and_any_number_of_threads_gives_the_same_bits() {
    let mut one = trained(1);
    let before = session(regression(), 1).evaluate_with(&batch(100)).unwrap().loss();
    let after = one.evaluate_with(&batch(100)).unwrap().loss();
    assert!(after < 0.1 * before, "{before} -> {after}");
    for threads in [2, 3, 8] {
        let other = trained(threads);
        assert_eq!(other.numbers(), one.numbers());
        assert_eq!(other.tensor("w").unwrap(), one.tensor("w").unwrap());
    }
}

#[test]
fn the_horizon_ends_the_run() {
    let error = trained(1).step_with(&batch(0)).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("all its 20 steps"), "{error}");
}

#[test]
fn seeds_choose_the_initial_values_and_nothing_else_does() {
    let w = |seed| {
        let options = Options { seed, ..Options::default() };
        Session::new(regression(), &options).unwrap().tensor("w").unwrap()
    };
    assert_eq!(w(None), w(Some(1)));
    assert_ne!(w(None), w(Some(2)));
}

#[test]
fn tensors_can_be_read_and_replaced() {
    let mut session = session(regression(), 1);
    session.set_tensor("w", &Values::from(vec![1.0, -2.0, 3.0, 0.5])).unwrap();
    session.set_tensor("b", &Values::from(0.25)).unwrap();
    assert!(session.evaluate_with(&batch(3)).unwrap().loss() < 1e-12);
    assert_eq!(session.parameters(), 5);
    assert!(session.set_tensor("w", &Values::from(vec![1.0])).is_err());
    assert!(session.set_tensor("w", &Values::from(vec![1, 2, 3, 4])).is_err());
    assert!(session.tensor("v").unwrap_err().to_string().contains("no tensor `v`"));
}

#[test]
fn batches_that_do_not_fit_are_refused_in_words() {
    let mut session = session(language_model(), 1);
    let mut complaint = |batch: Batch| session.step_with(&batch).unwrap_err().to_string();
    assert!(complaint(Batch::new()).contains("no field `tokens`"));
    let few = complaint(Batch::new().with("tokens", vec![0; 16]));
    assert!(few.contains("has 16 numbers, the model takes 2 x 9"), "{few}");
    assert!(complaint(Batch::new().with("tokens", vec![0.0; 18])).contains("must hold I32"));
    let large = complaint(Batch::new().with("tokens", vec![256; 18]));
    assert!(large.contains("holds 256, but the model takes integers from 0 to 255"), "{large}");
}

#[test]
fn the_processor_and_the_memory_are_asked_first() {
    let mut artifact = regression();
    artifact.manifest.arena_bytes = 1 << 60;
    let error = Session::new(artifact, &Options::default()).err().unwrap();
    assert!(error.exit_code() == 3 && error.to_string().contains("MB for its arena"), "{error}");
    let options = Options { isa: Some(Isa::X86V4), ..Options::default() };
    assert!(Session::new(regression(), &options).err().unwrap().to_string().contains("X86V4"));
    assert!(Session::new(regression(), &Options { threads: Some(0), ..Options::default() }).is_err());
}

#[test]
fn generation_follows_the_model() {
    let mut artifact = language_model();
    let tokenizer = TokenizerSpec::Bytes;
    artifact.manifest.data = Some(DataSpec {
        name: "Text".into(),
        source: Source::Text { paths: vec!["nothing.txt".into()], tokenizer },
        valid_fraction: 0.0,
        shuffle: true,
    });
    let mut session = session(artifact, 2);
    let greedy = GenerateOptions { max_tokens: 12, temperature: 0.0, ..GenerateOptions::default() };
    assert_eq!(session.generate("xyzabc", &greedy).unwrap(), "defghijklmno");
    assert_eq!(session.generate("a prompt longer than the context: A", &greedy).unwrap(), "BCDEFGHIJKLM");
    let hot = GenerateOptions { temperature: 5.0, ..greedy.clone() };
    let drawn = session.generate("a", &hot).unwrap();
    assert_eq!(session.generate("a", &hot).unwrap(), drawn, "the seed decides");
    assert_ne!(session.generate("a", &GenerateOptions { seed: 2, ..hot.clone() }).unwrap(), drawn);
    let only_best = GenerateOptions { top_k: Some(1), ..hot };
    assert_eq!(session.generate("a", &only_best).unwrap(), "bcdefghijklm");
    assert!(session.generate("a", &GenerateOptions { temperature: f64::NAN, ..greedy }).is_err());
}

#[test]
fn a_loaded_checkpoint_continues_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/checkpoint");
    let mut first = session(regression(), 2);
    for step in 0..10 {
        first.step_with(&batch(step)).unwrap();
    }
    first.save(&path).unwrap();
    let mut second = session(regression(), 3);
    second.load(&path).unwrap();
    assert_eq!((second.steps_done(), second.numbers()), (10, first.numbers()));
    for step in 10..20 {
        second.step_with(&batch(step)).unwrap();
    }
    let whole = trained(1);
    whole.save(folder.path().join("whole")).unwrap();
    second.save(folder.path().join("parts")).unwrap();
    for file in ["tensors.safetensors", "state.json", "B3SUMS"] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(file)).unwrap();
        assert_eq!(read("whole"), read("parts"), "{file}");
    }
    let bytes = std::fs::read(folder.path().join("whole/tensors.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let w = tensors.tensor("w").unwrap().data().as_chunks::<4>().0.iter();
    let w: Vec<f32> = w.map(|&word| f32::from_le_bytes(word)).collect();
    assert_eq!(Values::from(w), whole.tensor("w").unwrap());
}
