//! Updates: an optimizer's body written out for each parameter.

use super::{
    call::Given,
    evaluator::{Checked, Evaluator},
    library::DefinitionId,
    value::{Axis, Number, Tensor, Value, numbers_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{ControlField, NodeId, Op, Output},
    program::State,
    source::Span,
    syntax::tree::{Definition, Dim, Expr, ExprKind, Name, Parameter as Declared, Unit},
};
use std::rc::Rc;
use trainc_kernels::ir::Binary;
use trainc_runtime::artifact::Init;

/// The parameter that is being updated.
#[derive(Clone, Debug)]
pub(super) struct Updating {
    /// Its index.
    parameter: u32,
    /// Its shape as the graph has it.
    shape: Vec<u64>,
    /// Its shape as the optimizer sees it.
    view: Vec<u64>,
    /// Number of leading axes of the view that count instances.
    stacked: usize,
    /// States by name: index, stored shape.
    states: Vec<(String, u32, Vec<u64>)>,
    /// Whether the body has set the parameter.
    moved: bool,
}

/// What an optimizer is told for one parameter.
pub(super) struct Update {
    /// The optimizer.
    pub optimizer: DefinitionId,
    /// Its arguments.
    pub given: Vec<Given>,
    /// The learning rate.
    pub rate: Value,
    /// The gradient.
    pub gradient: NodeId,
    /// Where the optimizer is named.
    pub span: Span,
}

impl Evaluator<'_> {
    /// The number of this update, counted from 1, and the horizon, as `t` and `T`.
    pub(super) fn clock(&mut self, span: Span) -> Checked<[Value; 2]> {
        if let Some(clock) = &self.clock {
            return Ok(clock.clone());
        }
        let scalar = |node| Value::Tensor(Tensor { node, axes: Vec::new(), position: false });
        let step = self.add(Op::Control(ControlField::Step), &[], span)?;
        let step = self.add(Op::ToFloat, &[step], span)?;
        let one = self.add(Op::constant(1.0), &[], span)?;
        let t = self.add(Op::Binary(Binary::Add), &[step, one], span)?;
        let steps = self.add(Op::Control(ControlField::Steps), &[], span)?;
        let horizon = self.add(Op::ToFloat, &[steps], span)?;
        let clock = [scalar(t), scalar(horizon)];
        self.clock = Some(clock.clone());
        Ok(clock)
    }

    /// Adds the update of a parameter to the graph.
    pub(super) fn optimize(&mut self, parameter: u32, update: Update) -> Checked<()> {
        let definition = self.library.definition(update.optimizer);
        let known = &self.registry.parameters[parameter as usize];
        let (shape, stacked) = (known.shape.clone(), usize::from(known.stacked));
        let matrix = definition.parameters.iter().find(|parameter| parameter.tensor.is_some());
        let view = matrix.map_or_else(|| shape.clone(), |_| matrix_view(&shape, stacked, known.split));
        let updating = Updating { parameter, shape, view, stacked, states: Vec::new(), moved: false };
        let outer = self.updating.replace(updating);
        let span = update.span;
        let result = self.within(update.optimizer, Some(span), |this| {
            this.present(definition, matrix, update)?;
            this.body(&definition.body)
        });
        let done = std::mem::replace(&mut self.updating, outer).expect("set above");
        result?;
        if done.moved { Ok(()) } else { self.moves_nothing(definition, span) }
    }

    fn moves_nothing<T>(&mut self, definition: &Definition, span: Span) -> Checked<T> {
        let name = &definition.name.text;
        let error = Diagnostic::error("E0512", span, format!("the optimizer `{name}` does not move the parameter"))
            .also(definition.name.span, "defined here")
            .help("write `p <- ...` in its body");
        self.fail(error)
    }

    /// Puts what an optimizer sees into its frame: `p`, `grad`, `rate`, `t`, `T`, its hyperparameters, dims.
    fn present(&mut self, definition: &Definition, matrix: Option<&Declared>, update: Update) -> Checked<()> {
        let span = update.span;
        let context = self.updating.clone().expect("set by the caller");
        let node = self.registry.parameter_node(&mut self.graph, context.parameter);
        let (p, grad) = (self.viewed(node, span)?, self.viewed(update.gradient, span)?);
        let [t, horizon] = self.clock(span)?;
        if let Some(Declared { tensor: Some(ty), .. }) = matrix {
            self.bind_matrix(&ty.dims, &context)?;
        }
        let plain = Definition {
            parameters: definition.parameters.iter().filter(|parameter| parameter.tensor.is_none()).cloned().collect(),
            ..definition.clone()
        };
        self.bind(&plain, update.given, span)?;
        let name = matrix.map_or("p", |parameter| parameter.name.text.as_str());
        let values = [(name, p), ("grad", grad), ("rate", update.rate), ("t", t), ("T", horizon)];
        for (name, value) in values {
            self.frame().names.insert(name.to_string(), value);
        }
        Ok(())
    }

    fn bind_matrix(&mut self, dims: &[Dim], context: &Updating) -> Checked<()> {
        let extents = &context.view[context.stacked..];
        let names: Vec<&Expr> = dims
            .iter()
            .filter_map(|dim| match dim {
                Dim::Size(expr) => Some(expr),
                Dim::Rest(_) => None,
            })
            .collect();
        for (expr, &extent) in names.iter().zip(extents) {
            if let ExprKind::Name(name) = &expr.kind {
                let number =
                    Number { value: extent as f64, unit: Unit::None, name: Some(Rc::from(name.as_str())), dim: true };
                self.frame().names.insert(name.clone(), Value::Number(number));
            }
        }
        if names.len() == 2 {
            return Ok(());
        }
        let span = names.first().map_or(self.frame().call.expect("optimizers are called"), |expr| expr.span);
        let error = Diagnostic::error("E0513", span, "a matrix optimizer sees its parameter as `[m, n]`");
        self.fail(error.label(format!("{} dims here", names.len())).help("write `p: [m, n]`"))
    }

    /// A tensor of the parameter's shape as the optimizer sees it.
    fn viewed(&mut self, node: NodeId, span: Span) -> Checked<Value> {
        let context = self.updating.clone().expect("only within an optimizer");
        let node = self.reshaped(node, &context.view, span)?;
        let axes = vec![Axis::default(); context.view.len()];
        Ok(Value::Tensor(Tensor { node, axes, position: false }))
    }

    fn reshaped(&mut self, node: NodeId, shape: &[u64], span: Span) -> Checked<NodeId> {
        if self.graph.shape(node) == shape {
            return Ok(node);
        }
        self.add(Op::Reshape { shape: shape.to_vec() }, &[node], span)
    }

    /// `state m = 0`, `state rows: [m] = 0`.
    pub(super) fn state(&mut self, name: &Name, dims: Option<&[Dim]>, init: &Expr) -> Checked<()> {
        let Some(context) = self.updating.clone() else {
            let error = Diagnostic::error("E0501", name.span, "`state` does not belong here");
            return self.fail(error.label("only an optimizer can have it").help("remove it"));
        };
        let (stored, view) = match dims {
            None => (context.shape.clone(), context.view.clone()),
            Some(dims) => {
                let (own, _) = self.dims(dims)?;
                let shape: Vec<u64> = context.shape[..context.stacked].iter().copied().chain(own).collect();
                (shape.clone(), shape)
            }
        };
        let start = self.known_number(init, "the initial value of a state")?.plain();
        let optimizer = self.frame().definition.map(|id| self.library.definition(id).name.text.clone());
        let parameter = &self.registry.parameters[context.parameter as usize].name;
        let path = format!("{}.{}.{parameter}", optimizer.unwrap_or_default(), name.text);
        let index = self.registry.states.len() as u32;
        let init = Init::Constant { value: start as f32 };
        self.registry.states.push(State { name: path, shape: stored.clone(), init });
        let node = self.add(Op::State { index, shape: stored.clone() }, &[], name.span)?;
        let node = self.reshaped(node, &view, name.span)?;
        let axes = vec![Axis::default(); view.len()];
        self.frame().names.insert(name.text.clone(), Value::Tensor(Tensor { node, axes, position: false }));
        self.updating.as_mut().expect("checked").states.push((name.text.clone(), index, stored));
        Ok(())
    }

    /// `m <- ...`: from here on the name has the new value, and the step stores it.
    pub(super) fn update(&mut self, target: &Name, value: &Expr) -> Checked<()> {
        let Some(context) = self.updating.clone() else {
            let error = Diagnostic::error("E0501", target.span, "`<-` does not belong here");
            return self.fail(error.label("only an optimizer updates anything").help("write `=` to name a value"));
        };
        let state = context.states.iter().find(|(name, ..)| *name == target.text);
        let is_parameter = state.is_none() && self.is_parameter_name(&target.text);
        let (output, stored) = match state {
            Some((_, index, stored)) => (Output::State(*index), stored.clone()),
            None if is_parameter => (Output::Parameter(context.parameter), context.shape.clone()),
            None => return self.not_updatable(target, &context),
        };
        self.scan_extents(value);
        let old = self.lookup(&target.text, target.span)?;
        let old = self.operand(old, target.span)?;
        let new = self.expression(value)?;
        let new = self.operand(new, value.span)?.closed();
        let new = self.float(new, value.span)?;
        let shape = self.shape(&old);
        let node = self.fitted(new.node, &shape, value.span)?;
        let stored = self.reshaped(node, &stored, value.span)?;
        self.graph.set_output(output, stored);
        self.frame().names.insert(target.text.clone(), Value::Tensor(Tensor { node, ..old }));
        self.updating.as_mut().expect("checked").moved |= is_parameter;
        Ok(())
    }

    /// The new value in the shape of the old one; a scalar stands for every element.
    fn fitted(&mut self, node: NodeId, shape: &[u64], span: Span) -> Checked<NodeId> {
        let found = self.graph.shape(node).to_vec();
        if found.is_empty() {
            return self.spread(node, &[], shape, span);
        }
        if found == shape {
            return Ok(node);
        }
        let error = Diagnostic::error("E0302", span, "the new value has another shape than the old one")
            .label(format!("{} instead of {}", numbers_shown(&found), numbers_shown(shape)))
            .help("make the shapes equal");
        self.fail(error)
    }

    fn is_parameter_name(&mut self, name: &str) -> bool {
        let Some(id) = self.frame().definition else { return false };
        let definition = self.library.definition(id);
        let matrix = definition.parameters.iter().find(|parameter| parameter.tensor.is_some());
        matrix.map_or("p", |parameter| parameter.name.text.as_str()) == name
    }

    fn not_updatable<T>(&mut self, target: &Name, context: &Updating) -> Checked<T> {
        let known: Vec<&str> = context.states.iter().map(|(name, ..)| name.as_str()).chain(["p"]).collect();
        let error =
            Diagnostic::error("E0514", target.span, format!("`{}` is neither a state nor the parameter", target.text));
        let error = match super::suggest::closest(&target.text, known.iter().copied()) {
            Some(other) => error.replace(target.span, other, format!("did you mean `{other}`?")),
            None => error.help(format!("declare it: `state {} = 0`", target.text)),
        };
        self.fail(error.label(format!("`<-` updates {}", super::suggest::listed(known))))
    }
}

/// A parameter as matrices: `[instances?, outputs, inputs]`.
fn matrix_view(shape: &[u64], stacked: usize, split: usize) -> Vec<u64> {
    let own = &shape[stacked..];
    let split = split.min(own.len());
    let sizes = [own[..split].iter().product(), own[split..].iter().product()];
    shape[..stacked].iter().copied().chain(sizes).collect()
}
