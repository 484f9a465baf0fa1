//! Kernels as data: loops, scalar expressions over loop variables, and where results go.
//!
//! One vocabulary serves all targets. A kernel owns a list of [`Buffer`]s (its launch arguments, in order, contiguous
//! and 64-byte aligned) and a [`Body`]. Everything element-wise is an [`Expr`] over loop variables, so that whatever the
//! scheduler fuses (prologues, epilogues, norms, optimizers) is said in the same words.

mod batch;
mod expr;
mod index;
mod merge;
mod ops;
mod verify;

pub use batch::{Batch, Part};
pub use expr::{Draw, Expr, ExprId, Exprs, Generator};
pub use index::Index;
pub(crate) use merge::Loops;
pub use ops::{Binary, Unary, round_bf16};
pub use verify::{ElementType, MAX_BUFFERS};

use serde::{Deserialize, Serialize};
pub use trainc_runtime::artifact::DType;

/// A kernel: the unit of code generation and of launching. Two equal kernels are compiled once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kernel {
    /// For people, e.g. `matmul + bias + gelu`.
    pub label: String,
    /// The launch arguments.
    pub buffers: Vec<Buffer>,
    /// What is computed.
    pub body: Body,
}

/// One launch argument: a contiguous array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Buffer {
    /// Storage type. Loads widen bf16 to f32, stores round to it.
    pub dtype: DType,
    /// Number of elements.
    pub elements: u64,
    /// How the kernel uses it. A `ReadWrite` buffer is updated in place.
    pub access: Access,
}

/// How a kernel uses a buffer. What a launch writes overlaps nothing else that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Only loaded.
    Read,
    /// Only stored (every element that a later launch reads).
    Write,
    /// Loaded and stored; an element is loaded only by the iteration that stores it.
    ReadWrite,
}

/// The shapes of computation that a kernel can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Element-wise work and reductions.
    Nest(Nest),
    /// Matrix products.
    Gemm(Gemm),
    /// Attention forward without the T x S matrix.
    Attention(Attention),
    /// Attention backward without the T x S matrix.
    AttentionBackward(AttentionBackward),
    /// Several nests that do not need each other.
    Batch(Batch),
}

/// A loop nest. Loop variables are numbered from the outside in: first the `parallel` ones, then the `inner` ones.
///
/// The flattened parallel domain is cut into tiles; one iteration of it runs all sweeps in order. Without `parallel`
/// dims there is one iteration. Emission picks the variable to vectorise (the last inner or the last parallel one) from
/// the strides of the accesses; the order in which a reduction adds is fixed by the kernel and the instruction set alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nest {
    /// Extents of the parallel loops, outer first.
    pub parallel: Vec<u64>,
    /// Extents of the inner loops, outer first. Empty for purely element-wise kernels.
    pub inner: Vec<u64>,
    /// Expressions of all sweeps.
    pub exprs: Exprs,
    /// Passes over the inner domain, in order.
    pub sweeps: Vec<Sweep>,
}

/// One pass over the inner domain for a fixed parallel iteration, or (with `once`) a single evaluation after the passes
/// before it, for values that do not depend on inner variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sweep {
    /// Evaluate once per parallel iteration instead of looping over the inner domain.
    pub once: bool,
    /// Accumulators that this sweep computes, read by later sweeps as [`Expr::Accumulator`].
    pub reductions: Vec<Reduction>,
    /// What it stores.
    pub stores: Vec<Store>,
}

/// An accumulator of a [`Sweep`]. Numbered by position over all sweeps of the nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reduction {
    /// How values combine.
    pub kind: ReduceKind,
    /// The value of one inner iteration.
    pub value: ExprId,
}

/// How a reduction combines values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReduceKind {
    /// Sum in f32, from 0; long ones are added in pieces, with the errors of these additions.
    Sum,
    /// Maximum, from -infinity. NaN if any value is NaN.
    Max,
    /// Flattened position over the inner domain (row-major, i32) of the first maximum.
    ArgMax,
}

/// A write of one element per iteration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Store {
    /// Which buffer.
    pub buffer: u32,
    /// Which element.
    pub index: Index,
    /// What.
    pub value: ExprId,
    /// Add to what is there (`ReadWrite` buffers) instead of replacing it. The index may then collide between inner
    /// iterations (a scatter), which are executed in order, or have the values of colliding iterations summed in order before
    /// they are added; never between parallel ones.
    pub accumulate: bool,
}

/// A batched matrix product: for each (batch, m, n), accumulator 0 = sum over k of `lhs * rhs`, then the stores.
///
/// Loop variables are numbered through `batch`, `m`, `n`, `k` in this order. `lhs` depends on batch, m, k; `rhs` on
/// batch, n, k; the stores on batch, m, n and [`Expr::Accumulator`]`(0)`. Each of the four may have any number of dims,
/// zero included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gemm {
    /// Extents of the batch dims.
    pub batch: Vec<u64>,
    /// Extents of the row dims.
    pub m: Vec<u64>,
    /// Extents of the column dims.
    pub n: Vec<u64>,
    /// Extents of the contracted dims.
    pub k: Vec<u64>,
    /// Expressions of prologue and epilogue.
    pub exprs: Exprs,
    /// Left factor, usually a load.
    pub lhs: ExprId,
    /// Right factor, usually a load.
    pub rhs: ExprId,
    /// What the factors are rounded to before they are multiplied. The accumulator is f32.
    pub precision: Precision,
    /// The epilogue.
    pub stores: Vec<Store>,
}

/// Rounding of the factors of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are.
    F32,
    /// To tf32: ten bits of mantissa, nearest, ties away from zero (PTX `cvt.rna.tf32.f32`).
    Tf32,
    /// To bfloat16, nearest even.
    Bf16,
}

impl Precision {
    /// The operation that rounds a factor, if it is not taken as it is.
    pub fn rounding(self) -> Option<Unary> {
        match self {
            Precision::F32 => None,
            Precision::Tf32 => Some(Unary::RoundTf32),
            Precision::Bf16 => Some(Unary::RoundBf16),
        }
    }

    /// A factor, as it is multiplied.
    pub fn round(self, factor: f64) -> f64 {
        self.rounding().map_or(factor, |rounding| rounding.apply(factor))
    }
}

/// Where the elements of a 4-d operand of attention lie: `offset + b*s[0] + h*s[1] + t*s[2] + e*s[3]`, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Which buffer.
    pub buffer: u32,
    /// Element of index (0, 0, 0, 0).
    pub offset: u64,
    /// Strides of batch, head, position, channel.
    pub strides: [u64; 4],
}

/// The sizes and the mask that forward and backward share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionShape {
    /// Batch.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; divides `heads`. Query head h reads key head `h / (heads / kv_heads)`.
    pub kv_heads: u64,
    /// Query positions T.
    pub queries: u64,
    /// Key positions S.
    pub keys: u64,
    /// Channels per head.
    pub channels: u64,
    /// Query t sees key s only if s <= t.
    pub causal: bool,
    /// Query t sees key s only if t - s < window.
    pub window: Option<u64>,
    /// Factor on the scores, as f32 bits.
    pub scale_bits: u32,
    /// Rounding of the factors of each of the products: weights (before they are divided by their sum) and the gradients
    /// of scores among them.
    pub precision: Precision,
}

/// `o = softmax(scale * q k^T + mask) v` with the log-sum-exp of each row saved for backward
/// (Dao et al., FlashAttention, 2022; FlashAttention-2, 2023). A row that sees no key gives 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attention {
    /// Sizes and mask.
    pub shape: AttentionShape,
    /// Queries `[batch, heads, queries, channels]`.
    pub q: View,
    /// Keys `[batch, kv_heads, keys, channels]`.
    pub k: View,
    /// Values, as keys.
    pub v: View,
    /// Result, as queries.
    pub o: View,
    /// Log-sum-exp of the scaled scores `[batch, heads, queries]` (last stride unused). `None` if not wanted.
    pub lse: Option<View>,
}

/// Gradients of [`Attention`]: given `do`, writes `dq`, `dk`, `dv`. Key heads sum over their query heads in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionBackward {
    /// Sizes and mask.
    pub shape: AttentionShape,
    /// As in forward.
    pub q: View,
    /// As in forward.
    pub k: View,
    /// As in forward.
    pub v: View,
    /// The forward result.
    pub o: View,
    /// The saved log-sum-exp.
    pub lse: View,
    /// Gradient of the result.
    pub d_o: View,
    /// Gradient of the queries.
    pub d_q: View,
    /// Gradient of the keys.
    pub d_k: View,
    /// Gradient of the values.
    pub d_v: View,
    /// f32 buffer of `batch * heads * queries` elements for the row sums of `do * o`.
    pub delta: u32,
}
