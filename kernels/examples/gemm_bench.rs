//! Times matrix products against the machine's peak of fused multiply-adds, on one thread.
//!
//! `cargo run --release -p trainc-kernels --example gemm_bench [bf16] [FILTER]`, e.g. `gemm_bench bf16 3072`.

use trainc_kernels::{
    Options, compile, host_isa,
    ir::{
        Access::{Read, Write},
        Body, Buffer, DType, Expr, Exprs, Gemm, Index, Kernel, Precision, Store,
    },
};
use trainc_runtime::{code::LoadedCode, device::Ceilings};

/// `c[m, n] = Σ a[m, k] b[k, n]`; `transposed` says whether each factor lies the other way round.
fn product([batch, m, n, k]: [u64; 4], transposed: [bool; 2], precision: Precision) -> Kernel {
    let place = |row: u32, column: u32, rows: u64, columns: u64, transposed: bool| {
        let (row_stride, column_stride) = if transposed { (1, rows) } else { (columns, 1) };
        let strides = [(0, rows * columns), (row, row_stride), (column, column_stride)];
        Index::linear(strides.map(|(var, stride)| (var, stride as i64)))
    };
    let mut exprs = Exprs::default();
    let lhs = exprs.load(0, place(1, 3, m, k, transposed[0]));
    let rhs = exprs.load(1, place(3, 2, k, n, transposed[1]));
    let value = exprs.add(Expr::Accumulator(0));
    let stores = vec![Store { buffer: 2, index: place(1, 2, m, n, false), value, accumulate: false }];
    let buffer = |elements, access| Buffer { dtype: DType::F32, elements, access };
    let buffers = vec![buffer(batch * m * k, Read), buffer(batch * k * n, Read), buffer(batch * m * n, Write)];
    let (batch, m, n, k) = (vec![batch], vec![m], vec![n], vec![k]);
    let body = Body::Gemm(Gemm { batch, m, n, k, exprs, lhs, rhs, precision, stores });
    Kernel { label: "product".into(), buffers, body }
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
fn best_time(kernel: &Kernel) -> f64 {
    let compiled = compile(std::slice::from_ref(kernel), host_isa(), &Options { threads: 1 }).expect("it compiles");
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

/// GF/s of a product that never leaves the first-level cache: the microkernel alone.
fn resident_peak(precision: Precision) -> f64 {
    let sizes = [1, 96, 16, 256];
    2.0 * sizes.iter().product::<u64>() as f64 / best_time(&product(sizes, [false, false], precision)) / 1e9
}

fn main() {
    let ceilings = Ceilings::measure(1).expect("one thread and some memory");
    let bf16 = std::env::args().any(|argument| argument == "bf16");
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    let peak = if bf16 { ceilings.bf16_flops.unwrap_or(ceilings.f32_flops) } else { ceilings.f32_flops } / 1e9;
    println!("peak of multiply-adds: {peak:.1} GF/s; microkernel in cache: {:.1} GF/s", resident_peak(precision));
    println!("{:>24} {:>8} {:>10} {:>8} {:>8}", "batch, m, n, k", "layout", "ms", "GF/s", "of peak");
    let filter = std::env::args().skip(1).find(|argument| argument != "bf16").unwrap_or_default();
    for sizes in [
        [1, 4096, 768, 192],
        [1, 1024, 1024, 1024],
        [1, 4096, 1152, 384],
        [1, 4096, 384, 1536],
        [1, 256, 3072, 768],
        [1, 256, 768, 3072],
        [1, 768, 3072, 256],
        [1, 384, 1536, 4096],
        [1, 256, 50257, 768],
        [1, 4096, 512, 128],
        [1, 128, 512, 4096],
        [96, 256, 64, 256],
        [48, 64, 64, 64],
    ] {
        for (name, transposed) in [("nn", [false, false]), ("nt", [false, true]), ("tn", [true, false])] {
            let label = format!("{sizes:?} {name}");
            if label.contains(&filter) {
                let seconds = best_time(&product(sizes, transposed, precision));
                let speed = 2.0 * sizes.iter().product::<u64>() as f64 / seconds / 1e9;
                let sizes = format!("{sizes:?}");
                println!("{sizes:>24} {name:>8} {:>10.3} {speed:>8.1} {:>7.0}%", seconds * 1e3, 100.0 * speed / peak);
            }
        }
    }
}
