//! Loss and metrics of held-out records: sums over all of them first, then what follows from the sums.
//!
//! The `evaluate` entry says what each row of a batch adds to each total; rows that only fill up a batch are left out.
//! Totals are added up in f64, in the order of the records, and the `conclude` entry makes numbers of them. What only a batch has is
//! a mean of the batches' values, each of which counts as much as it has records of its own.

use super::{Batch, Session, batch_size, entry};
use crate::artifact::{Entry, OutputBinding, TotalBinding, TotalOf, is_total};
use crate::data::Split;
use crate::device::Device;
use crate::error::Result;
use crate::numbers::{Numbers, Values, first_number, is_number};

/// Name of the number of records among the numbers of an evaluation.
pub const RECORDS: &str = "records";

impl Session {
    /// Loss and metrics of the held-out records, and how many these are (as [`RECORDS`]); `None` if the program does not
    /// evaluate or holds nothing out.
    ///
    /// All held-out records count, each once, or the first ones if the program says how many batches to look at.
    ///
    /// # Errors
    /// When the data cannot be used.
    pub fn evaluate(&mut self) -> Result<Option<Numbers>> {
        let Some(batch) = self.manifest.entry("evaluate").map(batch_size) else { return Ok(None) };
        let (held_out, batch) = (self.open_data()?.valid_records(), batch.max(1));
        let at_most =
            self.manifest.train.evaluate_batches.map_or(held_out, |batches| batch.saturating_mul(batches.into()));
        let records = held_out.min(at_most);
        if records == 0 {
            return Ok(None);
        }
        let mut sums = Sums::of(entry(&self.manifest, "evaluate")?);
        for begin in (0..records).step_by(batch as usize) {
            self.feed("evaluate", Split::Valid, begin)?;
            self.execute("evaluate")?;
            sums.add(&self.device, batch, batch.min(records - begin))?;
        }
        self.conclude(&sums).map(Some)
    }

    /// The same of a batch of your own, all of whose rows count.
    ///
    /// # Errors
    /// When there is no such entry or the batch does not fit the model.
    pub fn evaluate_with(&mut self, batch: &Batch) -> Result<Numbers> {
        let entry = entry(&self.manifest, "evaluate")?;
        let (mut sums, rows) = (Sums::of(entry), batch_size(entry).max(1));
        batch.feed(entry, &mut self.device)?;
        self.execute("evaluate")?;
        sums.add(&self.device, rows, rows)?;
        self.conclude(&sums)
    }

    /// The numbers that follow from totals, then those of the batches, then the number of records.
    fn conclude(&mut self, sums: &Sums) -> Result<Numbers> {
        let mut numbers = Numbers::default();
        if let Some(conclusion) = self.manifest.entry("conclude") {
            let totals = conclusion.totals.clone();
            for total in &totals {
                sums.write(total, &mut self.device)?;
            }
            self.execute("conclude")?;
            for output in entry(&self.manifest, "conclude")?.outputs.iter().filter(|output| is_number(output)) {
                let value = first_number(output.dtype, &self.device.read(output.offset, output.bytes())?);
                numbers.push(&output.name, value);
            }
        }
        for (output, values) in sums.values.iter().filter(|(output, _)| !is_total(&output.name)) {
            numbers.push(&output.name, values[0] / sums.records as f64);
        }
        numbers.push(RECORDS, sums.records as f64);
        Ok(numbers)
    }
}

/// What the batches so far add up to.
struct Sums {
    /// The total of each output; of a number of the batch, the sum over batches times their records.
    values: Vec<(OutputBinding, Vec<f64>)>,
    records: u64,
}

impl Sums {
    fn of(entry: &Entry) -> Sums {
        let of_output = |output: &OutputBinding| {
            let elements = if is_total(&output.name) { output.row_elements() } else { 1 };
            (output.clone(), vec![0.0; elements as usize])
        };
        let counted = entry.outputs.iter().filter(|output| is_total(&output.name) || is_number(output));
        Sums { values: counted.map(of_output).collect(), records: 0 }
    }

    /// Adds what the last run of the entry says of the first rows of a batch.
    fn add(&mut self, device: &Device, batch: u64, rows: u64) -> Result<()> {
        debug_assert!(rows <= batch, "no more rows count than there are");
        for (output, sums) in &mut self.values {
            let bytes = device.read(output.offset, output.bytes())?;
            if !is_total(&output.name) {
                sums[0] += rows as f64 * first_number(output.dtype, &bytes);
                continue;
            }
            let Values::Floats(values) = Values::read(output.dtype, &bytes) else { continue };
            for row in values.chunks_exact(sums.len()).take(rows as usize) {
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
        self.records += rows;
        Ok(())
    }

    /// Gives a total to the entry that concludes.
    fn write(&self, total: &TotalBinding, device: &mut Device) -> Result<()> {
        let records = [self.records as f64];
        let values = match &total.of {
            TotalOf::Records => &records[..],
            TotalOf::Output(name) => {
                let found = self.values.iter().find(|(output, _)| output.name == *name);
                &found.expect("an artifact is verified").1
            }
        };
        let values = Values::Floats(values.iter().map(|&value| value as f32).collect());
        device.write(total.offset, total.bytes(), |out| {
            values.write(0, crate::artifact::DType::F32, out);
            Ok(())
        })
    }
}
