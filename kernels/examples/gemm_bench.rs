//! Times matrix products against the machine's peak of fused multiply-adds, on one thread.
//!
//! `cargo run --release -p trainc-kernels --example gemm_bench [bf16] [cold] [second=BYTES] [FILTER]`, e.g. `gemm_bench bf16 3072`.
//! `cold` takes operands from memory, as most of a step's are; `second` makes code for a second-level cache of that size.

mod timing;

use timing::{best_time, filter, peak, precision};
use trainc_kernels::ir::{
    Access::{Read, Write},
    Body, Buffer, DType, Expr, Exprs, Gemm, Index, Kernel, Precision, Store,
};

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

/// GF/s of the microkernel alone: a product of whole register tiles (6 x 16 or 12 x 32) that stays in the second-level
/// cache. One that the first level holds is over in 4 µs, of which reading the clock is a part.
fn resident_peak(precision: Precision) -> f64 {
    let sizes = [1, 192, 64, 256];
    2.0 * sizes.iter().product::<u64>() as f64 / best_time(&product(sizes, [false, false], precision)) / 1e9
}

fn main() {
    let precision = precision();
    let peak = peak(precision);
    println!("peak of multiply-adds: {peak:.1} GF/s; microkernel in cache: {:.1} GF/s", resident_peak(precision));
    println!("{:>24} {:>8} {:>10} {:>8} {:>8}", "batch, m, n, k", "layout", "ms", "GF/s", "of peak");
    let filter = filter();
    for sizes in [
        [1, 4096, 768, 192],
        [1, 1024, 1024, 1024],
        [1, 4096, 1152, 384],
        [1, 4096, 384, 1536],
        [1, 256, 3072, 768],
        [1, 256, 768, 3072],
        [1, 768, 3072, 256],
        [1, 384, 1536, 4096],
        [1, 384, 1152, 4096],
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
