//! Long sums.
//!
//! Additions in f32 one after the other make a sum of n equal terms wrong by up to n / 2^26 of its value: while the sum stays
//! within a binade, each addition rounds by the same amount, of at most half a unit in the last place. So additions follow
//! each other [`CHAIN`] at a time, and the sums of such pieces are added with their rounding errors ([`Running`]). A sum of any
//! length is then wrong by what one piece is, 2e-6, at the cost of one piece's end in [`CHAIN`] additions.

use super::builder::{Builder, Compare, Value};

/// Additions that follow each other without a correction, at most.
pub(crate) const CHAIN: u64 = 128;

/// A sum under way: what additions have made of it, and the sum of what they rounded off.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    pub sum: Value,
    pub error: Value,
}

impl Running {
    /// Of nothing, in vectors of so many lanes.
    pub fn zero(b: &mut Builder, lanes: u32) -> Running {
        let zero = b.float(lanes, 0.0);
        Running { sum: zero, error: zero }
    }

    /// With one more term. The error of an addition is a float itself (Knuth, The Art of Computer Programming 2, 4.2.2,
    /// theorem B).
    pub fn plus(self, b: &mut Builder, term: Value) -> Running {
        let sum = b.add(self.sum, term);
        let added = b.sub(sum, self.sum);
        let kept = b.sub(sum, added);
        let (lost, missing) = (b.sub(self.sum, kept), b.sub(term, added));
        let rounded = b.add(lost, missing);
        Running { sum, error: b.add(self.error, rounded) }
    }

    /// The corrected sum; where it is infinite or NaN, that.
    pub fn total(self, b: &mut Builder) -> Value {
        let corrected = b.add(self.sum, self.error);
        let is_finite = b.compare(Compare::Equal, self.error, self.error);
        b.select(is_finite, corrected, self.sum)
    }
}

/// Where loops are cut so that pieces have at most [`CHAIN`] steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Which loop, from the outside.
    pub dim: usize,
    /// Iterations of it in a piece.
    pub piece: u64,
}

impl Cut {
    /// The cut of nested loops of so many steps; `None` if all of them together are short.
    pub fn of(steps: &[u64]) -> Option<Cut> {
        let mut within = 1u64;
        for (dim, &count) in steps.iter().enumerate().rev() {
            if within.saturating_mul(count) > CHAIN {
                return Some(Cut { dim, piece: CHAIN / within });
            }
            within *= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_long_as_they_may_be() {
        assert_eq!(Cut::of(&[]), None);
        assert_eq!(Cut::of(&[CHAIN]), None);
        assert_eq!(Cut::of(&[CHAIN + 1]), Some(Cut { dim: 0, piece: CHAIN }));
        assert_eq!(Cut::of(&[1 << 20, 60]), Some(Cut { dim: 0, piece: 2 }));
        assert_eq!(Cut::of(&[3, 100, 2]), Some(Cut { dim: 1, piece: CHAIN / 2 }));
        assert_eq!(Cut::of(&[3, 2, 500]), Some(Cut { dim: 2, piece: CHAIN }));
    }
}
