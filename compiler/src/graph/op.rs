//! The operations. Each carries all that its result's type depends on besides its operands' types.

use super::{Real, ScopeId, ShapeError, TensorType, ops};
use trainc_kernels::ir::{Binary, Generator, Precision, ReduceKind, Unary};
use trainc_runtime::artifact::DType;

/// An operation of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// A scalar constant.
    Constant {
        /// The number.
        value: Real,
        /// f32 or i32.
        dtype: DType,
    },
    /// i32 tensor whose value is the index along an axis.
    Iota {
        /// The axis.
        axis: usize,
        /// The shape.
        shape: Vec<u64>,
    },
    /// A model input (index into [`crate::program::Program::inputs`]).
    Input {
        /// Which.
        index: u32,
        /// Its type in this graph (evaluation may use another batch size).
        ty: TensorType,
    },
    /// A parameter at the start of the step (index into [`crate::program::Program::parameters`]).
    Parameter {
        /// Which.
        index: u32,
        /// Its whole shape, stacked if it belongs to a repeat.
        shape: Vec<u64>,
    },
    /// A state at the start of the step (index into [`crate::program::Program::states`]).
    State {
        /// Which.
        index: u32,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A number that the host sets for each step: i32 scalar.
    Control(ControlField),
    /// Uniform draws in `[0, 1)`, keyed by (seed or key, stream, step, instance of the scope, element).
    Random {
        /// Whether the seed or the operating system's key decides.
        generator: Generator,
        /// The stream; never two nodes with one stream unless they are the same draw, or other words of one block.
        stream: u32,
        /// The shape.
        shape: Vec<u64>,
        /// The scope that it is drawn in.
        scope: ScopeId,
    },

    /// A function of each element.
    Unary(Unary),
    /// A function of two elements; operands have one shape. Comparisons of f32 or i32 give f32 0 or 1.
    Binary(Binary),
    /// The second operand where the first is not 0, else the third; all of one shape.
    Select,
    /// i32 to f32.
    ToFloat,
    /// f32 to i32, toward zero. Not differentiable.
    ToInteger,
    /// The operand, through which no gradient flows.
    StopGradient,

    /// Copies along new or stretched axes: operand axis i becomes axis `axes[i]` of `shape` and has its extent there;
    /// the other axes of `shape` are new. `axes` ascends.
    Broadcast {
        /// Where the operand's axes go.
        axes: Vec<usize>,
        /// The result's shape.
        shape: Vec<u64>,
    },
    /// The same elements in row-major order under another shape.
    Reshape {
        /// The result's shape.
        shape: Vec<u64>,
    },
    /// Result axis i is operand axis `axes[i]`.
    Permute {
        /// The permutation.
        axes: Vec<usize>,
    },
    /// Elements `start, start + 1, ...` along an axis.
    Slice {
        /// The axis.
        axis: usize,
        /// First element.
        start: u64,
        /// How many.
        length: u64,
    },
    /// Zeros before and after along an axis.
    Pad {
        /// The axis.
        axis: usize,
        /// Zeros before.
        before: u64,
        /// Zeros after.
        after: u64,
    },
    /// Operands one after the other along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Sliding windows: axis of extent n becomes two axes (m, size), m = (n - size) / stride + 1, with
    /// `y[.., i, p, ..] = x[.., i * stride + p, ..]`.
    Window {
        /// The axis.
        axis: usize,
        /// Extent of a window.
        size: u64,
        /// Distance between windows.
        stride: u64,
    },
    /// Adjoint of [`Op::Window`]: axes (m, size) at `axis` become one of `extent`, overlapping elements summed.
    Unwindow {
        /// The first of the two axes.
        axis: usize,
        /// Distance between windows.
        stride: u64,
        /// Extent of the result's axis.
        extent: u64,
    },
    /// Rows of a table: (table `[v, ...r]`, ids i32 `[...a]`) -> `[...a, ...r]`.
    Gather,
    /// Adjoint of [`Op::Gather`]: (ids i32 `[...a]`, updates `[...a, ...r]`) -> `[rows, ...r]`, summed in order of ids.
    Scatter {
        /// Number of rows of the result.
        rows: u64,
    },

    /// Reduction over some axes (ascending), which vanish. ArgMax gives the i32 row-major position within them.
    Reduce {
        /// How.
        kind: ReduceKind,
        /// Which axes.
        axes: Vec<usize>,
    },
    /// Sum of products over shared labels: an einsum of two operands.
    Contract(Contraction),

    /// In instance i of `scope`: slice i along the first axis of a root tensor `[count, ...]`.
    Layer {
        /// The scope.
        scope: ScopeId,
    },
    /// What an instance receives; operand: the initial value. See [`super::Carry`].
    Carry {
        /// The scope.
        scope: ScopeId,
        /// Position in [`super::Scope::carries`].
        index: u32,
    },
    /// The `next` of a carry after the last instance; operand: the [`Op::Carry`] node.
    Last,
    /// All instances of a scope's value, stacked along a new first axis.
    Stack {
        /// Number of instances.
        count: u64,
    },
    /// Sum of a scope's value over the instances.
    SumInstances,

    /// Softmax attention; operands q `[b, h, t, e]`, k and v `[b, g, s, e]` with g dividing h. Results: o `[b, h, t, e]`
    /// and (by [`Op::Project`] 1) the log-sum-exp of the scaled scores `[b, h, t]`. Made by rewriting alone.
    Attention(AttentionSpec),
    /// Its gradient; operands q, k, v, o, lse, do. Results: dq, (1) dk, (2) dv. Made by rewriting alone.
    AttentionBackward(AttentionSpec),
    /// A further result of an operation with several; number 0 is the node itself.
    Project {
        /// Which result, from 1.
        index: u32,
    },
}

/// Numbers that the host sets for each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ControlField {
    /// Updates done so far, 0 in the first step.
    Step,
    /// The horizon.
    Steps,
}

/// Labels of the axes of an einsum. A label is a small number; within one operand all labels differ. Every label of
/// `out` occurs in an operand; a label of both operands that is not in `out` is summed. A label of one operand alone must be in `out`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Contraction {
    /// Labels of the left operand's axes.
    pub lhs: Vec<u8>,
    /// Labels of the right operand's axes.
    pub rhs: Vec<u8>,
    /// Labels of the result's axes.
    pub out: Vec<u8>,
    /// Rounding of the operands.
    pub precision: Precision,
}

/// Mask and scale of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttentionSpec {
    /// Factor on the scores.
    pub scale: Real,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Rounding of the factors.
    pub precision: Precision,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mask {
    /// All.
    Full,
    /// Those not after it.
    Causal,
    /// Those not after it and less than this many positions before.
    Window(u64),
}

impl Op {
    /// An f32 constant.
    pub fn constant(value: f64) -> Op {
        Op::Constant { value: value.into(), dtype: DType::F32 }
    }

    /// Type of the result for operands of these types (of the first one, for operations with several).
    ///
    /// # Errors
    /// In words, if the operation does not apply. [`Op::Project`] alone has no type without the operation that it
    /// projects: see [`Op::results`].
    pub fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError> {
        let ty = ops::rule(self).infer(operands)?;
        ty.check()?;
        Ok(ty)
    }

    /// Types of all results for operands of these types; [`Op::Project`] `index` of this operation has type `[index]`.
    ///
    /// # Errors
    /// As [`Op::infer`].
    pub fn results(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, ShapeError> {
        let first = self.infer(operands)?;
        Ok(std::iter::once(first).chain(ops::rule(self).further_results(operands)).collect())
    }

    /// Name of the variant.
    pub fn name(&self) -> &'static str {
        ops::name(self)
    }
}
