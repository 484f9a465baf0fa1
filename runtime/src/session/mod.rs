//! A program at work: its memory, its position in training and in the data.

mod batch;
mod evaluation;
pub(crate) mod generate;
mod private;
mod trained_on;

pub use batch::Batch;
pub use evaluation::RECORDS;
pub use generate::GenerateOptions;
pub use private::Privacy;

use crate::artifact::{Artifact, Control, Duration, Entry, Isa, Manifest, TensorKind, TensorSpec, TokenizerSpec};
use crate::artifact::{InputBinding, Sampling, Source};
use crate::checkpoint::{self, CheckpointError, Opened, State};
use crate::data::{Data, Fingerprint, Need, Split, Tokenizer, tokenizer_digest};
use crate::device::{Device, Place};
use crate::error::{Error, Result};
use crate::numbers::{Numbers, Values, first_number, is_number};
use crate::threads::{MOST_THREADS, processors};
use crate::{float_check, init};
use private::Private;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trained_on::TrainedOn;

/// Name of the privacy account among the states of a checkpoint.
const PRIVACY: &str = "privacy";

/// How to run an artifact; [`Options::default`] is what the program says, on all processors.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of threads; by default one per processor. It has no influence on results.
    pub threads: Option<usize>,
    /// Another seed than the program's.
    pub seed: Option<u64>,
    /// Another horizon than the program's, in updates; schedules stretch with it.
    pub steps: Option<u32>,
    /// Folder that relative paths of the program's data start at; by default the current one.
    pub base: Option<PathBuf>,
    /// Code to use instead of the best that the machine supports.
    pub isa: Option<Isa>,
    /// Which machine executes.
    pub device: Place,
    /// How long a run goes on unsaved whose program does not say when to save; by default ten minutes. It has no
    /// influence on results.
    pub autosave: Option<std::time::Duration>,
    /// Go on from a checkpoint with other data than it was trained on; [`Session::data_change`] then says what is different.
    pub accept_changed_data: bool,
}

/// The default of [`Options::autosave`].
const AUTOSAVE: std::time::Duration = std::time::Duration::from_secs(600);

/// A loaded program with its memory.
pub struct Session {
    manifest: Manifest,
    device: Device,
    seed: u64,
    /// The horizon; `None` while it depends on data that is not open yet.
    steps: Option<u32>,
    base: PathBuf,
    autosave: std::time::Duration,
    /// Updates made.
    step: u32,
    /// Training records consumed.
    position: u64,
    data: Option<Data>,
    trained_on: TrainedOn,
    /// Position and seed of the batch that is on its way to the device.
    ahead: Option<(u64, u64)>,
    tokenizer: Option<Tokenizer>,
    /// What the last step reported; reused.
    numbers: Numbers,
    private: Option<Private>,
}

impl Session {
    /// Loads an artifact file and initialises its tensors.
    ///
    /// # Errors
    /// When the artifact cannot be used or the machine lacks something it needs.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::new(Artifact::read(path)?, options)
    }

    /// The same from a file's contents, e.g. embedded with `include_bytes!`.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Self> {
        Self::new(Artifact::from_bytes(bytes)?, options)
    }

    /// The same from an artifact in memory, which is verified.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn new(artifact: Artifact, options: &Options) -> Result<Self> {
        crate::artifact::verify(&artifact).map_err(crate::artifact::ArtifactError::from)?;
        let threads = threads(options)?;
        let device = options.device.open(&artifact, threads, options.isa)?;
        let manifest = artifact.manifest;
        let mut session = Self {
            seed: options.seed.unwrap_or(manifest.train.seed),
            steps: options.steps.or(fixed_steps(&manifest)),
            base: options.base.clone().unwrap_or_else(|| PathBuf::from(".")),
            autosave: options.autosave.unwrap_or(AUTOSAVE),
            step: 0,
            position: 0,
            data: None,
            trained_on: TrainedOn::new(options.accept_changed_data),
            ahead: None,
            tokenizer: None,
            numbers: manifest.entry("step").map(|entry| Numbers::of(&entry.outputs)).unwrap_or_default(),
            private: Private::new(&manifest)?,
            manifest,
            device,
        };
        if session.private.is_some() {
            Private::name_numbers(&mut session.numbers);
        }
        session.initialise(threads)?;
        Ok(session)
    }

    /// Fills a fresh arena, which is zero. That of a device is filled by this machine's threads too.
    fn initialise(&mut self, threads: usize) -> Result<()> {
        for tensor in self.manifest.tensors.iter().filter(|tensor| !init::is_zero(&tensor.init)) {
            self.device.write(tensor.offset, tensor.bytes(), |out| {
                init::fill(&tensor.init, tensor.dtype, self.seed, threads, out);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What the program is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device it runs on, to record runs.
    pub fn device_mut(&mut self) -> &mut Device {
        &mut self.device
    }

    /// Updates made so far; the next one has this number.
    pub fn steps_done(&self) -> u32 {
        self.step
    }

    /// The horizon in updates. `None` if the program counts epochs and its data is not open yet; see
    /// [`Session::horizon`].
    pub fn steps(&self) -> Option<u32> {
        self.steps
    }

    /// The horizon in updates. If the program counts epochs, its data is opened to learn how long one is.
    ///
    /// # Errors
    /// When that data cannot be used, or so many epochs are more steps than can be counted.
    pub fn horizon(&mut self) -> Result<u32> {
        if let Some(steps) = self.steps {
            return Ok(steps);
        }
        let records = self.open_data()?.train_records();
        let batch = self.samples_per_step()?;
        let Some(steps) = self.manifest.train.steps.horizon(records, batch) else {
            return Error::misuse(format!("so many epochs of {records} records are more than {} steps", u32::MAX));
        };
        self.steps = Some(steps);
        Ok(steps)
    }

    /// Whether an interval of the program ends with the update made last.
    pub(crate) fn completes(&mut self, interval: Duration) -> Result<bool> {
        let records = match interval {
            Duration::Steps(_) => 0,
            Duration::Epochs { .. } => self.open_data()?.train_records(),
        };
        let batch = self.samples_per_step()?;
        Ok(interval.ends_with(self.step, records, batch))
    }

    /// Samples of an update; of a private one, expected.
    fn samples_per_step(&self) -> Result<u64> {
        match &self.manifest.private {
            Some(private) => Ok(private.expected_batch),
            None => Ok(batch_size(entry(&self.manifest, "step")?)),
        }
    }

    /// The seed of every draw but those of secure private training.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where relative paths of the program's data start.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// How long a run goes on unsaved whose program does not say when to save.
    pub(crate) fn autosave(&self) -> std::time::Duration {
        self.autosave
    }

    /// Opens the program's data now rather than at the first step, so that its faults show early.
    ///
    /// # Errors
    /// When the program has no data, or it cannot be used.
    pub fn open_data(&mut self) -> Result<&Data> {
        if self.data.is_none() {
            let Some(spec) = &self.manifest.data else {
                return Error::misuse("the program has no data: feed batches with `step_with`");
            };
            let needs = Need::of_program(&self.manifest.entries).map_err(Error::Misuse)?;
            let data = Data::open(spec, &needs, &self.base)?;
            self.private.as_ref().map_or(Ok(()), |private| private.check_records(data.train_records()))?;
            self.trained_on.opened(Fingerprint::of(spec, &data, &self.base)?)?;
            self.data = Some(data);
        }
        Ok(self.data.as_ref().expect("just opened"))
    }

    /// How the data differ from those of the checkpoint that the session goes on from, as far as they have been opened; `None` if
    /// they do not.
    pub fn data_change(&self) -> Option<&str> {
        self.trained_on.change()
    }

    /// Makes one update with the next batch of the program's data; of a private program, with samples drawn from them.
    ///
    /// # Errors
    /// When the data cannot be used, the horizon has been reached, or the privacy budget is spent.
    pub fn step(&mut self) -> Result<&Numbers> {
        self.open_data()?;
        if self.private.is_some() {
            return self.private_step();
        }
        self.feed_step()?;
        self.check_horizon()?;
        self.execute("step")?;
        self.send_ahead();
        self.finish_update()
    }

    /// Gives the step the next batch of the data, which may be on its way already.
    fn feed_step(&mut self) -> Result<()> {
        let entry = entry(&self.manifest, "step")?;
        if self.ahead.take() == Some((self.position, self.seed)) {
            return Ok(self.device.take_ahead(entry)?);
        }
        self.feed("step", Split::Train, self.position)
    }

    /// What the next step will be fed from the program's data, input by input.
    ///
    /// # Errors
    /// When the data cannot be used.
    pub fn next_inputs(&mut self) -> Result<Vec<(InputBinding, Values)>> {
        self.open_data()?;
        self.feed("step", Split::Train, self.position)?;
        let inputs = entry(&self.manifest, "step")?.inputs.clone();
        let read = |input: InputBinding| {
            let values = Values::read(input.dtype, &self.device.read(input.offset, input.bytes())?);
            Ok((input, values))
        };
        inputs.into_iter().map(read).collect()
    }

    /// Gives an entry the batch of the data that begins at a position.
    fn feed(&mut self, name: &str, split: Split, position: u64) -> Result<()> {
        let data = self.data.as_ref().expect("opened");
        entry(&self.manifest, name)?.inputs.iter().try_for_each(|input| {
            let row_bytes = input.record_elements() * input.dtype.bytes();
            self.device.write_rows(input.offset, input.bytes(), row_bytes, |row, out| {
                Ok(data.feed(split, input, position + row, self.seed, out)?)
            })
        })
    }

    /// Has the batch after this one brought to the device while the step runs. What is wrong with it is an error when its
    /// turn comes.
    fn send_ahead(&mut self) {
        let (Some(data), Ok(entry)) = (&self.data, entry(&self.manifest, "step")) else { return };
        let next = self.position + batch_size(entry);
        let fill = |input: &InputBinding, out: &mut [u8]| Ok(data.feed(Split::Train, input, next, self.seed, out)?);
        let is_last = self.steps.is_some_and(|steps| self.step + 1 >= steps);
        let sent = !is_last && self.device.send_ahead(entry, fill).unwrap_or(false);
        self.ahead = sent.then_some((next, self.seed));
    }

    /// Makes one update with a batch of your own.
    ///
    /// The account of a private program takes it for a batch that was drawn as the program says; whoever draws answers for
    /// that.
    ///
    /// # Errors
    /// When the batch does not fit the model, the horizon has been reached, or the privacy budget is spent. A horizon in
    /// epochs is one in the program's own data, which must then be there, unless [`Options::steps`] gives another.
    pub fn step_with(&mut self, batch: &Batch) -> Result<&Numbers> {
        if self.private.is_some() {
            return self.private_step_with(batch);
        }
        batch.feed(entry(&self.manifest, "step")?, &mut self.device)?;
        self.update()
    }

    fn check_horizon(&mut self) -> Result<()> {
        let steps = self.horizon()?;
        match self.step < steps {
            true => Ok(()),
            false => Error::misuse(format!("the run has made all its {steps} steps")),
        }
    }

    fn update(&mut self) -> Result<&Numbers> {
        self.check_horizon()?;
        self.execute("step")?;
        self.finish_update()
    }

    fn finish_update(&mut self) -> Result<&Numbers> {
        let entry = entry(&self.manifest, "step")?;
        read_numbers(&self.device, entry, |index, value| self.numbers.values_mut()[index] = value)?;
        self.step += 1;
        self.position += batch_size(entry);
        Ok(&self.numbers)
    }

    /// What the last step reported.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Runs an entry on what its inputs hold.
    fn execute(&mut self, name: &str) -> Result<()> {
        let control = Control {
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
            step: self.step,
            // Only the step knows schedules, and it knows the horizon.
            steps: self.steps.unwrap_or(0),
            key: self.private.as_ref().map_or([0; 8], Private::key_words),
        };
        let bytes = bytemuck::bytes_of(&control);
        self.device.write(self.manifest.control_offset, bytes.len() as u64, |out| {
            out.copy_from_slice(bytes);
            Ok(())
        })?;
        Ok(self.device.run(entry(&self.manifest, name)?)?)
    }

    /// The tensors that live across steps.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.manifest.tensors
    }

    /// Number of parameters of the model.
    pub fn parameters(&self) -> u64 {
        let parameters =
            self.manifest.tensors.iter().filter(|tensor| matches!(tensor.kind, TensorKind::Parameter { .. }));
        parameters.map(TensorSpec::elements).sum()
    }

    /// The elements of a tensor, row-major.
    ///
    /// # Errors
    /// When there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Values> {
        let tensor = self.tensor_spec(name)?;
        Ok(Values::read(tensor.dtype, &self.device.read(tensor.offset, tensor.bytes())?))
    }

    /// Replaces the elements of a tensor.
    ///
    /// # Errors
    /// When there is no such tensor, or the number or kind of elements differs.
    pub fn set_tensor(&mut self, name: &str, values: &Values) -> Result<()> {
        let tensor = self.tensor_spec(name)?;
        let (dtype, offset, bytes, elements) = (tensor.dtype, tensor.offset, tensor.bytes(), tensor.elements());
        if values.len() as u64 != elements {
            return Error::misuse(format!("tensor `{name}` has {elements} elements, not {}", values.len()));
        }
        self.device.write(offset, bytes, |out| match values.write(0, dtype, out) {
            true => Ok(()),
            false => Error::misuse(format!("tensor `{name}` holds {dtype:?}")),
        })
    }

    fn tensor_spec(&self, name: &str) -> Result<&TensorSpec> {
        let found = self.manifest.tensors.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| Error::Misuse(format!("there is no tensor `{name}`")))
    }

    /// An output of an entry as the last run of that entry left it. Other entries may since have used its memory.
    ///
    /// # Errors
    /// When there is no such entry or output.
    pub fn output(&self, entry_name: &str, name: &str) -> Result<Values> {
        let found = entry(&self.manifest, entry_name)?.outputs.iter().find(|output| output.name == name);
        let output = found.ok_or_else(|| Error::Misuse(format!("`{entry_name}` has no output `{name}`")))?;
        Ok(Values::read(output.dtype, &self.device.read(output.offset, output.bytes())?))
    }

    /// Writes a checkpoint to a directory, atomically.
    ///
    /// # Errors
    /// When a tensor is not finite, or the file system refuses; what was there before is then untouched.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<()> {
        let bytes = |tensor: &TensorSpec| self.device.read(tensor.offset, tensor.bytes());
        let contents = self.manifest.tensors.iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<(&TensorSpec, &[u8])> =
            self.manifest.tensors.iter().zip(contents.iter().map(AsRef::as_ref)).collect();
        self.check_finite(&tensors)?;
        checkpoint::write(directory.as_ref(), &self.state(), &tensors)?;
        Ok(())
    }

    fn state(&self) -> State {
        State {
            format: checkpoint::FORMAT_VERSION,
            program: self.manifest.name.clone(),
            program_digest: self.manifest.program_digest.clone(),
            seed: self.seed,
            step: self.step,
            position: self.position,
            controllers: self.private.iter().map(|private| (PRIVACY.to_owned(), private.to_json())).collect(),
            data: self.trained_on.fingerprint().cloned(),
            numbers: self.finite_numbers(),
        }
    }

    /// JSON knows no others.
    fn finite_numbers(&self) -> BTreeMap<String, f64> {
        let finite = self.numbers.iter().filter(|(_, value)| value.is_finite());
        finite.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn check_finite(&self, tensors: &[(&TensorSpec, &[u8])]) -> Result<()> {
        for &(tensor, bytes) in tensors {
            if let Some(value) = float_check::first_not_finite(tensor.dtype, bytes) {
                let what = format!("an element of `{}`", tensor.name);
                return Err(Error::Diverged { what, value, step: self.step });
            }
        }
        Ok(())
    }

    /// Continues from a checkpoint: tensors, seed, step and position in the data. The program must be the same.
    ///
    /// # Errors
    /// When the checkpoint is damaged, of another program, or cannot be read; the session is then unchanged unless
    /// the file system fails halfway.
    pub fn load(&mut self, directory: impl AsRef<Path>) -> Result<()> {
        self.restore(&checkpoint::open(directory.as_ref())?)
    }

    /// Continues from an opened checkpoint, as [`Session::load`].
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn restore(&mut self, opened: &Opened) -> Result<()> {
        self.check(opened)?;
        let state = opened.state();
        self.trained_on.check(state.data.as_ref())?;
        if let Some(private) = &mut self.private {
            let account = state.controllers.get(PRIVACY);
            private.restore(account, state.step).map_err(|reason| opened.damaged(reason))?;
        }
        for tensor in &self.manifest.tensors {
            self.device.write(tensor.offset, tensor.bytes(), |out| Ok(opened.read_tensor(&tensor.name, out)?))?;
        }
        (self.seed, self.step, self.position) = (state.seed, state.step, state.position);
        self.trained_on.restored(state.data.as_ref());
        for (slot, value) in self.numbers.slots_mut() {
            *value = state.numbers.get(slot).copied().unwrap_or(0.0);
        }
        Ok(())
    }

    /// Whether a checkpoint is one of this program, at a position in the data that its step can have.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check(&self, opened: &Opened) -> Result<(), CheckpointError> {
        opened.check(&self.manifest)?;
        let State { step, position, .. } = *opened.state();
        let rows = self.manifest.entry("step").map_or(0, batch_size);
        let read = u64::from(step) * rows;
        let is_possible = match self.manifest.private.as_ref().map(|private| &private.sampling) {
            None => position == read,
            Some(Sampling::Poisson { .. }) => position == 0,
            // Batches that the caller drew are not read from the data.
            Some(Sampling::Shuffled) => position <= read && position.is_multiple_of(rows.max(1)),
        };
        match is_possible {
            true => Ok(()),
            false => Err(opened.foreign(format!("after step {step} no run stands at record {position} of its data"))),
        }
    }

    /// Starts from the parameters of a checkpoint of any program that has them: for fine-tuning. Optimizer state, step and
    /// position stay as they are.
    ///
    /// # Errors
    /// When the checkpoint cannot be used, lacks a parameter, or has it in another shape.
    pub fn adopt(&mut self, checkpoint: impl AsRef<Path>) -> Result<()> {
        let opened = checkpoint::open(checkpoint.as_ref())?;
        opened.check_parameters(&self.manifest)?;
        let parameters =
            self.manifest.tensors.iter().filter(|tensor| matches!(tensor.kind, TensorKind::Parameter { .. }));
        for tensor in parameters {
            self.device.write(tensor.offset, tensor.bytes(), |out| Ok(opened.read_tensor(&tensor.name, out)?))?;
        }
        Ok(())
    }

    /// The tokenizer of the program's data.
    ///
    /// # Errors
    /// When the program has none, or its file cannot be used.
    pub fn tokenizer(&mut self) -> Result<&Tokenizer> {
        if self.tokenizer.is_none() {
            let Some(spec) = self.manifest.data.as_ref().and_then(|data| tokenizer_spec(&data.source)) else {
                return Error::misuse("the program's data is not text: there is no tokenizer");
            };
            let tokenizer = Tokenizer::load(spec, &self.base)?;
            self.trained_on.opened_tokenizer(tokenizer_digest(spec, &self.base)?.as_deref())?;
            self.tokenizer = Some(tokenizer);
        }
        Ok(self.tokenizer.as_ref().expect("just loaded"))
    }
}

fn threads(options: &Options) -> Result<usize> {
    let threads = options.threads.unwrap_or_else(|| processors().min(MOST_THREADS));
    match threads {
        0 => Error::misuse("the number of threads is at least 1"),
        1..=MOST_THREADS => Ok(threads),
        _ => Error::misuse(format!(
            "{threads} threads are more than the {MOST_THREADS} that a run can have; more than this machine's {} processors \
             make nothing faster",
            processors()
        )),
    }
}

fn tokenizer_spec(source: &Source) -> Option<&TokenizerSpec> {
    match source {
        Source::Text { tokenizer, .. } | Source::Jsonl { tokenizer, .. } => Some(tokenizer),
        _ => None,
    }
}

fn entry<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Entry> {
    manifest.entry(name).ok_or_else(|| Error::Misuse(format!("the program `{}` cannot {name}", manifest.name)))
}

/// The horizon, if it does not depend on the data.
fn fixed_steps(manifest: &Manifest) -> Option<u32> {
    match manifest.train.steps {
        Duration::Steps(steps) => Some(steps),
        Duration::Epochs { .. } => None,
    }
}

/// Records that one call of an entry consumes.
fn batch_size(entry: &Entry) -> u64 {
    entry.inputs.iter().map(InputBinding::batch).max().unwrap_or(0)
}

fn read_numbers(device: &Device, entry: &Entry, mut store: impl FnMut(usize, f64)) -> Result<()> {
    for (index, output) in entry.outputs.iter().filter(|output| is_number(output)).enumerate() {
        store(index, first_number(output.dtype, &device.read(output.offset, output.bytes())?));
    }
    Ok(())
}
