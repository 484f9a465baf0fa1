//! Equality saturation: every rule is tried everywhere until none says anything new.
//!
//! This loop stands in for egg's `Runner` for three reasons: it stops by counts of nodes and iterations alone (never by
//! time, so that the result does not depend on the machine); it counts applications by rule; and each equation is recorded
//! with both sides as it was applied. Of a rule that computes attributes, every distinct pair of sides is a rule of its own
//! to egg (`attention`, `attention#2`, ...), so that egg's proof checker can check each step, and tests can check each
//! equation on random tensors.

use super::{
    language::{Egraph, Term},
    pattern::{Match, Pattern, Tree, matches},
    rules::{Rule, all},
};
use crate::graph::TensorType;
use egg::{ENodeOrVar, Id, PatternAst, RecExpr, Subst, Var};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How far saturation may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Iterations: each tries every rule once. The rules are such that fewer than ten suffice.
    pub iterations: usize,
    /// Nodes after which no iteration begins.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { iterations: 30, nodes: 50_000 }
    }
}

/// An equation that was applied.
#[derive(Clone, Debug)]
pub struct Equation {
    /// Name of the rule.
    pub rule: &'static str,
    /// Name to egg, unique.
    pub name: String,
    /// Left and right side.
    pub sides: [PatternAst<Term>; 2],
    /// What was known of the values that the variables stood for, by number of the variable.
    pub values: Vec<Value>,
}

/// What an equation may assume of a variable.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its type.
    pub types: Vec<TensorType>,
    /// Its value, if it is the same for all elements.
    pub uniform: Option<f64>,
    /// Where it is 1 and not 0, if it is a mask.
    pub mask: Option<super::mask::Mask>,
}

/// What saturation did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Saturation {
    /// Iterations until nothing was new.
    pub iterations: usize,
    /// New equalities by rule.
    pub applications: BTreeMap<&'static str, usize>,
    /// Which limit ended it, if one did.
    pub limit: Option<&'static str>,
}

/// Applies all rules until nothing changes or a limit bites.
pub fn saturate(egraph: &mut Egraph, limits: &Limits) -> (Saturation, Vec<Equation>) {
    let rules: Vec<(&Rule, Pattern)> = all().map(|rule| (rule, Pattern::parse(rule.left))).collect();
    let mut saturation = Saturation::default();
    let mut ledger = Ledger::default();
    loop {
        if saturation.iterations == limits.iterations {
            saturation.limit = Some("iterations");
            break;
        }
        if egraph.total_size() > limits.nodes {
            saturation.limit = Some("nodes");
            break;
        }
        saturation.iterations += 1;
        if !iterate(egraph, &rules, &mut ledger, &mut saturation) {
            break;
        }
    }
    (saturation, ledger.equations)
}

/// Tries every rule once; whether the e-graph changed.
fn iterate(
    egraph: &mut Egraph,
    rules: &[(&'static Rule, Pattern)],
    ledger: &mut Ledger,
    saturation: &mut Saturation,
) -> bool {
    let before = (egraph.total_size(), egraph.number_of_classes());
    let found: Vec<(&Rule, Vec<Pair>)> = rules.iter().map(|(rule, left)| (*rule, pairs(egraph, rule, left))).collect();
    for (rule, pairs) in found {
        let new = pairs.into_iter().filter(|pair| ledger.apply(egraph, rule, pair)).count();
        if new > 0 {
            *saturation.applications.entry(rule.name).or_default() += new;
        }
    }
    egraph.rebuild();
    before != (egraph.total_size(), egraph.number_of_classes())
}

/// Two equal terms.
type Pair = [Tree; 2];

/// All instances of a rule.
fn pairs(egraph: &Egraph, rule: &Rule, left: &Pattern) -> Vec<Pair> {
    let mut classes: Vec<Id> = egraph.classes_for_op(&left.kind()).into_iter().flatten().collect();
    classes.sort_unstable();
    let found = classes.into_iter().flat_map(|class| matches(egraph, left, class));
    let pair = |found: Match| {
        let left = found.left.clone();
        Some([left, (rule.right)(found)?])
    };
    found.filter_map(pair).collect()
}

/// What has been applied.
#[derive(Default)]
struct Ledger {
    seen: HashSet<(&'static str, Pair)>,
    names: HashMap<(&'static str, [PatternAst<Term>; 2]), String>,
    counts: HashMap<&'static str, usize>,
    equations: Vec<Equation>,
}

impl Ledger {
    /// Equates both sides; whether that was news.
    fn apply(&mut self, egraph: &mut Egraph, rule: &Rule, pair: &Pair) -> bool {
        if !self.seen.insert((rule.name, pair.clone())) {
            return false;
        }
        let mut variables = Variables::default();
        let sides = [variables.pattern(&pair[0]), variables.pattern(&pair[1])];
        let name = self.name(egraph, rule.name, &sides, &variables);
        let (_, news) = egraph.union_instantiations(&sides[0], &sides[1], &variables.subst, name);
        news
    }

    fn name(&mut self, egraph: &Egraph, rule: &'static str, sides: &[PatternAst<Term>; 2], v: &Variables) -> String {
        let key = (rule, sides.clone());
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let count = self.counts.entry(rule).or_default();
        *count += 1;
        let name = if *count == 1 { rule.to_owned() } else { format!("{rule}#{count}") };
        let value = |class: &Id| {
            let fact = &egraph[*class].data;
            Value { types: fact.types.clone(), uniform: fact.uniform, mask: fact.mask.clone() }
        };
        let values = v.classes.iter().map(value).collect();
        self.equations.push(Equation { rule, name: name.clone(), sides: sides.clone(), values });
        self.names.insert(key, name.clone());
        name
    }
}

/// Turns classes into variables.
#[derive(Default)]
struct Variables {
    classes: Vec<Id>,
    subst: Subst,
}

impl Variables {
    fn pattern(&mut self, tree: &Tree) -> PatternAst<Term> {
        let mut pattern = RecExpr::default();
        self.push(tree, &mut pattern);
        pattern
    }

    fn push(&mut self, tree: &Tree, pattern: &mut PatternAst<Term>) -> Id {
        let node = match tree {
            Tree::Class(class) => ENodeOrVar::Var(self.variable(*class)),
            Tree::Term(symbol, children) => {
                let children: Vec<Id> = children.iter().map(|child| self.push(child, pattern)).collect();
                ENodeOrVar::ENode(Term::new(symbol.clone(), children))
            }
        };
        pattern.add(node)
    }

    fn variable(&mut self, class: Id) -> Var {
        let number = match self.classes.iter().position(|known| *known == class) {
            Some(number) => number,
            None => {
                self.classes.push(class);
                self.classes.len() - 1
            }
        };
        let variable = Var::from_u32(number as u32);
        self.subst.insert(variable, class);
        variable
    }
}

/// The name of the rule behind egg's name of an equation.
pub fn rule_of(name: &str) -> &str {
    name.split('#').next().unwrap_or(name)
}
