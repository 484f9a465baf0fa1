//! From extracted terms back to a graph.
//!
//! What is no term (carries, layers, stacks, draws, inputs) is copied; a term that the rest needs is built from the terms
//! that extraction chose. Building goes through the canonical builder, so what rules left to simplify is simplified.

use super::{
    canonical::{Builder, instances},
    extract::Extraction,
    language::{Symbol, Term},
    region::{Region, is_term},
};
use crate::{
    graph::{Graph, NodeId, Op, ScopeId},
    source::Span,
};
use egg::Id;
use std::collections::BTreeMap;
use trainc_kernels::ir::Precision;

/// A region with its extraction.
pub struct Chosen {
    /// The region.
    pub region: Region,
    /// The terms to build from.
    pub extraction: Extraction,
}

/// A rebuilt graph, and which class each of its nodes came from.
pub struct Rebuilt {
    /// The graph.
    pub graph: Graph,
    /// Scope and canonical class of nodes that were built from terms.
    pub origins: BTreeMap<NodeId, (ScopeId, Id)>,
}

/// Builds the graph that was chosen for `source`.
pub fn rebuild(source: &Graph, live: &[bool], chosen: &[Chosen], precision: Precision) -> Rebuilt {
    let mut rebuild = Rebuild {
        source,
        chosen,
        spans: chosen.iter().map(|chosen| spans(source, &chosen.region)).collect(),
        builder: Builder::new(source, precision),
        nodes: vec![None; source.len()],
        classes: BTreeMap::new(),
        origins: BTreeMap::new(),
    };
    let roots: Vec<NodeId> = chosen.iter().flat_map(|chosen| chosen.region.roots.iter().copied()).collect();
    let needed = |id: &NodeId| live[id.index()] && (!is_term(&source.node(*id).op) || roots.contains(id));
    for id in source.ids().filter(needed) {
        rebuild.node(id);
    }
    rebuild.finish()
}

/// Where the source has each class.
fn spans(source: &Graph, region: &Region) -> BTreeMap<Id, Span> {
    let mut spans = BTreeMap::new();
    for (&node, &id) in &region.ids {
        if let Some(span) = source.node(node).span {
            spans.entry(region.egraph.find(id)).or_insert(span);
        }
    }
    spans
}

struct Rebuild<'a> {
    source: &'a Graph,
    chosen: &'a [Chosen],
    spans: Vec<BTreeMap<Id, Span>>,
    builder: Builder,
    nodes: Vec<Option<NodeId>>,
    classes: BTreeMap<(ScopeId, Id), NodeId>,
    origins: BTreeMap<NodeId, (ScopeId, Id)>,
}

impl Rebuild<'_> {
    /// The node that stands for one of the source.
    fn node(&mut self, id: NodeId) -> NodeId {
        if let Some(built) = self.nodes[id.index()] {
            return built;
        }
        let (op, scope) = (&self.source.node(id).op, self.source.node(id).scope);
        let built = if is_term(op) { self.class_of(scope, id) } else { self.copy(id) };
        self.nodes[id.index()] = Some(built);
        built
    }

    fn class_of(&mut self, scope: ScopeId, id: NodeId) -> NodeId {
        let region = &self.chosen[scope.0 as usize].region;
        self.class(scope, region.egraph.find(region.ids[&id]))
    }

    /// An operation that is no term. The `next` of carries is set in the end.
    fn copy(&mut self, id: NodeId) -> NodeId {
        let operands: Vec<NodeId> = self.source.operands(id).into_iter().map(|x| self.node(x)).collect();
        self.builder.span = self.source.node(id).span;
        match self.source.node(id).op {
            Op::Carry { scope, .. } => self.builder.carry(scope, operands[0], self.source.carry(id).reversed),
            Op::SumInstances => {
                let count = instances(self.source, self.source.operands(id)[0]);
                self.builder.sum_instances(operands[0], count)
            }
            ref op => self.builder.build(op.clone(), &operands),
        }
    }

    /// The node that stands for a class.
    fn class(&mut self, scope: ScopeId, class: Id) -> NodeId {
        if let Some(&built) = self.classes.get(&(scope, class)) {
            return built;
        }
        let chosen = &self.chosen[scope.0 as usize];
        let term = chosen.extraction.terms.get(&class);
        let term = term.unwrap_or_else(|| panic!("internal: class {class} was not extracted")).clone();
        let built = self.term(scope, &term, class);
        self.classes.insert((scope, class), built);
        self.origins.entry(built).or_insert((scope, class));
        built
    }

    fn term(&mut self, scope: ScopeId, term: &Term, class: Id) -> NodeId {
        let region = &self.chosen[scope.0 as usize].region;
        if let Symbol::Leaf(number) = term.symbol {
            return self.node(region.leaves[number as usize]);
        }
        let children: Vec<Id> = term.children.iter().map(|child| region.egraph.find(*child)).collect();
        let operands: Vec<NodeId> = children.into_iter().map(|child| self.class(scope, child)).collect();
        let op = match &term.symbol {
            Symbol::Op(op) => op.clone(),
            Symbol::Attention(spec) => Op::Attention(*spec),
            Symbol::AttentionBackward(spec) => Op::AttentionBackward(*spec),
            Symbol::Result(0) => return operands[0],
            Symbol::Result(index) => Op::Project { index: *index },
            other => panic!("internal: {} was extracted", other.kind()),
        };
        self.builder.span = self.spans[scope.0 as usize].get(&class).copied();
        self.builder.build(op, &operands)
    }

    fn finish(mut self) -> Rebuilt {
        let carries: Vec<_> = self.source.scopes().flat_map(|(_, scope)| scope.carries.clone()).collect();
        for carry in carries {
            let Some(built) = self.nodes[carry.node.index()] else { continue };
            let next = carry.next.unwrap_or_else(|| panic!("internal: carry without next"));
            let next = self.node(next);
            self.builder.graph.set_next(built, next);
        }
        let outputs: Vec<_> = self.source.outputs().to_vec();
        let outputs: Vec<_> = outputs.into_iter().map(|(output, node)| (output, self.node(node))).collect();
        Rebuilt { graph: self.builder.finish(outputs.into_iter()), origins: self.origins }
    }
}
