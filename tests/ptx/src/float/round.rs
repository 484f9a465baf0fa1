//! f32 arithmetic in any rounding, from an exact f64 result and its residual.

use crate::decode::program::Round;

/// A real number as an f64 and the rounding error that it leaves (Knuth's TwoSum).
pub type Exact = (f64, f64);

/// a + b without error.
pub fn two_sum(a: f64, b: f64) -> Exact {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// Rounds a value with a residual much smaller than it to f32. Only the sign of the residual matters.
pub fn to_f32((value, residual): Exact, round: Round) -> f32 {
    let nearest = value as f32;
    if round == Round::Nearest || !value.is_finite() {
        return nearest;
    }
    let gap = value - f64::from(nearest);
    let rest = if gap == 0.0 { residual } else { gap };
    let down = match round {
        Round::Down => true,
        Round::Zero => value > 0.0 || (value == 0.0 && residual > 0.0),
        _ => false,
    };
    match (down, rest) {
        (true, rest) if rest < 0.0 => nearest.next_down(),
        (false, rest) if rest > 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

/// Sum in a rounding; the sum of opposite numbers is -0 when rounding down.
pub fn add(a: f32, b: f32, round: Round) -> f32 {
    if round == Round::Nearest {
        return a + b;
    }
    let exact = two_sum(f64::from(a), f64::from(b));
    signed_zero(to_f32(exact, round), a + b, a, b, round)
}

fn signed_zero(result: f32, nearest: f32, a: f32, b: f32, round: Round) -> f32 {
    let cancels = nearest == 0.0 && result == 0.0 && a.is_sign_negative() != b.is_sign_negative();
    if cancels { if round == Round::Down { -0.0 } else { 0.0 } } else { result }
}

/// Product in a rounding.
pub fn mul(a: f32, b: f32, round: Round) -> f32 {
    to_f32((f64::from(a) * f64::from(b), 0.0), round)
}

/// a * b + c with one rounding.
pub fn fma(a: f32, b: f32, c: f32, round: Round) -> f32 {
    if round == Round::Nearest {
        return a.mul_add(b, c);
    }
    let product = f64::from(a) * f64::from(b);
    let result = to_f32(two_sum(product, f64::from(c)), round);
    signed_zero(result, a.mul_add(b, c), product as f32, c, round)
}

/// Quotient in a rounding.
pub fn div(a: f32, b: f32, round: Round) -> f32 {
    if round == Round::Nearest {
        return a / b;
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let quotient = a / b;
    let remainder = (-quotient).mul_add(b, a);
    to_f32((quotient, if remainder.is_finite() { remainder / b } else { 0.0 }), round)
}

/// Square root in a rounding.
pub fn sqrt(a: f32, round: Round) -> f32 {
    if round == Round::Nearest {
        return a.sqrt();
    }
    let root = f64::from(a).sqrt();
    to_f32((root, (-root).mul_add(root, f64::from(a))), round)
}

/// Rounds to an integral value.
pub fn integral(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::NearestAway => value.round(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}
