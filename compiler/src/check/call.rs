//! Calls: arguments meet parameters, shapes bind the names of dims, bodies are evaluated.

use super::{
    evaluator::{Checked, Evaluator, Failed, Frame},
    library::DefinitionId,
    registry::Place,
    suggest::{closest, listed},
    value::{Axis, Label, Number, Tensor, Value, shape_shown, short_text},
};
use crate::{
    diagnostic::Diagnostic,
    source::Span,
    syntax::tree::{Argument, Definition, DefinitionKind, Dim, Expr, ExprKind, Name, Parameter, TensorType, Unit},
};
use std::rc::Rc;
use trainc_runtime::artifact::DType;

/// An argument with its value.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// `heads` in `heads = 6`.
    pub name: Option<Name>,
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
}

impl Evaluator<'_> {
    /// `callee[axes](arguments)`.
    pub(super) fn call(&mut self, callee: &Name, axes: &[Name], arguments: &[Argument], span: Span) -> Checked<Value> {
        match self.lookup(&callee.text, callee.span)? {
            Value::Builtin(builtin) => self.call_builtin(builtin, axes, arguments, span),
            Value::Definition(id) => {
                self.callable_here(id, callee)?;
                let labels = axes.iter().map(|name| self.label(&name.text)).collect();
                let given = self.given(arguments)?;
                self.call_definition(id, labels, given, span)
            }
            other => {
                let found = other.describe();
                let error = Diagnostic::error("E0210", callee.span, format!("`{}` cannot be called", callee.text));
                self.fail(error.label(format!("it is {found}")).help("call a layer or a function"))
            }
        }
    }

    /// The arguments' values.
    pub(super) fn given(&mut self, arguments: &[Argument]) -> Checked<Vec<Given>> {
        arguments
            .iter()
            .map(|argument| {
                let value = self.expression(&argument.value)?;
                Ok(Given { name: argument.name.clone(), value, span: argument.value.span })
            })
            .collect()
    }

    fn callable_here(&mut self, id: DefinitionId, callee: &Name) -> Checked<()> {
        let kind = self.library.definition(id).kind;
        let (problem, mend) = match kind {
            DefinitionKind::Function => return Ok(()),
            DefinitionKind::Layer if self.registry.places.len() > 1 || self.in_model() => return Ok(()),
            DefinitionKind::Layer => {
                ("is a layer and has parameters; layers belong into models", "use a function here")
            }
            DefinitionKind::Model => ("is a model", "name it in the `model` clause of `train`"),
            DefinitionKind::Optimizer => ("is an optimizer", "name it in the `optimizer` clause of `train`"),
            DefinitionKind::Filter => ("is a filter", "name it in the `filter` clause of `train`"),
            DefinitionKind::Schedule => ("is a schedule", "name it in the `schedule` clause of `train`"),
        };
        let error = Diagnostic::error("E0215", callee.span, format!("`{}` cannot be called here", callee.text));
        self.fail(error.label(format!("`{}` {problem}", callee.text)).help(mend))
    }

    fn in_model(&self) -> bool {
        let kinds = self.frames.iter().filter_map(|frame| frame.definition);
        kinds.map(|id| self.library.definition(id).kind).any(|kind| kind == DefinitionKind::Model)
    }

    /// Calls a layer or function.
    pub(super) fn call_definition(
        &mut self,
        id: DefinitionId,
        labels: Vec<Label>,
        given: Vec<Given>,
        span: Span,
    ) -> Checked<Value> {
        let definition = self.library.definition(id);
        let is_layer = definition.kind == DefinitionKind::Layer;
        if is_layer {
            self.enter_place(&definition.name.text, &definition.roles);
        }
        let result = self.within(id, Some(span), |this| {
            this.bind_axes(definition, labels, span)?;
            this.bind(definition, given, span)?;
            let value = this.body(&definition.body)?;
            this.result(definition, value, span)
        });
        if is_layer {
            self.registry.places.pop();
        }
        result.map(|(value, _)| value)
    }

    /// Opens a call, does something in it, and closes it whatever happens.
    pub(super) fn within<T>(
        &mut self,
        id: DefinitionId,
        call: Option<Span>,
        work: impl FnOnce(&mut Self) -> Checked<T>,
    ) -> Checked<(T, Frame)> {
        self.open(Some(id), call)?;
        let result = work(self);
        let frame = self.close();
        result.map(|value| (value, frame))
    }

    /// Goes to a place inside the present one, adding roles to its own.
    pub(super) fn enter_place(&mut self, name: &str, roles: &[Name]) {
        let place = self.registry.place();
        let path = place.path_of(name);
        let mut roles: Vec<String> =
            place.roles.iter().cloned().chain(roles.iter().map(|role| role.text.clone())).collect();
        roles.sort();
        roles.dedup();
        self.registry.places.push(Place { path, roles, ..Place::default() });
    }

    fn bind_axes(&mut self, definition: &Definition, labels: Vec<Label>, span: Span) -> Checked<()> {
        if labels.len() != definition.axes.len() {
            let name = &definition.name.text;
            let wanted: Vec<&str> = definition.axes.iter().map(|axis| axis.text.as_str()).collect();
            let error = Diagnostic::error("E0213", span, format!("`{name}` takes {} axes", wanted.len()))
                .label(format!("{} are named here", labels.len()))
                .also(definition.name.span, "defined here")
                .help(format!("write `{name}[{}](...)`", wanted.join(", ")));
            return self.fail(error);
        }
        for (axis, label) in definition.axes.iter().zip(labels) {
            self.frame().axes.insert(axis.text.clone(), label);
        }
        Ok(())
    }

    /// Gives the parameters of a definition their values: first numbers and the like, then tensors, whose shapes bind
    /// the names of dims, then defaults, which may use all of these.
    pub(super) fn bind(&mut self, definition: &Definition, given: Vec<Given>, span: Span) -> Checked<()> {
        let slots = self.slots(definition, given)?;
        let pairs: Vec<(&Parameter, Option<Given>)> = definition.parameters.iter().zip(slots).collect();
        let (tensors, others): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(parameter, _)| parameter.tensor.is_some());
        let mut defaults = Vec::new();
        for (parameter, given) in others {
            match given {
                Some(given) => self.bind_value(parameter, given.value),
                None => defaults.push(parameter),
            }
        }
        for (parameter, given) in tensors {
            let (Some(given), Some(ty)) = (given, &parameter.tensor) else {
                return self.missing_argument(definition, parameter, span);
            };
            let tensor = self.typed(definition, parameter, ty, given)?;
            self.frame().names.insert(parameter.name.text.clone(), Value::Tensor(tensor));
        }
        for parameter in defaults {
            let Some(default) = &parameter.default else { return self.missing_argument(definition, parameter, span) };
            let value = self.expression(default)?;
            self.bind_value(parameter, value);
        }
        Ok(())
    }

    fn bind_value(&mut self, parameter: &Parameter, value: Value) {
        let value = match value {
            Value::Number(number) => {
                let unnamed = number.name.as_ref().is_none_or(|name| name.parse::<f64>().is_ok());
                let name = if unnamed { Some(Rc::from(parameter.name.text.as_str())) } else { number.name };
                Value::Number(Number { name, dim: false, ..number })
            }
            other => other,
        };
        self.frame().names.insert(parameter.name.text.clone(), value);
    }

    fn missing_argument<T>(&mut self, definition: &Definition, parameter: &Parameter, span: Span) -> Checked<T> {
        let (name, missing) = (&definition.name.text, &parameter.name.text);
        let error = Diagnostic::error("E0211", span, format!("`{name}` needs the argument `{missing}`"))
            .label(format!("`{missing}` is missing"))
            .also(parameter.name.span, "it has no default")
            .help(format!("write `{missing} = ...`"));
        self.fail(error)
    }

    /// Checks that the arguments of an optimizer, a filter or a schedule are ones that it has, and that none is missing.
    pub(super) fn arguments_fit(&mut self, definition: &Definition, given: Vec<Given>, span: Span) -> Checked<()> {
        let plain = definition.without_tensors();
        let slots = self.slots(&plain, given)?;
        let missing =
            |(parameter, given): &(&Parameter, &Option<Given>)| given.is_none() && parameter.default.is_none();
        match plain.parameters.iter().zip(&slots).find(missing) {
            Some((parameter, _)) => self.missing_argument(&plain, parameter, span),
            None => Ok(()),
        }
    }

    /// Which argument belongs to which parameter.
    fn slots(&mut self, definition: &Definition, given: Vec<Given>) -> Checked<Vec<Option<Given>>> {
        let mut slots: Vec<Option<Given>> = vec![None; definition.parameters.len()];
        for (position, given) in given.into_iter().enumerate() {
            let slot = match &given.name {
                None => Some(position).filter(|&position| position < slots.len()),
                Some(name) => definition.parameters.iter().position(|parameter| parameter.name.text == name.text),
            };
            let Some(slot) = slot else { return self.no_such_argument(definition, &given) };
            if slots[slot].is_some() {
                let name = &definition.parameters[slot].name.text;
                let error = Diagnostic::error("E0212", given.span, format!("`{name}` is given twice"));
                return self.fail(error.help("remove one of the two"));
            }
            slots[slot] = Some(given);
        }
        Ok(slots)
    }

    fn no_such_argument<T>(&mut self, definition: &Definition, given: &Given) -> Checked<T> {
        let name = &definition.name.text;
        let parameters: Vec<&str> =
            definition.parameters.iter().map(|parameter| parameter.name.text.as_str()).collect();
        let takes = if parameters.is_empty() {
            "it takes none".to_string()
        } else {
            format!("it takes {}", listed(parameters.iter().copied()))
        };
        let error = match &given.name {
            None => {
                Diagnostic::error("E0212", given.span, format!("too many arguments for `{name}`")).help("remove it")
            }
            Some(written) => {
                let error =
                    Diagnostic::error("E0212", written.span, format!("`{name}` has no argument `{}`", written.text));
                match closest(&written.text, parameters.iter().copied()) {
                    Some(other) => error.replace(written.span, other, format!("did you mean `{other}`?")),
                    None => error.help("remove it, or correct its name"),
                }
            }
        };
        self.fail(error.label(takes).also(definition.name.span, "defined here"))
    }

    /// A tensor argument: element type and shape are checked, dims bound.
    fn typed(
        &mut self,
        definition: &Definition,
        parameter: &Parameter,
        ty: &TensorType,
        given: Given,
    ) -> Checked<Tensor> {
        let place = given.span;
        let tensor = match given.value {
            Value::Tensor(_) | Value::Product(_) | Value::Number(_) => self.operand(given.value, place)?.closed(),
            Value::Unknown => return Err(Failed),
            other => {
                let (name, found) = (&parameter.name.text, other.describe());
                let error = Diagnostic::error(
                    "E0304",
                    place,
                    format!("`{}` needs a tensor for `{name}`", definition.name.text),
                );
                return self.fail(error.label(format!("found {found}")).also(ty.span, "declared here"));
            }
        };
        let tensor = self.element_type(definition, parameter, ty, tensor, place)?;
        self.bind_dims(&ty.dims, &tensor, &|this, problem| {
            let found = shape_shown(&tensor.axes, &this.shape(&tensor));
            let wanted = this.text(ty.span);
            Diagnostic::error(
                "E0301",
                place,
                format!("`{}` needs {}: {wanted}, found {found}", definition.name.text, parameter.name.text),
            )
            .label(problem)
            .also(ty.span, "declared here")
            .help("make the shapes agree")
        })?;
        Ok(tensor)
    }

    fn element_type(
        &mut self,
        definition: &Definition,
        parameter: &Parameter,
        ty: &TensorType,
        tensor: Tensor,
        place: Span,
    ) -> Checked<Tensor> {
        let integer = self.graph.node(tensor.node).ty.dtype == DType::I32;
        if integer == ty.integer {
            return Ok(tensor);
        }
        if !ty.integer && tensor.position {
            return self.float(tensor, place);
        }
        let (wanted, found) =
            if ty.integer { ("integers", "floating-point numbers") } else { ("floating-point numbers", "integers") };
        let (name, argument) = (&definition.name.text, &parameter.name.text);
        let error = Diagnostic::error("E0303", place, format!("`{name}` needs {wanted} for `{argument}`"))
            .label(format!("this holds {found}"))
            .also(ty.span, "declared here")
            .help(if ty.integer {
                "use an input declared as `int[...]`"
            } else {
                "look the integers up with `embedding`, or convert them with `float(...)`"
            });
        self.fail(error)
    }

    /// Unifies declared dims with the shape of a tensor. `error` builds the diagnostic around a problem.
    pub(super) fn bind_dims(
        &mut self,
        dims: &[Dim],
        tensor: &Tensor,
        error: &dyn Fn(&Self, String) -> Diagnostic,
    ) -> Checked<()> {
        let shape = self.shape(tensor);
        let named = dims.iter().filter(|dim| matches!(dim, Dim::Size(_))).count();
        let open = named < dims.len();
        if named > shape.len() || (!open && named != shape.len()) {
            let axes = if named == 1 { "axis" } else { "axes" };
            let least = if open { "at least " } else { "" };
            let problem = format!("this has {} axes, expected {least}{named} {axes}", shape.len());
            let error = error(self, problem);
            return self.fail(error);
        }
        let front = dims.iter().position(|dim| matches!(dim, Dim::Rest(_))).unwrap_or(dims.len());
        let skipped = shape.len() - named;
        for (i, dim) in dims.iter().enumerate() {
            let Dim::Size(expr) = dim else { continue };
            let axis = if i < front { i } else { i + skipped - 1 };
            self.bind_dim(expr, shape[axis], &tensor.axes[axis], error)?;
        }
        Ok(())
    }

    fn bind_dim(
        &mut self,
        expr: &Expr,
        extent: u64,
        axis: &Axis,
        error: &dyn Fn(&Self, String) -> Diagnostic,
    ) -> Checked<()> {
        if let ExprKind::Name(name) = &expr.kind
            && !self.frame().names.contains_key(name)
            && self.library.find(name, expr.span.file).is_none()
            && name != "batch"
        {
            let shown = axis.name.clone().or_else(|| Some(Rc::from(name.as_str())));
            let number = Number { value: extent as f64, unit: Unit::None, name: shown, dim: true };
            self.frame().names.insert(name.clone(), Value::Number(number));
            return Ok(());
        }
        let number = self.known_number(expr, "a dim")?;
        if number.plain() == extent as f64 {
            return Ok(());
        }
        let wanted = short_text(self.text(expr.span)).unwrap_or_else(|| Rc::from("this dim"));
        let found = axis.name.as_ref().map_or_else(|| extent.to_string(), |name| format!("{name} = {extent}"));
        let problem = format!("`{wanted}` is {}, found {found}", number.plain());
        let error = error(self, problem);
        self.fail(error)
    }
}
