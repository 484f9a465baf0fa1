//! Statements: names, parameters, inputs, outputs, and repeats.

use super::{
    evaluator::{Checked, Evaluator, Failed},
    value::{Axis, Tensor, Value, numbers_shown, shape_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Op, ScopeId, TensorType},
    program::{Input, InputKind, Parameter},
    source::Span,
    syntax::tree::{DefinitionKind, Dim, Expr, Name, Statement, TensorType as Declared},
};
use std::collections::BTreeSet;
use trainc_runtime::artifact::DType;

/// Most instances of a repeat.
const MAX_COUNT: f64 = 65_536.0;

/// Most elements of a parameter and of all of them together.
const MAX_PARAMETERS: u64 = 1 << 38;

/// What a `param` statement says.
pub(super) struct Declaration<'a> {
    name: &'a Name,
    dims: &'a [Dim],
    split: Option<usize>,
    init: &'a Expr,
    roles: &'a [Name],
    span: Span,
}

impl Evaluator<'_> {
    /// The statements of a body; the value of its last expression. Goes on after errors to find more of them.
    pub(super) fn body(&mut self, statements: &[Statement]) -> Checked<Value> {
        let (mut result, mut failed) = (Value::Nothing, false);
        for statement in statements {
            self.extents.last_mut().expect("a call is open").clear();
            match self.statement(statement) {
                Ok(Some(value)) => result = value,
                Ok(None) => {}
                // What is below a requirement may make no sense without it.
                Err(Failed) if matches!(statement, Statement::Require { .. }) => return Err(Failed),
                Err(Failed) => {
                    failed = true;
                    self.forget(statement);
                }
            }
        }
        if failed { Err(Failed) } else { Ok(result) }
    }

    /// Names that a failed statement would have defined become unknown, which silences what depends on them.
    fn forget(&mut self, statement: &Statement) {
        let names: Vec<String> = match statement {
            Statement::Input { name, .. } | Statement::Param { name, .. } | Statement::State { name, .. } => {
                vec![name.text.clone()]
            }
            Statement::Output { name, .. } => vec![name.text.clone()],
            Statement::Assign { targets, .. } => targets.iter().map(|name| name.text.clone()).collect(),
            Statement::Update { target, .. } => vec![target.text.clone()],
            Statement::Repeat { body, .. } => assigned(body),
            Statement::Sample { .. } | Statement::Optimize(_) | Statement::Require { .. } | Statement::Result(_) => {
                Vec::new()
            }
        };
        for name in names {
            self.frame().names.insert(name, Value::Unknown);
        }
    }

    fn statement(&mut self, statement: &Statement) -> Checked<Option<Value>> {
        match statement {
            Statement::Assign { targets, value } => self.assign(targets, value)?,
            Statement::Param { name, dims, split, init, roles, span } => {
                self.param(Declaration { name, dims, split: *split, init, roles, span: *span })?;
            }
            Statement::Input { name, tensor } => self.input(name, tensor)?,
            Statement::Output { name, value } => self.output(name, value)?,
            Statement::Repeat { count, name, body, span } => self.repeat(count, name.as_ref(), body, *span)?,
            Statement::State { name, count, dims, init } => self.state(name, count.as_ref(), dims.as_deref(), init)?,
            Statement::Update { target, position, value } => self.update(target, position.as_ref(), value)?,
            Statement::Require { condition, message, .. } => self.require(condition, message)?,
            // A filter takes those of its own body out; these are elsewhere, or inside a `repeat`.
            Statement::Sample { span, .. } => self.misplaced(*span, "`sample`", "the body of a filter")?,
            Statement::Optimize(span) => self.misplaced(*span, "`update`", "the body of a filter")?,
            Statement::Result(value) => {
                self.scan_extents(value);
                return self.expression(value).map(Some);
            }
        }
        Ok(None)
    }

    fn misplaced<T>(&mut self, span: Span, what: &str, owner: &str) -> Checked<T> {
        let error = Diagnostic::error("E0501", span, format!("{what} does not belong here"));
        self.fail(error.label(format!("only {owner} can have it")).help("move it, or remove it"))
    }

    /// `require condition, "message"`.
    fn require(&mut self, condition: &Expr, message: &Expr) -> Checked<()> {
        self.scan_extents(condition);
        if self.known_number(condition, "a requirement")?.value != 0.0 {
            return Ok(());
        }
        let message = match self.expression(message)? {
            Value::Text(text) => text,
            _ => return Err(Failed),
        };
        let names = super::names::mentioned(condition);
        let shown = names.iter().filter_map(|name| self.shown_value(name)).collect::<Vec<_>>().join(", ");
        let error = Diagnostic::error("E0518", condition.span, message.as_ref());
        self.fail(error.label(if shown.is_empty() { "this must hold".into() } else { format!("with {shown}") }))
    }

    /// `kappa = 1.5` for a name that stands for numbers.
    fn shown_value(&mut self, name: &str) -> Option<String> {
        let shown = |value: &Value| match value {
            Value::Number(number) => Some(format!("{}{}", number.value, super::value::unit_suffix(number.unit))),
            _ => None,
        };
        match self.frame().names.get(name)? {
            Value::Tuple(values) => {
                let values: Option<Vec<String>> = values.iter().map(shown).collect();
                Some(format!("{name} = [{}]", values?.join(", ")))
            }
            value => Some(format!("{name} = {}", shown(value)?)),
        }
    }

    /// `param w: [a, b | c] ~ init role r`.
    fn param(&mut self, declaration: Declaration<'_>) -> Checked<()> {
        if !matches!(self.current_kind(), Some(DefinitionKind::Model | DefinitionKind::Layer)) {
            return self.misplaced(declaration.span, "`param`", "a model or a layer");
        }
        let (shape, axes) = self.dims(declaration.dims)?;
        let path = self.registry.place().path_of(&declaration.name.text);
        let value = self.expression(declaration.init)?;
        let init = self.initial(value, &path, declaration.init.span)?;
        let mut roles = self.registry.place().roles.clone();
        roles.extend(declaration.roles.iter().map(|role| role.text.clone()));
        roles.sort();
        roles.dedup();
        let (scope, count) = (self.scope, self.graph.scope(self.scope).count);
        let stacked = scope != ScopeId::ROOT;
        let whole: Vec<u64> = stacked.then_some(count).into_iter().chain(shape.iter().copied()).collect();
        self.not_too_many(&whole, declaration.span)?;
        let index = self.registry.parameter(&path, || Parameter {
            name: path.clone(),
            shape: whole.clone(),
            stacked,
            split: declaration.split.unwrap_or(shape.len().saturating_sub(1)),
            roles,
            init,
            trainable: true,
            span: declaration.span,
        });
        if self.registry.parameters[index as usize].shape != whole {
            return self.unsteady_parameter(index, &whole, declaration.span);
        }
        let mut node = self.registry.parameter_node(&mut self.graph, index);
        if stacked {
            node = self.add(Op::Layer { scope }, &[node], declaration.span)?;
        }
        let tensor = Tensor { node, axes, position: false };
        self.frame().names.insert(declaration.name.text.clone(), Value::Tensor(tensor));
        Ok(())
    }

    fn unsteady_parameter<T>(&mut self, index: u32, shape: &[u64], span: Span) -> Checked<T> {
        let parameter = &self.registry.parameters[index as usize];
        let shapes = format!("{} and {}", numbers_shown(&parameter.shape), numbers_shown(shape));
        let error = Diagnostic::error("E0503", span, format!("the shape of `{}` depends on the batch", parameter.name))
            .label(format!("it is {shapes} for different batches"))
            .help("parameters must have one shape in training, evaluation and generation");
        self.fail(error)
    }

    fn not_too_many(&mut self, shape: &[u64], span: Span) -> Checked<()> {
        let own = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
        let others: u64 = self.registry.parameters.iter().map(|known| known.shape.iter().product::<u64>()).sum();
        if own.is_some_and(|own| own.saturating_add(others) <= MAX_PARAMETERS) {
            return Ok(());
        }
        let error = Diagnostic::error("E0804", span, "the model has too many parameters")
            .label(format!("this one has the shape {}", numbers_shown(shape)))
            .note(format!("the limit is {MAX_PARAMETERS} numbers in all"))
            .help("make a dim smaller");
        self.fail(error)
    }

    /// Extents and names of declared dims.
    pub(super) fn dims(&mut self, dims: &[Dim]) -> Checked<(Vec<u64>, Vec<Axis>)> {
        let mut shape = Vec::new();
        let mut axes = Vec::new();
        for dim in dims {
            match dim {
                Dim::Rest(span) => {
                    let error = Diagnostic::error("E0504", *span, "`..` cannot stand in the shape of something new");
                    return self.fail(error.help("write every dim"));
                }
                Dim::Size(expr) => {
                    let (extent, name) = self.extent_of(expr, "a dim")?;
                    shape.push(extent);
                    axes.push(Axis::named(name));
                }
            }
        }
        Ok((shape, axes))
    }

    /// `input tokens: int[batch, context]`.
    fn input(&mut self, name: &Name, declared: &Declared) -> Checked<()> {
        if self.current_kind() != Some(DefinitionKind::Model) {
            return self.misplaced(name.span, "`input`", "a model");
        }
        let (shape, axes) = self.dims(&declared.dims)?;
        if shape.first() != Some(&self.mode.batch) || axes[0].name.as_deref() != Some("batch") {
            let error = Diagnostic::error("E0505", declared.span, "the first dim of an input must be `batch`")
                .label("each step feeds `batch` samples at once")
                .help("write `[batch, ...]`");
            return self.fail(error);
        }
        self.bounded_shape(&shape, declared.span)?;
        let dtype = if declared.integer { DType::I32 } else { DType::F32 };
        let input = Input {
            name: name.text.clone(),
            field: name.text.clone(),
            shift: 0,
            dtype,
            below: None,
            kind: InputKind::Field,
        };
        let index = self.registry.input(input);
        if let Some(&earlier) = self.registry.input_nodes().get(&index) {
            let earlier = self.graph.node(earlier).span;
            return self.twice(name, "an input", earlier);
        }
        let ty = TensorType { dtype, shape };
        let graph = &mut self.graph;
        let node = self.registry.input_node(index, || graph.add(Op::Input { index, ty }, &[]));
        self.graph.set_span(node, Some(name.span));
        let tensor = Tensor { node, axes, position: false };
        self.frame().names.insert(name.text.clone(), Value::Tensor(tensor));
        Ok(())
    }

    /// What feeds a model and what it gives is told apart by name.
    fn twice(&mut self, name: &Name, what: &str, earlier: Option<Span>) -> Checked<()> {
        let error = Diagnostic::error("E0202", name.span, format!("`{}` is defined twice", name.text))
            .label(format!("the model has {what} of this name already"))
            .help("give one of the two another name, or remove it");
        let error = match earlier {
            Some(earlier) => error.also(earlier, "the first one"),
            None => error,
        };
        self.fail(error)
    }

    /// `output logits = ...`.
    fn output(&mut self, name: &Name, value: &Expr) -> Checked<()> {
        if self.current_kind() != Some(DefinitionKind::Model) {
            return self.misplaced(name.span, "`output`", "a model");
        }
        if self.outputs.iter().any(|(other, _)| *other == name.text) {
            return self.twice(name, "an output", None);
        }
        self.scan_extents(value);
        let tensor = self.expression(value).and_then(|result| self.operand(result, value.span))?.closed();
        self.outputs.push((name.text.clone(), tensor.clone()));
        self.frame().names.insert(name.text.clone(), Value::Tensor(tensor));
        Ok(())
    }

    /// `repeat count { ... }`.
    fn repeat(&mut self, count: &Expr, name: Option<&Name>, body: &[Statement], span: Span) -> Checked<()> {
        let number = self.known_number(count, "the number of repetitions")?;
        let times = number.plain();
        if times.fract() != 0.0 || !(0.0..=MAX_COUNT).contains(&times) {
            let error = Diagnostic::error("E0506", count.span, "the number of repetitions must be a whole number")
                .label(format!("this is {times}; expected 0 to {MAX_COUNT}"));
            return self.fail(error);
        }
        let component = name.map_or("block", |name| name.text.as_str());
        let outer: BTreeSet<String> = self.frame().names.keys().cloned().collect();
        let result = if self.scope != ScopeId::ROOT || !self.in_network() {
            self.unrolled(times as u64, component, body)
        } else if times > 0.0 {
            self.scoped(times as u64, component, body, &outer, span)
        } else {
            Ok(())
        };
        self.frame().names.retain(|name, _| outer.contains(name));
        result
    }

    /// Whether a model is under construction, as opposed to an optimizer or a schedule.
    pub(super) fn in_network(&self) -> bool {
        self.frames
            .iter()
            .filter_map(|frame| frame.definition)
            .any(|id| matches!(self.library.definition(id).kind, DefinitionKind::Model | DefinitionKind::Layer))
    }

    fn unrolled(&mut self, count: u64, component: &str, body: &[Statement]) -> Checked<()> {
        for _ in 0..count {
            self.enter_place(component, &[]);
            let result = self.body(body);
            self.registry.places.pop();
            result?;
        }
        Ok(())
    }

    /// A repeat as a scope of the graph: names assigned inside that existed before are carried.
    fn scoped(
        &mut self,
        count: u64,
        component: &str,
        body: &[Statement],
        outer: &BTreeSet<String>,
        span: Span,
    ) -> Checked<()> {
        self.enter_place(component, &[]);
        let path = self.registry.place().path.clone();
        self.scope = self.graph.add_scope(path, count);
        let names: Vec<String> = assigned(body).into_iter().filter(|name| outer.contains(name)).collect();
        let result = self.carried(&names, body, span);
        self.scope = ScopeId::ROOT;
        self.registry.places.pop();
        result
    }

    fn carried(&mut self, names: &[String], body: &[Statement], span: Span) -> Checked<()> {
        if names.is_empty() {
            self.report(
                Diagnostic::warning("W0501", span, "this repeat changes nothing")
                    .label("no name from outside is assigned inside")
                    .help("assign to a name that exists before, as in `x = x + ...`"),
            );
        }
        let mut carries = Vec::new();
        for name in names {
            let value = self.lookup(name, span)?;
            let tensor = self.operand(value, span)?;
            let tensor = self.float(tensor, span)?.closed();
            let node = self.graph.add_carry(self.scope, tensor.node, false);
            self.graph.set_span(node, Some(span));
            self.frame().names.insert(name.clone(), Value::Tensor(Tensor { node, ..tensor.clone() }));
            carries.push((name, node, tensor));
        }
        self.body(body)?;
        for (name, node, start) in carries {
            let value = self.lookup(name, span)?;
            let tensor = self.operand(value, span)?.closed();
            self.close_carry(name, node, &start, &tensor, span)?;
            let last = self.add(Op::Last, &[node], span)?;
            let axes = start.axes;
            self.frame().names.insert(name.clone(), Value::Tensor(Tensor { node: last, axes, position: false }));
        }
        Ok(())
    }

    fn close_carry(&mut self, name: &str, carry: NodeId, start: &Tensor, next: &Tensor, span: Span) -> Checked<()> {
        if self.graph.node(carry).ty == self.graph.node(next.node).ty {
            self.graph.set_next(carry, next.node);
            return Ok(());
        }
        let before = shape_shown(&start.axes, &self.shape(start));
        let after = shape_shown(&next.axes, &self.shape(next));
        let error =
            Diagnostic::error("E0507", span, format!("`{name}` changes its shape from one repetition to the next"))
                .label(format!("{before} goes in, {after} comes out"))
                .help("assign a value of the same shape, or use another name inside");
        self.fail(error)
    }
}

/// Names that statements assign, in order, each once.
pub(super) fn assigned(body: &[Statement]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for statement in body {
        let more: Vec<String> = match statement {
            Statement::Assign { targets, .. } => targets.iter().map(|name| name.text.clone()).collect(),
            Statement::Update { target, .. } => vec![target.text.clone()],
            Statement::Repeat { body, .. } => assigned(body),
            _ => Vec::new(),
        };
        for name in more {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}
