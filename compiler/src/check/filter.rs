//! Filters: definitions that change a gradient before the optimizer sees it, and may say where it is taken.
//!
//! A filter's body is written out for each trainable parameter, in three parts, for the gradient that it is about does
//! not exist before it says where:
//!
//! 1. [`Evaluator::begin_filter`] runs what stands before `sample`, and `sample` itself. [`Evaluator::points`] then gathers
//!    where gradients must be taken, and what each counts; [`super::sample`] takes them.
//! 2. [`Evaluator::filter`] runs the rest up to `update`, given the gradient (the noisy one in private training).
//! 3. [`Evaluator::end_filter`] runs what stands behind `update`, after the optimizer has moved the parameter.

use super::{
    evaluator::{Checked, Evaluator, Failed, Frame},
    names::{first_mention, mentioned},
    optimizer::{Subject, Updating, parameter_name},
    train::Use,
    update::Rule,
    value::Value,
};
use crate::{
    diagnostic::Diagnostic,
    graph::{NodeId, Output},
    source::Span,
    syntax::tree::{Argument, BinaryOp, Definition, Expr, ExprKind, Statement, UnaryOp},
};
use std::{collections::BTreeMap, ops::Range};

/// The builtin that stands for the gradient at a point.
const GRADIENT: &str = "gradient";

/// Weights this close to 0 are 0 and to 1 are 1, so that a combination that rounding alone keeps from being a single
/// gradient costs one.
const WEIGHT_TOLERANCE: f64 = 1e-12;

/// A filter at work on one parameter.
pub(super) struct Filtering<'p> {
    definition: &'p Definition,
    /// Where the filter is named.
    span: Span,
    frame: Frame,
    updating: Updating,
    /// The gradients that its `sample` is made of.
    terms: Vec<Term>,
}

/// One gradient in a `sample`.
struct Term {
    /// The call of `gradient`; the same one for all parameters.
    place: Span,
    /// The point, in the parameter's own shape; `None` where the parameter is.
    point: Option<NodeId>,
    weight: f64,
}

/// Where gradients are taken, for all parameters at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// The values there of parameters that are elsewhere in the step, by index: root nodes of the parameters' shapes.
    pub moved: BTreeMap<u32, NodeId>,
    /// What the gradient here counts in the sample of a parameter, by index. Those of a parameter need not add up to 1.
    pub weights: BTreeMap<u32, f64>,
}

impl Point {
    /// Where the parameters are: for plain gradients.
    pub(super) fn here(rules: &[Rule]) -> Self {
        Point { moved: BTreeMap::new(), weights: rules.iter().map(|rule| (rule.index, 1.0)).collect() }
    }
}

/// The points that these filters name, in the order in which they do.
fn points(filters: &[Filtering<'_>]) -> Vec<Point> {
    let mut by_place: Vec<(Span, Point)> = Vec::new();
    for (filter, term) in filters.iter().flat_map(|filter| filter.terms.iter().map(move |term| (filter, term))) {
        let index = filter.updating.parameter;
        let known = by_place.iter().position(|(place, _)| *place == term.place);
        let known = known.unwrap_or_else(|| {
            by_place.push((term.place, Point::default()));
            by_place.len() - 1
        });
        let point = &mut by_place[known].1;
        point.moved.extend(term.point.map(|node| (index, node)));
        *point.weights.entry(index).or_insert(0.0) += term.weight;
    }
    let mut points: Vec<Point> = Vec::new();
    for (_, point) in by_place {
        match points.iter_mut().find(|known| known.moved == point.moved) {
            Some(known) => {
                point.weights.iter().for_each(|(&i, weight)| *known.weights.entry(i).or_insert(0.0) += weight)
            }
            None => points.push(point),
        }
    }
    points.iter_mut().for_each(settle_weights);
    points.retain(|point| !point.weights.is_empty());
    points
}

fn settle_weights(point: &mut Point) {
    point.weights.retain(|_, weight| weight.abs() > WEIGHT_TOLERANCE);
    for weight in point.weights.values_mut().filter(|weight| (**weight - 1.0).abs() < WEIGHT_TOLERANCE) {
        *weight = 1.0;
    }
}

impl<'p> Evaluator<'p> {
    /// Writes out a filter for a parameter as far as it goes without a gradient.
    pub(super) fn begin_filter(&mut self, used: &Use, parameter: u32, rate: Value) -> Checked<Filtering<'p>> {
        let (library, span) = (self.library, used.span);
        let definition = library.definition(used.definition);
        self.filter_order(definition)?;
        let given = self.given(&used.arguments)?;
        let updating = self.updating(definition, parameter, Subject::Gradient);
        self.open(Some(used.definition), Some(span))?;
        let frame = self.close();
        let mut filter = Filtering { definition, span, frame, updating, terms: Vec::new() };
        let sample = Parts::of(&definition.body).sample;
        filter.terms = self.resume(&mut filter, |this| {
            this.present(definition, given, rate, span)?;
            let Some(at) = sample else { return Ok(vec![Term { place: definition.span, point: None, weight: 1.0 }]) };
            this.body(&definition.body[..at])?;
            this.sample(definition, &definition.body[at])
        })?;
        Ok(filter)
    }

    /// The points at which gradients must be taken for these filters: at least one that counts for each.
    pub(super) fn points(&mut self, filters: &[Filtering<'p>]) -> Checked<Vec<Point>> {
        let points = points(filters);
        let counts =
            |filter: &Filtering| points.iter().any(|point| point.weights.contains_key(&filter.updating.parameter));
        match filters.iter().find(|filter| !counts(filter)) {
            None => Ok(points),
            Some(filter) => self.no_sample(filter.terms[0].place, "the gradients at each point add up to nothing"),
        }
    }

    /// The filtered gradient of a parameter. Both have the parameter's own shape.
    pub(super) fn filter(&mut self, filter: &mut Filtering<'p>, gradient: NodeId) -> Checked<NodeId> {
        let (definition, span) = (filter.definition, filter.span);
        let parts = Parts::of(&definition.body);
        let filtered = self.resume(filter, |this| {
            let gradient = this.viewed(gradient, span)?;
            this.frame().names.insert("grad".into(), gradient);
            this.body(&definition.body[parts.before_update()])?;
            let gradient = this.lookup("grad", span)?;
            this.unviewed(gradient, span)
        })?;
        if filter.updating.done || parts.sample.is_some() {
            Ok(filtered)
        } else {
            self.changes_nothing(definition, span)
        }
    }

    /// Writes out the statements behind `update`, which see the parameter as the optimizer left it.
    pub(super) fn end_filter(&mut self, mut filter: Filtering<'p>) -> Checked<()> {
        let (definition, span, index) = (filter.definition, filter.span, filter.updating.parameter);
        let moved = self.graph.output(&Output::Parameter(index));
        let moved = moved.unwrap_or_else(|| self.registry.parameter_node(&mut self.graph, index));
        self.resume(&mut filter, |this| {
            let moved = this.viewed(moved, span)?;
            this.frame().names.insert(parameter_name(definition).into(), moved);
            this.body(&definition.body[Parts::of(&definition.body).behind_update()])
        })?;
        Ok(())
    }

    /// Goes on with a body where it stopped.
    fn resume<T>(&mut self, filter: &mut Filtering<'p>, work: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<T> {
        let outer = self.updating.replace(filter.updating.clone());
        self.reopen(std::mem::take(&mut filter.frame));
        let result = work(self);
        filter.frame = self.close();
        filter.updating = std::mem::replace(&mut self.updating, outer).expect("set above");
        result
    }

    /// The gradients that a `sample` statement adds up.
    fn sample(&mut self, definition: &Definition, statement: &Statement) -> Checked<Vec<Term>> {
        let Statement::Sample { value, .. } = statement else { return Err(Failed) };
        self.extents.last_mut().expect("a call is open").clear();
        self.scan_extents(value);
        let mut terms = Vec::new();
        self.gradients_of(definition, value, 1.0, &mut terms)?;
        match terms.iter().find(|term| !term.weight.is_finite()) {
            None => Ok(terms),
            Some(term) => self.no_sample(term.place, "this counts without a limit"),
        }
    }

    /// Adds the gradients in `factor * expr` to `terms`.
    fn gradients_of(
        &mut self,
        definition: &Definition,
        expr: &Expr,
        factor: f64,
        terms: &mut Vec<Term>,
    ) -> Checked<()> {
        let has_gradient = |expr: &Expr| mentioned(expr).contains(GRADIENT);
        match &expr.kind {
            ExprKind::Group(inner) => self.gradients_of(definition, inner, factor, terms),
            ExprKind::Unary(UnaryOp::Neg, inner) => self.gradients_of(definition, inner, -factor, terms),
            ExprKind::Binary(op @ (BinaryOp::Add | BinaryOp::Sub), a, b) => {
                self.gradients_of(definition, a, factor, terms)?;
                let sign = if *op == BinaryOp::Sub { -1.0 } else { 1.0 };
                self.gradients_of(definition, b, sign * factor, terms)
            }
            ExprKind::Binary(BinaryOp::Mul, a, b) if has_gradient(a) != has_gradient(b) => {
                let (number, gradient) = if has_gradient(a) { (b, a) } else { (a, b) };
                let number = self.known_number(number, WEIGHT)?.plain();
                self.gradients_of(definition, gradient, number * factor, terms)
            }
            ExprKind::Binary(BinaryOp::Div, a, b) if has_gradient(a) && !has_gradient(b) => {
                let number = self.known_number(b, WEIGHT)?.plain();
                self.gradients_of(definition, a, factor / number, terms)
            }
            ExprKind::If { condition, then, otherwise } => {
                let holds = self.known_number(condition, "which gradient is taken")?.value != 0.0;
                self.gradients_of(definition, if holds { then } else { otherwise }, factor, terms)
            }
            ExprKind::Call { callee, arguments, .. } if callee.text == GRADIENT => match &arguments[..] {
                [Argument { name: None, value }] => {
                    let point = self.point(definition, value)?;
                    terms.push(Term { place: expr.span, point, weight: factor });
                    Ok(())
                }
                _ => self.no_sample(expr.span, "`gradient` takes one point"),
            },
            _ => self.no_sample(expr.span, "this is not a gradient times a number"),
        }
    }

    /// A point in the parameter's own shape; `None` if it is the parameter itself.
    fn point(&mut self, definition: &Definition, expr: &Expr) -> Checked<Option<NodeId>> {
        let value = self.expression(expr)?;
        let here = self.lookup(parameter_name(definition), expr.span)?;
        match (&value, &here) {
            (Value::Tensor(point), Value::Tensor(here)) if point.node == here.node => Ok(None),
            _ => self.unviewed(value, expr.span).map(Some),
        }
    }

    fn no_sample<T>(&mut self, span: Span, problem: &str) -> Checked<T> {
        let error = Diagnostic::error("E0519", span, "`sample` must be a sum of gradients");
        self.fail(error.label(problem.to_string()).help("write for example `sample 2 * gradient(p + d) - gradient(p)`"))
    }

    fn changes_nothing<T>(&mut self, definition: &Definition, span: Span) -> Checked<T> {
        let name = &definition.name.text;
        let error = Diagnostic::error("E0520", span, format!("the filter `{name}` changes nothing"))
            .also(definition.name.span, "defined here")
            .help("write `grad <- ...` in its body");
        self.fail(error)
    }

    /// Complains about statements of a filter that stand where they make no sense.
    fn filter_order(&mut self, definition: &Definition) -> Checked<()> {
        let body = &definition.body;
        let parts = Parts::of(body);
        let problem = parts.second_of_a_kind(body).or_else(|| parts.out_of_order(body));
        let Some((span, problem, mend)) = problem else { return Ok(()) };
        let error = Diagnostic::error("E0517", span, format!("{problem} in the filter `{}`", definition.name.text));
        self.fail(error.label("too late or too early").help(mend))
    }
}

/// What a weight is called in messages.
const WEIGHT: &str = "what a gradient is multiplied by";

/// Where the two statements stand that divide a filter's body.
struct Parts {
    sample: Option<usize>,
    update: Option<usize>,
    end: usize,
}

impl Parts {
    fn of(body: &[Statement]) -> Self {
        let first = |span: fn(&Statement) -> Option<Span>| body.iter().position(|statement| span(statement).is_some());
        Parts { sample: first(sample_span), update: first(update_span), end: body.len() }
    }

    fn before_update(&self) -> Range<usize> {
        self.sample.map_or(0, |at| at + 1)..self.update.unwrap_or(self.end)
    }

    fn behind_update(&self) -> Range<usize> {
        self.update.map_or(self.end, |at| at + 1)..self.end
    }

    fn second_of_a_kind(&self, body: &[Statement]) -> Option<(Span, &'static str, &'static str)> {
        let mut samples = body.iter().filter_map(sample_span);
        let mut updates = body.iter().filter_map(update_span);
        let again = |span| (span, "a second `sample`", "add up what the two say in one `sample`");
        let twice = |span| (span, "a second `update`", "remove it: the optimizer moves the parameter once");
        samples.nth(1).map(again).or_else(|| updates.nth(1).map(twice))
    }

    fn out_of_order(&self, body: &[Statement]) -> Option<(Span, &'static str, &'static str)> {
        let sample = self.sample.and_then(|at| sample_span(&body[at]));
        let late = sample.filter(|_| self.update.is_some() && self.sample > self.update);
        let late = late.map(|span| (span, "`sample` behind `update`", "move it up: it says which gradient is taken"));
        let early = first_mention(&body[..self.sample.map_or(0, |at| at + 1)], "grad");
        let early = early.map(|span| (span, "`grad` before `sample`", "move `sample` up: it says what `grad` is"));
        let lost = body[self.behind_update()].iter().find_map(|statement| match statement {
            Statement::Update { target, .. } if target.text == "grad" => Some(target.span),
            _ => None,
        });
        let lost =
            lost.map(|span| (span, "`grad <-` behind `update`", "move it up: the optimizer has used the gradient"));
        late.or(early).or(lost)
    }
}

fn update_span(statement: &Statement) -> Option<Span> {
    match statement {
        Statement::Optimize(span) => Some(*span),
        _ => None,
    }
}

fn sample_span(statement: &Statement) -> Option<Span> {
    match statement {
        Statement::Sample { span, .. } => Some(*span),
        _ => None,
    }
}
