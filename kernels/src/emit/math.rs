//! Elementary functions in f32, made of the same operations lane by lane whatever the vector length, so that a scalar, a
//! vector and a masked tail agree bit for bit and nothing outside the object code is called.
//!
//! Coefficients of exp, log, sin and cos are those of the Cephes library (S. Moshier, single precision), those of
//! erf are N. Juffa's (`erff`, 2015). Errors stay near one or two units in the last place.

use super::builder::{Builder, Compare, Elem, Type, Value};
use std::f32::consts::{FRAC_2_PI, LOG2_E};

/// Adding this to a float below 2^22 in magnitude rounds it to an integer, held in the low bits of the sum.
const ROUNDING: f32 = 12_582_912.0;

/// [`ROUNDING`] with the bias of exponents: the low bits of the sum are the exponent of a power of 2.
const BIASED_ROUNDING: f32 = ROUNDING + 127.0;

/// Of the square, highest power first.
const TANH_NUMERATOR: [f32; 5] = [1.542_813_7e-8, 2.202_336_2e-5, 3.578_998_9e-3, 1.345_062_6e-1, 1.0];
const TANH_DENOMINATOR: [f32; 5] = [8.598_846e-7, 3.423_661_8e-4, 2.619_226_4e-2, 4.678_395_4e-1, 1.0];

impl Builder {
    fn like(&mut self, x: Value, value: f32) -> Value {
        self.float(x.ty.lanes, value)
    }

    fn int_like(&mut self, x: Value, value: i32) -> Value {
        self.int(x.ty.lanes, value)
    }

    /// `Σ coefficients[i] · x^(n-1-i)` by Horner's rule.
    fn polynomial(&mut self, x: Value, coefficients: &[f32]) -> Value {
        let mut sum = self.like(x, coefficients[0]);
        for &coefficient in &coefficients[1..] {
            let coefficient = self.like(x, coefficient);
            sum = self.fma(sum, x, coefficient);
        }
        sum
    }

    /// `x` clamped; NaN stays NaN.
    fn clamp(&mut self, x: Value, low: f32, high: f32) -> Value {
        let low = self.like(x, low);
        let below = self.compare(Compare::Less, x, low);
        let x = self.select(below, low, x);
        self.at_most(x, high)
    }

    /// The smaller of `x` and a bound; NaN stays NaN.
    fn at_most(&mut self, x: Value, bound: f32) -> Value {
        let bound = self.like(x, bound);
        let above = self.compare(Compare::Greater, x, bound);
        self.select(above, bound, x)
    }

    /// `2^n` for integers n in -126..=127.
    fn power_of_two(&mut self, n: Value) -> Value {
        let bias = self.int_like(n, 127);
        let biased = self.add(n, bias);
        let bits = self.shift_left(biased, 23);
        self.bitcast(bits, Elem::F32)
    }

    /// `e^x`, from 0 at -104 (and -inf) to inf above 88.72, denormal results included.
    pub fn exp(&mut self, x: Value) -> Value {
        let clamped = self.clamp(x, -104.0, 89.0);
        let (log2_e, rounding) = (self.like(x, LOG2_E), self.like(x, ROUNDING));
        let shifted = self.fma(clamped, log2_e, rounding);
        let n = self.sub(shifted, rounding);
        let (high, low) = (self.like(x, -0.693_359_4), self.like(x, 2.121_944_4e-4));
        let r = self.fma(n, high, clamped);
        let r = self.fma(n, low, r);
        let tail =
            self.polynomial(r, &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
        let square = self.mul(r, r);
        let one = self.like(x, 1.0);
        let head = self.fma(tail, square, r);
        let mantissa = self.add(head, one);
        let bits = self.bitcast(shifted, Elem::I32);
        let zero = self.int_like(x, ROUNDING.to_bits() as i32);
        let n = self.sub(bits, zero);
        // Two factors: 2^128 and 2^-149 are no single normal float.
        let half = self.shift_right_signed(n, 1);
        let rest = self.sub(n, half);
        let (first, second) = (self.power_of_two(half), self.power_of_two(rest));
        let scaled = self.mul(mantissa, first);
        self.mul(scaled, second)
    }

    /// `2^x` for x below 128; 0 below -126.5 (and at -inf), where [`Builder::exp`] knows subnormal results.
    /// The polynomial is the minimax one on [-1/2, 1/2] (Remez), off by 2e-9.
    pub fn exp2(&mut self, x: Value) -> Value {
        let (low, rounding) = (self.like(x, -127.0), self.like(x, BIASED_ROUNDING));
        let below = self.compare(Compare::Less, x, low);
        let clamped = self.select(below, low, x);
        let shifted = self.add(clamped, rounding);
        let n = self.sub(shifted, rounding);
        let r = self.sub(clamped, n);
        let mantissa = self.polynomial(
            r,
            &[1.534_581_2e-4, 1.339_993_1e-3, 9.618_489e-3, 5.550_328_6e-2, 2.402_264_6e-1, 6.931_472e-1, 1.0],
        );
        let power = self.biased_power(shifted);
        self.mul(mantissa, power)
    }

    /// `2^n` for integers n in -127..=127, given `n + BIASED_ROUNDING`; 0 for -127.
    fn biased_power(&mut self, shifted: Value) -> Value {
        let bits = self.bitcast(shifted, Elem::I32);
        let exponent = self.shift_left(bits, 23);
        self.bitcast(exponent, Elem::F32)
    }

    /// Natural logarithm: -inf at 0, NaN below.
    pub fn log(&mut self, x: Value) -> Value {
        let (smallest, up) = (self.like(x, f32::MIN_POSITIVE), self.like(x, 8_388_608.0));
        let tiny = self.compare(Compare::Less, x, smallest);
        let raised = self.mul(x, up);
        let normal = self.select(tiny, raised, x);
        let bits = self.bitcast(normal, Elem::I32);
        let root_half = self.int_like(x, std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
        let offset = self.sub(bits, root_half);
        let exponent = self.shift_right_signed(offset, 23);
        let scale = self.shift_left(exponent, 23);
        let mantissa = self.sub(bits, scale);
        let mantissa = self.bitcast(mantissa, Elem::F32);
        let (correction, none) = (self.like(x, -23.0), self.like(x, 0.0));
        let correction = self.select(tiny, correction, none);
        let exponent = self.int_to_float(exponent);
        let exponent = self.add(exponent, correction);
        let one = self.like(x, 1.0);
        let fraction = self.sub(mantissa, one);
        let finite = self.log_of_parts(fraction, exponent);
        self.log_specials(x, finite)
    }

    /// `log(1 + f) + e log 2` for 1 + f in [sqrt 1/2, sqrt 2).
    fn log_of_parts(&mut self, f: Value, e: Value) -> Value {
        let square = self.mul(f, f);
        let series = self.polynomial(
            f,
            &[
                7.037_683_6e-2,
                -1.151_461e-1,
                1.167_699_9e-1,
                -1.242_014_1e-1,
                1.424_932_3e-1,
                -1.666_805_8e-1,
                2.000_071_5e-1,
                -2.499_999_4e-1,
                3.333_333e-1,
            ],
        );
        let cubic = self.mul(f, square);
        let (low, high, half) = (self.like(f, -2.121_944_4e-4), self.like(f, 0.693_359_4), self.like(f, -0.5));
        let small = self.mul(e, low);
        let small = self.fma(cubic, series, small);
        let small = self.fma(half, square, small);
        let sum = self.add(f, small);
        self.fma(e, high, sum)
    }

    fn log_specials(&mut self, x: Value, finite: Value) -> Value {
        let (zero, infinity) = (self.like(x, 0.0), self.like(x, f32::INFINITY));
        let (nan, bottom) = (self.like(x, f32::NAN), self.like(x, f32::NEG_INFINITY));
        let ordinary = self.compare(Compare::Less, x, infinity);
        let result = self.select(ordinary, finite, x);
        let negative = self.compare(Compare::Less, x, zero);
        let result = self.select(negative, nan, result);
        let null = self.compare(Compare::Equal, x, zero);
        self.select(null, bottom, result)
    }

    /// Hyperbolic tangent: `x P(x²) / Q(x²)`, the minimax quotient of that form on [-7.9, 7.9] (Lawson's iteration; 6e-9 of
    /// the result before rounding). Where it ends, the tangent is 1 but for 2.8e-7. Beyond, the polynomials stay as they are
    /// and the quotient grows with x, so that it meets its own bound of 1 at once: the result is exactly 1 from 7.90001 on.
    pub fn tanh(&mut self, x: Value) -> Value {
        let square = self.mul(x, x);
        let square = self.at_most(square, 7.9 * 7.9);
        let [p, q] = [TANH_NUMERATOR, TANH_DENOMINATOR].map(|coefficients| self.polynomial(square, &coefficients));
        let numerator = self.mul(x, p);
        let quotient = self.div(numerator, q);
        self.clamp(quotient, -1.0, 1.0)
    }

    /// `1 / (1 + e^-x)`: exactly 1 from 17 on, exactly 0 where the exponential is infinite.
    pub fn sigmoid(&mut self, x: Value) -> Value {
        let negative = self.neg(x);
        let power = self.exp(negative);
        let one = self.like(x, 1.0);
        let sum = self.add(one, power);
        self.div(one, sum)
    }

    /// `log(1 + e^x)` as `max(x, 0) + log(1 + e^-|x|)`, whose exponential is at most 1. Its last digits are not lost in the
    /// sum with 1: below `sqrt 2 - 1` it is the argument of the logarithm's series itself, above it is halved with the 1.
    pub fn softplus(&mut self, x: Value) -> Value {
        let magnitude = self.abs(x);
        let negative = self.neg(magnitude);
        let power = self.exp(negative);
        let (zero, one, half) = (self.like(x, 0.0), self.like(x, 1.0), self.like(x, 0.5));
        let bound = self.like(x, std::f32::consts::SQRT_2 - 1.0);
        let is_large = self.compare(Compare::Greater, power, bound);
        let difference = self.sub(power, one);
        let halved = self.mul(difference, half);
        let fraction = self.select(is_large, halved, power);
        let exponent = self.select(is_large, one, zero);
        let rest = self.log_of_parts(fraction, exponent);
        let is_positive = self.compare(Compare::Greater, x, zero);
        let ramp = self.select(is_positive, x, zero);
        self.add(ramp, rest)
    }

    /// Sine; accurate for |x| up to about 10^5.
    pub fn sin(&mut self, x: Value) -> Value {
        self.circular(x, 0)
    }

    /// Cosine; accurate for |x| up to about 10^5.
    pub fn cos(&mut self, x: Value) -> Value {
        self.circular(x, 1)
    }

    /// `sin(x + quarters · π/2)`: reduction by π/2 in three parts (Cody and Waite), then one of two polynomials.
    fn circular(&mut self, x: Value, quarters: i32) -> Value {
        let x = self.clamp_to_nan(x);
        let (two_over_pi, rounding) = (self.like(x, FRAC_2_PI), self.like(x, ROUNDING));
        let shifted = self.fma(x, two_over_pi, rounding);
        let n = self.sub(shifted, rounding);
        let mut r = x;
        for part in [-1.570_796_4_f32, 4.371_139e-8, 1.715_124_5e-15] {
            let part = self.like(x, part);
            r = self.fma(n, part, r);
        }
        let square = self.mul(r, r);
        let (sine, cosine) = (self.sine_polynomial(r, square), self.cosine_polynomial(square));
        let bits = self.bitcast(shifted, Elem::I32);
        let offset = self.int_like(x, quarters);
        let quadrant = self.add(bits, offset);
        let (one, two) = (self.int_like(x, 1), self.int_like(x, 2));
        let odd = self.and(quadrant, one);
        let is_odd = self.compare(Compare::Equal, odd, one);
        let value = self.select(is_odd, cosine, sine);
        let sign = self.and(quadrant, two);
        let sign = self.shift_left(sign, 30);
        let bits = self.bitcast(value, Elem::I32);
        let signed = self.xor(bits, sign);
        self.bitcast(signed, Elem::F32)
    }

    /// NaN where |x| is beyond what the reduction can take (and at infinity).
    fn clamp_to_nan(&mut self, x: Value) -> Value {
        let magnitude = self.abs(x);
        let (bound, nan) = (self.like(x, 4_194_304.0), self.like(x, f32::NAN));
        let usable = self.compare(Compare::Less, magnitude, bound);
        self.select(usable, x, nan)
    }

    fn sine_polynomial(&mut self, r: Value, square: Value) -> Value {
        let series = self.polynomial(square, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
        let cubic = self.mul(square, r);
        self.fma(series, cubic, r)
    }

    fn cosine_polynomial(&mut self, square: Value) -> Value {
        let series = self.polynomial(square, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
        let fourth = self.mul(square, square);
        let (half, one) = (self.like(square, -0.5), self.like(square, 1.0));
        let head = self.fma(half, square, one);
        self.fma(series, fourth, head)
    }

    /// Gauss error function: an odd polynomial near 0, `1 - e^p(|x|)` beyond.
    pub fn erf(&mut self, x: Value) -> Value {
        let magnitude = self.abs(x);
        let square = self.mul(x, x);
        let inner = self.polynomial(
            square,
            &[-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
        );
        let small = self.fma(inner, x, x);
        let t = self.clamp(magnitude, 0.0, 4.0);
        let exponent = self.polynomial(
            t,
            &[
                -1.728_534_7e-5,
                3.831_971_3e-4,
                -3.883_964_4e-3,
                2.425_462_2e-2,
                -1.067_778_8e-1,
                -6.348_467e-1,
                -1.287_175_1e-1,
            ],
        );
        let negative = self.neg(t);
        let exponent = self.fma(exponent, t, negative);
        let power = self.exp(exponent);
        let one = self.like(x, 1.0);
        let large = self.sub(one, power);
        let large = self.copy_sign(large, x);
        let bound = self.like(x, 475.0 / 512.0);
        let is_large = self.compare(Compare::Greater, magnitude, bound);
        self.select(is_large, large, small)
    }

    /// `a^b` as `e^(b log a)`; 1 where b is 0.
    pub fn pow(&mut self, a: Value, b: Value) -> Value {
        let logarithm = self.log(a);
        let product = self.mul(b, logarithm);
        let power = self.exp(product);
        let (zero, one) = (self.like(a, 0.0), self.like(a, 1.0));
        let is_zero = self.compare(Compare::Equal, b, zero);
        self.select(is_zero, one, power)
    }

    /// -1, 0 or 1; NaN stays.
    pub fn sign(&mut self, x: Value) -> Value {
        let (zero, one) = (self.like(x, 0.0), self.like(x, 1.0));
        let unit = self.copy_sign(one, x);
        let magnitude = self.abs(x);
        let apart = self.compare(Compare::Greater, magnitude, zero);
        self.select(apart, unit, x)
    }

    /// f32 to i32 toward zero; saturating, and 0 for NaN.
    pub fn saturating_int(&mut self, x: Value) -> Value {
        let clamped = self.clamp(x, -2_147_483_648.0, 2_147_483_520.0);
        let zero = self.like(x, 0.0);
        let is_nan = self.compare(Compare::NotEqual, x, x);
        let number = self.select(is_nan, zero, clamped);
        self.float_to_int(number)
    }

    /// The bits of an f32 rounded to bfloat16, nearest even, in the upper half of an i32. NaN stays NaN.
    pub fn bf16_bits(&mut self, x: Value) -> Value {
        let bits = self.bitcast(x, Elem::I32);
        let (one, bias) = (self.int_like(x, 1), self.int_like(x, 0x7FFF));
        let last = self.shift_right(bits, 16);
        let last = self.and(last, one);
        let rounded = self.add(bits, bias);
        let rounded = self.add(rounded, last);
        let (upper, quiet) = (self.int_like(x, 0xFFFF_0000_u32 as i32), self.int_like(x, 0x7FC0_0000));
        let rounded = self.and(rounded, upper);
        let is_nan = self.compare(Compare::NotEqual, x, x);
        self.select(is_nan, quiet, rounded)
    }

    /// An f32 rounded to bfloat16, held as f32.
    pub fn round_bf16(&mut self, x: Value) -> Value {
        if self.narrows_at_once(x) {
            let narrow = self.narrow_bf16(x);
            return self.widen_bf16(narrow);
        }
        let bits = self.bf16_bits(x);
        self.bitcast(bits, Elem::F32)
    }

    /// Whether the processor has an instruction that rounds to bfloat16.
    fn narrows_at_once(&self, x: Value) -> bool {
        self.has_bf16 && x.ty.lanes > 1
    }

    /// An f32 rounded to tf32 (ten bits of mantissa, nearest, ties away from zero), held as f32. NaN stays NaN.
    pub fn round_tf32(&mut self, x: Value) -> Value {
        let bits = self.bitcast(x, Elem::I32);
        let (half, kept) = (self.int_like(x, 0x1000), self.int_like(x, !0x1FFF));
        let rounded = self.add(bits, half);
        let rounded = self.and(rounded, kept);
        let rounded = self.bitcast(rounded, Elem::F32);
        let is_nan = self.compare(Compare::NotEqual, x, x);
        self.select(is_nan, x, rounded)
    }

    /// The stored bfloat16 (i16) of an f32.
    pub fn narrow_bf16(&mut self, x: Value) -> Value {
        if self.narrows_at_once(x) {
            let narrow = self.float_to_bf16(x);
            return self.bitcast(narrow, Elem::I16);
        }
        let bits = self.bf16_bits(x);
        let upper = self.shift_right(bits, 16);
        self.truncate(upper, Elem::I16)
    }

    /// Factors of pairs as stored bfloat16 (i16); they may be that already.
    fn halves_of_pairs(&mut self, factors: [Value; 2]) -> [Value; 2] {
        factors.map(|x| match x.ty {
            Type { elem: Elem::I16, .. } => x,
            _ => self.narrow_bf16(x),
        })
    }

    /// A pair of bfloat16 in each lane, held as f32: the first in the lower half. The operands are f32, or stored
    /// bfloat16.
    pub fn pair_bf16(&mut self, first: Value, second: Value) -> Value {
        let halves = self.halves_of_pairs([first, second]);
        let [first, second] = halves.map(|x| self.extend_unsigned(x, Elem::I32));
        let second = self.shift_left(second, 16);
        let both = self.or(first, second);
        self.bitcast(both, Elem::F32)
    }

    /// The lanes of `first`, then those of `second`, as bfloat16: a pair of neighbours in each lane, held as f32. The
    /// operands are f32, or stored bfloat16.
    pub fn pairs_of_bf16(&mut self, first: Value, second: Value) -> Value {
        let ty = Type::vector(Elem::F32, first.ty.lanes);
        let order: Vec<u32> = (0..2 * ty.lanes).collect();
        let [first, second] = self.halves_of_pairs([first, second]);
        let narrow = self.shuffle(first, second, &order);
        self.reinterpret(narrow, ty)
    }

    /// The f32 of a stored bfloat16 (i16).
    pub fn widen_bf16(&mut self, x: Value) -> Value {
        let wide = self.extend_unsigned(x, Elem::I32);
        let bits = self.shift_left(wide, 16);
        self.bitcast(bits, Elem::F32)
    }

    /// A uniform number in [0, 1) from the word of [`trainc_runtime::philox`] for each element (i32).
    /// `key` and `counter` (instance, step, stream) are scalars.
    pub fn uniform(&mut self, element: Value, key: [Value; 2], counter: [Value; 3]) -> Value {
        let lanes = element.ty.lanes;
        let block = self.shift_right(element, 2);
        let three = self.int_like(element, 3);
        let word = self.and(element, three);
        let [instance, step, stream] = counter.map(|part| self.splat(part, lanes));
        let mut state = [block, instance, step, stream];
        let mut key = key;
        for _ in 0..10 {
            state = self.philox_round(state, key);
            key = self.philox_bump(key);
        }
        let mut chosen = state[3];
        for (position, &candidate) in state[..3].iter().enumerate() {
            let number = self.int_like(element, position as i32);
            let here = self.compare(Compare::Equal, word, number);
            chosen = self.select(here, candidate, chosen);
        }
        self.fraction(chosen)
    }

    /// The number in [0, 1) that the upper 24 bits of a random word stand for.
    pub fn fraction(&mut self, word: Value) -> Value {
        let top = self.shift_right(word, 8);
        let number = self.int_to_float(top);
        let scale = self.like(number, 1.0 / (1 << 24) as f32);
        self.mul(number, scale)
    }

    fn philox_round(&mut self, c: [Value; 4], key: [Value; 2]) -> [Value; 4] {
        let lanes = c[0].ty.lanes;
        let multipliers = [0xD251_1F53_u32, 0xCD9E_8D57].map(|multiplier| self.int(lanes, multiplier as i32));
        let key = key.map(|part| self.splat(part, lanes));
        let (low_0, high_0) = self.mul_extended(multipliers[0], c[0]);
        let (low_1, high_1) = self.mul_extended(multipliers[1], c[2]);
        let first = self.xor(high_1, c[1]);
        let first = self.xor(first, key[0]);
        let third = self.xor(high_0, c[3]);
        let third = self.xor(third, key[1]);
        [first, low_1, third, low_0]
    }

    fn philox_bump(&mut self, key: [Value; 2]) -> [Value; 2] {
        let weyl = [0x9E37_79B9_u32, 0xBB67_AE85].map(|step| self.int(1, step as i32));
        [self.add(key[0], weyl[0]), self.add(key[1], weyl[1])]
    }
}
