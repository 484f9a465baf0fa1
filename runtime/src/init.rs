//! Initial values: recipes evaluated into the arena.
//!
//! Every element is a function of `(seed, stream, element)`, so threads can share the work without a trace in the
//! result.

use crate::artifact::{DType, Init};
use crate::data::{unit, write_numbers};
use crate::philox::{Draw, philox4x32};

/// Elements that one thread evaluates at a time.
const CHUNK: usize = 1 << 16;

/// Fills a tensor.
pub fn fill(init: &Init, dtype: DType, seed: u64, threads: usize, out: &mut [u8]) {
    let chunk_bytes = CHUNK * dtype.bytes() as usize;
    let chunks = out.len().div_ceil(chunk_bytes);
    let threads = threads.clamp(1, chunks.max(1));
    let share = chunks.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (thread, out) in out.chunks_mut(share * chunk_bytes).enumerate() {
            let mut work = move || fill_from(init, dtype, seed, (thread * share * CHUNK) as u64, out);
            match threads {
                1 => work(),
                _ => drop(scope.spawn(work)),
            }
        }
    });
}

/// Fills a stretch that begins at element `first`.
fn fill_from(init: &Init, dtype: DType, seed: u64, first: u64, out: &mut [u8]) {
    match *init {
        Init::Constant { value } => write_numbers(std::iter::repeat(f64::from(value)), dtype, out),
        Init::Normal { std, stream } => {
            let std = f64::from(std);
            write_numbers((first..).map(|i| f64::from((std * normal(seed, stream, i)) as f32)), dtype, out);
        }
        Init::Uniform { low, high, stream } => {
            write_numbers((first..).map(|i| f64::from(uniform(seed, stream, low, high, i))), dtype, out);
        }
        Init::Hash { bound, stream } => {
            let value = |i| f64::from(((unit(stream, i) - 0.5) * 2.0 * bound) as f32);
            write_numbers((first..).map(value), dtype, out);
        }
    }
}

/// Elements beyond 2^32 take the place of a `repeat`'s iteration in the counter, which initial values do not use.
fn draw(seed: u64, stream: u32, element: u64) -> Draw {
    Draw { seed, stream, step: 0, instance: (element >> 32) as u32 }
}

/// Uniform on `[low, high)`.
fn uniform(seed: u64, stream: u32, low: f32, high: f32, element: u64) -> f32 {
    let value = low + (high - low) * draw(seed, stream, element).uniform(element as u32);
    // The sum may round up to the open end.
    if value < high { value } else { low }
}

/// Standard normal by Box and Muller ("A note on the generation of random normal deviates", 1958): elements `2k` and
/// `2k + 1` are the cosine and sine of one pair of uniform numbers.
fn normal(seed: u64, stream: u32, element: u64) -> f64 {
    let draw = draw(seed, stream, element);
    let counter = [element as u32 / 4, draw.instance, draw.step, draw.stream];
    let block = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let pair = element as usize % 4 / 2 * 2;
    // In (0, 1]: the logarithm of 0 is never taken.
    let radius = (-2.0 * ((f64::from(block[pair]) + 1.0) * 0.5f64.powi(32)).ln()).sqrt();
    let angle = std::f64::consts::TAU * f64::from(block[pair + 1]) * 0.5f64.powi(32);
    if element.is_multiple_of(2) { radius * angle.cos() } else { radius * angle.sin() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(init: Init, threads: usize, count: usize) -> Vec<f32> {
        let mut out = vec![0f32; count];
        fill(&init, DType::F32, 7, threads, bytemuck::cast_slice_mut(&mut out));
        out
    }

    #[test]
    fn threads_leave_no_trace() {
        for init in [
            Init::Normal { std: 0.02, stream: 3 },
            Init::Uniform { low: -1.0, high: 2.0, stream: 4 },
            Init::Hash { bound: 0.5, stream: 5 },
            Init::Constant { value: 1.5 },
        ] {
            let alone = filled(init.clone(), 1, 300_001);
            assert!([2, 3, 8].iter().all(|&threads| filled(init.clone(), threads, 300_001) == alone), "{init:?}");
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
