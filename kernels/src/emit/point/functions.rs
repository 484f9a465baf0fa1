//! Functions of one and of two numbers.

use super::Emitter;
use crate::{
    emit::builder::{Compare, Elem, Value},
    ir::{Binary, Precision, Unary},
};

impl Emitter<'_> {
    /// A factor of a product, as it is multiplied.
    pub fn rounded(&mut self, factor: Value, precision: Precision) -> Value {
        precision.rounding().map_or(factor, |rounding| self.unary(rounding, factor))
    }

    pub(super) fn unary(&mut self, function: Unary, x: Value) -> Value {
        let b = &mut *self.b;
        match function {
            Unary::Neg => b.neg(x),
            Unary::Abs => b.abs(x),
            Unary::Exp => b.exp(x),
            Unary::Log => b.log(x),
            Unary::Sqrt => b.sqrt(x),
            Unary::Rsqrt => {
                let root = b.sqrt(x);
                let one = b.float(x.ty.lanes, 1.0);
                b.div(one, root)
            }
            Unary::Reciprocal => {
                let one = b.float(x.ty.lanes, 1.0);
                b.div(one, x)
            }
            Unary::Tanh => b.tanh(x),
            Unary::Sigmoid => b.sigmoid(x),
            Unary::Softplus => b.softplus(x),
            Unary::Sin => b.sin(x),
            Unary::Cos => b.cos(x),
            Unary::Sign => b.sign(x),
            Unary::Floor => b.floor(x),
            Unary::Erf => b.erf(x),
            Unary::RoundTf32 => b.round_tf32(x),
            Unary::RoundBf16 => b.round_bf16(x),
        }
    }

    pub(super) fn binary(&mut self, function: Binary, x: Value, y: Value) -> Value {
        let float = x.ty.elem == Elem::F32;
        let b = &mut *self.b;
        match function {
            Binary::Add => b.add(x, y),
            Binary::Sub => b.sub(x, y),
            Binary::Mul => b.mul(x, y),
            Binary::Div => b.div(x, y),
            Binary::Max if float => b.max(x, y),
            Binary::Max => b.max_signed(x, y),
            Binary::Min if float => b.min(x, y),
            Binary::Min => b.min_signed(x, y),
            Binary::Pow => b.pow(x, y),
            Binary::Less => self.truth(Compare::Less, x, y),
            Binary::LessEqual => self.truth(Compare::LessEqual, x, y),
            Binary::Equal => self.truth(Compare::Equal, x, y),
        }
    }

    fn truth(&mut self, how: Compare, x: Value, y: Value) -> Value {
        let holds = self.b.compare(how, x, y);
        let (one, zero) = (self.b.float(x.ty.lanes, 1.0), self.b.float(x.ty.lanes, 0.0));
        self.b.select(holds, one, zero)
    }

    /// `a^e` for the exponents of [`is_simple_exponent`].
    pub(super) fn simple_power(&mut self, a: Value, exponent: f32) -> Value {
        if exponent == 0.5 {
            return self.b.sqrt(a);
        }
        let mut power = a;
        for _ in 1..exponent as u32 {
            power = self.b.mul(power, a);
        }
        power
    }
}

/// Exponents for which a power is a root or a short product.
pub(super) fn is_simple_exponent(exponent: f32) -> bool {
    [0.5, 1.0, 2.0, 3.0, 4.0].contains(&exponent)
}
