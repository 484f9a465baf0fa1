//! Patterns over terms, and their matches in an e-graph.
//!
//! A pattern is written as an s-expression: `?x` stands for any value, `(exp ?x)` for a term of that kind, whatever its
//! attributes; `(broadcast:b ?x)` also calls the term's head `b`, and two heads of one name must be equal; `?e@(exp ?x)`
//! calls the value of a part `?e`. Factors of `mul`, `add` and `contract` match in either order; the head of a
//! contraction is then called by its name with the labels of the operands swapped to match.

use super::language::{Egraph, Fact, Symbol, Term, result_types};
use crate::graph::{Contraction, Op, TensorType};
use egg::Id;
use trainc_kernels::ir::{Binary, Unary};

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any value.
    Any(&'static str),
    /// A term.
    Term {
        /// What the value is called.
        name: Option<&'static str>,
        /// Kind of the head, see [`Symbol::kind`].
        kind: &'static str,
        /// What the head is called.
        head: Option<&'static str>,
        /// Patterns of the operands.
        children: Vec<Pattern>,
    },
}

impl Pattern {
    /// Parses a pattern; rules are part of the compiler, so a malformed one is a bug and panics.
    pub fn parse(text: &'static str) -> Self {
        let mut rest = text;
        let pattern = parse(&mut rest);
        assert!(rest.trim().is_empty(), "internal: trailing text in pattern {text}");
        pattern
    }

    /// The kind of the outermost head.
    pub fn kind(&self) -> &'static str {
        match self {
            Pattern::Any(name) => panic!("internal: pattern {name} matches everything"),
            Pattern::Term { kind, .. } => kind,
        }
    }
}

fn parse(rest: &mut &'static str) -> Pattern {
    *rest = rest.trim_start();
    let mut name = None;
    if let Some(tail) = rest.strip_prefix('?') {
        let length = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
        let (word, tail) = tail.split_at(length);
        *rest = tail;
        match tail.strip_prefix('@') {
            Some(tail) => (*rest, name) = (tail, Some(word)),
            None => return Pattern::Any(word),
        }
    }
    *rest = rest.strip_prefix('(').unwrap_or_else(|| panic!("internal: pattern expected at {rest:?}"));
    let length = rest.find([' ', ')']).unwrap_or_else(|| panic!("internal: unclosed pattern {rest:?}"));
    let (word, tail) = rest.split_at(length);
    let (kind, head) = word.split_once(':').map_or((word, None), |(kind, head)| (kind, Some(head)));
    *rest = tail;
    let mut children = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(tail) = rest.strip_prefix(')') {
            *rest = tail;
            return Pattern::Term { name, kind, head, children };
        }
        children.push(parse(rest));
    }
}

/// A term over e-classes: one side of an equation at a match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Any term of a class.
    Class(Id),
    /// A term.
    Term(Symbol, Vec<Tree>),
}

impl Tree {
    /// A tree with an operation at its root.
    pub fn op(op: Op, children: impl Into<Vec<Tree>>) -> Tree {
        Tree::Term(Symbol::Op(op), children.into())
    }
}

/// Where a pattern matches.
#[derive(Clone)]
pub struct Match<'e> {
    /// The e-graph.
    pub egraph: &'e Egraph,
    /// The left-hand side as it was found.
    pub left: Tree,
    values: Vec<(&'static str, Id, Tree)>,
    heads: Vec<(&'static str, Symbol)>,
}

/// All matches of a pattern in a class.
pub fn matches<'e>(egraph: &'e Egraph, pattern: &Pattern, class: Id) -> Vec<Match<'e>> {
    let start = Match { egraph, left: Tree::Class(class), values: Vec::new(), heads: Vec::new() };
    start.at(pattern, class)
}

impl<'e> Match<'e> {
    fn at(self, pattern: &Pattern, class: Id) -> Vec<Match<'e>> {
        match pattern {
            Pattern::Any(name) => self.bound(name, class, Tree::Class(class)).into_iter().collect(),
            Pattern::Term { name, kind, head, children } => {
                let terms = self.egraph[class].iter().filter(|term| term.symbol.kind() == *kind);
                let found = terms.flat_map(|term| self.at_term(term, *head, children));
                let named = |found: Match<'e>| match name {
                    Some(name) => {
                        let tree = found.left.clone();
                        found.bound(name, class, tree)
                    }
                    None => Some(found),
                };
                found.filter_map(named).collect()
            }
        }
    }

    /// Calls a value by a name, unless another one has it.
    fn bound(mut self, name: &'static str, class: Id, tree: Tree) -> Option<Match<'e>> {
        let class = self.egraph.find(class);
        match self.values.iter().find(|(known, ..)| *known == name) {
            Some((_, known, known_tree)) => {
                self.left = known_tree.clone();
                (*known == class).then_some(self)
            }
            None => {
                self.left = tree.clone();
                self.values.push((name, class, tree));
                Some(self)
            }
        }
    }

    fn at_term(&self, term: &Term, head: Option<&'static str>, patterns: &[Pattern]) -> Vec<Match<'e>> {
        if term.children.len() != patterns.len() {
            return Vec::new();
        }
        let mut found = self.at_children(term, head, term.symbol.clone(), &term.children, patterns, false);
        if let Some(swapped) = swapped(&term.symbol)
            && term.children[0] != term.children[1]
        {
            let children = [term.children[1], term.children[0]];
            found.extend(self.at_children(term, head, swapped, &children, patterns, true));
        }
        found
    }

    fn at_children(
        &self,
        term: &Term,
        head: Option<&'static str>,
        symbol: Symbol,
        children: &[Id],
        patterns: &[Pattern],
        swapped: bool,
    ) -> Vec<Match<'e>> {
        let mut start = self.clone();
        if let Some(head) = head {
            match start.heads.iter().find(|(known, _)| *known == head) {
                Some((_, known)) if *known != symbol => return Vec::new(),
                Some(_) => {}
                None => start.heads.push((head, symbol)),
            }
        }
        let mut partial = vec![(start, Vec::new())];
        for (&child, pattern) in children.iter().zip(patterns) {
            let step = |(found, trees): (Match<'e>, Vec<Tree>)| {
                found.at(pattern, child).into_iter().map(move |next| {
                    let mut trees = trees.clone();
                    trees.push(next.left.clone());
                    (next, trees)
                })
            };
            partial = partial.into_iter().flat_map(step).collect();
        }
        let finish = |(mut found, mut trees): (Match<'e>, Vec<Tree>)| {
            if swapped {
                trees.reverse();
            }
            found.left = Tree::Term(term.symbol.clone(), trees);
            found
        };
        partial.into_iter().map(finish).collect()
    }

    /// The class of a named value.
    pub fn class(&self, name: &str) -> Id {
        let found = self.values.iter().find(|(known, ..)| *known == name);
        found.unwrap_or_else(|| panic!("internal: rule without value {name}")).1
    }

    /// A named value, as it was found.
    pub fn tree(&self, name: &str) -> Tree {
        let found = self.values.iter().find(|(known, ..)| *known == name);
        found.unwrap_or_else(|| panic!("internal: rule without value {name}")).2.clone()
    }

    /// A named head.
    pub fn head(&self, name: &str) -> &Symbol {
        let found = self.heads.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("internal: rule without head {name}")).1
    }

    /// Gives a head computed by the rule a name, for [`Match::build`].
    pub fn with(mut self, name: &'static str, head: Symbol) -> Self {
        self.heads.push((name, head));
        self
    }

    /// A named contraction.
    pub fn contraction(&self, name: &str) -> Contraction {
        match self.head(name) {
            Symbol::Op(Op::Contract(contraction)) => contraction.clone(),
            other => panic!("internal: {name} is not a contraction but {other:?}"),
        }
    }

    /// The axes of a named broadcast.
    pub fn broadcast_axes(&self, name: &str) -> &[usize] {
        match self.head(name) {
            Symbol::Op(Op::Broadcast { axes, .. }) => axes,
            other => panic!("internal: {name} is not a broadcast but {other:?}"),
        }
    }

    /// The axes of a named reduction.
    pub fn reduce_axes(&self, name: &str) -> &[usize] {
        match self.head(name) {
            Symbol::Op(Op::Reduce { axes, .. }) => axes,
            other => panic!("internal: {name} is not a reduction but {other:?}"),
        }
    }

    /// What is known of a named value.
    pub fn fact(&self, name: &str) -> &'e Fact {
        &self.egraph[self.class(name)].data
    }

    /// Type of a named value.
    pub fn ty(&self, name: &str) -> &'e TensorType {
        &self.fact(name).types[0]
    }

    /// The tree that a pattern describes under this match. Heads without a name are those without attributes.
    pub fn build(&self, text: &'static str) -> Tree {
        self.instantiate(&Pattern::parse(text))
    }

    fn instantiate(&self, pattern: &Pattern) -> Tree {
        match pattern {
            Pattern::Any(name) => self.tree(name),
            Pattern::Term { kind, head, children, .. } => {
                let symbol = match head {
                    Some(head) => self.head(head).clone(),
                    None => plain(kind),
                };
                Tree::Term(symbol, children.iter().map(|child| self.instantiate(child)).collect())
            }
        }
    }

    /// The class of a tree, if the e-graph has it.
    pub fn lookup(&self, tree: &Tree) -> Option<Id> {
        match tree {
            Tree::Class(class) => Some(self.egraph.find(*class)),
            Tree::Term(symbol, children) => {
                let children: Vec<Id> = children.iter().map(|child| self.lookup(child)).collect::<Option<_>>()?;
                self.egraph.lookup(Term::new(symbol.clone(), children))
            }
        }
    }

    /// Operands of all terms with this head, in canonical ids.
    pub fn terms_of(&self, symbol: &Symbol) -> impl Iterator<Item = &'e [Id]> {
        let mut found: Vec<&'e [Id]> = Vec::new();
        let mut classes: Vec<Id> = self.egraph.classes_for_op(&symbol.kind()).into_iter().flatten().collect();
        classes.sort_unstable();
        for class in classes {
            let terms = self.egraph[class].iter().filter(|term| term.symbol == *symbol);
            found.extend(terms.map(|term| term.children.as_slice()));
        }
        found.into_iter()
    }

    /// Type of the value of a tree.
    pub fn tree_type(&self, tree: &Tree) -> TensorType {
        self.tree_types(tree)[0].clone()
    }

    fn tree_types(&self, tree: &Tree) -> Vec<TensorType> {
        match tree {
            Tree::Class(class) => self.egraph[*class].data.types.clone(),
            Tree::Term(symbol, children) => {
                let types: Vec<Vec<TensorType>> = children.iter().map(|child| self.tree_types(child)).collect();
                let operands: Vec<&[TensorType]> = types.iter().map(Vec::as_slice).collect();
                result_types(&self.egraph.analysis.leaves, symbol, &operands)
            }
        }
    }
}

/// A head with its operands the other way round, if it means the same.
fn swapped(symbol: &Symbol) -> Option<Symbol> {
    match symbol {
        Symbol::Op(Op::Contract(c)) => {
            let swapped = Contraction { lhs: c.rhs.clone(), rhs: c.lhs.clone(), ..c.clone() };
            Some(Symbol::Op(Op::Contract(swapped)))
        }
        Symbol::Op(Op::Binary(f)) if commutes(*f) => Some(symbol.clone()),
        _ => None,
    }
}

fn commutes(f: Binary) -> bool {
    matches!(f, Binary::Add | Binary::Mul)
}

/// The head of this kind, for kinds without attributes.
fn plain(kind: &str) -> Symbol {
    let op = match kind {
        "neg" => Op::Unary(Unary::Neg),
        "exp" => Op::Unary(Unary::Exp),
        "log" => Op::Unary(Unary::Log),
        "sqrt" => Op::Unary(Unary::Sqrt),
        "rsqrt" => Op::Unary(Unary::Rsqrt),
        "reciprocal" => Op::Unary(Unary::Reciprocal),
        "tanh" => Op::Unary(Unary::Tanh),
        "sigmoid" => Op::Unary(Unary::Sigmoid),
        "add" => Op::Binary(Binary::Add),
        "sub" => Op::Binary(Binary::Sub),
        "mul" => Op::Binary(Binary::Mul),
        "div" => Op::Binary(Binary::Div),
        "select" => Op::Select,
        "result0" => return Symbol::Result(0),
        "result1" => return Symbol::Result(1),
        "result2" => return Symbol::Result(2),
        other => panic!("internal: a rule builds a {other} without saying its attributes"),
    };
    Symbol::Op(op)
}
