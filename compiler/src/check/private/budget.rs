//! How much noise the guarantee takes: from the budget, how samples are drawn, and the number of updates.

use super::{
    super::evaluator::{Checked, Evaluator},
    Private, Sampling,
};
use crate::{diagnostic::Diagnostic, graph::NodeId, program::TrainSettings, source::Span};
use trainc_runtime::{
    artifact::{InputBinding, PrivateSpec, Sampling as Drawn},
    data::Need,
    privacy,
};

impl Evaluator<'_> {
    /// The guarantee of a program, as the run keeps it.
    pub(in crate::check) fn guarantee(
        &mut self,
        private: &Private,
        data: Option<usize>,
        settings: &TrainSettings,
    ) -> Checked<PrivateSpec> {
        let records = self.private_records(private, data)?;
        if settings.batch > records {
            return self.batch_beyond(private, settings.batch, records);
        }
        if let Some((rows, span)) = private.rows.filter(|(rows, _)| *rows > records) {
            return self.rows_beyond(rows, span, records);
        }
        let rate = settings.batch as f64 / records as f64;
        let delta = self.delta(private, records);
        let Some(steps) = settings.steps.horizon(records, settings.batch) else {
            let error = Diagnostic::error("E0704", private.span, "training is longer than can be counted");
            return self.fail(error.label(format!("{} of {records} records", settings.steps)).help("train for less"));
        };
        let noise_multiplier = self.noise_multiplier(private, rate, delta, steps)?;
        self.warn_of_seed(private);
        Ok(PrivateSpec {
            sampling: match private.sampling {
                Sampling::Poisson => Drawn::Poisson { rate },
                Sampling::ShuffledAsPoisson => Drawn::Shuffled,
            },
            records,
            expected_batch: settings.batch,
            noise_multiplier,
            clip: private.clip.norm,
            delta,
            epsilon: private.epsilon,
            accountant: private.accountant,
            secure: private.secure,
        })
    }

    fn private_records(&mut self, private: &Private, data: Option<usize>) -> Checked<u64> {
        if let Some((records, _)) = private.records {
            return Ok(records);
        }
        let spec = data.map(|index| self.data(index)).transpose()?.map(|data| data.spec);
        let counted = match &spec {
            Some(spec) => (self.count_records)(spec, &self.needs()),
            None => None,
        };
        let reason = match counted {
            Some(Ok(records)) => return Ok(records),
            Some(Err(reason)) => reason,
            None => "the guarantee depends on it".to_string(),
        };
        let error = Diagnostic::error("E0753", private.span, "the number of training records is not known")
            .label(reason)
            .note("a record is a sample of a batch; for text, a window of the context's length")
            .help("write for example `records 60000`");
        self.fail(error)
    }

    /// What the model wants of one record's fields: how many records there are does not depend on the batch.
    fn needs(&self) -> Vec<Need> {
        let binding = |(index, node): (&u32, &NodeId)| {
            let input = &self.registry.inputs[*index as usize];
            let mut shape = self.graph.shape(*node).to_vec();
            shape[0] = 1;
            InputBinding {
                name: input.name.clone(),
                field: input.field.clone(),
                shift: input.shift,
                dtype: input.dtype,
                shape,
                offset: 0,
                below: input.below,
            }
        };
        let inputs: Vec<InputBinding> = self.registry.input_nodes().iter().map(binding).collect();
        Need::of(&inputs).unwrap_or_default()
    }

    fn batch_beyond<T>(&mut self, private: &Private, batch: u64, records: u64) -> Checked<T> {
        let error = Diagnostic::error("E0757", private.span, "a step draws more samples than there are")
            .label(format!("`batch {batch}` of {records} training records"))
            .help(format!("make the batch at most {records}"));
        self.fail(error)
    }

    fn rows_beyond<T>(&mut self, rows: u64, span: Span, records: u64) -> Checked<T> {
        let error = Diagnostic::error("E0757", span, "a physical batch has more rows than there are records")
            .label(format!("{rows} rows for {records} training records"));
        self.fail(error.replace(span, records.to_string(), "write at most their number"))
    }

    fn delta(&mut self, private: &Private, records: u64) -> f64 {
        let Some((delta, span)) = private.delta else { return f64::min(1e-5, (records as f64).powf(-1.1)) };
        if delta > 1.0 / records as f64 {
            let warning = Diagnostic::warning("W0751", span, "`delta` is larger than one over the number of records")
                .label(format!("1 / {records} = {:.2e}", 1.0 / records as f64))
                .note("publishing one record in full would keep to such a guarantee")
                .help(format!("write `delta {:.0e}` or less", (records as f64).powf(-1.1)));
            self.report(warning);
        }
        delta
    }

    fn noise_multiplier(&mut self, private: &Private, rate: f64, delta: f64, steps: u32) -> Checked<f64> {
        if let Some(multiplier) = private.noise_multiplier {
            return Ok(multiplier);
        }
        let epsilon = private.epsilon.expect("the clause says one of the two");
        match privacy::noise_multiplier(epsilon, delta, rate, u64::from(steps), private.accountant) {
            Ok(multiplier) => Ok(multiplier),
            Err(reason) => {
                let error = Diagnostic::error("E0758", private.span, "no amount of noise meets this budget")
                    .label(reason.to_string())
                    .help("allow a larger `epsilon`, or train for fewer steps");
                self.fail(error)
            }
        }
    }

    fn warn_of_seed(&mut self, private: &Private) {
        if private.secure {
            return;
        }
        let warning = Diagnostic::warning("W0752", private.span, "who knows the seed can draw the noise again")
            .label("noise comes from the program's seed")
            .note("runs are repeatable, as research needs it; the guarantee is for those who do not know the seed")
            .help("write `secure` to draw noise that the operating system keys");
        self.report(warning);
    }
}
