//! Parameters, states and inputs of a program, shared by its graphs, and the places where parameters are made.

use crate::{
    graph::{Graph, NodeId, Op},
    program::{Input, Parameter, State},
};
use std::collections::{BTreeMap, BTreeSet};

/// A place in the model: parameters made here have its path in front of their names, and its roles.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// e.g. `block.attention`; empty for the model itself.
    pub path: String,
    /// Roles of the enclosing layers.
    pub roles: Vec<String>,
    /// How often each name has been used inside.
    pub(super) counts: BTreeMap<String, u32>,
}

impl Place {
    /// The path of something inside; a repeated name is numbered: `layer_norm`, `layer_norm_2`.
    pub(super) fn path_of(&mut self, name: &str) -> String {
        let count = self.counts.entry(name.to_string()).or_insert(0);
        *count += 1;
        let numbered = if *count == 1 { name.to_string() } else { format!("{name}_{count}") };
        if self.path.is_empty() { numbered } else { format!("{}.{numbered}", self.path) }
    }
}

/// What all graphs of a program share.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Parameters in order of creation.
    pub parameters: Vec<Parameter>,
    /// States of optimizers and filters.
    pub states: Vec<State>,
    /// Inputs.
    pub inputs: Vec<Input>,
    /// Open places, innermost last.
    pub places: Vec<Place>,
    by_path: BTreeMap<String, u32>,
    streams: BTreeMap<String, u32>,
    taken: BTreeSet<u32>,
    nodes: BTreeMap<u32, NodeId>,
    input_nodes: BTreeMap<u32, NodeId>,
}

impl Registry {
    /// Forgets what belongs to one graph.
    pub(super) fn begin_graph(&mut self) {
        self.places = vec![Place::default()];
        self.nodes.clear();
        self.input_nodes.clear();
    }

    /// The innermost place.
    pub(super) fn place(&mut self) -> &mut Place {
        if self.places.is_empty() {
            self.places.push(Place::default());
        }
        self.places.last_mut().expect("just made")
    }

    /// The index of the parameter with this path, making it when it is met for the first time.
    pub(super) fn parameter(&mut self, path: &str, make: impl FnOnce() -> Parameter) -> u32 {
        if let Some(&index) = self.by_path.get(path) {
            return index;
        }
        let index = self.parameters.len() as u32;
        self.parameters.push(make());
        self.by_path.insert(path.to_string(), index);
        index
    }

    /// The index of a state, added when it is new: graphs of one program share states by name.
    pub(super) fn state(&mut self, state: State) -> u32 {
        match self.states.iter().position(|known| known.name == state.name) {
            Some(index) => index as u32,
            None => {
                self.states.push(state);
                self.states.len() as u32 - 1
            }
        }
    }

    /// The node that reads a parameter; one per graph.
    pub(super) fn parameter_node(&mut self, graph: &mut Graph, index: u32) -> NodeId {
        let shape = self.parameters[index as usize].shape.clone();
        *self.nodes.entry(index).or_insert_with(|| graph.add(Op::Parameter { index, shape }, &[]))
    }

    /// The nodes of all parameters that the graph reads.
    pub(super) fn parameter_nodes(&self) -> &BTreeMap<u32, NodeId> {
        &self.nodes
    }

    /// The index of an input, added when it is new.
    pub(super) fn input(&mut self, input: Input) -> u32 {
        match self.inputs.iter().position(|known| known.name == input.name) {
            Some(index) => index as u32,
            None => {
                self.inputs.push(input);
                self.inputs.len() as u32 - 1
            }
        }
    }

    /// The node that reads an input; one per graph.
    pub(super) fn input_node(&mut self, index: u32, make: impl FnOnce() -> NodeId) -> NodeId {
        *self.input_nodes.entry(index).or_insert_with(make)
    }

    /// The node that reads an input in the present graph, if it does.
    pub(super) fn input_nodes(&self) -> &BTreeMap<u32, NodeId> {
        &self.input_nodes
    }

    /// A stream of random draws for something with this path: the same in every graph and in every version of the
    /// program that has the path, and never that of another path.
    pub(super) fn stream(&mut self, path: &str) -> u32 {
        if let Some(&stream) = self.streams.get(path) {
            return stream;
        }
        let mut stream = fnv1a(path);
        while trainc_runtime::HOST_STREAMS.contains(&stream) || !self.taken.insert(stream) {
            stream = stream.wrapping_add(1);
        }
        self.streams.insert(path.to_string(), stream);
        stream
    }
}

/// The 32-bit FNV-1a hash (Fowler, Noll, Vo).
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
