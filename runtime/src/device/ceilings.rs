//! What this machine can do at best: the ceilings that a program's speed is measured against.

use super::Pool;
use crate::artifact::Isa;
use crate::memory::Mapping;
use std::time::Instant;

/// Multiply-adds that a thread has in flight: more than latency times throughput on any x86 processor.
const IN_FLIGHT: u64 = 12;
/// Loops of [`IN_FLIGHT`] multiply-adds in one measurement, some milliseconds.
const LOOPS: u64 = 1_000_000;
/// Measurements of each quantity, of which the best counts.
const TRIES: usize = 7;
/// Elements of each of the triad's three arrays: several times a third-level cache.
const TRIAD: usize = 16 << 20;

/// Measured peaks of a number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// f32 operations per second; a multiply-add counts as two.
    pub f32_flops: f64,
    /// Operations per second on bf16 factors with f32 sums, if the processor has such an instruction.
    pub bf16_flops: Option<f64>,
    /// Bytes per second of `a[i] = b[i] + s * c[i]` on arrays in memory, 12 bytes an element.
    pub triad_bytes: f64,
}

impl Ceilings {
    /// Measures with so many threads, in about a fifth of a second. Other work on the machine lowers the result.
    ///
    /// # Errors
    /// When the system gives no threads or no memory.
    pub fn measure(threads: usize) -> std::io::Result<Self> {
        let mut pool = Pool::new(threads)?;
        let wide = super::supported(Isa::X86V4);
        let bf16 = super::supported(Isa::X86V4Bf16);
        let f32_flops = match wide {
            true => flops(&mut pool, 32, fma_512),
            false => flops(&mut pool, 16, fma_256),
        };
        let bf16_flops = bf16.then(|| flops(&mut pool, 64, dot_bf16_512));
        Ok(Self { f32_flops, bf16_flops, triad_bytes: triad(&mut pool)? })
    }
}

/// Operations per second of all threads in a loop whose instructions do `each` operations.
fn flops(pool: &mut Pool, each: u64, work: fn(u64)) -> f64 {
    let threads = pool.threads() as u64;
    let seconds = best(pool, threads, &|_| work(LOOPS));
    (threads * LOOPS * IN_FLIGHT * each) as f64 / seconds
}

/// Seconds of the fastest run.
fn best(pool: &mut Pool, tiles: u64, work: &(dyn Fn(u64) + Sync)) -> f64 {
    let once = |_| {
        let begin = Instant::now();
        pool.run(tiles, &|_, range| range.for_each(work));
        begin.elapsed().as_secs_f64()
    };
    (0..TRIES).map(once).fold(f64::INFINITY, f64::min)
}

/// Emits a loop of independent multiply-adds on registers: in assembly, so that no setting of the compiler counts.
macro_rules! multiply_adds {
    ($name:ident, $instruction:literal, $register:literal) => {
        #[cfg(target_arch = "x86_64")]
        fn $name(count: u64) {
            // SAFETY: only the named registers change, and the caller has checked that the processor has them.
            unsafe {
                std::arch::asm!(
                    "vxorps xmm12, xmm12, xmm12",
                    "vxorps xmm13, xmm13, xmm13",
                    "2:",
                    concat!($instruction, " ", $register, "0, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "1, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "2, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "3, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "4, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "5, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "6, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "7, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "8, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "9, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "10, ", $register, "12, ", $register, "13"),
                    concat!($instruction, " ", $register, "11, ", $register, "12, ", $register, "13"),
                    "dec {count}",
                    "jnz 2b",
                    "vzeroall",
                    count = inout(reg) count => _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                    out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                    out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                    options(nostack),
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        fn $name(_: u64) {}
    };
}

multiply_adds!(fma_256, "vfmadd231ps", "ymm");
multiply_adds!(fma_512, "vfmadd231ps", "zmm");
multiply_adds!(dot_bf16_512, "vdpbf16ps", "zmm");

/// Bytes per second of the triad (McCalpin, STREAM, 1995) on all threads.
fn triad(pool: &mut Pool) -> std::io::Result<f64> {
    let memory = [(); 3].map(|()| Mapping::new(4 * TRIAD));
    let [a, b, c] = memory;
    let arrays = [a?, b?, c?];
    let [a, b, c] = arrays.each_ref().map(|array| Floats(array.as_ptr().cast()));
    let blocks = 4 * pool.threads();
    let length = TRIAD / blocks;
    let work = move |block: u64| {
        let start = block as usize * length;
        let (b, c) = (b.part(start, length), c.part(start, length));
        // SAFETY: blocks are disjoint, so nobody else reads or writes this part of `a`.
        let a = unsafe { std::slice::from_raw_parts_mut(a.at(start), length) };
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = b + 3.0 * c;
        }
    };
    Ok((12 * length * blocks) as f64 / best(pool, blocks as u64, &work))
}

/// An array of [`TRIAD`] numbers that threads share.
#[derive(Clone, Copy)]
struct Floats(*mut f32);

// SAFETY: the work of a triad touches disjoint parts, or only reads.
unsafe impl Sync for Floats {}
unsafe impl Send for Floats {}

impl Floats {
    fn at(&self, start: usize) -> *mut f32 {
        self.0.wrapping_add(start)
    }

    fn part(&self, start: usize, length: usize) -> &[f32] {
        // SAFETY: inside the mapping, which is zeroed, and written by nobody.
        unsafe { std::slice::from_raw_parts(self.at(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_positive_and_finite() {
        let ceilings = Ceilings::measure(1).unwrap();
        let all = [ceilings.f32_flops, ceilings.triad_bytes, ceilings.bf16_flops.unwrap_or(1.0)];
        assert!(all.iter().all(|value| value.is_finite() && *value > 0.0), "{ceilings:?}");
    }
}
