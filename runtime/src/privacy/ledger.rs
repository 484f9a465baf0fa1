//! What a run has spent.

use super::{Accountant, Mechanism, PrivacyError, epsilon, gaussian, pld, rdp};
use std::collections::BTreeMap;

/// Epsilon over the steps of a run. Between a few hundred points along the horizon the value of the next point is given, so
/// that a step costs nothing; it is never too small, and exact at the end.
pub struct Ledger {
    mechanism: Mechanism,
    delta: f64,
    accountant: Accountant,
    curve: Option<pld::Curve>,
    known: BTreeMap<u64, f64>,
}

/// Points along the horizon at which epsilon is computed.
const POINTS: u64 = 200;

impl Ledger {
    /// For a run of at most this mechanism's steps.
    ///
    /// # Errors
    /// For numbers that describe no mechanism.
    pub fn new(mechanism: Mechanism, delta: f64, accountant: Accountant) -> Result<Ledger, PrivacyError> {
        epsilon(&[Mechanism { steps: 0, ..mechanism }], delta, accountant)?;
        Ok(Ledger { mechanism, delta, accountant, curve: None, known: BTreeMap::new() })
    }

    /// Epsilon after this many steps.
    pub fn spent(&mut self, steps: u64) -> f64 {
        if steps == 0 {
            return 0.0;
        }
        let point = self.point(steps);
        if let Some(&known) = self.known.get(&point) {
            return known;
        }
        let spent = self.computed(point);
        self.known.insert(point, spent);
        spent
    }

    /// The first point that is not before a step.
    fn point(&self, steps: u64) -> u64 {
        let distance = self.mechanism.steps.div_ceil(POINTS).max(1);
        let next = steps.div_ceil(distance) * distance;
        if steps <= self.mechanism.steps { next.min(self.mechanism.steps) } else { steps }
    }

    fn computed(&mut self, steps: u64) -> f64 {
        let (mechanism, delta) = (Mechanism { steps, ..self.mechanism }, self.delta);
        if mechanism.noise_multiplier == 0.0 {
            return f64::INFINITY;
        }
        match self.accountant {
            Accountant::Rdp => rdp::epsilon(&[mechanism], delta).0,
            Accountant::Pld if mechanism.sampling_rate == 1.0 => gaussian::epsilon(gaussian::mu(&[mechanism]), delta),
            Accountant::Pld if steps > self.mechanism.steps => {
                pld::Curve::new(&[mechanism], delta, pld::COARSE).epsilon(delta)
            }
            Accountant::Pld => {
                let whole = self.mechanism;
                let curve = self.curve.get_or_insert_with(|| pld::Curve::new(&[whole], delta, pld::COARSE));
                curve.epsilon_after(steps, delta)
            }
        }
    }
}
