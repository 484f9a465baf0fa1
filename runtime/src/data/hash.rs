//! The documented integer hash, for data and initial values that any system can reproduce.
//!
//! `r(s, i)`: `z = (s << 40) + i + 0x9E3779B97F4A7C15`, then the finaliser of SplitMix64 (Steele, Lea and Flood,
//! "Fast splittable pseudorandom number generators", OOPSLA 2014); all modulo 2^64.

/// The hash of element `index` of stream `stream`.
pub fn hash(stream: u64, index: u64) -> u64 {
    let mut z = (stream << 40).wrapping_add(index).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `(hash >> 40) / 2^24`: uniform in `[0, 1)`, exact in f32.
pub fn unit(stream: u64, index: u64) -> f64 {
    (hash(stream, index) >> 40) as f64 / (1u64 << 24) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64 seeded with 0 yields this first (the constant above is its increment).
    #[test]
    fn is_splitmix64() {
        assert_eq!(hash(0, 0), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn units_fill_the_interval() {
        let mean = (0..10_000).map(|i| unit(3, i)).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.01 && (0..10_000).all(|i| (0.0..1.0).contains(&unit(3, i))));
    }
}
