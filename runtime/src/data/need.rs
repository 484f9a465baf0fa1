//! What a model wants of a field, gathered from all inputs that the field feeds.

use super::DataError;
use crate::artifact::{DType, Entry, InputBinding};
use half::bf16;

/// The demands on one field of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// The field.
    pub field: String,
    /// Numbers per record that an input takes.
    pub elements: u64,
    /// Further numbers for inputs that start later: 1 with `next(tokens)`.
    pub lookahead: u64,
    /// Records per batch, the largest of all inputs.
    pub batch: u64,
    /// How the inputs store it.
    pub dtypes: Vec<DType>,
    /// Whether some input takes integers only.
    pub integer: bool,
    /// The strictest bound on integers.
    pub below: Option<u64>,
}

impl Need {
    /// Gathers the demands of inputs that are fed from data.
    ///
    /// # Errors
    /// When two inputs take different amounts of one field.
    pub fn of<'a>(inputs: impl IntoIterator<Item = &'a InputBinding>) -> Result<Vec<Need>, String> {
        let mut needs: Vec<Need> = Vec::new();
        for binding in inputs {
            match needs.iter_mut().find(|need| need.field == binding.field) {
                Some(need) => need.join(binding)?,
                None => needs.push(Need::from_binding(binding)),
            }
        }
        Ok(needs)
    }

    /// The demands of a program on its data: all entries are fed from it but the one that generates.
    ///
    /// # Errors
    /// As [`Need::of`].
    pub fn of_program(entries: &[Entry]) -> Result<Vec<Need>, String> {
        Self::of(entries.iter().filter(|entry| entry.name != "generate").flat_map(|entry| &entry.inputs))
    }

    fn from_binding(binding: &InputBinding) -> Self {
        Need {
            field: binding.field.clone(),
            elements: binding.record_elements(),
            lookahead: binding.shift,
            batch: binding.batch(),
            dtypes: vec![binding.dtype],
            integer: binding.dtype == DType::I32,
            below: binding.below,
        }
    }

    fn join(&mut self, binding: &InputBinding) -> Result<(), String> {
        if self.elements != binding.record_elements() {
            let (name, a, b) = (&self.field, self.elements, binding.record_elements());
            return Err(format!("one input takes {a} numbers of field `{name}`, another {b}"));
        }
        self.lookahead = self.lookahead.max(binding.shift);
        self.batch = self.batch.max(binding.batch());
        self.dtypes.push(binding.dtype);
        self.integer |= binding.dtype == DType::I32;
        self.below = self.below.into_iter().chain(binding.below).min();
        Ok(())
    }

    /// Numbers per record.
    pub fn record_elements(&self) -> u64 {
        self.elements + self.lookahead
    }

    /// Why a number cannot be taken, if it cannot.
    pub fn refusal(&self, number: f64) -> Option<String> {
        let fits = match (self.integer, self.below) {
            (true, Some(below)) => number.fract() == 0.0 && number >= 0.0 && number < below as f64,
            (true, None) => number.fract() == 0.0 && number >= f64::from(i32::MIN) && number <= f64::from(i32::MAX),
            (false, _) if number.is_finite() && !self.holds(number) => {
                return Some(format!("but the model takes numbers of at most {:e}", self.largest()));
            }
            (false, _) => number.is_finite(),
        };
        (!fits).then(|| self.expectation())
    }

    /// Whether a number is still one when it is stored.
    fn holds(&self, number: f64) -> bool {
        self.dtypes.iter().all(|dtype| match dtype {
            DType::F32 => (number as f32).is_finite(),
            DType::Bf16 => bf16::from_f64(number).is_finite(),
            DType::I32 => true,
        })
    }

    fn largest(&self) -> f64 {
        if self.dtypes.contains(&DType::Bf16) { bf16::MAX.to_f64() } else { f64::from(f32::MAX) }
    }

    /// The model's demand in words.
    pub fn expectation(&self) -> String {
        match (self.integer, self.below) {
            (true, Some(below)) => format!("but the model takes integers from 0 to {}", below.saturating_sub(1)),
            (true, None) => format!("but the model takes integers from {} to {}", i32::MIN, i32::MAX),
            (false, _) => "but the model takes finite numbers".to_owned(),
        }
    }
}

/// Every field that is needed must be there.
pub(super) fn all_provided(needs: &[Need], provided: impl Iterator<Item = String>) -> Result<(), String> {
    let provided: Vec<_> = provided.collect();
    match needs.iter().find(|need| !provided.contains(&need.field)) {
        None => Ok(()),
        Some(need) => {
            let have: Vec<_> = provided.iter().map(|name| format!("`{name}`")).collect();
            Err(format!("the model needs a field `{}`, the data has {}", need.field, have.join(", ")))
        }
    }
}

/// Checks fed integers against the binding's bound.
pub(crate) fn check_range(values: &[i32], binding: &InputBinding, record: u64) -> Result<(), DataError> {
    let Some(below) = binding.below else { return Ok(()) };
    match values.iter().find(|&&value| value < 0 || value as u64 >= below) {
        None => Ok(()),
        Some(&value) => {
            Err(DataError::OutOfRange { field: binding.field.clone(), record, value: i64::from(value), below })
        }
    }
}
