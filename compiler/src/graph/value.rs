//! Tensors of f64 for the reference interpreter.

use super::TensorType;
use trainc_runtime::artifact::DType;

/// A tensor in row-major order. Values are f64 whatever the type says; those of an i32 tensor are whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type of the value that it stands for.
    pub ty: TensorType,
    /// As many numbers as the type has elements.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of these elements; panics if there are not as many as the type has.
    pub fn new(ty: TensorType, data: Vec<f64>) -> Self {
        assert_eq!(ty.elements(), data.len() as u64, "elements of {ty}");
        Self { ty, data }
    }

    /// An f32 tensor; panics if there are not as many elements as the shape has.
    pub fn f32(shape: &[u64], data: Vec<f64>) -> Self {
        Self::new(TensorType::f32(shape), data)
    }

    /// An i32 tensor; panics if there are not as many elements as the shape has.
    pub fn i32(shape: &[u64], data: &[i32]) -> Self {
        Self::new(TensorType::i32(shape), data.iter().map(|&x| f64::from(x)).collect())
    }

    /// A tensor of one value.
    pub fn full(ty: TensorType, value: f64) -> Self {
        let data = vec![value; ty.elements() as usize];
        Self { ty, data }
    }

    /// The only element; panics if there are others.
    pub fn scalar(&self) -> f64 {
        assert_eq!(self.data.len(), 1, "a scalar, and not {}", self.ty);
        self.data[0]
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.ty.shape
    }

    /// A function of each element, of the same type.
    pub fn map(&self, function: impl Fn(f64) -> f64) -> Self {
        Self { ty: self.ty.clone(), data: self.data.iter().map(|&x| function(x)).collect() }
    }

    /// The elements at these offsets, as a tensor of this shape.
    pub(super) fn pick(&self, shape: &[u64], offsets: impl Iterator<Item = usize>) -> Self {
        let ty = TensorType { dtype: self.ty.dtype, shape: shape.to_vec() };
        Self::new(ty, offsets.map(|offset| self.data[offset]).collect())
    }

    /// Distance between neighbours along each axis.
    pub(super) fn strides(&self) -> Vec<u64> {
        strides(self.shape())
    }
}

/// Distance between neighbours along each axis of a row-major array.
pub(super) fn strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Offsets of all elements of a strided view, in the row-major order of its indices.
pub(super) fn offsets(extents: &[u64], strides: &[u64]) -> Vec<usize> {
    let mut offsets = vec![0];
    for (&extent, &stride) in extents.iter().zip(strides) {
        offsets = offsets.iter().flat_map(|&base| (0..extent).map(move |i| base + (i * stride) as usize)).collect();
    }
    offsets
}

/// Rounding of a result as compiled code rounds it.
pub(super) fn round_f32(tensor: Tensor) -> Tensor {
    match tensor.ty.dtype {
        DType::I32 => tensor,
        DType::F32 | DType::Bf16 => tensor.map(|x| f64::from(x as f32)),
    }
}
