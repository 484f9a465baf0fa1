//! The scalar functions that element-wise operations are made of; the graph uses the same names.

use serde::{Deserialize, Serialize};

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unary {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root, correctly rounded.
    Sqrt,
    /// `1 / sqrt(x)`, as division after square root.
    Rsqrt,
    /// `1 / x`, correctly rounded.
    Reciprocal,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`, the logistic function.
    Sigmoid,
    /// `log(1 + e^x)`.
    Softplus,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// -1, 0 or 1.
    Sign,
    /// Largest integer not above.
    Floor,
    /// Gauss error function.
    Erf,
    /// Rounded to tf32 (see [`super::Precision::Tf32`]); still an f32.
    RoundTf32,
    /// Rounded to bfloat16, nearest even; still an f32.
    RoundBf16,
}

/// Functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`, correctly rounded.
    Div,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
    /// `a^b` as `e^(b log a)` for a > 0; 0 for a = 0 and b > 0; 1 for b = 0.
    Pow,
    /// 1 where `a < b`, else 0.
    Less,
    /// 1 where `a <= b`, else 0.
    LessEqual,
    /// 1 where `a = b`, else 0.
    Equal,
}

impl Unary {
    /// Its name in printed graphs, rules and labels.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Softplus => "softplus",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Sign => "sign",
            Unary::Floor => "floor",
            Unary::Erf => "erf",
            Unary::RoundTf32 => "round_tf32",
            Unary::RoundBf16 => "round_bf16",
        }
    }

    /// Simple operations that it takes, about.
    pub fn operations(self) -> u32 {
        use Unary::{Abs, Cos, Erf, Exp, Floor, Log, Neg, Reciprocal, RoundBf16, RoundTf32, Rsqrt, Sigmoid, Sign, Sin};
        use Unary::{Softplus, Sqrt, Tanh};
        match self {
            Neg | Abs | Sign | Floor | RoundTf32 | RoundBf16 => 1,
            Sqrt | Rsqrt | Reciprocal => 4,
            Exp | Log | Tanh | Sigmoid | Softplus | Sin | Cos | Erf => 10,
        }
    }

    /// Whether it takes a polynomial or more.
    pub fn is_transcendental(self) -> bool {
        self.operations() >= 10
    }

    /// Whether its value of a rounded number is rounded, to any format.
    pub fn keeps_rounding(self) -> bool {
        matches!(self, Unary::Neg | Unary::Abs)
    }

    /// Reference semantics.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Sign if x == 0.0 || x.is_nan() => x,
            Unary::Sign => x.signum(),
            Unary::Floor => x.floor(),
            Unary::Erf => erf(x),
            Unary::RoundTf32 => round_tf32(x as f32).into(),
            Unary::RoundBf16 => round_bf16(x as f32).into(),
        }
    }
}

impl Binary {
    /// Its name in printed graphs, rules and labels.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Pow => "pow",
            Binary::Less => "less",
            Binary::LessEqual => "less_equal",
            Binary::Equal => "equal",
        }
    }

    /// Simple operations that it takes, about.
    pub fn operations(self) -> u32 {
        use Binary::{Add, Div, Equal, Less, LessEqual, Max, Min, Mul, Pow, Sub};
        match self {
            Add | Sub | Mul | Max | Min | Less | LessEqual | Equal => 1,
            Div => 4,
            Pow => 20,
        }
    }

    /// Whether its value of rounded numbers is rounded, to any format.
    pub fn keeps_rounding(self) -> bool {
        matches!(self, Binary::Max | Binary::Min)
    }

    /// Reference semantics.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        let truth = |condition: bool| f64::from(u8::from(condition));
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Max | Binary::Min if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            Binary::Pow => a.powf(b),
            Binary::Less => truth(a < b),
            Binary::LessEqual => truth(a <= b),
            Binary::Equal => truth(a == b),
        }
    }
}

/// Rounds to bfloat16, nearest even; NaN becomes the quiet NaN.
pub fn round_bf16(value: f32) -> f32 {
    if value.is_nan() {
        return f32::from_bits(0x7FC0_0000);
    }
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// Rounds to tf32: ten bits of mantissa, nearest, ties away from zero; NaN becomes the quiet NaN.
fn round_tf32(value: f32) -> f32 {
    if value.is_nan() {
        return f32::from_bits(0x7FC0_0000);
    }
    f32::from_bits((value.to_bits() + 0x1000) & !0x1FFF)
}

/// Error function by its Maclaurin series below 3 and the continued fraction of erfc (Abramowitz and Stegun 7.1.6,
/// 7.1.14) above; relative error under 1e-14.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 { erf_series(z) } else { 1.0 - erfc_fraction(z) };
    value.copysign(x)
}

fn erf_series(z: f64) -> f64 {
    let (mut term, mut sum, mut n) = (z, z, 0.0);
    while term > 1e-17 * sum {
        n += 1.0;
        term *= 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp()
}

fn erfc_fraction(z: f64) -> f64 {
    let tail = (1..60).rev().fold(z, |tail, n| z + f64::from(n) / 2.0 / tail);
    (-z * z).exp() / std::f64::consts::PI.sqrt() / tail
}
