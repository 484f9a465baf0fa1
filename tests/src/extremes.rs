//! Activations, losses, metrics and norms of the library at arguments where f32 saturates, underflows or overflows.
//!
//! The cases are found in the library's sources, so a new function is tested by being there. All of them stand in one
//! program. Case i is a function of `z`, a product of data (a 1) with parameter `w<i>`, which `precision bf16` rounds; the loss
//! is the sum of all `c<i> f(z)`. So the gradient by `c<i>` is the function's value, that by `w<i>` its own gradient, and momentum
//! without memory keeps both.
//!
//! The truth is the value in f64, and its differences to both sides: a gradient lies between the two slopes. Nothing is asked
//! where f32 has no number for the truth: for the value, for its gradient then, or for the terms and results of sums on the way,
//! as in a mean of squares of 3e38.

use crate::{library, program};
use std::collections::BTreeSet;
use trainc::{
    graph::{Bindings, Evaluation, NodeId, Op, Output, Tensor},
    program::Program,
    syntax::tree::{Definition, Parameter},
};
use trainc_kernels::ir::{ReduceKind, round_bf16};
use trainc_runtime::{Batch, Session, Values, artifact::Init};

/// Magnitudes of the arguments; both signs are tried.
const MAGNITUDES: [f32; 11] = [0.0, 1e-30, 1e-4, 1.0, 20.0, 88.0, 89.0, 100.0, 1e3, 1e4, 3e38];
/// Arguments of a function of rows.
const ROW: usize = 4;
/// Weights of the elements of a row in the loss.
const WEIGHTS: [f32; ROW] = [0.25, -1.25, 0.75, 2.0];
/// Targets of regressions, and shares of the positive class.
const TARGETS: [f32; ROW] = [0.5, 0.0, 1.0, 0.25];
/// Which elements count.
const KEPT: [f32; ROW] = [1.0, 0.0, 1.0, 1.0];
/// The class of a row.
const CLASS: i32 = 2;

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

/// A function of the library, called.
struct Case {
    call: String,
    /// Whether it is a function of each element, and not of a row.
    elementwise: bool,
}

/// All cases: definitions with what they need alone, and further calls of some.
fn cases() -> Vec<Case> {
    let of = |file| library::definitions(file).into_iter().map(|(definition, _)| definition);
    let norms = of("layers").filter(|definition| definition.roles.iter().any(|role| role.text == "norms"));
    let found = of("activations").chain(of("losses")).chain(norms);
    let further = ["cross_entropy(z, class, smoothing = 0.2)", "cross_entropy(z, class, ignore = 1)"];
    let further = further.map(|call| Case { call: call.into(), elementwise: false });
    found.map(|definition| case(&definition)).chain(further).collect()
}

fn case(definition: &Definition) -> Case {
    let name = &definition.name.text;
    let needed: Vec<&Parameter> =
        definition.parameters.iter().filter(|parameter| parameter.default.is_none()).collect();
    let arguments: Vec<&str> = needed.iter().map(|parameter| argument(name, parameter)).collect();
    let alone = needed.iter().all(|parameter| parameter.tensor.is_none()) && arguments == ["z"];
    match definition.axes.len() {
        0 => Case { call: format!("{name}({})", arguments.join(", ")), elementwise: alone },
        _ => Case { call: format!("{name}[v](z[b, v])"), elementwise: false },
    }
}

/// What stands for a parameter, by its name and type.
fn argument(function: &str, parameter: &Parameter) -> &'static str {
    let integer = parameter.tensor.as_ref().is_some_and(|ty| ty.integer);
    match (parameter.name.text.as_str(), integer) {
        ("x" | "logits" | "prediction", false) => "z",
        ("target" | "targets", false) => "target",
        ("targets", true) => "class",
        ("kept", false) => "kept",
        (other, _) => panic!("say here what to give to `{function}` as `{other}`"),
    }
}

/// All cases with their program.
pub struct Extremes {
    cases: Vec<Case>,
    /// The program in f32.
    program: Program,
}

/// The truth about all cases, for each step's arguments; none where a case's sums are beyond f32.
pub struct Truths(Vec<(Arguments, Vec<Option<Truth>>)>);

/// Arguments for one step: of elementwise cases and of rows.
#[derive(Clone)]
struct Arguments {
    elements: Vec<f32>,
    row: [f32; ROW],
}

/// What is true of a case at some arguments.
#[derive(Clone)]
struct Truth {
    values: Vec<f64>,
    /// Slopes of the loss to the left and to the right of each argument.
    slopes: Vec<[f64; 2]>,
    /// By how much rounding in f64 moves each slope.
    noise: Vec<f64>,
}

/// The arguments of a case.
#[derive(Clone, Copy)]
struct Asked<'a> {
    given: &'a [f32],
    elementwise: bool,
}

/// What a machine found: a function's value and gradient by case.
type Found = Vec<[Vec<f64>; 2]>;

impl Extremes {
    /// Finds the cases and checks their program.
    pub fn new() -> Self {
        let cases = cases();
        let text = text(&cases, "f32");
        let program = program::check("extremes", &text, &[]).unwrap_or_else(|found| panic!("{found}\n{text}"));
        Self { cases, program }
    }

    /// The text of the program in a precision.
    pub fn text(&self, precision: &str) -> String {
        text(&self.cases, precision)
    }

    /// The truth about everything.
    pub fn truths(&self) -> Truths {
        let mut elements: Vec<Option<Option<Truth>>> = self.cases.iter().map(|_| None).collect();
        let mut truth = |index: usize, at: &Arguments| match self.cases[index].elementwise {
            // They are given the same in each step.
            true => elements[index].get_or_insert_with(|| self.truth(index, &at.elements)).clone(),
            false => self.truth(index, &at.row),
        };
        let mut of = |at: Arguments| {
            let truths = (0..self.cases.len()).map(|index| truth(index, &at)).collect();
            (at, truths)
        };
        Truths(arguments().into_iter().map(&mut of).collect())
    }

    /// Steps through all arguments and compares with the truth; panics with all that differs.
    pub fn check(&self, truths: &Truths, name: &str, precision: &str, session: &mut Session) {
        let mut faults = BTreeSet::new();
        for (arguments, truths) in &truths.0 {
            let found = self.run(session, arguments);
            for ((case, [values, gradient]), truth) in self.cases.iter().zip(found).zip(truths) {
                let Some(truth) = truth else { continue };
                let given = if case.elementwise { &arguments.elements[..] } else { &arguments.row[..] };
                let asked = Asked { given, elementwise: case.elementwise };
                let wrong = truth.wrong_values(asked, &values).into_iter();
                let wrong = wrong.chain(truth.wrong_gradient(asked, precision, &gradient));
                faults.extend(wrong.map(|fault| format!("{name}, {precision}: {}: {fault}", case.call)));
            }
        }
        let listed: Vec<&str> = faults.iter().map(String::as_str).collect();
        assert!(faults.is_empty(), "{} faults\n{}", listed.len(), listed.join("\n"));
    }

    fn run(&self, session: &mut Session, arguments: &Arguments) -> Found {
        for (index, case) in self.cases.iter().enumerate() {
            let (given, weights) = if case.elementwise {
                (arguments.elements.clone(), vec![1.0; arguments.elements.len()])
            } else {
                (arguments.row.to_vec(), WEIGHTS.to_vec())
            };
            session.set_tensor(&format!("w{index}"), &Values::Floats(given)).expect("a parameter");
            session.set_tensor(&format!("c{index}"), &Values::Floats(weights)).expect("a parameter");
        }
        session.step_with(&batch()).expect("a step");
        let moment = |name: String| program::floats(session, &format!("momentum.m.{name}"));
        (0..self.cases.len()).map(|index| ["c", "w"].map(|kind| moment(format!("{kind}{index}")))).collect()
    }

    /// The truth about a case; `None` if sums in it are beyond f32.
    fn truth(&self, index: usize, given: &[f32]) -> Option<Truth> {
        let given: Vec<f64> = given.iter().map(|&x| x.into()).collect();
        let at = Point::new(self, index, &given);
        let values = at.moment("c");
        let Case { elementwise, call } = &self.cases[index];
        let beyond = !elementwise && values.iter().any(|value| is_beyond(*value));
        if beyond || at.overflows() {
            let far = given.iter().any(|x| x.abs() > FAR);
            assert!(beyond || far, "{call}: a sum overflows at {given:?}");
            return None;
        }
        let by_graph = at.moment("w");
        let slopes = |i: usize| match given[i].abs() > FAR {
            true => ([by_graph[i]; 2], 0.0),
            false => self.slopes(index, &given, i, &values),
        };
        let (slopes, noise) = (0..given.len()).map(slopes).unzip();
        Some(Truth { values, slopes, noise })
    }

    /// Slopes of the weighted sum of the values by one argument, and what rounding adds to them.
    fn slopes(&self, index: usize, given: &[f64], argument: usize, values: &[f64]) -> ([f64; 2], f64) {
        let weights = self.weights(index, values.len());
        let slope = |step: f64| {
            let mut moved = given.to_vec();
            moved[argument] += step;
            let after = Point::new(self, index, &moved).moment("c");
            let differences = after.iter().zip(values).zip(&weights).map(|((after, before), c)| c * (after - before));
            differences.sum::<f64>() / (moved[argument] - given[argument])
        };
        let largest = values.iter().map(|value| value.abs()).filter(|value| !is_beyond(*value)).fold(0.0, f64::max);
        ([slope(-STEP), slope(STEP)], 1e-15 * largest / STEP)
    }

    fn weights(&self, index: usize, count: usize) -> Vec<f64> {
        if self.cases[index].elementwise { vec![1.0; count] } else { WEIGHTS.map(f64::from).to_vec() }
    }
}

impl Default for Extremes {
    fn default() -> Self {
        Self::new()
    }
}

/// The program, bound to arguments of one case.
struct Point<'a> {
    program: &'a Program,
    bindings: Bindings,
    index: usize,
}

impl<'a> Point<'a> {
    fn new(extremes: &'a Extremes, index: usize, given: &[f64]) -> Self {
        let program = &extremes.program;
        let mut bindings = Bindings { steps: 1, ..Bindings::default() };
        for (number, input) in (0..).zip(&program.inputs) {
            let data = match input.name.as_str() {
                "x" => vec![1.0],
                "nothing" => vec![0.0],
                "class" => vec![f64::from(CLASS)],
                "target" => TARGETS.map(f64::from).to_vec(),
                _ => KEPT.map(f64::from).to_vec(),
            };
            let ty = program.step.ids().find_map(|id| match &program.step.node(id).op {
                Op::Input { index, ty } if *index == number => Some(ty.clone()),
                _ => None,
            });
            bindings.inputs.extend(ty.map(|ty| (number, Tensor::new(ty, data))));
        }
        for (number, parameter) in (0..).zip(&program.parameters) {
            let data = match parameter.name.split_at(1) {
                ("w", own) if own == index.to_string() => given.to_vec(),
                ("c", own) if own == index.to_string() => extremes.weights(index, given.len()),
                _ => start(&parameter.init, parameter.shape.iter().product()),
            };
            bindings.parameters.insert(number, Tensor::f32(&parameter.shape, data));
        }
        for (number, state) in (0..).zip(&program.states) {
            let data = start(&state.init, state.shape.iter().product());
            bindings.states.insert(number, Tensor::f32(&state.shape, data));
        }
        Self { program, bindings, index }
    }

    /// What momentum keeps: the gradient by a parameter of the case.
    fn moment(&self, kind: &str) -> Vec<f64> {
        let mut run = Evaluation::new(&self.program.step, &self.bindings);
        run.value(self.node(kind), 0).expect("the step can be evaluated").data.clone()
    }

    /// The node of that gradient.
    fn node(&self, kind: &str) -> NodeId {
        let name = format!("momentum.m.{kind}{}", self.index);
        let state = self.program.states.iter().position(|state| state.name == name).expect("there is such a state");
        self.program.step.output(&Output::State(state as u32)).expect("it is written")
    }

    /// Whether a sum of the case, or a term of it, forward or backward, is beyond f32.
    fn overflows(&self) -> bool {
        let graph = &self.program.step;
        let mut run = Evaluation::new(graph, &self.bindings);
        let (mut open, mut seen) = (vec![self.node("c"), self.node("w")], BTreeSet::new());
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            let operands = graph.operands(node);
            if matches!(graph.node(node).op, Op::Reduce { kind: ReduceKind::Sum, .. }) {
                let both = [node, operands[0]];
                let beyond = |node| run.value(node, 0).expect("evaluated").data.iter().any(|x| is_beyond(*x));
                if both.into_iter().any(beyond) {
                    return true;
                }
            }
            open.extend(operands);
        }
        false
    }
}

/// A recipe that is a constant.
fn start(init: &Init, count: u64) -> Vec<f64> {
    let Init::Constant { value } = init else { panic!("only constants start these parameters") };
    vec![f64::from(*value); count as usize]
}

fn is_beyond(x: f64) -> bool {
    x.is_nan() || x.abs() > f32::MAX.into()
}

impl Truth {
    fn wrong_values(&self, asked: Asked, found: &[f64]) -> Vec<String> {
        let largest = self.values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        let wrong = |(i, (&value, &found)): (usize, (&f64, &f64))| {
            let scale = if asked.elementwise { value.abs() } else { largest };
            let fits = is_beyond(value) || (found - value).abs() <= RELATIVE * scale + asked.absolute(i);
            (!fits).then(|| format!("{} is {found:e}, not {value:e}", asked.shown(i)))
        };
        self.values.iter().zip(found).enumerate().filter_map(wrong).collect()
    }

    fn wrong_gradient(&self, asked: Asked, precision: &str, found: &[f64]) -> Vec<String> {
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

/// Each step's arguments: all elements at once, and a row with one of them, alone among small ones, among its equals,
/// or beside its negative.
fn arguments() -> Vec<Arguments> {
    let magnitudes = MAGNITUDES.map(round_bf16);
    let elements: Vec<f32> = magnitudes.into_iter().flat_map(|x| [x, -x]).collect();
    let rows = elements.iter().flat_map(|&x| [[x, 0.0, 1.0, -1.0], [x; ROW], [x, 0.5 * x, -x, 0.0]]);
    rows.map(|row| Arguments { elements: elements.clone(), row }).collect()
}

fn batch() -> Batch {
    let floats = |values: &[f32]| Values::Floats(values.to_vec());
    Batch::new()
        .with("x", floats(&[1.0]))
        .with("nothing", floats(&[0.0]))
        .with("class", Values::Integers(vec![CLASS]))
        .with("target", floats(&TARGETS))
        .with("kept", floats(&KEPT))
}

fn text(cases: &[Case], precision: &str) -> String {
    let mut model = String::new();
    for (index, case) in cases.iter().enumerate() {
        let count = if case.elementwise { 2 * MAGNITUDES.len() } else { ROW };
        let call = case.call.replace("(z", &format!("(z{index}")).replace(", z)", &format!(", z{index})"));
        model.push_str(&format!(
            "    param w{index}: [{count}, 1] = 0\n    param c{index}: [{count}] = 1\n    \
             z{index} = sum[k](x[b, k] * w{index}[v, k])\n    f{index} = {call}\n"
        ));
    }
    // The metrics have no gradient; this term gives every parameter one, which is 0 with the data at hand.
    let sum = |term: fn(usize) -> String| (0..cases.len()).map(term).collect::<Vec<_>>().join(" + ");
    let (terms, parameters) = (sum(|i| format!("sum(c{i} * f{i})")), sum(|i| format!("sum(w{i})")));
    format!(
        "use std\n\nmodel Extremes() {{\n    input x: [batch, 1]\n    input nothing: [batch]\n    input class: int[batch]\n    \
         input target: [batch, {ROW}]\n    input kept: [batch, {ROW}]\n{model}    \
         output total = {terms} + sum(nothing) * ({parameters})\n}}\n\ntrain {{\n    model Extremes()\n    loss total\n    \
         optimizer momentum(beta = 0)\n    schedule constant(0)\n    steps 1000  batch 1  precision {precision}\n}}\n"
    )
}
