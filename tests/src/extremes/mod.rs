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

mod truth;

use crate::{library, program};
use std::collections::BTreeSet;
use trainc::{
    program::Program,
    syntax::tree::{Definition, Parameter},
};
use trainc_kernels::ir::round_bf16;
use trainc_runtime::{Batch, Session, Values};
use truth::{Asked, Point, Truth};

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

/// Calls with arguments that have defaults, and what people write by hand: `{z}` are the arguments, and whether it is a function
/// of each element.
const FURTHER: &[(&str, bool)] = &[
    ("cross_entropy({z}, class, smoothing = 0.2)", false),
    ("cross_entropy({z}, class, ignore = 1)", false),
    ("mean(max({z}, 0) - {z} * target + log(1 + exp(-abs({z}))))", false),
    ("tanh({z})", true),
    ("erf({z})", true),
    ("exp({z}) / (1 + exp({z}))", true),
    ("{z} / (1 + exp(-{z}))", true),
    ("(exp({z}) + 1)^-1", true),
    ("log(1 / (1 + exp(-{z})))", true),
    ("max(0, {z}) + log(1 + exp(-abs({z})))", true),
];

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
    let further = FURTHER.iter().map(|&(call, elementwise)| Case { call: call.into(), elementwise });
    found.map(|definition| case(&definition)).chain(further).collect()
}

fn case(definition: &Definition) -> Case {
    let name = &definition.name.text;
    let needed: Vec<&Parameter> =
        definition.parameters.iter().filter(|parameter| parameter.default.is_none()).collect();
    let arguments: Vec<&str> = needed.iter().map(|parameter| argument(name, parameter)).collect();
    let alone = needed.iter().all(|parameter| parameter.tensor.is_none()) && arguments == ["{z}"];
    match definition.axes.len() {
        0 => Case { call: format!("{name}({})", arguments.join(", ")), elementwise: alone },
        _ => Case { call: format!("{name}[v]({{z}}[b, v])"), elementwise: false },
    }
}

/// What stands for a parameter, by its name and type.
fn argument(function: &str, parameter: &Parameter) -> &'static str {
    let integer = parameter.tensor.as_ref().is_some_and(|ty| ty.integer);
    match (parameter.name.text.as_str(), integer) {
        ("x" | "logits" | "prediction", false) => "{z}",
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
        let arguments = arguments();
        let mut truths: Vec<Vec<Option<Truth>>> = arguments.iter().map(|_| Vec::new()).collect();
        let mut point = Point::new(&self.program);
        for (index, case) in self.cases.iter().enumerate() {
            if case.elementwise {
                // They are given the same in each step.
                let truth = point.of(index, case).truth(&arguments[0].elements);
                truths.iter_mut().for_each(|truths| truths.push(truth.clone()));
                continue;
            }
            for (truths, at) in truths.iter_mut().zip(&arguments) {
                truths.push(point.of(index, case).truth(&at.row));
            }
        }
        Truths(arguments.into_iter().zip(truths).collect())
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
}

impl Default for Extremes {
    fn default() -> Self {
        Self::new()
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
        let call = case.call.replace("{z}", &format!("z{index}"));
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
