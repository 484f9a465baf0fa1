//! `metrics.jsonl`: one line per step, complete as soon as the step is.
//!
//! ```json
//! {"step":200,"loss":2.31,"grad_norm":0.8,"valid_loss":2.35,"ms":41.2}
//! ```
//! `step` counts from 1 and `loss` is that of the step's batch before its update; `valid_*`, where the step was
//! followed by an evaluation, belongs to the parameters after it. Numbers that are not finite are `null`.
//!
//! Private training adds `epsilon`, spent after the step, and `non_finite`, the samples left out so far. The guarantee is for
//! the parameters: `loss` and `non_finite` are about the data as they are and not to be published.

use crate::numbers::Numbers;
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// The file, open for appending.
pub struct MetricsFile {
    file: File,
    line: String,
    cut: u64,
}

#[derive(Deserialize)]
struct Line {
    step: u32,
}

impl MetricsFile {
    /// Opens or creates the file for a run that has made `done` steps: lines of later ones, and whatever cannot be read
    /// (the torn end of a killed process), are cut off.
    ///
    /// # Errors
    /// From the file system.
    pub fn open(path: &Path, done: u32) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let end = end_of_step(done, &file)?;
        file.seek(SeekFrom::Start(end))?;
        let cut = BufReader::new(&file).split(b'\n').count() as u64;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok(Self { file, line: String::new(), cut })
    }

    /// How many lines were cut off: steps that have been made, but not saved.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Appends a step's line.
    ///
    /// # Errors
    /// From the file system.
    pub fn append(&mut self, step: u32, numbers: &Numbers, valid: Option<&Numbers>, ms: f64) -> io::Result<()> {
        self.line.clear();
        let _ = write!(self.line, "{{\"step\":{step}");
        for (name, value) in numbers.iter() {
            write_member(&mut self.line, "", name, value);
        }
        for (name, value) in valid.into_iter().flat_map(Numbers::iter) {
            write_member(&mut self.line, "valid_", name, value);
        }
        write_member(&mut self.line, "", "ms", (ms * 1000.0).round() / 1000.0);
        self.line.push_str("}\n");
        // One write per line: a killed process leaves whole lines, except perhaps on a full disk.
        self.file.write_all(self.line.as_bytes())
    }
}

fn write_member(line: &mut String, prefix: &str, name: &str, value: f64) {
    let name = serde_json::Value::from(format!("{prefix}{name}"));
    let value = serde_json::Number::from_f64(value).map_or(serde_json::Value::Null, Into::into);
    let _ = write!(line, ",{name}:{value}");
}

fn end_of_step(done: u32, file: &File) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut end, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        let complete = line.ends_with(b"\n");
        let belongs = serde_json::from_slice::<Line>(&line).is_ok_and(|line| line.step <= done);
        if !complete || !belongs {
            return Ok(end);
        }
        end += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{DType, OutputBinding};

    fn numbers(loss: f64) -> Numbers {
        let output = OutputBinding { name: "loss".into(), dtype: DType::F32, shape: vec![], offset: 0 };
        let mut numbers = Numbers::of(&[output]);
        numbers.values_mut()[0] = loss;
        numbers
    }

    #[test]
    fn resuming_cuts_later_steps_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = MetricsFile::open(&path, 0).unwrap();
        for step in 1..=4 {
            metrics.append(step, &numbers(f64::from(step) - 0.5), None, 1.25).unwrap();
        }
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":5,\"lo").unwrap();
        let mut metrics = MetricsFile::open(&path, 2).unwrap();
        assert_eq!(metrics.cut(), 3);
        metrics.append(3, &numbers(f64::NAN), Some(&numbers(7.0)), 0.5).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"step\":1,\"loss\":0.5,\"ms\":1.25}\n{\"step\":2,\"loss\":1.5,\"ms\":1.25}\n\
             {\"step\":3,\"loss\":null,\"valid_loss\":7.0,\"ms\":0.5}\n"
        );
    }
}
