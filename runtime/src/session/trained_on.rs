//! Which data a session goes on with, beside those that its checkpoint was trained on.

use crate::data::Fingerprint;
use crate::error::{Error, Result};

/// The data of the checkpoint that was restored or, once they are open, those that are fed.
#[derive(Default)]
pub(super) struct TrainedOn {
    fingerprint: Option<Fingerprint>,
    /// Whether the fingerprint is of data that are open.
    open: bool,
    /// Whether other data than the checkpoint's are taken.
    accepts_change: bool,
    /// How data have changed that were taken nonetheless.
    change: Option<String>,
}

impl TrainedOn {
    pub(super) fn new(accepts_change: bool) -> Self {
        Self { accepts_change, ..Self::default() }
    }

    pub(super) fn fingerprint(&self) -> Option<&Fingerprint> {
        self.fingerprint.as_ref()
    }

    pub(super) fn change(&self) -> Option<&str> {
        self.change.as_deref()
    }

    /// Takes data that have just been opened, unless they are others than the checkpoint's.
    pub(super) fn opened(&mut self, found: Fingerprint) -> Result<()> {
        self.judge(self.fingerprint.as_ref().and_then(|then| then.difference(&found)))?;
        (self.fingerprint, self.open) = (Some(found), true);
        Ok(())
    }

    /// The same for the tokenizer alone, by its digest.
    pub(super) fn opened_tokenizer(&mut self, found: Option<&str>) -> Result<()> {
        let changed = self.fingerprint.as_ref().is_some_and(|then| then.tokenizer.as_deref() != found);
        self.judge(changed.then(|| "the tokenizer is another one".to_owned()))
    }

    /// Refuses a checkpoint of other data than those that are open.
    pub(super) fn check(&mut self, checkpoint: Option<&Fingerprint>) -> Result<()> {
        let open = self.fingerprint.as_ref().filter(|_| self.open);
        self.judge(checkpoint.zip(open).and_then(|(then, now)| then.difference(now)))
    }

    /// Goes on from a checkpoint that has been checked.
    pub(super) fn restored(&mut self, checkpoint: Option<&Fingerprint>) {
        if !self.open {
            self.fingerprint = checkpoint.cloned();
        }
    }

    fn judge(&mut self, change: Option<String>) -> Result<()> {
        match change {
            Some(difference) if !self.accepts_change => return Err(Error::DataChanged { difference }),
            Some(difference) => self.change = Some(difference),
            None => {}
        }
        Ok(())
    }
}
