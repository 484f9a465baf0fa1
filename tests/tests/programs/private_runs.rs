//! Private programs at work: passes do not change a step, the noise has the size that it should, and secure noise is new
//! each time.

use trainc_runtime::{Batch, Options, Session};
use trainc_tests::program::{self, floats};

const RECORDS: usize = 64;

/// Two layers on the table in `rows.csv`.
fn table_text(rows: usize, private: &str) -> String {
    format!(
        "use std
model Net() {{
    input x: [batch, 6]
    input y: [batch, 2]
    h = tanh(linear(x, 8))
    output z = linear(h, 2)
}}
data Rows {{
    csv \"rows.csv\"
    field x = columns(0, 6)
    field y = columns(6, 2)
    shuffle no
}}
train {{
    model Net()
    data Rows
    loss mse(z, y)
    optimizer adamw
    schedule constant(0.01)
    steps 12  batch 16
    private {{ noise_multiplier 0.5  clip 0.5  records {RECORDS}  rows {rows}  delta 1e-3  accountant rdp {private} }}
}}
"
    )
}

fn write_table(base: &std::path::Path) {
    let number = |row: usize, column: usize| trainc_runtime::data::unit(row as u64, column as u64) - 0.5;
    let line = |row| (0..8).map(|column| number(row, column).to_string()).collect::<Vec<_>>().join(",") + "\n";
    std::fs::write(base.join("rows.csv"), (0..RECORDS).map(line).collect::<String>()).unwrap();
}

fn open(base: &std::path::Path, text: &str, threads: usize) -> Session {
    let options = Options { threads: Some(threads), base: Some(base.to_owned()), ..Options::default() };
    program::session("private run", text, &[], &options)
}

fn all(session: &Session) -> Vec<f64> {
    let names: Vec<String> = session.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let own = names.iter().filter(|name| !name.starts_with("private."));
    own.flat_map(|name| floats(session, name)).collect()
}

#[test]
fn steps_in_passes_equal_steps_in_one_and_threads_do_not_change_a_bit() {
    let base = tempfile::tempdir().unwrap();
    write_table(base.path());
    let trained = |rows, threads| {
        let mut session = open(base.path(), &table_text(rows, ""), threads);
        let losses: Vec<f64> = (0..12).map(|_| session.step().unwrap().loss()).collect();
        (losses, all(&session))
    };
    let (losses, whole) = trained(64, 2);
    assert_eq!((losses.clone(), whole.clone()), trained(64, 1));
    for rows in [3, 16] {
        let (in_passes, parts) = trained(rows, 2);
        assert_eq!((in_passes.clone(), parts.clone()), trained(rows, 1));
        let close = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() < by);
        assert!(close(&losses, &in_passes, 1e-4), "{losses:?} {in_passes:?}");
        assert!(close(&whole, &parts, 1e-3), "{rows} rows");
    }
}

/// One layer whose gradient is far smaller than the noise.
fn noisy_text(private: &str) -> String {
    format!(
        "use std
model Net() {{
    input x: [batch, 64]
    input y: [batch, 64]
    output z = linear(x, 64)
}}
train {{
    model Net()
    loss mse(z, y)
    optimizer sgd
    schedule constant(1)
    steps 100  batch 4
    private {{ noise_multiplier 10  clip 0.1  records 64  rows 4  delta 1e-3  accountant rdp {private} }}
}}
"
    )
}

/// What two steps add to each parameter, in units of the noise that is promised.
fn noise(text: &str, threads: usize) -> [Vec<Vec<f64>>; 2] {
    let mut session = program::session("noise", text, &[], &Options { threads: Some(threads), ..Options::default() });
    let names: Vec<String> = session
        .tensors()
        .iter()
        .map(|tensor| tensor.name.clone())
        .filter(|name| !name.starts_with("private."))
        .collect();
    let values = |session: &Session| names.iter().map(|name| floats(session, name)).collect::<Vec<_>>();
    let batch = Batch::new().with("x", vec![0.0; 256]).with("y", vec![0.0; 256]);
    [(), ()].map(|()| {
        let before = values(&session);
        session.step_with(&batch).unwrap();
        let std = 10.0 * 0.1 / 4.0;
        let moved = before.iter().zip(values(&session)).map(|(before, after)| {
            before.iter().zip(after).map(|(before, after)| (before - after) / std).collect::<Vec<f64>>()
        });
        moved.collect()
    })
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[test]
fn noise_has_the_promised_size_and_is_new_in_each_step_and_parameter() {
    for private in ["", "secure"] {
        let [first, second] = noise(&noisy_text(private), 2);
        assert!(first.iter().map(Vec::len).sum::<usize>() == 64 * 64 + 64, "a matrix and a bias");
        let matrix = first.iter().position(|values| values.len() == 4096).unwrap();
        let (a, b, bias) = (&first[matrix], &second[matrix], &first[1 - matrix]);
        let four = |count: f64, variance: f64| 4.0 * (variance / count).sqrt();
        for values in [a, b] {
            assert!(mean(values.iter().copied()).abs() < four(4096.0, 1.0), "{private:?}: mean");
            assert!((mean(values.iter().map(|x| x * x)) - 1.0).abs() < four(4096.0, 2.0), "{private:?}: variance");
            assert!((mean(values.iter().map(|x| x.powi(4))) - 3.0).abs() < four(4096.0, 96.0), "{private:?}: kurtosis");
        }
        let related = |a: &[f64], b: &[f64]| mean(a.iter().zip(b).map(|(a, b)| a * b)).abs();
        assert!(related(a, b) < four(4096.0, 1.0), "{private:?}: steps");
        assert!(related(&a[1..], &a[..4095]) < four(4095.0, 1.0), "{private:?}: elements");
        assert!(related(&a[..64], bias) < four(64.0, 1.0), "{private:?}: parameters");
    }
}

#[test]
fn noise_of_a_seed_is_repeatable_and_secure_noise_is_not() {
    assert_eq!(noise(&noisy_text(""), 1), noise(&noisy_text(""), 3));
    assert_ne!(noise(&noisy_text("secure"), 1), noise(&noisy_text("secure"), 1));
}
