//! Splitting loops so that addresses become affine.
//!
//! A reshape between the loops' shape and a buffer's shows up as quotients and remainders of loop variables. Where a
//! variable is divided by a factor of its extent, cutting its loop in two makes both disappear.

use trainc_kernels::ir::{Draw, Expr, ExprId, Exprs, Index, Store};

/// No kernel needs more cuts; each removes a quotient.
const MAX_SPLITS: usize = 16;

/// Loops in groups, outer first, with all that is indexed by their variables (numbered through the groups).
#[derive(Clone, Debug)]
pub(super) struct Loops {
    pub groups: Vec<Vec<u64>>,
    pub exprs: Exprs,
    pub stores: Vec<Store>,
    /// Further expressions that are referred to from outside: factors, reductions.
    pub roots: Vec<ExprId>,
}

impl Loops {
    /// Splits loops until no variable alone is divided by a factor of its extent.
    pub fn refine(&mut self) {
        for _ in 0..MAX_SPLITS {
            let extents = self.groups.concat();
            let indices = self.indices();
            let Some((var, factor)) = indices.iter().filter_map(|index| split(index, &extents)).min() else { return };
            self.split(var, factor);
        }
    }

    fn indices(&self) -> Vec<&Index> {
        let of_exprs = self.exprs.iter().filter_map(|(_, expr)| match expr {
            Expr::Position(index) | Expr::Load { index, .. } => Some(index),
            Expr::Random(draw) => Some(&draw.element),
            _ => None,
        });
        of_exprs.chain(self.stores.iter().map(|store| &store.index)).collect()
    }

    /// Makes the loop of `var` two, the inner one of extent `factor`.
    fn split(&mut self, var: u32, factor: u64) {
        let (mut group, mut place) = (0, var as usize);
        while place >= self.groups[group].len() {
            place -= self.groups[group].len();
            group += 1;
        }
        self.groups[group][place] /= factor;
        self.groups[group].insert(place + 1, factor);
        let extents = self.groups.concat();
        self.rewrite(&extents, &mut |old| match old {
            old if old < var => Index::var(old),
            old if old == var => Index::linear([(var, factor as i64), (var + 1, 1)]),
            old => Index::var(old + 1),
        });
    }

    fn rewrite(&mut self, extents: &[u64], rename: &mut dyn FnMut(u32) -> Index) {
        let (exprs, moved) = renamed(&self.exprs, extents, rename);
        self.exprs = exprs;
        let at = |id: ExprId| moved[id.0 as usize];
        for store in &mut self.stores {
            store.index = store.index.substitute(extents, rename, &mut |id| at(id));
            store.value = at(store.value);
        }
        self.roots.iter_mut().for_each(|root| *root = at(*root));
    }
}

/// The expressions under other loop variables, and where each went.
fn renamed(exprs: &Exprs, extents: &[u64], rename: &mut dyn FnMut(u32) -> Index) -> (Exprs, Vec<ExprId>) {
    let mut result = Exprs::default();
    let mut moved: Vec<ExprId> = Vec::new();
    for (_, expr) in exprs.iter() {
        let at = |id: &ExprId| moved[id.0 as usize];
        let mut map = |index: &Index| index.substitute(extents, rename, &mut |id| at(&id));
        let expr = match expr {
            Expr::Position(index) => Expr::Position(map(index)),
            Expr::Load { buffer, index, guard } => {
                Expr::Load { buffer: *buffer, index: map(index), guard: guard.as_ref().map(at) }
            }
            Expr::Random(draw) => Expr::Random(Draw { element: map(&draw.element), ..draw.clone() }),
            Expr::Unary(function, a) => Expr::Unary(*function, at(a)),
            Expr::Binary(function, a, b) => Expr::Binary(*function, at(a), at(b)),
            Expr::Select(a, b, c) => Expr::Select(at(a), at(b), at(c)),
            Expr::ToFloat(a) => Expr::ToFloat(at(a)),
            Expr::ToInteger(a) => Expr::ToInteger(at(a)),
            Expr::Constant(_) | Expr::Integer(_) | Expr::Accumulator(_) => expr.clone(),
        };
        moved.push(result.add(expr));
    }
    (result, moved)
}

/// A loop to split: a variable that is divided as it is by a proper factor of its extent.
fn split(index: &Index, extents: &[u64]) -> Option<(u32, u64)> {
    match index {
        Index::Constant(_) | Index::Var(_) | Index::Value(_) => None,
        Index::Add(a, b) => split(a, extents).into_iter().chain(split(b, extents)).min(),
        Index::Mul(a, _) => split(a, extents),
        Index::Div(a, divisor) | Index::Mod(a, divisor) => match **a {
            Index::Var(var) => {
                let (extent, divisor) = (extents[var as usize], *divisor as u64);
                (divisor < extent && extent.is_multiple_of(divisor)).then_some((var, divisor))
            }
            _ => split(a, extents),
        },
    }
}

/// Whether splitting loops makes an index a sum of strides.
pub(super) fn is_affine_when_split(index: &Index, extents: &[u64]) -> bool {
    let store = Store { buffer: 0, index: index.clone(), value: ExprId(0), accumulate: false };
    let mut loops =
        Loops { groups: vec![extents.to_vec()], exprs: Exprs::default(), stores: vec![store], roots: Vec::new() };
    if !index.values().is_empty() {
        return false;
    }
    loops.exprs.constant(0.0);
    loops.refine();
    let index = &loops.stores[0].index;
    (0..loops.groups[0].len() as u32).all(|var| index.stride_of(var, &loops.exprs).is_some())
}
