//! Initial values: recipes evaluated into the arena.
//!
//! Every element is a function of `(seed, stream, element)`, so threads can share the work without a trace in the
//! result.

use crate::artifact::{DType, Init};
use crate::data::{unit, write_numbers};
use crate::philox::{self, Draw};
use crate::threads::side_by_side;

mod normal;

/// Threads share tensors in multiples of so many elements.
const CHUNK: usize = 1 << 16;

/// Blocks of random words, four each, that are evaluated side by side; they divide [`CHUNK`].
const BLOCKS: usize = 16;

/// Whether memory that is zero needs no filling.
pub fn is_zero(init: &Init) -> bool {
    matches!(init, Init::Constant { value } if value.to_bits() == 0)
}

/// Fills a tensor.
pub fn fill(init: &Init, dtype: DType, seed: u64, threads: usize, out: &mut [u8]) {
    let chunk_bytes = CHUNK * dtype.bytes() as usize;
    let chunks = out.len().div_ceil(chunk_bytes);
    let threads = threads.clamp(1, chunks.max(1));
    let share = chunks.div_ceil(threads).max(1);
    let pieces = out.chunks_mut(share * chunk_bytes).enumerate();
    side_by_side(threads, pieces, |(piece, out)| {
        fill_from(init, dtype, seed, (piece * share * CHUNK) as u64, out);
    });
}

/// Fills a stretch that begins at element `first`, with vectors if the processor has them. They change no bit: the compiler
/// contracts and reorders nothing.
fn fill_from(init: &Init, dtype: DType, seed: u64, first: u64, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: just checked.
        return unsafe { fill_with_avx2(init, dtype, seed, first, out) };
    }
    fill_plain(init, dtype, seed, first, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_with_avx2(init: &Init, dtype: DType, seed: u64, first: u64, out: &mut [u8]) {
    fill_plain(init, dtype, seed, first, out);
}

#[inline(always)]
fn fill_plain(init: &Init, dtype: DType, seed: u64, first: u64, out: &mut [u8]) {
    match *init {
        Init::Constant { value } => write_numbers(std::iter::repeat(f64::from(value)), dtype, out),
        Init::Normal { std, stream } => fill_drawn(seed, stream, dtype, first, out, |[a, b, c, d]| {
            let ([a, b], [c, d]) = (normal::scaled(std.into(), a, b), normal::scaled(std.into(), c, d));
            [a, b, c, d]
        }),
        Init::Uniform { low, high, stream } => fill_drawn(seed, stream, dtype, first, out, |words| {
            words.each_ref().map(|words| words.map(|word| uniform(low, high, word)))
        }),
        Init::Hash { bound, stream } => {
            let value = |i| f64::from(((unit(stream, i) - 0.5) * 2.0 * bound) as f32);
            write_numbers((first..).map(value), dtype, out);
        }
    }
}

/// Fills a stretch with what `values` makes of the random words of each group.
#[inline(always)]
fn fill_drawn(
    seed: u64,
    stream: u32,
    dtype: DType,
    first: u64,
    out: &mut [u8],
    values: impl Fn(&[[u32; BLOCKS]; 4]) -> [[f32; BLOCKS]; 4],
) {
    let groups = out.chunks_mut(4 * BLOCKS * dtype.bytes() as usize);
    for (element, out) in (first..).step_by(4 * BLOCKS).zip(groups) {
        // Elements beyond 2^32 take the place of a `repeat`'s iteration in the counter, which initial values do not use.
        let draw = Draw { seed, stream, step: 0, instance: (element >> 32) as u32 };
        let values = values(&draw.blocks(element as u32));
        write_numbers((0..4 * BLOCKS).map(|i| f64::from(values[i % 4][i / 4])), dtype, out);
    }
}

/// Uniform on `[low, high)`.
fn uniform(low: f32, high: f32, word: u32) -> f32 {
    let value = low + (high - low) * philox::unit(word);
    // The sum may round up to the open end.
    if value < high { value } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(init: Init, threads: usize, count: usize) -> Vec<f32> {
        let mut out = vec![0f32; count];
        fill(&init, DType::F32, 7, threads, bytemuck::cast_slice_mut(&mut out));
        out
    }

    const RECIPES: [Init; 4] = [
        Init::Normal { std: 0.02, stream: 3 },
        Init::Uniform { low: -1.0, high: 2.0, stream: 4 },
        Init::Hash { bound: 0.5, stream: 5 },
        Init::Constant { value: 1.5 },
    ];

    #[test]
    fn threads_leave_no_trace() {
        for init in RECIPES {
            let alone = filled(init.clone(), 1, 300_001);
            assert!([2, 3, 5, 8].iter().all(|&threads| filled(init.clone(), threads, 300_001) == alone), "{init:?}");
        }
    }

    /// The recipes as `spec/` states them, one element at a time.
    fn element(init: &Init, seed: u64, element: u64) -> f32 {
        let instance = (element >> 32) as u32;
        let word = |stream, element: u64| Draw { seed, stream, step: 0, instance }.word(element as u32);
        match *init {
            Init::Constant { value } => value,
            Init::Hash { bound, stream } => ((unit(stream, element) - 0.5) * 2.0 * bound) as f32,
            Init::Uniform { low, high, stream } => {
                let value = low + (high - low) * ((word(stream, element) >> 8) as f32 / (1 << 24) as f32);
                if value < high { value } else { low }
            }
            Init::Normal { std, stream } => {
                let [first, second] = [element & !1, element | 1].map(|element| f64::from(word(stream, element)));
                let radius = (-2.0 * ((first + 1.0) * 0.5f64.powi(32)).ln()).sqrt();
                let angle = std::f64::consts::TAU * second * 0.5f64.powi(32);
                (f64::from(std) * (radius * if element.is_multiple_of(2) { angle.cos() } else { angle.sin() })) as f32
            }
        }
    }

    #[test]
    fn stretches_are_their_elements_one_by_one_with_and_without_vectors() {
        for (init, first) in
            RECIPES.iter().flat_map(|init| [0, CHUNK as u64, (7 << 32) - 64].map(|first| (init, first)))
        {
            for count in [1, 3, 64, 66, 1000] {
                let expected: Vec<_> = (first..).take(count).map(|i| element(init, 9 << 40, i)).collect();
                for fill in [fill_from, fill_plain] {
                    let mut out = vec![0f32; count];
                    fill(init, DType::F32, 9 << 40, first, bytemuck::cast_slice_mut(&mut out));
                    assert_eq!(out, expected, "{init:?}: {count} from {first}");
                }
            }
        }
    }

    #[test]
    fn normal_numbers_have_the_moments_of_a_gaussian() {
        let numbers = filled(Init::Normal { std: 2.0, stream: 9 }, 2, 400_000);
        let moment = |k: i32| numbers.iter().map(|&x| (f64::from(x) / 2.0).powi(k)).sum::<f64>() / 4e5;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert!(moment(3).abs() < 0.03 && (moment(4) - 3.0).abs() < 0.06, "{} {}", moment(3), moment(4));
    }

    #[test]
    fn uniform_numbers_fill_a_half_open_interval() {
        let numbers = filled(Init::Uniform { low: -1.0, high: 3.0, stream: 1 }, 1, 100_000);
        assert!(numbers.iter().all(|x| (-1.0..3.0).contains(x)));
        assert!((numbers.iter().sum::<f32>() / 1e5 - 1.0).abs() < 0.02);
    }

    #[test]
    fn hashed_values_follow_the_documented_formula() {
        let bound = 3f64.sqrt() * 0.02;
        let expected = ((unit(4, 12) - 0.5) * 2.0 * bound) as f32;
        assert_eq!(filled(Init::Hash { bound, stream: 4 }, 1, 13)[12], expected);
    }

    #[test]
    fn storage_in_bf16_rounds_to_nearest() {
        let mut out = [0u8; 4];
        fill(&Init::Constant { value: 1.004 }, DType::Bf16, 0, 1, &mut out);
        assert_eq!(out, [0x81, 0x3f, 0x81, 0x3f]);
    }
}
