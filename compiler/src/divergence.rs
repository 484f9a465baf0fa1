//! Where the first number that is none came from: a step, done again by the reference interpreter, whose bad results are
//! followed back to the operation that made one of numbers.
//!
//! Results are rounded to f32 as compiled code has them, so that what overflows there overflows here. An infinity that the program
//! itself has (a mask) is no cause: what makes no number of it is.

use crate::{
    graph::{Bindings, Evaluation, Graph, InterpretError, NodeId, Op, Output, Rounding, interpret},
    source::Span,
};
use std::collections::BTreeSet;
use trainc_kernels::ir::{Binary, Unary};

/// Most operations of a step that is done again: the interpreter takes about a minute for as many.
pub const MOST_WORK: u64 = 2_000_000_000;

/// An operation that made what is no number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// The operation.
    pub node: NodeId,
    /// The instance of its repeat.
    pub instance: u64,
    /// The expression that it belongs to.
    pub span: Option<Span>,
    /// Whether it belongs to the gradient of that expression rather than to its value.
    pub is_gradient: bool,
    /// Position of the first bad element of its result, by axis.
    pub element: Vec<u64>,
    /// That element: NaN or an infinity.
    pub value: f64,
    /// How it was computed, e.g. `0 / 0`; empty for operations on many elements.
    pub formula: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All its results are numbers.
    Finite,
    /// The step began with a parameter, a state or an input that is no number: its index among these of the program.
    Given(Op),
    /// An operation is the first.
    Made(Cause),
}

/// Does a step again and looks for the first bad value behind its outputs.
///
/// # Errors
/// If the step cannot be interpreted on these values.
pub fn first_cause(step: &Graph, bindings: &Bindings) -> Result<Verdict, InterpretError> {
    let bindings = Bindings { rounding: Rounding::F32, ..bindings.clone() };
    let search = Search { graph: step, run: interpret(step, &bindings)?, seen: BTreeSet::new() };
    search.verdict()
}

/// A value: a node in an instance of its scope.
type Key = (NodeId, u64);

struct Search<'a> {
    graph: &'a Graph,
    run: Evaluation<'a>,
    seen: BTreeSet<Key>,
}

impl Search<'_> {
    fn verdict(mut self) -> Result<Verdict, InterpretError> {
        let loss = self.graph.output(&Output::Report("loss".into()));
        let others = self.graph.output_nodes().filter(|node| Some(*node) != loss);
        for output in loss.into_iter().chain(others) {
            if self.badness((output, 0)).is_some()
                && let Some(cause) = self.cause((output, 0))
            {
                return Ok(self.described(cause));
            }
        }
        Ok(Verdict::Finite)
    }

    /// The first element that is no number, NaN before infinities, and its value.
    fn badness(&mut self, (node, instance): Key) -> Option<(usize, f64)> {
        let values = &self.run.value(node, instance).ok()?.data;
        let first = |bad: fn(f64) -> bool| values.iter().position(|&value| bad(value));
        let element = first(f64::is_nan).or_else(|| first(|value| !value.is_finite()))?;
        Some((element, values[element]))
    }

    /// The operation that a bad value comes from; `None` if that is an infinity of the program.
    fn cause(&mut self, key: Key) -> Option<Key> {
        let mut at = key;
        loop {
            if !self.seen.insert(at) {
                return None;
            }
            let mut bad: Vec<(bool, Key)> = Vec::new();
            for operand in self.run.operands(at).ok()? {
                if let Some((_, value)) = self.badness(operand) {
                    bad.push((!value.is_nan(), operand));
                }
            }
            // NaN is never meant; an infinity may be.
            bad.sort_unstable();
            match bad[..] {
                [(false, operand), ..] => at = operand,
                _ => {
                    let made = bad.into_iter().find_map(|(_, operand)| self.cause(operand));
                    let is_meant = matches!(self.graph.node(at.0).op, Op::Constant { .. });
                    return made.or((!is_meant && !self.passes_on(at)).then_some(at));
                }
            }
        }
    }

    /// Whether an operation only hands on an infinity of the program.
    fn passes_on(&mut self, at: Key) -> bool {
        let is_nan = self.badness(at).is_some_and(|(_, value)| value.is_nan());
        let operands = self.run.operands(at).unwrap_or_default();
        !is_nan && operands.into_iter().any(|operand| self.badness(operand).is_some())
    }

    fn described(mut self, (node, instance): Key) -> Verdict {
        let op = self.graph.node(node).op.clone();
        if matches!(op, Op::Parameter { .. } | Op::State { .. } | Op::Input { .. }) {
            return Verdict::Given(op);
        }
        let (element, value) = self.badness((node, instance)).expect("it is bad");
        let operands = self.operands_at((node, instance), element);
        let span = self.graph.node(node).span;
        let is_gradient = self.is_gradient(node);
        Verdict::Made(Cause {
            node,
            instance,
            span,
            is_gradient,
            element: position(self.graph.shape(node), element),
            value,
            formula: formula(&op, &operands),
            advice: self.advice(&op, &operands, is_gradient),
        })
    }

    /// The operands' elements, of operations that work element by element.
    fn operands_at(&mut self, key: Key, element: usize) -> Vec<f64> {
        let size = self.graph.node(key.0).ty.elements();
        let mut values = Vec::new();
        for (node, instance) in self.run.operands(key).unwrap_or_default() {
            if self.graph.node(node).ty.elements() != size {
                return Vec::new();
            }
            values.extend(self.run.value(node, instance).ok().map(|tensor| tensor.data[element]));
        }
        values
    }

    /// Differentiation gives what it adds the place of the expression whose gradient it is, behind the loss.
    fn is_gradient(&self, node: NodeId) -> bool {
        let Some(loss) = self.graph.output(&Output::Report("loss".into())) else { return false };
        let span = self.graph.node(node).span;
        node > loss
            && span.is_some()
            && self.graph.ids().take_while(|id| *id <= loss).any(|id| self.graph.node(id).span == span)
    }

    fn advice(&self, op: &Op, operands: &[f64], is_gradient: bool) -> &'static str {
        let selects = self.graph.ids().any(|node| self.graph.node(node).op == Op::Select);
        let has_zero = operands.contains(&0.0);
        match op {
            _ if is_gradient && has_zero && selects => {
                "`if` chooses between two values, both of which are computed: a gradient of 0 for the one that was not chosen, times an \
                 infinite slope, is no number. Choose inside, as in `log(if x > 0 then x else 1)`"
            }
            Op::Unary(Unary::Log) => "keep the argument above 0: `log(x + 1e-8)`, or a loss that takes logits",
            Op::Unary(Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal) | Op::Binary(Binary::Div | Binary::Pow) => {
                "keep what it divides by, or takes the root of, away from 0: add a small number to it"
            }
            Op::Unary(Unary::Exp) => {
                "the exponential overflows above 88.7: subtract the maximum first, or lower the rate"
            }
            _ => "numbers have grown beyond what f32 holds: a lower rate, `clip 1.0` or a warmup may help",
        }
    }
}

fn position(shape: &[u64], element: usize) -> Vec<u64> {
    let mut rest = element as u64;
    let mut position: Vec<u64> = shape.iter().rev().map(|&extent| (rest % extent, rest /= extent).0).collect();
    position.reverse();
    position
}

fn formula(op: &Op, operands: &[f64]) -> String {
    match (op, operands) {
        (Op::Unary(function), [x]) => format!("{}({x:?})", function.name()),
        (Op::Binary(function), [a, b]) => match function {
            Binary::Add => format!("{a:?} + {b:?}"),
            Binary::Sub => format!("{a:?} - {b:?}"),
            Binary::Mul => format!("{a:?} * {b:?}"),
            Binary::Div => format!("{a:?} / {b:?}"),
            other => format!("{}({a:?}, {b:?})", other.name()),
        },
        _ => String::new(),
    }
}
