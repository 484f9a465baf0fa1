//! The `private` clause: training of which no one can tell, from its result, whether a given sample took part.
//!
//! [`clause`](self) reads the clause; [`clipped`] turns the loss into the sum of the samples' clipped gradients; [`noise`]
//! makes that sum private; [`budget`] finds out how much noise the guarantee takes. What comes out is a gradient like any
//! other: clipping by norm, filters and optimizers work on it as they always do, and cannot weaken the guarantee, since
//! they see nothing else of the data.

mod budget;
mod clipped;
mod entries;
mod noise;

use super::{
    clause::{span_of, word_of},
    evaluator::{Checked, Evaluator},
    groups::Selector,
    train::{Use, clause_of},
};
use crate::{
    clauses,
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Clause, ClauseBlock, DefinitionKind, Expr, ExprKind, Unit, Word},
};
use trainc_runtime::privacy::Accountant;

/// The `private` clause, read.
#[derive(Clone, Debug)]
pub(super) struct Private {
    /// The privacy budget.
    epsilon: Option<f64>,
    /// Probability with which the guarantee may fail; by default `min(1e-5, records^-1.1)`.
    delta: Option<(f64, Span)>,
    /// Standard deviation of the noise in units of the clipping norm, if the program says it.
    noise_multiplier: Option<f64>,
    clip: Clip,
    sampling: Sampling,
    accountant: Accountant,
    /// Training records, if the program says it.
    records: Option<(u64, Span)>,
    /// Rows of a physical batch, if the program says it.
    rows: Option<(u64, Span)>,
    secure: bool,
    /// What happens to the noisy gradient.
    pub filter: Option<Use>,
    /// The keyword.
    pub span: Span,
}

/// How a sample's gradient is bounded.
#[derive(Clone, Debug)]
struct Clip {
    /// The norm that no sample's gradient exceeds.
    norm: f64,
    rule: ClipRule,
    /// Which parameters are clipped together.
    parts: Parts,
}

/// The factor on a sample's gradient of norm n.
#[derive(Clone, Copy, Debug)]
enum ClipRule {
    /// `min(1, C / n)` (Abadi et al. 2016).
    Flat,
    /// `C / (n + stability)` (Bu et al. 2023, AUTO-S; AUTO-V without stability).
    Automatic { stability: f64 },
}

/// Parts of the gradient that are clipped apart, each to `C / sqrt(parts)`, so that together they keep to C.
#[derive(Clone, Debug)]
enum Parts {
    Whole,
    Layers,
    Groups(Vec<Selector>),
}

/// How the samples of a step are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sampling {
    /// Each with the same probability, whatever the others do.
    Poisson,
    /// In shuffled order, accounted for as if drawn at random.
    ShuffledAsPoisson,
}

/// Stability of automatic clipping where the program does not say it (Bu et al. 2023).
const STABILITY: f64 = 0.01;

impl Evaluator<'_> {
    /// Reads the clause, if there is one.
    pub(super) fn private(&mut self, train: &ClauseBlock) -> Checked<Option<Private>> {
        let Some(clause) = clause_of(train, "private") else { return Ok(None) };
        let Some(clauses) = &clause.block else { return self.malformed(clause, "expected `{ ... }`") };
        let block = ClauseBlock { name: None, clauses: clauses.clone(), span: clause.span };
        self.known_clauses(&block, &clauses::PRIVATE);
        let positive = |this: &mut Self, word: &str| this.positive(&block, word);
        let (epsilon, delta) = (positive(self, "epsilon"), positive(self, "delta"));
        let noise_multiplier = positive(self, "noise_multiplier");
        if let (Ok(None), Ok(None)) = (epsilon, noise_multiplier) {
            return self.no_amount(clause);
        }
        let delta = delta.and_then(|delta| self.probability(delta));
        let (clip, sampling, accountant) =
            (self.clipping(&block, clause), self.sampling(&block), self.accountant(&block));
        let (records, rows) = (self.counted(&block, "records"), self.counted(&block, "rows"));
        let secure = self.secure(&block);
        let filter = clause_of(&block, "filter").map(|clause| self.used(clause, DefinitionKind::Filter)).transpose();
        let private = Private {
            epsilon: epsilon?.map(|(epsilon, _)| epsilon),
            delta: delta?,
            noise_multiplier: noise_multiplier?.map(|(multiplier, _)| multiplier),
            clip: clip?,
            sampling: sampling?,
            accountant: accountant?,
            records: records?,
            rows: rows?,
            secure: secure?,
            filter: filter?,
            span: clause.keyword.span,
        };
        self.warn_of_metrics(train);
        Ok(Some(private))
    }

    fn no_amount<T>(&mut self, clause: &Clause) -> Checked<T> {
        let error = Diagnostic::error("E0750", clause.keyword.span, "the program does not say how private it is")
            .label("needs `epsilon` or `noise_multiplier`")
            .help("write for example `epsilon 3`; the noise that it takes is found out");
        self.fail(error)
    }

    fn positive(&mut self, block: &ClauseBlock, keyword: &str) -> Checked<Option<(f64, Span)>> {
        let Some(clause) = clause_of(block, keyword) else { return Ok(None) };
        let expr = self.single(clause)?;
        let number = self.quantity(expr, &format!("`{keyword}`"), &[Unit::None])?;
        if number.value > 0.0 && number.value.is_finite() {
            return Ok(Some((number.value, expr.span)));
        }
        let error = Diagnostic::error("E0704", expr.span, format!("`{keyword}` must be positive"));
        self.fail(error.label(format!("this is {}", number.value)).help("correct the number"))
    }

    fn probability(&mut self, delta: Option<(f64, Span)>) -> Checked<Option<(f64, Span)>> {
        match delta {
            Some((value, span)) if value >= 1.0 => {
                let error = Diagnostic::error("E0754", span, "`delta` must be less than 1")
                    .label("a guarantee that may always fail is none")
                    .help("write for example `delta 1e-5`, less than one over the number of records");
                self.fail(error)
            }
            delta => Ok(delta),
        }
    }

    /// `clip 1.0`, `clip 1.0 automatic`, `clip 1.0 per_layer`, `clip 1.0 per_group (attention, ffn)`.
    fn clipping(&mut self, block: &ClauseBlock, private: &Clause) -> Checked<Clip> {
        let Some(clause) = clause_of(block, "clip") else {
            let error = Diagnostic::error("E0756", private.keyword.span, "`private` needs the clause `clip`")
                .label("how much may one sample move the sum?")
                .help("write for example `clip 1.0`");
            return self.fail(error);
        };
        let Some(Word::Value(norm)) = clause.words.first() else {
            return self.malformed(clause, "expected the norm to clip at");
        };
        let number = self.quantity(norm, "the norm to clip at", &[Unit::None])?;
        if !(number.value > 0.0 && number.value.is_finite()) {
            let error = Diagnostic::error("E0704", norm.span, "the norm to clip at must be positive");
            return self.fail(error.label(format!("this is {}", number.value)).help("write for example `clip 1.0`"));
        }
        let mut clip = Clip { norm: number.value, rule: ClipRule::Flat, parts: Parts::Whole };
        let mut words = clause.words[1..].iter().peekable();
        while let Some(word) = words.next() {
            match word_of(word) {
                Some("flat") => {}
                Some("automatic") => {
                    let given = words.next_if(|next| word_of(next).is_none());
                    clip.rule = ClipRule::Automatic { stability: self.stability(given)? };
                }
                Some("per_layer") => clip.parts = Parts::Layers,
                Some("per_group") => clip.parts = Parts::Groups(self.clip_groups(clause, words.next())?),
                _ => return self.malformed(clause, "expected `flat`, `automatic`, `per_layer` or `per_group (...)`"),
            }
        }
        Ok(clip)
    }

    fn stability(&mut self, word: Option<&Word>) -> Checked<f64> {
        let Some(Word::Value(expr)) = word else { return Ok(STABILITY) };
        let number = self.quantity(expr, "the stability of automatic clipping", &[Unit::None])?;
        if number.value >= 0.0 && number.value.is_finite() {
            return Ok(number.value);
        }
        let error = Diagnostic::error("E0704", expr.span, "the stability of automatic clipping must not be negative");
        self.fail(error.label(format!("this is {}", number.value)).help("write for example `clip 1.0 automatic 0.01`"))
    }

    /// `(embeddings, attention)`: roles or paths, each a part of its own; the rest is one more.
    fn clip_groups(&mut self, clause: &Clause, list: Option<&Word>) -> Checked<Vec<Selector>> {
        match list {
            Some(Word::Value(Expr { kind: ExprKind::Tuple(items), .. })) => {
                self.selectors_among(&items.iter().collect::<Vec<&Expr>>(), clause)
            }
            Some(Word::Value(item)) => self.selectors_among(&[item], clause),
            _ => self.malformed(clause, "expected `per_group (role, role)`"),
        }
    }

    fn sampling(&mut self, block: &ClauseBlock) -> Checked<Sampling> {
        let Some(clause) = clause_of(block, "sampling") else { return Ok(Sampling::Poisson) };
        self.no_more(clause, 1)?;
        let span = clause.words.first().map_or(clause.keyword.span, |word| span_of(word).unwrap_or(clause.span));
        match clause.words.first().and_then(word_of) {
            Some("poisson") => Ok(Sampling::Poisson),
            Some("shuffle_as_poisson") => {
                let warning = Diagnostic::warning("W0750", span, "the guarantee does not hold for shuffled samples")
                    .label("accounted for as if every sample were drawn at random")
                    .note("known bounds for shuffled batches are weaker; the epsilon that is printed is not proved")
                    .help("write `sampling poisson`");
                self.report(warning);
                Ok(Sampling::ShuffledAsPoisson)
            }
            Some("shuffle") => {
                let error = Diagnostic::error("E0751", span, "the privacy of shuffled batches is not known")
                    .label("the guarantee needs samples that are drawn at random, each on its own")
                    .note("much published work shuffles and accounts as if it did not; that is not a guarantee")
                    .replace(span, "poisson", "draw at random")
                    .help("or say `shuffle_as_poisson` to do it all the same");
                self.fail(error)
            }
            _ => self.malformed(clause, "expected `poisson` or `shuffle_as_poisson`"),
        }
    }

    fn accountant(&mut self, block: &ClauseBlock) -> Checked<Accountant> {
        let Some(clause) = clause_of(block, "accountant") else { return Ok(Accountant::Pld) };
        self.no_more(clause, 1)?;
        match clause.words.first().and_then(word_of) {
            Some("pld") => Ok(Accountant::Pld),
            Some("rdp") => Ok(Accountant::Rdp),
            _ => self.malformed(clause, "expected `pld` or `rdp`"),
        }
    }

    fn counted(&mut self, block: &ClauseBlock, keyword: &str) -> Checked<Option<(u64, Span)>> {
        let Some(clause) = clause_of(block, keyword) else { return Ok(None) };
        let expr = self.single(clause)?;
        Ok(Some((self.count(expr, &format!("`{keyword}`"), 1.0..=1e12)?, expr.span)))
    }

    fn secure(&mut self, block: &ClauseBlock) -> Checked<bool> {
        let Some(clause) = clause_of(block, "secure") else { return Ok(false) };
        match &clause.words[..] {
            [] => Ok(true),
            [Word::Value(expr)] => self.truth_value(expr, "`secure`"),
            _ => self.malformed(clause, "expected `secure`, or `secure no`"),
        }
    }

    /// Metrics of training batches would tell about the samples.
    fn warn_of_metrics(&mut self, train: &ClauseBlock) {
        let Some(metric) = clause_of(train, "metric") else { return };
        let warning = Diagnostic::warning("W0753", metric.keyword.span, "this metric is taken on held-out data alone")
            .label("the training data are private")
            .note("the training loss is still reported: it is not covered by the guarantee, keep it to yourself");
        self.report(warning);
    }
}
