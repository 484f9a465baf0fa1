//! Named numbers that a step or an evaluation yields, and arrays that go in and out of an arena.

use crate::artifact::{BAD_ROWS, DType, OutputBinding};
use half::bf16;

/// Numbers by name, in the program's order: `loss` first, then whatever else the program reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    names: Vec<String>,
    values: Vec<f64>,
}

impl Numbers {
    /// Zeros for every output that is a single number.
    pub(crate) fn of(outputs: &[OutputBinding]) -> Self {
        let names: Vec<_> =
            outputs.iter().filter(|output| is_number(output)).map(|output| output.name.clone()).collect();
        let values = vec![0.0; names.len()];
        Self { names, values }
    }

    /// Adds a number, 0 so far.
    pub(crate) fn add(&mut self, name: &str) {
        self.push(name, 0.0);
    }

    /// Adds a number.
    pub(crate) fn push(&mut self, name: &str, value: f64) {
        self.names.push(name.to_owned());
        self.values.push(value);
    }

    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The loss; NaN if the program has none.
    pub fn loss(&self) -> f64 {
        self.get("loss").unwrap_or(f64::NAN)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.names.iter().map(String::as_str).zip(self.values.iter().copied())
    }

    /// Names with the places of their values.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = (&str, &mut f64)> {
        self.names.iter().map(String::as_str).zip(&mut self.values)
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }
}

/// Whether an output is reported as a number.
pub(crate) fn is_number(output: &OutputBinding) -> bool {
    output.elements() == 1 && (output.name != BAD_ROWS || output.shape.is_empty())
}

/// The elements of a tensor or of a batch's field.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Real numbers; bf16 is widened.
    Floats(Vec<f32>),
    /// Integers.
    Integers(Vec<i32>),
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::Floats(values) => values.len(),
            Values::Integers(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From an arena's encoding.
    pub(crate) fn read(dtype: DType, bytes: &[u8]) -> Self {
        match dtype {
            DType::F32 => Values::Floats(words(bytes).map(f32::from_le_bytes).collect()),
            DType::I32 => Values::Integers(words(bytes).map(i32::from_le_bytes).collect()),
            DType::Bf16 => Values::Floats(words(bytes).map(|word| bf16::from_le_bytes(word).to_f32()).collect()),
        }
    }

    /// Into an arena's encoding; false if the kinds of numbers differ.
    pub(crate) fn write(&self, begin: usize, dtype: DType, out: &mut [u8]) -> bool {
        let count = out.len() / dtype.bytes() as usize;
        match (self, dtype) {
            (Values::Integers(values), DType::I32) => {
                out.copy_from_slice(bytemuck::cast_slice(&values[begin..begin + count]));
            }
            (Values::Floats(values), DType::F32 | DType::Bf16) => {
                let values = values[begin..begin + count].iter().map(|&value| f64::from(value));
                crate::data::write_numbers(values, dtype, out);
            }
            _ => return false,
        }
        true
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Values::Floats(values)
    }
}

impl From<Vec<i32>> for Values {
    fn from(values: Vec<i32>) -> Self {
        Values::Integers(values)
    }
}

impl From<f32> for Values {
    fn from(value: f32) -> Self {
        Values::Floats(vec![value])
    }
}

/// The first element of an arena's encoding as a number.
pub(crate) fn first_number(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F32 => words(bytes).next().map_or(f64::NAN, |word| f64::from(f32::from_le_bytes(word))),
        DType::I32 => words(bytes).next().map_or(f64::NAN, |word| f64::from(i32::from_le_bytes(word))),
        DType::Bf16 => words(bytes).next().map_or(f64::NAN, |word| bf16::from_le_bytes(word).to_f64()),
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
