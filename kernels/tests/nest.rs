//! Nests against the reference interpreter: shapes, tails, layouts, reductions, gathers, scatters, types.

#[path = "nest/long_sums.rs"]
mod long_sums;
mod support;

use proptest::prelude::*;
use support::{Numbers, Program, buffer, check, check_batch, check_on, executable_isas};
use trainc_kernels::{
    ir::{
        Access::{Read, ReadWrite, Write},
        Batch, Binary, Body, Buffer, DType, Draw, Expr, ExprId, Exprs, Generator, Index, Kernel, Nest, ReduceKind,
        Reduction, Store, Sweep, Unary,
    },
    reference::HostBuffer,
};
use trainc_runtime::{chacha, philox};

fn store(buffer: u32, index: Index, value: ExprId) -> Store {
    Store { buffer, index, value, accumulate: false }
}

fn reduction(kind: ReduceKind, value: ExprId) -> Reduction {
    Reduction { kind, value }
}

fn sweep(reductions: Vec<Reduction>, stores: Vec<Store>) -> Sweep {
    Sweep { once: false, reductions, stores }
}

fn once(stores: Vec<Store>) -> Sweep {
    Sweep { once: true, reductions: Vec::new(), stores }
}

fn kernel(label: &str, buffers: Vec<Buffer>, nest: Nest) -> Kernel {
    Kernel { label: label.into(), buffers, body: Body::Nest(nest) }
}

/// `softmax(x)` over the last of `[rows, columns]`, with the maximum and the sum kept in registers.
fn softmax(rows: u64, columns: u64) -> Kernel {
    let mut e = Exprs::default();
    let index = Index::row_major(0, &[rows, columns]);
    let x = e.load(0, index.clone());
    let top = e.add(Expr::Accumulator(0));
    let shifted = e.add(Expr::Binary(Binary::Sub, x, top));
    let power = e.add(Expr::Unary(Unary::Exp, shifted));
    let total = e.add(Expr::Accumulator(1));
    let quotient = e.add(Expr::Binary(Binary::Div, power, total));
    let sweeps = vec![
        sweep(vec![reduction(ReduceKind::Max, x)], vec![]),
        sweep(vec![reduction(ReduceKind::Sum, power)], vec![]),
        sweep(vec![], vec![store(1, index, quotient)]),
    ];
    let elements = rows * columns;
    let buffers = vec![buffer(DType::F32, elements, Read), buffer(DType::F32, elements, Write)];
    kernel("softmax", buffers, Nest { parallel: vec![rows], inner: vec![columns], exprs: e, sweeps })
}

/// Sum, maximum and position of the maximum over `k`, for each (i, j), of an array laid out as `order` says.
fn reductions([i, j, k]: [u64; 3], order: [usize; 3], dtype: DType) -> Kernel {
    let mut e = Exprs::default();
    let mut strides = [0; 3];
    let mut stride = 1;
    for &axis in order.iter().rev() {
        strides[axis] = stride;
        stride *= [i, j, k][axis] as i64;
    }
    let x = e.load(0, Index::linear((0..3).map(|var| (var as u32, strides[var]))));
    let square = e.add(Expr::Binary(Binary::Mul, x, x));
    let [sum, top, place] = [0, 1, 2].map(|number| e.add(Expr::Accumulator(number)));
    let kinds = [(ReduceKind::Sum, square), (ReduceKind::Max, x), (ReduceKind::ArgMax, x)];
    let flat = Index::row_major(0, &[i, j]);
    let sweeps = vec![
        sweep(kinds.map(|(kind, value)| reduction(kind, value)).to_vec(), vec![]),
        once([(1, sum), (2, top), (3, place)].map(|(to, value)| store(to, flat.clone(), value)).to_vec()),
    ];
    let buffers = vec![
        buffer(dtype, i * j * k, Read),
        buffer(DType::F32, i * j, Write),
        buffer(DType::F32, i * j, Write),
        buffer(DType::I32, i * j, Write),
    ];
    kernel("reductions", buffers, Nest { parallel: vec![i, j], inner: vec![k], exprs: e, sweeps })
}

/// `table[ids[r], c] += dy[r, c]`, in the order of r.
fn scatter(rows: u64, columns: u64, vocabulary: u64) -> Kernel {
    let mut e = Exprs::default();
    let id = e.load(0, Index::var(1));
    let dy = e.load(1, Index::linear([(1, columns as i64), (0, 1)]));
    let index = Index::Value(id).mul(columns as i64).add(Index::var(0));
    let sweeps = vec![sweep(vec![], vec![Store { buffer: 2, index, value: dy, accumulate: true }])];
    let buffers = vec![
        buffer(DType::I32, rows, Read),
        buffer(DType::F32, rows * columns, Read),
        buffer(DType::F32, vocabulary * columns, ReadWrite),
    ];
    kernel("scatter", buffers, Nest { parallel: vec![columns], inner: vec![rows], exprs: e, sweeps })
}

/// `y[r, c] = table[ids[r], c] + bias[c]`.
fn gather(rows: u64, columns: u64, vocabulary: u64, dtype: DType) -> Kernel {
    let mut e = Exprs::default();
    let id = e.load(0, Index::var(0));
    let row = e.load(1, Index::Value(id).mul(columns as i64).add(Index::var(1)));
    let bias = e.load(2, Index::var(1));
    let sum = e.add(Expr::Binary(Binary::Add, row, bias));
    let sweeps = vec![sweep(vec![], vec![store(3, Index::row_major(0, &[rows, columns]), sum)])];
    let buffers = vec![
        buffer(DType::I32, rows, Read),
        buffer(dtype, vocabulary * columns, Read),
        buffer(DType::F32, columns, Read),
        buffer(dtype, rows * columns, Write),
    ];
    kernel("gather", buffers, Nest { parallel: vec![rows, columns], inner: vec![], exprs: e, sweeps })
}

/// Each element of `[i, j, k]` shifted by one along j, zero where there is none, stored transposed.
fn shifted_transpose([i, j, k]: [u64; 3], dtype: DType) -> Kernel {
    let mut e = Exprs::default();
    let place = e.add(Expr::Position(Index::var(1)));
    let zero = e.add(Expr::Integer(0));
    let inside = e.add(Expr::Binary(Binary::Less, zero, place));
    let index = Index::row_major(0, &[i, j, k]).add(Index::constant(-(k as i64)));
    let x = e.add(Expr::Load { buffer: 0, index, guard: Some(inside) });
    let back = Index::linear([(0, 1), (1, i as i64), (2, (i * j) as i64)]);
    let sweeps = vec![sweep(vec![], vec![store(1, back, x)])];
    let buffers = vec![buffer(dtype, i * j * k, Read), buffer(dtype, i * j * k, Write)];
    kernel("shifted transpose", buffers, Nest { parallel: vec![i, j, k], inner: vec![], exprs: e, sweeps })
}

/// Each of `count` matrices `[i, j]` divided by its norm and stored transposed: one sum over much, then work on each element.
fn normalised_transpose([count, i, j]: [u64; 3]) -> Kernel {
    let mut e = Exprs::default();
    let at = |strides: [u64; 3]| Index::linear((0..).zip(strides.map(|stride| stride as i64)));
    let x = e.load(0, at([i * j, j, 1]));
    let square = e.add(Expr::Binary(Binary::Mul, x, x));
    let sum = e.add(Expr::Accumulator(0));
    let norm = e.add(Expr::Unary(Unary::Sqrt, sum));
    let quotient = e.add(Expr::Binary(Binary::Div, x, norm));
    let sweeps = vec![
        sweep(vec![reduction(ReduceKind::Sum, square)], vec![]),
        sweep(vec![], vec![store(1, at([i * j, 1, i]), quotient)]),
    ];
    let buffers = [Read, Write].map(|access| buffer(DType::F32, count * i * j, access)).to_vec();
    kernel("normalised transpose", buffers, Nest { parallel: vec![count], inner: vec![i, j], exprs: e, sweeps })
}

/// Accesses along different loops go through shared memory: whole sectors on both sides, no bank twice.
#[test]
fn transposes_coalesce_on_devices() {
    for kernel in [
        shifted_transpose([64, 40, 96], DType::F32),
        shifted_transpose([32, 1, 64], DType::Bf16),
        normalised_transpose([2, 96, 128]),
    ] {
        check(&kernel, 1, 1e-6);
        let counters = support::device::counters(&kernel);
        assert!(counters.coalescing() > 0.99, "{}: {}", kernel.label, counters.coalescing());
        assert!(counters.shared.efficiency() > 0.99, "{}: {}", kernel.label, counters.shared.efficiency());
    }
}

/// One AdamW update, in place.
fn adamw(count: u64) -> Kernel {
    let mut e = Exprs::default();
    let at = Index::var(0);
    let [p, m, v, g] = [0, 1, 2, 3].map(|buffer| e.load(buffer, at.clone()));
    let rate = e.load(4, Index::constant(0));
    let binary = |e: &mut Exprs, f, a, b| e.add(Expr::Binary(f, a, b));
    let scaled = |e: &mut Exprs, factor: f32, a| {
        let factor = e.constant(factor);
        e.add(Expr::Binary(Binary::Mul, factor, a))
    };
    let (old, new) = (scaled(&mut e, 0.9, m), scaled(&mut e, 0.1, g));
    let m_next = binary(&mut e, Binary::Add, old, new);
    let square = binary(&mut e, Binary::Mul, g, g);
    let (old, new) = (scaled(&mut e, 0.999, v), scaled(&mut e, 0.001, square));
    let old = e.add(Expr::Unary(Unary::Abs, old));
    let v_next = binary(&mut e, Binary::Add, old, new);
    let root = e.add(Expr::Unary(Unary::Sqrt, v_next));
    let epsilon = e.constant(1e-8);
    let bottom = binary(&mut e, Binary::Add, root, epsilon);
    let quotient = binary(&mut e, Binary::Div, m_next, bottom);
    let decay = scaled(&mut e, 0.01, p);
    let step = binary(&mut e, Binary::Add, quotient, decay);
    let step = binary(&mut e, Binary::Mul, rate, step);
    let p_next = binary(&mut e, Binary::Sub, p, step);
    let stores = vec![store(0, at.clone(), p_next), store(1, at.clone(), m_next), store(2, at, v_next)];
    let mut buffers = vec![buffer(DType::F32, count, ReadWrite); 3];
    buffers.extend([buffer(DType::F32, count, Read), buffer(DType::F32, 1, Read)]);
    kernel(
        "adamw",
        buffers,
        Nest { parallel: vec![count], inner: vec![], exprs: e, sweeps: vec![sweep(vec![], stores)] },
    )
}

#[test]
fn row_kernels_agree_with_the_reference() {
    for (rows, columns) in [(1, 1), (3, 7), (5, 8), (2, 33), (4, 100), (70, 513), (2, 5000)] {
        check(&softmax(rows, columns), 1, 1e-6);
    }
}

/// The sum of squares and the maximum of a whole array, as one number each.
fn norm(count: u64) -> Kernel {
    let mut e = Exprs::default();
    let x = e.load(0, Index::var(0));
    let square = e.add(Expr::Binary(Binary::Mul, x, x));
    let [sum, top] = [0, 1].map(|number| e.add(Expr::Accumulator(number)));
    let root = e.add(Expr::Unary(Unary::Sqrt, sum));
    let sweeps = vec![
        sweep(vec![reduction(ReduceKind::Sum, square), reduction(ReduceKind::Max, x)], vec![]),
        once(vec![store(1, Index::constant(0), root), store(1, Index::constant(1), top)]),
    ];
    let buffers = vec![buffer(DType::F32, count, Read), buffer(DType::F32, 2, Write)];
    kernel("norm", buffers, Nest { parallel: vec![], inner: vec![count], exprs: e, sweeps })
}

#[test]
fn reductions_of_whole_arrays_are_shared_among_threads() {
    check(&norm(1000), 1, 1e-6);
    let large = norm(60 * 3001);
    check(&large, 1, 1e-6);
    let tiles = Program::new(&large, executable_isas()[0]).tiles();
    assert!(tiles.len() == 2 && tiles[0] >= 4, "{tiles:?}");
}

#[test]
fn updates_in_place_agree_with_the_reference() {
    for count in [1, 7, 8, 9, 1000, 200_003] {
        check(&adamw(count), 1, 1e-6);
    }
}

/// Nests whose blocks have one thread to a team, parts of a warp, warps, 256 and 512 threads, or columns of them.
#[test]
fn batches_compute_what_their_nests_do_alone() {
    let columns = reductions([1, 700, 600], [2, 0, 1], DType::F32);
    let mixed = [softmax(3, 100), norm(20_000), adamw(1000), columns, norm(3000), adamw(1000), scatter(40, 96, 7)];
    check_batch(&mixed, 7);
    check_batch(&[adamw(1000), adamw(7), adamw(1000), softmax(70, 513), adamw(40_000), softmax(5, 8)], 1);
    check_batch(&[norm(5), norm(5), norm(5)], 1);
}

#[test]
fn batches_that_break_a_rule_are_refused() {
    let good = Batch::of(&[&adamw(9), &norm(5), &adamw(9)]).0.kernel();
    assert_eq!((good.label.as_str(), good.buffers.len()), ("2 x adamw | norm", 12));
    let broken = |change: &dyn Fn(&mut Kernel, &mut Batch)| {
        let Body::Batch(mut batch) = good.body.clone() else { unreachable!() };
        let mut kernel = good.clone();
        change(&mut kernel, &mut batch);
        kernel.body = Body::Batch(batch);
        kernel.verify().expect_err("the batch is broken")
    };
    assert!(broken(&|kernel, _| kernel.buffers.truncate(11)).contains("arguments from 10"));
    assert!(broken(&|kernel, _| kernel.buffers.push(kernel.buffers[0])).contains("13 arguments"));
    assert!(broken(&|_, batch| batch.parts[0].times = 0).contains("0 calls"));
    assert!(broken(&|_, batch| batch.parts[1].kernel.buffers[1].access = Read).contains("read-only"));
    assert!(broken(&|_, batch| batch.parts[0].kernel = good.clone()).contains("other kernels than nests"));
}

#[test]
fn gathers_and_scatters_agree_with_the_reference() {
    for (rows, columns, vocabulary) in [(1, 1, 1), (9, 5, 3), (40, 96, 7), (13, 259, 50)] {
        check(&scatter(rows, columns, vocabulary), vocabulary, 1e-6);
        check(&gather(rows, columns, vocabulary, DType::F32), vocabulary, 1e-6);
        check(&gather(rows, columns, vocabulary, DType::Bf16), vocabulary, 1e-6);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reductions_agree_in_every_layout(
        sizes in [1u64..20, 1u64..20, 1u64..70],
        order in Just([0usize, 1, 2]).prop_shuffle(),
        bf16 in any::<bool>(),
    ) {
        check(&reductions(sizes, order, if bf16 { DType::Bf16 } else { DType::F32 }), 1, 1e-6);
    }

    #[test]
    fn guarded_transposes_agree(sizes in [1u64..20, 1u64..20, 1u64..40], bf16 in any::<bool>()) {
        check(&shifted_transpose(sizes, if bf16 { DType::Bf16 } else { DType::F32 }), 1, 1e-6);
    }
}

/// `y[i] = f(x[i])`
fn map(count: u64, function: impl FnOnce(&mut Exprs, ExprId) -> ExprId) -> Kernel {
    let mut e = Exprs::default();
    let x = e.load(0, Index::var(0));
    let y = function(&mut e, x);
    let buffers = vec![buffer(DType::F32, count, Read), buffer(DType::F32, count, Write)];
    let sweeps = vec![sweep(vec![], vec![store(1, Index::var(0), y)])];
    kernel("map", buffers, Nest { parallel: vec![count], inner: vec![], exprs: e, sweeps })
}

/// The largest relative error of a function over `inputs`, against f64, where the result is no denormal.
fn worst_error(function: Unary, inputs: &[f32]) -> f64 {
    let kernel = map(inputs.len() as u64, |e, x| e.add(Expr::Unary(function, x)));
    let mut worst: f64 = 0.0;
    for isa in executable_isas() {
        let mut buffers = vec![HostBuffer::F32(inputs.to_vec()), HostBuffer::F32(vec![0.0; inputs.len()])];
        Program::new(&kernel, isa).run(&mut buffers, 0, u64::MAX);
        for (&x, y) in inputs.iter().zip(support::floats(&buffers[1])) {
            let exact = function.apply(x.into());
            let error = (y - exact).abs() / exact.abs().max(f64::from(f32::MIN_POSITIVE));
            if exact.is_nan() {
                assert!(y.is_nan(), "{function:?}({x}) = {y}");
            } else if exact.abs() < 3.4e38 {
                assert!(error < 1e-5, "{function:?}({x}) = {y}, not {exact}");
                worst = worst.max(error);
            } else {
                assert!(y == f64::from(exact as f32), "{function:?}({x}) = {y}, not {exact}");
            }
        }
    }
    worst
}

fn grid(low: f32, high: f32, count: usize) -> Vec<f32> {
    (0..count).map(|i| low + (high - low) * (i as f32 / count as f32)).collect()
}

#[test]
fn transcendental_functions_are_accurate() {
    let specials = [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, 1e-38, 3e38, -3e38];
    let wide: Vec<f32> = (0..100_000u32).map(|i| f32::from_bits(i * 21_000 + 1)).collect();
    for (function, inputs, bound) in [
        (Unary::Exp, grid(-90.0, 89.0, 200_000), 2e-7),
        (Unary::Log, wide, 2e-7),
        (Unary::Log, grid(0.5, 2.0, 100_000), 2e-7),
        (Unary::Tanh, grid(-10.0, 10.0, 200_000), 3.3e-7),
        (Unary::Sigmoid, grid(-87.0, 30.0, 200_000), 4e-7),
        (Unary::Softplus, grid(-87.0, 30.0, 200_000), 4e-7),
        (Unary::Erf, grid(-5.0, 5.0, 200_000), 2e-7),
        (Unary::Exp, specials.to_vec(), 2e-7),
        (Unary::Log, specials.to_vec(), 2e-7),
        (Unary::Tanh, specials.to_vec(), 3.3e-7),
        (Unary::Sigmoid, specials.to_vec(), 2e-7),
        (Unary::Softplus, specials.to_vec(), 2e-7),
        (Unary::Erf, specials.to_vec(), 2e-7),
        (Unary::Sign, specials.to_vec(), 0.0),
        (Unary::Sqrt, grid(0.0, 100.0, 10_000), 6e-8),
    ] {
        let worst = worst_error(function, &inputs);
        assert!(worst <= bound, "{function:?}: relative error {worst:e}");
    }
}

/// Near their zeros sine and cosine are judged by absolute error.
#[test]
fn circular_functions_are_accurate_for_large_arguments() {
    for function in [Unary::Sin, Unary::Cos] {
        let inputs = [grid(-10.0, 10.0, 100_000), grid(-1e5, 1e5, 100_000)].concat();
        let kernel = map(inputs.len() as u64, |e, x| e.add(Expr::Unary(function, x)));
        for isa in executable_isas() {
            let mut buffers = vec![HostBuffer::F32(inputs.clone()), HostBuffer::F32(vec![0.0; inputs.len()])];
            Program::new(&kernel, isa).run(&mut buffers, 0, u64::MAX);
            for (&x, y) in inputs.iter().zip(support::floats(&buffers[1])) {
                let exact = function.apply(x.into());
                assert!((y - exact).abs() < 1.2e-7, "{function:?}({x}) = {y}, not {exact}");
            }
        }
    }
}

/// What saturates in f32 does so exactly, so that derivatives by the value vanish however large the argument is.
#[test]
fn saturating_functions_reach_their_limits() {
    let far = [7.9001, 8.0, 10.0, 20.0, 89.0, 1e3, 1e20, f32::MAX, f32::INFINITY];
    for isa in executable_isas() {
        let of = |function: Unary, inputs: Vec<f32>| {
            let kernel = map(inputs.len() as u64, |e, x| e.add(Expr::Unary(function, x)));
            let mut buffers = vec![HostBuffer::F32(inputs.clone()), HostBuffer::F32(vec![0.0; inputs.len()])];
            Program::new(&kernel, isa).run(&mut buffers, 0, u64::MAX);
            support::floats(&buffers[1])
        };
        let negative: Vec<f32> = far.iter().map(|x| -x).collect();
        assert_eq!(of(Unary::Tanh, far.to_vec()), vec![1.0; far.len()], "{isa:?}");
        assert_eq!(of(Unary::Tanh, negative), vec![-1.0; far.len()], "{isa:?}");
        assert_eq!(of(Unary::Sigmoid, far[3..].to_vec()), vec![1.0; far.len() - 3], "{isa:?}");
        assert_eq!(of(Unary::Sigmoid, far[5..].iter().map(|x| -x).collect()), vec![0.0; far.len() - 5], "{isa:?}");
        let near = of(Unary::Tanh, grid(7.0, 8.0, 200_000));
        assert!(near.iter().all(|y| *y <= 1.0), "{isa:?}: the tangent never passes 1");
    }
}

#[test]
fn saturating_functions_have_the_same_bits_on_every_machine() {
    let inputs = [grid(-80.0, 80.0, 1500), grid(-2.0, 2.0, 500), vec![1e3, -1e3, 3e38, -3e38, 1e-30, -1e-30]].concat();
    for function in [Unary::Tanh, Unary::Sigmoid, Unary::Softplus] {
        let kernel = map(inputs.len() as u64, |e, x| e.add(Expr::Unary(function, x)));
        let buffers = vec![HostBuffer::F32(inputs.clone()), HostBuffer::F32(vec![0.0; inputs.len()])];
        let mut expected = buffers.clone();
        support::device::run(&kernel, &mut expected, 0, None);
        for isa in executable_isas() {
            let mut found = buffers.clone();
            Program::new(&kernel, isa).run(&mut found, 0, u64::MAX);
            assert!(found == expected, "{function:?} on {isa:?}");
        }
    }
}

#[test]
fn draws_equal_those_of_the_runtime_bit_for_bit() {
    let count = 1003;
    let mut e = Exprs::default();
    let element = Index::var(0).mul(3).add(Index::constant(5));
    let draw = e.add(Expr::Random(Draw { generator: Generator::Philox, stream: 77, control: 0, element }));
    let buffers = vec![buffer(DType::I32, 4, Read), buffer(DType::F32, count, Write)];
    let sweeps = vec![sweep(vec![], vec![store(1, Index::var(0), draw)])];
    let kernel = kernel("draw", buffers, Nest { parallel: vec![count], inner: vec![], exprs: e, sweeps });
    let control = HostBuffer::I32(vec![-5, 9, 12, 100]);
    let inputs = vec![control, HostBuffer::F32(vec![0.0; count as usize])];
    check_on(&kernel, &inputs, 0.0);
    let mut actual = inputs;
    Program::new(&kernel, executable_isas()[0]).run(&mut actual, 4, 1);
    let draw = philox::Draw { seed: 9 << 32 | 0xFFFF_FFFB, stream: 77, step: 12, instance: 4 };
    let expected = (0..count as u32).map(|i| draw.uniform(3 * i + 5)).collect();
    assert_eq!(actual[1], HostBuffer::F32(expected));
}

/// Three words of one block, at elements that lanes and tails share out: RFC 8439's block function, as the runtime has it.
#[test]
fn secure_draws_equal_those_of_the_runtime_bit_for_bit() {
    let count = 1003;
    let mut e = Exprs::default();
    let element = Index::var(0).mul(3).add(Index::constant(5));
    let words = [0u8, 7, 15];
    let mut draw = |word| {
        let generator = Generator::ChaCha20 { word };
        e.add(Expr::Random(Draw { generator, stream: 0x8000_0001, control: 0, element: element.clone() }))
    };
    let stores = (1..).zip(words).map(|(buffer, word)| store(buffer, Index::var(0), draw(word))).collect();
    let written = || buffer(DType::F32, count, Write);
    let buffers = vec![buffer(DType::I32, 12, Read), written(), written(), written()];
    let sweeps = vec![sweep(vec![], stores)];
    let kernel = kernel("secure draw", buffers, Nest { parallel: vec![count], inner: vec![], exprs: e, sweeps });
    let key: [u32; 8] = std::array::from_fn(|i| 0x9E37_79B9_u32.wrapping_mul(i as u32 + 1));
    let control: Vec<i32> = [-5, 9, -12, 100].into_iter().chain(key.map(|word| word as i32)).collect();
    let mut inputs = vec![HostBuffer::I32(control)];
    inputs.extend(words.map(|_| HostBuffer::F32(vec![0.0; count as usize])));
    check_on(&kernel, &inputs, 0.0);
    for isa in executable_isas() {
        let mut actual = inputs.clone();
        Program::new(&kernel, isa).run(&mut actual, 4, 1);
        let draw = chacha::Draw { key, stream: 0x8000_0001, step: 0xFFFF_FFF4, instance: 4 };
        for (buffer, word) in actual[1..].iter().zip(words) {
            let expected = (0..count as u32).map(|i| draw.uniform(3 * i + 5, word)).collect();
            assert_eq!(*buffer, HostBuffer::F32(expected), "{isa:?} word {word}");
        }
    }
}

#[test]
fn kernels_that_break_a_rule_are_refused() {
    let good = softmax(4, 8);
    assert_eq!(good.verify(), Ok(()));
    let Body::Nest(nest) = &good.body else { unreachable!() };
    let broken = |change: &dyn Fn(&mut Kernel, &mut Nest)| {
        let (mut kernel, mut nest) = (good.clone(), nest.clone());
        change(&mut kernel, &mut nest);
        kernel.body = Body::Nest(nest);
        kernel.verify().expect_err("the kernel is broken")
    };
    assert!(broken(&|_, nest| nest.parallel[0] = 5).contains("indices"));
    assert!(broken(&|_, nest| nest.inner[0] = 0).contains("empty loop"));
    assert!(broken(&|kernel, _| kernel.buffers[1].access = Read).contains("read-only"));
    assert!(broken(&|_, nest| nest.sweeps.swap(0, 2)).contains("before it is computed"));
    assert!(broken(&|_, nest| nest.sweeps[2].once = true).contains("outside its loop"));
    assert!(broken(&|kernel, _| kernel.buffers[1].dtype = DType::I32).contains("no Integer"));
    assert!(broken(&|_, nest| nest.sweeps[2].stores[0].buffer = 9).contains("does not exist"));
}

/// Every random element-wise expression over two inputs means the same compiled and interpreted.
#[test]
fn random_expressions_agree_with_the_reference() {
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let mut e = Exprs::default();
        let mut nodes = vec![e.load(0, Index::row_major(0, &[6, 21])), e.load(1, Index::var(1)), e.constant(0.75)];
        for _ in 0..12 {
            let mut pick = || nodes[numbers.next() as usize % nodes.len()];
            let [a, b, c] = [pick(), pick(), pick()];
            let node = match numbers.next() % 11 {
                0 => Expr::Binary(Binary::Add, a, b),
                1 => Expr::Binary(Binary::Mul, a, b),
                2 => Expr::Binary(Binary::Max, a, b),
                3 => Expr::Binary(Binary::Sub, a, b),
                4 => Expr::Unary(Unary::Tanh, a),
                5 => Expr::Unary(Unary::Sin, a),
                6 => Expr::Unary(Unary::Erf, a),
                7 => Expr::Select(a, b, c),
                8 => Expr::Unary(Unary::RoundBf16, a),
                9 => Expr::Unary(Unary::RoundTf32, a),
                _ => Expr::Unary(Unary::Neg, a),
            };
            nodes.push(e.add(node));
        }
        let last = *nodes.last().expect("there are nodes");
        let sweeps = vec![sweep(vec![], vec![store(2, Index::row_major(0, &[6, 21]), last)])];
        let sizes = [(6 * 21, Read), (21, Read), (6 * 21, Write)];
        let buffers = sizes.map(|(elements, access)| buffer(DType::F32, elements, access)).to_vec();
        // Rounding to bf16 may fall to the other side after a different f32 rounding.
        check(&kernel("random", buffers, Nest { parallel: vec![6, 21], inner: vec![], exprs: e, sweeps }), 1, 1e-2);
    }
}
