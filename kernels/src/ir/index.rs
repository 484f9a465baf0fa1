//! Integer expressions that say which element an iteration touches.
//!
//! The constructors keep every index in one canonical form: a sum of distinct atoms (variables, quotients, remainders,
//! gathered values), each times a constant, in a fixed order. Two ways to write the same affine index are therefore
//! equal, and quotients and remainders disappear wherever the extents of the loop variables prove that they can.

use super::{ExprId, Exprs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An integer expression over loop variables. Values are never negative where they address memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Index {
    /// A number.
    Constant(i64),
    /// A loop variable.
    Var(u32),
    /// Sum.
    Add(Box<Index>, Box<Index>),
    /// Product with a constant.
    Mul(Box<Index>, i64),
    /// Quotient by a positive constant, of a value that is not negative.
    Div(Box<Index>, i64),
    /// Remainder by a positive constant, of a value that is not negative.
    Mod(Box<Index>, i64),
    /// The value of an i32 expression (a gather).
    Value(ExprId),
}

/// A sum `constant + Σ coefficient · atom`, atoms being variables, quotients, remainders and gathered values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    constant: i64,
    terms: BTreeMap<Index, i64>,
}

/// The constructors. They take factors and extents, so they are named methods, not operators. `extents` are those of all loop variables, by number; a variable beyond them counts as unbounded.
#[allow(clippy::should_implement_trait)]
impl Index {
    /// A number.
    pub fn constant(value: i64) -> Index {
        Index::Constant(value)
    }

    /// A loop variable.
    pub fn var(number: u32) -> Index {
        Index::Var(number)
    }

    /// `Σ stride · var`.
    pub fn linear(terms: impl IntoIterator<Item = (u32, i64)>) -> Index {
        let mut sum = Sum::default();
        terms.into_iter().for_each(|(var, stride)| sum.insert(Index::Var(var), stride));
        sum.build()
    }

    /// The row-major position in an array of these dims, indexed by the consecutive variables from `first` on.
    pub fn row_major(first: u32, dims: &[u64]) -> Index {
        let mut stride = 1;
        let mut terms = Vec::with_capacity(dims.len());
        for (axis, &dim) in dims.iter().enumerate().rev() {
            terms.push((first + axis as u32, stride));
            stride *= dim as i64;
        }
        Index::linear(terms)
    }

    /// `self + other`.
    pub fn add(self, other: Index) -> Index {
        Sum::of(&self).plus(&Sum::of(&other), 1).build()
    }

    /// `self · factor`.
    pub fn mul(self, factor: i64) -> Index {
        Sum::default().plus(&Sum::of(&self), factor).build()
    }

    /// `self / divisor`, rounded down; `self` is not negative and `divisor` positive.
    pub fn div(self, divisor: i64, extents: &[u64]) -> Index {
        assert!(divisor > 0, "index divided by {divisor}");
        Sum::of(&self).div(divisor, extents).build()
    }

    /// `self mod divisor`; `self` is not negative and `divisor` positive.
    pub fn mod_(self, divisor: i64, extents: &[u64]) -> Index {
        assert!(divisor > 0, "index modulo {divisor}");
        Sum::of(&self).modulo(divisor, extents).build()
    }
}

/// Analysis and rewriting.
impl Index {
    /// Smallest and largest value over the loop domain (a gathered value may be any i32).
    pub fn range(&self, extents: &[u64]) -> (i64, i64) {
        match self {
            Index::Constant(value) => (*value, *value),
            Index::Var(number) => (0, extents.get(*number as usize).map_or(UNBOUNDED, |&extent| extent as i64 - 1)),
            Index::Add(a, b) => {
                let (a, b) = (a.range(extents), b.range(extents));
                (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
            }
            Index::Mul(a, factor) => scaled(a.range(extents), *factor),
            Index::Div(a, divisor) => {
                let (low, high) = a.range(extents);
                (low.div_euclid(*divisor), high.div_euclid(*divisor))
            }
            Index::Mod(a, divisor) => (0, a.range(extents).1.clamp(0, divisor - 1)),
            Index::Value(_) => (i32::MIN.into(), i32::MAX.into()),
        }
    }

    /// By how much the index grows when `var` grows by one, if that is the same everywhere. `None` where the variable
    /// occurs under a quotient, a remainder or a gather.
    pub fn stride_of(&self, var: u32, exprs: &Exprs) -> Option<i64> {
        let mut stride = 0;
        for (atom, coefficient) in &Sum::of(self).terms {
            match atom {
                Index::Var(number) if *number == var => stride += coefficient,
                atom if atom.depends_on(var, exprs) => return None,
                _ => {}
            }
        }
        Some(stride)
    }

    /// Whether the value may change with `var`.
    pub fn depends_on(&self, var: u32, exprs: &Exprs) -> bool {
        self.mentions(var) || self.values().into_iter().any(|id| exprs.depends_on(id, var))
    }

    /// Whether `var` occurs outside gathered expressions.
    pub fn mentions(&self, var: u32) -> bool {
        match self {
            Index::Constant(_) | Index::Value(_) => false,
            Index::Var(number) => *number == var,
            Index::Add(a, b) => a.mentions(var) || b.mentions(var),
            Index::Mul(a, _) | Index::Div(a, _) | Index::Mod(a, _) => a.mentions(var),
        }
    }

    /// The index with each variable replaced by `var(number)` and each gathered expression by `value(id)`, simplified
    /// for the `extents` of the new variables.
    pub fn substitute(
        &self,
        extents: &[u64],
        var: &mut dyn FnMut(u32) -> Index,
        value: &mut dyn FnMut(ExprId) -> ExprId,
    ) -> Index {
        match self {
            Index::Constant(_) => self.clone(),
            Index::Var(number) => var(*number),
            Index::Add(a, b) => a.substitute(extents, var, value).add(b.substitute(extents, var, value)),
            Index::Mul(a, factor) => a.substitute(extents, var, value).mul(*factor),
            Index::Div(a, divisor) => a.substitute(extents, var, value).div(*divisor, extents),
            Index::Mod(a, divisor) => a.substitute(extents, var, value).mod_(*divisor, extents),
            Index::Value(id) => Index::Value(value(*id)),
        }
    }

    /// The value at one point of the loop domain.
    pub fn evaluate(&self, vars: &[u64], value: &mut dyn FnMut(ExprId) -> i64) -> i64 {
        match self {
            Index::Constant(constant) => *constant,
            Index::Var(number) => vars[*number as usize] as i64,
            Index::Add(a, b) => a.evaluate(vars, value) + b.evaluate(vars, value),
            Index::Mul(a, factor) => a.evaluate(vars, value) * factor,
            Index::Div(a, divisor) => a.evaluate(vars, value).div_euclid(*divisor),
            Index::Mod(a, divisor) => a.evaluate(vars, value).rem_euclid(*divisor),
            Index::Value(id) => value(*id),
        }
    }

    /// The index without the terms that are gathered values themselves.
    pub(crate) fn without_values(&self) -> Index {
        let mut sum = Sum::of(self);
        sum.terms.retain(|atom, _| !matches!(atom, Index::Value(_)));
        sum.build()
    }

    /// The gathered expressions inside.
    pub fn values(&self) -> Vec<ExprId> {
        match self {
            Index::Constant(_) | Index::Var(_) => Vec::new(),
            Index::Add(a, b) => [a.values(), b.values()].concat(),
            Index::Mul(a, _) | Index::Div(a, _) | Index::Mod(a, _) => a.values(),
            Index::Value(id) => vec![*id],
        }
    }
}

/// Stands for the largest value of a variable whose extent is not known; far above any array, far below overflow.
const UNBOUNDED: i64 = 1 << 40;

fn scaled((low, high): (i64, i64), factor: i64) -> (i64, i64) {
    let (a, b) = (low.saturating_mul(factor), high.saturating_mul(factor));
    (a.min(b), a.max(b))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

impl Sum {
    fn of(index: &Index) -> Sum {
        let mut sum = Sum::default();
        sum.collect(index, 1);
        sum
    }

    fn collect(&mut self, index: &Index, factor: i64) {
        match index {
            Index::Constant(value) => self.constant += value * factor,
            Index::Add(a, b) => {
                self.collect(a, factor);
                self.collect(b, factor);
            }
            Index::Mul(a, inner) => self.collect(a, factor * inner),
            atom => self.insert(atom.clone(), factor),
        }
    }

    fn insert(&mut self, atom: Index, coefficient: i64) {
        let total = self.terms.get(&atom).copied().unwrap_or(0) + coefficient;
        if total == 0 {
            self.terms.remove(&atom);
        } else {
            self.terms.insert(atom, total);
        }
    }

    fn plus(mut self, other: &Sum, factor: i64) -> Sum {
        self.constant += other.constant * factor;
        other.terms.iter().for_each(|(atom, coefficient)| self.insert(atom.clone(), coefficient * factor));
        self
    }

    fn atom(atom: Index) -> Sum {
        Sum { constant: 0, terms: BTreeMap::from([(atom, 1)]) }
    }

    fn range(&self, extents: &[u64]) -> (i64, i64) {
        self.terms.iter().fold((self.constant, self.constant), |(low, high), (atom, coefficient)| {
            let (a, b) = scaled(atom.range(extents), *coefficient);
            (low.saturating_add(a), high.saturating_add(b))
        })
    }

    fn within(&self, low: i64, high: i64, extents: &[u64]) -> bool {
        let range = self.range(extents);
        range.0 >= low && range.1 <= high
    }

    /// Splits into `multiple · a + b` by the coefficients that `multiple` divides; `None` if `b` could be negative.
    fn split(&self, multiple: i64, extents: &[u64]) -> Option<(Sum, Sum)> {
        let (mut whole, mut rest) = (Sum::default(), Sum::default());
        whole.constant = self.constant.div_euclid(multiple);
        rest.constant = self.constant.rem_euclid(multiple);
        for (atom, coefficient) in &self.terms {
            if coefficient % multiple == 0 {
                whole.insert(atom.clone(), coefficient / multiple);
            } else {
                rest.insert(atom.clone(), *coefficient);
            }
        }
        (rest.range(extents).0 >= 0).then_some((whole, rest))
    }

    /// `grain > 1` dividing `divisor` such that `self = grain · a + b` with `0 <= b < grain`.
    fn grain(&self, divisor: i64, extents: &[u64]) -> Option<(i64, Sum, Sum)> {
        let mut grains: Vec<i64> = self.terms.values().map(|&coefficient| gcd(coefficient, divisor)).collect();
        grains.sort_unstable();
        grains.dedup();
        grains.into_iter().rev().filter(|&grain| grain > 1).find_map(|grain| {
            let (whole, rest) = self.split(grain, extents)?;
            rest.within(0, grain - 1, extents).then_some((grain, whole, rest))
        })
    }

    fn div(&self, divisor: i64, extents: &[u64]) -> Sum {
        if divisor == 1 {
            return self.clone();
        }
        let Some((whole, rest)) = self.split(divisor, extents) else {
            return Sum::atom(Index::Div(Box::new(self.build()), divisor));
        };
        whole.plus(&rest.div_small(divisor, extents), 1)
    }

    /// [`Sum::div`] where no coefficient is a multiple of the divisor any more.
    fn div_small(&self, divisor: i64, extents: &[u64]) -> Sum {
        if self.within(0, divisor - 1, extents) {
            return Sum::default();
        }
        if let Some((grain, whole, _)) = self.grain(divisor, extents) {
            return whole.div(divisor / grain, extents);
        }
        match self.build() {
            Index::Div(inner, first) => Sum::of(&inner).div(first * divisor, extents),
            Index::Mod(inner, modulus) if modulus % divisor == 0 => {
                Sum::of(&inner).div(divisor, extents).modulo(modulus / divisor, extents)
            }
            index => Sum::atom(Index::Div(Box::new(index), divisor)),
        }
    }

    fn modulo(&self, divisor: i64, extents: &[u64]) -> Sum {
        if divisor == 1 {
            return Sum::default();
        }
        let Some((_, rest)) = self.split(divisor, extents) else {
            return Sum::atom(Index::Mod(Box::new(self.build()), divisor));
        };
        rest.modulo_small(divisor, extents)
    }

    /// [`Sum::modulo`] where no coefficient is a multiple of the divisor any more.
    fn modulo_small(&self, divisor: i64, extents: &[u64]) -> Sum {
        if self.within(0, divisor - 1, extents) {
            return self.clone();
        }
        if let Some((grain, whole, rest)) = self.grain(divisor, extents) {
            return rest.plus(&whole.modulo(divisor / grain, extents), grain);
        }
        match self.build() {
            Index::Mod(inner, modulus) if modulus % divisor == 0 => Sum::of(&inner).modulo(divisor, extents),
            index => Sum::atom(Index::Mod(Box::new(index), divisor)),
        }
    }

    /// Puts `c·d·(x / d) + c·(x mod d)` together again as `c·x`.
    fn recombine(&mut self) {
        let remainders: Vec<Index> = self.terms.keys().filter(|atom| matches!(atom, Index::Mod(..))).cloned().collect();
        for remainder in remainders {
            let Index::Mod(inner, divisor) = &remainder else { continue };
            let Some(&coefficient) = self.terms.get(&remainder) else { continue };
            let quotient = Sum::of(inner).div(*divisor, &[]);
            let [(atom, 1)] = quotient.terms.iter().map(|(a, &c)| (a, c)).collect::<Vec<_>>()[..] else { continue };
            if quotient.constant == 0 && self.terms.get(atom) == Some(&(coefficient * divisor)) {
                self.terms.remove(&remainder);
                self.terms.remove(atom);
                *self = std::mem::take(self).plus(&Sum::of(inner), coefficient);
            }
        }
    }

    fn build(&self) -> Index {
        let mut sum = self.clone();
        sum.recombine();
        let products = sum.terms.into_iter().map(|(atom, coefficient)| match coefficient {
            1 => atom,
            _ => Index::Mul(Box::new(atom), coefficient),
        });
        let constant = (sum.constant != 0).then_some(Index::Constant(sum.constant));
        products
            .chain(constant)
            .reduce(|left, right| Index::Add(Box::new(left), Box::new(right)))
            .unwrap_or(Index::Constant(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotients_and_remainders_of_row_major_positions_disappear() {
        let extents = [4, 6, 8];
        let flat = Index::row_major(0, &extents);
        assert_eq!(flat.clone().div(48, &extents), Index::var(0));
        assert_eq!(flat.clone().div(8, &extents).mod_(6, &extents), Index::var(1));
        assert_eq!(flat.clone().mod_(8, &extents), Index::var(2));
        assert_eq!(flat.clone().div(4, &extents).mod_(2, &extents), Index::var(2).div(4, &extents));
    }

    #[test]
    fn a_split_that_is_not_used_is_undone() {
        let extents = [100];
        let x = Index::var(0);
        let rebuilt = x.clone().div(7, &extents).mul(7).add(x.clone().mod_(7, &extents));
        assert_eq!(rebuilt, x);
    }

    #[test]
    fn strides_are_those_of_affine_variables_only() {
        let exprs = Exprs::default();
        let index = Index::linear([(0, 12), (1, -3)]).add(Index::var(2).div(4, &[9, 9, 9]));
        assert_eq!(index.stride_of(0, &exprs), Some(12));
        assert_eq!(index.stride_of(1, &exprs), Some(-3));
        assert_eq!(index.stride_of(2, &exprs), None);
        assert_eq!(index.stride_of(3, &exprs), Some(0));
    }

    /// A random index that is not negative, and the same one built without simplification.
    fn pairs() -> impl Strategy<Value = (Index, Index)> {
        let leaf = prop_oneof![
            (0i64..20).prop_map(|c| (Index::Constant(c), Index::Constant(c))),
            (0u32..3).prop_map(|v| (Index::Var(v), Index::Var(v))),
        ];
        leaf.prop_recursive(5, 24, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone())
                    .prop_map(|(a, b)| (a.0.add(b.0), Index::Add(Box::new(a.1), Box::new(b.1)))),
                (inner.clone(), 0i64..13).prop_map(|(a, c)| (a.0.mul(c), Index::Mul(Box::new(a.1), c))),
                (inner.clone(), 1i64..13).prop_map(|(a, c)| (a.0.div(c, &EXTENTS), Index::Div(Box::new(a.1), c))),
                (inner, 1i64..13).prop_map(|(a, c)| (a.0.mod_(c, &EXTENTS), Index::Mod(Box::new(a.1), c))),
            ]
        })
    }

    const EXTENTS: [u64; 3] = [4, 5, 6];

    proptest! {
        #[test]
        fn simplification_never_changes_a_value((simple, plain) in pairs()) {
            let range = simple.range(&EXTENTS);
            for position in 0..120u64 {
                let vars = [position / 30, position / 6 % 5, position % 6];
                let value = plain.evaluate(&vars, &mut |_| 0);
                prop_assert_eq!(simple.evaluate(&vars, &mut |_| 0), value);
                prop_assert!(range.0 <= value && value <= range.1);
            }
        }

        #[test]
        fn substitution_by_itself_changes_nothing((simple, _) in pairs()) {
            let again = simple.substitute(&EXTENTS, &mut Index::Var, &mut |id| id);
            for position in 0..120u64 {
                let vars = [position / 30, position / 6 % 5, position % 6];
                prop_assert_eq!(again.evaluate(&vars, &mut |_| 0), simple.evaluate(&vars, &mut |_| 0));
            }
        }
    }
}
