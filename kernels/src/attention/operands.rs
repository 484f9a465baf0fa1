//! What kernels of attention read and write, whatever they are lowered to: views as expressions over loop variables.

use crate::{
    emit::point::Emitter,
    ir::{Attention, Buffer, DType, Expr, ExprId, Exprs, Index, Precision, Store, View},
};

/// Loop variables of the views: batch, head, position, channel.
pub(crate) const VARS: usize = 4;
/// The third of them.
pub(crate) const POSITION: u32 = 2;
/// The last of them.
pub(crate) const CHANNEL: u32 = 3;

/// The loads and stores of a kernel's views, as expressions over (batch, head, position, channel).
pub(crate) struct Operands {
    /// All of them.
    pub exprs: Exprs,
    /// What a kernel has summed up.
    pub accumulator: ExprId,
}

impl Operands {
    /// None yet.
    pub fn new() -> Operands {
        let mut exprs = Exprs::default();
        let accumulator = exprs.add(Expr::Accumulator(0));
        Operands { exprs, accumulator }
    }

    /// What a view holds.
    pub fn load(&mut self, view: &View) -> ExprId {
        self.exprs.load(view.buffer, place(view))
    }

    /// What a view holds, rounded as a factor of a product is.
    pub fn factor(&mut self, view: &View, precision: Precision, buffers: &[Buffer]) -> ExprId {
        let value = self.load(view);
        let exact = buffers[view.buffer as usize].dtype == DType::Bf16;
        if exact { value } else { self.exprs.rounded(value, precision) }
    }

    /// The accumulated value goes to where a view says.
    pub fn store(&self, view: &View) -> Store {
        Store { buffer: view.buffer, index: place(view), value: self.accumulator, accumulate: false }
    }
}

/// What forward reads and writes; `F` is how it reads the factors of products.
pub(crate) struct Forward<F> {
    pub q: F,
    pub k: F,
    pub v: F,
    pub o: Store,
    pub lse: Option<Store>,
}

impl<F> Forward<F> {
    /// Of a kernel whose factors are read as `factor` says.
    pub fn new(operands: &mut Operands, attention: &Attention, factor: impl Fn(ExprId, &View) -> F) -> Self {
        let [q, k, v] = [&attention.q, &attention.k, &attention.v].map(|view| factor(operands.load(view), view));
        let lse = attention.lse.as_ref().map(|lse| operands.store(&row_view(lse)));
        Forward { q, k, v, o: operands.store(&attention.o), lse }
    }
}

/// Whether what a load reads is stored as bf16: it needs no rounding then.
pub(crate) fn is_bf16(e: &Emitter, load: ExprId) -> bool {
    matches!(e.exprs.get(load), Expr::Load { buffer, .. } if e.dtype(*buffer) == DType::Bf16)
}

/// Where an element of a view lies in its buffer.
pub(crate) fn place(view: &View) -> Index {
    let strides = view.strides.iter().enumerate().map(|(var, &stride)| (var as u32, stride as i64));
    Index::linear(strides).add(Index::constant(view.offset as i64))
}

/// A row of a per-query quantity: the channel does not count.
pub(crate) fn row_view(view: &View) -> View {
    let [batch, head, position, _] = view.strides;
    View { strides: [batch, head, position, 0], ..*view }
}
