//! Removal of what no output needs.

use super::{Graph, NodeId, Op, ScopeId};

impl Graph {
    /// The graph without the nodes and carries that no output depends on, and where each node went. Scopes keep their
    /// ids, nodes their order.
    pub fn prune(&self) -> (Graph, Vec<Option<NodeId>>) {
        let live = self.live();
        let mut pruned = Graph::new(self.scope(ScopeId::ROOT).name.clone());
        for (_, scope) in self.scopes().skip(1) {
            pruned.add_scope(scope.name.clone(), scope.count);
        }
        let mut places: Vec<Option<NodeId>> = vec![None; self.len()];
        for node in self.ids().filter(|node| live[node.index()]) {
            places[node.index()] = Some(self.move_node(node, &mut pruned, &places));
        }
        let place = |node: NodeId| places[node.index()].expect("what is needed has a place");
        for carry in self.scopes().flat_map(|(_, scope)| &scope.carries).filter(|carry| live[carry.node.index()]) {
            if let Some(next) = carry.next {
                pruned.set_next(place(carry.node), place(next));
            }
        }
        for (output, node) in self.outputs() {
            pruned.set_output(output.clone(), place(*node));
        }
        (pruned, places)
    }

    fn move_node(&self, node: NodeId, to: &mut Graph, places: &[Option<NodeId>]) -> NodeId {
        let operands: Vec<NodeId> = self.operands(node).iter().filter_map(|operand| places[operand.index()]).collect();
        let moved = match self.node(node).op {
            Op::Carry { scope, .. } => to.add_carry(scope, operands[0], self.carry(node).reversed),
            ref op => to.add(op.clone(), &operands),
        };
        to.set_span(moved, self.node(node).span);
        moved
    }

    /// By node, whether some output depends on it.
    pub fn live(&self) -> Vec<bool> {
        self.needed_by(self.output_nodes())
    }

    /// By node, whether some of these depend on it; they depend on themselves.
    pub fn needed_by(&self, wanted: impl IntoIterator<Item = NodeId>) -> Vec<bool> {
        let mut needed = vec![false; self.len()];
        let mut pending: Vec<NodeId> = wanted.into_iter().collect();
        while let Some(node) = pending.pop() {
            if !std::mem::replace(&mut needed[node.index()], true) {
                pending.extend(self.awaits(node));
            }
        }
        needed
    }
}
