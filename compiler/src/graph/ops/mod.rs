//! The table of operations: for each one, what it is called, when it applies and what it yields.
//!
//! An operation is defined in one place, as a type of the same name that implements [`Rule`]; [`rule`] leads from an
//! [`Op`] to it. The table below is matched exhaustively, so an operation without a row does not compile, and the page
//! `spec/graph.md` is printed from the same rows.

mod attention;
mod contraction;
mod elementwise;
mod leaf;
mod movement;
mod reduction;
mod scope;

pub(super) use attention::attention_products;

use super::{Graph, InterpretError, NodeId, Op, ShapeError, Tensor, TensorType, interpret::Moment};
use trainc_runtime::artifact::DType;

/// What people read about an operation.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// Name of the [`Op`] variant.
    pub name: &'static str,
    /// Operands, with the letters that the other columns use.
    pub operands: &'static str,
    /// Type of the result.
    pub result: &'static str,
    /// The value.
    pub meaning: &'static str,
    /// What flows back to the operands, for a gradient `g` of the result `y`.
    pub gradient: &'static str,
}

/// The definition of an operation.
pub(super) trait Rule {
    /// Type of the result for operands of these types.
    fn infer(&self, operands: &[&TensorType]) -> Result<TensorType, ShapeError>;

    /// Types of the further results, for operations with several.
    fn further_results(&self, _operands: &[&TensorType]) -> Vec<TensorType> {
        Vec::new()
    }

    /// The value, for operands of types that [`Rule::infer`] accepts. Operations that lead through or out of a scope
    /// are given the values of the instances that they depend on.
    fn evaluate(&self, operands: &[&Tensor], at: &Moment) -> Result<Tensor, InterpretError>;

    /// The value of a further result.
    fn further_value(&self, index: u32, _operands: &[&Tensor]) -> Result<Tensor, InterpretError> {
        Err(InterpretError(format!("no result {index}")))
    }

    /// Whether a gradient of the result can depend on this operand.
    fn passes_gradient(&self, _operand: usize) -> bool {
        true
    }

    /// Builds what flows back to an operand that passes a gradient. `None`: it is not known how.
    fn gradient(&self, _call: &mut Call, _operand: usize) -> Option<NodeId> {
        None
    }
}

/// A node whose gradient is being built.
pub(super) struct Call<'g> {
    /// Where to build.
    pub graph: &'g mut Graph,
    /// The node.
    pub node: NodeId,
    /// Its operands.
    pub operands: Vec<NodeId>,
    /// The gradient of the node.
    pub seed: NodeId,
}

impl Call<'_> {
    /// Type of an operand.
    fn ty(&self, operand: usize) -> TensorType {
        self.graph.node(self.operands[operand]).ty.clone()
    }

    /// `seed * factor`.
    fn seed_times(&mut self, factor: NodeId) -> NodeId {
        self.graph.product(self.seed, factor)
    }

    /// `-seed * factor`.
    fn minus_seed_times(&mut self, factor: NodeId) -> NodeId {
        let product = self.seed_times(factor);
        self.graph.negative(product)
    }
}

macro_rules! table {
    ($($module:ident $name:ident $(($inner:ident))? $({ $($field:ident),* })?;)*) => {
        /// The definition of an operation.
        pub(super) fn rule(op: &Op) -> Box<dyn Rule> {
            match op {
                $(Op::$name $(($inner))? $({ $($field,)* .. })? => {
                    Box::new($module::$name $(($inner.clone()))? $({ $($field: $field.clone()),* })?)
                })*
            }
        }

        /// What people read about all operations, in the order of the table.
        pub fn docs() -> Vec<Doc> {
            vec![$($module::$name::DOC),*]
        }

        /// Name of an operation, as in [`Op`].
        pub(super) fn name(op: &Op) -> &'static str {
            match op {
                $(Op::$name { .. } => stringify!($name)),*
            }
        }
    };
}

table! {
    leaf Constant { value, dtype };
    leaf Iota { axis, shape };
    leaf Input { index, ty };
    leaf Parameter { index, shape };
    leaf State { index, shape };
    leaf Control(field);
    leaf Random { generator, stream, shape };
    elementwise Unary(function);
    elementwise Binary(function);
    elementwise Select;
    elementwise ToFloat;
    elementwise ToInteger;
    elementwise StopGradient;
    movement Broadcast { axes, shape };
    movement Reshape { shape };
    movement Permute { axes };
    movement Slice { axis, start, length };
    movement Pad { axis, before, after };
    movement Concat { axis };
    movement Window { axis, size, stride };
    movement Unwindow { axis, stride, extent };
    movement Gather;
    movement Scatter { rows };
    reduction Reduce { kind, axes };
    contraction Contract(labels);
    scope Layer {};
    scope Carry {};
    scope Last;
    scope Stack { count };
    scope SumInstances;
    attention Attention(spec);
    attention AttentionBackward(spec);
    attention Project { index };
}

/// An error in words.
fn refuse<T>(message: impl Into<String>) -> Result<T, ShapeError> {
    Err(ShapeError(message.into()))
}

/// The operands, if there are `N` of them.
fn exactly<'a, const N: usize>(what: &str, operands: &[&'a TensorType]) -> Result<[&'a TensorType; N], ShapeError> {
    let operands: Result<[&TensorType; N], _> = operands.try_into();
    operands.map_err(|_| ShapeError(format!("{what} takes {N} operand{}", if N == 1 { "" } else { "s" })))
}

/// Refuses values that are not f32.
fn expect_float(what: &str, operand: &TensorType) -> Result<(), ShapeError> {
    match operand.dtype {
        DType::F32 => Ok(()),
        _ => refuse(format!("{what} needs f32, and this is {operand}")),
    }
}

/// Refuses values that are not i32.
fn expect_integer(what: &str, operand: &TensorType) -> Result<(), ShapeError> {
    match operand.dtype {
        DType::I32 => Ok(()),
        _ => refuse(format!("{what} needs i32, and this is {operand}")),
    }
}

/// Extent of an axis, if there is one.
fn extent(what: &str, operand: &TensorType, axis: usize) -> Result<u64, ShapeError> {
    match operand.shape.get(axis) {
        Some(&extent) => Ok(extent),
        None => refuse(format!("{what} along axis {axis}, but {operand} has {}", axes_of(operand))),
    }
}

/// `1 axis`, `3 axes`.
fn axes_of(ty: &TensorType) -> String {
    if ty.rank() == 1 { "1 axis".into() } else { format!("{} axes", ty.rank()) }
}

/// The type with another extent along an axis.
fn with_extent(ty: &TensorType, axis: usize, extent: u64) -> TensorType {
    let mut shape = ty.shape.clone();
    shape[axis] = extent;
    TensorType { dtype: ty.dtype, shape }
}

/// Refuses axes that do not ascend strictly or that are not axes of a shape of this rank.
fn expect_ascending(what: &str, axes: &[usize], rank: usize) -> Result<(), ShapeError> {
    if !axes.windows(2).all(|pair| pair[0] < pair[1]) {
        return refuse(format!("{what}: axes {axes:?} must ascend, each once"));
    }
    match axes.last() {
        Some(&last) if last >= rank => refuse(format!("{what}: axis {last} of a tensor of rank {rank}")),
        _ => Ok(()),
    }
}
