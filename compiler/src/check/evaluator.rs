//! The abstract interpreter's state: what is known of the program, the graph under construction, and open calls.

use super::{
    CountRecords,
    extents::Extents,
    library::{ADD_IMPORT, DefinitionId, Entity, Library},
    optimizer::Updating,
    registry::Registry,
    value::{Label, Number, Tensor, Value},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    graph::{Graph, NodeId, Op, ScopeId},
    source::{SourceMap, Span},
    syntax::tree::{DefinitionKind, Unit},
};
use std::{collections::BTreeMap, rc::Rc};
use trainc_kernels::ir::Precision;

/// Something is wrong and has been reported; go on with what does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// The result of checking something.
pub(super) type Checked<T> = Result<T, Failed>;

/// Most errors reported for one program.
const MAX_ERRORS: usize = 20;

/// Most calls that may be open at a time; definitions that call themselves reach it.
const MAX_CALLS: usize = 64;

/// Most nested evaluations; bounds the stack.
const MAX_DEPTH: u32 = 3000;

/// Most expressions evaluated for one graph: a program of a few lines can ask for an exponential amount of work.
const MAX_WORK: u32 = 2_000_000;

/// Most nodes in a graph.
const MAX_NODES: usize = 200_000;

/// Most elements in a tensor.
pub(super) const MAX_ELEMENTS: u64 = (1 << 40) - 1;

/// What a graph is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// Whether dropout and the like are on.
    pub training: bool,
    /// Samples in a batch.
    pub batch: u64,
    /// Rounding of matrix products.
    pub precision: Precision,
}

/// An open call.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Number of the call, unique in the compilation; index variables belong to it.
    pub id: u32,
    /// What is called; `None` for the `train` block and constants.
    pub definition: Option<DefinitionId>,
    /// Where it is called.
    pub call: Option<Span>,
    /// Names and values.
    pub names: BTreeMap<String, Value>,
    /// Indices handed over by the caller: `s` in `softmax[s](x)`.
    pub axes: BTreeMap<String, Label>,
}

/// Turns definitions into graphs.
pub(super) struct Evaluator<'p> {
    /// All definitions.
    pub library: &'p Library,
    /// All texts.
    pub sources: &'p SourceMap,
    /// Parameters, states, inputs, shared by all graphs.
    pub registry: Registry,
    /// The graph under construction.
    pub graph: Graph,
    /// The repeat under construction.
    pub scope: ScopeId,
    /// What the graph is for.
    pub mode: Mode,
    /// Open calls, innermost last.
    pub frames: Vec<Frame>,
    /// Extents of indices, one table per open statement.
    pub extents: Vec<Extents>,
    /// Outputs of the model, in order.
    pub outputs: Vec<(String, Tensor)>,
    /// The parameter that is being updated.
    pub updating: Option<Updating>,
    /// Number of the update and horizon, once the graph has them.
    pub clock: Option<[Value; 2]>,
    /// Counts the training records of the program's data, if somebody can.
    pub count_records: &'p CountRecords,
    /// Values of constants; `None` while one is being evaluated.
    pub consts: BTreeMap<usize, Option<Value>>,
    diagnostics: Vec<Diagnostic>,
    next_frame: u32,
    depth: u32,
    work: u32,
    /// A limit has been met: everything fails silently from here on.
    exhausted: bool,
}

impl<'p> Evaluator<'p> {
    /// An evaluator with nothing built.
    pub(super) fn new(library: &'p Library, sources: &'p SourceMap, count_records: &'p CountRecords) -> Self {
        Evaluator {
            library,
            sources,
            registry: Registry::default(),
            graph: Graph::new("step"),
            scope: ScopeId::ROOT,
            mode: Mode { training: true, batch: 1, precision: Precision::F32 },
            frames: Vec::new(),
            extents: vec![Extents::default()],
            outputs: Vec::new(),
            updating: None,
            clock: None,
            count_records,
            consts: BTreeMap::new(),
            diagnostics: Vec::new(),
            next_frame: 0,
            depth: 0,
            work: 0,
            exhausted: false,
        }
    }

    /// Starts another graph; the registry stays.
    pub(super) fn begin(&mut self, name: &str, mode: Mode) -> Graph {
        self.scope = ScopeId::ROOT;
        self.mode = mode;
        self.work = 0;
        self.registry.begin_graph();
        self.outputs.clear();
        self.clock = None;
        std::mem::replace(&mut self.graph, Graph::new(name))
    }

    /// All findings, in order of discovery.
    pub(super) fn into_findings(self) -> (Registry, Vec<Diagnostic>) {
        (self.registry, self.diagnostics)
    }

    /// What comes of something that is tried out: what it finds wrong is nobody's business.
    pub(super) fn quietly<T>(&mut self, attempt: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<T> {
        let known = self.diagnostics.len();
        let result = attempt(self);
        self.diagnostics.truncate(known);
        result
    }

    /// Whether an error has been reported.
    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Records a finding. One inside the standard library is shown at the program's call that leads there.
    pub(super) fn report(&mut self, finding: Diagnostic) {
        let finding = self.at_program(finding);
        let place = |finding: &Diagnostic| (finding.id, finding.labels[0].span);
        let known = self.diagnostics.iter().any(|earlier| place(earlier) == place(&finding));
        let import = |finding: &Diagnostic| finding.suggestion.as_ref().is_some_and(|mend| mend.message == ADD_IMPORT);
        let known = known || (import(&finding) && self.diagnostics.iter().any(import));
        // Warnings must not take the places of errors.
        let alike = self.diagnostics.iter().filter(|earlier| earlier.severity == finding.severity).count();
        if alike < MAX_ERRORS && !known {
            self.diagnostics.push(finding);
        }
    }

    /// Records an error and gives up on what it concerns.
    pub(super) fn fail<T>(&mut self, error: Diagnostic) -> Checked<T> {
        self.report(error);
        Err(Failed)
    }

    fn at_program(&self, mut finding: Diagnostic) -> Diagnostic {
        if !self.library.is_std(finding.labels[0].span.file) {
            return finding;
        }
        let calls = self.frames.iter().rev().filter_map(|frame| Some((frame.call?, frame.definition?)));
        let mut outside = calls.filter(|(call, _)| !self.library.is_std(call.file));
        if let Some((call, definition)) = outside.next() {
            let name = &self.library.definition(definition).name.text;
            let inner = &mut finding.labels[0];
            if inner.text.is_empty() {
                inner.text = format!("inside `{name}`");
            }
            let label = crate::diagnostic::Label { span: call, text: format!("in this use of `{name}`") };
            finding.labels.insert(0, label);
            if finding
                .suggestion
                .as_ref()
                .is_some_and(|mend| mend.edit.as_ref().is_some_and(|(span, _)| self.library.is_std(span.file)))
            {
                finding.suggestion = None;
            }
        }
        finding
    }

    /// The innermost call.
    pub(super) fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("a frame is open while something is evaluated")
    }

    /// Opens a call.
    pub(super) fn open(&mut self, definition: Option<DefinitionId>, call: Option<Span>) -> Checked<()> {
        if self.frames.len() >= MAX_CALLS {
            return self.too_many_calls(definition, call);
        }
        self.next_frame += 1;
        self.frames.push(Frame { id: self.next_frame, definition, call, ..Frame::default() });
        self.extents.push(Extents::default());
        Ok(())
    }

    /// Closes the innermost call.
    pub(super) fn close(&mut self) -> Frame {
        self.extents.pop();
        self.frames.pop().expect("calls are closed once")
    }

    /// Opens a call again that was closed before its body was done.
    pub(super) fn reopen(&mut self, frame: Frame) {
        self.frames.push(frame);
        self.extents.push(Extents::default());
    }

    fn too_many_calls<T>(&mut self, definition: Option<DefinitionId>, call: Option<Span>) -> Checked<T> {
        let (Some(definition), Some(call)) = (definition, call) else { return Err(Failed) };
        let definition = self.library.definition(definition);
        let name = definition.name.text.clone();
        let error = Diagnostic::error("E0802", call, format!("`{name}` calls itself without end"))
            .label("this call leads back here")
            .also(definition.name.span, "defined here")
            .note(format!("definitions are written out where they are used; at most {MAX_CALLS} may be open at a time"))
            .help("use `repeat` for a fixed number of iterations");
        // The whole tower of calls fails: one message, at the outermost call that the program wrote.
        self.fail(error)
    }

    /// Guards one level of evaluation against exhaustion of stack and time.
    pub(super) fn guarded<T>(&mut self, span: Span, work: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<T> {
        self.work += 1;
        if self.exhausted {
            return Err(Failed);
        }
        if self.depth >= MAX_DEPTH || self.work > MAX_WORK || self.graph.len() > MAX_NODES {
            self.exhausted = true;
            return self.fail(
                Diagnostic::error("E0803", span, "the program is too large to write out")
                    .label("the limit is reached here")
                    .note(format!("at most {MAX_NODES} operations, {MAX_WORK} evaluations, {MAX_DEPTH} levels"))
                    .help("use `repeat` for repeated parts: its body is written out once"),
            );
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    /// The value of a name as the innermost call sees it.
    pub(super) fn lookup(&mut self, name: &str, span: Span) -> Checked<Value> {
        if let Some(value) = self.frames.last().and_then(|frame| frame.names.get(name)) {
            return if matches!(value, Value::Unknown) { Err(Failed) } else { Ok(value.clone()) };
        }
        match self.library.find(name, span.file) {
            Some(Entity::Const(index)) => self.constant(index, span),
            Some(Entity::Definition(id)) => Ok(Value::Definition(id)),
            Some(Entity::Data(_)) => self.fail(
                Diagnostic::error("E0214", span, format!("`{name}` is a data block, not a value"))
                    .help("name it in the `data` clause of `train`"),
            ),
            None => self.builtin_name(name, span),
        }
    }

    fn builtin_name(&mut self, name: &str, span: Span) -> Checked<Value> {
        match name {
            "none" => Ok(Value::Nothing),
            "yes" | "true" => Ok(Value::truth(true)),
            "no" | "false" => Ok(Value::truth(false)),
            "pi" => Ok(Value::number(std::f64::consts::PI)),
            "training" => Ok(Value::truth(self.mode.training)),
            "batch" => Ok(self.batch()),
            _ => match super::builtin::find(name) {
                Some(builtin) => Ok(Value::Builtin(builtin)),
                None => {
                    let locals: Vec<String> =
                        self.frames.last().map(|frame| frame.names.keys().cloned().collect()).unwrap_or_default();
                    let error =
                        super::library::unknown_name(self.library, name, span, &locals, &super::builtin::names());
                    self.fail(error)
                }
            },
        }
    }

    /// The number of samples in a batch, as a dim called `batch`.
    pub(super) fn batch(&self) -> Value {
        let name = Some(Rc::from("batch"));
        Value::Number(Number { value: self.mode.batch as f64, unit: Unit::None, name, dim: true })
    }

    fn constant(&mut self, index: usize, span: Span) -> Checked<Value> {
        match self.consts.get(&index) {
            Some(Some(Value::Unknown)) => Err(Failed),
            Some(Some(value)) => Ok(value.clone()),
            Some(None) => {
                let name = self.library.consts[index].name.text.clone();
                self.fail(
                    Diagnostic::error("E0207", span, format!("the constant `{name}` depends on itself"))
                        .label("its own value is needed here")
                        .help("give one of the constants in this circle a value of its own"),
                )
            }
            None => self.evaluate_constant(index),
        }
    }

    fn evaluate_constant(&mut self, index: usize) -> Checked<Value> {
        let constant = &self.library.consts[index];
        self.consts.insert(index, None);
        self.open(None, None)?;
        let value = self.expression(&constant.value);
        self.close();
        let value = value.map(|value| match value {
            Value::Number(number) => {
                Value::Number(Number { name: Some(Rc::from(constant.name.text.as_str())), dim: false, ..number })
            }
            other => other,
        });
        self.consts.insert(index, Some(value.clone().unwrap_or(Value::Unknown)));
        value
    }

    /// Adds an operation to the graph.
    pub(super) fn add(&mut self, op: Op, operands: &[NodeId], span: Span) -> Checked<NodeId> {
        match self.graph.try_add(op, operands, Some(span)) {
            Ok(node) => self.bounded(node, span),
            Err(error) => self.fail(
                Diagnostic::error("E0312", span, "this operation does not apply to these tensors")
                    .label(error.to_string())
                    .help("make the shapes agree"),
            ),
        }
    }

    fn bounded(&mut self, node: NodeId, span: Span) -> Checked<NodeId> {
        let shape = self.graph.shape(node).to_vec();
        self.bounded_shape(&shape, span)?;
        Ok(node)
    }

    /// Refuses tensors of more than [`MAX_ELEMENTS`] elements.
    pub(super) fn bounded_shape(&mut self, shape: &[u64], span: Span) -> Checked<()> {
        let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
        if elements.is_some_and(|elements| elements <= MAX_ELEMENTS) {
            return Ok(());
        }
        let shape = super::value::numbers_shown(shape);
        self.fail(
            Diagnostic::error("E0804", span, "this tensor is too large")
                .label(format!("{shape}: more than {MAX_ELEMENTS} elements"))
                .help("make a dim smaller"),
        )
    }

    /// Name of the innermost definition and its kind, for messages.
    pub(super) fn current_kind(&self) -> Option<DefinitionKind> {
        let id = self.frames.last()?.definition?;
        Some(self.library.definition(id).kind)
    }

    /// Source text of a place.
    pub(super) fn text(&self, span: Span) -> &'p str {
        self.sources.text(span)
    }

    /// Extents of a tensor.
    pub(super) fn shape(&self, tensor: &Tensor) -> Vec<u64> {
        self.graph.shape(tensor.node).to_vec()
    }
}
