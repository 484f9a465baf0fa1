//! Where batches come from: sources, tokenizers, packing, splitting, shuffling.
//!
//! Everything is a function of `(seed, position)`, where `position` counts the records consumed so far: a run that
//! resumes at a position sees exactly the records that an uninterrupted one would have seen. Record `position % n` of
//! epoch `position / n` stands at [`Permutation::at`] of the training records; batches may straddle epochs.

#[cfg(feature = "tokenizers")]
mod charsmap;
mod corpus;
mod csv;
mod error;
mod fingerprint;
mod hash;
mod need;
mod npy;
mod npz;
mod packing;
mod paths;
pub(crate) mod permutation;
pub(crate) mod poisson;
mod signature;
mod store;
mod table;
mod token_file;
mod tokenizer;

pub use corpus::Corpus;
pub use error::DataError;
pub(crate) use fingerprint::tokenizer_digest;
pub use fingerprint::{DIGESTED, Digested, Fingerprint};
pub use hash::{hash, unit};
pub use need::Need;
pub use packing::PackedTokens;
pub use permutation::Permutation;
pub use poisson::{Poisson, Randomness};
pub use store::{TokenStore, TokenWriter, Width};
pub use table::{Column, Scalar, Table, write_numbers};
pub use tokenizer::Tokenizer;

use crate::artifact::{DType, DataSpec, HashField, InputBinding, Source};
use std::path::Path;
use std::sync::Arc;

/// The key under which records of a table are chosen for evaluation: not the run's seed, so that runs with different
/// seeds are evaluated on the same records.
const SPLIT_KEY: u64 = u64::from_le_bytes(*b"held out");

/// Exclusive bound of ids where the model has none.
const IDS: u64 = 1 << 31;

/// A program's data, opened and checked against its model.
pub struct Data {
    train: Part,
    valid: Option<Part>,
    shuffle: bool,
}

/// Which records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training, in the order of the run.
    Train,
    /// For evaluation, in a fixed order.
    Valid,
}

/// The records for one purpose.
struct Part {
    records: Records,
    count: u64,
}

enum Records {
    Tokens(PackedTokens),
    Rows { table: Arc<Table>, rows: Rows },
    Hash(HashRecords),
}

/// Which rows of a table.
enum Rows {
    /// Consecutive ones.
    From(u64),
    /// Those that a permutation puts at consecutive places.
    Permuted(Permutation, u64),
}

impl Data {
    /// Opens the data and checks that it fits.
    ///
    /// # Errors
    /// When files are missing or damaged, or the model cannot take what they hold.
    pub fn open(spec: &DataSpec, needs: &[Need], base: &Path) -> Result<Self, DataError> {
        let misfit = |problem: String| DataError::Misfit { data: spec.name.clone(), problem };
        let (train, valid) = match &spec.source {
            Source::Hash { fields } => open_hash(fields, needs).map_err(misfit)?,
            Source::Csv { paths, header, fields } => {
                let columns = csv::read(paths, base, *header, fields, needs)?;
                open_table(columns, spec, needs).map_err(misfit)?
            }
            Source::Arrays { path, fields } => {
                open_table(npy::read(path, base, fields)?, spec, needs).map_err(misfit)?
            }
            Source::Text { .. } | Source::Jsonl { .. } | Source::Tokens { .. } => open_corpus(spec, needs, base)?,
        };
        let batch = needs.iter().map(|need| need.batch).max().unwrap_or(1);
        if train.count < batch {
            let problem = format!("a batch takes {batch} records, and there are {} to train on", train.count);
            return Err(misfit(problem));
        }
        let valid = valid.filter(|part| part.count > 0);
        let shuffle = spec.shuffle && !matches!(train.records, Records::Hash(_));
        Ok(Self { train, valid, shuffle })
    }

    /// Number of training records: an epoch.
    pub fn train_records(&self) -> u64 {
        self.train.count
    }

    /// Number of records held out.
    pub fn valid_records(&self) -> u64 {
        self.valid.as_ref().map_or(0, |part| part.count)
    }

    /// Writes the batch that begins at `position` into the binding's buffer.
    ///
    /// # Errors
    /// When data cannot be read (any more) or holds what the model cannot take.
    pub fn feed(
        &self,
        split: Split,
        binding: &InputBinding,
        position: u64,
        seed: u64,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let part = match split {
            Split::Train => &self.train,
            Split::Valid => self.valid.as_ref().expect("evaluation is only asked for where records are held out"),
        };
        let record_bytes = (binding.record_elements() * binding.dtype.bytes()) as usize;
        let mut shuffled = None;
        for (row, out) in out.chunks_exact_mut(record_bytes).enumerate() {
            let position = position + row as u64;
            let (epoch, place) = ((position / part.count) as u32, position % part.count);
            let record = if split == Split::Train && self.shuffle {
                let order = match shuffled {
                    Some((known, order)) if known == epoch => order,
                    _ => Permutation::new(part.count, seed, epoch),
                };
                shuffled = Some((epoch, order));
                order.at(place)
            } else {
                place
            };
            part.read(record, binding, out)?;
        }
        Ok(())
    }
}

impl Data {
    /// The training record at a position of the run's order.
    pub fn record_at(&self, position: u64, seed: u64) -> u64 {
        let (epoch, place) = ((position / self.train.count) as u32, position % self.train.count);
        if self.shuffle { Permutation::new(self.train.count, seed, epoch).at(place) } else { place }
    }

    /// Writes these training records into the first rows of the binding's buffer, zeros into the others and into those that
    /// `blank` says.
    ///
    /// # Errors
    /// As [`Data::feed`].
    pub fn feed_records(
        &self,
        records: &[u64],
        blank: &[bool],
        binding: &InputBinding,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let record_bytes = (binding.record_elements() * binding.dtype.bytes()) as usize;
        for (row, out) in out.chunks_exact_mut(record_bytes).enumerate() {
            match records.get(row) {
                Some(&record) if !blank[row] => self.train.read(record, binding, out)?,
                _ => out.fill(0),
            }
        }
        Ok(())
    }
}

impl Part {
    fn read(&self, record: u64, binding: &InputBinding, out: &mut [u8]) -> Result<(), DataError> {
        match &self.records {
            Records::Tokens(tokens) => {
                let out: &mut [i32] = bytemuck::cast_slice_mut(out);
                tokens.read(record, binding.shift, out)?;
                need::check_range(out, binding, record)
            }
            Records::Rows { table, rows } => {
                let row = match rows {
                    Rows::From(first) => first + record,
                    Rows::Permuted(order, first) => order.at(first + record),
                };
                table.read(&binding.field, row, binding.shift, binding.dtype, out)
            }
            Records::Hash(fields) => {
                fields.read(record, binding, out);
                Ok(())
            }
        }
    }
}

/// The fields of [`Source::Hash`] and the numbers per record of each.
#[derive(Clone)]
struct HashRecords(Vec<(HashField, u64)>);

impl HashRecords {
    fn read(&self, record: u64, binding: &InputBinding, out: &mut [u8]) {
        let (field, elements) =
            self.0.iter().find(|(field, _)| field.name == binding.field).expect("fields are checked when opened");
        let begin = record * elements + binding.shift;
        let number = |index: u64| match field.below {
            Some(below) => (hash(field.stream, index) % below) as f64,
            None => unit(field.stream, index),
        };
        write_numbers((begin..).map(number), binding.dtype, out);
    }
}

fn open_hash(fields: &[HashField], needs: &[Need]) -> Result<(Part, Option<Part>), String> {
    need::all_provided(needs, fields.iter().map(|field| field.name.clone()))?;
    let mut records = Vec::new();
    for need in needs {
        let field = fields.iter().find(|field| field.name == need.field).expect("provided");
        let name = &field.name;
        match field.below {
            Some(0) => return Err(format!("field `{name}` has no values: `below` is 0")),
            Some(below) if need.below.is_some_and(|limit| below > limit) => {
                return Err(format!("field `{name}` has integers below {below}, {}", need.expectation()));
            }
            None if need.integer => return Err(format!("field `{name}` holds fractions, {}", need.expectation())),
            _ => records.push((field.clone(), need.record_elements())),
        }
    }
    // One batch, the same every step, for training and evaluation alike.
    let count = needs.iter().map(|need| need.batch).max().unwrap_or(1);
    let part = || Part { records: Records::Hash(HashRecords(records.clone())), count };
    Ok((part(), Some(part())))
}

fn open_table(columns: Vec<Column>, spec: &DataSpec, needs: &[Need]) -> Result<(Part, Option<Part>), String> {
    let table = Arc::new(Table::new(columns, needs)?);
    need::all_provided(needs, table.fields().into_iter())?;
    let total = table.records();
    if total == 0 {
        return Err("it has no records".to_owned());
    }
    let held_out = match spec.valid_fraction > 0.0 {
        true => ((total as f64 * spec.valid_fraction).round() as u64).clamp(1, total),
        false => 0,
    };
    let train = total - held_out;
    // In file order the last records are held out; otherwise a random choice.
    let (train_rows, valid_rows) = match spec.shuffle {
        false => (Rows::From(0), Rows::From(train)),
        true => {
            let order = Permutation::new(total, SPLIT_KEY, 0);
            (Rows::Permuted(order, 0), Rows::Permuted(order, train))
        }
    };
    let part = |rows, count| Part { records: Records::Rows { table: Arc::clone(&table), rows }, count };
    Ok((part(train_rows, train), Some(part(valid_rows, held_out))))
}

fn open_corpus(spec: &DataSpec, needs: &[Need], base: &Path) -> Result<(Part, Option<Part>), DataError> {
    let misfit = |problem: String| DataError::Misfit { data: spec.name.clone(), problem };
    need::all_provided(needs, std::iter::once("tokens".to_owned())).map_err(misfit)?;
    let Some(need) = needs.first() else { return Err(misfit("the model takes no input".to_owned())) };
    if need.dtypes.iter().any(|&dtype| dtype != DType::I32) {
        return Err(misfit("text gives integers, but the model's input takes other numbers".to_owned()));
    }
    let corpus = read_corpus(&spec.source, need, base)?.map_err(misfit)?;
    let tokens = Arc::new(corpus.tokens);
    let (train, valid) = packing::split(&corpus.ends, spec.valid_fraction);
    let pack = |stretches: &[_]| PackedTokens::new(Arc::clone(&tokens), stretches, need.elements, need.lookahead);
    let part = |packed: PackedTokens| Part { count: packed.records(), records: Records::Tokens(packed) };
    let (train, valid) = (pack(&train), pack(&valid));
    let enough = |packed: &PackedTokens, what: &str| match packed.records() {
        0 => Err(misfit(format!(
            "{} tokens {what} do not make one record of {}",
            packed.tokens(),
            need.record_elements()
        ))),
        _ => Ok(()),
    };
    enough(&train, "for training")?;
    if spec.valid_fraction > 0.0 {
        enough(&valid, "for evaluation")?;
    }
    Ok((part(train), Some(part(valid))))
}

/// Reads and tokenises; the inner error is a misfit.
fn read_corpus(source: &Source, need: &Need, base: &Path) -> Result<Result<Corpus, String>, DataError> {
    let tokenizer = match source {
        Source::Text { tokenizer, .. } | Source::Jsonl { tokenizer, .. } => Some(Tokenizer::load(tokenizer, base)?),
        _ => None,
    };
    let below = need.below.unwrap_or(IDS);
    if let Some(bound) = tokenizer.as_ref().map(Tokenizer::bound).filter(|&bound| bound > below) {
        let largest = bound - 1;
        return Ok(Err(format!("the tokenizer has ids up to {largest}, but the model takes those below {below}")));
    }
    let corpus = match (source, &tokenizer) {
        (Source::Text { paths, .. }, Some(tokenizer)) => Corpus::from_files(paths, base, tokenizer)?,
        (Source::Jsonl { paths, member, .. }, Some(tokenizer)) => {
            Corpus::from_json_lines(paths, base, member, tokenizer)?
        }
        (Source::Tokens { paths, width }, _) => Corpus::from_token_files(paths, base, *width)?,
        _ => unreachable!("only text has tokens"),
    };
    if tokenizer.is_none()
        && let Some((at, token)) = corpus.tokens.first_outside(below)?
    {
        let (low, high) = (u64::from(token & 0xffff), u64::from(token >> 16));
        let hint = match low < below && high < below && matches!(source, Source::Tokens { width: 4, .. }) {
            true => format!("; as two ids of 2 bytes it would be {low} and {high}: `width 2`?"),
            false => String::new(),
        };
        return Ok(Err(format!("token {at} is {token}, but the model's vocabulary is {below}{hint}")));
    }
    Ok(Ok(corpus))
}
