//! Every example compiles and trains for some steps.

use trainc_runtime::{Options, Session};
use trainc_tests::program;

/// Examples that are too large to train in a test: compiled and planned only.
const COMPILED_ONLY: [&str; 1] = ["gpt2_124m"];

#[test]
fn every_example_is_in_the_standard_form() {
    for folder in ["dsl-examples", "dsl-examples/bench", "tests/programs"] {
        for path in program::programs(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            // A placeholder clause is not of the language.
            if !text.contains("OPTIMIZER") {
                let formatted =
                    trainc::syntax::format(&text).unwrap_or_else(|_| panic!("{} has errors", path.display()));
                assert_eq!(formatted, text, "{}: run trainc fmt --write on it", path.display());
            }
        }
    }
}

#[test]
fn every_example_trains_some_steps() {
    let paths = program::programs("dsl-examples");
    let data = generated_data();
    assert!(paths.len() >= 8, "found {paths:?}");
    for path in paths {
        let name = program::stem(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        if COMPILED_ONLY.contains(&name.as_str()) {
            program::compile(&name, &text, &[]);
            continue;
        }
        let options = Options { base: Some(data.path().into()), ..Options::default() };
        let mut session = program::session(&name, &text, &[], &options);
        train(&name, &mut session);
    }
}

/// Loss falls, or at least stays a number, over a few steps.
fn train(name: &str, session: &mut Session) {
    for step in 0..3 {
        let loss = session.step().unwrap_or_else(|error| panic!("{name}, step {step}: {error}")).loss();
        assert!(loss.is_finite(), "{name}, step {step}: loss {loss}");
    }
}

/// A folder with small stand-ins for the files that examples read.
fn generated_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("digits.csv"), digits(400)).unwrap();
    std::fs::copy(trainc_tests::root().join("dsl-examples/points.csv"), folder.path().join("points.csv")).unwrap();
    folder
}

/// Images whose brightest row tells the label, in the form of the real digits.
fn digits(count: usize) -> String {
    let mut csv = String::new();
    for image in 0..count {
        let label = image * 7 % 10;
        let pixels: Vec<String> = (0..64).map(|pixel| pixel_of(label, pixel, image).to_string()).collect();
        csv += &format!("{},{label}\n", pixels.join(","));
    }
    csv
}

fn pixel_of(label: usize, pixel: usize, image: usize) -> usize {
    let lit = pixel / 8 == label % 8 && (label < 8 || pixel.is_multiple_of(2));
    if lit { 12 + (pixel + image) % 4 } else { (pixel * 5 + image * 3) % 4 }
}
