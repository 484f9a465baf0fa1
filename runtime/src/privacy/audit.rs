//! Audits: lower bounds on epsilon from attacks, to be held against the accountant's upper bound.
//!
//! An attacker is shown what training publishes and says of chosen records (*canaries*) whether they took part. If training
//! is `(epsilon, delta)`-private, nobody can be right too often, whatever they know. So an attack that is right more often
//! proves, with some confidence, that epsilon is larger than claimed: a fault in the code, or in its account. An attack that
//! is not proves nothing.
//!
//! How canaries are scored is up to the attacker, and the bounds hold for any way that was fixed beforehand. The strongest
//! canaries have gradients that no other record has a part in; the inner product with what was published is the score.
//!
//! ```
//! use trainc_runtime::privacy::audit::Guesses;
//!
//! // A thousand canaries, each in the data if its coin said so; a hundred guesses about the most telling scores.
//! let guesses = Guesses { canaries: 1000, made: 100, right: 75 };
//! let epsilon = guesses.epsilon(1e-4, 0.95).unwrap();
//! assert!((epsilon - 0.673).abs() < 1e-3);
//! ```

use super::Error;
use libm::{exp, lgamma, log, log1p};

/// Beyond this, a ratio of probabilities is no number.
const MOST_EPSILON: f64 = 700.0;

/// A membership attack in trials that do not depend on each other: runs of their own, or canaries of one run whose scores
/// are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attack {
    /// Trials in which the canary took part.
    pub members: u64,
    /// In how many of these the attacker said so.
    pub recognised: u64,
    /// Trials in which it did not.
    pub others: u64,
    /// In how many of these the attacker said that it did.
    pub mistaken: u64,
}

impl Attack {
    /// The epsilon that these trials refute: with this confidence, training is not `(epsilon, delta)`-private for any smaller
    /// one.
    ///
    /// `P(recognised) <= e^epsilon P(mistaken) + delta`, and the same for the opposite answers (Kairouz, Oh and Viswanath 2015,
    /// theorem 2.1), at the Clopper-Pearson ends of both probabilities (Jagielski, Ullman and Oprea 2020). The rule by which
    /// the attacker answers must not depend on these trials.
    ///
    /// # Errors
    /// `delta` or `confidence` is outside its range, or more answers are counted than trials.
    pub fn epsilon(&self, delta: f64, confidence: f64) -> Result<f64, Error> {
        validate(delta, confidence)?;
        let error = 0.5 * (1.0 - confidence);
        let recognised = at_least(self.recognised, self.members, error)?;
        let mistaken = at_most(self.mistaken, self.others, error)?;
        let yes = log((recognised - delta).max(0.0) / mistaken);
        let no = log((1.0 - mistaken - delta).max(0.0) / (1.0 - recognised));
        Ok(yes.max(no).clamp(0.0, MOST_EPSILON))
    }
}

/// A membership attack in one run, on canaries each of which took part if its own fair coin said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guesses {
    /// How many canaries there are.
    pub canaries: u64,
    /// About how many of them the attacker makes a guess; it may choose the most telling ones after the run.
    pub made: u64,
    /// How many guesses are right.
    pub right: u64,
}

impl Guesses {
    /// The epsilon that these guesses refute: with this confidence, training is not `(epsilon, delta)`-private for any smaller
    /// one. Nothing is assumed of how the canaries' scores depend on each other (Steinke, Nasr and Jagielski 2023, corollary
    /// 5.4).
    ///
    /// # Errors
    /// `delta` or `confidence` is outside its range, or there are more right guesses than guesses, or more guesses than
    /// canaries.
    pub fn epsilon(&self, delta: f64, confidence: f64) -> Result<f64, Error> {
        validate(delta, confidence)?;
        validate_counts(self.right, self.made)?;
        validate_counts(self.made, self.canaries)?;
        let refuted = |epsilon: f64| self.chance(epsilon, delta) < 1.0 - confidence;
        Ok(last(0.0, MOST_EPSILON, refuted))
    }

    /// At most how probable so many right guesses are if training is `(epsilon, delta)`-private.
    ///
    /// Each guess is right as if by randomised response, with probability `e^epsilon / (1 + e^epsilon)`, but for `delta`:
    /// `P(B >= v) + 2 m delta max over i of P(v > B >= v - i) / i`, where `B` is the binomial number of right guesses.
    fn chance(&self, epsilon: f64, delta: f64) -> f64 {
        let by_response = Binomial { trials: self.made, success: 1.0 / (1.0 + exp(-epsilon)) };
        let mut below = 0.0;
        let mut most: f64 = 0.0;
        for i in 1..=self.right {
            below += by_response.mass(self.right - i);
            most = most.max(below / i as f64);
        }
        let failures = 2.0 * self.canaries as f64 * delta;
        (by_response.at_least(self.right) + failures * most).min(1.0)
    }
}

/// The two-sided interval of Clopper and Pearson (1934) for a probability that has shown itself `successes` times in `trials`
/// independent trials.
///
/// # Errors
/// `confidence` is outside `(0, 1)`, or there are more successes than trials.
pub fn interval(successes: u64, trials: u64, confidence: f64) -> Result<(f64, f64), Error> {
    validate(0.0, confidence)?;
    let error = 0.5 * (1.0 - confidence);
    Ok((at_least(successes, trials, error)?, at_most(successes, trials, error)?))
}

/// The largest probability for which so many successes or more are rarer than `error`.
fn at_least(successes: u64, trials: u64, error: f64) -> Result<f64, Error> {
    validate_counts(successes, trials)?;
    Ok(last(0.0, 1.0, |success| Binomial { trials, success }.at_least(successes) < error))
}

/// The smallest probability for which so few successes or less are rarer than `error`.
fn at_most(successes: u64, trials: u64, error: f64) -> Result<f64, Error> {
    validate_counts(successes, trials)?;
    at_least(trials - successes, trials, error).map(|failure| 1.0 - failure)
}

/// The end of the stretch from `low` on where a condition holds, found by bisection to the last bit and rounded down.
fn last(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return low;
        }
        if holds(middle) { low = middle } else { high = middle }
    }
}

fn validate(delta: f64, confidence: f64) -> Result<(), Error> {
    if !(0.0..1.0).contains(&delta) {
        return Err(Error::Delta(delta));
    }
    if confidence > 0.0 && confidence < 1.0 { Ok(()) } else { Err(Error::Confidence(confidence)) }
}

fn validate_counts(part: u64, whole: u64) -> Result<(), Error> {
    if part <= whole { Ok(()) } else { Err(Error::Counts { part, whole }) }
}

/// The number of successes in independent trials.
struct Binomial {
    trials: u64,
    success: f64,
}

impl Binomial {
    /// `P(B = k)`.
    fn mass(&self, k: u64) -> f64 {
        let (n, k) = (self.trials as f64, k as f64);
        let ways = lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0);
        // 0 log 0 is 0 here.
        let power = |count: f64, log: f64| if count == 0.0 { 0.0 } else { count * log };
        exp(ways + power(k, log(self.success)) + power(n - k, log1p(-self.success)))
    }

    /// `P(B >= k)`, by the smaller tail.
    fn at_least(&self, k: u64) -> f64 {
        if k as f64 > self.trials as f64 * self.success {
            (k..=self.trials).map(|k| self.mass(k)).sum()
        } else {
            1.0 - (0..k).map(|k| self.mass(k)).sum::<f64>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, by: f64) {
        assert!((found - expected).abs() < by, "{found} instead of {expected}");
    }

    #[test]
    fn intervals_are_those_of_clopper_and_pearson() {
        // The textbook's 10 of 100, and ends that have a closed form.
        let (low, high) = interval(10, 100, 0.95).unwrap();
        close(low, 0.049_004_69, 1e-8);
        close(high, 0.176_222_60, 1e-8);
        assert_eq!(interval(0, 10, 0.9).unwrap().0, 0.0);
        close(interval(0, 10, 0.9).unwrap().1, 1.0 - 0.05f64.powf(0.1), 1e-12);
        close(interval(10, 10, 0.9).unwrap().0, 0.05f64.powf(0.1), 1e-12);
        assert_eq!(interval(0, 0, 0.9), Ok((0.0, 1.0)));
    }

    #[test]
    fn bounds_of_one_run_are_the_published_ones() {
        // Steinke, Nasr and Jagielski 2023, appendix D and section 7, with as many digits as they print.
        let published = [
            (100, 100, 75, 0.0, 0.702),
            (100, 100, 75, 1e-4, 0.699),
            (1000, 100, 75, 1e-4, 0.673),
            (100_000, 1510, 1439, 1e-5, 2.675),
        ];
        for (canaries, made, right, delta, expected) in published {
            close(Guesses { canaries, made, right }.epsilon(delta, 0.95).unwrap(), expected, 1e-3);
        }
        close(Guesses { canaries: 100, made: 100, right: 75 }.chance(3.0f64.ln(), 0.0), 0.553, 1e-3);
    }

    #[test]
    fn without_delta_one_run_is_a_bound_on_how_often_guesses_are_right() {
        let right = at_least(900, 1000, 0.05).unwrap();
        let guesses = Guesses { canaries: 2000, made: 1000, right: 900 };
        close(guesses.epsilon(0.0, 0.95).unwrap(), log(right / (1.0 - right)), 1e-12);
    }

    #[test]
    fn attacks_that_never_fail_refute_what_their_number_allows() {
        let attack = Attack { members: 100, recognised: 100, others: 100, mistaken: 0 };
        let sure = 0.025f64.powf(0.01);
        close(attack.epsilon(0.0, 0.95).unwrap(), log(sure / (1.0 - sure)), 1e-9);
        close(attack.epsilon(0.1, 0.95).unwrap(), log((sure - 0.1) / (1.0 - sure)), 1e-9);
        let opposite = Attack { members: 1000, recognised: 900, others: 1000, mistaken: 600 };
        let (low, high) = (interval(900, 1000, 0.95).unwrap().0, interval(600, 1000, 0.95).unwrap().1);
        close(opposite.epsilon(0.0, 0.95).unwrap(), log((1.0 - high) / (1.0 - low)), 1e-12);
    }

    #[test]
    fn who_only_guesses_refutes_nothing() {
        assert_eq!(Attack { members: 500, recognised: 260, others: 500, mistaken: 250 }.epsilon(0.0, 0.95), Ok(0.0));
        assert_eq!(Guesses { canaries: 1000, made: 1000, right: 510 }.epsilon(1e-5, 0.95), Ok(0.0));
        assert_eq!(Guesses { canaries: 0, made: 0, right: 0 }.epsilon(1e-5, 0.95), Ok(0.0));
        assert_eq!(Attack { members: 0, recognised: 0, others: 0, mistaken: 0 }.epsilon(1e-5, 0.95), Ok(0.0));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let guesses = Guesses { canaries: 10, made: 11, right: 5 };
        assert_eq!(guesses.epsilon(0.0, 0.95), Err(Error::Counts { part: 11, whole: 10 }));
        assert_eq!(interval(1, 2, 1.0), Err(Error::Confidence(1.0)));
        assert!(matches!(interval(1, 2, f64::NAN), Err(Error::Confidence(_))));
        assert_eq!(Guesses { made: 10, ..guesses }.epsilon(1.0, 0.95), Err(Error::Delta(1.0)));
    }
}
