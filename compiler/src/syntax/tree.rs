//! The syntax tree. Every node knows where it stands; nothing here knows what a name means.

use crate::source::Span;

/// An identifier where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The identifier.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// One source file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// The items in source order.
    pub items: Vec<Item>,
}

/// What can stand at the top of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `use std` or `use "path/to/file.train"`.
    Use(Use),
    /// `const width = 384`.
    Const(Const),
    /// `model`, `layer`, `function`, `optimizer`, `filter` or `schedule`.
    Definition(Definition),
    /// `data Name { clauses }`.
    Data(ClauseBlock),
    /// `train { clauses }`.
    Train(ClauseBlock),
}

/// An import.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    /// `std`, or the path in quotes (without them).
    pub path: String,
    /// The whole item.
    pub span: Span,
}

/// A named constant; `--set name=value` overrides it.
#[derive(Clone, Debug, PartialEq)]
pub struct Const {
    /// The name.
    pub name: Name,
    /// The value.
    pub value: Expr,
}

/// What a definition defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefinitionKind {
    /// A network with inputs and outputs.
    Model,
    /// A part of a network; owns parameters.
    Layer,
    /// A computation without parameters: activations, masks, losses, metrics.
    Function,
    /// A rule that moves a parameter.
    Optimizer,
    /// A rule that changes a gradient before the optimizer sees it.
    Filter,
    /// A number for each step.
    Schedule,
}

/// `layer name[axes](parameters) -> [dims] role r { body }`, or `= expression` in place of the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Which keyword it starts with.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: Name,
    /// Axis parameters: `function softmax[s](x) ...` is called as `softmax[t](scores[b, t])`.
    pub axes: Vec<Name>,
    /// Value parameters.
    pub parameters: Vec<Parameter>,
    /// `-> [b, t, d]`.
    pub result: Option<Vec<Dim>>,
    /// `role norms`: parameters created inside have this role.
    pub roles: Vec<Name>,
    /// The statements; for the `= expression` form a single [`Statement::Result`].
    pub body: Vec<Statement>,
    /// Whether it was written `= expression`.
    pub short: bool,
    /// The whole definition.
    pub span: Span,
}

impl Definition {
    /// The same definition with only the parameters that are no tensors: those that a clause of `train` can give.
    pub fn without_tensors(&self) -> Definition {
        let plain = self.parameters.iter().filter(|parameter| parameter.tensor.is_none());
        Definition { parameters: plain.cloned().collect(), ..self.clone() }
    }
}

/// A parameter of a definition: `x: [b, t, d]`, `targets: int[b, t]`, `heads`, `eps = 1e-8`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// For tensors: element kind and dims, which bind the dims' names.
    pub tensor: Option<TensorType>,
    /// The default.
    pub default: Option<Expr>,
}

/// `[b, t, d]` or `int[batch, context]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorType {
    /// Whether elements are integers.
    pub integer: bool,
    /// The dims.
    pub dims: Vec<Dim>,
    /// Where.
    pub span: Span,
}

/// An entry of a shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Dim {
    /// `..`: any number of leading dims.
    Rest(Span),
    /// A name or an arithmetic expression over dims: `d`, `d / heads`, `4 * width`.
    Size(Expr),
}

/// A statement in a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `input tokens: int[batch, context]`.
    Input {
        /// Its name.
        name: Name,
        /// Its type.
        tensor: TensorType,
    },
    /// `param qkv: [3, heads, d / heads | d] ~ normal(0.02) role attention`. The bar splits output dims from input
    /// dims and makes the matrix view that matrix optimizers see; without it, the last dim alone is the input.
    Param {
        /// Its name.
        name: Name,
        /// The dims.
        dims: Vec<Dim>,
        /// How many dims stand before the bar.
        split: Option<usize>,
        /// The initial value: `~ distribution(...)`, or `= number`.
        init: Expr,
        /// Further roles.
        roles: Vec<Name>,
        /// The whole statement.
        span: Span,
    },
    /// `state m = 0` in an optimizer or a filter: shaped like the parameter, unless dims are given
    /// (`state rows: [m] = 0`). `state s[n] = 0` declares a list of n states.
    State {
        /// Its name.
        name: Name,
        /// How many, if it is a list.
        count: Option<Expr>,
        /// The dims, where they differ from the parameter's.
        dims: Option<Vec<Dim>>,
        /// The initial value.
        init: Expr,
    },
    /// `x = ...` or `q, k, v = ...`.
    Assign {
        /// The names.
        targets: Vec<Name>,
        /// The value.
        value: Expr,
    },
    /// `m <- ...`, `s[k] <- ...`: the new value of a parameter, a state or a gradient.
    Update {
        /// What is updated.
        target: Name,
        /// Which of a list of states.
        position: Option<Expr>,
        /// The new value.
        value: Expr,
    },
    /// `repeat depth { ... }` or `repeat depth as block { ... }`: every name assigned inside that existed before is
    /// carried from one iteration to the next.
    Repeat {
        /// How often.
        count: Expr,
        /// Path component of the parameters inside (default `block`).
        name: Option<Name>,
        /// The body.
        body: Vec<Statement>,
        /// The whole statement.
        span: Span,
    },
    /// `output logits = ...`.
    Output {
        /// Its name.
        name: Name,
        /// The value.
        value: Expr,
    },
    /// `sample c * gradient(p + d) + (1 - c) * gradient(p)` in a filter: where the gradient is taken.
    Sample {
        /// A sum of gradients.
        value: Expr,
        /// The whole statement.
        span: Span,
    },
    /// `update` in a filter: here the optimizer moves the parameter.
    Optimize(Span),
    /// `require kappa > 0, "kappa must be positive"`: what must hold while compiling.
    Require {
        /// The condition.
        condition: Expr,
        /// What is said if it does not hold: a text.
        message: Expr,
        /// The whole statement.
        span: Span,
    },
    /// The last expression of a body: its result.
    Result(Expr),
}

/// An expression where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// Expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number with its unit: `2`, `2%`, `500 steps`, `20M tokens`, `3 epochs`, `0.5x`, `500 MB`.
    Number(Number),
    /// Text in double quotes.
    Text(String),
    /// A name, possibly dotted: `adamw`, `block.attention`.
    Name(String),
    /// `f(a, b = c)` or `softmax[s](x)`.
    Call {
        /// What is called.
        callee: Name,
        /// `[s]` in `softmax[s](x)`, `sum[h, e](...)`.
        axes: Vec<Name>,
        /// The arguments.
        arguments: Vec<Argument>,
    },
    /// `x[b, t, d]`, `x[.., d]`, `image[b, c, i + p - 1, j + q - 1]`, `pairs[b, 0]`.
    Index {
        /// What is indexed.
        base: Box<Expr>,
        /// The entries.
        entries: Vec<IndexEntry>,
    },
    /// `value -> [c, b, h, t, e]`: the order of the free indices.
    Arrange {
        /// An expression with free indices.
        value: Box<Expr>,
        /// The order.
        axes: Vec<IndexEntry>,
    },
    /// `-x`, `not x`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `if c then a else b`, element by element where c is a tensor.
    If {
        /// The condition.
        condition: Box<Expr>,
        /// Where it holds.
        then: Box<Expr>,
        /// Where it does not.
        otherwise: Box<Expr>,
    },
    /// `(a, b)`.
    Tuple(Vec<Expr>),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `(a)`; kept so that the formatter prints what was written.
    Group(Box<Expr>),
    /// Stands where the parser could not read an expression and has said so.
    Missing,
}

/// A number as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// The value, suffixes (`k`, `M`, `G`) applied, unit not applied: `2%` is 2.
    pub value: f64,
    /// The digits and suffix as written, for the formatter.
    pub written: String,
    /// The unit.
    pub unit: Unit,
}

/// Units of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// A bare number.
    None,
    /// `%`, of whatever the place says (of the horizon, of the data).
    Percent,
    /// `x`, times the inherited value.
    Times,
    /// `steps` (or `step`).
    Steps,
    /// `tokens` (or `token`).
    Tokens,
    /// `samples` (or `sample`).
    Samples,
    /// `epochs` (or `epoch`).
    Epochs,
    /// `KB`, `MB`, `GB`: 10^3, 10^6, 10^9 bytes. The value is in bytes.
    Bytes,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// `heads` in `heads = 6`.
    pub name: Option<Name>,
    /// The value.
    pub value: Expr,
}

/// An entry between the brackets of an index.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexEntry {
    /// `..`.
    Rest(Span),
    /// An index variable, an affine expression of some, or a number.
    Position(Expr),
}

/// Operators on one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// Operators on two values, loosest first: `or`, `and`, comparisons, `+ -`, `* /`, `^`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `^`, to the right
    Pow,
}

/// `data Name { ... }` or `train { ... }`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClauseBlock {
    /// The name of a data block.
    pub name: Option<Name>,
    /// What it says.
    pub clauses: Vec<Clause>,
    /// The whole block.
    pub span: Span,
}

/// One clause: a keyword, words, and perhaps a block: `steps 2000`, `split valid = 5%`, `evaluate every 200`,
/// `group norms, biases { weight_decay = 0 }`, `grow { depth 1 -> 12 at 80% }`.
///
/// A clause starts at the start of a line, or within a line at a word that the enclosing block knows as a keyword, and
/// goes on to the end of the line (or past it inside brackets).
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// The keyword; any identifier, so that a misspelt one can be named.
    pub keyword: Name,
    /// What follows it.
    pub words: Vec<Word>,
    /// The block.
    pub block: Option<Vec<Clause>>,
    /// The whole clause.
    pub span: Span,
}

/// A word of a clause.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// An expression: a number, a name, text, a call.
    Value(Expr),
    /// `name = value`.
    Setting(Name, Expr),
    /// `,`, `->` (as `'>'`), `|` or `:` between words; `=` as the first word of a clause that is a setting
    /// (`weight_decay = 0` has the keyword `weight_decay`).
    Mark(char, Span),
}
