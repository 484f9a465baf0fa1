//! `summary.json`: how a run ended.

use crate::artifact::FORMAT_VERSION;
use crate::error::Result;
use crate::numbers::Numbers;
use crate::session::Session;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Limit of what is read of an earlier summary.
const MAX_BYTES: u64 = 16 << 20;

/// Steps whose times are kept for the median.
const MAX_TIMES: usize = 1 << 20;

/// How long steps took.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    seconds: Vec<f64>,
    total: f64,
    count: u64,
}

impl Timing {
    /// Room for the times of `steps` steps.
    pub fn with_capacity(steps: u32) -> Self {
        Self { seconds: Vec::with_capacity((steps as usize).min(MAX_TIMES)), total: 0.0, count: 0 }
    }

    /// Notes a step.
    pub fn add(&mut self, seconds: f64) {
        if self.seconds.len() < MAX_TIMES {
            self.seconds.push(seconds);
        }
        self.total += seconds;
        self.count += 1;
    }

    /// Whether no step was made.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Steps per second, evaluation and saving left out.
    pub fn steps_per_second(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.count as f64 / self.total)
    }

    /// Median time of a step in milliseconds.
    pub fn median_ms(&self) -> Option<f64> {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let upper = seconds.get(seconds.len() / 2)?;
        let lower = seconds[(seconds.len() - 1) / 2];
        Some((lower + upper) / 2.0 * 1e3)
    }
}

/// The end of a run, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary(Value);

impl Summary {
    /// Gathers what there is to say.
    ///
    /// # Errors
    /// When what private training has spent cannot be computed.
    pub fn of(session: &Session, valid: Option<&Numbers>, timing: &Timing) -> Result<Self> {
        let privacy = session.privacy()?;
        let manifest = session.manifest();
        let train = &manifest.train;
        let per_second = |amount: u64| timing.steps_per_second().map(|steps| steps * amount as f64);
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
        put("program", json!(manifest.name));
        put("program_digest", json!(manifest.program_digest));
        put("seed", json!(session.seed()));
        put("steps", json!(session.steps()));
        put("steps_done", json!(session.steps_done()));
        put("parameters", json!(session.parameters()));
        for (name, value) in session.numbers().iter().filter(|_| session.steps_done() > 0) {
            put(name, json!(value));
        }
        for (name, value) in valid.into_iter().flat_map(Numbers::iter) {
            put(&format!("valid_{name}"), json!(value));
        }
        put(&format!("{}_per_second", train.item), json!(per_second(train.items_per_step)));
        put("gflops_per_second", json!(per_second(train.flops_per_step).map(|flops| flops / 1e9)));
        put("step_ms", json!(timing.median_ms()));
        put("seconds", json!(timing.total));
        put("peak_bytes", json!({ "planned": manifest.arena_bytes, "measured": peak_memory() }));
        put("launches_per_step", json!(manifest.entry("step").map(|entry| entry.launches.len())));
        put("epsilon", json!(privacy.as_ref().map(|privacy| privacy.epsilon)));
        if let Some(privacy) = &privacy {
            put("delta", json!(privacy.delta));
            put("epsilon_budget", json!(privacy.budget));
            put("non_finite", json!(privacy.non_finite));
            put("noise", json!(privacy.noise));
        }
        put("threads", json!(session.device().threads()));
        put("isa", json!(session.device().isa()));
        let runtime = env!("CARGO_PKG_VERSION");
        put("versions", json!({ "compiler": manifest.compiler, "runtime": runtime, "format": FORMAT_VERSION }));
        Ok(Self(Value::Object(members)))
    }

    /// A member, e.g. `valid_loss`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// One line of JSON.
    pub fn to_line(&self) -> String {
        self.0.to_string()
    }

    /// Reads the file; `None` if there is none, or it cannot be read.
    pub fn read(path: &Path) -> Option<Self> {
        let json: Value = serde_json::from_slice(&crate::files::read(path, MAX_BYTES).ok()?).ok()?;
        json.is_object().then_some(Self(json))
    }

    /// Whether both are about the same state of the same run.
    pub fn is_of_the_same_state(&self, other: &Self) -> bool {
        let members = ["program_digest", "seed", "steps", "steps_done", "epsilon", "non_finite"];
        members.iter().all(|name| self.get(name) == other.get(name))
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// From the file system.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        crate::atomic::write_file(path, format!("{:#}\n", self.0).as_bytes())
    }
}

/// The most memory this process has had at once, in bytes (Linux' `VmHWM`).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let mut timing = Timing::default();
        assert_eq!(timing.median_ms(), None);
        for (seconds, median) in [(0.004, 4.0), (0.001, 2.5), (0.002, 2.0)] {
            timing.add(seconds);
            assert!((timing.median_ms().unwrap() - median).abs() < 1e-9);
        }
        assert!((timing.steps_per_second().unwrap() - 3.0 / 0.007).abs() < 1e-6);
    }

    #[test]
    fn memory_is_measured() {
        assert!(peak_memory().unwrap() > 1 << 20);
    }
}
