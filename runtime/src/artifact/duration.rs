//! How long something takes, before or after the data say how long an epoch is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of training. In the manifest a bare number counts steps; `{"epochs": 3.0}` counts passes over the data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Duration {
    /// So many updates.
    Steps(u32),
    /// So many times the training records, whose number is known once the data is open.
    Epochs {
        /// Positive and finite; need not be whole.
        epochs: f64,
    },
}

impl Duration {
    /// In updates that consume `batch` of `records` training records each, not rounded.
    pub fn in_steps(self, records: u64, batch: u64) -> f64 {
        match self {
            Duration::Steps(steps) => f64::from(steps),
            Duration::Epochs { epochs } => epochs * records as f64 / batch.max(1) as f64,
        }
    }

    /// As a horizon: the first update with which it is over. `None` if no run can be that long.
    pub fn horizon(self, records: u64, batch: u64) -> Option<u32> {
        let steps = self.in_steps(records, batch).ceil().max(1.0);
        (steps <= f64::from(u32::MAX)).then_some(steps as u32)
    }

    /// As an interval: whether one ends with update number `done` (counted from 1). Intervals of 0 steps never end.
    pub fn ends_with(self, done: u32, records: u64, batch: u64) -> bool {
        let interval = self.in_steps(records, batch);
        let passed = |steps: u32| (f64::from(steps) / interval).floor();
        interval > 0.0 && done > 0 && passed(done) > passed(done - 1)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Steps(steps) => write!(f, "{steps} steps"),
            Duration::Epochs { epochs } => write!(f, "{epochs} epochs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_become_steps_of_the_data() {
        assert_eq!(Duration::Steps(7).horizon(100, 16), Some(7));
        assert_eq!(Duration::Epochs { epochs: 3.0 }.horizon(100, 16), Some(19), "300 records in batches of 16");
        assert_eq!(Duration::Epochs { epochs: 1e-9 }.horizon(100, 16), Some(1));
        assert_eq!(Duration::Epochs { epochs: 1e12 }.horizon(100, 16), None);
    }

    #[test]
    fn intervals_end_with_the_step_that_completes_them() {
        let ends = |every: Duration| (1..=20).filter(|&done| every.ends_with(done, 100, 16)).collect::<Vec<_>>();
        assert_eq!(ends(Duration::Steps(6)), [6, 12, 18]);
        assert!(ends(Duration::Steps(0)).is_empty());
        assert_eq!(ends(Duration::Epochs { epochs: 1.0 }), [7, 13, 19], "100, 200, 300 of 16 a step");
        assert_eq!(ends(Duration::Epochs { epochs: 0.01 }).len(), 20, "never more than once a step");
    }

    #[test]
    fn steps_are_plain_numbers_in_the_manifest() {
        for (duration, json) in [(Duration::Steps(5), "5"), (Duration::Epochs { epochs: 2.5 }, r#"{"epochs":2.5}"#)] {
            assert_eq!(serde_json::to_string(&duration).unwrap(), json);
            assert_eq!(serde_json::from_str::<Duration>(json).unwrap(), duration);
        }
        assert!(serde_json::from_str::<Duration>("-1").is_err());
    }
}
