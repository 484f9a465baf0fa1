//! What a program runs: the graphs of its entries, from the clauses of `train`.

use super::{
    evaluator::{Checked, Evaluator, Mode},
    private::Private,
    train::{Plan, Use},
    value::{Value, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{self, Coupled, Graph, NodeId, Op, Output, Split, Twin},
    program::{Input, InputKind, Program, TrainSettings},
    syntax::tree::Expr,
};
use trainc_runtime::artifact::{DType, PrivateSpec, total_name};

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

impl Evaluator<'_> {
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
            self.data_fits(plan.model.span, data)?;
        }
        if let (false, Some(span)) = (held_out, plan.evaluate) {
            let error = Diagnostic::error("E0652", span, "there is nothing to evaluate on")
                .label("the data hold nothing out")
                .help("add `split valid = 5%` to the data block, or remove this");
            return self.fail(error);
        }
        let step = self.begin("accumulate", mode);
        let accumulate = plan.private.as_ref().map(|private| self.accumulation(plan, private)).transpose()?;
        let reports = if held_out { Some(self.evaluation(plan, Mode { training: false, ..mode })?) } else { None };
        let (evaluate, conclude) = reports.map_or((None, None), |split| (Some(split.batch), split.conclusion));
        let generate = self.generation(plan, &stepped.outputs, mode)?;
        Ok(Program {
            name: self.library.definition(plan.model.definition).name.text.clone(),
            parameters: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            step,
            accumulate: accumulate.flatten(),
            evaluate,
            conclude,
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
        let settings = self.horizon(&plan.steps, &plan.settings, plan.data.is_some())?;
        self.bound_inputs();
        self.freeze(&plan.frozen, &plan.groups)?;
        let guarantee = match &plan.private {
            Some(private) => Some(self.guarantee(private, plan.data, &settings)?),
            None => None,
        };
        let updates = self.begin_updates(plan, &settings)?;
        let private = plan.private.as_ref().zip(guarantee.as_ref());
        let (gradients, bad) = match private {
            Some((private, guarantee)) => self.private_gradients(forward.loss, private, guarantee, &updates.points)?,
            None => (self.sampled_gradients(forward.loss, plan, &updates.points)?, None),
        };
        // The norm of a private gradient is that of noise, and would be computed for its own sake.
        let gradients = if bad.is_some() && plan.clip.is_none() { gradients } else { self.clipped(gradients, plan)? };
        let noise = guarantee.as_ref().map_or(0.0, PrivateSpec::noise);
        self.end_updates(updates, &gradients, &Value::number(noise))?;
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
        let settings = self.horizon(&plan.steps, &plan.settings, plan.data.is_some())?;
        let updates = self.begin_updates(plan, &settings)?;
        self.accumulated_sums(forward.loss, private, &updates.points)?;
        Ok(Some(std::mem::replace(&mut self.graph, Graph::new("none"))))
    }

    /// The model, whose inputs and outputs the clauses of `train` then see.
    pub(super) fn modelled(&mut self, used: &Use) -> Checked<()> {
        let definition = self.library.definition(used.definition);
        let given = self.given(&used.arguments)?;
        let (_, model) = self.within(used.definition, Some(used.span), |this| {
            this.bind(definition, given, used.span)?;
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
        if !self.outputs.is_empty() {
            return Ok(());
        }
        let message = format!("the model `{}` has no output", definition.name.text);
        let error = Diagnostic::error("E0508", definition.name.span, message);
        self.fail(error.help("write `output name = ...` at the end of its body"))
    }

    /// The model, the loss and the metrics.
    fn forward(&mut self, plan: &Plan) -> Checked<Forward> {
        self.modelled(&plan.model)?;
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

    /// A loss or a metric: one number.
    pub(super) fn scalar(&mut self, expr: &Expr, what: &str) -> Checked<NodeId> {
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

    /// Loss and metrics on held-out data, from what all records add up to.
    fn evaluation(&mut self, plan: &Plan, mode: Mode) -> Checked<Split> {
        let reports = self.reports(plan, mode)?;
        let rows = if mode.batch > 2 { mode.batch - 1 } else { mode.batch + 1 };
        let twin = self.quietly(|this| this.reports(plan, Mode { batch: rows, ..mode })).ok();
        let twin = twin.as_ref().map(|graph| Twin { graph, rows });
        let split = graph::split(&reports, mode.batch, twin, self.registry.inputs.len() as u32);
        self.total_inputs(&split);
        if plan.data.is_some() {
            split.whole.iter().for_each(|(name, coupled)| self.warn_of_batches(plan, &reports, name, *coupled));
        }
        Ok(split)
    }

    /// The graph of loss and metrics.
    fn reports(&mut self, plan: &Plan, mode: Mode) -> Checked<Graph> {
        self.begin("evaluate", mode);
        self.open(None, None)?;
        let result = self.forward(plan);
        self.close();
        result?;
        Ok(std::mem::replace(&mut self.graph, Graph::new("none")))
    }

    /// What the host feeds to the conclusion.
    fn total_inputs(&mut self, split: &Split) {
        let kinds = (0..split.totals.len()).map(InputKind::Total);
        for kind in std::iter::once(InputKind::Records).chain(kinds) {
            let name = match kind {
                InputKind::Total(number) => total_name(number),
                _ => "total.records".into(),
            };
            self.registry.input(Input { name, field: String::new(), shift: 0, dtype: DType::F32, below: None, kind });
        }
    }

    /// Says that a number is not one of all held-out records.
    fn warn_of_batches(&mut self, plan: &Plan, graph: &Graph, name: &str, coupled: Coupled) {
        let metric = plan.metrics.iter().find(|(metric, _)| metric.text == name);
        let span = metric.map_or(plan.loss.span, |(_, expr)| expr.span);
        let warning = Diagnostic::warning("W0721", span, format!("`{name}` of held-out data is a mean of batches"))
            .label(format!("this {}", coupled.reason))
            .note("each batch counts as much as it has records; what is left for the last batch is filled up");
        let warning = match graph.node(coupled.node).span.filter(|&place| place != span) {
            Some(place) => warning.also(place, "here"),
            None => warning,
        };
        self.report(warning.help("write it as `mean(...)` or as a function of sums over the samples"));
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
