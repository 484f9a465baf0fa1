//! Records with named fields of numbers, stored as they came and converted when fed.

use super::{DataError, Need};
use crate::artifact::DType;
use half::{bf16, f16};

/// How a stored number is encoded (little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Scalar {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Scalar::Bool | Scalar::U8 | Scalar::I8 => 1,
            Scalar::U16 | Scalar::I16 | Scalar::F16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 => 8,
        }
    }

    /// The number in `bytes`, of which there must be [`Scalar::bytes`].
    fn decode(self, bytes: &[u8]) -> f64 {
        fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().expect("as many bytes as the scalar has")
        }
        match self {
            Scalar::Bool => f64::from(u8::from(bytes[0] != 0)),
            Scalar::U8 => f64::from(bytes[0]),
            Scalar::I8 => f64::from(bytes[0] as i8),
            Scalar::U16 => f64::from(u16::from_le_bytes(word(bytes))),
            Scalar::I16 => f64::from(i16::from_le_bytes(word(bytes))),
            Scalar::U32 => f64::from(u32::from_le_bytes(word(bytes))),
            Scalar::I32 => f64::from(i32::from_le_bytes(word(bytes))),
            Scalar::U64 => u64::from_le_bytes(word(bytes)) as f64,
            Scalar::I64 => i64::from_le_bytes(word(bytes)) as f64,
            Scalar::F16 => f16::from_le_bytes(word(bytes)).to_f64(),
            Scalar::F32 => f64::from(f32::from_le_bytes(word(bytes))),
            Scalar::F64 => f64::from_le_bytes(word(bytes)),
        }
    }
}

/// One field of all records.
pub struct Column {
    /// Name of the field.
    pub name: String,
    /// Numbers per record.
    pub width: u64,
    /// Their encoding.
    pub scalar: Scalar,
    /// Record after record.
    pub bytes: Vec<u8>,
}

impl Column {
    /// Number of records.
    pub fn records(&self) -> u64 {
        (self.bytes.len() / self.scalar.bytes()) as u64 / self.width.max(1)
    }

    fn numbers(&self, begin: u64, count: usize) -> impl Iterator<Item = f64> {
        let size = self.scalar.bytes();
        let begin = begin as usize * size;
        self.bytes[begin..begin + count * size].chunks_exact(size).map(|bytes| self.scalar.decode(bytes))
    }

    /// Checks once, when loading, that a model can take every number.
    fn check(&self, need: &Need) -> Result<(), String> {
        if self.width != need.record_elements() {
            let (has, wants) = (self.width, need.record_elements());
            return Err(format!("field `{}` has {has} numbers per record, the model takes {wants}", self.name));
        }
        let count = self.bytes.len() / self.scalar.bytes();
        for (index, number) in self.numbers(0, count).enumerate() {
            if let Some(problem) = need.refusal(number) {
                let record = index as u64 / self.width;
                return Err(format!("record {record} of field `{}` holds {number}, {problem}", self.name));
            }
        }
        Ok(())
    }
}

/// All fields; the same number of records in each.
pub struct Table {
    columns: Vec<Column>,
    records: u64,
}

impl Table {
    /// Joins columns and checks them against what a model needs.
    ///
    /// # Errors
    /// When columns differ in length, or the model cannot take them; the text says what does not fit.
    pub fn new(columns: Vec<Column>, needs: &[Need]) -> Result<Self, String> {
        let records = columns.first().map_or(0, Column::records);
        for column in &columns {
            if column.records() != records {
                let (a, b) = (&columns[0].name, &column.name);
                return Err(format!("field `{a}` has {records} records, but `{b}` has {}", column.records()));
            }
            if let Some(need) = needs.iter().find(|need| need.field == column.name) {
                column.check(need)?;
            }
        }
        Ok(Self { columns, records })
    }

    /// Number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Names of the fields.
    pub fn fields(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Writes a field of one record, from number `shift` on, as `dtype` until `out` is full.
    pub fn read(&self, field: &str, record: u64, shift: u64, dtype: DType, out: &mut [u8]) -> Result<(), DataError> {
        let column = self.columns.iter().find(|column| column.name == field);
        let column = column.expect("fields are checked when data is opened");
        let count = out.len() / dtype.bytes() as usize;
        write_numbers(column.numbers(record * column.width + shift, count), dtype, out);
        Ok(())
    }
}

/// Stores numbers in an arena's encoding.
pub fn write_numbers(numbers: impl Iterator<Item = f64>, dtype: DType, out: &mut [u8]) {
    let places = out.chunks_exact_mut(dtype.bytes() as usize);
    match dtype {
        DType::F32 => places.zip(numbers).for_each(|(out, x)| out.copy_from_slice(&(x as f32).to_le_bytes())),
        DType::I32 => places.zip(numbers).for_each(|(out, x)| out.copy_from_slice(&(x as i32).to_le_bytes())),
        DType::Bf16 => {
            places.zip(numbers).for_each(|(out, x)| out.copy_from_slice(&bf16::from_f64(x).to_le_bytes()));
        }
    }
}
