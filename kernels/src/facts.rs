//! What a kernel costs, for roofline tables and totals.

use crate::ir::{Access, AttentionShape, Body, Expr, ExprId, Exprs, Kernel, Nest};

/// Work and traffic of one launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Floating-point operations; a multiplication with an addition counts as two, any other function as one. Masked
    /// scores of attention do not count.
    pub flops: u64,
    /// Bytes that must be read at least once.
    pub bytes_read: u64,
    /// Bytes that must be written at least once.
    pub bytes_written: u64,
}

/// The cost of a verified kernel.
pub fn kernel_facts(kernel: &Kernel) -> Facts {
    let flops = match &kernel.body {
        Body::Nest(nest) => nest_flops(nest),
        Body::Gemm(gemm) => {
            let outputs: u64 = [&gemm.batch[..], &gemm.m, &gemm.n].concat().iter().product();
            let roots: Vec<_> = gemm.stores.iter().map(|store| store.value).collect();
            outputs * (2 * gemm.k.iter().product::<u64>() + operations(&gemm.exprs, &roots))
        }
        // Two products forward; backward five, one of them a recomputation.
        Body::Attention(attention) => 4 * attention.shape.channels * visible_pairs(&attention.shape),
        Body::AttentionBackward(attention) => 10 * attention.shape.channels * visible_pairs(&attention.shape),
        Body::Batch(batch) => batch.parts.iter().map(|part| part.times * kernel_facts(&part.kernel).flops).sum(),
    };
    let bytes = |unused: Access| {
        let used = kernel.buffers.iter().filter(|buffer| buffer.access != unused);
        used.map(|buffer| buffer.elements * buffer.dtype.bytes()).sum()
    };
    Facts { flops, bytes_read: bytes(Access::Write), bytes_written: bytes(Access::Read) }
}

fn nest_flops(nest: &Nest) -> u64 {
    let iterations: u64 = nest.parallel.iter().product();
    let inner: u64 = nest.inner.iter().product();
    let of_sweeps = nest.sweeps.iter().map(|sweep| {
        let reduced = sweep.reductions.iter().map(|reduction| reduction.value);
        let roots: Vec<_> = reduced.chain(sweep.stores.iter().map(|store| store.value)).collect();
        let each = operations(&nest.exprs, &roots) + sweep.reductions.len() as u64;
        each * if sweep.once { 1 } else { inner }
    });
    iterations * of_sweeps.sum::<u64>()
}

/// Float operations in one evaluation of the roots.
fn operations(exprs: &Exprs, roots: &[ExprId]) -> u64 {
    let is_operation = |id: &ExprId| matches!(exprs.get(*id), Expr::Unary(..) | Expr::Binary(..));
    exprs.reachable(roots).iter().filter(|id| is_operation(id)).count() as u64
}

/// (query, key) pairs that the mask lets through, over batch and heads.
fn visible_pairs(shape: &AttentionShape) -> u64 {
    let row = |query: u64| {
        let end = if shape.causal { shape.keys.min(query + 1) } else { shape.keys };
        let begin = shape.window.map_or(0, |window| (query + 1).saturating_sub(window));
        end.saturating_sub(begin)
    };
    shape.batch * shape.heads * (0..shape.queries).map(row).sum::<u64>()
}
