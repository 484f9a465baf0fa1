//! Types of values.

use trainc_runtime::artifact::DType;

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
}

/// Why an operation does not apply to its operands; the checker turns it into a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(pub String);

impl std::fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

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

impl std::fmt::Debug for Real {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.get())
    }
}
