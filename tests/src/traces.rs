//! Recorded runs of private training (`golden/privacy/dp_golden.json`, and `dp_disk.json` for filters that look back): two convex
//! problems of four samples and three parameters, made by independent implementations in f64. Each becomes a whole private
//! program whose noise is the recorded one.

use crate::program::{check, floats, read};
use serde_json::Value as Json;
use std::f64::consts::TAU;
use trainc::{
    graph::{Graph, NodeId, Op, substitute},
    program::{Program, State},
};
use trainc_kernels::ir::{Binary, Unary};
use trainc_runtime::{Batch, Session, artifact::Init};

/// Learning rate of the optimizers of Adam's kind.
const ADAM_RATE: f64 = 0.05;

/// Samples of a problem; all of them take part in every step.
pub const SAMPLES: usize = 4;

/// Parameters of a problem.
pub const WIDTH: usize = 3;

/// Draws are multiples of one over this.
const UNIT: f64 = 16_777_216.0;

/// States that hold the words of which a normal number is made: two for `1 - u`, and the angle.
pub const WORDS: [&str; 3] = ["recorded.coarse", "recorded.fine", "recorded.angle"];

/// The filters of two traces that are not in the library: DiSK started from 0, and with the gain and the noise of a published
/// program that departs from its own description.
const VARIANTS: &str = "
filter kalman_from_zero(kappa, gamma, gain) {
    state g = 0, d = 0
    c = (1 - kappa) / (kappa * gamma)
    sample c * gradient(p + gamma * d) + (1 - c) * gradient(p)
    g <- (1 - gain) * g + gain * grad
    grad <- g
    x = p
    update
    d <- p - x
}

filter kalman_with_gain(kappa, gamma, gain) {
    state g = 0, d = 0
    c = (1 - kappa) / (kappa * gamma)
    sample c * gradient(p + gamma * d) + (1 - c) * gradient(p)
    g <- if t == 1 then grad else (1 - gain) * g + gain * grad
    grad <- g
    x = p
    update
    d <- p - x
}
";

/// The files with recorded runs.
const FILES: [&str; 2] = ["dp_golden.json", "dp_disk.json"];

/// All recorded runs.
pub struct Recorded(Vec<Json>);

impl Recorded {
    /// Reads the files.
    pub fn read() -> Self {
        let text = |file| read(&format!("tests/golden/privacy/{file}"));
        Recorded(FILES.map(|file| serde_json::from_str(&text(file)).expect("the file is well formed")).into())
    }

    /// All runs, in the order of the files.
    pub fn traces(&self) -> Vec<Trace<'_>> {
        self.0.iter().flat_map(traces_of).collect()
    }
}

/// The runs of a file.
fn traces_of(file: &Json) -> Vec<Trace<'_>> {
    let mut traces = Vec::new();
    for problem in array(&file["problems"]) {
        let trace = |trace| Trace { data: &file["data"], problem, trace };
        traces.extend(array(&problem["traces"]).iter().map(trace));
    }
    traces
}

/// One of the recorded runs.
#[derive(Clone, Copy)]
pub struct Trace<'a> {
    data: &'a Json,
    problem: &'a Json,
    trace: &'a Json,
}

/// The program of a run, with states in place of draws, and two of its nodes that the record has numbers for.
pub struct Replayed {
    /// The whole program.
    pub program: Program,
    /// The norm of each sample's gradient, `[SAMPLES]`, in the program's step.
    pub norms: NodeId,
    /// The noisy mean of the clipped gradients, `[WIDTH]`, in the program's step.
    pub private_gradient: NodeId,
}

impl<'a> Trace<'a> {
    /// Problem and name.
    pub fn shown(&self) -> String {
        format!("{}, {}", text(self.problem, "problem"), self.name())
    }

    /// The name, the same in both problems.
    pub fn name(&self) -> &'a str {
        text(self.trace, "name")
    }

    /// What was recorded, by step.
    pub fn steps(&self) -> &'a [Json] {
        array(&self.trace["steps"])
    }

    /// The samples' features, row by row.
    pub fn features(&self) -> Vec<f64> {
        array(&self.data["A"]).iter().flat_map(numbers).collect()
    }

    /// The samples' targets.
    pub fn targets(&self) -> Vec<f64> {
        numbers(&self.data[if self.problem["problem"] == "quadratic" { "b" } else { "y_logistic" }])
    }

    /// Where the parameters start.
    pub fn start(&self) -> Vec<f64> {
        numbers(&self.data["x0"])
    }

    /// The first coefficient of the filter, what it adds to its response at once.
    pub fn response_to_the_newest(&self) -> f64 {
        numbers(&self.trace["b"])[0]
    }

    /// The words of a step that Box and Muller's formula makes the recorded draws of, by state of [`WORDS`].
    ///
    /// A draw `z` is the abscissa of the point `(z, 1)`: a small one needs no word near the end of its range, where f32 has few
    /// numbers. Without noise the radius is 0.
    pub fn words(&self, step: usize) -> [Vec<f64>; 3] {
        if self.trace["noise"] == false {
            return [(); 3].map(|()| vec![0.0; WIDTH]);
        }
        let draws = numbers(&self.data["noise_table_standard_normal"][step]);
        let u = draws.iter().map(|z| (-(z * z + 1.0) / 2.0).exp());
        let coarse: Vec<f64> = u.clone().map(|u| ((1.0 - u) * UNIT).floor() / UNIT).collect();
        let fine = u.zip(&coarse).map(|(u, coarse)| (1.0 - coarse - u) * UNIT).collect();
        [coarse, fine, draws.iter().map(|z| 1f64.atan2(*z) / TAU).collect()]
    }

    /// The run as a private program.
    ///
    /// # Panics
    /// With the rendered diagnostics, if the program is wrong.
    pub fn replayed(&self) -> Replayed {
        let mut program = check("trace", &self.source(), &[]).unwrap_or_else(|found| panic!("{found}"));
        let norms = norms(&program.step);
        let mut pairs = with_recorded_words(&mut program);
        if self.trace["clip"]["kind"] == "abadi_eps" {
            pairs.push((norms, enlarged(&mut program.step, norms, self.trace["clip"]["eps"].as_f64().unwrap_or(0.0))));
        }
        replace(&mut program.step, &pairs);
        let private_gradient = private_gradient(&program.step, pairs[2].1);
        Replayed { program, norms, private_gradient }
    }

    /// How far f32 may be from the record after eight steps. Adam divides by `1 - 0.999^t`, which loses three digits at first.
    pub fn tolerance_of_f32(&self) -> f64 {
        if self.optimizer().0 == "sgd" { 1e-6 } else { 5e-6 }
    }

    /// Makes the recorded steps on a compiled program; returns the largest difference of a parameter from the record.
    pub fn distance(&self, session: &mut Session) -> f64 {
        let set = |session: &mut Session, name: &str, values: Vec<f64>| {
            session.set_tensor(name, &single(&values).into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        };
        let batch = Batch::new().with("a", single(&self.features())).with("y", single(&self.targets()));
        set(session, "x", self.start());
        let mut largest: f64 = 0.0;
        for (t, step) in self.steps().iter().enumerate() {
            WORDS.iter().zip(self.words(t)).for_each(|(name, words)| set(session, name, words));
            session.step_with(&batch).unwrap_or_else(|error| panic!("{}: {error}", self.shown()));
            let recorded = numbers(&step["x_next"]);
            let differences = floats(session, "x").into_iter().zip(recorded).map(|(found, recorded)| found - recorded);
            largest = differences.map(f64::abs).fold(largest, f64::max);
        }
        largest
    }

    fn source(&self) -> String {
        let (optimizer, rate) = self.optimizer();
        let sigma = self.number(self.problem, "sigma") / self.number(self.trace, "sigma_divisor");
        format!(
            "use std
{VARIANTS}
model Sample() {{
    input a: [batch, {WIDTH}]
    input y: [batch]
    param x: [{WIDTH}] = 0
    output product = sum[i](a[n, i] * x[i])
}}

train {{
    model Sample()
    loss {}
    private {{
        noise_multiplier {sigma}
        clip {}
        records {SAMPLES}
        {}
    }}
    optimizer {optimizer}
    schedule {rate}
    steps 8  batch {SAMPLES}
}}
",
            self.loss(),
            self.clip(),
            self.filter(),
        )
    }

    fn number(&self, of: &Json, name: &str) -> f64 {
        of[name].as_f64().unwrap_or_else(|| panic!("{} says no `{name}`", self.shown()))
    }

    fn loss(&self) -> &'static str {
        match text(self.problem, "problem") {
            "quadratic" => "mean(0.5 * (product - y)^2)",
            _ => "mean(log(1 + exp(-y * product)))",
        }
    }

    fn clip(&self) -> String {
        let norm = self.number(self.problem, "C");
        match text(&self.trace["clip"], "kind") {
            // Far above every norm.
            "none" => "1e3".into(),
            "auto_s" => format!("{norm} automatic {}", self.number(&self.trace["clip"], "gamma_s")),
            "auto_v" => format!("{norm} automatic 0"),
            _ => norm.to_string(),
        }
    }

    fn filter(&self) -> String {
        let list = |name: &str| format!("{:?}", numbers(&self.trace[name]));
        let number = |name: &str| self.number(self.trace, name);
        let variant = match (text(self.trace, "method"), self.name()) {
            ("doppler" | "doppler_adam_author", _) => {
                return format!("filter lowpass(a = {}, b = {})", list("a"), list("b"));
            }
            ("disk", "disk_zeroinit_noise") => "kalman_from_zero",
            ("disk", "disk_opacus_buggy_noise") => "kalman_with_gain",
            ("disk", _) => return format!("filter kalman(kappa = {}, gamma = {})", number("kappa"), number("gamma")),
            _ => return String::new(),
        };
        let (kappa, gamma, gain) = (number("kappa"), number("gamma"), number("gain"));
        format!("filter {variant}(kappa = {kappa}, gamma = {gamma}, gain = {gain})")
    }

    /// Optimizer and learning rate.
    fn optimizer(&self) -> (String, f64) {
        match (text(self.trace, "method"), text(self.trace, "opt")) {
            ("doppler_adam_author", _) => {
                (format!("filtered_adam(beta = {})", self.number(self.trace, "beta2")), ADAM_RATE)
            }
            (_, "adamw") => ("adamw(weight_decay = 0.01)".into(), ADAM_RATE),
            (_, "adambc") => ("dp_adam".into(), ADAM_RATE),
            (_, "sgd") => ("sgd".into(), self.number(self.problem, "lr_sgd")),
            (_, other) => panic!("{}: no optimizer {other}", self.shown()),
        }
    }
}

/// A list of numbers.
///
/// # Panics
/// If it is none.
pub fn numbers(list: &Json) -> Vec<f64> {
    array(list).iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn array(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}

fn text<'a>(of: &'a Json, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// The only square root of a number for each sample.
fn norms(graph: &Graph) -> NodeId {
    let is_norm = |id: &NodeId| graph.node(*id).op == Op::Unary(Unary::Sqrt) && graph.shape(*id) == [SAMPLES as u64];
    let found: Vec<NodeId> = graph.ids().filter(is_norm).collect();
    assert_eq!(found.len(), 1, "a gradient is clipped as a whole");
    found[0]
}

/// States for the draws, which are made in the order of [`WORDS`]: what stands for what.
fn with_recorded_words(program: &mut Program) -> Vec<(NodeId, NodeId)> {
    let is_draw = |id: &NodeId| matches!(program.step.node(*id).op, Op::Random { .. });
    let draws: Vec<NodeId> = program.step.ids().filter(is_draw).collect();
    assert_eq!(draws.len(), WORDS.len(), "noise for one parameter is all that is random");
    let state = |(draw, name): (NodeId, &&str)| {
        let (index, shape) = (program.states.len() as u32, vec![WIDTH as u64]);
        let init = Init::Constant { value: 0.0 };
        program.states.push(State { name: (*name).into(), shape: shape.clone(), init });
        (draw, program.step.add(Op::State { index, shape }, &[]))
    };
    draws.into_iter().zip(&WORDS).map(state).collect()
}

/// Norms as a published program has them, in the factor alone.
fn enlarged(graph: &mut Graph, norms: NodeId, by: f64) -> NodeId {
    let by = graph.full_like(by, norms);
    graph.plus(norms, by)
}

/// Computes the outputs from the second node of each pair instead of the first.
fn replace(graph: &mut Graph, pairs: &[(NodeId, NodeId)]) {
    let outputs = graph.outputs().to_vec();
    let wanted: Vec<NodeId> = outputs.iter().map(|&(_, node)| node).collect();
    let substitution = substitute(graph, pairs, &wanted);
    outputs.into_iter().for_each(|(output, node)| graph.set_output(output, substitution.of(node)));
}

/// The mean that the optimizer gets: what is made of the sum of gradients and a draw with this angle.
fn private_gradient(graph: &Graph, angle: NodeId) -> NodeId {
    let mut node = angle;
    while graph.node(node).op != Op::Binary(Binary::Add) {
        node = only_user(graph, node);
    }
    only_user(graph, node)
}

fn only_user(graph: &Graph, node: NodeId) -> NodeId {
    let users = graph.users(node);
    assert_eq!(users.len(), 1, "{} is used once", graph.node(node).op.name());
    users[0]
}
