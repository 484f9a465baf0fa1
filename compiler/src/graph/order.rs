//! In which order values can be computed, with repeats seen as a whole.
//!
//! Ids order nodes within an instance. Across instances a carry needs its `next` of another one, and [`Op::Last`] needs
//! the `next` of the final one. With these edges added, nodes of a repeat that wait for each other form a cycle: a
//! strongly connected component, that is, one loop over the instances. All other nodes are components of their own,
//! those in a scope being computable for all instances at once. Forward and backward parts of a repeat are in one scope,
//! but are different loops.

use super::{Graph, NodeId, Op};
use petgraph::{algo::kosaraju_scc, graph::DiGraph};
use std::{cmp::Reverse, collections::BinaryHeap};

impl Graph {
    /// What a node waits for: its operands, and the `next` of carries.
    pub fn awaits(&self, node: NodeId) -> Vec<NodeId> {
        let mut awaited = self.operands(node);
        match self.node(node).op {
            Op::Carry { .. } => awaited.extend(self.carry(node).next),
            Op::Last => awaited.extend(self.carry(awaited[0]).next),
            _ => {}
        }
        awaited
    }

    /// Strongly connected components, each after those that it waits for; of those that are ready, the one that holds
    /// the smallest id comes first. Ids within a component ascend.
    pub fn components(&self) -> Vec<Vec<NodeId>> {
        let waits: DiGraph<(), (), u32> = self.waits();
        let mut components: Vec<Vec<NodeId>> = kosaraju_scc(&waits);
        components.iter_mut().for_each(|component| component.sort_unstable());
        components.sort_unstable();
        self.sorted(components)
    }

    /// Edges from what is awaited to what waits.
    fn waits(&self) -> DiGraph<(), (), u32> {
        let mut waits = DiGraph::with_capacity(self.len(), self.len() * 2);
        self.ids().for_each(|_| {
            waits.add_node(());
        });
        for node in self.ids() {
            for awaited in self.awaits(node) {
                waits.add_edge(awaited, node, ());
            }
        }
        waits
    }

    /// Kahn's algorithm on components, smallest first.
    fn sorted(&self, mut components: Vec<Vec<NodeId>>) -> Vec<Vec<NodeId>> {
        let mut home = vec![0; self.len()];
        for (index, component) in components.iter().enumerate() {
            component.iter().for_each(|node| home[node.index()] = index);
        }
        let mut users = vec![Vec::new(); components.len()];
        let mut missing = vec![0; components.len()];
        for node in self.ids() {
            for awaited in self.awaits(node) {
                let (from, to) = (home[awaited.index()], home[node.index()]);
                if from != to {
                    users[from].push(to);
                    missing[to] += 1;
                }
            }
        }
        let mut ready: BinaryHeap<Reverse<usize>> =
            (0..components.len()).filter(|&c| missing[c] == 0).map(Reverse).collect();
        let mut sorted = Vec::with_capacity(components.len());
        while let Some(Reverse(component)) = ready.pop() {
            sorted.push(std::mem::take(&mut components[component]));
            for &user in &users[component] {
                missing[user] -= 1;
                if missing[user] == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
        sorted
    }
}
