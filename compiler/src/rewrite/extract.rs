//! Extraction: which term of each e-class the graph is built from.
//!
//! What is minimised is the cost of the DAG: a term that many use is paid once. (The cost of the tree grows
//! exponentially along a residual stream and, in a training graph, buys a forward value twice; see the tests.) Optimal
//! DAG extraction is NP-hard; here a greedy choice (each class keeps the cheapest closure of terms it has seen, as in
//! extraction-gym's `faster-greedy-dag`) is improved until no move helps. A move makes all classes that can use one class
//! use it (all results of an attention gradient at once), or changes the term of one class.

use super::{
    cost::{Machine, NEVER, cost, work},
    language::{Egraph, Symbol, Term},
};
use crate::graph::Op;
use egg::{Id, Language};
use std::collections::BTreeMap;

/// A class's place in [`Problem`].
type Index = usize;

/// The e-graph as numbers.
struct Problem {
    classes: Vec<Vec<Choice>>,
    index: BTreeMap<Id, Index>,
}

/// A term.
struct Choice {
    children: Vec<Index>,
    cost: u128,
    term: Term,
}

/// The chosen terms of all classes that the roots need, and what they cost together.
pub struct Extraction {
    /// By canonical class.
    pub terms: BTreeMap<Id, Term>,
    /// Picoseconds of the modelled machine.
    pub cost: u128,
    /// The same of the source.
    pub source_cost: u128,
}

/// Which choice of each class, if one is known.
type Selection = Vec<Option<usize>>;

/// The cheapest graph found for these classes, at most as dear as the source: the terms that the e-graph was made from.
pub fn extract(egraph: &Egraph, machine: &Machine, source: &[Id], roots: &[Id]) -> Extraction {
    let problem = Problem::new(egraph, machine);
    let roots = problem.indices(egraph, roots);
    let source = problem.source(egraph, source);
    let source_cost = problem.total(&source, &roots).unwrap_or_else(|| panic!("internal: the source is no graph"));
    let best = problem.best(source, &roots).unwrap_or_else(|| panic!("internal: nothing to extract"));
    problem.extraction(&best, &roots, source_cost)
}

/// For each term of a class, the cheapest graph found that computes the class by it. Terms that no graph can use (helpers,
/// and those that need the class itself) are left out, and so are those with which the class is better not computed.
pub fn alternatives(egraph: &Egraph, machine: &Machine, source: &[Id], roots: &[Id], class: Id) -> Vec<Extraction> {
    let mut problem = Problem::new(egraph, machine);
    let roots = problem.indices(egraph, roots);
    let class = egraph.find(class);
    let index = problem.index[&class];
    let found = std::mem::take(&mut problem.classes[index]).into_iter().filter_map(|choice| {
        problem.classes[index] = vec![choice];
        let mut start = problem.source(egraph, source);
        start[index] = Some(0);
        problem.complete(&mut start);
        let best = problem.best(start, &roots)?;
        let extraction = problem.extraction(&best, &roots, 0);
        extraction.terms.contains_key(&class).then_some(extraction)
    });
    found.collect()
}

/// Floating-point operations, and bytes to and from memory, of the chosen terms together.
pub fn work_of(egraph: &Egraph, extraction: &Extraction) -> [u128; 2] {
    let of_term = |(class, term): (&Id, &Term)| {
        let operands: Vec<_> = term.children().iter().map(|child| egraph[*child].data.types.as_slice()).collect();
        work(term, &egraph[*class].data.types, &operands)
    };
    let works = extraction.terms.iter().filter_map(of_term);
    works.fold([0, 0], |[flops, bytes], work| [flops + work.flops(), bytes + work.bytes()])
}

fn term_cost(egraph: &Egraph, machine: &Machine, term: &Term, class: Id) -> u128 {
    let operands: Vec<_> = term.children().iter().map(|child| egraph[*child].data.types.as_slice()).collect();
    cost(machine, term, &egraph[class].data.types, &operands)
}

impl Problem {
    fn new(egraph: &Egraph, machine: &Machine) -> Self {
        let mut ids: Vec<Id> = egraph.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let index: BTreeMap<Id, Index> = ids.iter().enumerate().map(|(index, id)| (*id, index)).collect();
        let choices = |id: &Id| {
            let mut terms: Vec<Term> = egraph[*id].nodes.clone();
            terms.sort_unstable();
            let choice = |term: Term| {
                let children: Vec<Index> = term.children().iter().map(|child| index[&egraph.find(*child)]).collect();
                Choice { children, cost: term_cost(egraph, machine, &term, *id), term }
            };
            terms.into_iter().map(choice).filter(|choice| choice.cost < NEVER).collect()
        };
        Self { classes: ids.iter().map(choices).collect(), index }
    }

    fn indices(&self, egraph: &Egraph, classes: &[Id]) -> Vec<Index> {
        classes.iter().map(|class| self.index[&egraph.find(*class)]).collect()
    }

    /// The cheapest selection found from the source and from the greedy one; `None` if neither is a graph.
    fn best(&self, source: Selection, roots: &[Index]) -> Option<Selection> {
        let improved = [source, self.greedy()].into_iter().filter_map(|start| self.improved(start, roots));
        improved.min_by_key(|(_, cost)| *cost).map(|(selection, _)| selection)
    }

    /// The terms that the e-graph was made from.
    fn source(&self, egraph: &Egraph, source: &[Id]) -> Selection {
        let mut selection = vec![None; self.classes.len()];
        for &id in source {
            let class = self.index[&egraph.find(id)];
            let term = egraph.id_to_node(id).clone().map_children(|child| egraph.find(child));
            let choice = self.classes[class].iter().position(|choice| choice.term == term);
            selection[class] = selection[class].or(choice);
        }
        selection
    }

    /// For each class the term with the cheapest closure seen: the terms below it, each counted once.
    fn greedy(&self) -> Selection {
        let mut best: Vec<Option<Closure>> = vec![None; self.classes.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for class in 0..self.classes.len() {
                for choice in 0..self.classes[class].len() {
                    let Some(closure) = self.closure(class, choice, &best) else { continue };
                    let better = best[class].as_ref().is_none_or(|known| closure.cost < known.cost);
                    if better {
                        best[class] = Some(closure);
                        changed = true;
                    }
                }
            }
        }
        best.into_iter().map(|known| known.map(|closure| closure.choice)).collect()
    }

    /// All that a choice needs, if that is known and does not include its own class.
    fn closure(&self, class: Index, choice: usize, best: &[Option<Closure>]) -> Option<Closure> {
        let mut members = BitSet::new(self.classes.len());
        for &child in &self.classes[class][choice].children {
            members.extend(&best[child].as_ref()?.members);
        }
        if members.contains(class) {
            return None;
        }
        let chosen = |member: Index| best[member].as_ref().map_or(0, |known| self.classes[member][known.choice].cost);
        let cost = members.iter().map(chosen).sum::<u128>() + self.classes[class][choice].cost;
        members.insert(class);
        Some(Closure { choice, members, cost })
    }

    /// Moves until none helps, and the cost then; `None` if the start is no graph. Every round visits all moves in order,
    /// so the result is determined.
    fn improved(&self, mut selection: Selection, roots: &[Index]) -> Option<(Selection, u128)> {
        let mut cost = self.total(&selection, roots)?;
        let moves = self.moves();
        let mut changed = true;
        while changed {
            changed = false;
            for step in &moves {
                if step.iter().all(|&(class, choice)| selection[class] == Some(choice)) {
                    continue;
                }
                let mut candidate = selection.clone();
                step.iter().for_each(|&(class, choice)| candidate[class] = Some(choice));
                self.complete(&mut candidate);
                if let Some(total) = self.total(&candidate, roots).filter(|total| *total < cost) {
                    (selection, cost, changed) = (candidate, total, true);
                }
            }
        }
        Some((selection, cost))
    }

    /// Classes without a choice yet take their only or first one: new classes that a move leads to.
    fn complete(&self, selection: &mut Selection) {
        for (class, choice) in selection.iter_mut().enumerate() {
            *choice = choice.or((!self.classes[class].is_empty()).then_some(0));
        }
    }

    /// Sets of new choices: for each class, all terms that use it; and every term by itself.
    fn moves(&self) -> Vec<Vec<(Index, usize)>> {
        let mut joint: BTreeMap<Index, Vec<(Index, usize)>> = BTreeMap::new();
        let mut single = Vec::new();
        for (class, choices) in self.classes.iter().enumerate().filter(|(_, choices)| choices.len() > 1) {
            for (number, choice) in choices.iter().enumerate() {
                single.push(vec![(class, number)]);
                for user in self.used(choice) {
                    joint.entry(user).or_default().push((class, number));
                }
            }
        }
        joint.into_values().filter(|step| step.len() > 1).chain(single).collect()
    }

    /// The classes that a choice uses, also through views of them.
    fn used(&self, choice: &Choice) -> Vec<Index> {
        let mut used = choice.children.clone();
        let mut next = 0;
        while let Some(&class) = used.get(next) {
            if let [only] = self.classes[class].as_slice()
                && is_view(&only.term)
            {
                used.extend(&only.children);
            }
            next += 1;
        }
        used
    }

    /// Cost of all that the roots need under a selection; `None` if it is incomplete or goes round in circles.
    fn total(&self, selection: &Selection, roots: &[Index]) -> Option<u128> {
        let order = self.order(selection, roots)?;
        Some(order.iter().map(|&(class, choice)| self.classes[class][choice].cost).sum())
    }

    /// The classes that the roots need with their choices, operands first.
    fn order(&self, selection: &Selection, roots: &[Index]) -> Option<Vec<(Index, usize)>> {
        let mut state = vec![Visit::New; self.classes.len()];
        let mut order = Vec::new();
        let mut pending: Vec<(Index, bool)> = roots.iter().rev().map(|&root| (root, false)).collect();
        while let Some((class, leaving)) = pending.pop() {
            let choice = selection[class]?;
            if leaving {
                state[class] = Visit::Done;
                order.push((class, choice));
                continue;
            }
            match state[class] {
                Visit::Done => continue,
                Visit::Open => return None,
                Visit::New => state[class] = Visit::Open,
            }
            pending.push((class, true));
            for &child in self.classes[class][choice].children.iter().rev() {
                match state[child] {
                    Visit::Open => return None,
                    Visit::New => pending.push((child, false)),
                    Visit::Done => {}
                }
            }
        }
        Some(order)
    }

    fn extraction(&self, selection: &Selection, roots: &[Index], source_cost: u128) -> Extraction {
        let order = self.order(selection, roots).unwrap_or_else(|| panic!("internal: nothing to extract"));
        let ids: Vec<Id> = self.index.keys().copied().collect();
        let chosen = |&(class, choice): &(Index, usize)| (ids[class], self.classes[class][choice].term.clone());
        let cost = order.iter().map(|&(class, choice)| self.classes[class][choice].cost).sum();
        Extraction { terms: order.iter().map(chosen).collect(), cost, source_cost }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    Open,
    Done,
}

/// Whether a term only shows another value in another way.
fn is_view(term: &Term) -> bool {
    matches!(
        term.symbol,
        Symbol::Result(_) | Symbol::Op(Op::Permute { .. } | Op::Reshape { .. } | Op::Broadcast { .. })
    )
}

/// A choice with all that is below it.
#[derive(Clone)]
struct Closure {
    choice: usize,
    members: BitSet,
    cost: u128,
}

#[derive(Clone)]
struct BitSet(Vec<u64>);

impl BitSet {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn contains(&self, i: usize) -> bool {
        self.0[i / 64] & (1 << (i % 64)) != 0
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |word: u64| (0..64).filter(move |bit| word & (1 << bit) != 0);
        self.0.iter().enumerate().flat_map(move |(i, &word)| bits(word).map(move |bit| i * 64 + bit))
    }

    fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A problem from the costs and operands of each class's choices.
    fn problem(classes: &[&[(u128, &[Index])]]) -> Problem {
        let term = || Term::new(Symbol::Leaf(0), []);
        let choice = |&(cost, children): &(u128, &[Index])| Choice { children: children.to_vec(), cost, term: term() };
        let classes: Vec<Vec<Choice>> = classes.iter().map(|choices| choices.iter().map(choice).collect()).collect();
        let index = (0..classes.len()).map(|class| (Id::from(class), class)).collect();
        Problem { classes, index }
    }

    fn best(problem: &Problem, roots: &[Index]) -> u128 {
        problem.improved(problem.greedy(), roots).expect("something to extract").1
    }

    #[test]
    fn a_forward_value_that_backward_shares_is_not_fused_away() {
        // x; linear(x); gelu(linear(x)) or both in one; the derivative of gelu at linear(x). By the cost of trees the fused
        // form wins, and linear(x) is computed twice: 105 + 100 + 11.
        let shared = problem(&[&[(0, &[])], &[(100, &[0])], &[(105, &[0]), (20, &[1])], &[(11, &[1])]]);
        assert_eq!(best(&shared, &[2, 3]), 131);
        assert_eq!(best(&shared, &[2]), 105);
    }

    #[test]
    fn the_cost_of_a_residual_stream_grows_by_the_block() {
        // y = x + f(g(x)), where f after g has a form that is cheaper by 1: lost beyond 2^53 in a tree cost of f64, and
        // beyond block 19 a tree cost of 64 bits overflows.
        let stream = |blocks: usize| {
            let mut classes: Vec<Vec<(u128, Vec<Index>)>> = vec![vec![(0, vec![])]];
            for _ in 0..blocks {
                let x = classes.len() - 1;
                classes.push(vec![(500, vec![x, x])]);
                classes.push(vec![(280, vec![x + 1, x + 1]), (279, vec![x + 1, x])]);
                classes.push(vec![(10, vec![x, x + 2])]);
            }
            let borrowed: Vec<Vec<(u128, &[Index])>> = classes
                .iter()
                .map(|choices| choices.iter().map(|(cost, on)| (*cost, on.as_slice())).collect())
                .collect();
            let slices: Vec<&[(u128, &[Index])]> = borrowed.iter().map(Vec::as_slice).collect();
            best(&problem(&slices), &[classes.len() - 1])
        };
        for blocks in [1, 16, 32, 64] {
            assert_eq!(stream(blocks), 789 * blocks as u128);
        }
    }

    #[test]
    fn a_class_in_a_cycle_keeps_the_term_that_leads_out() {
        let cyclic = problem(&[&[(1, &[1])], &[(50, &[]), (1, &[0])]]);
        assert_eq!(best(&cyclic, &[0]), 51);
        assert_eq!(best(&cyclic, &[1]), 50);
    }

    #[test]
    fn an_operation_with_several_results_is_chosen_for_all_of_them_at_once() {
        // Three gradients at 20 each, or 50 for one operation that yields them all: no single switch helps.
        let results = problem(&[
            &[(0, &[])],
            &[(50, &[0])],
            &[(20, &[0]), (0, &[1])],
            &[(20, &[0]), (0, &[1])],
            &[(20, &[0]), (0, &[1])],
        ]);
        assert_eq!(results.improved(vec![Some(0); 5], &[2, 3, 4]).map(|(_, cost)| cost), Some(50));
    }
}
