//! Types of values.

use std::fmt;
use trainc_runtime::artifact::DType;

/// A tensor has fewer elements than this, so that products of extents and byte offsets stay far from overflow.
pub const MAX_ELEMENTS: u64 = 1 << 40;

/// A tensor has at most this many axes; an einsum of two of them still has labels to spare.
pub const MAX_RANK: usize = 16;

/// Element type and shape of a value. Inside the graph values are f32 or i32; storage in bf16 is the schedule's choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
}

impl TensorType {
    /// An f32 tensor.
    pub fn f32(shape: impl Into<Vec<u64>>) -> Self {
        Self { dtype: DType::F32, shape: shape.into() }
    }

    /// An i32 tensor.
    pub fn i32(shape: impl Into<Vec<u64>>) -> Self {
        Self { dtype: DType::I32, shape: shape.into() }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Checks what holds for every value of a graph: f32 or i32, axes of at least one element, at most [`MAX_RANK`]
    /// axes and fewer than [`MAX_ELEMENTS`] elements.
    ///
    /// # Errors
    /// In words, if it does not hold.
    pub fn check(&self) -> Result<(), ShapeError> {
        if self.dtype == DType::Bf16 {
            return Err(ShapeError("values are f32 or i32; bf16 is a way to store or to multiply them".into()));
        }
        if self.rank() > MAX_RANK {
            return Err(ShapeError(format!("{self} has {} axes, more than {MAX_RANK}", self.rank())));
        }
        if self.shape.contains(&0) {
            return Err(ShapeError(format!("{self} has an axis without elements")));
        }
        let elements = self.shape.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent));
        match elements {
            Some(elements) if elements < MAX_ELEMENTS => Ok(()),
            _ => Err(ShapeError(format!("{self} is too large: a tensor has fewer than 2^40 elements"))),
        }
    }
}

/// `f32[2, 3]`, as in error messages and printed graphs.
impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = match self.dtype {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::I32 => "i32",
        };
        write!(formatter, "{dtype}{:?}", self.shape)
    }
}

/// Why an operation does not apply to its operands; the checker turns it into a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(pub String);

impl fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

/// An f64 that can be hashed and ordered (by its bits), so that operations can be keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Real(u64);

impl Real {
    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for Real {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.get())
    }
}
