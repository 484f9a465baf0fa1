//! What a run tells about itself: a line per step, event files for TensorBoard, a summary, and an observer for
//! whatever a program wants to show meanwhile.

mod metrics;
mod summary;
mod tensorboard;

pub use metrics::MetricsFile;
pub use summary::{Summary, Timing, peak_memory};
pub use tensorboard::EventFile;

use crate::numbers::Numbers;
use crate::session::Session;
use std::path::Path;

/// One update, as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The update's number, counted from 1; its loss is that before the update.
    pub step: u32,
    /// The horizon.
    pub steps: u32,
    /// What the step reported.
    pub numbers: &'a Numbers,
    /// How long it took, reading its batch included.
    pub seconds: f64,
    /// Items (tokens or samples) per second, averaged over this run.
    pub items_per_second: f64,
}

/// Is told what happens during training. All methods do nothing unless implemented.
#[allow(unused_variables, reason = "the defaults ignore what they are told")]
pub trait Observer {
    /// Training begins (or continues).
    fn started(&mut self, session: &Session) {}
    /// An update has been made.
    fn stepped(&mut self, progress: &Progress<'_>) {}
    /// The held-out records have been evaluated after `step` updates.
    fn evaluated(&mut self, step: u32, numbers: &Numbers) {}
    /// A checkpoint after `step` updates is safe on disk.
    fn saved(&mut self, step: u32, path: &Path) {}
    /// Something is wrong that does not end the run.
    fn warned(&mut self, text: &str) {}
}

/// Looks away.
impl Observer for () {}
