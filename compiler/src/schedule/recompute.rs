//! Trading time for memory: forward values that the backward pass computes again instead of finding them in memory.

use super::{
    dag::{Dag, Id, Node, is_place},
    regions,
};
use crate::graph::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The graph in which later passes compute the values `recomputed` for themselves, from what is `kept` in memory.
pub(super) fn cloned(dag: &Dag, recomputed: &BTreeSet<NodeId>, kept: &BTreeSet<NodeId>) -> Dag {
    let Some(regions) = regions::assign(dag) else { return dag.clone() };
    let pass: Vec<u32> = regions.of.iter().map(|&region| regions.list[region].pass).collect();
    let mut cloning = Cloning { old: dag, pass, recomputed, kept, moved: Vec::new(), clones: BTreeMap::new() };
    let mut new = Dag { scopes: dag.scopes.clone(), ..Dag::default() };
    for (id, node) in dag.nodes.iter().enumerate() {
        let operands = node.operands.iter().map(|&operand| cloning.operand(&mut new, id, operand)).collect();
        let position = new.push(Node { operands, ..node.clone() });
        cloning.moved.push(position);
    }
    new.adopt(dag, &cloning.moved);
    new
}

struct Cloning<'a> {
    old: &'a Dag,
    pass: Vec<u32>,
    recomputed: &'a BTreeSet<NodeId>,
    kept: &'a BTreeSet<NodeId>,
    moved: Vec<Id>,
    /// By old node and pass.
    clones: BTreeMap<(Id, u32), Id>,
}

impl Cloning<'_> {
    /// What stands for `operand` where `user` uses it.
    fn operand(&mut self, new: &mut Dag, user: Id, operand: Id) -> Id {
        let (scope, pass) = (self.old.nodes[user].scope, self.pass[user]);
        self.version(new, operand, scope, pass)
    }

    /// The version of a value that a pass of a scope uses: that of an earlier pass if it is kept, else its own.
    fn version(&mut self, new: &mut Dag, id: Id, scope: usize, pass: u32) -> Id {
        let node = &self.old.nodes[id];
        let elsewhere = node.scope != scope || scope == 0 || self.pass[id] >= pass;
        let in_memory =
            is_place(&node.op) || (self.kept.contains(&node.origin) && !self.recomputed.contains(&node.origin));
        if elsewhere || in_memory {
            return self.moved[id];
        }
        if let Some(&clone) = self.clones.get(&(id, pass)) {
            return clone;
        }
        let operands = node.operands.iter().map(|&operand| self.version(new, operand, scope, pass)).collect();
        let clone = new.push(Node { operands, earliest: pass, ..node.clone() });
        self.clones.insert((id, pass), clone);
        clone
    }
}
