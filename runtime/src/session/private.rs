//! Private training: samples drawn by chance, steps of several passes, rows left out, and the account of what is spent.

use super::{Batch, Session, entry, read_numbers};
use crate::artifact::{BAD_ROWS, DType, InputBinding, Manifest, MaskBinding, PrivateSpec, Sampling};
use crate::chacha::Key;
use crate::data::{Data, Poisson, Randomness};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::numbers::{Numbers, Values};
use crate::privacy::{Ledger, Mechanism};
use serde::{Deserialize, Serialize};

/// Numbers that a private step reports besides those of its entry.
const EPSILON: &str = "epsilon";
const NON_FINITE: &str = "non_finite";

/// No account has more steps.
const MOST_STEPS: u64 = 1 << 40;

/// States in which passes add up.
const SUMS: &str = "private.sum.";

/// What a session keeps for private training.
pub(super) struct Private {
    spec: PrivateSpec,
    account: Account,
    /// The horizon that the account reckons with.
    planned: Option<u32>,
    /// Of secure noise and samples; drawn anew whenever the session may be at a step again.
    key: Option<Key>,
    /// Records of the step at hand; reused.
    drawn: Vec<u64>,
    /// Rows of the pass at hand that are left out; reused.
    blank: Vec<bool>,
    /// Whether passes may have left sums behind: before the first step (a checkpoint may hold some), and after an error.
    unfinished: bool,
    /// What the passes before the last have reported, each times its number of records.
    passes: Numbers,
}

/// What has been spent, as a checkpoint keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    ledger: Ledger,
    /// Samples left out because their gradient was not finite.
    non_finite: u64,
}

/// What a private session can tell about its guarantee.
#[derive(Clone, Debug, PartialEq)]
pub struct Privacy {
    /// What has been spent: training so far is `(epsilon, delta)`-private. Infinite without noise.
    pub epsilon: f64,
    /// See `epsilon`.
    pub delta: f64,
    /// The budget.
    pub budget: Option<f64>,
    /// Samples left out because their gradient was not finite. This number is about the data and not part of the guarantee.
    pub non_finite: u64,
    /// Where the noise comes from: `philox` or `chacha20`.
    pub noise: &'static str,
}

/// What a pass is fed with.
#[derive(Clone, Copy)]
enum Rows<'a> {
    /// Training records, at most as many as the entry has rows.
    Records(&'a Data, &'a [u64]),
    /// The embedder's batch, which fills all rows.
    Own(&'a Batch),
}

impl Private {
    /// Begins the account of a program's run; `None` if the program is not private.
    pub(super) fn new(manifest: &Manifest) -> Result<Option<Self>> {
        let Some(spec) = manifest.private.clone() else { return Ok(None) };
        let mut ledger = Ledger::new(spec.delta, spec.accountant)?;
        ledger.begin(mechanism(&spec, 0))?;
        let passes = manifest.entry("accumulate").map(|entry| Numbers::of(&entry.outputs)).unwrap_or_default();
        let rows = entry(manifest, "step")?.mask.map_or(0, |mask| mask.rows as usize);
        let key = new_key(&spec)?;
        let account = Account { ledger, non_finite: 0 };
        Ok(Some(Self {
            spec,
            account,
            planned: None,
            key,
            drawn: Vec::new(),
            blank: vec![false; rows],
            unfinished: true,
            passes,
        }))
    }

    /// Adds the names of the numbers that every private step reports.
    pub(super) fn name_numbers(numbers: &mut Numbers) {
        numbers.add(EPSILON);
        numbers.add(NON_FINITE);
    }

    /// The words of the key for the control block.
    pub(super) fn key_words(&self) -> [u32; 8] {
        self.key.map_or([0; 8], |key| key.0)
    }

    /// Refuses data of another size than the guarantee is for.
    pub(super) fn check_records(&self, found: u64) -> Result<()> {
        match found == self.spec.records {
            true => Ok(()),
            false => Err(Error::Records { promised: self.spec.records, found }),
        }
    }

    /// For a checkpoint.
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.account).expect("an account is plain data")
    }

    /// Goes on with the account of a checkpoint after `done` updates.
    pub(super) fn restore(&mut self, json: Option<&serde_json::Value>, done: u32) -> Result<(), String> {
        let json = json.ok_or("it does not say what privacy has been spent")?;
        let mut account: Account = serde_json::from_value(json.clone()).map_err(|error| error.to_string())?;
        account.ledger.begin(mechanism(&self.spec, 0)).map_err(|error| error.to_string())?;
        let spent = account.ledger.spent().iter().fold(0u64, |sum, phase| sum.saturating_add(phase.steps));
        if !(u64::from(done)..MOST_STEPS).contains(&spent) {
            return Err(format!("its account has {spent} steps after {done} updates"));
        }
        if account.ledger.delta() != self.spec.delta {
            return Err("its account is for another delta".to_owned());
        }
        account.ledger.epsilon().map_err(|error| error.to_string())?;
        // A step that is made again must not have the noise that it had before.
        self.key = new_key(&self.spec).map_err(|error| error.to_string())?;
        (self.account, self.planned) = (account, None);
        Ok(())
    }

    /// Reckons with a horizon of `steps`, of which `done` are done: the account is exact there, and cheap up to there.
    fn plan(&mut self, steps: u32, done: u32) -> Result<()> {
        if self.planned != Some(steps) {
            self.account.ledger.begin(mechanism(&self.spec, steps.saturating_sub(done).into()))?;
            self.planned = Some(steps);
        }
        Ok(())
    }

    fn draw(&mut self, seed: u64, step: u32) {
        if let Sampling::Poisson { rate } = self.spec.sampling {
            let randomness = self.key.map_or(Randomness::Seed(seed), Randomness::Key);
            self.drawn.clear();
            self.drawn.extend(Poisson::new(self.spec.records, rate, randomness, step));
        }
    }
}

fn mechanism(spec: &PrivateSpec, steps: u64) -> Mechanism {
    Mechanism { sampling_rate: spec.sampling_rate(), noise_multiplier: spec.noise_multiplier, steps }
}

fn new_key(spec: &PrivateSpec) -> Result<Option<Key>> {
    Ok(if spec.secure { Some(Key::from_system()?) } else { None })
}

impl Session {
    /// What private training has spent so far; `None` if the program is not private.
    ///
    /// # Errors
    /// When the account cannot be computed.
    pub fn privacy(&self) -> Result<Option<Privacy>> {
        let Some(private) = &self.private else { return Ok(None) };
        Ok(Some(Privacy {
            epsilon: private.account.ledger.exact_epsilon()?,
            delta: private.spec.delta,
            budget: private.spec.epsilon,
            non_finite: private.account.non_finite,
            noise: if private.key.is_some() { "chacha20" } else { "philox" },
        }))
    }

    /// Counts steps that an earlier process made after its last checkpoint and that will be made again. With secure noise
    /// they come out differently, and both results may have been seen; otherwise they are the same steps.
    pub(crate) fn count_lost_steps(&mut self, lost: u64) {
        if let Some(private) = self.private.as_mut().filter(|private| private.key.is_some()) {
            (0..lost).for_each(|_| private.account.ledger.record());
        }
    }

    /// Whether one more step would spend more than the program's privacy budget. Never without a budget.
    ///
    /// # Errors
    /// When the account cannot be computed.
    pub fn budget_is_spent(&mut self) -> Result<bool> {
        Ok(self.steps_in_budget()? == Some(0))
    }

    /// How many more steps the privacy budget allows, those up to the horizon if it allows these; `None` without a
    /// budget.
    ///
    /// # Errors
    /// As [`Session::budget_is_spent`].
    pub fn steps_in_budget(&mut self) -> Result<Option<u64>> {
        if self.private.is_none() {
            return Ok(None);
        }
        let (steps, done) = (self.horizon()?, self.step);
        let Some(private) = &mut self.private else { return Ok(None) };
        private.plan(steps, done)?;
        Ok(private.spec.epsilon.map(|budget| private.account.ledger.steps_left(budget)).transpose()?)
    }

    /// A private update with samples that the session draws.
    pub(super) fn private_step(&mut self) -> Result<&Numbers> {
        self.check_private_step()?;
        let (seed, step, position) = (self.seed, self.step, self.position);
        let (data, private) = (self.data.take().expect("opened"), self.private.as_mut().expect("a private program"));
        private.draw(seed, step);
        let mut drawn = std::mem::take(&mut private.drawn);
        let shuffled = private.spec.sampling == Sampling::Shuffled;
        if shuffled {
            drawn.clear();
            drawn.extend((position..).take(private.blank.len()).map(|position| data.record_at(position, seed)));
        }
        let made = self.passes(&data, &drawn);
        if made.is_ok() && shuffled {
            self.position += drawn.len() as u64;
        }
        self.data = Some(data);
        self.private.as_mut().expect("a private program").drawn = drawn;
        made.map(|()| &self.numbers)
    }

    /// A private update with a batch that the embedder has drawn as the program says.
    pub(super) fn private_step_with(&mut self, batch: &Batch) -> Result<&Numbers> {
        self.check_private_step()?;
        self.clear_sums()?;
        self.private.as_mut().expect("a private program").passes.values_mut().fill(0.0);
        let counted = self.pass("step", Rows::Own(batch))?;
        self.finish_step(counted, counted)?;
        Ok(&self.numbers)
    }

    fn check_private_step(&mut self) -> Result<()> {
        self.check_horizon()?;
        if self.budget_is_spent()? {
            return Error::misuse("the privacy budget is spent: another step would exceed it");
        }
        Ok(())
    }

    /// All passes over the samples of a step; at least one, so that a step without samples is noise alone.
    fn passes(&mut self, data: &Data, drawn: &[u64]) -> Result<()> {
        self.clear_sums()?;
        let private = self.private.as_mut().expect("a private program");
        private.passes.values_mut().fill(0.0);
        let rows = private.blank.len();
        let last = drawn.len().saturating_sub(1) / rows * rows;
        let mut total = 0;
        for records in drawn[..last].chunks(rows) {
            let counted = self.pass("accumulate", Rows::Records(data, records))?;
            total += counted;
            let private = self.private.as_mut().expect("a private program");
            let entry = entry(&self.manifest, "accumulate")?;
            let sums = private.passes.values_mut();
            read_numbers(&self.device, entry, |index, value| sums[index] += value * counted as f64)?;
        }
        let counted = self.pass("step", Rows::Records(data, &drawn[last..]))?;
        self.finish_step(counted, total + counted)
    }

    /// Runs an entry; where rows are bad, once more without them. Returns how many rows counted.
    fn pass(&mut self, name: &str, rows: Rows) -> Result<u64> {
        let private = self.private.as_mut().expect("a private program");
        private.blank.fill(false);
        let given = match rows {
            Rows::Records(_, records) => records.len(),
            Rows::Own(_) => private.blank.len(),
        };
        self.run_pass(name, rows)?;
        let left_out = self.note_bad_rows(name)?;
        if left_out > 0 {
            self.run_pass(name, rows)?;
            if self.note_bad_rows(name)? > 0 {
                let what = "the gradient of a row that holds no sample".to_owned();
                return Err(Error::Diverged { what, value: f64::NAN, step: self.step + 1 });
            }
        }
        let private = self.private.as_mut().expect("a private program");
        let left_out = private.blank[..given].iter().filter(|blank| **blank).count() as u64;
        private.account.non_finite += left_out;
        Ok(given as u64 - left_out)
    }

    fn run_pass(&mut self, name: &str, rows: Rows) -> Result<()> {
        let private = self.private.as_ref().expect("a private program");
        let entry = entry(&self.manifest, name)?;
        match rows {
            Rows::Records(data, records) => {
                for input in &entry.inputs {
                    self.device.write(input.offset, input.bytes(), |out| {
                        Ok(data.feed_records(records, &private.blank, input, out)?)
                    })?;
                }
            }
            Rows::Own(batch) => {
                batch.feed(entry, &mut self.device)?;
                for input in entry.inputs.iter().filter(|_| private.blank.contains(&true)) {
                    blank_rows(input, &private.blank, &mut self.device)?;
                }
            }
        }
        let given = if let Rows::Records(_, records) = rows { records.len() } else { private.blank.len() };
        if let Some(mask) = &entry.mask {
            write_mask(mask, given, &private.blank, &mut self.device)?;
        }
        self.execute(name)
    }

    /// Marks the rows that the entry says are bad; returns how many that are.
    fn note_bad_rows(&mut self, name: &str) -> Result<usize> {
        let entry = entry(&self.manifest, name)?;
        let private = self.private.as_mut().expect("a private program");
        let report = entry.outputs.iter().find(|output| output.name == BAD_ROWS).expect("verified");
        let bytes = self.device.read(report.offset, report.bytes())?;
        let Values::Floats(bad) = Values::read(DType::F32, &bytes) else { unreachable!("verified: f32") };
        let mut count = 0;
        for (blank, bad) in private.blank.iter_mut().zip(bad) {
            *blank |= bad != 0.0;
            count += usize::from(bad != 0.0);
        }
        Ok(count)
    }

    /// Counts an update whose noisy sum has been used, and gathers what it reports: numbers that every pass reports are
    /// means over the step's samples, not a number if there were none.
    fn finish_step(&mut self, counted: u64, total: u64) -> Result<()> {
        let private = self.private.as_mut().expect("a private program");
        private.account.ledger.record();
        private.unfinished = false;
        self.step += 1;
        let entry = entry(&self.manifest, "step")?;
        read_numbers(&self.device, entry, |index, value| self.numbers.values_mut()[index] = value)?;
        let epsilon = private.account.ledger.epsilon()?;
        for (name, value) in self.numbers.slots_mut() {
            match (name, private.passes.get(name)) {
                (EPSILON, _) => *value = epsilon,
                (NON_FINITE, _) => *value = private.account.non_finite as f64,
                (_, Some(sum)) => *value = (sum + *value * counted as f64) / total as f64,
                _ => {}
            }
        }
        Ok(())
    }

    /// An error between passes may have left sums behind; a sample must not be counted twice.
    fn clear_sums(&mut self) -> Result<()> {
        let private = self.private.as_mut().expect("a private program");
        if std::mem::replace(&mut private.unfinished, true) {
            for tensor in self.manifest.tensors.iter().filter(|tensor| tensor.name.starts_with(SUMS)) {
                self.device.write(tensor.offset, tensor.bytes(), |out| {
                    out.fill(0);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

fn blank_rows(input: &InputBinding, blank: &[bool], device: &mut Device) -> Result<()> {
    let row_bytes = (input.record_elements() * input.dtype.bytes()) as usize;
    let fed = device.read(input.offset, input.bytes())?.into_owned();
    device.write(input.offset, input.bytes(), |out| {
        out.copy_from_slice(&fed);
        let rows = out.chunks_exact_mut(row_bytes);
        rows.zip(blank).filter(|(_, blank)| **blank).for_each(|(row, _)| row.fill(0));
        Ok(())
    })
}

/// 1 for the first `given` rows, except blank ones.
fn write_mask(mask: &MaskBinding, given: usize, blank: &[bool], device: &mut Device) -> Result<()> {
    device.write(mask.offset, mask.bytes(), |out| {
        for (row, (out, blank)) in out.chunks_exact_mut(size_of::<f32>()).zip(blank).enumerate() {
            let counts = row < given && !blank;
            out.copy_from_slice(&f32::from(u8::from(counts)).to_le_bytes());
        }
        Ok(())
    })
}
