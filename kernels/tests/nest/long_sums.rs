//! Sums of many equal terms, where rounding errors do not cancel: held to `n x`, for every instruction set and on a device.

use super::support::{Numbers, Program, buffer, check, device, executable_isas, floats};
use super::{kernel, once, reduction, store, sweep};
use trainc_kernels::{
    ir::{
        Access::{Read, ReadWrite, Write},
        Binary, DType, Expr, Exprs, Index, Kernel, Nest, ReduceKind, Store,
    },
    reference::HostBuffer,
};

/// Relative error that a sum of up to 2^24 equal terms may have.
const ALLOWED: f64 = 1e-5;
/// Terms of a sum on processors, and on the emulated device.
const TERMS: u64 = 1 << 24;
const EMULATED: u64 = 1 << 16;
/// Terms whose roundings point the same way for long.
const TERM: [f32; 3] = [0.1, 0.7, 1.0 / 3.0];

/// `y[c] = sum over inner of x[c]`: the same term again and again, along loops of the given extents.
fn sums(columns: u64, inner: &[u64]) -> Kernel {
    let mut e = Exprs::default();
    let x = e.load(0, Index::var(0));
    let sum = e.add(Expr::Accumulator(0));
    let sweeps = vec![sweep(vec![reduction(ReduceKind::Sum, x)], vec![]), once(vec![store(1, Index::var(0), sum)])];
    let buffers = [Read, Write].map(|access| buffer(DType::F32, columns, access)).to_vec();
    kernel("sums", buffers, Nest { parallel: vec![columns], inner: inner.to_vec(), exprs: e, sweeps })
}

/// The sum, sum of squares and maximum of each of `[rows, columns]`'s rows, the last axis side by side in memory.
fn statistics(rows: u64, columns: u64) -> Kernel {
    let mut e = Exprs::default();
    let x = e.load(0, Index::linear([(0, columns as i64), (1, 1)]));
    let square = e.add(Expr::Binary(Binary::Mul, x, x));
    let kinds = [(ReduceKind::Sum, x), (ReduceKind::Sum, square), (ReduceKind::Max, x)];
    let results = [0, 1, 2].map(|number| (number + 1, e.add(Expr::Accumulator(number))));
    let sweeps = vec![
        sweep(kinds.map(|(kind, value)| reduction(kind, value)).to_vec(), vec![]),
        once(results.map(|(to, value)| store(to, Index::var(0), value)).to_vec()),
    ];
    let mut buffers = vec![buffer(DType::F32, rows * columns, Read)];
    buffers.extend([(); 3].map(|()| buffer(DType::F32, rows, Write)));
    kernel("statistics", buffers, Nest { parallel: vec![rows], inner: vec![columns], exprs: e, sweeps })
}

/// What a kernel leaves in its buffers on each instruction set, or on the device.
fn results(kernel: &Kernel, inputs: &[HostBuffer], on_device: bool) -> Vec<(String, Vec<HostBuffer>)> {
    if on_device {
        let mut buffers = inputs.to_vec();
        device::run(kernel, &mut buffers, 0, None);
        return vec![("a device".into(), buffers)];
    }
    let run = |isa| {
        let mut buffers = inputs.to_vec();
        Program::new(kernel, isa).run(&mut buffers, 0, 1);
        (format!("{isa:?}"), buffers)
    };
    executable_isas().into_iter().map(run).collect()
}

fn zeros(elements: u64) -> HostBuffer {
    HostBuffer::F32(vec![0.0; elements as usize])
}

fn assert_close(what: &str, actual: &HostBuffer, expected: impl Fn(usize) -> f64) {
    for (place, value) in floats(actual).into_iter().enumerate() {
        let error = (value / expected(place) - 1.0).abs();
        assert!(error < ALLOWED, "{what}, element {place}: {value} instead of {}, {error:e}", expected(place));
    }
}

/// The term of a column.
fn term(place: usize) -> f32 {
    TERM[place % TERM.len()]
}

fn check_sums(columns: u64, inner: &[u64], on_device: bool) {
    let kernel = sums(columns, inner);
    let terms = (0..columns as usize).map(term).collect();
    let count = inner.iter().product::<u64>() as f64;
    for (where_, buffers) in results(&kernel, &[HostBuffer::F32(terms), zeros(columns)], on_device) {
        assert_close(&format!("{columns} x {inner:?} on {where_}"), &buffers[1], |place| {
            count * f64::from(term(place))
        });
    }
}

/// Whole tensors, in two stages and in one, and loops that no power of two divides.
#[test]
fn long_sums_of_all_elements() {
    check_sums(1, &[TERMS], false);
    check_sums(3, &[TERMS - 3], false);
    check_sums(9, &[(1 << 20) + 77], false);
}

/// Sums down the columns, as gradients of biases are.
#[test]
fn long_sums_of_columns() {
    for columns in [5, 16, 70] {
        check_sums(columns, &[TERMS / 64 + 1, 63], false);
    }
    check_sums(40, &[(1 << 20) + 1], false);
}

#[test]
fn long_sums_on_devices() {
    for (columns, inner) in [(1, EMULATED * 4), (3, EMULATED * 16 + 5), (8, EMULATED * 4), (300, EMULATED / 16)] {
        check_sums(columns, &[inner], true);
    }
}

/// Statistics of rows, as norms take them: two sums and a maximum in one pass.
#[test]
fn long_sums_of_rows() {
    for (rows, columns, on_device) in [(1, 1 << 22, false), (9, (1 << 18) + 13, false), (2, EMULATED * 2, true)] {
        let kernel = statistics(rows, columns);
        let x = 0.7f32;
        let inputs = [HostBuffer::F32(vec![x; (rows * columns) as usize]), zeros(rows), zeros(rows), zeros(rows)];
        for (where_, buffers) in results(&kernel, &inputs, on_device) {
            let count = columns as f64;
            assert_close(&format!("sums on {where_}"), &buffers[1], |_| count * f64::from(x));
            assert_close(&format!("squares on {where_}"), &buffers[2], |_| count * f64::from(x * x));
            assert_close(&format!("maxima on {where_}"), &buffers[3], |_| f64::from(x));
        }
    }
}

/// An infinite term makes an infinite sum, and not a number none.
#[test]
fn long_sums_keep_infinities() {
    let specials = [(f32::INFINITY, true), (f32::INFINITY, false), (f32::NEG_INFINITY, false), (f32::NAN, false)];
    for (special, on_device) in specials {
        let columns = EMULATED * 2;
        let kernel = statistics(1, columns);
        let mut x = vec![1.0f32; columns as usize];
        x[columns as usize / 3] = special;
        let inputs = [HostBuffer::F32(x), zeros(1), zeros(1), zeros(1)];
        for (where_, buffers) in results(&kernel, &inputs, on_device) {
            let [sum] = floats(&buffers[1])[..] else { panic!("one sum") };
            assert!(
                sum.to_bits() == f64::from(special).to_bits() || sum.is_nan() && special.is_nan(),
                "{sum} on {where_}"
            );
        }
    }
}

/// `table[ids[r], c] += x[c]`, in the order of r.
fn repeated_scatter([rows, columns, keys]: [u64; 3]) -> Kernel {
    let mut e = Exprs::default();
    let (id, x) = (e.load(0, Index::var(1)), e.load(1, Index::var(0)));
    let index = Index::Value(id).mul(columns as i64).add(Index::var(0));
    let sweeps = vec![sweep(vec![], vec![Store { buffer: 2, index, value: x, accumulate: true }])];
    let buffers = vec![
        buffer(DType::I32, rows, Read),
        buffer(DType::F32, columns, Read),
        buffer(DType::F32, keys * columns, ReadWrite),
    ];
    kernel("scatter", buffers, Nest { parallel: vec![columns], inner: vec![rows], exprs: e, sweeps })
}

/// Rows of which nearly all meet the same element of each column, as those of frequent tokens do, in a table that starts from
/// `before`.
fn check_scatter([rows, columns, keys]: [u64; 3], before: f32, on_device: bool) {
    let kernel = repeated_scatter([rows, columns, keys]);
    let mut numbers = Numbers(rows);
    let often = (keys / 2) as i32;
    let ids: Vec<i32> =
        (0..rows).map(|row| if row % 50 == 7 { (numbers.next() % keys) as i32 } else { often }).collect();
    let mut counts = vec![0u32; keys as usize];
    ids.iter().for_each(|&id| counts[id as usize] += 1);
    let table = HostBuffer::F32(vec![before; (keys * columns) as usize]);
    let terms = HostBuffer::F32((0..columns as usize).map(term).collect());
    for (where_, buffers) in results(&kernel, &[HostBuffer::I32(ids), terms, table], on_device) {
        assert_close(&format!("{rows} rows of {columns} in {keys} on {where_}"), &buffers[2], |place| {
            let (key, column) = (place / columns as usize, place % columns as usize);
            f64::from(before) + f64::from(counts[key]) * f64::from(term(column))
        });
    }
}

#[test]
fn long_scatters() {
    check_scatter([1 << 21, 3, 11], 1.0, false);
    check_scatter([(1 << 18) + 3, 70, 200], 0.5, false);
    check_scatter([3_000, 1, 5], 0.5, false);
}

/// Different terms, whose ids lie along two loops that their updates go through in another order.
#[test]
fn long_scatters_agree_with_the_reference() {
    let [outer, within, columns, keys] = [30, 41, 37, 9];
    let mut e = Exprs::default();
    let id = e.load(0, Index::linear([(1, within), (2, 1)]));
    let dy = e.load(1, Index::linear([(1, columns), (2, outer * columns), (0, 1)]));
    let index = Index::Value(id).mul(columns).add(Index::var(0));
    let stores = [2, 3].map(|buffer| Store { buffer, index: index.clone(), value: dy, accumulate: true });
    let nest = Nest {
        parallel: vec![columns as u64],
        inner: vec![outer as u64, within as u64],
        exprs: e,
        sweeps: vec![sweep(vec![], stores.to_vec())],
    };
    let table = buffer(DType::F32, (keys * columns) as u64, ReadWrite);
    let buffers = vec![
        buffer(DType::I32, (outer * within) as u64, Read),
        buffer(DType::F32, (outer * within * columns) as u64, Read),
        table,
        table,
    ];
    check(&kernel("scatter to two tables", buffers, nest), keys as u64, 1e-6);
}

#[test]
fn long_scatters_on_devices() {
    check_scatter([20_000, 3, 5], 1.0, true);
}
