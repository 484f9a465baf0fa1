//! The draws behind noise and dropout, as statistics see them: mean, variance, shape, and that no two know of each other.
//! Kernels draw the same numbers bit for bit, whatever the number of threads (`kernels/tests/nest.rs`).

use trainc_runtime::{chacha, philox};

/// A uniform draw by (stream, step, instance, element).
type Uniform = fn(u32, u32, u32, u32) -> f64;

const GENERATORS: [(&str, Uniform); 4] = [
    ("philox", |stream, step, instance, element| {
        philox::Draw { seed: 42, stream, step, instance }.uniform(element).into()
    }),
    ("chacha20, word 0", |stream, step, instance, element| secure(stream, step, instance, element, 0)),
    ("chacha20, word 1", |stream, step, instance, element| secure(stream, step, instance, element, 1)),
    ("chacha20, word 15", |stream, step, instance, element| secure(stream, step, instance, element, 15)),
];

fn secure(stream: u32, step: u32, instance: u32, element: u32, word: u8) -> f64 {
    let key = std::array::from_fn(|i| 0x0102_0304_u32.wrapping_mul(i as u32 + 7));
    chacha::Draw { key, stream, step, instance }.uniform(element, word).into()
}

const COUNT: u32 = 20_000;

/// Standard deviations that the mean of `values` is from `mean`, given the variance of one.
fn off(values: impl Iterator<Item = f64>, mean: f64, variance: f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    (sum / count - mean) / (variance / count).sqrt()
}

#[test]
fn draws_are_uniform() {
    for (name, draw) in GENERATORS {
        let all = || (0..COUNT).map(|element| draw(9, 5, 0, element));
        assert!(all().all(|u| (0.0..1.0).contains(&u)), "{name}");
        assert!(off(all(), 0.5, 1.0 / 12.0).abs() < 4.0, "{name}: mean");
        // The variance of (u - 1/2)^2 is 1/80 - 1/144.
        assert!(off(all().map(|u| (u - 0.5).powi(2)), 1.0 / 12.0, 1.0 / 180.0).abs() < 4.0, "{name}: variance");
        let mut bins = [0.0; 64];
        all().for_each(|u| bins[(u * 64.0) as usize] += 1.0);
        let expected = f64::from(COUNT) / 64.0;
        let statistic: f64 = bins.iter().map(|count| (count - expected).powi(2) / expected).sum();
        // 63 degrees of freedom: 114.8 is exceeded with probability 7e-5.
        assert!(statistic < 114.8, "{name}: {statistic}");
    }
}

/// Box and Muller's pairs, as private noise is made.
#[test]
fn normal_numbers_made_of_them_are_normal() {
    for (name, draw) in GENERATORS {
        let normal =
            |i| (-2.0 * (1.0 - draw(1, 0, 0, i)).ln()).sqrt() * (std::f64::consts::TAU * draw(2, 0, 0, i)).cos();
        let moment = |power: i32| (0..COUNT).map(move |i| normal(i).powi(power));
        // Moments of the normal distribution: 0, 1, 0, 3; those of twice the order give their variances.
        for (power, mean, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!(off(moment(power), mean, variance).abs() < 4.0, "{name}: moment {power}");
        }
    }
}

#[test]
fn neighbouring_draws_are_independent() {
    for (name, draw) in GENERATORS {
        type Neighbour = fn(u32) -> [u32; 4];
        let neighbours: [(&str, Neighbour); 5] = [
            ("elements", |i| [3, 7, 2, i + 1]),
            ("elements of another block", |i| [3, 7, 2, i + 16]),
            ("steps", |i| [3, 8, 2, i]),
            ("streams", |i| [4, 7, 2, i]),
            ("instances", |i| [3, 7, 3, i]),
        ];
        for (what, neighbour) in neighbours {
            let product = (0..COUNT).map(|i| {
                let [stream, step, instance, element] = neighbour(i);
                (draw(3, 7, 2, i) - 0.5) * (draw(stream, step, instance, element) - 0.5)
            });
            assert!(off(product, 0.0, 1.0 / 144.0).abs() < 4.0, "{name}: {what}");
        }
    }
    let words = (0..COUNT).map(|i| (secure(3, 7, 2, i, 0) - 0.5) * (secure(3, 7, 2, i, 1) - 0.5));
    assert!(off(words, 0.0, 1.0 / 144.0).abs() < 4.0, "words of a block");
}
