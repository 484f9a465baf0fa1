//! Poisson sampling: each record takes part in a step with the same probability, whatever the others do and whatever
//! happened in other steps. This is what the accounts of [`crate::privacy`] are about.
//!
//! The distance from one chosen record to the next is geometric, so that a step costs as much as it draws, not as much as
//! there is. Distances are a function of seed or key and step: nothing else is needed to resume.

use crate::chacha::{self, Key};
use crate::philox::philox4x32;

/// Keeps these draws apart from all others under the same seed or key.
pub(crate) const STREAM: u32 = u32::from_le_bytes(*b"pois");

/// Where a kernel's draw has the iteration of a `repeat`; there are never so many.
const HOST: u32 = u32::MAX;

/// What decides over the draws.
#[derive(Clone, Copy, Debug)]
pub enum Randomness {
    /// The seed of the run, by Philox: repeatable.
    Seed(u64),
    /// A key of the operating system, by ChaCha20: not repeatable.
    Key(Key),
}

/// The records of one step in ascending order.
pub struct Poisson {
    /// Records from here on are undecided.
    at: u64,
    records: u64,
    rate: f64,
    words: Words,
}

impl Poisson {
    /// Draws from `0..records`, each with probability `rate` in `(0, 1]`.
    pub fn new(records: u64, rate: f64, randomness: Randomness, step: u32) -> Self {
        Self { at: 0, records, rate, words: Words { randomness, step, drawn: 0 } }
    }

    /// How many records are passed over before the next one: `floor(ln(1 - u) / ln(1 - rate))` for `u` uniform on `[0, 1)`.
    /// `1 - u` is never formed, so that small rates keep their precision.
    fn gap(&mut self) -> f64 {
        let u = self.words.next() as f64 * 0.5f64.powi(64);
        if self.rate < 1.0 { (libm::log1p(-u) / libm::log1p(-self.rate)).floor() } else { 0.0 }
    }
}

impl Iterator for Poisson {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let gap = self.gap();
        if gap >= (self.records - self.at) as f64 {
            self.at = self.records;
            return None;
        }
        let record = self.at + gap as u64;
        self.at = record + 1;
        Some(record)
    }
}

/// A step's random words of 64 bits, in order.
struct Words {
    randomness: Randomness,
    step: u32,
    drawn: u64,
}

impl Words {
    fn next(&mut self) -> u64 {
        let number = self.drawn;
        self.drawn += 1;
        match self.randomness {
            Randomness::Seed(seed) => {
                let counter = [(number / 2) as u32, HOST, self.step, STREAM];
                pair(&philox4x32(counter, [seed as u32, (seed >> 32) as u32]), number % 2)
            }
            Randomness::Key(Key(key)) => {
                let draw = chacha::Draw { key, stream: STREAM, step: self.step, instance: HOST };
                pair(&draw.block((number / 8) as u32), number % 8)
            }
        }
    }
}

fn pair(block: &[u32], number: u64) -> u64 {
    let low = 2 * number as usize;
    u64::from(block[low]) | u64::from(block[low + 1]) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [Randomness; 2] = [Randomness::Seed(11), Randomness::Key(Key([3; 8]))];

    fn drawn(records: u64, rate: f64, randomness: Randomness, step: u32) -> Vec<u64> {
        Poisson::new(records, rate, randomness, step).collect()
    }

    /// Sum of `(observed - expected)^2 / variance` over independent counts, as a standard normal number
    /// (Wilson and Hilferty 1931).
    fn deviation(counts: &[u32], expected: f64, variance: f64) -> f64 {
        let statistic: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / variance).sum();
        let k = counts.len() as f64;
        ((statistic / k).cbrt() - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt()
    }

    #[test]
    fn every_record_is_drawn_as_often_as_any_other() {
        let (records, steps) = (500, 4000);
        for source in SOURCES {
            for rate in [0.004, 0.1, 0.7] {
                let mut counts = vec![0; records as usize];
                for step in 0..steps {
                    drawn(records, rate, source, step).into_iter().for_each(|record| counts[record as usize] += 1);
                }
                let mean = f64::from(steps) * rate;
                let z = deviation(&counts, mean, mean * (1.0 - rate));
                assert!(z.abs() < 4.0, "{source:?} at {rate}: {z}");
            }
        }
    }

    #[test]
    fn sizes_are_binomial() {
        let (records, rate, steps) = (2000, 0.05, 5000);
        for source in SOURCES {
            let sizes: Vec<f64> = (0..steps).map(|step| drawn(records, rate, source, step).len() as f64).collect();
            let mean = sizes.iter().sum::<f64>() / f64::from(steps);
            let variance = sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / f64::from(steps);
            let (n, steps) = (records as f64, f64::from(steps));
            let (expected, spread) = (n * rate, n * rate * (1.0 - rate));
            assert!(((mean - expected) / (spread / steps).sqrt()).abs() < 4.0, "{source:?}: mean {mean}");
            assert!((variance / spread - 1.0).abs() < 4.0 * (2.0 / steps).sqrt(), "{source:?}: variance {variance}");
        }
    }

    /// Neither the same record in neighbouring steps nor neighbouring records in one step know of each other.
    #[test]
    fn draws_are_independent_over_steps_and_records() {
        let (records, rate, steps) = (400u64, 0.3, 2000);
        for source in SOURCES {
            let taken: Vec<Vec<bool>> = (0..steps)
                .map(|step| {
                    let mut taken = vec![false; records as usize];
                    drawn(records, rate, source, step).into_iter().for_each(|record| taken[record as usize] = true);
                    taken
                })
                .collect();
            let both = |pairs: &mut dyn Iterator<Item = (bool, bool)>| {
                let (mut tables, mut total) = ([0u32; 4], 0u32);
                for (a, b) in pairs {
                    tables[usize::from(a) * 2 + usize::from(b)] += 1;
                    total += 1;
                }
                let probability = |place: usize| [1.0 - rate, rate][place / 2] * [1.0 - rate, rate][place % 2];
                let term = |(place, &count): (usize, &u32)| {
                    let expected = probability(place) * f64::from(total);
                    (f64::from(count) - expected).powi(2) / expected
                };
                tables.iter().enumerate().map(term).sum::<f64>()
            };
            let over_steps = both(&mut (1..taken.len()).step_by(2).flat_map(|step| {
                let (before, after) = (&taken[step - 1], &taken[step]);
                before.iter().copied().zip(after.iter().copied()).collect::<Vec<_>>()
            }));
            let over_records = both(
                &mut taken.iter().flat_map(|row| row.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()),
            );
            // Three degrees of freedom: 21.1 is exceeded with probability 1e-4.
            assert!(over_steps < 21.1 && over_records < 21.1, "{source:?}: {over_steps}, {over_records}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_step_alone_and_ends_of_the_range_are_exact() {
        let seed = Randomness::Seed(7);
        assert_eq!(drawn(1000, 0.1, seed, 3), drawn(1000, 0.1, seed, 3));
        assert_ne!(drawn(1000, 0.1, seed, 3), drawn(1000, 0.1, seed, 4));
        assert_ne!(drawn(1000, 0.1, seed, 3), drawn(1000, 0.1, Randomness::Seed(8), 3));
        assert_eq!(drawn(5, 1.0, seed, 0), [0, 1, 2, 3, 4]);
        assert!(drawn(0, 0.5, seed, 0).is_empty());
        assert!(drawn(1000, 1e-300, seed, 0).is_empty(), "distances beyond all integers");
        let few: usize = (0..1000).map(|step| drawn(1 << 40, 1e-12, seed, step).len()).sum();
        assert!((1000..1200).contains(&few), "1.0995 a step are expected, {few} in 1000");
        let prefix =
            |records| drawn(records, 0.2, seed, 9).into_iter().filter(|&record| record < 50).collect::<Vec<_>>();
        assert_eq!(prefix(50), prefix(5000), "more records do not change what happens to the others");
    }
}
