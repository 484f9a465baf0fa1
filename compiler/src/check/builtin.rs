//! Functions that the compiler knows; everything else is written in the language.

use super::{
    call::Given,
    evaluator::{Checked, Evaluator, Failed},
    reduce::Reduction,
    series,
    suggest::listed,
    value::{Axis, Number, Start, Tensor, Value, numbers_shown},
};
use crate::{
    diagnostic::Diagnostic,
    graph::{Op, TensorType},
    source::Span,
    syntax::tree::{Argument, ExprKind, Name, Unit},
};
use trainc_kernels::ir::{Binary, Generator, Unary};
use trainc_runtime::artifact::{DType, Init};

/// A function that the compiler knows.
#[derive(Debug)]
pub(super) struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Names of its parameters.
    pub parameters: &'static [&'static str],
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Elementwise(Unary),
    Reduce(Reduction),
    Index,
    Next,
    Float,
    Integer,
    StopGradient,
    Reshape,
    Part,
    Join,
    Filled(f64),
    UniformLike,
    Normal,
    Uniform,
    Hash,
    Length,
    Stable,
    Settles,
    Gradient,
}

const fn builtin(name: &'static str, parameters: &'static [&'static str], what: What) -> Builtin {
    Builtin { name, parameters, what }
}

/// All of them, in order of themes: elementwise, reductions, indices, types, shapes, draws, initial values, lists, gradients.
static BUILTINS: [Builtin; 34] = [
    builtin("exp", &["x"], What::Elementwise(Unary::Exp)),
    builtin("log", &["x"], What::Elementwise(Unary::Log)),
    builtin("sqrt", &["x"], What::Elementwise(Unary::Sqrt)),
    builtin("rsqrt", &["x"], What::Elementwise(Unary::Rsqrt)),
    builtin("tanh", &["x"], What::Elementwise(Unary::Tanh)),
    builtin("sin", &["x"], What::Elementwise(Unary::Sin)),
    builtin("cos", &["x"], What::Elementwise(Unary::Cos)),
    builtin("abs", &["x"], What::Elementwise(Unary::Abs)),
    builtin("sign", &["x"], What::Elementwise(Unary::Sign)),
    builtin("floor", &["x"], What::Elementwise(Unary::Floor)),
    builtin("erf", &["x"], What::Elementwise(Unary::Erf)),
    builtin("sum", &["x"], What::Reduce(Reduction::Sum)),
    builtin("mean", &["x"], What::Reduce(Reduction::Mean)),
    builtin("max", &["x"], What::Reduce(Reduction::Max)),
    builtin("min", &["x"], What::Reduce(Reduction::Min)),
    builtin("argmax", &["x"], What::Reduce(Reduction::ArgMax)),
    builtin("index", &["i"], What::Index),
    builtin("next", &["x"], What::Next),
    builtin("float", &["x"], What::Float),
    builtin("int", &["x"], What::Integer),
    builtin("stop_gradient", &["x"], What::StopGradient),
    builtin("reshape", &["x", "dims"], What::Reshape),
    builtin("part", &["x", "first", "count"], What::Part),
    builtin("join", &[], What::Join),
    builtin("zeros", &[], What::Filled(0.0)),
    builtin("ones", &[], What::Filled(1.0)),
    builtin("uniform_like", &["x"], What::UniformLike),
    builtin("normal", &["std"], What::Normal),
    builtin("uniform", &["low", "high"], What::Uniform),
    builtin("hash", &["stream", "bound"], What::Hash),
    builtin("length", &["list"], What::Length),
    builtin("stable", &["a"], What::Stable),
    builtin("settles", &["a", "b"], What::Settles),
    builtin("gradient", &["point"], What::Gradient),
];

/// The builtin of this name.
pub(super) fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

/// Names of all builtins and of the words that are values.
pub(super) fn names() -> Vec<&'static str> {
    let words = ["none", "yes", "no", "true", "false", "pi", "training", "batch"];
    BUILTINS.iter().map(|builtin| builtin.name).chain(words).collect()
}

impl Evaluator<'_> {
    /// A call of a builtin.
    pub(super) fn call_builtin(
        &mut self,
        builtin: &'static Builtin,
        axes: &[Name],
        arguments: &[Argument],
        span: Span,
    ) -> Checked<Value> {
        match builtin.what {
            What::Index => return self.index_value(arguments, span),
            What::Next => return self.next_input(arguments, span),
            What::Reduce(_) => {}
            _ if !axes.is_empty() => {
                let error = Diagnostic::error("E0213", axes[0].span, format!("`{}` has no axes", builtin.name));
                return self.fail(error.help("remove the brackets"));
            }
            _ => {}
        }
        let given = self.given(arguments)?;
        if let What::Reduce(kind) = builtin.what {
            return self.reduce_or_compare(kind, axes, given, span);
        }
        if matches!(builtin.what, What::Join | What::Filled(_)) {
            self.no_names(builtin.name, &given)?;
            let values = given.into_iter().map(|given| given.value).collect();
            return match builtin.what {
                What::Filled(number) => self.filled_tensor(number, values, span),
                _ => self.join(values, span),
            };
        }
        if builtin.what == What::Reshape {
            self.reshape_is_written_out(&given, arguments, span)?;
        }
        let values = self.builtin_arguments(builtin, given, span)?;
        self.run(builtin.what, values, span)
    }

    fn run(&mut self, what: What, values: Vec<Value>, span: Span) -> Checked<Value> {
        let mut values = values.into_iter();
        let mut next = || values.next().expect("as many values as parameters");
        match what {
            What::Elementwise(op) => self.unary(op, next(), span),
            What::Float => self.convert(Op::ToFloat, DType::I32, next(), span),
            What::Integer => self.convert(Op::ToInteger, DType::F32, next(), span),
            What::StopGradient => self.stop_gradient(next(), span),
            What::Reshape => self.reshape(next(), next(), span),
            What::Part => self.part(next(), [next(), next()], span),
            What::UniformLike => self.uniform_like(next(), span),
            What::Normal => Ok(Value::Init(Start::Normal(self.plain(next(), span)?))),
            What::Uniform => Ok(Value::Init(Start::Uniform(self.plain(next(), span)?, self.plain(next(), span)?))),
            What::Hash => Ok(Value::Init(Start::Hash(self.plain(next(), span)? as u64, self.plain(next(), span)?))),
            What::Length => match next() {
                Value::Tuple(values) => Ok(Value::number(values.len() as f64)),
                other => self.not_a_list(&other, span),
            },
            What::Stable => {
                let a = self.plain_numbers(next(), span)?;
                Ok(Value::truth(series::is_stable(&a)))
            }
            What::Settles => {
                let (a, b) = (self.plain_numbers(next(), span)?, self.plain_numbers(next(), span)?);
                Ok(Value::truth(series::settles_with_one_sign(&a, &b)))
            }
            What::Gradient => {
                let error = Diagnostic::error("E0215", span, "`gradient` cannot be used here");
                self.fail(error.label("only the `sample` of a filter says where gradients are taken"))
            }
            _ => unreachable!("handled by the caller"),
        }
    }

    /// Arguments in the order of the parameters.
    fn builtin_arguments(&mut self, builtin: &Builtin, given: Vec<Given>, span: Span) -> Checked<Vec<Value>> {
        let count = builtin.parameters.len();
        let mut values: Vec<Option<Value>> = vec![None; count];
        for (i, given) in given.into_iter().enumerate() {
            let slot = match &given.name {
                None => Some(i).filter(|&i| i < count),
                Some(name) => builtin.parameters.iter().position(|parameter| *parameter == name.text),
            };
            match slot {
                Some(slot) => values[slot] = Some(given.value),
                None => {
                    let error =
                        Diagnostic::error("E0212", given.span, format!("`{}` has no such argument", builtin.name));
                    return self.fail(error.label(format!("it takes {}", listed(builtin.parameters.iter().copied()))));
                }
            }
        }
        match values.iter().position(Option::is_none) {
            None => Ok(values.into_iter().flatten().collect()),
            Some(missing) => {
                let name = builtin.parameters[missing];
                let error = Diagnostic::error("E0211", span, format!("`{}` needs the argument `{name}`", builtin.name));
                self.fail(error.help(format!("give `{name}`")))
            }
        }
    }

    /// `max(a, b)` compares; `max[i](x)` and `max(x)` reduce.
    fn reduce_or_compare(&mut self, kind: Reduction, axes: &[Name], given: Vec<Given>, span: Span) -> Checked<Value> {
        let extreme = match kind {
            Reduction::Max => Some(Binary::Max),
            Reduction::Min => Some(Binary::Min),
            _ => None,
        };
        let Some(first) = given.first() else {
            return self
                .fail(Diagnostic::error("E0211", span, "expected a tensor").help("write what is to be reduced"));
        };
        if let [only] = &given[..] {
            return self.reduce(kind, axes, only.value.clone(), span);
        }
        match extreme.filter(|_| axes.is_empty() && given.iter().all(|given| given.name.is_none())) {
            Some(operation) => {
                let first = first.value.clone();
                let mut others = given.into_iter().skip(1);
                others.try_fold(first, |left, right| self.extreme(operation, left, right.value, span))
            }
            None => self.more_than_one_tensor(kind.word(), &given, span),
        }
    }

    /// `index(i)`: the value of an index variable.
    fn index_value(&mut self, arguments: &[Argument], span: Span) -> Checked<Value> {
        let [Argument { name: None, value }] = arguments else {
            return self
                .fail(Diagnostic::error("E0211", span, "`index` needs the name of an index").help("write `index(t)`"));
        };
        let ExprKind::Name(name) = &value.kind else {
            return self.fail(Diagnostic::error("E0211", value.span, "expected the name of an index"));
        };
        let label = self.label(name);
        let Some((extent, place)) = self.extent(&label) else { return self.unknown_range(&label, value.span) };
        let node = self.add(Op::Iota { axis: 0, shape: vec![extent] }, &[], span)?;
        let axis = Axis { name: None, label: Some(label), span: place };
        Ok(Value::Tensor(Tensor { node, axes: vec![axis], position: true }))
    }

    fn convert(&mut self, op: Op, from: DType, value: Value, span: Span) -> Checked<Value> {
        let tensor = self.operand(value, span)?;
        if self.graph.node(tensor.node).ty.dtype != from {
            return Ok(Value::Tensor(tensor));
        }
        let node = self.add(op, &[tensor.node], span)?;
        Ok(Value::Tensor(Tensor { node, position: false, ..tensor }))
    }

    fn stop_gradient(&mut self, value: Value, span: Span) -> Checked<Value> {
        let tensor = self.operand(value, span)?;
        let node = self.add(Op::StopGradient, &[tensor.node], span)?;
        Ok(Value::Tensor(Tensor { node, ..tensor }))
    }

    /// `reshape(x, [a, b])`.
    fn reshape(&mut self, x: Value, dims: Value, span: Span) -> Checked<Value> {
        let tensor = self.operand(x, span)?.closed();
        let dims = self.numbers(dims, span)?;
        let shape = self.extents_among(&dims, span)?;
        let old = self.shape(&tensor);
        let product = |shape: &[u64]| shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
        if product(&shape) != product(&old) {
            let error = Diagnostic::error("E0317", span, "a reshape keeps the number of elements")
                .label(format!("{} to {}", numbers_shown(&old), numbers_shown(&shape)))
                .help("make the products of the extents equal");
            return self.fail(error);
        }
        let node = self.add(Op::Reshape { shape }, &[tensor.node], span)?;
        let axes = dims.into_iter().map(|number| Axis::named(number.name)).collect();
        Ok(Value::Tensor(Tensor { node, axes, position: tensor.position }))
    }

    fn not_a_list<T>(&mut self, found: &Value, span: Span) -> Checked<T> {
        let error = Diagnostic::error("E0304", span, "`length` needs a list");
        self.fail(error.label(format!("found {}", found.describe())).help("write a list in brackets: `[1, 2]`"))
    }

    /// The numbers of a list, or a single one.
    fn plain_numbers(&mut self, value: Value, span: Span) -> Checked<Vec<f64>> {
        Ok(self.numbers(value, span)?.iter().map(Number::plain).collect())
    }

    fn numbers(&mut self, value: Value, span: Span) -> Checked<Vec<Number>> {
        let values = if let Value::Tuple(values) = value { values } else { vec![value] };
        values
            .into_iter()
            .map(|value| match value {
                Value::Number(number) => Ok(number),
                other => {
                    let found = other.describe();
                    self.fail(Diagnostic::error("E0402", span, "expected numbers").label(format!("found {found}")))
                }
            })
            .collect()
    }

    /// `part(x, first, count)`: elements along the last axis.
    fn part(&mut self, x: Value, [first, count]: [Value; 2], span: Span) -> Checked<Value> {
        let mut tensor = self.operand(x, span)?.closed();
        let (first, count) = (self.plain(first, span)?, self.plain(count, span)?);
        let shape = self.shape(&tensor);
        let extent = shape.last().copied().unwrap_or(0);
        let whole = first.fract() == 0.0 && count.fract() == 0.0;
        if !whole || first < 0.0 || count < 1.0 || first + count > extent as f64 {
            let error = Diagnostic::error("E0309", span, format!("there are no {count} elements from {first} on here"))
                .label(format!("the last axis has {extent}"));
            return self.fail(error);
        }
        let slice = Op::Slice { axis: shape.len() - 1, start: first as u64, length: count as u64 };
        tensor.node = self.add(slice, &[tensor.node], span)?;
        if let Some(last) = tensor.axes.last_mut() {
            last.name = None;
        }
        Ok(Value::Tensor(tensor))
    }

    /// `join(a, b)`: one after the other along the last axis.
    fn join(&mut self, values: Vec<Value>, span: Span) -> Checked<Value> {
        let tensors: Vec<Tensor> = values.into_iter().map(|value| self.operand(value, span)).collect::<Checked<_>>()?;
        let Some(first) = tensors.first().cloned().filter(|first| !first.axes.is_empty()) else {
            return self.fail(Diagnostic::error("E0211", span, "expected tensors to join"));
        };
        let nodes: Vec<_> = tensors.iter().map(|tensor| tensor.node).collect();
        let node = self.add(Op::Concat { axis: first.axes.len() - 1 }, &nodes, span)?;
        let mut joined = Tensor { node, ..first.closed() };
        if let Some(last) = joined.axes.last_mut() {
            last.name = None;
        }
        Ok(Value::Tensor(joined))
    }

    /// `zeros(2, 3)`.
    fn filled_tensor(&mut self, number: f64, dims: Vec<Value>, span: Span) -> Checked<Value> {
        let dims = self.numbers(Value::Tuple(dims), span)?;
        let shape = self.extents_among(&dims, span)?;
        let node = self.filled(number, &shape, span)?;
        let axes = dims.into_iter().map(|dim| Axis::named(dim.name)).collect();
        Ok(Value::Tensor(Tensor { node, axes, position: false }))
    }

    /// Draws between 0 and 1, one for each element.
    fn uniform_like(&mut self, x: Value, span: Span) -> Checked<Value> {
        let tensor = self.operand(x, span)?;
        let shape = self.shape(&tensor);
        let path = self.registry.place().path_of("draw");
        let stream = self.registry.stream(&path);
        let node =
            self.add(Op::Random { generator: Generator::Philox, stream, shape, scope: self.scope }, &[], span)?;
        Ok(Value::Tensor(Tensor { node, axes: tensor.axes, position: false }))
    }

    /// A number given to a builtin.
    fn plain(&mut self, value: Value, span: Span) -> Checked<f64> {
        match value {
            Value::Number(number) if matches!(number.unit, Unit::None | Unit::Percent) => Ok(number.plain()),
            other => {
                let found = other.describe();
                self.fail(Diagnostic::error("E0402", span, "expected a bare number").label(format!("found {found}")))
            }
        }
    }

    /// The recipe of a parameter's initial value.
    pub(super) fn initial(&mut self, value: Value, path: &str, span: Span) -> Checked<Init> {
        let start = match value {
            Value::Init(start) => start,
            Value::Number(number) => Start::Constant(number.plain()),
            Value::Builtin(Builtin { what: What::Filled(number), .. }) => Start::Constant(*number),
            other => {
                let found = other.describe();
                let error = Diagnostic::error("E0502", span, "this is no way to start a parameter")
                    .label(format!("found {found}"))
                    .help("write a number, `normal(std)`, `uniform(low, high)`, or a function that gives one of them");
                return self.fail(error);
            }
        };
        let numbers = match start {
            Start::Constant(a) | Start::Normal(a) | Start::Hash(_, a) => [a, 0.0],
            Start::Uniform(a, b) => [a, b],
        };
        if numbers.iter().any(|number| !(*number as f32).is_finite()) {
            return self.fail(Diagnostic::error("E0502", span, "initial values must be finite"));
        }
        Ok(match start {
            Start::Constant(value) => Init::Constant { value: value as f32 },
            Start::Normal(std) => Init::Normal { std: std as f32, stream: self.registry.stream(path) },
            Start::Uniform(low, high) => {
                Init::Uniform { low: low as f32, high: high as f32, stream: self.registry.stream(path) }
            }
            Start::Hash(stream, bound) => Init::Hash { bound, stream },
        })
    }

    /// `next(tokens)`: the input one position ahead.
    fn next_input(&mut self, arguments: &[Argument], span: Span) -> Checked<Value> {
        let known = match arguments {
            [Argument { name: None, value }] => match &value.kind {
                ExprKind::Name(name) if matches!(self.frame().names.get(name), Some(Value::Unknown)) => {
                    return Err(Failed);
                }
                ExprKind::Name(name) => self.registry.inputs.iter().find(|input| input.name == *name).cloned(),
                _ => None,
            },
            _ => None,
        };
        let Some(input) = known.filter(|_| self.frames.last().is_some_and(|frame| frame.definition.is_none())) else {
            return self.fail(
                Diagnostic::error("E0708", span, "`next` takes an input of the model")
                    .label("expected the name of an input, in the `loss` or a `metric` of `train`")
                    .help("write for example `next(tokens)`"),
            );
        };
        let Ok(Value::Tensor(tensor)) = self.lookup(&input.name, span) else {
            return self.fail(Diagnostic::error(
                "E0708",
                span,
                format!("`{}` is not the input itself here", input.name),
            ));
        };
        let ty = TensorType { dtype: input.dtype, shape: self.shape(&tensor) };
        if ty.shape.len() < 2 {
            let error = Diagnostic::error("E0708", span, "`next` needs an input with positions")
                .label(format!("`{}` has no axis behind the batch", input.name));
            return self.fail(error);
        }
        let name = format!("next({})", input.name);
        let index = self.registry.input(crate::program::Input { name, shift: 1, ..input });
        let graph = &mut self.graph;
        let node = self.registry.input_node(index, || graph.add(Op::Input { index, ty }, &[]));
        Ok(Value::Tensor(Tensor { node, axes: tensor.axes, position: false }))
    }
}
