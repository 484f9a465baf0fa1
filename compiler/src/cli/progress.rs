//! What a training run shows: lines on standard output and, where standard error is a terminal, a bar there.

use super::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    path::Path,
    time::{Duration, Instant},
};
use trainc_runtime::{
    Numbers, RECORDS, Session, artifact,
    report::{Observer, Progress},
};

/// How often a log that is no terminal gets a line.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// An observer that writes to standard output and draws on standard error.
#[derive(Default)]
pub struct Terminal {
    bar: Option<ProgressBar>,
    item: String,
    began: Option<Instant>,
    last_line: Option<Instant>,
}

impl Terminal {
    /// Leaves a full bar of a run that has made all its steps, and takes away any other.
    pub fn finish(&mut self, is_complete: bool) {
        match self.bar.take() {
            Some(bar) if is_complete => bar.finish(),
            Some(bar) => bar.finish_and_clear(),
            None => {}
        }
    }

    /// A line, above the bar if both are on one terminal.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::line(text)),
            None => output::line(text),
        }
    }

    /// Whether it is time for a step's line: a bar says as much to who looks at it, but not to a log.
    fn line_is_due(&self, is_last: bool) -> bool {
        let is_seen = self.bar.is_some() && std::io::stdout().is_terminal();
        !is_seen && (is_last || self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL))
    }

    fn state(&self, progress: &Progress) -> String {
        let loss = match progress.numbers.loss() {
            // A private step that drew no sample.
            loss if loss.is_nan() => "-".to_owned(),
            loss => format!("{loss:.4}"),
        };
        let speed = output::count(progress.items_per_second);
        let spent =
            progress.numbers.get("epsilon").map(|epsilon| format!("  epsilon {epsilon:.3}")).unwrap_or_default();
        format!("loss {loss}{spent}  {speed} {}/s", self.item)
    }
}

impl Observer for Terminal {
    fn started(&mut self, session: &Session) {
        let manifest = session.manifest();
        self.item.clone_from(&manifest.train.item);
        self.began = Some(Instant::now());
        self.line(&format!(
            "{}: {} parameters, {} per step, {} of memory, {}",
            manifest.name,
            output::count(session.parameters() as f64),
            format_args!("{} {}", manifest.train.items_per_step, self.item),
            output::bytes(manifest.arena_bytes),
            session.device().describe(),
        ));
        if let (epochs @ artifact::Duration::Epochs { .. }, Some(steps)) = (manifest.train.steps, session.steps()) {
            self.line(&format!("{epochs}: {steps} steps"));
        }
        if std::io::stderr().is_terminal() && anstyle_query::term_supports_ansi_color() {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left").expect("a template");
            let bar = ProgressBar::new(session.steps().map_or(0, u64::from)).with_style(style);
            bar.set_position(u64::from(session.steps_done()));
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn stepped(&mut self, progress: &Progress) {
        let state = self.state(progress);
        let Progress { step, steps, .. } = *progress;
        if self.line_is_due(step == steps) {
            self.last_line = Some(Instant::now());
            let seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
            self.line(&format!("step {step}/{steps}  {state}  {seconds:.0} s"));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(u64::from(step));
            bar.set_message(state);
        }
    }

    fn evaluated(&mut self, step: u32, numbers: &Numbers) {
        let (records, reports): (Vec<_>, Vec<_>) = numbers.iter().partition(|(name, _)| *name == RECORDS);
        let shown: Vec<String> = reports.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let records = records.iter().map(|(_, count)| format!("  ({})", output::records(*count))).collect::<String>();
        self.line(&format!("step {step}  held out: {}{records}", shown.join("  ")));
    }

    fn saved(&mut self, _step: u32, path: &Path) {
        self.line(&format!("saved {}", path.display()));
    }

    fn warned(&mut self, text: &str) {
        self.line(&format!("warning: {text}"));
    }
}
