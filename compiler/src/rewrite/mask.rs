//! What is known of values that depend on indices alone: constants, affine functions of the indices, and masks whose
//! borders are affine. Attention masks are recognised by what they are, not by how they are written.

use super::language::{Fact, Symbol};
use crate::graph::{self, Op, TensorType};
use std::collections::BTreeMap;
use trainc_kernels::ir::{Binary, Unary};

/// An integer function `sum_i coefficient_i * index_i + constant` of an element's indices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Affine {
    /// Axis to coefficient; none is 0.
    pub coefficients: BTreeMap<usize, i64>,
    /// The constant.
    pub constant: i64,
}

/// The elements where all of these functions are at most 0; all elements if there are none. Sorted, without repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mask(pub Vec<Affine>);

impl Affine {
    fn constant(constant: i64) -> Self {
        Self { coefficients: BTreeMap::new(), constant }
    }

    fn index(axis: usize) -> Self {
        Self { coefficients: BTreeMap::from([(axis, 1)]), constant: 0 }
    }

    /// `self + factor * other`.
    fn plus(&self, factor: i64, other: &Self) -> Self {
        let mut sum = self.clone();
        for (&axis, &coefficient) in &other.coefficients {
            *sum.coefficients.entry(axis).or_default() += factor * coefficient;
        }
        sum.coefficients.retain(|_, coefficient| *coefficient != 0);
        sum.constant += factor * other.constant;
        sum
    }

    /// The same function where axis i is called `axes[i]`.
    fn moved(&self, axes: impl Fn(usize) -> usize) -> Self {
        let coefficients = self.coefficients.iter().map(|(&axis, &c)| (axes(axis), c)).collect();
        Self { coefficients, constant: self.constant }
    }
}

impl Mask {
    /// Where both hold.
    fn and(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).cloned())
    }

    fn new(borders: impl IntoIterator<Item = Affine>) -> Self {
        let mut borders: Vec<Affine> = borders.into_iter().collect();
        borders.sort();
        borders.dedup();
        Self(borders)
    }

    fn moved(&self, axes: impl Fn(usize) -> usize + Copy) -> Self {
        Self::new(self.0.iter().map(|border| border.moved(axes)))
    }

    /// The axes that the mask depends on.
    pub fn axes(&self) -> Vec<usize> {
        let mut axes: Vec<usize> = self.0.iter().flat_map(|border| border.coefficients.keys().copied()).collect();
        axes.sort_unstable();
        axes.dedup();
        axes
    }
}

/// The one value of all elements, where known.
pub fn uniform(symbol: &Symbol, operands: &[&Fact]) -> Option<f64> {
    match symbol {
        Symbol::Op(Op::Constant { value, .. }) => Some(value.get()),
        Symbol::Op(op) if moves_elements(op) => operands[0].uniform,
        _ => None,
    }
}

/// Whether every element of the result is one of the operand's.
fn moves_elements(op: &Op) -> bool {
    matches!(op, Op::Broadcast { .. } | Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. })
}

/// The value as an affine function of indices. In f32 this holds below 2^24, which bounds what is inferred.
pub fn affine(symbol: &Symbol, operands: &[&Fact], ty: &TensorType) -> Option<Affine> {
    let Symbol::Op(op) = symbol else { return None };
    if ty.shape.iter().any(|&extent| extent >= 1 << 24) {
        return None;
    }
    let operand = |i: usize| operands[i].affine.as_ref();
    match op {
        Op::Constant { value, .. } => whole(value.get()).map(Affine::constant),
        Op::Iota { axis, .. } => Some(Affine::index(*axis)),
        Op::Broadcast { axes, .. } => Some(operand(0)?.moved(|axis| axes[axis])),
        Op::Permute { axes } => Some(operand(0)?.moved(|axis| place(axes, axis))),
        Op::ToFloat => operand(0).cloned(),
        Op::Unary(Unary::Neg) => Some(Affine::default().plus(-1, operand(0)?)),
        Op::Binary(Binary::Add) => Some(operand(0)?.plus(1, operand(1)?)),
        Op::Binary(Binary::Sub) => Some(operand(0)?.plus(-1, operand(1)?)),
        _ => None,
    }
}

fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < f64::from(1 << 24)).then_some(value as i64)
}

fn place(axes: &[usize], axis: usize) -> usize {
    axes.iter().position(|&a| a == axis).unwrap_or_else(|| panic!("internal: axis {axis} not in {axes:?}"))
}

/// Where a value of 0 and 1 is 1.
pub fn mask(symbol: &Symbol, operands: &[&Fact]) -> Option<Mask> {
    let Symbol::Op(op) = symbol else { return None };
    let border = |strict: i64| {
        let (left, right) = (operands[0].affine.as_ref()?, operands[1].affine.as_ref()?);
        let difference = left.plus(-1, right).plus(strict, &Affine::constant(1));
        (!difference.coefficients.is_empty()).then(|| Mask::new([difference]))
    };
    match op {
        Op::Binary(Binary::LessEqual) => border(0),
        Op::Binary(Binary::Less) => border(1),
        Op::Binary(Binary::Mul | Binary::Min) => Some(operands[0].mask.as_ref()?.and(operands[1].mask.as_ref()?)),
        Op::Select if operands[2].uniform == Some(0.0) => selected(operands),
        Op::Broadcast { axes, .. } => Some(operands[0].mask.as_ref()?.moved(|axis| axes[axis])),
        Op::Permute { axes } => Some(operands[0].mask.as_ref()?.moved(|axis| place(axes, axis))),
        _ => None,
    }
}

/// `where(a, b, 0)` of masks.
fn selected(operands: &[&Fact]) -> Option<Mask> {
    let condition = operands[0].mask.as_ref()?;
    match operands[1].uniform {
        Some(1.0) => Some(condition.clone()),
        _ => Some(condition.and(operands[1].mask.as_ref()?)),
    }
}

/// Whether a value is so low that softmax gives it no weight: `exp` of anything that far below another score is 0 in
/// f32 and far below rounding in f64.
pub fn is_excluded(value: f64) -> bool {
    value <= -1e9
}

impl Mask {
    /// This mask as one of attention's, for scores whose axis `keys` counts keys; with the axis that counts queries.
    /// `None` if it is another, or if some query may see no key at all: the softmax of nothing is not defined.
    pub fn of_attention(&self, keys: usize, shape: &[u64]) -> Option<(graph::Mask, usize)> {
        let axes = self.axes();
        let &[a, b] = axes.as_slice() else { return None };
        let queries = if a == keys { b } else { a };
        if a != keys && b != keys || shape[queries] != shape[keys] {
            return None;
        }
        let after = Affine::index(keys).plus(-1, &Affine::index(queries));
        let rest: Vec<&Affine> = self.0.iter().filter(|border| **border != after).collect();
        match rest.as_slice() {
            _ if rest.len() == self.0.len() => None,
            [] => Some((graph::Mask::Causal, queries)),
            [border] => {
                let before = border.plus(1, &after);
                let width = before.coefficients.is_empty().then_some(1 - before.constant)?;
                (width >= 1).then_some((graph::Mask::Window(width as u64), queries))
            }
            _ => None,
        }
    }
}
