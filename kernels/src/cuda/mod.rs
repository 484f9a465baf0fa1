//! The second target: kernels as PTX for NVIDIA devices.
//!
//! The kernel description is the one that the processor's lowering takes, and expressions go through the same
//! [`crate::emit`]: a thread is a lane. What differs is how work is spread. A stage is one launch of a grid of thread
//! blocks; its entry takes the address of each buffer and the number of the instance. Nothing is linked: no device
//! library, no toolkit; NVIDIA's driver translates the PTX when it is loaded.

mod attention;
mod batch;
mod gemm;
mod matrix;
mod nest;
mod simt;

pub(crate) use nest::is_turned;

use crate::{
    backend::CodegenError,
    emit::{
        builder::{Block, Builder, Type, Value},
        point::Point,
    },
    ir::{Body, Kernel, Precision},
};
use trainc_runtime::artifact::{BlockSpec, StageSpec};

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct DeviceStage {
    pub symbol: String,
    pub blocks: u64,
    pub threads: u32,
    pub shared_bytes: u32,
}

impl DeviceStage {
    pub fn spec(self) -> StageSpec {
        let block = BlockSpec { threads: self.threads, shared_bytes: self.shared_bytes };
        StageSpec { symbol: self.symbol, tiles: self.blocks, block: Some(block) }
    }
}

/// Bytes of workspace that a kernel needs on a device.
pub(crate) fn workspace_bytes(kernel: &Kernel) -> u64 {
    match &kernel.body {
        Body::Nest(nest) => nest::workspace_bytes(kernel, nest),
        Body::Gemm(_) | Body::Attention(_) | Body::AttentionBackward(_) | Body::Batch(_) => 0,
    }
}

/// What the factors are rounded to that a kernel multiplies on tensor cores; `None` if it has none there.
pub fn tensor_precision(kernel: &Kernel) -> Option<Precision> {
    let of_attention = |shape| attention::tensor::takes(shape).then_some(shape.precision);
    match &kernel.body {
        Body::Nest(_) | Body::Batch(_) => None,
        Body::Gemm(product) => Some(product.precision).filter(|&precision| precision != Precision::F32),
        Body::Attention(attention) => of_attention(&attention.shape),
        Body::AttentionBackward(attention) => of_attention(&attention.shape),
    }
}

/// The MLIR of kernels, which have numbers that their symbols begin with.
pub(crate) fn lower<'a>(kernels: impl IntoIterator<Item = (usize, &'a Kernel)>) -> (String, Vec<Vec<DeviceStage>>) {
    let mut b = Builder::default();
    b.declare_shared();
    let stages = kernels.into_iter().map(|(number, kernel)| {
        let name = format!("k{number}");
        match &kernel.body {
            Body::Nest(nest) => nest::lower(&mut b, kernel, nest, &name),
            Body::Gemm(product) => gemm::lower(&mut b, kernel, product, &name),
            Body::Attention(forward) => attention::lower_forward(&mut b, kernel, forward, &name),
            Body::AttentionBackward(backward) => attention::lower_backward(&mut b, kernel, backward, &name),
            Body::Batch(nests) => vec![batch::lower(&mut b, nests, &name)],
        }
    });
    let stages = stages.collect();
    (b.finish(), stages)
}

/// Checks that PTX needs no function that it does not define.
///
/// # Errors
/// [`CodegenError::Llvm`] with the first such function.
pub(crate) fn verify_linked(ptx: &[u8]) -> Result<(), CodegenError> {
    match String::from_utf8_lossy(ptx).lines().find(|line| line.contains(".extern .func")) {
        Some(line) => Err(CodegenError::Llvm(format!("the PTX has an unresolved reference: {}", line.trim()))),
        None => Ok(()),
    }
}

/// Emits an entry; the body gets the addresses of the buffers and the instance (i64).
fn entry(
    b: &mut Builder,
    symbol: &str,
    block: Block,
    buffers: usize,
    emit: impl FnOnce(&mut Builder, Vec<Value>, Value),
) {
    let types = [vec![Type::POINTER; buffers], vec![Type::I64]].concat();
    b.kernel(symbol, block, &types, |b, values| emit(b, values[..buffers].to_vec(), values[buffers]));
}

/// The point with the variables of some dims, numbered from `first`, fixed by the flattened position.
fn decode(b: &mut Builder, point: &Point, first: u32, dims: &[u64], position: Value) -> Point {
    let (mut point, mut rest) = (point.clone(), position);
    for (axis, &dim) in dims.iter().enumerate().rev() {
        let (place, outer) = if axis == 0 { (rest, rest) } else { b.split(rest, dim) };
        point = point.at(first + axis as u32, place);
        rest = outer;
    }
    point
}
