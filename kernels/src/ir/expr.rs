//! Scalar expressions over loop variables.

use super::{Binary, Index, Precision, Unary};
use serde::{Deserialize, Serialize};

/// An expression in an [`Exprs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExprId(pub u32);

/// A DAG of scalar expressions: operands come before their users, equal expressions are stored once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exprs {
    nodes: Vec<Expr>,
}

/// One scalar value, f32 unless it says i32.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expr {
    /// An f32 constant, as bits.
    Constant(u32),
    /// An i32 constant.
    Integer(i32),
    /// The value of an index expression, as i32.
    Position(Index),
    /// An element of a buffer: f32 (bf16 is widened) or i32 by the buffer's type. Where the guard is 0 nothing is read
    /// and the value is 0; without a guard the index is in bounds.
    Load {
        /// Which buffer.
        buffer: u32,
        /// Which element.
        index: Index,
        /// f32; load only where it is not 0.
        guard: Option<ExprId>,
    },
    /// A function of one f32.
    Unary(Unary, ExprId),
    /// A function of two f32 or (add, sub, mul, min, max and comparisons) two i32. Comparisons give f32 0 or 1.
    Binary(Binary, ExprId, ExprId),
    /// The second operand where the first (f32) is not 0, else the third. Both have one type.
    Select(ExprId, ExprId, ExprId),
    /// i32 to f32, nearest.
    ToFloat(ExprId),
    /// f32 to i32, toward zero.
    ToInteger(ExprId),
    /// A random draw in f32; see [`Draw`].
    Random(Draw),
    /// An accumulator of an earlier sweep, or the sum of a [`super::Gemm`].
    Accumulator(u32),
}

/// Where a draw comes from. A draw is a function of this, the stream, the step, the instance and the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Generator {
    /// [`trainc_runtime::philox`], keyed by the seed: who has the seed can repeat the draw.
    Philox,
    /// [`trainc_runtime::chacha`], keyed by the operating system: nobody can.
    ChaCha20 {
        /// Which of the 16 words of the element's block. Draws of one stream that differ in it share the block.
        word: u8,
    },
}

/// A uniform draw in `[0, 1)`: [`trainc_runtime::philox::Draw::uniform`] or [`trainc_runtime::chacha::Draw::uniform`] of the
/// given element, with seed, key and step from the control block and the instance of the launch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Draw {
    /// Which numbers.
    pub generator: Generator,
    /// The stream of the draw.
    pub stream: u32,
    /// The buffer (i32) that holds [`trainc_runtime::artifact::Control`]: 4 elements, for [`Generator::ChaCha20`] 12.
    pub control: u32,
    /// Which element of the draw, below 2^32.
    pub element: Index,
}

/// Rewrites an index, given where gathered expressions went.
pub(crate) type IndexRewrite<'a> = dyn FnMut(&Index, &mut dyn FnMut(ExprId) -> ExprId) -> Index + 'a;

impl Exprs {
    /// Adds an expression, or finds the equal one that is there. Its operands must be in this DAG already.
    pub fn add(&mut self, expr: Expr) -> ExprId {
        let found = self.nodes.iter().position(|node| *node == expr);
        let position = found.unwrap_or_else(|| {
            self.nodes.push(expr);
            self.nodes.len() - 1
        });
        ExprId(position as u32)
    }

    /// A factor of a product, as it is multiplied.
    pub fn rounded(&mut self, factor: ExprId, precision: Precision) -> ExprId {
        precision.rounding().map_or(factor, |rounding| self.add(Expr::Unary(rounding, factor)))
    }

    /// The expression with this id.
    pub fn get(&self, id: ExprId) -> &Expr {
        &self.nodes[id.0 as usize]
    }

    /// All expressions, operands first.
    pub fn iter(&self) -> impl Iterator<Item = (ExprId, &Expr)> {
        self.nodes.iter().enumerate().map(|(i, expr)| (ExprId(i as u32), expr))
    }

    /// The number of expressions.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no expression.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The operands of an expression, those inside its index included, in order.
    pub fn operands(&self, id: ExprId) -> Vec<ExprId> {
        match self.get(id) {
            Expr::Constant(_) | Expr::Integer(_) | Expr::Accumulator(_) => Vec::new(),
            Expr::Position(index) => index.values(),
            Expr::Random(draw) => draw.element.values(),
            Expr::Load { index, guard, .. } => guard.iter().copied().chain(index.values()).collect(),
            Expr::Unary(_, a) | Expr::ToFloat(a) | Expr::ToInteger(a) => vec![*a],
            Expr::Binary(_, a, b) => vec![*a, *b],
            Expr::Select(a, b, c) => vec![*a, *b, *c],
        }
    }

    /// The same DAG with every index rewritten; `rewrite` is also given where gathered expressions went. Returns where
    /// each expression went (two may become one).
    pub(crate) fn map_indices(&self, rewrite: &mut IndexRewrite) -> (Exprs, Vec<ExprId>) {
        let mut mapped = Exprs::default();
        let mut moved: Vec<ExprId> = Vec::with_capacity(self.len());
        for node in &self.nodes {
            let at = |id: &ExprId| moved[id.0 as usize];
            let mut index = |index: &Index| rewrite(index, &mut |id| at(&id));
            let node = match node {
                Expr::Constant(_) | Expr::Integer(_) | Expr::Accumulator(_) => node.clone(),
                Expr::Position(position) => Expr::Position(index(position)),
                Expr::Load { buffer, index: element, guard } => {
                    Expr::Load { buffer: *buffer, index: index(element), guard: guard.as_ref().map(at) }
                }
                Expr::Unary(function, a) => Expr::Unary(*function, at(a)),
                Expr::Binary(function, a, b) => Expr::Binary(*function, at(a), at(b)),
                Expr::Select(a, b, c) => Expr::Select(at(a), at(b), at(c)),
                Expr::ToFloat(a) => Expr::ToFloat(at(a)),
                Expr::ToInteger(a) => Expr::ToInteger(at(a)),
                Expr::Random(draw) => Expr::Random(Draw { element: index(&draw.element), ..draw.clone() }),
            };
            moved.push(mapped.add(node));
        }
        (mapped, moved)
    }

    /// The same DAG with each accumulator replaced by an expression without operands.
    pub(crate) fn with_accumulators(&self, expr: impl Fn(u32) -> Expr) -> Exprs {
        let replaced = |node: &Expr| match node {
            Expr::Accumulator(number) => expr(*number),
            node => node.clone(),
        };
        Exprs { nodes: self.nodes.iter().map(replaced).collect() }
    }

    /// The expressions that `roots` are made of, themselves included, operands first.
    pub fn reachable(&self, roots: &[ExprId]) -> Vec<ExprId> {
        let mut needed = vec![false; self.nodes.len()];
        roots.iter().for_each(|root| needed[root.0 as usize] = true);
        for id in (0..self.nodes.len()).rev() {
            if needed[id] {
                self.operands(ExprId(id as u32)).iter().for_each(|operand| needed[operand.0 as usize] = true);
            }
        }
        (0..self.nodes.len()).filter(|&id| needed[id]).map(|id| ExprId(id as u32)).collect()
    }

    /// Whether the value may change with loop variable `var` (accumulators count as independent of it).
    pub fn depends_on(&self, id: ExprId, var: u32) -> bool {
        let mut depends: Vec<bool> = Vec::with_capacity(id.0 as usize + 1);
        for node in (0..=id.0).map(ExprId) {
            let own = match self.get(node) {
                Expr::Position(index) | Expr::Load { index, .. } => index.mentions(var),
                Expr::Random(draw) => draw.element.mentions(var),
                _ => false,
            };
            depends.push(own || self.operands(node).iter().any(|operand| depends[operand.0 as usize]));
        }
        depends[id.0 as usize]
    }

    /// An f32 constant.
    pub fn constant(&mut self, value: f32) -> ExprId {
        self.add(Expr::Constant(value.to_bits()))
    }

    /// An unguarded load.
    pub fn load(&mut self, buffer: u32, index: Index) -> ExprId {
        self.add(Expr::Load { buffer, index, guard: None })
    }
}
