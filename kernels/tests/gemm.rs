//! Matrix products against the reference interpreter: every layout, odd sizes, fused work on both sides, types.

#[path = "gemm/long_contractions.rs"]
mod long_contractions;
mod support;

use proptest::prelude::*;
use support::{buffer, check};
use trainc_kernels::ir::{
    Access::{Read, ReadWrite, Write},
    Binary, Body, DType, Expr, Exprs, Gemm, Index, Kernel, Precision, Store, Unary,
};
use trainc_runtime::artifact::Isa;

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    RowMajor,
    ColumnMajor,
}

const LAYOUTS: [Layout; 2] = [Layout::RowMajor, Layout::ColumnMajor];

/// Position of (batch, row, column) with these loop variables in an array of `rows x columns` matrices.
fn place(layout: Layout, [batch, row, column]: [u32; 3], rows: u64, columns: u64) -> Index {
    let (row_stride, column_stride) = match layout {
        Layout::RowMajor => (columns, 1),
        Layout::ColumnMajor => (1, rows),
    };
    Index::linear([(batch, (rows * columns) as i64), (row, row_stride as i64), (column, column_stride as i64)])
}

struct Product {
    sizes: [u64; 4],
    layouts: [Layout; 3],
    dtypes: [DType; 3],
    precision: Precision,
    /// Bias and GELU-like work in the epilogue, a square in the prologue.
    fused: bool,
    accumulate: bool,
}

impl Product {
    fn plain(sizes: [u64; 4], layouts: [Layout; 3]) -> Product {
        let dtypes = [DType::F32; 3];
        Product { sizes, layouts, dtypes, precision: Precision::F32, fused: false, accumulate: false }
    }

    fn kernel(&self) -> Kernel {
        let [batch, m, n, k] = self.sizes;
        let mut e = Exprs::default();
        let mut lhs = e.load(0, place(self.layouts[0], [0, 1, 3], m, k));
        let rhs = e.load(1, place(self.layouts[1], [0, 3, 2], k, n));
        let mut value = e.add(Expr::Accumulator(0));
        if self.fused {
            lhs = e.add(Expr::Binary(Binary::Mul, lhs, lhs));
            let bias = e.load(3, Index::var(2));
            let row = e.load(4, Index::var(1));
            let sum = e.add(Expr::Binary(Binary::Add, value, bias));
            let curve = e.add(Expr::Unary(Unary::Tanh, sum));
            value = e.add(Expr::Binary(Binary::Mul, curve, row));
        }
        let index = place(self.layouts[2], [0, 1, 2], m, n);
        let stores = vec![Store { buffer: 2, index, value, accumulate: self.accumulate }];
        let access = if self.accumulate { ReadWrite } else { Write };
        let buffers = vec![
            buffer(self.dtypes[0], batch * m * k, Read),
            buffer(self.dtypes[1], batch * k * n, Read),
            buffer(self.dtypes[2], batch * m * n, access),
            buffer(DType::F32, n, Read),
            buffer(DType::F32, m, Read),
        ];
        let (batch, m, n, k) = (vec![batch], vec![m], vec![n], vec![k]);
        let body = Body::Gemm(Gemm { batch, m, n, k, exprs: e, lhs, rhs, precision: self.precision, stores });
        Kernel { label: format!("product {:?} {:?} {:?}", self.sizes, self.layouts, self.dtypes), buffers, body }
    }
}

#[test]
fn products_agree_in_every_layout_and_blocking() {
    let sizes = [
        [1, 1, 1, 1],
        [1, 7, 5, 3],
        [1, 6, 16, 8],
        [1, 65, 33, 17],
        [3, 13, 31, 300],
        [1, 150, 70, 9],
        [1, 10, 1000, 20],
        [17, 20, 24, 16],
        [1, 26, 530, 270],
    ];
    for sizes in sizes {
        for choice in 0..8 {
            let layouts = [0, 1, 2].map(|operand| LAYOUTS[choice >> operand & 1]);
            let large = sizes.iter().product::<u64>() > 1_000_000;
            if !large || choice == 5 {
                check(&Product::plain(sizes, layouts).kernel(), 1, 1e-5);
            }
        }
    }
}

/// Rows cut and columns cut, with several blocks of the contraction.
#[test]
fn caches_change_no_bit_of_a_product() {
    for precision in [Precision::F32, Precision::Bf16] {
        for sizes in [[1, 531, 250, 530], [1, 130, 490, 1050]] {
            let layouts = [Layout::ColumnMajor, Layout::RowMajor, Layout::RowMajor];
            support::check_caches(&Product { precision, ..Product::plain(sizes, layouts) }.kernel(), 1e-5);
        }
    }
}

/// Steps of two: odd contractions, whole and partial vectors of pairs, several blocks of the contraction.
#[test]
fn products_of_bf16_agree_in_every_layout_and_blocking() {
    for sizes in [[1, 1, 1, 1], [1, 13, 5, 31], [1, 65, 33, 32], [3, 13, 31, 617], [1, 26, 530, 1101], [1, 150, 70, 48]]
    {
        for choice in 0..8 {
            let layouts = [0, 1, 2].map(|operand| LAYOUTS[choice >> operand & 1]);
            let product = Product { precision: Precision::Bf16, ..Product::plain(sizes, layouts) };
            check(&product.kernel(), 1, 1e-5);
        }
    }
}

/// Fragments along either axis, ragged tiles, contractions that are no multiple of a fragment's depth.
#[test]
fn products_of_tf32_agree_in_every_layout_and_blocking() {
    for sizes in [[1, 13, 5, 31], [3, 13, 31, 117], [1, 150, 72, 48]] {
        for choice in 0..8 {
            let layouts = [0, 1, 2].map(|operand| LAYOUTS[choice >> operand & 1]);
            let product = Product { precision: Precision::Tf32, ..Product::plain(sizes, layouts) };
            check(&product.kernel(), 1, 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_products_agree(
        sizes in [1u64..4, 1u64..60, 1u64..60, 1u64..60],
        choice in 0usize..8,
        types in 0usize..8,
        precision in prop_oneof![Just(Precision::F32), Just(Precision::Tf32), Just(Precision::Bf16)],
        accumulate in any::<bool>(),
    ) {
        let layouts = [0, 1, 2].map(|operand| LAYOUTS[choice >> operand & 1]);
        let dtypes = [0, 1, 2].map(|operand| if types >> operand & 1 == 1 { DType::Bf16 } else { DType::F32 });
        // Squaring in f32 before rounding further may fall to the other side of a tie.
        let tolerance = match precision {
            Precision::F32 => 1e-5,
            Precision::Tf32 => 1e-3,
            Precision::Bf16 => 1e-2,
        };
        check(&Product { sizes, layouts, dtypes, precision, fused: true, accumulate }.kernel(), 1, tolerance);
    }
}

/// `qkv[c, b, h, t, e] = Σ_d x[b, t, d] w[c, h, e, d]`: several dims on every side, none of which merge in the result.
fn split_heads([c, b, h, t, e, d]: [u64; 6]) -> Kernel {
    let mut exprs = Exprs::default();
    // batch: none; m = (b, t) = 0, 1; n = (c, h, e) = 2, 3, 4; k = d = 5.
    let lhs = exprs.load(0, Index::linear([(0, (t * d) as i64), (1, d as i64), (5, 1)]));
    let rhs = exprs.load(1, Index::linear([(2, (h * e * d) as i64), (3, (e * d) as i64), (4, d as i64), (5, 1)]));
    let strides = [(2, b * h * t * e), (0, h * t * e), (3, t * e), (1, e), (4, 1)];
    let index = Index::linear(strides.map(|(var, stride)| (var, stride as i64)));
    let value = exprs.add(Expr::Accumulator(0));
    let stores = vec![Store { buffer: 2, index, value, accumulate: false }];
    let sizes = [(b * t * d, Read), (c * h * e * d, Read), (c * b * h * t * e, Write)];
    let buffers = sizes.map(|(elements, access)| buffer(DType::F32, elements, access)).to_vec();
    let (m, n) = (vec![b, t], vec![c, h, e]);
    let precision = Precision::F32;
    let body = Body::Gemm(Gemm { batch: vec![], m, n, k: vec![d], exprs, lhs, rhs, precision, stores });
    Kernel { label: "split heads".into(), buffers, body }
}

/// `y[b, t, d] = Σ_(h, e) x[b, h, t, e] w[d, h, e]`: a contraction over two dims that do not merge.
fn join_heads([b, h, t, e, d]: [u64; 5]) -> Kernel {
    let mut exprs = Exprs::default();
    // m = (b, t) = 0, 1; n = d = 2; k = (h, e) = 3, 4.
    let lhs = exprs.load(0, Index::linear([(0, (h * t * e) as i64), (3, (t * e) as i64), (1, e as i64), (4, 1)]));
    let rhs = exprs.load(1, Index::linear([(2, (h * e) as i64), (3, e as i64), (4, 1)]));
    let index = Index::linear([(0, (t * d) as i64), (1, d as i64), (2, 1)]);
    let value = exprs.add(Expr::Accumulator(0));
    let stores = vec![Store { buffer: 2, index, value, accumulate: false }];
    let sizes = [(b * h * t * e, Read), (d * h * e, Read), (b * t * d, Write)];
    let buffers = sizes.map(|(elements, access)| buffer(DType::F32, elements, access)).to_vec();
    let precision = Precision::F32;
    let body = Body::Gemm(Gemm {
        batch: vec![],
        m: vec![b, t],
        n: vec![d],
        k: vec![h, e],
        exprs,
        lhs,
        rhs,
        precision,
        stores,
    });
    Kernel { label: "join heads".into(), buffers, body }
}

#[test]
fn contractions_over_several_dims_agree() {
    for sizes in [[3, 2, 2, 5, 16, 24], [3, 2, 3, 7, 5, 9], [1, 1, 2, 3, 40, 8]] {
        check(&split_heads(sizes), 1, 1e-5);
    }
    for sizes in [[2, 2, 5, 16, 24], [2, 3, 7, 5, 9], [1, 2, 30, 8, 40]] {
        check(&join_heads(sizes), 1, 1e-5);
    }
}

/// A sum over everything is a product without rows and columns.
#[test]
fn products_without_some_sides_agree() {
    for (batch, m, n, k) in [(2, 0, 0, 9), (0, 9, 0, 5), (0, 0, 9, 5), (0, 4, 5, 0), (0, 0, 0, 40)] {
        let dims = |size: u64| if size == 0 { vec![] } else { vec![size] };
        let (b, m, n, k) = (dims(batch), dims(m), dims(n), dims(k));
        let mut e = Exprs::default();
        let first = [0, b.len(), b.len() + m.len(), b.len() + m.len() + n.len()].map(|var| var as u32);
        let size = |dims: &[u64]| dims.iter().product::<u64>();
        let at = |dims: [(&[u64], u32); 3]| {
            let mut stride = 1;
            let mut terms = Vec::new();
            for (dims, var) in dims.into_iter().rev().filter(|(dims, _)| !dims.is_empty()) {
                terms.push((var, stride));
                stride *= dims[0] as i64;
            }
            Index::linear(terms)
        };
        let lhs = e.load(0, at([(&b, first[0]), (&m, first[1]), (&k, first[3])]));
        let rhs = e.load(1, at([(&b, first[0]), (&n, first[2]), (&k, first[3])]));
        let value = e.add(Expr::Accumulator(0));
        let index = at([(&b, first[0]), (&m, first[1]), (&n, first[2])]);
        let stores = vec![Store { buffer: 2, index, value, accumulate: false }];
        let buffers = vec![
            buffer(DType::F32, size(&b) * size(&m) * size(&k), Read),
            buffer(DType::F32, size(&b) * size(&n) * size(&k), Read),
            buffer(DType::F32, size(&b) * size(&m) * size(&n), Write),
        ];
        let label = format!("{b:?} {m:?} {n:?} {k:?}");
        let body = Body::Gemm(Gemm { batch: b, m, n, k, exprs: e, lhs, rhs, precision: Precision::F32, stores });
        check(&Kernel { label, buffers, body }, 1, 1e-5);
    }
}

/// The inner loop keeps its sums in registers: on every instruction set it multiplies vectors and spills none.
#[test]
fn the_microkernel_runs_in_registers() {
    let kernel = Product::plain([1, 192, 192, 192], [Layout::RowMajor; 3]).kernel();
    let rounded = Product { precision: Precision::Bf16, ..Product::plain([1, 192, 192, 192], [Layout::RowMajor; 3]) };
    let rounded = rounded.kernel();
    for (kernel, isa, symbol, instruction, register, multiplies) in [
        (&kernel, Isa::X86V3, "multiply_6:", "vfmadd", "ymm", 12),
        (&kernel, Isa::X86V4, "multiply_12:", "vfmadd", "zmm", 24),
        (&rounded, Isa::X86V4, "multiply_12:", "vfmadd", "zmm", 24),
        (&rounded, Isa::X86V4Bf16, "multiply_bf16_12:", "vdpbf16ps", "zmm", 24),
    ] {
        let text = support::assembly(kernel, isa);
        let body = text.split(symbol).nth(1).expect("there is a microkernel");
        let body = body.split(".Lfunc_end").next().expect("the function ends");
        let count = body.lines().filter(|line| line.contains(instruction) && line.contains(register)).count();
        assert!(count >= 4 * multiplies, "{isa:?}: {count} vector multiplies\n{body}");
        let spills = body.lines().filter(|line| line.contains(register) && line.contains("(%rsp)")).count();
        assert_eq!(spills, 0, "{isa:?} spills\n{body}");
    }
}

/// Sizes at which device code takes its large tiles: too much for the reference, so the processor's code is the measure.
#[test]
fn large_products_agree_between_the_targets() {
    for (precision, tolerance) in [(Precision::F32, 0.0), (Precision::Tf32, 1e-5), (Precision::Bf16, 1e-5)] {
        for layouts in LAYOUTS.into_iter().flat_map(|left| LAYOUTS.map(|right| [left, right, Layout::RowMajor])) {
            // A hundred tiles of 128 x 128, ragged where the first factor runs along its rows.
            let sizes = if layouts[0] == Layout::RowMajor { [25, 132, 260, 20] } else { [25, 256, 252, 12] };
            let kernel = Product { precision, ..Product::plain(sizes, layouts) }.kernel();
            support::check_targets(&kernel, tolerance);
        }
    }
}
