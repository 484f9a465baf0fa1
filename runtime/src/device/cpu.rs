//! Executes launches on the processor's threads.

use super::timeline::{StageTime, Timeline};
use super::{Arena, DeviceError, Pool, float};
use crate::abi::{BUFFER_ALIGNMENT, StageFn};
use crate::artifact::{Artifact, Isa, Launch, Variant};
use crate::code::LoadedCode;
use crate::memory::Mapping;
use std::sync::{Mutex, PoisonError};

/// Rows of fewer bytes in all are written by the caller alone: that takes no longer than waking others.
const SHARED_BYTES: u64 = 64 << 10;

/// A processor with one artifact's code loaded and its arena allocated.
pub struct Cpu {
    /// Keeps the code behind `kernels` alive.
    _code: LoadedCode,
    kernels: Vec<Kernel>,
    isa: Isa,
    arena: Arena,
    pool: Pool,
    scratch: Scratch,
    /// Argument pointers of the launch at hand; as long as the longest list.
    pointers: Vec<*mut u8>,
    /// Present while runs are recorded.
    timeline: Option<Timeline>,
}

// SAFETY: `pointers` point into the arena that the same value owns.
unsafe impl Send for Cpu {}

struct Kernel {
    stages: Vec<(StageFn, u64)>,
    arguments: usize,
}

/// Private memory of the threads, a stride apart.
struct Scratch {
    memory: Mapping,
    stride: usize,
}

impl Scratch {
    fn of(&self, thread: usize) -> *mut u8 {
        // SAFETY: allocated for all threads of the pool.
        unsafe { self.memory.as_ptr().add(thread * self.stride) }
    }
}

impl Cpu {
    /// Loads the best variant (or the one wanted) and allocates everything that running will need.
    ///
    /// # Errors
    /// When memory, threads or code for this processor are lacking.
    pub fn new(artifact: &Artifact, threads: usize, wanted: Option<Isa>) -> Result<Self, DeviceError> {
        let index = choose(&artifact.manifest.variants, wanted)?;
        let variant = &artifact.manifest.variants[index];
        let code = LoadedCode::load(&artifact.code[index].1)?;
        let kernels = variant.kernels.iter().map(|kernel| Kernel {
            stages: kernel.stages.iter().map(|stage| (symbol(&code, &stage.symbol), stage.tiles)).collect(),
            arguments: kernel.buffer_bytes.len(),
        });
        let kernels: Vec<_> = kernels.collect();
        let bytes = artifact.manifest.arena_bytes;
        let arena = Arena::new(bytes).map_err(|error| DeviceError::Memory { what: "its arena", bytes, error })?;
        let pool = Pool::new(threads).map_err(|error| DeviceError::Threads { threads, error })?;
        let scratch = allocate_scratch(variant, pool.threads())?;
        let arguments = kernels.iter().map(|kernel| kernel.arguments).max().unwrap_or(0);
        let pointers = vec![std::ptr::null_mut(); arguments];
        Ok(Self { _code: code, kernels, isa: variant.isa, arena, pool, scratch, pointers, timeline: None })
    }

    /// The instruction set of the loaded code.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The memory, to be written.
    pub fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// Has rows of the arena written by all threads, each its stretch: `fill` is given the number of its first row. Of rows
    /// that fail the first is reported, whatever the number of threads.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn write_rows(
        &mut self,
        offset: u64,
        bytes: u64,
        row_bytes: u64,
        fill: &(dyn Fn(u64, &mut [u8]) -> crate::Result<()> + Sync),
    ) -> crate::Result<()> {
        let out = self.arena.slice_mut(offset, bytes);
        // Workers flush subnormals, so all do.
        float::with_mode(|| match bytes < SHARED_BYTES {
            true => fill(0, out),
            false => write_rows(&mut self.pool, out, row_bytes as usize, fill),
        })
    }

    /// Executes launches in order. They must belong to the verified artifact that this device was made for.
    pub fn run(&mut self, launches: &[Launch]) {
        if let Some(timeline) = &mut self.timeline {
            timeline.restart();
        }
        float::with_mode(|| {
            for (number, launch) in (0..).zip(launches) {
                self.launch(number, launch);
            }
        });
    }

    /// Records the stages of all runs from now on, each run replacing the one before; or no longer.
    pub fn record(&mut self, on: bool) {
        self.timeline = on.then(Timeline::new);
    }

    /// The stages of the last recorded run, in order.
    pub fn recorded(&self) -> &[StageTime] {
        self.timeline.as_ref().map_or(&[], Timeline::stages)
    }

    fn launch(&mut self, number: u32, launch: &Launch) {
        let kernel = &self.kernels[launch.kernel as usize];
        assert_eq!(launch.args.len(), kernel.arguments, "launches are verified against kernels");
        for (pointer, &offset) in self.pointers.iter_mut().zip(&launch.args) {
            // SAFETY: verified to lie in the arena.
            *pointer = unsafe { self.arena.as_ptr().add(offset as usize) };
        }
        let arguments = Arguments(self.pointers.as_ptr());
        let scratch = &self.scratch;
        for (position, &(stage, tiles)) in (0..).zip(&kernel.stages) {
            let timeline = self.timeline.as_ref();
            let begin = timeline.map(Timeline::begin);
            self.pool.run(tiles, &|thread, range| {
                if !range.is_empty() {
                    let arguments = arguments.get();
                    // SAFETY: the compiler's promise for this stage; buffers verified, tiles disjoint between threads.
                    unsafe { stage(arguments, u64::from(launch.instance), range.start, range.end, scratch.of(thread)) };
                    if let Some(timeline) = timeline {
                        timeline.finished();
                    }
                }
            });
            if let (Some(timeline), Some(begin)) = (&mut self.timeline, begin) {
                timeline.end(number, position, begin);
            }
        }
    }
}

fn write_rows(
    pool: &mut Pool,
    out: &mut [u8],
    row_bytes: usize,
    fill: &(dyn Fn(u64, &mut [u8]) -> crate::Result<()> + Sync),
) -> crate::Result<()> {
    let rows = (out.len() / row_bytes) as u64;
    let base = Rows(out.as_mut_ptr());
    let failed: Mutex<Option<(u64, crate::Error)>> = Mutex::new(None);
    pool.run(rows, &|_, range| {
        let (begin, count) = (range.start as usize * row_bytes, (range.end - range.start) as usize * row_bytes);
        // SAFETY: inside `out`, and threads have different rows.
        let stretch = unsafe { std::slice::from_raw_parts_mut(base.get().add(begin), count) };
        if let Err(error) = fill(range.start, stretch) {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.as_ref().is_none_or(|&(row, _)| range.start < row) {
                *failed = Some((range.start, error));
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

/// The argument list, shared by all threads of a stage.
#[derive(Clone, Copy)]
struct Arguments(*const *mut u8);

impl Arguments {
    fn get(&self) -> *const *mut u8 {
        self.0
    }
}

// SAFETY: the list is only read while a stage runs.
unsafe impl Sync for Arguments {}

/// Rows that threads share.
struct Rows(*mut u8);

impl Rows {
    fn get(&self) -> *mut u8 {
        self.0
    }
}

// SAFETY: each thread writes rows of its own.
unsafe impl Sync for Rows {}

fn symbol(code: &LoadedCode, name: &str) -> StageFn {
    code.symbol(name).expect("verification has found every symbol")
}

fn allocate_scratch(variant: &Variant, threads: usize) -> Result<Scratch, DeviceError> {
    let largest = variant.kernels.iter().map(|kernel| kernel.scratch_bytes).max().unwrap_or(0);
    // A line more than needed keeps neighbours from sharing one.
    let stride = largest.next_multiple_of(BUFFER_ALIGNMENT) + BUFFER_ALIGNMENT;
    let bytes = stride * threads as u64;
    let memory = Mapping::new(bytes as usize).map_err(|error| DeviceError::Memory {
        what: "the threads' scratch",
        bytes,
        error,
    })?;
    Ok(Scratch { memory, stride: stride as usize })
}

fn choose(variants: &[Variant], wanted: Option<Isa>) -> Result<usize, DeviceError> {
    let usable = |variant: &Variant| supported(variant.isa) && wanted.is_none_or(|wanted| wanted == variant.isa);
    let isas = || variants.iter().map(|variant| variant.isa).collect();
    if variants.iter().all(|variant| variant.isa.is_cuda()) {
        return Err(DeviceError::OtherTarget { available: isas() });
    }
    variants.iter().position(usable).ok_or_else(|| match wanted {
        Some(wanted) => DeviceError::VariantUnavailable { wanted },
        None => DeviceError::NoVariant { available: isas() },
    })
}

/// Whether this processor executes code for that instruction set.
#[cfg(target_arch = "x86_64")]
pub fn supported(isa: Isa) -> bool {
    let v3 = || {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("movbe")
    };
    let v4 = || {
        v3() && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    };
    match isa {
        Isa::X86V3 => v3(),
        Isa::X86V4 => v4(),
        Isa::X86V4Bf16 => v4() && is_x86_feature_detected!("avx512bf16"),
        Isa::Sm80 | Isa::Sm86 | Isa::Sm89 | Isa::Sm90 | Isa::Sm100 | Isa::Sm120 => false,
    }
}

/// Whether this processor executes code for that instruction set.
#[cfg(not(target_arch = "x86_64"))]
pub fn supported(_: Isa) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    /// Rows of three bytes that hold their number; from `bad` on each is refused.
    fn filled(threads: usize, rows: usize, bad: u64) -> (Vec<u8>, Option<String>) {
        let mut out = vec![0; 3 * rows];
        let fill = |first: u64, out: &mut [u8]| {
            (first..).zip(out.chunks_exact_mut(3)).try_for_each(|(row, out)| {
                out.fill(row as u8);
                if row >= bad { Error::misuse(format!("row {row}")) } else { Ok(()) }
            })
        };
        let failed = write_rows(&mut Pool::new(threads).unwrap(), &mut out, 3, &fill).err();
        (out, failed.map(|error| error.to_string()))
    }

    #[test]
    fn rows_are_written_once_by_any_number_of_threads() {
        for (threads, rows) in [1, 2, 5].into_iter().flat_map(|threads| [1, 2, 7, 101].map(|rows| (threads, rows))) {
            let expected = (0..rows).flat_map(|row| [row as u8; 3]).collect();
            assert_eq!(filled(threads, rows, u64::MAX), (expected, None), "{threads} threads, {rows} rows");
        }
    }

    #[test]
    fn the_first_bad_row_is_reported_by_any_number_of_threads() {
        assert!([1, 2, 5].iter().all(|&threads| filled(threads, 101, 31).1.as_deref() == Some("row 31")));
    }
}
