//! The `train` block, read: what to train, on what, and how.

use super::{
    clause::word_of,
    evaluator::{Checked, Evaluator},
    groups::{Group, Selector},
    horizon::MAX_STEPS,
    library::{DefinitionId, Entity},
    private::Private,
    suggest::closest,
    value::Value,
};
use crate::{
    clauses,
    diagnostic::Diagnostic,
    program::TrainSettings,
    source::Span,
    syntax::tree::{Argument, Clause, ClauseBlock, DefinitionKind, Expr, ExprKind, Name, Unit, Word},
};
use trainc_kernels::ir::Precision;
use trainc_runtime::artifact::Duration;

/// A named definition with its arguments, as written in a clause.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// What is used.
    pub definition: DefinitionId,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// The clause's value.
    pub span: Span,
}

/// The `train` block, read but not evaluated.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The model.
    pub model: Use,
    /// Index of the data block.
    pub data: Option<usize>,
    /// What is made small.
    pub loss: Expr,
    /// What else is reported.
    pub metrics: Vec<(Name, Expr)>,
    /// The optimizer where no group says otherwise.
    pub optimizer: Use,
    /// The filter of all gradients.
    pub filter: Option<Use>,
    /// What is different for some parameters.
    pub groups: Vec<Group>,
    /// The learning rate over time.
    pub schedule: Expr,
    /// How long training is.
    pub steps: Expr,
    /// The norm that gradients are scaled down to.
    pub clip: Option<(f64, Span)>,
    /// What is not trained.
    pub frozen: Vec<Selector>,
    /// Where the program says when to evaluate.
    pub evaluate: Option<Span>,
    /// The guarantee asked for.
    pub private: Option<Private>,
    /// The rest; its horizon is found once the model is known.
    pub settings: TrainSettings,
}

impl Plan {
    /// Rows of the physical batch.
    pub(super) fn rows(&self) -> u64 {
        rows(self.private.as_ref(), &self.settings)
    }
}

/// Rows of the physical batch.
pub(super) fn rows(private: Option<&Private>, settings: &TrainSettings) -> u64 {
    private.map_or(settings.batch, |private| private.physical_rows(settings.batch))
}

/// The `train` block as far as it could be read: each part fails for itself.
pub(super) struct Draft {
    /// The model.
    pub model: Checked<Use>,
    /// Index of the data block.
    pub data: Checked<Option<usize>>,
    /// What is made small.
    pub loss: Checked<Expr>,
    /// What else is reported.
    pub metrics: Checked<Vec<(Name, Expr)>>,
    /// The optimizer where no group says otherwise.
    pub optimizer: Checked<Use>,
    /// The filter of all gradients.
    pub filter: Checked<Option<Use>>,
    /// What is different for some parameters.
    pub groups: Checked<Vec<Group>>,
    /// The learning rate over time.
    pub schedule: Checked<Expr>,
    /// How long training is.
    pub steps: Checked<Expr>,
    clip: Checked<Option<(f64, Span)>>,
    /// What is not trained.
    pub frozen: Checked<Vec<Selector>>,
    evaluate: Option<Span>,
    /// The guarantee asked for.
    pub private: Checked<Option<Private>>,
    /// The rest, with defaults in place of what could not be read.
    pub settings: TrainSettings,
    /// Whether all of `settings` could be read.
    pub settled: Checked<()>,
}

impl Draft {
    /// The plan, if every part could be read.
    pub(super) fn plan(&self) -> Checked<Plan> {
        Ok(Plan {
            model: self.model.clone()?,
            data: self.data?,
            loss: self.loss.clone()?,
            metrics: self.metrics.clone()?,
            optimizer: self.optimizer.clone()?,
            filter: self.filter.clone()?,
            groups: self.groups.clone()?,
            schedule: self.schedule.clone()?,
            steps: self.steps.clone()?,
            clip: self.clip?,
            frozen: self.frozen.clone()?,
            evaluate: self.evaluate,
            private: self.private.clone()?,
            settings: self.settled.map(|()| self.settings.clone())?,
        })
    }
}

impl<'p> Evaluator<'p> {
    /// Reads the `train` block.
    pub(super) fn draft(&mut self, block: &ClauseBlock) -> Checked<Draft> {
        self.known_clauses(block, &clauses::TRAIN);
        self.open(None, None)?;
        let draft = self.read_draft(block);
        self.close();
        Ok(draft)
    }

    fn read_draft(&mut self, block: &ClauseBlock) -> Draft {
        let model = self.required(block, "model").and_then(|clause| self.used(clause, DefinitionKind::Model));
        let loss = self.required(block, "loss").and_then(|clause| self.single(clause)).cloned();
        let clause = self.required(block, "optimizer");
        let optimizer = clause.and_then(|clause| self.used(clause, DefinitionKind::Optimizer));
        let groups = self.groups(clause.ok(), block, optimizer.as_ref().ok());
        let private = self.private(block);
        let filter = clause_of(block, "filter").map(|clause| self.used(clause, DefinitionKind::Filter)).transpose();
        let filter = filter.and_then(|filter| self.one_filter(filter, private.as_ref().ok().and_then(Option::as_ref)));
        let schedule = self.required(block, "schedule").and_then(|clause| self.single(clause)).cloned();
        let schedule = schedule.and_then(|expr| self.named_schedule(&expr).map(|_| expr));
        let steps = self.required(block, "steps").and_then(|clause| self.single(clause)).cloned();
        let (settings, settled) = self.settings(block);
        Draft {
            model,
            data: self.data_of(block),
            loss,
            metrics: self.metrics(block),
            optimizer,
            filter,
            groups,
            schedule,
            steps,
            clip: self.clip(block),
            frozen: self.frozen(block),
            evaluate: clause_of(block, "evaluate").map(|clause| clause.span),
            private,
            settings,
            settled,
        }
    }

    /// The filter, which stands in `train` or, for who likes to see it there, in `private`.
    fn one_filter(&mut self, outer: Option<Use>, private: Option<&Private>) -> Checked<Option<Use>> {
        match (outer, private.and_then(|private| private.filter.clone())) {
            (Some(outer), Some(inner)) => {
                let error =
                    Diagnostic::error("E0702", inner.span, "`filter` stands twice, in `train` and in `private`");
                self.fail(error.also(outer.span, "first here").help("remove one of the two"))
            }
            (outer, inner) => Ok(outer.or(inner)),
        }
    }

    fn required<'c>(&mut self, block: &'c ClauseBlock, keyword: &str) -> Checked<&'c Clause> {
        match clause_of(block, keyword) {
            Some(clause) => Ok(clause),
            None => {
                let head = Span { end: (block.span.start + 5).min(block.span.end), ..block.span };
                let error = Diagnostic::error("E0706", head, format!("`train` needs the clause `{keyword}`"));
                let example = clauses::TRAIN.clause(keyword).map_or(keyword, |clause| clause.example);
                self.fail(error.label("missing here").help(format!("write for example `{example}`")))
            }
        }
    }

    /// A clause that names a definition of some kind: `model Gpt(depth = 6)`.
    pub(super) fn used(&mut self, clause: &Clause, kind: DefinitionKind) -> Checked<Use> {
        let expr = self.single(clause)?;
        match self.named_use(expr, kind)? {
            Some(used) => Ok(used),
            None => self.malformed(clause, "expected a name, with arguments in parentheses"),
        }
    }

    /// An expression that names a definition of some kind; `None` if it is neither a name nor a call.
    pub(super) fn named_use(&mut self, expr: &Expr, kind: DefinitionKind) -> Checked<Option<Use>> {
        let (name, arguments) = match &expr.kind {
            ExprKind::Name(name) => (Name { text: name.clone(), span: expr.span }, Vec::new()),
            ExprKind::Call { callee, arguments, .. } => (callee.clone(), arguments.clone()),
            _ => return Ok(None),
        };
        match self.library.find(&name.text, name.span.file) {
            Some(Entity::Definition(definition)) if self.library.definition(definition).kind == kind => {
                Ok(Some(Use { definition, arguments, span: expr.span }))
            }
            _ => self.wrong_kind(&name, kind),
        }
    }

    fn wrong_kind<T>(&mut self, name: &Name, kind: DefinitionKind) -> Checked<T> {
        let word = match kind {
            DefinitionKind::Model => "model",
            DefinitionKind::Optimizer => "optimizer",
            DefinitionKind::Filter => "filter",
            DefinitionKind::Schedule => "schedule",
            DefinitionKind::Layer => "layer",
            DefinitionKind::Function => "function",
        };
        let error =
            Diagnostic::error("E0707", name.span, format!("there is no {word} `{}`", name.text)).label("not defined");
        if self.library.needs_import(&name.text) {
            return self.fail(error.help(super::library::ADD_IMPORT));
        }
        let known = self.library.definitions_where(|definition| definition.kind == kind);
        let error = match closest(&name.text, known.iter().copied()) {
            Some(other) => error.replace(name.span, other, format!("did you mean `{other}`?")),
            None if known.is_empty() => error.note(format!("the program defines no {word}")),
            None => error.note(format!("there are {}", super::suggest::listed(known))),
        };
        self.fail(error)
    }

    fn data_of(&mut self, block: &ClauseBlock) -> Checked<Option<usize>> {
        let Some(clause) = clause_of(block, "data") else { return Ok(None) };
        let expr = self.single(clause)?;
        let ExprKind::Name(name) = &expr.kind else {
            return self.malformed(clause, "expected the name of a data block");
        };
        match self.library.find(name, expr.span.file) {
            Some(Entity::Data(index)) => Ok(Some(index)),
            _ => {
                let known: Vec<&str> = self
                    .library
                    .data
                    .iter()
                    .filter_map(|data| data.name.as_ref().map(|name| name.text.as_str()))
                    .collect();
                let error = Diagnostic::error("E0707", expr.span, format!("there is no data block `{name}`"))
                    .label("not defined");
                let error = match closest(name, known.iter().copied()) {
                    Some(other) => error.replace(expr.span, other, format!("did you mean `{other}`?")),
                    None => error.help(format!("define it: `data {name} {{ ... }}`")),
                };
                self.fail(error)
            }
        }
    }

    /// `metric accuracy(logits, targets)`, or with a name of its own: `metric correct = accuracy(...)`.
    fn metrics(&mut self, block: &ClauseBlock) -> Checked<Vec<(Name, Expr)>> {
        let mut metrics: Vec<(Name, Expr)> = Vec::new();
        for clause in block.clauses.iter().filter(|clause| clause.keyword.text == "metric") {
            let (name, expr) = match &clause.words[..] {
                [Word::Setting(name, expr)] => (name.clone(), expr.clone()),
                [Word::Value(expr)] => match &expr.kind {
                    ExprKind::Call { callee, .. } => (callee.clone(), expr.clone()),
                    _ => return self.malformed(clause, "expected a call, or `name = expression`"),
                },
                _ => return self.malformed(clause, "expected a call, or `name = expression`"),
            };
            let taken = ["loss", "grad_norm", "rate", "logits", "epsilon", "non_finite", "bad_rows", "records"]
                .contains(&name.text.as_str());
            if taken || metrics.iter().any(|(other, _)| other.text == name.text) {
                let error =
                    Diagnostic::error("E0709", name.span, format!("something else is reported as `{}`", name.text));
                return self.fail(error.help(format!("give the metric a name: `metric other_{} = ...`", name.text)));
            }
            metrics.push((name, expr));
        }
        Ok(metrics)
    }

    fn frozen(&mut self, block: &ClauseBlock) -> Checked<Vec<Selector>> {
        let mut selectors = Vec::new();
        for clause in block.clauses.iter().filter(|clause| clause.keyword.text == "freeze") {
            selectors.extend(self.selectors(clause)?);
        }
        Ok(selectors)
    }

    fn clip(&mut self, block: &ClauseBlock) -> Checked<Option<(f64, Span)>> {
        let Some(clause) = clause_of(block, "clip") else { return Ok(None) };
        let expr = self.single(clause)?;
        let number = self.quantity(expr, "the norm to clip at", &[Unit::None])?;
        if number.value > 0.0 && number.value.is_finite() {
            return Ok(Some((number.value, expr.span)));
        }
        let error = Diagnostic::error("E0704", expr.span, "the norm to clip at must be positive");
        self.fail(error.label(format!("this is {}", number.value)).help("write for example `clip 1.0`"))
    }

    /// The clauses that are one plain value, with defaults in place of what cannot be read, and whether all could.
    fn settings(&mut self, block: &ClauseBlock) -> (TrainSettings, Checked<()>) {
        let batch = self.required(block, "batch").and_then(|clause| self.single(clause));
        let batch = batch.and_then(|expr| self.count(expr, "the batch", 1.0..=16_777_216.0));
        let seed =
            self.optional(block, "seed", |this, expr| this.count(expr, "the seed", 0.0..=9_007_199_254_740_991.0));
        let precision = self.precision(block);
        let memory = self.optional(block, "memory", |this, expr| {
            let number = this.quantity(expr, "the memory budget", &[Unit::Bytes])?;
            Ok((this.whole_in(number.value.round(), expr.span, "the memory budget", 1.0..=1e15)?, expr.span))
        });
        let evaluate = self.every(block, "evaluate", "batches");
        let checkpoint = self.every(block, "checkpoint", "keep");
        let keep = self.optional(block, "keep", |this, expr| this.count(expr, "the checkpoints kept", 1.0..=1e6));
        let keep =
            keep.and_then(|keep| self.one_keep(block, keep, checkpoint.as_ref().ok().and_then(|(_, kept)| *kept)));
        let settled = batch.and(seed).and(precision).and(memory).and(evaluate).and(checkpoint).and(keep).map(|_| ());
        let (evaluate_every, batches) = evaluate.unwrap_or((Duration::Steps(0), None));
        let (checkpoint_every, kept) = checkpoint.unwrap_or((Duration::Steps(0), None));
        let settings = TrainSettings {
            steps: Duration::Steps(0),
            batch: batch.unwrap_or(1),
            precision: precision.unwrap_or(Precision::F32),
            seed: seed.ok().flatten().unwrap_or(0),
            evaluate_every,
            evaluate_batches: batches,
            checkpoint_every,
            keep: kept.or(keep.ok().flatten().map(|keep| keep as u32)).unwrap_or(3),
            memory: memory.ok().flatten(),
            items_per_step: 0,
            item: String::new(),
        };
        (settings, settled)
    }

    /// How many checkpoints are kept is said in `keep` or in `checkpoint`.
    fn one_keep(&mut self, block: &ClauseBlock, keep: Option<u64>, kept: Option<u32>) -> Checked<Option<u64>> {
        match (keep, kept, clause_of(block, "keep"), clause_of(block, "checkpoint")) {
            (Some(_), Some(_), Some(keep), Some(checkpoint)) => {
                let error =
                    Diagnostic::error("E0702", keep.span, "`keep` stands twice, in `train` and in `checkpoint`");
                self.fail(error.also(checkpoint.span, "first here").help("remove one of the two"))
            }
            _ => Ok(keep),
        }
    }

    fn optional<T>(
        &mut self,
        block: &ClauseBlock,
        keyword: &str,
        read: impl FnOnce(&mut Self, &Expr) -> Checked<T>,
    ) -> Checked<Option<T>> {
        let Some(clause) = clause_of(block, keyword) else { return Ok(None) };
        let expr = self.single(clause)?;
        read(self, expr).map(Some)
    }

    /// `evaluate every 200 batches 20`, `checkpoint every 1 epochs keep 3`.
    fn every(&mut self, block: &ClauseBlock, keyword: &str, second: &str) -> Checked<(Duration, Option<u32>)> {
        let Some(clause) = clause_of(block, keyword) else { return Ok((Duration::Steps(0), None)) };
        let [every, number] = self.options(clause, 0, ["every", second])?;
        if every.is_none() && number.is_none() {
            return self.malformed(clause, "expected `every` and a number of steps or epochs");
        }
        let every = every.map(|expr| self.interval(block, expr)).transpose()?;
        let number = match number {
            Some(expr) => Some(self.count(expr, "this number", 1.0..=MAX_STEPS)? as u32),
            None => None,
        };
        Ok((every.unwrap_or(Duration::Steps(0)), number))
    }

    fn interval(&mut self, block: &ClauseBlock, expr: &Expr) -> Checked<Duration> {
        let number = self.quantity(expr, "the interval", &[Unit::None, Unit::Steps, Unit::Epochs])?;
        if number.unit == Unit::Epochs {
            return self.epochs(&number, clause_of(block, "data").is_some(), expr.span);
        }
        Ok(Duration::Steps(self.whole_in(number.value, expr.span, "the interval", 1.0..=MAX_STEPS)? as u32))
    }

    /// `precision bf16`, or the name of a constant that says so.
    fn precision(&mut self, block: &ClauseBlock) -> Checked<Precision> {
        let Some(clause) = clause_of(block, "precision") else { return Ok(Precision::F32) };
        let expr = self.single(clause)?;
        let word = match clause.words.first().and_then(word_of) {
            Some(word) if self.library.find(word, expr.span.file).is_none() => format!("`{word}`"),
            _ => match self.expression(expr)? {
                Value::Text(text) => text.to_string(),
                other => other.describe(),
            },
        };
        match word.as_str() {
            "f32" | "`f32`" => Ok(Precision::F32),
            "tf32" | "`tf32`" => Ok(Precision::Tf32),
            "bf16" | "`bf16`" => Ok(Precision::Bf16),
            _ => {
                let error = Diagnostic::error("E0710", expr.span, "the precision is `f32`, `tf32` or `bf16`");
                self.fail(
                    error
                        .label(format!("found {word}"))
                        .help("write `precision f32`, `precision tf32` or `precision bf16`"),
                )
            }
        }
    }
}

/// The clause with this keyword.
pub(super) fn clause_of<'c>(block: &'c ClauseBlock, keyword: &str) -> Option<&'c Clause> {
    block.clauses.iter().find(|clause| clause.keyword.text == keyword)
}
