//! Times one kernel on one thread, by the time that the thread has run.

use trainc_kernels::{
    Caches, Options, compile, host_isa,
    ir::{Kernel, Precision},
};
use trainc_llvm::Llvm;
use trainc_runtime::{code::LoadedCode, device::Ceilings};

/// What the machine multiplies and adds with factors of a precision, in GF/s on one thread.
pub fn peak(precision: Precision) -> f64 {
    let ceilings = Ceilings::measure(1).expect("one thread and some memory");
    let flops = match precision {
        Precision::Bf16 => ceilings.bf16_flops.unwrap_or(ceilings.f32_flops),
        Precision::F32 | Precision::Tf32 => ceilings.f32_flops,
    };
    flops / 1e9
}

/// The precision that the arguments ask for.
pub fn precision() -> Precision {
    if std::env::args().any(|argument| argument == "bf16") { Precision::Bf16 } else { Precision::F32 }
}

/// The cases that they ask for.
pub fn filter() -> String {
    let is_filter = |argument: &String| argument != "bf16" && argument != "cold" && !argument.starts_with(SECOND);
    std::env::args().skip(1).find(is_filter).unwrap_or_default()
}

/// Before the bytes of the second-level cache that code is made for.
const SECOND: &str = "second=";

/// The caches that the arguments name, or this machine's.
fn caches() -> Caches {
    let named = std::env::args().find_map(|argument| argument.strip_prefix(SECOND)?.parse().ok());
    named.map_or_else(Caches::host, Caches::new)
}

/// Of operands, so many copies in turn that none is in a cache when it is used again; one if the arguments do not say `cold`.
fn copies(bytes: u64) -> u64 {
    const BEYOND_CACHES: u64 = 96 << 20;
    let is_cold = std::env::args().any(|argument| argument == "cold");
    if is_cold { BEYOND_CACHES.div_ceil(bytes.max(1)).clamp(2, 64) } else { 1 }
}

/// Memory aligned as the runtime aligns it.
fn aligned(bytes: u64) -> Vec<[f32; 16]> {
    let mut memory: Vec<[f32; 16]> = Vec::with_capacity(bytes.div_ceil(64) as usize + 64);
    // SAFETY: advice about memory that the vector owns.
    unsafe { libc::madvise(page_start(memory.as_mut_ptr().cast()), bytes as usize, libc::MADV_HUGEPAGE) };
    memory.resize(memory.capacity(), [0.25; 16]);
    memory
}

fn page_start(address: *mut libc::c_void) -> *mut libc::c_void {
    address.wrapping_add(address.align_offset(4096))
}

fn pointer(memory: &mut [[f32; 16]]) -> *mut u8 {
    let address = memory.as_mut_ptr().cast::<u8>();
    address.wrapping_add(address.align_offset(64))
}

/// Seconds that this thread has run: other work on the machine takes none of them.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on Linux and `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds of the fastest run of a kernel.
pub fn best_time(kernel: &Kernel) -> f64 {
    let options = Options { modules: 1, caches: caches() };
    let compiled = compile(std::slice::from_ref(kernel), host_isa(), &Llvm, &options).expect("it compiles");
    let code = LoadedCode::load(&compiled.objects).expect("it loads");
    let spec = &compiled.specs[0];
    let copy = || spec.buffer_bytes.iter().map(|&bytes| aligned(bytes)).collect::<Vec<_>>();
    let mut memory: Vec<_> = (0..copies(spec.buffer_bytes.iter().sum())).map(|_| copy()).collect();
    let args: Vec<Vec<*mut u8>> =
        memory.iter_mut().map(|copy| copy.iter_mut().map(|memory| pointer(memory)).collect()).collect();
    let mut turns = args.iter().cycle();
    let mut scratch = aligned(spec.scratch_bytes);
    let scratch = pointer(&mut scratch);
    let mut best = f64::INFINITY;
    let begin = thread_seconds();
    while thread_seconds() - begin < 0.7 {
        let args = turns.next().expect("there is a copy");
        let start = thread_seconds();
        for stage in &spec.stages {
            let function = code.symbol(&stage.symbol).expect("the symbol exists");
            // SAFETY: the arguments are those of the specification.
            unsafe { function(args.as_ptr(), 0, 0, stage.tiles, scratch) };
        }
        best = best.min(thread_seconds() - start);
    }
    best
}
