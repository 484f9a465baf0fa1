//! Privacy loss distributions: the whole distribution of the loss is composed, not a bound on it.
//!
//! For neighbouring data sets with output densities `P` and `Q` the loss at `x` is `log P(x)/Q(x)`, with `x` from `P`;
//! losses of successive steps add up, and `delta(epsilon) = P(loss infinite) + E[max(0, 1 - e^(epsilon - loss))]`
//! (Koskela, Jalko and Honkela 2020). [`discretise`] puts one step's loss on a grid such that the curve can only
//! rise; [`compose`] adds the steps up by Fourier transform and inverts the curve. Both directions, a record removed and
//! a record added, are accounted, and the worse one counts.

mod chernoff;
mod compose;
mod discretise;

use super::Mechanism;
use chernoff::Losses;
use compose::{Plan, Step};
use discretise::{Direction, discretise, loss_range};
use libm::log;
use std::thread;

/// The widest grid step, in epsilon.
const WIDEST_STEP: f64 = 1e-4;

/// Rise of epsilon that the grid may cause, as [`grid_step`] estimates it.
pub(super) const GRID_ERROR: f64 = 2e-6;

/// The same relative to epsilon, for tiny ones.
const RELATIVE_GRID_ERROR: f64 = 1e-4;

/// Masses below this share of delta may be moved to infinity.
const NEGLIGIBLE: f64 = 1e-7;

/// Grid points at most, of one step's loss and of a composition: they bound the time of a query.
const MOST_POINTS: f64 = (1 << 21) as f64;

/// Epsilon at `delta` of merged mechanisms with noise, raised by the grid by about `grid_error`, or a 10,000th of it if that is
/// less.
pub(super) fn epsilon(mechanisms: &[Mechanism], delta: f64, grid_error: f64) -> f64 {
    let negligible = NEGLIGIBLE * delta;
    let steps: f64 = mechanisms.iter().map(|mechanism| mechanism.steps as f64).sum();
    let per_step = negligible / steps;
    let losses = Losses::new(mechanisms, per_step);
    let (expected, outermost) = (losses.chernoff(delta), losses.chernoff(negligible));
    let tilt = 0.5 * expected.exponent;
    let widest = mechanisms.iter().map(|mechanism| width(mechanism, per_step)).fold(0.0, f64::max);
    let window = outermost.epsilon + log(1.0 / negligible) / tilt;
    let error = grid_error.min(RELATIVE_GRID_ERROR * expected.epsilon);
    let step = grid_step(error / (tilt * steps), widest.max(window), outermost.epsilon);
    let at = |step: f64| {
        let plan = Plan { step, tilt, outer_tilt: outermost.exponent, negligible, share: NEGLIGIBLE };
        both(|direction| {
            let composed: Vec<Step> = mechanisms
                .iter()
                .map(|mechanism| Step::new(discretise(mechanism, direction, step, per_step), mechanism.steps))
                .collect();
            compose::epsilon(&composed, &plan, delta)
        })
    };
    let found = at(step);
    let misled = found < 0.5 * expected.epsilon && RELATIVE_GRID_ERROR * found < error;
    if misled { refined(at, found, step, widest.max(window) / MOST_POINTS) } else { found }
}

/// The epsilon on finer grids than the one of `step`, until it settles or the grid has as many points as it may.
///
/// Chernoff's bound is far above an epsilon that is tiny since rare losses, which are not, fit into delta; a grid that is laid
/// after the bound is then too coarse. The error falls with the square of the step, so that of a quarter of the step
/// is a fifteenth of what it changed.
fn refined(at: impl Fn(f64) -> f64, mut found: f64, mut step: f64, finest: f64) -> f64 {
    while step > finest {
        step = (0.25 * step).max(finest);
        let finer = at(step);
        let change = found - finer;
        found = finer;
        if change <= 15.0 * RELATIVE_GRID_ERROR * finer {
            break;
        }
    }
    found
}

/// The larger result of the two directions, which are computed side by side if there is a thread to be had.
fn both(of: impl Fn(Direction) -> f64 + Sync) -> f64 {
    thread::scope(|scope| {
        let add = thread::Builder::new().spawn_scoped(scope, || of(Direction::Add));
        let remove = of(Direction::Remove);
        let add = add.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| of(Direction::Add));
        remove.max(add)
    })
}

fn width(mechanism: &Mechanism, tail: f64) -> f64 {
    let of = |direction| {
        let (low, high) = loss_range(mechanism, direction, tail);
        high - low
    };
    of(Direction::Remove).max(of(Direction::Add))
}

/// The grid step for a composition.
///
/// Splitting a loss between the ends of its cell adds a variance of about `h^2/6` per step, and a variance `v` raises
/// epsilon by about `lambda v / 2`, where `lambda` is the exponent at which Chernoff's bound is best: `lambda T h^2 / 12`
/// together. `relative_error` is the error allowed over `T lambda / 2`. Every step is valid, so this estimate decides about tightness only.
fn grid_step(relative_error: f64, widest: f64, outermost: f64) -> f64 {
    let accurate = (6.0 * relative_error).sqrt();
    // Where all losses are small, so must be the cells.
    accurate.min(WIDEST_STEP).min(outermost / 4096.0).max(widest / MOST_POINTS)
}
