//! The `train` block as values, and the graphs it asks for.

use super::{
    clause::{after, word_of},
    evaluator::{Checked, Evaluator, Failed, Mode},
    filter::Point,
    groups::{Group, Selector},
    library::{DefinitionId, Entity},
    private::Private,
    suggest::closest,
    value::{Number, Value, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{Graph, NodeId, Op, Output, differentiate},
    program::{Program, TrainSettings},
    source::Span,
    syntax::tree::{Argument, Clause, ClauseBlock, DefinitionKind, Expr, ExprKind, Name, Unit, Word},
};
use trainc_kernels::ir::{Binary, Precision};
use trainc_runtime::artifact::{DType, Duration, PrivateSpec};

/// Clauses of `train`.
pub(super) const CLAUSES: [&str; 19] = [
    "model",
    "data",
    "loss",
    "metric",
    "optimizer",
    "filter",
    "schedule",
    "steps",
    "batch",
    "precision",
    "seed",
    "evaluate",
    "checkpoint",
    "keep",
    "clip",
    "memory",
    "freeze",
    "group",
    "private",
];

/// Clauses whose value `--set` may override.
pub(super) const SETTABLE: [&str; 4] = ["steps", "batch", "precision", "seed"];

/// Longest run.
const MAX_STEPS: f64 = u32::MAX as f64;

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
    loss: Expr,
    metrics: Vec<(Name, Expr)>,
    /// The optimizer where no group says otherwise.
    pub optimizer: Use,
    /// The filter of all gradients.
    pub filter: Option<Use>,
    /// What is different for some parameters.
    pub groups: Vec<Group>,
    schedule: Expr,
    steps: Expr,
    clip: Option<(f64, Span)>,
    frozen: Vec<Selector>,
    private: Option<Private>,
    settings: TrainSettings,
}

/// What the forward part of a graph gives.
struct Forward {
    loss: NodeId,
}

/// What is known once the step has been built.
struct Stepped {
    settings: TrainSettings,
    /// Outputs of the model.
    outputs: Vec<(String, NodeId)>,
    /// The guarantee of private training.
    private: Option<PrivateSpec>,
}

impl Plan {
    /// Rows of the physical batch.
    fn rows(&self) -> u64 {
        self.private.as_ref().map_or(self.settings.batch, |private| private.physical_rows(self.settings.batch))
    }
}

impl<'p> Evaluator<'p> {
    /// Reads the `train` block.
    pub(super) fn plan(&mut self, block: &ClauseBlock) -> Checked<Plan> {
        self.known_clauses(block, "train", &CLAUSES, &["metric", "freeze", "group"]);
        self.open(None, None)?;
        let plan = self.read_plan(block);
        self.close();
        plan
    }

    fn read_plan(&mut self, block: &ClauseBlock) -> Checked<Plan> {
        let model = self.required(block, "model").and_then(|clause| self.used(clause, DefinitionKind::Model));
        let loss = self.required(block, "loss").and_then(|clause| self.single(clause)).cloned();
        let optimizer = self.required(block, "optimizer");
        let used = optimizer.and_then(|clause| self.used(clause, DefinitionKind::Optimizer));
        let groups = match (optimizer, &used) {
            (Ok(clause), Ok(used)) => self.groups(clause, block, used),
            _ => Err(Failed),
        };
        let private = self.private(block);
        let filter = clause_of(block, "filter").map(|clause| self.used(clause, DefinitionKind::Filter)).transpose();
        let schedule = self.required(block, "schedule").and_then(|clause| self.single(clause)).cloned();
        let steps = self.required(block, "steps").and_then(|clause| self.single(clause)).cloned();
        let data = self.data_of(block);
        let metrics = self.metrics(block);
        let frozen = self.frozen(block);
        let clip = self.clip(block);
        let settings = self.settings(block);
        Ok(Plan {
            model: model?,
            data: data?,
            loss: loss?,
            metrics: metrics?,
            optimizer: used?,
            filter: self.one_filter(filter?, private.as_ref().ok().and_then(Option::as_ref))?,
            groups: groups?,
            schedule: schedule?,
            steps: steps?,
            clip: clip?,
            frozen: frozen?,
            private: private?,
            settings: settings?,
        })
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
                let help = match keyword {
                    "model" => "write for example `model Gpt(vocab = 256, depth = 6)`",
                    "loss" => "write for example `loss cross_entropy(logits, next(tokens))`",
                    "optimizer" => "write for example `optimizer adamw(weight_decay = 0.1)`",
                    "schedule" => "write for example `schedule constant(3e-4)`",
                    "steps" => "write for example `steps 2000`",
                    _ => "write for example `batch 16`",
                };
                self.fail(error.label("missing here").help(help))
            }
        }
    }

    /// A clause that names a definition of some kind: `model Gpt(depth = 6)`.
    pub(super) fn used(&mut self, clause: &Clause, kind: DefinitionKind) -> Checked<Use> {
        let expr = self.single(clause)?;
        let (name, arguments) = match &expr.kind {
            ExprKind::Name(name) => (Name { text: name.clone(), span: expr.span }, Vec::new()),
            ExprKind::Call { callee, arguments, .. } => (callee.clone(), arguments.clone()),
            _ => return self.malformed(clause, "expected a name, with arguments in parentheses"),
        };
        match self.library.find(&name.text, name.span.file) {
            Some(Entity::Definition(definition)) if self.library.definition(definition).kind == kind => {
                Ok(Use { definition, arguments, span: expr.span })
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
            let taken = ["loss", "grad_norm", "rate", "logits", "epsilon", "non_finite", "bad_rows"]
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

    fn settings(&mut self, block: &ClauseBlock) -> Checked<TrainSettings> {
        let batch = self.required(block, "batch").and_then(|clause| self.single(clause));
        let batch = batch.and_then(|expr| self.count(expr, "the batch", 1.0..=16_777_216.0));
        let seed =
            self.optional(block, "seed", |this, expr| this.count(expr, "the seed", 0.0..=9_007_199_254_740_992.0));
        let precision = self.precision(block);
        let memory = self.optional(block, "memory", |this, expr| {
            let number = this.quantity(expr, "the memory budget", &[Unit::Bytes])?;
            Ok((this.whole_in(number.value.round(), expr.span, "the memory budget", 1.0..=1e15)?, expr.span))
        });
        let (evaluate_every, batches) = self.every(block, "evaluate", "batches")?;
        let (checkpoint_every, kept) = self.every(block, "checkpoint", "keep")?;
        let keep = self.optional(block, "keep", |this, expr| this.count(expr, "the checkpoints kept", 1.0..=1e6))?;
        Ok(TrainSettings {
            steps: Duration::Steps(0),
            batch: batch?,
            precision: precision?,
            seed: seed?.unwrap_or(0),
            evaluate_every,
            evaluate_batches: batches.unwrap_or(20),
            checkpoint_every,
            keep: kept.or(keep.map(|keep| keep as u32)).unwrap_or(3),
            memory: memory?,
            items_per_step: 0,
            item: String::new(),
        })
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
        let expected = 2
            * (usize::from(after(&clause.words, "every").is_some())
                + usize::from(after(&clause.words, second).is_some()));
        if clause.words.len() != expected || expected == 0 {
            return self.malformed(clause, "expected `every` and a number of steps or epochs");
        }
        let every = after(&clause.words, "every").map(|expr| self.interval(block, expr)).transpose()?;
        let number = match after(&clause.words, second) {
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

    /// All graphs of the program.
    pub(super) fn program(&mut self, plan: &Plan) -> Checked<Program> {
        let mode = Mode { training: true, batch: plan.rows(), precision: plan.settings.precision };
        self.begin("step", mode);
        self.open(None, None)?;
        let stepped = self.step(plan);
        self.close();
        let stepped = stepped?;
        let data = plan.data.map(|index| self.data(index)).transpose()?;
        let held_out = data.as_ref().is_none_or(|data| data.spec.valid_fraction > 0.0);
        if let Some(data) = &data {
            self.data_fits(plan, data)?;
        }
        let step = self.begin("accumulate", mode);
        let accumulate = plan.private.as_ref().map(|private| self.accumulation(plan, private)).transpose()?;
        self.begin("evaluate", Mode { training: false, ..mode });
        let evaluate = if held_out { Some(self.evaluation(plan)?) } else { None };
        let generate = self.generation(plan, &stepped.outputs, mode)?;
        Ok(Program {
            name: self.library.definition(plan.model.definition).name.text.clone(),
            parameters: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            step,
            accumulate: accumulate.flatten(),
            evaluate,
            generate,
            data: data.map(|data| data.spec),
            private: stepped.private,
            train: stepped.settings,
            warnings: Vec::new(),
        })
    }

    /// Forward, backward and updates.
    fn step(&mut self, plan: &Plan) -> Checked<Stepped> {
        let forward = self.forward(plan)?;
        let settings = self.horizon(plan)?;
        self.bound_inputs();
        self.freeze(&plan.frozen, &plan.groups)?;
        let guarantee = match &plan.private {
            Some(private) => Some(self.guarantee(private, plan.data, &settings)?),
            None => None,
        };
        let rate = self.rate(plan, &settings)?;
        let rules = self.rules(plan, &rate)?;
        let filters = self.filters(plan, &rules)?;
        let points = if filters.is_empty() { vec![Point::here(&rules)] } else { self.points(&filters)? };
        let private = plan.private.as_ref().zip(guarantee.as_ref());
        let (gradients, bad) = match private {
            Some((private, guarantee)) => self.private_gradients(forward.loss, private, guarantee, &points)?,
            None => (self.sampled_gradients(forward.loss, plan, &points)?, None),
        };
        // The norm of a private gradient is that of noise, and would be computed for its own sake.
        let gradients = if bad.is_some() && plan.clip.is_none() { gradients } else { self.clipped(gradients, plan)? };
        let noise = guarantee.as_ref().map_or(0.0, PrivateSpec::noise);
        self.updates(rules, filters, &gradients, &Value::number(noise))?;
        if let Some(bad) = bad {
            self.guarded_outputs(bad);
        }
        let outputs = self.outputs.iter().map(|(name, tensor)| (name.clone(), tensor.node)).collect();
        Ok(Stepped { settings, outputs, private: guarantee })
    }

    /// Clipped sums alone, for samples that did not fit the physical batch of the step that they belong to.
    fn accumulation(&mut self, plan: &Plan, private: &Private) -> Checked<Option<Graph>> {
        self.open(None, None)?;
        let accumulated = self.accumulated(plan, private);
        self.close();
        accumulated
    }

    fn accumulated(&mut self, plan: &Plan, private: &Private) -> Checked<Option<Graph>> {
        if !private.accumulates() {
            return Ok(None);
        }
        let forward = self.forward(plan)?;
        let settings = self.horizon(plan)?;
        let rate = self.rate(plan, &settings)?;
        let rules = self.rules(plan, &rate)?;
        let filters = self.filters(plan, &rules)?;
        let points = if filters.is_empty() { vec![Point::here(&rules)] } else { self.points(&filters)? };
        self.accumulated_sums(forward.loss, private, &points)?;
        Ok(Some(std::mem::replace(&mut self.graph, Graph::new("none"))))
    }

    /// The model, the loss and the metrics.
    fn forward(&mut self, plan: &Plan) -> Checked<Forward> {
        let definition = self.library.definition(plan.model.definition);
        let given = self.given(&plan.model.arguments)?;
        let (_, model) = self.within(plan.model.definition, Some(plan.model.span), |this| {
            this.bind(definition, given, plan.model.span)?;
            this.body(&definition.body)
        })?;
        let mut names = std::collections::BTreeMap::new();
        for input in self.registry.inputs.clone() {
            if let Some(value) = model.names.get(&input.name) {
                names.insert(input.name.clone(), value.clone());
            }
        }
        names.extend(self.outputs.iter().map(|(name, tensor)| (name.clone(), Value::Tensor(tensor.clone()))));
        self.frame().names.extend(names);
        if self.outputs.is_empty() {
            let error = Diagnostic::error(
                "E0508",
                definition.name.span,
                format!("the model `{}` has no output", definition.name.text),
            );
            return self.fail(error.help("write `output name = ...` at the end of its body"));
        }
        let loss = self.scalar(&plan.loss, "the loss")?;
        self.graph.set_output(Output::Report("loss".into()), loss);
        // What training reports of private data should be as little as possible.
        let metrics = if plan.private.is_some() && self.mode.training { &[][..] } else { &plan.metrics };
        for (name, expr) in metrics {
            let node = self.scalar(expr, "a metric")?;
            self.graph.set_output(Output::Report(name.text.clone()), node);
        }
        Ok(Forward { loss })
    }

    fn scalar(&mut self, expr: &Expr, what: &str) -> Checked<NodeId> {
        self.extents.last_mut().expect("a frame is open").clear();
        self.scan_extents(expr);
        let value = self.expression(expr)?;
        let tensor = self.operand(value, expr.span)?;
        let tensor = self.float(tensor, expr.span)?;
        let shape = self.shape(&tensor);
        if shape.is_empty() {
            return Ok(tensor.node);
        }
        let shown = shape_shown(&tensor.axes, &shape);
        let error = Diagnostic::error("E0711", expr.span, format!("{what} must be one number"))
            .label(format!("this has the shape {shown}"))
            .help("take its `mean(...)`");
        self.fail(error)
    }

    /// Steps and items per step, in which durations can be given.
    fn horizon(&mut self, plan: &Plan) -> Checked<TrainSettings> {
        let sequence = self.registry.inputs.iter().position(|input| input.shift > 0).map(|index| index as u32);
        let positions = sequence.and_then(|index| {
            let node = self.registry.input_nodes().get(&index)?;
            self.graph.shape(*node).get(1).copied()
        });
        let batch = plan.settings.batch;
        let mut settings = plan.settings.clone();
        settings.items_per_step = batch * positions.unwrap_or(1);
        settings.item = if positions.is_some() { "tokens" } else { "samples" }.into();
        let number = self.known_number(&plan.steps, "the horizon")?;
        settings.steps = if number.unit == Unit::Epochs {
            self.epochs(&number, plan.data.is_some(), plan.steps.span)?
        } else {
            let steps = self.in_steps(&number, &settings, plan.steps.span)?.ceil();
            Duration::Steps(self.whole_in(steps, plan.steps.span, "the number of steps", 1.0..=MAX_STEPS)? as u32)
        };
        Ok(settings)
    }

    /// A number of epochs, which the runtime makes into steps once it has opened the data.
    fn epochs(&mut self, number: &Number, has_data: bool, span: Span) -> Checked<Duration> {
        let epochs = number.value;
        if !has_data {
            let error = Diagnostic::error("E0712", span, "epochs of data that the program does not name")
                .label("an epoch is one pass over the data, and no data are given")
                .help("add `data NAME` to `train`, or say how long in steps, tokens or samples");
            return self.fail(error);
        }
        if !(epochs > 0.0 && epochs.is_finite()) {
            let error = Diagnostic::error("E0704", span, "the number of epochs must be positive");
            return self.fail(error.label(format!("this is {epochs}")).help("write for example `3 epochs`"));
        }
        Ok(Duration::Epochs { epochs })
    }

    /// A duration in steps.
    pub(super) fn in_steps(&mut self, number: &Number, settings: &TrainSettings, span: Span) -> Checked<f64> {
        match number.unit {
            Unit::None | Unit::Steps => Ok(number.value),
            Unit::Tokens if settings.item == "tokens" => Ok(number.value / settings.items_per_step as f64),
            Unit::Samples => Ok(number.value / settings.batch as f64),
            Unit::Epochs => {
                let error = Diagnostic::error("E0712", span, "epochs beside a horizon in other units")
                    .label("how many steps this is shows only when the data are read")
                    .help("give the horizon in epochs too, or this in steps, tokens, samples or %");
                self.fail(error)
            }
            _ => {
                let error = Diagnostic::error("E0406", span, "this is not a duration")
                    .label(format!("found {}", number.shown()));
                self.fail(error.help("give it in steps, tokens or samples"))
            }
        }
    }

    /// Gradients by some nodes, which stand for parameters.
    pub(super) fn gradients(
        &mut self,
        loss: NodeId,
        plan: &Plan,
        nodes: Vec<(u32, NodeId)>,
    ) -> Checked<Vec<(u32, NodeId)>> {
        let wrt: Vec<NodeId> = nodes.iter().map(|(_, node)| *node).collect();
        let gradients = differentiate(&mut self.graph, loss, &wrt)
            .unwrap_or_else(|error| panic!("internal: a graph from the checker is differentiable: {error}"));
        let mut found = Vec::new();
        for ((index, _), gradient) in nodes.into_iter().zip(gradients) {
            match gradient {
                Some(gradient) => found.push((index, gradient)),
                None => self.no_gradient(index, plan.loss.span),
            }
        }
        if self.has_errors() { Err(Failed) } else { Ok(found) }
    }

    /// The parameters that training moves, by index, with the nodes that read them.
    pub(super) fn trainable(&mut self, model: Span) -> Checked<Vec<(u32, NodeId)>> {
        let nodes: Vec<(u32, NodeId)> = self
            .registry
            .parameter_nodes()
            .iter()
            .filter(|(index, _)| self.registry.parameters[**index as usize].trainable)
            .map(|(index, node)| (*index, *node))
            .collect();
        if nodes.is_empty() {
            let error = Diagnostic::error("E0509", model, "there is nothing to train");
            return self
                .fail(error.label("no parameter of this model is trainable").help("add a layer, or freeze less"));
        }
        Ok(nodes)
    }

    /// Complains about a parameter that the loss does not depend on.
    pub(super) fn no_gradient(&mut self, index: u32, loss: Span) {
        let parameter = &self.registry.parameters[index as usize];
        let error = Diagnostic::error("E0510", parameter.span, format!("`{}` has no gradient", parameter.name))
            .label("the loss does not depend on this parameter")
            .also(loss, "the loss")
            .help(format!("use it, remove it, or write `freeze \"{}\"`", parameter.name));
        self.report(error);
    }

    /// The norm of all gradients, reported; gradients scaled down to the clipping norm.
    fn clipped(&mut self, gradients: Vec<(u32, NodeId)>, plan: &Plan) -> Checked<Vec<(u32, NodeId)>> {
        let span = plan.clip.map_or(plan.loss.span, |(_, span)| span);
        let norm = self.norm(&gradients, span)?;
        self.graph.set_output(Output::Report("grad_norm".into()), norm);
        let Some((limit, span)) = plan.clip else { return Ok(gradients) };
        let factor = self.clip_factor(norm, limit, span)?;
        let mut clipped = Vec::new();
        for (index, gradient) in gradients {
            let shape = self.graph.shape(gradient).to_vec();
            let factor = self.spread(factor, &[], &shape, span)?;
            clipped.push((index, self.add(Op::Binary(Binary::Mul), &[gradient, factor], span)?));
        }
        Ok(clipped)
    }

    /// `sqrt(sum of all squares)`, added up in the order of the parameters.
    fn norm(&mut self, gradients: &[(u32, NodeId)], span: Span) -> Checked<NodeId> {
        let mut total: Option<NodeId> = None;
        for &(_, gradient) in gradients {
            let square = self.add(Op::Binary(Binary::Mul), &[gradient, gradient], span)?;
            let axes: Vec<usize> = (0..self.graph.shape(square).len()).collect();
            let sum = if axes.is_empty() {
                square
            } else {
                self.add(Op::Reduce { kind: trainc_kernels::ir::ReduceKind::Sum, axes }, &[square], span)?
            };
            total = Some(match total {
                None => sum,
                Some(total) => self.add(Op::Binary(Binary::Add), &[total, sum], span)?,
            });
        }
        let total = total.expect("at least one trainable parameter");
        self.add(Op::Unary(trainc_kernels::ir::Unary::Sqrt), &[total], span)
    }

    /// `min(1, limit / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_` has it.
    fn clip_factor(&mut self, norm: NodeId, limit: f64, span: Span) -> Checked<NodeId> {
        const EPSILON: f64 = 1e-6;
        let constant = |this: &mut Self, value: f64| this.add(Op::constant(value), &[], span);
        let (limit, epsilon, one) = (constant(self, limit)?, constant(self, EPSILON)?, constant(self, 1.0)?);
        let norm = self.add(Op::Binary(Binary::Add), &[norm, epsilon], span)?;
        let ratio = self.add(Op::Binary(Binary::Div), &[limit, norm], span)?;
        self.add(Op::Binary(Binary::Min), &[one, ratio], span)
    }

    /// The learning rate of this step, reported as `rate`.
    fn rate(&mut self, plan: &Plan, settings: &TrainSettings) -> Checked<Value> {
        let value = self.schedule(&plan.schedule, settings)?;
        let tensor = self.operand(value, plan.schedule.span)?;
        let tensor = self.float(tensor, plan.schedule.span)?;
        if !tensor.axes.is_empty() {
            return self.fail(Diagnostic::error("E0711", plan.schedule.span, "the learning rate must be one number"));
        }
        self.graph.set_output(Output::Report("rate".into()), tensor.node);
        Ok(Value::Tensor(tensor))
    }

    /// Loss and metrics on held-out data.
    fn evaluation(&mut self, plan: &Plan) -> Checked<Graph> {
        self.open(None, None)?;
        let result = self.forward(plan);
        self.close();
        result?;
        Ok(std::mem::replace(&mut self.graph, Graph::new("none")))
    }

    /// Logits of one sequence, if the model predicts next tokens.
    fn generation(&mut self, plan: &Plan, names: &[(String, NodeId)], mode: Mode) -> Checked<Option<Graph>> {
        let Some(next) = self.registry.inputs.iter().find(|input| input.shift == 1).cloned() else { return Ok(None) };
        if next.dtype != DType::I32 || names.is_empty() {
            return Ok(None);
        }
        self.begin("generate", Mode { training: false, batch: 1, ..mode });
        self.open(None, None)?;
        let result = self.forward_outputs(plan);
        self.close();
        result?;
        let tokens = self.registry.inputs.iter().position(|input| input.name == next.field).map(|index| index as u32);
        let shape = tokens
            .and_then(|index| self.registry.input_nodes().get(&index))
            .map(|node| self.graph.shape(*node).to_vec());
        let Some(&[1, context]) = shape.as_deref() else { return Ok(None) };
        let logits = self.outputs.iter().map(|(_, tensor)| tensor.node).find(|&node| {
            let shape = self.graph.shape(node);
            shape.len() == 3 && shape[..2] == [1, context] && next.below.is_none_or(|below| below == shape[2])
        });
        let Some(logits) = logits else { return Ok(None) };
        let shape = self.graph.shape(logits)[1..].to_vec();
        let node = self.add(Op::Reshape { shape }, &[logits], plan.loss.span)?;
        self.graph.set_output(Output::Report("logits".into()), node);
        Ok(Some(std::mem::replace(&mut self.graph, Graph::new("none"))))
    }

    fn forward_outputs(&mut self, plan: &Plan) -> Checked<()> {
        let definition = self.library.definition(plan.model.definition);
        let given = self.given(&plan.model.arguments)?;
        self.within(plan.model.definition, Some(plan.model.span), |this| {
            this.bind(definition, given, plan.model.span)?;
            this.body(&definition.body)
        })?;
        Ok(())
    }
}

/// The clause with this keyword.
pub(super) fn clause_of<'c>(block: &'c ClauseBlock, keyword: &str) -> Option<&'c Clause> {
    block.clauses.iter().find(|clause| clause.keyword.text == keyword)
}
