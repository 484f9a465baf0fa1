//! Standard normal numbers by Box and Muller ("A note on the generation of random normal deviates", 1958), many at a time.
//!
//! [`pair`] says which numbers they are. It calls the system's logarithm, cosine and sine, one number after the other.
//! [`scaled`] has the same bits several times sooner: short series in vectors come within [`BOUND`] of those numbers, so close
//! that nearly all are rounded to the same f32 from both ends of the interval. Where one is not, it asks [`pair`] (the idea
//! of Ziv, "Fast evaluation of elementary mathematical functions with correctly rounded last bit", 1991).

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, TAU};

/// How far the series are from [`pair`] at most, as a share of the radius. They are cut off below 2^-44.
const BOUND: f64 = 1.0 / (1u64 << 42) as f64;

/// `2^-32`.
const TURN: f64 = 1.0 / (1u64 << 32) as f64;

/// Two independent standard normal numbers from two random words.
fn pair([first, second]: [u32; 2]) -> [f64; 2] {
    // In (0, 1]: the logarithm of 0 is never taken.
    let radius = (-2.0 * ((f64::from(first) + 1.0) * TURN).ln()).sqrt();
    let angle = TAU * f64::from(second) * TURN;
    [radius * angle.cos(), radius * angle.sin()]
}

/// `std` times the [`pair`]s of `N` pairs of words, rounded to f32: `[cosines, sines]`.
#[inline]
pub fn scaled<const N: usize>(std: f64, first: &[u32; N], second: &[u32; N]) -> [[f32; N]; 2] {
    let mut out = [[0.0; N]; 2];
    let mut differ = 0;
    for lane in 0..N {
        let radius = std * radius(first[lane]);
        for (out, direction) in out.iter_mut().zip(direction(second[lane])) {
            // Never 0: the sign of a zero is for `pair` to say.
            let (value, bound) = (radius * direction, radius * BOUND + f64::MIN_POSITIVE);
            out[lane] = (value - bound) as f32;
            differ |= out[lane].to_bits() ^ ((value + bound) as f32).to_bits();
        }
    }
    if differ != 0 {
        for lane in 0..N {
            let numbers = pair([first[lane], second[lane]]);
            out.iter_mut().zip(numbers).for_each(|(out, number)| out[lane] = (std * number) as f32);
        }
    }
    out
}

/// `sqrt(-2 ln u)` for `u = (word + 1) / 2^32`. With `u = m 2^e` and `m` around 1, `ln u = e ln 2 + 2 artanh s`,
/// `s = (m - 1) / (m + 1)`; eight terms of artanh leave out less than 2^-44 of it.
#[inline]
fn radius(word: u32) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const LEAST: u64 = FRAC_1_SQRT_2.to_bits();
    let bits = (f64::from(word) + 1.0).to_bits() + (1f64.to_bits() - LEAST);
    // The exponent becomes the last bits of 2^52 + exponent: vectors convert no 64-bit integers.
    let two_52 = (1u64 << 52) as f64;
    let exponent = f64::from_bits(bits >> 52 | two_52.to_bits()) - (two_52 + 1023.0 + 32.0);
    let mantissa = f64::from_bits((bits & MANTISSA) + LEAST);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0].iter().fold(0.0, |sum, k| sum * (s * s) + 2.0 / k);
    (-2.0 * (exponent * LN_2 + series * s)).sqrt()
}

/// Cosine and sine of `word / 2^32` of a turn: Taylor's series up to a quarter of a right angle's distance, then whole right
/// angles by exchanging the two and their signs.
#[inline]
fn direction(word: u32) -> [f64; 2] {
    // The nearest right angle.
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let x = f64::from(word.wrapping_sub(quarter << 30) as i32) * (TAU * TURN);
    let series = |orders: &[f64]| orders.iter().fold(1.0, |rest, k| 1.0 - x * x * rest * (1.0 / (k * (k - 1.0))));
    let cosine = series(&[14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0]);
    let sine = x * series(&[13.0, 11.0, 9.0, 7.0, 5.0, 3.0]);
    let (along, across) = if quarter & 1 == 0 { (cosine, sine) } else { (sine, cosine) };
    let signed = |value: f64, quarter: u32| f64::from_bits(value.to_bits() ^ u64::from(quarter & 2) << 62);
    [signed(along, quarter.wrapping_add(1)), signed(across, quarter)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::philox4x32;

    /// Random pairs, and all pairs of words around those where the series change over or the functions vanish.
    fn words() -> Vec<[u32; 2]> {
        let edges = (0..=8).map(|eighth: u64| (eighth << 29) as u32).chain([3_037_000_499]);
        let near = edges.flat_map(|edge| (0..5).map(move |off| edge.wrapping_add(off).wrapping_sub(2)));
        let near: Vec<_> = near.collect();
        let pairs = near.iter().flat_map(|&first| near.iter().map(move |&second| [first, second]));
        let random = (0..200_000).map(|i| philox4x32([i, 0, 0, 0], [1, 2])).flat_map(|[a, b, c, d]| [[a, b], [c, d]]);
        pairs.chain(random).collect()
    }

    #[test]
    fn series_stay_within_half_the_bound() {
        for [first, second] in words() {
            let (radius, exact) = (radius(first), pair([first, second]));
            for (direction, exact) in direction(second).into_iter().zip(exact) {
                let error = (radius * direction - exact).abs();
                assert!(error <= radius * BOUND / 2.0, "{first} {second}: {error:e} of {radius}");
            }
        }
    }

    #[test]
    fn scaled_numbers_are_the_pairs_bit_for_bit() {
        for std in [0.0, 0.02f32.into(), 1.0, f64::from(f32::MAX) / 4.0, 1e-40] {
            for words in words().as_chunks::<8>().0 {
                let scaled = scaled(std, &words.map(|pair| pair[0]), &words.map(|pair| pair[1]));
                for (lane, &words) in words.iter().enumerate() {
                    let expected = pair(words).map(|number| ((std * number) as f32).to_bits());
                    assert_eq!(scaled.map(|numbers| numbers[lane].to_bits()), expected, "{std}, {words:?}");
                }
            }
        }
    }
}
