//! Contractions of many equal products, where rounding errors do not cancel: held to `k x y`, for every instruction set and on a
//! device.

use super::{
    buffer,
    support::{Program, device, executable_isas, floats},
};
use trainc_kernels::{
    ir::{
        Access::{Read, Write},
        Body, DType, Expr, Exprs, Gemm, Index, Kernel, Precision, Store,
    },
    reference::HostBuffer,
};

/// Relative error that a sum of up to 2^24 equal terms may have.
const ALLOWED: f64 = 1e-5;

/// `z[m, n] = sum over k of x[m] y[n]`.
fn product(precision: Precision, [m, n, k]: [u64; 3]) -> Kernel {
    let mut exprs = Exprs::default();
    let (lhs, rhs) = (exprs.load(0, Index::var(0)), exprs.load(1, Index::var(1)));
    let value = exprs.add(Expr::Accumulator(0));
    let stores = vec![Store { buffer: 2, index: Index::row_major(0, &[m, n]), value, accumulate: false }];
    let buffers = [(m, Read), (n, Read), (m * n, Write)];
    let buffers = buffers.map(|(elements, access)| buffer(DType::F32, elements, access)).to_vec();
    let body = Gemm { batch: vec![], m: vec![m], n: vec![n], k: vec![k], exprs, lhs, rhs, precision, stores };
    Kernel { label: format!("{precision:?} {m} x {n} x {k}"), buffers, body: Body::Gemm(body) }
}

/// Factors that bf16 holds, so that products are exact and only sums round.
fn factors(count: u64) -> Vec<f32> {
    (0..count).map(|i| [0.69921875, 1.3359375, 0.100_097_66][i as usize % 3] * (1 << (i / 3 % 4)) as f32).collect()
}

fn check(precision: Precision, [m, n, k]: [u64; 3], on_device: bool) {
    let kernel = product(precision, [m, n, k]);
    let (x, y) = (factors(m), factors(n));
    let inputs = [x.clone(), y.clone(), vec![0.0; (m * n) as usize]].map(HostBuffer::F32);
    let isas = if on_device { vec![None] } else { executable_isas().into_iter().map(Some).collect() };
    for isa in isas {
        let mut buffers = inputs.to_vec();
        match isa {
            Some(isa) => Program::new(&kernel, isa).run(&mut buffers, 0, 1),
            None => drop(device::run(&kernel, &mut buffers, 0, None)),
        }
        for (place, value) in floats(&buffers[2]).into_iter().enumerate() {
            let [row, column] = [place / n as usize, place % n as usize];
            let expected = k as f64 * f64::from(x[row]) * f64::from(y[column]);
            let error = (value / expected - 1.0).abs();
            assert!(error < ALLOWED, "{} on {isa:?}: {value} instead of {expected}, {error:e}", kernel.label);
        }
    }
}

/// Gradients of weights over millions of rows: rows cut, columns cut, neither.
#[test]
fn long_contractions() {
    check(Precision::F32, [3, 5, 1 << 24], false);
    for precision in [Precision::F32, Precision::Bf16] {
        check(precision, [40, 35, (1 << 18) + 7], false);
    }
    check(Precision::Tf32, [13, 33, 1 << 18], false);
}

/// Pieces whose sums are added as they are, and with their errors.
#[test]
fn long_contractions_on_devices() {
    for (precision, depth) in
        [(Precision::F32, 2_000), (Precision::F32, 34_000), (Precision::Tf32, 6_000), (Precision::Bf16, 12_000)]
    {
        check(precision, [3, 5, depth], true);
    }
}
