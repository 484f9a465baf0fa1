//! Batches that the embedding program brings along.

use crate::artifact::{Entry, InputBinding};
use crate::data::{DataError, Need};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::numbers::Values;
use std::collections::BTreeMap;

/// Fields of the records of one batch, record after record.
///
/// A field has as many numbers per record as the model's input takes, plus those that the program looks ahead: with
/// `next(tokens)`, `tokens` has `context + 1` per record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    fields: BTreeMap<String, Values>,
}

impl Batch {
    /// A batch without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) a field.
    #[must_use]
    pub fn with(mut self, field: &str, values: impl Into<Values>) -> Self {
        self.fields.insert(field.to_owned(), values.into());
        self
    }

    /// Writes all inputs of an entry.
    pub(super) fn feed(&self, entry: &Entry, device: &mut Device) -> Result<()> {
        let needs = Need::of(&entry.inputs).map_err(Error::Misuse)?;
        for need in &needs {
            self.check(need)?;
        }
        for input in &entry.inputs {
            let need = needs.iter().find(|need| need.field == input.field).expect("every input has a need");
            device.write(input.offset, input.bytes(), |out| self.feed_input(input, need, out))?;
        }
        Ok(())
    }

    fn check(&self, need: &Need) -> Result<()> {
        let name = &need.field;
        let Some(values) = self.fields.get(name) else {
            return Error::misuse(format!("the batch has no field `{name}`"));
        };
        let (records, elements) = (need.batch, need.record_elements());
        match values.len() as u64 == records * elements {
            true => Ok(()),
            false => Error::misuse(format!(
                "field `{name}` of the batch has {} numbers, the model takes {records} x {elements}",
                values.len()
            )),
        }
    }

    fn feed_input(&self, input: &InputBinding, need: &Need, out: &mut [u8]) -> Result<()> {
        let values = &self.fields[&input.field];
        let row_bytes = (input.record_elements() * input.dtype.bytes()) as usize;
        let rows = out.chunks_exact_mut(row_bytes);
        for (row, out) in rows.enumerate() {
            let begin = row * need.record_elements() as usize + input.shift as usize;
            if !values.write(begin, input.dtype, out) {
                return Error::misuse(format!("field `{}` of the batch must hold {:?}", input.field, input.dtype));
            }
            if let (Values::Integers(values), Some(below)) = (values, input.below) {
                let fed = &values[begin..begin + input.record_elements() as usize];
                if let Some(&value) = fed.iter().find(|&&value| value < 0 || value as u64 >= below) {
                    let field = input.field.clone();
                    return Err(DataError::OutOfRange { field, record: row as u64, value: value.into(), below }.into());
                }
            }
        }
        Ok(())
    }
}
