//! The truth about a case at given arguments: its value in f64, and the slopes to both sides that a gradient lies between.

use super::{CLASS, Case, KEPT, TARGETS, WEIGHTS};
use std::collections::BTreeSet;
use trainc::{
    graph::{Bindings, Evaluation, NodeId, Op, Output, Tensor, TensorType},
    program::Program,
};
use trainc_kernels::ir::ReduceKind;
use trainc_runtime::artifact::Init;

/// How close f32 is held to the truth, relative to it: to the element, or to the largest of a row.
const RELATIVE: f64 = 1e-5;
/// The same for gradients in bf16, which are rounded twice to eight bits.
const RELATIVE_BF16: f64 = 1.0 / 128.0;
/// Step of the differences.
const STEP: f64 = 1e-6;
/// Beyond it that step is lost in f64, and the gradient is what the graph says in f64.
const FAR: f64 = 1e6;
/// What is added, in units of the argument where that is below 1: functions that saturate lose what is below their digits.
const ABSOLUTE: f64 = 1e-6;

/// What is true of a case at some arguments.
#[derive(Clone)]
pub(super) struct Truth {
    values: Vec<f64>,
    /// Slopes of the loss to the left and to the right of each argument.
    slopes: Vec<[f64; 2]>,
    /// By how much rounding in f64 moves each slope.
    noise: Vec<f64>,
}

/// The arguments of a case.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub given: &'a [f32],
    pub elementwise: bool,
}

/// The program in f64, bound to what its parameters start from.
pub(super) struct Point<'a> {
    program: &'a Program,
    bindings: Bindings,
}

impl<'a> Point<'a> {
    pub fn new(program: &'a Program) -> Self {
        let mut bindings = Bindings { steps: 1, ..Bindings::default() };
        for id in program.step.ids() {
            let Op::Input { index, ty } = &program.step.node(id).op else { continue };
            let data = match program.inputs[*index as usize].name.as_str() {
                "x" => vec![1.0],
                "nothing" => vec![0.0],
                "class" => vec![f64::from(CLASS)],
                "target" => TARGETS.map(f64::from).to_vec(),
                _ => KEPT.map(f64::from).to_vec(),
            };
            bindings.inputs.insert(*index, Tensor::new(ty.clone(), data));
        }
        for (number, parameter) in (0..).zip(&program.parameters) {
            bindings.parameters.insert(number, start(&parameter.init, &parameter.shape));
        }
        for (number, state) in (0..).zip(&program.states) {
            bindings.states.insert(number, start(&state.init, &state.shape));
        }
        Self { program, bindings }
    }

    /// The part that is one case.
    pub fn of<'p>(&'p mut self, index: usize, case: &'p Case) -> PointOf<'p, 'a> {
        PointOf { point: self, index, case }
    }

    fn bind(&mut self, name: &str, data: Vec<f64>) {
        let number = self.program.parameters.iter().position(|parameter| parameter.name == name).expect("a parameter");
        let shape = &self.program.parameters[number].shape;
        self.bindings.parameters.insert(number as u32, Tensor::f32(shape, data));
    }
}

/// One case of the program.
pub(super) struct PointOf<'p, 'a> {
    point: &'p mut Point<'a>,
    index: usize,
    case: &'p Case,
}

impl PointOf<'_, '_> {
    /// The truth at these arguments; `None` if nothing is asked there.
    pub fn truth(&mut self, given: &[f32]) -> Option<Truth> {
        let given: Vec<f64> = given.iter().map(|&x| x.into()).collect();
        let values = self.values(&given);
        let beyond = values.iter().any(|value| is_beyond(*value));
        if !self.case.elementwise && (beyond || self.overflows()) {
            let far = given.iter().any(|x| x.abs() > FAR);
            assert!(beyond || far, "{}: a sum overflows at {given:?}", self.case.call);
            return None;
        }
        let by_graph = self.moment("w");
        let mut slopes = |i: usize| match given[i].abs() > FAR {
            true => ([by_graph[i]; 2], 0.0),
            false => self.slopes(&given, i, &values),
        };
        let (slopes, noise) = (0..given.len()).map(&mut slopes).unzip();
        Some(Truth { values, slopes, noise })
    }

    /// Slopes of the weighted sum of the values by one argument, and what rounding adds to them.
    fn slopes(&mut self, given: &[f64], argument: usize, values: &[f64]) -> ([f64; 2], f64) {
        let weights = self.weights(values.len());
        let mut slope = |step: f64| {
            let mut moved = given.to_vec();
            moved[argument] += step;
            let after = self.values(&moved);
            let differences = after.iter().zip(values).zip(&weights).map(|((after, before), c)| c * (after - before));
            // Of other elements, infinite ones among them, there is no difference.
            let sum: f64 = differences.filter(|difference| !difference.is_nan()).sum();
            sum / (moved[argument] - given[argument])
        };
        let largest = values.iter().map(|value| value.abs()).filter(|value| !is_beyond(*value)).fold(0.0, f64::max);
        ([slope(-STEP), slope(STEP)], 1e-15 * largest / STEP)
    }

    fn weights(&self, count: usize) -> Vec<f64> {
        if self.case.elementwise { vec![1.0; count] } else { WEIGHTS.map(f64::from).to_vec() }
    }

    fn values(&mut self, given: &[f64]) -> Vec<f64> {
        let weights = self.weights(given.len());
        self.point.bind(&format!("w{}", self.index), given.to_vec());
        self.point.bind(&format!("c{}", self.index), weights);
        self.moment("c")
    }

    /// What momentum keeps: the gradient by a parameter of the case.
    fn moment(&self, kind: &str) -> Vec<f64> {
        let mut run = Evaluation::new(&self.point.program.step, &self.point.bindings);
        run.value(self.node(kind), 0).expect("the step can be evaluated").data.clone()
    }

    /// The node of that gradient.
    fn node(&self, kind: &str) -> NodeId {
        let name = format!("momentum.m.{kind}{}", self.index);
        let state =
            self.point.program.states.iter().position(|state| state.name == name).expect("there is such a state");
        self.point.program.step.output(&Output::State(state as u32)).expect("it is written")
    }

    /// Whether a sum of the case, or a term of it, forward or backward, is beyond f32.
    fn overflows(&self) -> bool {
        let graph = &self.point.program.step;
        let mut run = Evaluation::new(graph, &self.point.bindings);
        let (mut open, mut seen) = (vec![self.node("c"), self.node("w")], BTreeSet::new());
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            let operands = graph.operands(node);
            if matches!(graph.node(node).op, Op::Reduce { kind: ReduceKind::Sum, .. }) {
                let beyond = |node| run.value(node, 0).expect("evaluated").data.iter().any(|x| is_beyond(*x));
                if [node, operands[0]].into_iter().any(beyond) {
                    return true;
                }
            }
            open.extend(operands);
        }
        false
    }
}

/// A tensor that starts from a constant.
fn start(init: &Init, shape: &[u64]) -> Tensor {
    let Init::Constant { value } = init else { panic!("only constants start these tensors") };
    Tensor::full(TensorType::f32(shape), f64::from(*value))
}

fn is_beyond(x: f64) -> bool {
    x.is_nan() || x.abs() > f32::MAX.into()
}

impl Truth {
    pub fn wrong_values(&self, asked: Asked, found: &[f64]) -> Vec<String> {
        let largest = self.values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        let wrong = |(i, (&value, &found)): (usize, (&f64, &f64))| {
            let scale = if asked.elementwise { value.abs() } else { largest };
            let fits = is_beyond(value) || (found - value).abs() <= RELATIVE * scale + asked.absolute(i);
            (!fits).then(|| format!("{} is {found:e}, not {value:e}", asked.shown(i)))
        };
        self.values.iter().zip(found).enumerate().filter_map(wrong).collect()
    }

    pub fn wrong_gradient(&self, asked: Asked, precision: &str, found: &[f64]) -> Vec<String> {
        let relative = if precision == "bf16" { RELATIVE_BF16 } else { RELATIVE };
        let size = |[left, right]: [f64; 2]| left.abs().max(right.abs());
        let largest = self.slopes.iter().map(|slopes| size(*slopes)).fold(0.0, f64::max);
        let wrong = |(i, (&[left, right], &found)): (usize, (&[f64; 2], &f64))| {
            let scale = if asked.elementwise { size([left, right]) } else { largest };
            let within = relative * scale + self.noise[i] + asked.absolute(i);
            let between = left.min(right) - within <= found && found <= left.max(right) + within;
            let fits = is_beyond(left) || is_beyond(right) || between;
            (!fits).then(|| format!("gradient {} is {found:e}, not between {left:e} and {right:e}", asked.shown(i)))
        };
        self.slopes.iter().zip(found).enumerate().filter_map(wrong).collect()
    }
}

impl Asked<'_> {
    /// What may be lost beside the digits of the result: less where the argument itself is small, but nothing below normal f32.
    fn absolute(&self, i: usize) -> f64 {
        let unit = if self.elementwise { f64::from(self.given[i]).abs().min(1.0) } else { 1.0 };
        (ABSOLUTE * unit).max(f32::MIN_POSITIVE.into())
    }

    /// Where a value is.
    fn shown(&self, i: usize) -> String {
        if self.elementwise { format!("at {:e}", self.given[i]) } else { format!("{i} at {:?}", self.given) }
    }
}
