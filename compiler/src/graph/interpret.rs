//! The reference interpreter: f64, slow, obvious. It is the oracle for gradients, rewrite rules and compiled kernels.
//!
//! A value is that of a node in an instance of its scope. What a value depends on is a list of such pairs, and that is
//! all there is to repeats: a carry depends on one value of the instance before, a stack on the values of all instances.

use super::{Graph, NodeId, Op, Output, ScopeId, Tensor, TensorType, ops, value::round_f32};
use std::{collections::HashMap, fmt};

/// What a graph is evaluated on.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Values of [`Op::Input`], by index.
    pub inputs: HashMap<u32, Tensor>,
    /// Values of [`Op::Parameter`], by index.
    pub parameters: HashMap<u32, Tensor>,
    /// Values of [`Op::State`], by index.
    pub states: HashMap<u32, Tensor>,
    /// Updates done so far.
    pub step: u32,
    /// The horizon.
    pub steps: u32,
    /// Seed of all draws but those that ChaCha20 makes.
    pub seed: u64,
    /// Key of ChaCha20.
    pub key: [u32; 8],
    /// How results are rounded.
    pub rounding: Rounding,
}

/// How the interpreter rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// f64 throughout.
    #[default]
    None,
    /// Each result of an operation is rounded to f32, for comparison with compiled code. Sums inside are in f64.
    F32,
}

/// Why a value cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterpretError(pub String);

impl fmt::Display for InterpretError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for InterpretError {}

/// What an operation may read besides its operands.
pub(super) struct Moment<'a> {
    pub bindings: &'a Bindings,
    pub instance: u64,
}

/// Evaluates all outputs.
///
/// # Errors
/// If something is not bound or has another type, if an id is not a row of its table, if the graph is not closed.
pub fn interpret<'a>(graph: &'a Graph, bindings: &'a Bindings) -> Result<Evaluation<'a>, InterpretError> {
    let mut evaluation = Evaluation::new(graph, bindings);
    for &(_, node) in graph.outputs() {
        evaluation.value(node, 0)?;
    }
    Ok(evaluation)
}

/// The values of a graph, computed as they are asked for.
pub struct Evaluation<'a> {
    graph: &'a Graph,
    bindings: &'a Bindings,
    values: HashMap<Key, Option<Tensor>>,
}

/// A node in an instance of its scope. Absent: not asked for; `None` in the table: being computed.
type Key = (NodeId, u64);

impl<'a> Evaluation<'a> {
    /// Nothing is computed yet.
    pub fn new(graph: &'a Graph, bindings: &'a Bindings) -> Self {
        Self { graph, bindings, values: HashMap::new() }
    }

    /// The value of an output.
    ///
    /// # Errors
    /// If there is no such output, or as [`interpret`].
    pub fn output(&mut self, output: &Output) -> Result<&Tensor, InterpretError> {
        match self.graph.output(output) {
            Some(node) => self.value(node, 0),
            None => Err(InterpretError(format!("the graph has no output {output:?}"))),
        }
    }

    /// The value of a node in an instance of its scope (0 for root nodes).
    ///
    /// # Errors
    /// As [`interpret`].
    pub fn value(&mut self, node: NodeId, instance: u64) -> Result<&Tensor, InterpretError> {
        let mut pending = vec![(node, instance)];
        while let Some(&key) = pending.last() {
            if matches!(self.values.get(&key), Some(Some(_))) {
                pending.pop();
                continue;
            }
            let needs = self.dependencies(key)?;
            let missing: Vec<Key> = needs.iter().copied().filter(|need| self.known(*need).is_none()).collect();
            if missing.is_empty() {
                let tensor = self.compute(key, &needs)?;
                self.values.insert(key, Some(tensor));
            } else if self.values.insert(key, None).is_some() {
                return Err(InterpretError(format!(
                    "{} {:?} depends on itself",
                    self.graph.node(key.0).op.name(),
                    key
                )));
            }
            pending.extend(missing);
        }
        Ok(self.known((node, instance)).expect("computed above"))
    }

    /// The values that a value is computed from: nodes with instances.
    ///
    /// # Errors
    /// If the graph is not closed.
    pub fn operands(&self, (node, instance): (NodeId, u64)) -> Result<Vec<(NodeId, u64)>, InterpretError> {
        self.dependencies((node, instance))
    }

    fn known(&self, key: Key) -> Option<&Tensor> {
        self.values.get(&key).and_then(Option::as_ref)
    }

    /// The values that a value is computed from, in the order in which the operation's rule takes them.
    fn dependencies(&self, (node, instance): Key) -> Result<Vec<Key>, InterpretError> {
        let operands = self.graph.operands(node);
        Ok(match self.graph.node(node).op {
            Op::Carry { .. } => vec![self.received(node, instance)?],
            Op::Last => vec![self.handed_on(operands[0], self.final_instance(operands[0]))?],
            Op::Stack { .. } | Op::SumInstances => self.all_instances(operands[0]),
            Op::Project { .. } => self.at(&self.graph.operands(operands[0]), instance),
            _ => self.at(&operands, instance),
        })
    }

    /// These nodes in an instance, those of the root in their only one.
    fn at(&self, nodes: &[NodeId], instance: u64) -> Vec<Key> {
        let only = |node| self.graph.node(node).scope == ScopeId::ROOT;
        nodes.iter().map(|&node| (node, if only(node) { 0 } else { instance })).collect()
    }

    fn all_instances(&self, node: NodeId) -> Vec<Key> {
        (0..self.graph.scope(self.graph.node(node).scope).count).map(|instance| (node, instance)).collect()
    }

    /// What a carry is in an instance.
    fn received(&self, carry: NodeId, instance: u64) -> Result<Key, InterpretError> {
        let count = self.graph.scope(self.graph.node(carry).scope).count;
        match (self.graph.carry(carry).reversed, instance) {
            (false, 0) => Ok((self.graph.carry(carry).init, 0)),
            (false, _) => self.handed_on(carry, instance - 1),
            (true, _) if instance + 1 == count => Ok((self.graph.carry(carry).init, 0)),
            (true, _) => self.handed_on(carry, instance + 1),
        }
    }

    /// What an instance hands on by a carry.
    fn handed_on(&self, carry: NodeId, instance: u64) -> Result<Key, InterpretError> {
        match self.graph.carry(carry).next {
            Some(next) => Ok(self.at(&[next], instance)[0]),
            None => Err(InterpretError(format!("carry {} is not closed", carry.index()))),
        }
    }

    fn final_instance(&self, carry: NodeId) -> u64 {
        let count = self.graph.scope(self.graph.node(carry).scope).count;
        if self.graph.carry(carry).reversed { 0 } else { count - 1 }
    }

    fn compute(&self, key: Key, needs: &[Key]) -> Result<Tensor, InterpretError> {
        let (node, instance) = key;
        let operands: Vec<&Tensor> = needs.iter().filter_map(|&need| self.known(need)).collect();
        let moment = Moment { bindings: self.bindings, instance };
        let tensor = match self.graph.node(node).op {
            Op::Project { index } => {
                ops::rule(&self.graph.node(self.graph.operands(node)[0]).op).further_value(index, &operands)?
            }
            ref op => ops::rule(op).evaluate(&operands, &moment)?,
        };
        self.expect_type(node, &tensor.ty)?;
        Ok(if self.bindings.rounding == Rounding::F32 { round_f32(tensor) } else { tensor })
    }

    /// What is bound must have the declared type; what rules compute must have the inferred one.
    fn expect_type(&self, node: NodeId, given: &TensorType) -> Result<(), InterpretError> {
        let (name, expected) = (self.graph.node(node).op.name(), &self.graph.node(node).ty);
        if given == expected {
            return Ok(());
        }
        Err(InterpretError(format!("{name} is declared {expected}, and its value is {given}")))
    }
}
