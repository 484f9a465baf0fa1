//! Functions of each element.

use super::{Call, Doc, Facts, Rule, exactly, expect_float, expect_integer, refuse};
use crate::graph::{Graph, InterpretError, NodeId, ShapeError, Tensor, TensorType, interpret::Moment};
use trainc_kernels::ir::{self, Binary as F2, Unary as F1};
use trainc_runtime::artifact::DType;

/// The facts of a function of one element.
pub(super) fn unary_facts(function: F1) -> Facts {
    Facts { keeps_rounding: function.keeps_rounding(), ..Facts::element(function.operations()) }
}

/// The facts of a function of two elements.
pub(super) fn binary_facts(function: F2) -> Facts {
    Facts { keeps_rounding: function.keeps_rounding(), ..Facts::element(function.operations()) }
}

pub(super) struct Unary(pub ir::Unary);

impl Unary {
    pub const DOC: Doc = Doc {
        name: "Unary",
        operands: "x: f32",
        result: "as x",
        meaning: "neg, abs, exp, log, sqrt, rsqrt, reciprocal, tanh, sigmoid, softplus, sin, cos, sign, floor, erf or \
                  round_bf16 of each element",
        gradient: "`g f'(x)`, of exp, tanh and sigmoid by y; sign and floor pass none, abs passes 0 at 0, sqrt at 0 is \
                   infinite; round_bf16 rounds g alike",
    };
}

impl Rule for Unary {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let what = format!("{:?}", self.0).to_lowercase();
        let [x] = exactly(&what, operands)?;
        expect_float(&what, x)?;
        Ok(x.clone())
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(operands[0].map(|x| self.0.apply(x)))
    }

    fn passes_gradient(&self, _operand: usize) -> bool {
        !matches!(self.0, F1::Sign | F1::Floor)
    }

    fn gradient(&self, call: &mut Call, _operand: usize) -> Option<NodeId> {
        let (x, y) = (call.operands[0], call.node);
        let derivative = match self.0 {
            F1::Neg => return Some(call.graph.negative(call.seed)),
            round @ (F1::RoundBf16 | F1::RoundTf32) => return Some(call.graph.unary(round, call.seed)),
            F1::Log => return Some(call.graph.over(call.seed, x)),
            F1::Abs => call.graph.unary(F1::Sign, x),
            F1::Exp => y,
            F1::Sqrt => {
                let half = call.graph.full_like(0.5, y);
                call.graph.over(half, y)
            }
            F1::Rsqrt => rsqrt_derivative(call.graph, y),
            F1::Reciprocal => {
                let square = call.graph.times(y, y);
                call.graph.negative(square)
            }
            F1::Tanh => {
                let (square, one) = (call.graph.times(y, y), call.graph.full_like(1.0, y));
                call.graph.minus(one, square)
            }
            F1::Sigmoid => {
                let one = call.graph.full_like(1.0, y);
                let rest = call.graph.minus(one, y);
                call.graph.times(y, rest)
            }
            F1::Softplus => call.graph.unary(F1::Sigmoid, x),
            F1::Sin => call.graph.unary(F1::Cos, x),
            F1::Cos => {
                let sine = call.graph.unary(F1::Sin, x);
                call.graph.negative(sine)
            }
            F1::Erf => erf_derivative(call.graph, x),
            F1::Sign | F1::Floor => return None,
        };
        Some(call.seed_times(derivative))
    }
}

pub(super) struct Binary(pub ir::Binary);

impl Binary {
    pub const DOC: Doc = Doc {
        name: "Binary",
        operands: "a, b: one type",
        result: "as a; comparisons give f32",
        meaning: "add, sub, mul, max, min, less, less or equal, equal of f32 or i32 elements; div and pow of f32",
        gradient: "`g df/da`, `g df/db`; of equal operands of max and min each gets half, but none if the other is a constant; \
                   comparisons pass none",
    };

    fn what(&self) -> &'static str {
        match self.0 {
            F2::Add => "+",
            F2::Sub => "-",
            F2::Mul => "*",
            F2::Div => "/",
            F2::Max => "max",
            F2::Min => "min",
            F2::Pow => "^",
            F2::Less => "<",
            F2::LessEqual => "<=",
            F2::Equal => "==",
        }
    }

    fn is_comparison(&self) -> bool {
        matches!(self.0, F2::Less | F2::LessEqual | F2::Equal)
    }
}

impl Rule for Binary {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let what = self.what();
        let [a, b] = exactly(what, operands)?;
        expect_same(what, a, b)?;
        if matches!(self.0, F2::Div | F2::Pow) {
            expect_float(what, a)?;
        }
        let dtype = if self.is_comparison() { DType::F32 } else { a.dtype };
        Ok(TensorType { dtype, shape: a.shape.clone() })
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let [a, b] = [operands[0], operands[1]];
        let integers = a.ty.dtype == DType::I32;
        let apply = |(&a, &b)| if integers { apply_to_integers(self.0, a, b) } else { self.0.apply(a, b) };
        let dtype = if self.is_comparison() { DType::F32 } else { a.ty.dtype };
        let ty = TensorType { dtype, shape: a.ty.shape.clone() };
        Ok(Tensor::new(ty, a.data.iter().zip(&b.data).map(apply).collect()))
    }

    fn passes_gradient(&self, _operand: usize) -> bool {
        !self.is_comparison()
    }

    fn gradient(&self, call: &mut Call, operand: usize) -> Option<NodeId> {
        let (a, b, seed) = (call.operands[0], call.operands[1], call.seed);
        Some(match (self.0, operand) {
            (F2::Add, _) | (F2::Sub, 0) => seed,
            (F2::Sub, _) => call.graph.negative(seed),
            (F2::Mul, 0) => call.seed_times(b),
            (F2::Mul, _) => call.seed_times(a),
            (F2::Div, 0) => call.graph.over(seed, b),
            (F2::Div, _) => {
                let slope = call.graph.over(call.node, b);
                call.minus_seed_times(slope)
            }
            (F2::Max, 0) => seed_where_less(call, b, a),
            (F2::Max, _) => seed_where_less(call, a, b),
            (F2::Min, 0) => seed_where_less(call, a, b),
            (F2::Min, _) => seed_where_less(call, b, a),
            (F2::Pow, 0) => match small_exponent(call.graph, b) {
                Some(exponent) => seed_times_power_slope(call, a, exponent),
                None => {
                    let slope = power_slope(call.graph, a, b);
                    call.seed_times(slope)
                }
            },
            (F2::Pow, _) => {
                let slope = exponent_slope(call.graph, a, call.node);
                call.seed_times(slope)
            }
            (F2::Less | F2::LessEqual | F2::Equal, _) => return None,
        })
    }
}

pub(super) struct Select;

impl Select {
    pub const DOC: Doc = Doc {
        name: "Select",
        operands: "c: f32; a, b: one type; all of one shape",
        result: "as a",
        meaning: "a where c is not 0, else b",
        gradient: "g to a where c is not 0, to b elsewhere; none to c",
    };
}

impl Rule for Select {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [condition, a, b] = exactly("select", operands)?;
        expect_float("the condition of select", condition)?;
        expect_same("select", a, b)?;
        if condition.shape != a.shape {
            return refuse(format!("select: the condition is {condition} and the choices are {a}"));
        }
        Ok(a.clone())
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let [condition, a, b] = [operands[0], operands[1], operands[2]];
        let choose = |i: usize| if condition.data[i] != 0.0 { a.data[i] } else { b.data[i] };
        Ok(Tensor::new(a.ty.clone(), (0..a.data.len()).map(choose).collect()))
    }

    fn passes_gradient(&self, operand: usize) -> bool {
        operand > 0
    }

    fn gradient(&self, call: &mut Call, operand: usize) -> Option<NodeId> {
        let zero = call.graph.full_like(0.0, call.seed);
        let (a, b) = if operand == 1 { (call.seed, zero) } else { (zero, call.seed) };
        Some(call.graph.select(call.operands[0], a, b))
    }
}

pub(super) struct ToFloat;

impl ToFloat {
    pub const DOC: Doc = Doc {
        name: "ToFloat",
        operands: "x: i32",
        result: "f32 of x's shape",
        meaning: "the nearest f32",
        gradient: "none",
    };
}

impl Rule for ToFloat {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("conversion to f32", operands)?;
        expect_integer("conversion to f32", x)?;
        Ok(TensorType::f32(x.shape.clone()))
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(Tensor::new(TensorType::f32(operands[0].shape()), operands[0].data.clone()))
    }
}

pub(super) struct ToInteger;

impl ToInteger {
    pub const DOC: Doc = Doc {
        name: "ToInteger",
        operands: "x: f32",
        result: "i32 of x's shape",
        meaning: "x rounded toward zero, kept within the range of i32",
        gradient: "none",
    };
}

impl Rule for ToInteger {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("conversion to i32", operands)?;
        expect_float("conversion to i32", x)?;
        Ok(TensorType::i32(x.shape.clone()))
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        let data = operands[0].data.iter().map(|&x| f64::from(x as i32)).collect();
        Ok(Tensor::new(TensorType::i32(operands[0].shape()), data))
    }

    fn passes_gradient(&self, _operand: usize) -> bool {
        false
    }
}

pub(super) struct StopGradient;

impl StopGradient {
    pub const DOC: Doc = Doc { name: "StopGradient", operands: "x", result: "as x", meaning: "x", gradient: "none" };
}

impl Rule for StopGradient {
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let [x] = exactly("stop_gradient", operands)?;
        Ok(x.clone())
    }

    fn evaluate(&self, operands: &[&Tensor], _at: &Moment) -> Result<Tensor, InterpretError> {
        Ok(operands[0].clone())
    }

    fn passes_gradient(&self, _operand: usize) -> bool {
        false
    }
}

/// Refuses operands of different types.
fn expect_same(what: &str, a: &TensorType, b: &TensorType) -> Result<(), ShapeError> {
    if a == b { Ok(()) } else { refuse(format!("{what} needs two values of one type, and these are {a} and {b}")) }
}

/// Two's complement where a result leaves the range of i32.
fn apply_to_integers(function: F2, a: f64, b: f64) -> f64 {
    let (left, right) = (a as i32, b as i32);
    match function {
        F2::Add => f64::from(left.wrapping_add(right)),
        F2::Sub => f64::from(left.wrapping_sub(right)),
        F2::Mul => f64::from(left.wrapping_mul(right)),
        _ => function.apply(a, b),
    }
}

/// `-y^3 / 2`.
fn rsqrt_derivative(graph: &mut Graph, y: NodeId) -> NodeId {
    let square = graph.times(y, y);
    let cube = graph.times(square, y);
    graph.scale(cube, -0.5)
}

/// `2 / sqrt(pi) exp(-x^2)`.
fn erf_derivative(graph: &mut Graph, x: NodeId) -> NodeId {
    let square = graph.times(x, x);
    let exponent = graph.negative(square);
    let bell = graph.unary(F1::Exp, exponent);
    graph.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)
}

/// Max and min: the seed where `low < high`, that is where the operand is the one chosen. Where both are equal it is half
/// the seed, so that identities such as `max(x, y) = (x + y + |x - y|) / 2` hold for gradients; but nothing if one of them is
/// a constant, so that what `max(x, 0)` shuts off is shut off at 0 as well.
fn seed_where_less(call: &mut Call, low: NodeId, high: NodeId) -> NodeId {
    let chosen = call.graph.binary(F2::Less, low, high);
    let zero = call.graph.full_like(0.0, call.seed);
    if call.graph.splat(low).or(call.graph.splat(high)).is_some() {
        return call.graph.select(chosen, call.seed, zero);
    }
    let tied = call.graph.binary(F2::Equal, low, high);
    let half = call.graph.scale(call.seed, 0.5);
    let otherwise = call.graph.select(tied, half, zero);
    call.graph.select(chosen, call.seed, otherwise)
}

/// The exponent of a power that is a product of few factors.
fn small_exponent(graph: &Graph, exponent: NodeId) -> Option<u32> {
    let whole = graph.splat(exponent).filter(|value| value.fract() == 0.0 && (2.0..=8.0).contains(value));
    whole.map(|value| value as u32)
}

/// `g n a^(n - 1)`, factor by factor: where g is 0 it stays 0, though `a^(n - 1)` by itself would be infinite.
fn seed_times_power_slope(call: &mut Call, a: NodeId, exponent: u32) -> NodeId {
    let factor = call.graph.full_like(exponent.into(), call.seed);
    let seed = call.seed_times(factor);
    (1..exponent).fold(seed, |product, _| call.graph.product(product, a))
}

/// `b a^(b - 1)`.
fn power_slope(graph: &mut Graph, a: NodeId, b: NodeId) -> NodeId {
    let less = match graph.splat(b) {
        Some(exponent) => graph.full_like(exponent - 1.0, b),
        None => {
            let one = graph.full_like(1.0, b);
            graph.minus(b, one)
        }
    };
    let power = if graph.splat(less) == Some(1.0) { a } else { graph.binary(F2::Pow, a, less) };
    graph.product(b, power)
}

/// `y log a`, and 0 where a is 0.
fn exponent_slope(graph: &mut Graph, a: NodeId, y: NodeId) -> NodeId {
    let zero = graph.full_like(0.0, a);
    let vanishes = graph.binary(F2::Equal, a, zero);
    let logarithm = graph.unary(F1::Log, a);
    let slope = graph.times(y, logarithm);
    graph.select(vanishes, zero, slope)
}
