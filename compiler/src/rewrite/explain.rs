//! Why a node of the rewritten graph is what it is: the rules that lead there from the source, and what the other ways to
//! compute it would have cost.

use super::{
    Options, Session,
    cost::Machine,
    extract::{self, Extraction},
    language::{Egraph, Term},
    rebuild::Chosen,
    rules,
    saturate::rule_of,
};
use crate::{
    graph::{Graph, NodeId, ScopeId},
    source::Span,
};
use egg::{Id, Language, TreeTerm};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
};

/// One application of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplanationStep {
    /// Name of the rule.
    pub rule: String,
    /// Its equation.
    pub law: String,
    /// Whether the equation was used from right to left.
    pub reversed: bool,
    /// The term after the step, its head and a few levels of operands.
    pub after: String,
    /// The source of the expression that is being rewritten, where known.
    pub span: Option<Span>,
}

/// One of the equal ways to compute a value. Work and cost are those of an instance of its whole scope when the value is
/// computed in this way and all else in the way that is best then: values that several users share are paid once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alternative {
    /// The term, its head and a few levels of operands, with their shapes.
    pub form: String,
    /// Whether this is the way that was chosen.
    pub chosen: bool,
    /// Picoseconds of the modelled machine.
    pub cost: u128,
    /// Floating-point operations.
    pub flops: u128,
    /// Bytes to and from memory.
    pub bytes: u128,
}

/// Why a node is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Number of the node in the rewritten graph.
    pub node: usize,
    /// Rule applications that lead to it from the source.
    pub steps: Vec<ExplanationStep>,
    /// The ways to compute it, cheapest first; empty if there is but one.
    pub alternatives: Vec<Alternative>,
}

/// How the source turned into nodes of the rewritten graph, and what else they could be. `pattern` names nodes by index
/// (`17`, `%17`), by an output (`loss`), or by kind (`attention`, `contract`).
pub fn explain(graph: &Graph, options: &Options, pattern: &str) -> Vec<Explanation> {
    let mut session = Session::new(graph, options);
    let nodes = named(&session.rebuilt.graph, pattern);
    let explanation = |node: NodeId| {
        let alternatives = session.alternatives(&options.machine, node);
        Explanation { node: node.index(), steps: session.explain(node), alternatives }
    };
    nodes.into_iter().map(explanation).collect()
}

/// The nodes that a pattern names.
fn named(graph: &Graph, pattern: &str) -> Vec<NodeId> {
    if let Ok(index) = pattern.trim_start_matches('%').parse::<usize>() {
        return graph.ids().nth(index).into_iter().collect();
    }
    let report = crate::graph::Output::Report(pattern.to_owned());
    if let Some(node) = graph.output(&report) {
        return vec![node];
    }
    let kind = |id: &NodeId| super::language::op_kind(&graph.node(*id).op) == pattern.to_lowercase();
    graph.ids().filter(kind).collect()
}

impl Session {
    /// The steps that lead to a node of the rewritten graph.
    fn explain(&mut self, node: NodeId) -> Vec<ExplanationStep> {
        let Some((scope, class)) = self.origins_near(node) else { return Vec::new() };
        let chosen = &mut self.chosen[scope.0 as usize];
        let Some((source, id)) = source_of(&chosen.region.ids, &chosen.region.egraph, class) else {
            return Vec::new();
        };
        let span = self.canonical.node(source).span;
        let target = target(&mut chosen.region.egraph, &chosen.extraction.terms, class, &mut BTreeMap::new());
        let explanation = chosen.region.egraph.explain_id_equivalence(id, target);
        let mut steps = Steps { span, steps: Vec::new(), seen: HashSet::new() };
        steps.visit(&explanation.explanation_trees);
        steps.steps
    }

    /// The ways to compute a node.
    fn alternatives(&self, machine: &Machine, node: NodeId) -> Vec<Alternative> {
        let Some((scope, class)) = self.origins_near(node) else { return Vec::new() };
        let Chosen { region, extraction } = &self.chosen[scope.0 as usize];
        let (egraph, class) = (&region.egraph, region.egraph.find(class));
        if egraph[class].len() < 2 {
            return Vec::new();
        }
        let alternative = |found: &Extraction| {
            let [flops, bytes] = extract::work_of(egraph, found);
            let chosen = extraction.terms.get(&class) == found.terms.get(&class);
            Alternative { form: form(egraph, found, class, 2), chosen, cost: found.cost, flops, bytes }
        };
        let found = extract::alternatives(egraph, machine, &region.source(), &region.roots(), class);
        let mut alternatives: Vec<Alternative> = found.iter().map(alternative).collect();
        alternatives.sort_by_key(|alternative| (alternative.cost, !alternative.chosen));
        // Ways that differ in the order of labels alone read the same.
        let mut seen = HashSet::new();
        alternatives.retain(|alternative| seen.insert((alternative.form.clone(), alternative.cost)));
        if alternatives.len() > 1 { alternatives } else { Vec::new() }
    }

    /// The class that a node stands for, or else the one of the nearest user that the source knows.
    fn origins_near(&self, node: NodeId) -> Option<(ScopeId, Id)> {
        let mut pending = std::collections::VecDeque::from([node]);
        let mut seen = HashSet::new();
        while let Some(node) = pending.pop_front() {
            if !seen.insert(node) {
                continue;
            }
            if let Some(&(scope, class)) = self.rebuilt.origins.get(&node) {
                let region = &self.chosen[scope.0 as usize].region;
                if source_of(&region.ids, &region.egraph, class).is_some() {
                    return Some((scope, class));
                }
            }
            pending.extend(self.rebuilt.graph.users(node));
        }
        None
    }
}

/// The first node of the source in a class.
fn source_of(ids: &BTreeMap<NodeId, Id>, egraph: &Egraph, class: Id) -> Option<(NodeId, Id)> {
    let class = egraph.find(class);
    ids.iter().find(|(_, id)| egraph.find(**id) == class).map(|(node, id)| (*node, *id))
}

/// The extracted term of a class, as an id whose explanation is that very term.
pub(super) fn target(egraph: &mut Egraph, terms: &BTreeMap<Id, Term>, class: Id, known: &mut BTreeMap<Id, Id>) -> Id {
    let class = egraph.find(class);
    if let Some(&id) = known.get(&class) {
        return id;
    }
    let term = terms[&class].clone().map_children(|child| target(egraph, terms, child, known));
    let id = egraph.add_uncanonical(term);
    known.insert(class, id);
    id
}

/// Collects the steps of a proof. Parts of it are shared, so each is visited once.
struct Steps {
    span: Option<Span>,
    steps: Vec<ExplanationStep>,
    seen: HashSet<*const TreeTerm<Term>>,
}

impl Steps {
    fn visit(&mut self, proof: &[Rc<TreeTerm<Term>>]) {
        for term in proof {
            if !self.seen.insert(Rc::as_ptr(term)) {
                continue;
            }
            if let Some(name) = term.forward_rule.or(term.backward_rule) {
                self.step(name.as_str(), term.forward_rule.is_none(), term);
            }
            for child in &term.child_proofs {
                self.visit(child);
            }
        }
    }

    fn step(&mut self, name: &str, reversed: bool, term: &TreeTerm<Term>) {
        let rule = rule_of(name);
        let law = rules::named(rule).map_or("", |rule| rule.law);
        self.steps.push(ExplanationStep {
            rule: rule.to_owned(),
            law: law.to_owned(),
            reversed,
            after: shown(term, 3),
            span: self.span,
        });
    }
}

/// A term to a few levels.
fn shown(term: &TreeTerm<Term>, levels: usize) -> String {
    let head = term.node.symbol.kind().to_owned();
    if term.child_proofs.is_empty() {
        return head;
    }
    if levels == 0 {
        return "..".into();
    }
    let children: Vec<String> = term
        .child_proofs
        .iter()
        .map(|proof| proof.last().map_or("..".into(), |child| shown(child, levels - 1)))
        .collect();
    format!("{head}({})", children.join(", "))
}

/// An extracted term to a few levels, with shapes.
fn form(egraph: &Egraph, extraction: &Extraction, class: Id, levels: usize) -> String {
    let class = egraph.find(class);
    let Some(term) = extraction.terms.get(&class) else { return "..".into() };
    let extents: Vec<String> = egraph[class].data.types[0].shape.iter().map(u64::to_string).collect();
    let head = format!("{}[{}]", term.symbol.kind(), extents.join(", "));
    if levels == 0 || term.children().is_empty() {
        return head;
    }
    let operands: Vec<String> =
        term.children().iter().map(|child| form(egraph, extraction, *child, levels - 1)).collect();
    format!("{head}({})", operands.join(", "))
}
