//! The table of operations: for each one, what it is called, when it applies and what it yields.
//!
//! An operation is defined in one place, as a type of the same name that implements [`Rule`]; [`rule`] leads from an
//! [`Op`] to it. The table below is matched exhaustively, so an operation without a row does not compile. Behind the arrow
//! of a row stand its [`Facts`]; the page `spec/graph.md` is printed from the same rows.

mod attention;
mod contraction;
mod elementwise;
mod leaf;
mod movement;
mod reduction;
mod scope;

pub(super) use attention::attention_products;

use super::{
    Graph, InterpretError, NodeId, Op, ShapeError, Tensor, TensorType,
    facts::{Arithmetic, Class, Facts, Moves, Traffic},
    interpret::Moment,
};
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
    ($($module:ident $name:ident $(($inner:ident))? $({ $($field:ident),* })? => $facts:expr;)*) => {
        /// The definition of an operation.
        pub(super) fn rule(op: &Op) -> Box<dyn Rule> {
            match op {
                $(Op::$name $(($inner))? $({ $($field,)* .. })? => {
                    Box::new($module::$name $(($inner.clone()))? $({ $($field: $field.clone()),* })?)
                })*
            }
        }

        /// What is true of an operation wherever it occurs.
        #[allow(unused_variables, reason = "few rows depend on attributes")]
        pub(super) fn facts(op: &Op) -> Facts {
            match op {
                $(Op::$name $(($inner))? $({ $($field,)* .. })? => $facts,)*
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
    leaf Constant { value, dtype } => Facts::SOURCE;
    leaf Iota { axis, shape } => Facts::SOURCE;
    leaf Input { index, ty } => Facts::BUFFER;
    leaf Parameter { index, shape } => Facts::BUFFER;
    leaf State { index, shape } => Facts::BUFFER;
    leaf Control(field) => Facts::SOURCE;
    leaf Random { generator, stream, shape } => Facts { operations: leaf::draw(*generator), ..Facts::SOURCE };
    elementwise Unary(function) => elementwise::unary_facts(*function);
    elementwise Binary(function) => elementwise::binary_facts(*function);
    elementwise Select => Facts { moves: Moves::Chosen, ..Facts::element(1) };
    elementwise ToFloat => Facts::element(1);
    elementwise ToInteger => Facts::element(1);
    elementwise StopGradient => Facts::MAP;
    movement Broadcast { axes, shape } => Facts::MAP;
    movement Reshape { shape } => Facts::MAP;
    movement Permute { axes } => Facts::MOVE;
    movement Slice { axis, start, length } => Facts::MOVE;
    movement Pad { axis, before, after } => Facts::picked(1, Moves::All);
    movement Concat { axis } => Facts { traffic: Traffic::Stored, ..Facts::picked(1, Moves::Joined) };
    movement Window { axis, size, stride } => Facts::MOVE;
    movement Unwindow { axis, stride, extent } => Facts { arithmetic: Arithmetic::Operand(0), ..Facts::element(3) };
    movement Gather => Facts { traffic: Traffic::Stored, ..Facts::picked(1, Moves::First) };
    movement Scatter { rows } => Facts::kernel(Class::Scatter, Arithmetic::Operand(1));
    reduction Reduce { kind, axes } => reduction::facts(*kind);
    contraction Contract(labels) => Facts { operations: 1, ..Facts::kernel(Class::Product, Arithmetic::Contraction) };
    scope Layer {} => Facts::BUFFER;
    scope Carry {} => Facts::BUFFER;
    scope Last => Facts::BUFFER;
    scope Stack { count } => Facts::BUFFER;
    scope SumInstances => Facts { arithmetic: Arithmetic::Instances, ..Facts::BUFFER };
    attention Attention(spec) => Facts::kernel(Class::Attention, Arithmetic::Attention(2));
    attention AttentionBackward(spec) => Facts::kernel(Class::Attention, Arithmetic::Attention(4));
    attention Project { index } => Facts::BUFFER;
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
