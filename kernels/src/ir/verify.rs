//! The rules of kernels, checked before lowering: whatever passes can be emitted without a fault in MLIR or LLVM, and
//! every address that does not depend on data lies inside its buffer.

use super::{
    Access, Attention, AttentionBackward, AttentionShape, Batch, Binary, Body, DType, Expr, ExprId, Exprs, Gemm,
    Generator, Index, Kernel, Nest, Store, View,
};

/// No array has more elements, no loop nest more iterations.
const MAX_ELEMENTS: u64 = 1 << 40;
/// Loop variables of a kernel (they are kept in bit sets).
const MAX_VARS: usize = 32;
/// Accumulators of a kernel (they are kept in bit sets).
const MAX_ACCUMULATORS: usize = 64;
/// Expressions of a kernel: emission is quadratic in them.
const MAX_EXPRS: usize = 4096;
/// Buffers of a kernel: their addresses take half of the 4 KB that arguments of a launch may have on devices.
pub const MAX_BUFFERS: usize = 256;

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// f32
    Float,
    /// i32
    Integer,
}

type Check<T = ()> = Result<T, String>;

fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(reason()) }
}

impl Kernel {
    /// Checks every rule of [`crate::ir`]; the message names the first that is broken.
    pub fn verify(&self) -> Result<(), String> {
        ensure(self.buffers.len() <= MAX_BUFFERS, || format!("more than {MAX_BUFFERS} buffers"))?;
        for (number, buffer) in self.buffers.iter().enumerate() {
            ensure((1..MAX_ELEMENTS).contains(&buffer.elements), || {
                format!("buffer {number} has {} elements", buffer.elements)
            })?;
        }
        match &self.body {
            Body::Nest(nest) => self.verify_nest(nest),
            Body::Gemm(gemm) => self.verify_gemm(gemm),
            Body::Attention(attention) => self.verify_attention(attention),
            Body::AttentionBackward(attention) => self.verify_backward(attention),
            Body::Batch(batch) => self.verify_batch(batch),
        }
    }

    fn verify_nest(&self, nest: &Nest) -> Check {
        let extents = [nest.parallel.clone(), nest.inner.clone()].concat();
        verify_extents(&extents)?;
        let types = self.types(&nest.exprs, &extents)?;
        let accumulators: usize = nest.sweeps.iter().map(|sweep| sweep.reductions.len()).sum();
        ensure(accumulators <= MAX_ACCUMULATORS, || format!("more than {MAX_ACCUMULATORS} accumulators"))?;
        let mut known = 0;
        for sweep in &nest.sweeps {
            let scope = Scope {
                vars: if sweep.once { 0..nest.parallel.len() } else { 0..extents.len() },
                accumulators: known,
                extents: &extents,
                exprs: &nest.exprs,
                types: &types,
            };
            for reduction in &sweep.reductions {
                scope.check(reduction.value)?;
                scope.check_type(reduction.value, ElementType::Float)?;
            }
            sweep.stores.iter().try_for_each(|store| self.verify_store(store, &scope))?;
            known += sweep.reductions.len();
        }
        Ok(())
    }

    fn verify_batch(&self, batch: &Batch) -> Check {
        for (first, part) in batch.placed() {
            ensure(matches!(part.kernel.body, Body::Nest(_)), || "a batch of other kernels than nests".into())?;
            ensure((1..=MAX_BUFFERS as u64).contains(&part.times), || format!("{} calls of a part", part.times))?;
            part.kernel.verify()?;
            ensure(crate::may_join_a_batch(&part.kernel), || {
                format!("`{}` needs launches of its own", part.kernel.label)
            })?;
            let own = part.kernel.buffers.repeat(part.times as usize);
            let given = self.buffers.get(first..first + own.len());
            ensure(given == Some(&own), || format!("the arguments from {first} on are not those of the part"))?;
        }
        let taken: usize = batch.parts.iter().map(|part| part.kernel.buffers.len() * part.times as usize).sum();
        ensure(taken == self.buffers.len(), || format!("{} arguments for parts that take {taken}", self.buffers.len()))
    }

    fn verify_gemm(&self, gemm: &Gemm) -> Check {
        let (batch, m, n, k) = (gemm.batch.len(), gemm.m.len(), gemm.n.len(), gemm.k.len());
        let extents = [&gemm.batch[..], &gemm.m, &gemm.n, &gemm.k].concat();
        verify_extents(&extents)?;
        let types = self.types(&gemm.exprs, &extents)?;
        let scope =
            Scope { vars: 0..extents.len(), accumulators: 0, extents: &extents, exprs: &gemm.exprs, types: &types };
        for factor in [gemm.lhs, gemm.rhs] {
            scope.check(factor)?;
            scope.check_type(factor, ElementType::Float)?;
        }
        for var in batch + m..batch + m + n {
            ensure(!gemm.exprs.depends_on(gemm.lhs, var as u32), || "lhs depends on a column".into())?;
        }
        for var in batch..batch + m {
            ensure(!gemm.exprs.depends_on(gemm.rhs, var as u32), || "rhs depends on a row".into())?;
        }
        let scope = Scope { vars: 0..extents.len() - k, accumulators: 1, ..scope };
        gemm.stores.iter().try_for_each(|store| self.verify_store(store, &scope))
    }

    fn verify_store(&self, store: &Store, scope: &Scope) -> Check {
        let buffer = self.buffers.get(store.buffer as usize).ok_or("store to a buffer that does not exist")?;
        ensure(buffer.access != Access::Read, || format!("store to the read-only buffer {}", store.buffer))?;
        let in_place = buffer.access == Access::ReadWrite;
        ensure(!store.accumulate || in_place, || "accumulation into a write-only buffer".into())?;
        scope.check(store.value)?;
        scope.check_index(&store.index)?;
        let expected = if buffer.dtype == DType::I32 { ElementType::Integer } else { ElementType::Float };
        scope.check_type(store.value, expected)?;
        verify_bounds(&store.index, buffer.elements, scope.extents, false)
    }

    /// The type of every expression; checks operands, buffers and addresses on the way.
    fn types(&self, exprs: &Exprs, extents: &[u64]) -> Check<Vec<ElementType>> {
        ensure(exprs.len() <= MAX_EXPRS, || format!("more than {MAX_EXPRS} expressions"))?;
        let mut types = Vec::with_capacity(exprs.len());
        for (id, expr) in exprs.iter() {
            exprs.operands(id).iter().try_for_each(|operand| {
                ensure(operand.0 < id.0, || format!("expression {} comes before its operand {}", id.0, operand.0))
            })?;
            let ty = self.type_of(expr, extents, &types)?;
            types.push(ty);
        }
        Ok(types)
    }

    fn type_of(&self, expr: &Expr, extents: &[u64], types: &[ElementType]) -> Check<ElementType> {
        use ElementType::{Float, Integer};
        let of = |id: &ExprId| types[id.0 as usize];
        let is = |id: &ExprId, ty: ElementType| ensure(of(id) == ty, || format!("operand {} is no {ty:?}", id.0));
        match expr {
            Expr::Constant(_) => Ok(Float),
            Expr::Integer(_) => Ok(Integer),
            Expr::Position(index) => verify_index(index, extents.len(), types).map(|()| Integer),
            Expr::Load { buffer, index, guard } => {
                let number = *buffer;
                let buffer = self.buffers.get(number as usize).ok_or(format!("buffer {number} does not exist"))?;
                ensure(buffer.access != Access::Write, || format!("load from the write-only buffer {number}"))?;
                guard.iter().try_for_each(|guard| is(guard, Float))?;
                verify_index(index, extents.len(), types)?;
                verify_bounds(index, buffer.elements, extents, guard.is_some())?;
                Ok(if buffer.dtype == DType::I32 { Integer } else { Float })
            }
            Expr::Unary(_, a) => is(a, Float).map(|()| Float),
            Expr::ToInteger(a) => is(a, Float).map(|()| Integer),
            Expr::ToFloat(a) => is(a, Integer).map(|()| Float),
            Expr::Binary(function, a, b) => {
                is(b, of(a))?;
                binary_type(*function, of(a))
            }
            Expr::Select(condition, a, b) => {
                is(condition, Float)?;
                is(b, of(a)).map(|()| of(a))
            }
            Expr::Random(draw) => {
                let control = self.buffers.get(draw.control as usize).ok_or("no control block")?;
                let elements = match draw.generator {
                    Generator::Philox => 4,
                    Generator::ChaCha20 { word } => {
                        ensure(word < 16, || format!("a block of ChaCha20 has 16 words, not {word}"))?;
                        12
                    }
                };
                let fits =
                    control.dtype == DType::I32 && control.elements >= elements && control.access == Access::Read;
                ensure(fits, || format!("the control block is no read-only i32 buffer of {elements} elements"))?;
                verify_index(&draw.element, extents.len(), types).map(|()| Float)
            }
            Expr::Accumulator(number) => self.accumulator_type(*number),
        }
    }

    fn accumulator_type(&self, number: u32) -> Check<ElementType> {
        match &self.body {
            Body::Nest(nest) => {
                let mut reductions = nest.sweeps.iter().flat_map(|sweep| &sweep.reductions);
                let reduction = reductions.nth(number as usize);
                reduction.map(|r| accumulator_type(r.kind)).ok_or(format!("accumulator {number} does not exist"))
            }
            _ => ensure(number == 0, || "a product has one accumulator".into()).map(|()| ElementType::Float),
        }
    }

    fn verify_attention(&self, attention: &Attention) -> Check {
        let shape = &attention.shape;
        shape.verify()?;
        for (view, keys) in [(&attention.q, false), (&attention.k, true), (&attention.v, true)] {
            self.verify_view(view, shape.dims(keys), Access::Write)?;
        }
        self.verify_view(&attention.o, shape.dims(false), Access::Read)?;
        attention.lse.iter().try_for_each(|lse| self.verify_rows(lse, shape, Access::Read))
    }

    fn verify_backward(&self, attention: &AttentionBackward) -> Check {
        let shape = &attention.shape;
        shape.verify()?;
        let inputs = [(&attention.q, false), (&attention.k, true), (&attention.v, true), (&attention.o, false)];
        for (view, keys) in inputs.into_iter().chain([(&attention.d_o, false)]) {
            self.verify_view(view, shape.dims(keys), Access::Write)?;
        }
        for (view, keys) in [(&attention.d_q, false), (&attention.d_k, true), (&attention.d_v, true)] {
            self.verify_view(view, shape.dims(keys), Access::Read)?;
        }
        self.verify_rows(&attention.lse, shape, Access::Write)?;
        let delta = self.buffers.get(attention.delta as usize).ok_or("delta is no buffer")?;
        let rows = shape.batch * shape.heads * shape.queries;
        let fits = delta.dtype == DType::F32 && delta.access != Access::Read && delta.elements >= rows;
        ensure(fits, || format!("delta is no writable f32 buffer of {rows} elements"))
    }

    /// `forbidden` is the access under which the view is useless.
    fn verify_view(&self, view: &View, dims: [u64; 4], forbidden: Access) -> Check {
        let buffer = self.buffers.get(view.buffer as usize).ok_or("a view of a buffer that does not exist")?;
        ensure(buffer.dtype != DType::I32, || "attention over integers".into())?;
        ensure(buffer.access != forbidden, || format!("buffer {} has the wrong access", view.buffer))?;
        let reach = dims.iter().zip(view.strides).map(|(&dim, stride)| u128::from(dim - 1) * u128::from(stride));
        let last = u128::from(view.offset) + reach.sum::<u128>();
        ensure(last < buffer.elements.into(), || format!("a view reaches element {last} of buffer {}", view.buffer))
    }

    fn verify_rows(&self, lse: &View, shape: &AttentionShape, forbidden: Access) -> Check {
        let [batch, heads, queries, _] = shape.dims(false);
        self.verify_view(lse, [batch, heads, queries, 1], forbidden)?;
        let is_float = self.buffers[lse.buffer as usize].dtype == DType::F32;
        ensure(is_float, || "the log-sum-exp is not kept in f32".into())
    }
}

impl AttentionShape {
    /// Extents of a query-sized or key-sized operand.
    pub(crate) fn dims(&self, keys: bool) -> [u64; 4] {
        match keys {
            true => [self.batch, self.kv_heads, self.keys, self.channels],
            false => [self.batch, self.heads, self.queries, self.channels],
        }
    }

    fn verify(&self) -> Check {
        verify_extents(&self.dims(false))?;
        verify_extents(&self.dims(true))?;
        ensure(self.heads.is_multiple_of(self.kv_heads), || "the key heads do not divide the query heads".into())?;
        ensure(self.window != Some(0), || "an empty window".into())?;
        ensure(self.channels <= 4096, || format!("{} channels per head", self.channels))
    }
}

/// What an expression may refer to.
struct Scope<'a> {
    vars: std::ops::Range<usize>,
    accumulators: usize,
    extents: &'a [u64],
    exprs: &'a Exprs,
    types: &'a [ElementType],
}

impl Scope<'_> {
    fn check(&self, root: ExprId) -> Check {
        ensure((root.0 as usize) < self.exprs.len(), || format!("expression {} does not exist", root.0))?;
        for id in self.exprs.reachable(&[root]) {
            if let Expr::Accumulator(number) = self.exprs.get(id) {
                let known = (*number as usize) < self.accumulators;
                ensure(known, || format!("accumulator {number} is read before it is computed"))?;
            }
        }
        let outside = (self.vars.end..self.extents.len()).find(|&var| self.exprs.depends_on(root, var as u32));
        outside.map_or(Ok(()), |var| Err(format!("loop variable {var} is read outside its loop")))
    }

    fn check_index(&self, index: &Index) -> Check {
        verify_index(index, self.vars.end, self.types)?;
        index.values().into_iter().try_for_each(|id| self.check(id))
    }

    fn check_type(&self, id: ExprId, ty: ElementType) -> Check {
        ensure(self.types[id.0 as usize] == ty, || format!("expression {} is no {ty:?}", id.0))
    }
}

fn verify_extents(extents: &[u64]) -> Check {
    ensure(extents.len() <= MAX_VARS, || format!("more than {MAX_VARS} loops"))?;
    ensure(extents.iter().all(|&extent| extent > 0), || format!("an empty loop in {extents:?}"))?;
    let size = extents.iter().fold(1u64, |size, &extent| size.saturating_mul(extent));
    ensure(size < MAX_ELEMENTS * 1024, || format!("too many iterations: {extents:?}"))
}

fn verify_index(index: &Index, vars: usize, types: &[ElementType]) -> Check {
    match index {
        Index::Constant(value) => ensure(value.unsigned_abs() < MAX_ELEMENTS, || format!("index {value}")),
        Index::Var(var) => ensure((*var as usize) < vars, || format!("loop variable {var} is not in scope")),
        Index::Add(a, b) => verify_index(a, vars, types).and_then(|()| verify_index(b, vars, types)),
        Index::Mul(a, factor) => {
            ensure(factor.unsigned_abs() < MAX_ELEMENTS, || format!("index factor {factor}"))?;
            verify_index(a, vars, types)
        }
        Index::Div(a, divisor) | Index::Mod(a, divisor) => {
            ensure((1..i64::from(i32::MAX)).contains(divisor), || format!("index divisor {divisor}"))?;
            verify_index(a, vars, types)
        }
        Index::Value(id) => {
            let ty = types.get(id.0 as usize).ok_or(format!("expression {} does not exist", id.0))?;
            ensure(*ty == ElementType::Integer, || format!("a gather by expression {}, which is no integer", id.0))
        }
    }
}

/// Checks that an index which does not depend on data stays inside its array.
fn verify_bounds(index: &Index, elements: u64, extents: &[u64], guarded: bool) -> Check {
    if guarded || !index.values().is_empty() {
        return Ok(());
    }
    let (low, high) = index.range(extents);
    ensure(low >= 0 && (high as u64) < elements, || format!("indices {low}..={high} of an array of {elements}"))
}

fn accumulator_type(kind: super::ReduceKind) -> ElementType {
    match kind {
        super::ReduceKind::Sum | super::ReduceKind::Max => ElementType::Float,
        super::ReduceKind::ArgMax => ElementType::Integer,
    }
}

fn binary_type(function: Binary, operands: ElementType) -> Check<ElementType> {
    use Binary::*;
    match function {
        Less | LessEqual | Equal => Ok(ElementType::Float),
        Add | Sub | Mul | Max | Min => Ok(operands),
        Div | Pow => {
            ensure(operands == ElementType::Float, || format!("{function:?} of integers")).map(|()| ElementType::Float)
        }
    }
}
