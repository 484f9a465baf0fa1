//! Tensor cores and the instructions that feed them (PTX ISA 8.0, sections 9.7.13 and 9.7.8).

use crate::emit::builder::{Builder, Elem, Type, Value};

const I32: Type = Type::scalar(Elem::I32);
const F32: Type = Type::scalar(Elem::F32);

/// How a matrix of bf16 lies in shared memory, seen from the fragment that is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Rows of the fragment are rows in memory.
    Straight,
    /// Rows of the fragment are columns in memory.
    Transposed,
}

impl Builder {
    /// Four 8 x 8 matrices of bf16; lane i gives the address of row i mod 8 of matrix i / 8. Each lane receives two
    /// elements of each: `ldmatrix.x4`.
    pub fn load_matrices(&mut self, row: Value, order: Order) -> [Value; 4] {
        let layout = if order == Order::Straight { "row" } else { "col" };
        let loaded = self.define(
            I32,
            format_args!(
                "nvvm.ldmatrix {row} {{num = 4 : i32, layout = #nvvm.mma_layout<{layout}>, \
                 shape = #nvvm.ld_st_matrix_shape<m = 8, n = 8>, eltType = #nvvm.ld_st_matrix_elt_type<b16>}} : \
                 (!llvm.ptr<3>) -> !llvm.struct<(i32, i32, i32, i32)>"
            ),
        );
        [0, 1, 2, 3].map(|part| {
            self.define(I32, format_args!("llvm.extractvalue {loaded}[{part}] : !llvm.struct<(i32, i32, i32, i32)>"))
        })
    }

    /// `a · b + c` for 16 x 16 times 16 x 8 elements of bf16, sums in f32: `mma.m16n8k16`.
    pub fn multiply_matrices(&mut self, a: [Value; 4], b: [Value; 2], c: [Value; 4]) -> [Value; 4] {
        self.multiply_fragments("bf16", 16, a, b, c)
    }

    /// `a · b + c` for 16 x 8 times 8 x 8 elements of tf32, sums in f32: `mma.m16n8k8`.
    pub fn multiply_tf32_matrices(&mut self, a: [Value; 4], b: [Value; 2], c: [Value; 4]) -> [Value; 4] {
        self.multiply_fragments("tf32", 8, a, b, c)
    }

    /// Sums of 16 x 8; `a` and `b` hold 16 and 8 times `depth` elements.
    fn multiply_fragments(
        &mut self,
        elem: &str,
        depth: u64,
        a: [Value; 4],
        b: [Value; 2],
        c: [Value; 4],
    ) -> [Value; 4] {
        let [a0, a1, a2, a3] = a;
        let ([b0, b1], [c0, c1, c2, c3]) = (b, c);
        let sums = self.define(
            F32,
            format_args!(
                "nvvm.mma.sync A[{a0}, {a1}, {a2}, {a3}] B[{b0}, {b1}] C[{c0}, {c1}, {c2}, {c3}] \
                 {{layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>, \
                 multiplicandAPtxType = #nvvm.mma_type<{elem}>, multiplicandBPtxType = #nvvm.mma_type<{elem}>, \
                 shape = #nvvm.shape<m = 16, n = 8, k = {depth}>}} : (i32, i32, f32) -> !llvm.struct<(f32, f32, f32, f32)>"
            ),
        );
        [0, 1, 2, 3].map(|part| {
            self.define(F32, format_args!("llvm.extractvalue {sums}[{part}] : !llvm.struct<(f32, f32, f32, f32)>"))
        })
    }

    /// The bits of an f32 rounded to tf32, ties away from zero.
    pub fn fragment_tf32(&mut self, value: Value) -> Value {
        self.define(I32, format_args!("llvm.inline_asm \"cvt.rna.tf32.f32 $0, $1;\", \"=r,f\" {value} : (f32) -> i32"))
    }

    /// Two f32 rounded to bf16, nearest even; the first in the low half.
    pub fn pack_bf16(&mut self, low: Value, high: Value) -> Value {
        self.define(
            I32,
            format_args!(
                "llvm.inline_asm \"cvt.rn.bf16x2.f32 $0, $1, $2;\", \"=r,f,f\" {high}, {low} : (f32, f32) -> i32"
            ),
        )
    }

    /// Starts copying 16 bytes from an array to shared memory, zeros if not `exists`.
    pub fn copy_async(&mut self, to: Value, from: Value, exists: Option<Value>) {
        let from = self.define(Type::POINTER, format_args!("llvm.addrspacecast {from} : !llvm.ptr to !llvm.ptr<1>"));
        match exists {
            None => self.effect(format_args!(
                "nvvm.cp.async.shared.global {to}, {from}, 16, cache = cg : !llvm.ptr<3>, !llvm.ptr<1>"
            )),
            Some(exists) => {
                let (all, none) = (self.int(1, 16), self.int(1, 0));
                let bytes = self.select(exists, all, none);
                self.effect(format_args!(
                    "nvvm.cp.async.shared.global {to}, {from}, 16, cache = cg, {bytes} : !llvm.ptr<3>, !llvm.ptr<1>, i32"
                ));
            }
        }
    }

    /// Closes a group of copies.
    pub fn commit_copies(&mut self) {
        self.effect(format_args!("nvvm.cp.async.commit.group"));
    }

    /// Waits until at most `pending` groups of copies of this thread are not finished.
    pub fn await_copies(&mut self, pending: u64) {
        self.effect(format_args!("nvvm.cp.async.wait.group {pending}"));
    }
}
