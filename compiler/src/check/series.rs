//! Linear recurrences with constant coefficients, `y[t] = -sum a[r] y[t - r] + sum b[r] x[t - r]` with r from 1 in `a` and
//! from 0 in `b`: what filters of time series are made of (Oppenheim and Schafer, Discrete-Time Signal Processing, ch. 6).

/// Steps within which a response must settle.
const MAX_STEPS: usize = 1_000_000;

/// A response has settled when it is this close to where it goes, relatively.
const SETTLED: f64 = 1e-6;

/// How far inside the unit circle reflection coefficients must stay: what is closer may be outside but for rounding.
const MARGIN: f64 = 1e-9;

/// Whether all roots of `z^n + a[0] z^(n-1) + ... + a[n-1]` lie inside the unit circle, by the Schur-Cohn recursion: the
/// last coefficient is the product of all roots up to sign, and if it is smaller than 1, then
/// `(a(z) - a[n-1] z^n a(1/z)) / (1 - a[n-1]^2)`, one degree lower behind a factor z, has the same property.
pub(super) fn is_stable(a: &[f64]) -> bool {
    let mut a = a.to_vec();
    while let Some(last) = a.pop() {
        if last.is_nan() || last.abs() > 1.0 - MARGIN {
            return false;
        }
        let lower = a.iter().zip(a.iter().rev()).map(|(x, mirrored)| (x - last * mirrored) / (1.0 - last * last));
        a = lower.collect();
    }
    true
}

/// Whether the response to an input that is 1 from some step on is never 0, never changes its sign, and settles on a
/// number other than 0.
pub(super) fn settles_with_one_sign(a: &[f64], b: &[f64]) -> bool {
    let end = b.iter().sum::<f64>() / (1.0 + a.iter().sum::<f64>());
    let mut response = StepResponse { a, b, past: Vec::new(), inputs: 0 };
    let mut settled = 0;
    for _ in 0..MAX_STEPS {
        let value = response.next();
        let same_sign = value * end > 0.0;
        if !same_sign || !value.is_finite() {
            return false;
        }
        settled = if (value - end).abs() <= SETTLED * end.abs() { settled + 1 } else { 0 };
        // As many settled values as the recurrence remembers, and it has no other value to go to.
        if settled > a.len() && response.inputs >= b.len() {
            return true;
        }
    }
    false
}

/// The values of a recurrence whose input is 1.
struct StepResponse<'a> {
    a: &'a [f64],
    b: &'a [f64],
    /// As many values as the recurrence remembers, the newest first.
    past: Vec<f64>,
    /// How many inputs there have been, as far as `b` remembers.
    inputs: usize,
}

impl StepResponse<'_> {
    fn next(&mut self) -> f64 {
        self.inputs = (self.inputs + 1).min(self.b.len());
        let fed: f64 = self.b[..self.inputs].iter().sum();
        let back: f64 = self.a.iter().zip(&self.past).map(|(a, past)| a * past).sum();
        self.past.insert(0, fed - back);
        self.past.truncate(self.a.len());
        fed - back
    }
}

#[cfg(test)]
mod tests {
    use super::{StepResponse, is_stable, settles_with_one_sign};

    /// Coefficients of the polynomial with these roots, without the leading 1. Pairs are conjugate complex.
    fn with_roots(real: &[f64], pairs: &[(f64, f64)]) -> Vec<f64> {
        let factors = real.iter().map(|root| vec![1.0, -root]);
        let factors = factors.chain(pairs.iter().map(|(x, y)| vec![1.0, -2.0 * x, x * x + y * y]));
        let product = factors.fold(vec![1.0], |left, right| {
            let mut product = vec![0.0; left.len() + right.len() - 1];
            for (i, a) in left.iter().enumerate() {
                right.iter().enumerate().for_each(|(j, b)| product[i + j] += a * b);
            }
            product
        });
        product[1..].to_vec()
    }

    #[test]
    fn a_filter_is_stable_when_all_its_roots_are_inside_the_unit_circle() {
        for (a, stable) in [
            (vec![], true),
            (vec![-0.9], true),
            (vec![-1.0], false),
            (vec![1.1], false),
            (vec![-0.7, -0.2], true),
            (vec![-0.7, -0.3], false),
            (vec![-1.98342955, 0.98549544], true),
            (with_roots(&[0.99, -0.99, 0.5], &[(0.6, 0.79)]), true),
            (with_roots(&[0.99, -0.99, 0.5], &[(0.6, 0.81)]), false),
            (with_roots(&[0.1, 0.2, 1.01], &[(0.0, 0.5), (-0.7, 0.7)]), false),
            (vec![f64::NAN], false),
        ] {
            assert_eq!(is_stable(&a), stable, "{a:?}");
        }
    }

    #[test]
    fn the_response_to_a_step_is_that_of_a_corrected_average() {
        let mut response = StepResponse { a: &[-0.9], b: &[0.1], past: Vec::new(), inputs: 0 };
        for t in 1..20 {
            let expected = 1.0 - 0.9_f64.powi(t);
            assert!((response.next() - expected).abs() < 1e-15, "step {t}");
        }
    }

    #[test]
    fn a_response_that_passes_zero_does_not_settle_with_one_sign() {
        let chebyshev = ([-1.98342955, 0.98549544].as_slice(), [0.00016332, 0.00032665, 0.00016332].as_slice());
        for ((a, b), expected) in [
            (([-0.9].as_slice(), [0.1].as_slice()), true),
            ((&[-0.9], &[0.15, -0.05]), true),
            ((&[], &[1.0]), true),
            (chebyshev, true),
            ((&[-0.9], &[-0.1]), true),
            ((&[-0.9], &[0.1, -0.3]), false),
            ((&[-0.9], &[0.1, -0.1]), false),
            ((&[], &[1.0, -2.0, 3.0]), false),
            ((&[-0.9999999999], &[0.0000000001]), false),
        ] {
            assert_eq!(settles_with_one_sign(a, b), expected, "{a:?} {b:?}");
        }
    }
}
