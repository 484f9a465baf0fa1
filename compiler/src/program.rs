//! A checked program: what the checker hands to the rest of the compiler.

use crate::{diagnostic::Diagnostic, graph::Graph, source::Span};
use trainc_kernels::ir::Precision;
use trainc_runtime::artifact::{DType, DataSpec, Duration, Init, PrivateSpec};

/// A program that has passed all checks, as dataflow graphs over one set of parameters, states and inputs.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name of the model.
    pub name: String,
    /// All parameters, in order of creation. [`crate::graph::Op::Parameter`] counts into this.
    pub parameters: Vec<Parameter>,
    /// All optimizer and method state. [`crate::graph::Op::State`] counts into this.
    pub states: Vec<State>,
    /// All inputs. [`crate::graph::Op::Input`] counts into this.
    pub inputs: Vec<Input>,
    /// One update: forward, backward, optimizer. Reports `loss`, `grad_norm`, `rate` and metrics.
    pub step: Graph,
    /// Clipped sums of samples that do not fit the physical batch of their step; `None` if every step is one batch. Reports
    /// `loss`.
    pub accumulate: Option<Graph>,
    /// Forward on held-out data, dropout off. Reports what each sample adds to totals, and those of `loss` and metrics that
    /// only a batch has. `None` without held-out data.
    pub evaluate: Option<Graph>,
    /// The other reports, from the totals of all batches; see [`crate::graph::split`].
    pub conclude: Option<Graph>,
    /// Logits `[context, vocab]` of one sequence, as report `logits`. `None` if the model does not predict next tokens.
    pub generate: Option<Graph>,
    /// Where batches come from; `None` if the embedder feeds them.
    pub data: Option<DataSpec>,
    /// The guarantee of private training.
    pub private: Option<PrivateSpec>,
    /// The `train` block's numbers.
    pub train: TrainSettings,
    /// Findings that are not errors.
    pub warnings: Vec<Diagnostic>,
}

/// A tensor that training moves (or that is frozen).
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Unique path, e.g. `block.attention.qkv`.
    pub name: String,
    /// Whole shape; the first axis counts instances if `stacked`.
    pub shape: Vec<u64>,
    /// Whether it belongs to a `repeat`.
    pub stacked: bool,
    /// Number of dims, after the stacking one, that are outputs of the matrix view (the rest are inputs).
    pub split: usize,
    /// Roles by which groups select it, sorted.
    pub roles: Vec<String>,
    /// Initial value.
    pub init: Init,
    /// Whether the optimizer moves it.
    pub trainable: bool,
    /// Where it is declared.
    pub span: Span,
}

/// A tensor of the optimizer's (or a method's) own.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Unique path, e.g. `adamw.m.block.attention.qkv`.
    pub name: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Initial value.
    pub init: Init,
}

/// What a step is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// `tokens`, or `next(tokens)`.
    pub name: String,
    /// Field of a record.
    pub field: String,
    /// Positions ahead in the record.
    pub shift: u64,
    /// f32 or i32.
    pub dtype: DType,
    /// Exclusive bound of valid integers.
    pub below: Option<u64>,
    /// Who writes it.
    pub kind: InputKind,
}

/// Who writes an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A field of the data's records.
    Field,
    /// The host, which says for each row whether it counts.
    Mask,
    /// The host, which has counted the records that totals are of.
    Records,
    /// The host, which has added up a total, by its number.
    Total(usize),
}

/// Numbers of the `train` block.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// The horizon.
    pub steps: Duration,
    /// Samples per step.
    pub batch: u64,
    /// Rounding of matrix products.
    pub precision: Precision,
    /// Seed of all draws.
    pub seed: u64,
    /// Evaluate so often; 0 steps: at the end only.
    pub evaluate_every: Duration,
    /// Batches per evaluation; `None`: all that are held out.
    pub evaluate_batches: Option<u32>,
    /// Save so often; 0 steps: at the end only.
    pub checkpoint_every: Duration,
    /// Checkpoints kept.
    pub keep: u32,
    /// Arena budget in bytes, with the place that asks for it.
    pub memory: Option<(u64, Span)>,
    /// Tokens or samples per step.
    pub items_per_step: u64,
    /// `tokens` or `samples`.
    pub item: String,
}
