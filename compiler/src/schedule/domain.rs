//! The loops that the values of one kernel share.

use super::{
    coords,
    dag::{Dag, Id, Node},
    select::{Sides, class},
};
use crate::graph::{Class, Op};
use trainc_kernels::ir::Index;

/// Fewest rows over which element-wise work of long rows may be spread.
const MIN_ROWS: u64 = 32;
/// Rows of up to this many elements may be few.
const SHORT_ROW: u64 = 1 << 16;

/// The shape that a kernel's iterations walk, and which of its axes remain after its reductions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub shape: Vec<u64>,
    pub kept: Vec<bool>,
}

/// Where a value lives in a domain with reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// An element for each point.
    Full,
    /// An element for each point of the kept axes.
    Row,
}

impl Domain {
    /// The domain of a node that is computed alone.
    pub fn of(dag: &Dag, id: Id) -> Domain {
        let node = &dag.nodes[id];
        if class(dag, id) != Class::Reduction {
            return Domain { shape: node.shape.clone(), kept: vec![true; node.shape.len()] };
        }
        match &node.op {
            Op::Reduce { axes, .. } => {
                let shape = dag.nodes[node.operands[0]].shape.clone();
                let kept = (0..shape.len()).map(|axis| !axes.contains(&axis)).collect();
                Domain { shape, kept }
            }
            Op::Contract(contraction) => {
                let sides = Sides::of(dag, id, contraction);
                let summed = sides.k.iter().map(|label| sides.extents[label]);
                let kept = [vec![true; node.shape.len()], vec![false; sides.k.len()]].concat();
                Domain { shape: node.shape.iter().copied().chain(summed).collect(), kept }
            }
            op => unreachable!("not a reduction: {op:?}"),
        }
    }

    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of points of the kept axes.
    pub fn rows(&self) -> u64 {
        self.axes(true).iter().map(|&axis| self.shape[axis]).product()
    }

    /// Whether something is reduced.
    pub fn reduces(&self) -> bool {
        self.kept.contains(&false)
    }

    fn axes(&self, kept: bool) -> Vec<usize> {
        (0..self.shape.len()).filter(|&axis| self.kept[axis] == kept).collect()
    }

    /// Extents of the kept or of the reduced axes.
    pub fn extents(&self, kept: bool) -> Vec<u64> {
        self.axes(kept).iter().map(|&axis| self.shape[axis]).collect()
    }

    /// Extents of the loop variables: those of kept axes, then those of reduced ones.
    pub fn loops(&self) -> Vec<u64> {
        [self.extents(true), self.extents(false)].concat()
    }

    /// The loop variables of the kept or of the reduced axes.
    pub fn vars(&self, kept: bool) -> Vec<Index> {
        let rank = self.axes(true).len() as u32;
        let range = if kept { 0..rank } else { rank..self.shape.len() as u32 };
        range.map(Index::var).collect()
    }

    /// The coordinates of an iteration in the whole shape.
    pub fn point(&self) -> Vec<Index> {
        let (mut kept, mut reduced) = (self.vars(true).into_iter(), self.vars(false).into_iter());
        self.kept
            .iter()
            .map(|&is_kept| if is_kept { kept.next() } else { reduced.next() }.expect("a variable per axis"))
            .collect()
    }

    /// Where a value that is not a reduction lives.
    pub fn level(&self, node: &Node) -> Option<Level> {
        match node.elements() {
            elements if elements == self.elements() => Some(Level::Full),
            elements if elements == self.rows() => Some(Level::Row),
            _ => None,
        }
    }

    /// The coordinates of a value that an iteration computes.
    pub fn coords(&self, shape: &[u64], level: Level) -> Vec<Index> {
        let loops = self.loops();
        match level {
            Level::Full => coords::reshape(&self.point(), &self.shape, shape, &loops),
            Level::Row => coords::reshape(&self.vars(true), &self.extents(true), shape, &loops),
        }
    }

    /// The reduced coordinates in other extents of the same product.
    pub fn reduced_coords(&self, extents: &[u64]) -> Vec<Index> {
        coords::reshape(&self.vars(false), &self.extents(false), extents, &self.loops())
    }

    /// Runs of kept and of reduced axes, by number of elements.
    fn pattern(&self) -> Vec<(bool, u64)> {
        let mut pattern: Vec<(bool, u64)> = Vec::new();
        for (&extent, &kept) in self.shape.iter().zip(&self.kept).filter(|(extent, _)| **extent != 1) {
            match pattern.last_mut() {
                Some((last, run)) if *last == kept => *run *= extent,
                _ => pattern.push((kept, extent)),
            }
        }
        pattern
    }

    /// Whether the innermost axis is reduced, so that a row lies together in memory.
    fn is_row_wise(&self) -> bool {
        self.pattern().last().is_none_or(|(kept, _)| !kept)
    }

    /// The domain of a kernel for the values of both, if one kernel would do.
    pub fn unify(&self, other: &Domain) -> Option<Domain> {
        match (self.reduces(), other.reduces()) {
            (false, false) => (self.elements() == other.elements()).then(|| self.finer(other).clone()),
            (true, true) => (self.pattern() == other.pattern()).then(|| self.finer(other).clone()),
            (true, false) => self.takes(other).then(|| self.clone()),
            (false, true) => other.takes(self).then(|| other.clone()),
        }
    }

    /// Of two equal domains the one that tells more axes apart.
    fn finer<'a>(&'a self, other: &'a Domain) -> &'a Domain {
        if other.shape.len() > self.shape.len() { other } else { self }
    }

    /// Whether element-wise work over `other` may join these reductions.
    fn takes(&self, other: &Domain) -> bool {
        // The first axis does not count: it may be the depth of a stacked tensor, which must not decide about kernels.
        let rows: u64 = self.extents(true).iter().skip(1).product();
        let few_long_rows = rows < MIN_ROWS && self.elements() / self.rows() > SHORT_ROW;
        let full = other.elements() == self.elements() && self.is_row_wise() && !few_long_rows;
        full || other.elements() == self.rows()
    }
}
