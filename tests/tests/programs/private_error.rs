//! What filters of noisy gradients are for: the gradient that the optimizer sees is closer to that of all records.

use trainc_tests::private_digits::{AllRecords, Experiment, Method, write_made_up};

/// The noise multiplier for epsilon 1 over 400 steps at a sampling rate of a fifth.
const NOISE: f64 = 11.56;

const RATE: f64 = 0.25;

/// Filters with the share of the power of white noise that they let through: the sum of their squared weights.
const FILTERS: [(&str, f64); 3] = [
    ("filter lowpass(a = [-0.9], b = [0.1])", 0.1 / 1.9),
    ("filter kalman(kappa = 0.7, gamma = 0.5)", 0.7 / 1.3),
    ("filter kalman(kappa = 0.1, gamma = 9)", 0.1 / 1.9),
];

#[test]
fn filters_bring_the_noisy_gradient_closer_by_the_noise_that_they_keep_out() {
    let base = tempfile::tempdir().unwrap();
    write_made_up(base.path());
    let mut all = AllRecords::new(base.path());
    let mut measure = |filter| {
        let method = Method::filtered("a filter", filter);
        let found = Experiment::new(base.path(), &method, NOISE, RATE).gradient_error(1, &mut all);
        println!("{filter:45} error {:.3}, cosine {:.4}", found.relative, found.cosine);
        found
    };
    let plain = measure("");
    for (filter, power) in FILTERS {
        let filtered = measure(filter);
        let (found, expected) = (filtered.relative / plain.relative, power.sqrt());
        assert!((found / expected - 1.0).abs() < 0.15, "{filter}: error falls to {found} of it, not to {expected}");
        // While noise is nearly all of the error, the cosine is its inverse; a filter's delay takes some of it back.
        let closer = filtered.cosine / plain.cosine;
        assert!(closer > 0.65 / expected, "{filter}: the cosine grows by {closer}, not by {}", 1.0 / expected);
    }
}
