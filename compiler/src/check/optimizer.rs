//! Updates: an optimizer's body written out for each parameter. A filter's body shares states, views and `<-` with it.

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

/// Most states in a list.
const MAX_STATES: f64 = 64.0;

/// The parameter whose update is being written out.
#[derive(Clone, Debug)]
pub(super) struct Updating {
    /// Its index.
    pub parameter: u32,
    /// What the body sets besides its states.
    pub subject: Subject,
    /// Its shape as the graph has it.
    shape: Vec<u64>,
    /// Its shape as the body sees it.
    view: Vec<u64>,
    /// Number of leading axes of the view that count instances.
    stacked: usize,
    states: Vec<Stored>,
    /// Whether the body has set its subject.
    pub done: bool,
}

/// What a body sets besides its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// An optimizer sets the parameter.
    Parameter,
    /// A filter sets the gradient.
    Gradient,
}

/// A state, or one of a list of states.
#[derive(Clone, Debug)]
struct Stored {
    name: String,
    position: Option<usize>,
    index: u32,
    shape: Vec<u64>,
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
    /// The gradient before a filter changed it; the same node without one.
    pub raw: NodeId,
    /// Standard deviation of the noise in each element of `raw`; the number 0 where none is added.
    pub noise: Value,
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
        let updating = self.updating(definition, parameter, Subject::Parameter);
        let outer = self.updating.replace(updating);
        let span = update.span;
        let result = self.within(update.optimizer, Some(span), |this| {
            let (gradient, raw) = (this.viewed(update.gradient, span)?, this.viewed(update.raw, span)?);
            this.frame().names.extend([("raw".into(), raw), ("noise".into(), update.noise)]);
            this.present(definition, update.given, update.rate, span)?;
            this.frame().names.insert("grad".into(), gradient);
            this.body(&definition.body)
        });
        let updated = std::mem::replace(&mut self.updating, outer).expect("set above");
        result?;
        if updated.done { Ok(()) } else { self.moves_nothing(definition, span) }
    }

    /// The update of a parameter by a definition, with nothing done yet. Only a definition that sees matrices knows which
    /// axis counts instances.
    pub(super) fn updating(&self, definition: &Definition, parameter: u32, subject: Subject) -> Updating {
        let known = &self.registry.parameters[parameter as usize];
        let shape = known.shape.clone();
        let stacked = usize::from(known.stacked && matrix_of(definition).is_some());
        let view = match matrix_of(definition) {
            Some(_) => matrix_view(&shape, stacked, known.split),
            None => shape.clone(),
        };
        Updating { parameter, subject, shape, view, stacked, states: Vec::new(), done: false }
    }

    fn moves_nothing<T>(&mut self, definition: &Definition, span: Span) -> Checked<T> {
        let name = &definition.name.text;
        let error = Diagnostic::error("E0512", span, format!("the optimizer `{name}` does not move the parameter"))
            .also(definition.name.span, "defined here")
            .help("write `p <- ...` in its body");
        self.fail(error)
    }

    /// Puts what an optimizer or a filter sees into its frame, but for the gradient: `p`, `rate`, `t`, `T`, its
    /// hyperparameters, dims.
    pub(super) fn present(
        &mut self,
        definition: &Definition,
        given: Vec<Given>,
        rate: Value,
        span: Span,
    ) -> Checked<()> {
        let context = self.updating.clone().expect("set by the caller");
        let node = self.registry.parameter_node(&mut self.graph, context.parameter);
        let p = self.viewed(node, span)?;
        let [t, horizon] = self.clock(span)?;
        if let Some(Declared { tensor: Some(ty), .. }) = matrix_of(definition) {
            self.bind_matrix(&ty.dims, &context)?;
        }
        self.bind(&definition.without_tensors(), given, span)?;
        let values = [(parameter_name(definition), p), ("rate", rate), ("t", t), ("T", horizon)];
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

    /// A tensor of the parameter's shape as the body sees it.
    pub(super) fn viewed(&mut self, node: NodeId, span: Span) -> Checked<Value> {
        let context = self.updating.clone().expect("only within an optimizer or a filter");
        let node = self.reshaped(node, &context.view, span)?;
        let axes = vec![Axis::default(); context.view.len()];
        Ok(Value::Tensor(Tensor { node, axes, position: false }))
    }

    /// A value of the body's view in the parameter's own shape.
    pub(super) fn unviewed(&mut self, value: Value, span: Span) -> Checked<NodeId> {
        let context = self.updating.clone().expect("only within an optimizer or a filter");
        let tensor = self.operand(value, span)?.closed();
        let tensor = self.float(tensor, span)?;
        let node = self.fitted(tensor.node, &context.view, span)?;
        self.reshaped(node, &context.shape, span)
    }

    fn reshaped(&mut self, node: NodeId, shape: &[u64], span: Span) -> Checked<NodeId> {
        if self.graph.shape(node) == shape {
            return Ok(node);
        }
        self.add(Op::Reshape { shape: shape.to_vec() }, &[node], span)
    }

    /// `state m = 0`, `state rows: [m] = 0`, `state s[n] = 0`.
    pub(super) fn state(
        &mut self,
        name: &Name,
        count: Option<&Expr>,
        dims: Option<&[Dim]>,
        init: &Expr,
    ) -> Checked<()> {
        let Some(context) = self.updating.clone() else {
            let error = Diagnostic::error("E0501", name.span, "`state` does not belong here");
            return self.fail(error.label("only an optimizer or a filter can have it").help("remove it"));
        };
        if context.states.iter().any(|state| state.name == name.text) {
            let error = Diagnostic::error("E0202", name.span, format!("the state `{}` is declared twice", name.text));
            return self.fail(error.label("the second declaration").help("give one of them another name"));
        }
        let (stored, view) = match dims {
            None => (context.shape.clone(), context.view.clone()),
            Some(dims) => {
                let (own, _) = self.dims(dims)?;
                let shape: Vec<u64> = context.shape[..context.stacked].iter().copied().chain(own).collect();
                (shape.clone(), shape)
            }
        };
        let start = self.known_number(init, "the initial value of a state")?.plain();
        let value = match count {
            None => self.stored(name, None, start, &stored, &view)?,
            Some(count) => {
                let number = self.known_number(count, "the number of states")?.plain();
                let count = self.whole_in(number, count.span, "the number of states", 0.0..=MAX_STATES)?;
                let states =
                    (0..count as usize).map(|position| self.stored(name, Some(position), start, &stored, &view));
                Value::Tuple(states.collect::<Checked<_>>()?)
            }
        };
        self.frame().names.insert(name.text.clone(), value);
        Ok(())
    }

    /// Makes a state, and reads it.
    fn stored(
        &mut self,
        name: &Name,
        position: Option<usize>,
        start: f64,
        shape: &[u64],
        view: &[u64],
    ) -> Checked<Value> {
        let parameter = self.updating.as_ref().expect("checked").parameter;
        let owner = self.frame().definition.map(|id| self.library.definition(id).name.text.clone()).unwrap_or_default();
        let number = position.map_or_else(String::new, |position| format!(".{position}"));
        let path = format!("{owner}.{}{number}.{}", name.text, self.registry.parameters[parameter as usize].name);
        let init = Init::Constant { value: start as f32 };
        let index = self.registry.state(State { name: path, shape: shape.to_vec(), init });
        let node = self.add(Op::State { index, shape: shape.to_vec() }, &[], name.span)?;
        let node = self.reshaped(node, view, name.span)?;
        let state = Stored { name: name.text.clone(), position, index, shape: shape.to_vec() };
        self.updating.as_mut().expect("checked").states.push(state);
        Ok(Value::Tensor(Tensor { node, axes: vec![Axis::default(); view.len()], position: false }))
    }

    /// `m <- ...`, `s[k] <- ...`: from here on the name has the new value, and the step stores it.
    pub(super) fn update(&mut self, target: &Name, position: Option<&Expr>, value: &Expr) -> Checked<()> {
        let Some(context) = self.updating.clone() else {
            let error = Diagnostic::error("E0501", target.span, "`<-` does not belong here");
            let error = error.label("only an optimizer or a filter updates anything");
            return self.fail(error.help("write `=` to name a value"));
        };
        let is_state = context.states.iter().any(|state| state.name == target.text);
        let is_subject = !is_state && position.is_none() && self.subject_name(&context) == target.text;
        if !is_state && !is_subject {
            return self.not_updatable(target, &context);
        }
        self.scan_extents(value);
        let old = self.lookup(&target.text, target.span)?;
        let (old, at) = self.addressed(old, target, position)?;
        let new = self.expression(value)?;
        let new = self.operand(new, value.span)?.closed();
        let new = self.float(new, value.span)?;
        let shape = self.shape(&old);
        let node = self.fitted(new.node, &shape, value.span)?;
        let state = context.states.iter().find(|state| state.name == target.text && state.position == at);
        let (output, shape) = match (state, context.subject) {
            (Some(state), _) => (Some(Output::State(state.index)), &state.shape),
            (None, Subject::Parameter) => (Some(Output::Parameter(context.parameter)), &context.shape),
            (None, Subject::Gradient) => (None, &context.view),
        };
        let stored = self.reshaped(node, shape, value.span)?;
        output.into_iter().for_each(|output| self.graph.set_output(output, stored));
        self.rename(target, at, Value::Tensor(Tensor { node, ..old }));
        self.updating.as_mut().expect("checked").done |= is_subject;
        Ok(())
    }

    /// What `<-` replaces: a tensor, or the one at a position of a list of states.
    fn addressed(&mut self, old: Value, target: &Name, position: Option<&Expr>) -> Checked<(Tensor, Option<usize>)> {
        match (old, position) {
            (Value::Tuple(values), Some(position)) => {
                let number = self.known_number(position, "the position in a list of states")?.plain();
                let whole = number.fract() == 0.0 && number >= 0.0;
                match values.into_iter().nth(number as usize).filter(|_| whole) {
                    Some(value) => Ok((self.operand(value, target.span)?, Some(number as usize))),
                    None => self.no_such_state(target, position.span, number),
                }
            }
            (Value::Tuple(_), None) => {
                let name = &target.text;
                let error = Diagnostic::error("E0306", target.span, format!("`{name}` is a list of states"));
                self.fail(error.label("which of them?").help(format!("write `{name}[0] <- ...`")))
            }
            (old, None) => Ok((self.operand(old, target.span)?, None)),
            (_, Some(position)) => {
                let error = Diagnostic::error("E0306", position.span, format!("`{}` is a single state", target.text));
                self.fail(error.label("it has no positions").help("a state is updated as a whole: remove the brackets"))
            }
        }
    }

    fn no_such_state<T>(&mut self, target: &Name, span: Span, number: f64) -> Checked<T> {
        let error = Diagnostic::error("E0306", span, format!("`{}` has no state {number}", target.text));
        self.fail(error.help("positions are whole numbers, counted from 0"))
    }

    /// Gives a name, or one position of a list, its new value.
    fn rename(&mut self, target: &Name, at: Option<usize>, value: Value) {
        match (at, self.frame().names.get_mut(&target.text)) {
            (Some(at), Some(Value::Tuple(values))) => values[at] = value,
            _ => drop(self.frame().names.insert(target.text.clone(), value)),
        }
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

    /// The name of what the body sets besides its states.
    fn subject_name(&self, context: &Updating) -> String {
        let definition = self.frames.last().and_then(|frame| frame.definition).map(|id| self.library.definition(id));
        match (context.subject, definition) {
            (Subject::Gradient, _) => "grad".into(),
            (Subject::Parameter, Some(definition)) => parameter_name(definition).into(),
            (Subject::Parameter, None) => "p".into(),
        }
    }

    fn not_updatable<T>(&mut self, target: &Name, context: &Updating) -> Checked<T> {
        let subject = self.subject_name(context);
        let mut known: Vec<&str> = context.states.iter().map(|state| state.name.as_str()).collect();
        known.dedup();
        known.push(&subject);
        let what = if context.subject == Subject::Parameter { "the parameter" } else { "the gradient" };
        let error = Diagnostic::error("E0514", target.span, format!("`{}` is neither a state nor {what}", target.text));
        let error = match super::suggest::closest(&target.text, known.iter().copied()) {
            _ if context.subject == Subject::Gradient && target.text == "p" => {
                error.help("a filter changes the gradient, and the optimizer moves the parameter: write `grad <- ...`")
            }
            Some(other) => error.replace(target.span, other, format!("did you mean `{other}`?")),
            None => error.help(format!("declare it: `state {} = 0`", target.text)),
        };
        self.fail(error.label(format!("`<-` updates {}", super::suggest::listed(known))))
    }
}

/// The parameter that makes a definition see matrices: `p: [m, n]`.
fn matrix_of(definition: &Definition) -> Option<&Declared> {
    definition.parameters.iter().find(|parameter| parameter.tensor.is_some())
}

/// What a definition calls the parameter that it is about.
pub(super) fn parameter_name(definition: &Definition) -> &str {
    matrix_of(definition).map_or("p", |parameter| parameter.name.text.as_str())
}

/// A parameter as matrices: `[instances?, outputs, inputs]`.
fn matrix_view(shape: &[u64], stacked: usize, split: usize) -> Vec<u64> {
    let own = &shape[stacked..];
    let split = split.min(own.len());
    let sizes = [own[..split].iter().product(), own[split..].iter().product()];
    shape[..stacked].iter().copied().chain(sizes).collect()
}
