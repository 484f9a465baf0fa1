//! Times one kernel on one thread, by the time that the thread has run.

use trainc_kernels::{
    Options, compile, host_isa,
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
    std::env::args().skip(1).find(|argument| argument != "bf16").unwrap_or_default()
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
    let compiled =
        compile(std::slice::from_ref(kernel), host_isa(), &Llvm, &Options { threads: 1 }).expect("it compiles");
    let code = LoadedCode::load(&compiled.objects).expect("it loads");
    let spec = &compiled.specs[0];
    let mut memory: Vec<_> = spec.buffer_bytes.iter().map(|&bytes| aligned(bytes)).collect();
    let args: Vec<*mut u8> = memory.iter_mut().map(|memory| pointer(memory)).collect();
    let mut scratch = aligned(spec.scratch_bytes);
    let scratch = pointer(&mut scratch);
    let mut best = f64::INFINITY;
    let begin = thread_seconds();
    while thread_seconds() - begin < 0.7 {
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
