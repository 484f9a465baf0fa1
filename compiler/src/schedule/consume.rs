//! Stacked values that are used up where they are made.
//!
//! The backward pass of a repeat leaves the gradients of its parameters stacked, `[N, ...]`, and the optimizer reads them in
//! the root. If all that is done with such a stack is done to each slice by itself, it is done in the repeat instead, right
//! behind what makes the slice, and the stack never exists. What leaves the repeat are the new values of stacked tensors,
//! written in place slice by slice, and sums within slices.
//!
//! A value that the repeat would have to wait for, such as a norm over all gradients, keeps the stack in the root.

use super::{
    dag::{Choices, Dag, Id, Node, Tensor},
    regions::{self, Region, RegionId, Regions},
};
use crate::graph::{Op, ScopeId};
use std::collections::{BTreeMap, BTreeSet};

/// The graph with stacks used up in their repeats.
pub(super) fn consumed(dag: Dag, choices: &Choices) -> Dag {
    let (Some(smallest), Some(regions)) = (choices.consumed_from, regions::assign(&dag)) else { return dag };
    let users = dag.users();
    let search = Search { dag: &dag, regions: &regions, users: &users, smallest, rooted: &choices.rooted };
    let chains: Vec<Chain> = (1..regions.list.len()).flat_map(|region| search.chains(region)).collect();
    if chains.is_empty() { dag } else { Moving::new(&dag, &users, &chains).finish() }
}

/// Root values that are computed from the same stacks, slice by slice.
struct Chain {
    region: Region,
    count: u64,
    /// Ascending; the stacks are among them.
    members: BTreeSet<Id>,
    /// The last of the values that are stacked.
    source: Id,
}

struct Search<'a> {
    dag: &'a Dag,
    regions: &'a Regions,
    users: &'a [Vec<Id>],
    /// Fewest elements of a slice that are worth the launches.
    smallest: u64,
    rooted: &'a BTreeSet<Tensor>,
}

impl Search<'_> {
    /// The chains that can move into a region.
    fn chains(&self, region: RegionId) -> Vec<Chain> {
        let sliceable = self.sliceable(region);
        let mut chain_of: BTreeMap<Id, usize> = BTreeMap::new();
        let mut chains: Vec<BTreeSet<Id>> = Vec::new();
        for id in (0..sliceable.len()).filter(|&id| sliceable[id]) {
            let node = &self.dag.nodes[id];
            let starts = matches!(node.op, Op::Stack { .. }) && self.is_large(id);
            let joined: BTreeSet<usize> = node.operands.iter().filter_map(|x| chain_of.get(x)).copied().collect();
            if !starts && joined.is_empty() {
                continue;
            }
            let chain = joined.first().copied().unwrap_or(chains.len());
            chains.resize(chains.len().max(chain + 1), BTreeSet::new());
            let others: Vec<Id> = joined.iter().skip(1).flat_map(|&other| std::mem::take(&mut chains[other])).collect();
            for member in others.into_iter().chain([id]) {
                chain_of.insert(member, chain);
                chains[chain].insert(member);
            }
        }
        let movable = chains.into_iter().filter(|members| members.iter().all(|&id| self.may_move(id, members)));
        movable.filter(|members| !members.is_empty()).map(|members| self.chain(region, members)).collect()
    }

    fn chain(&self, region: RegionId, members: BTreeSet<Id>) -> Chain {
        let stacks = members.iter().map(|&id| &self.dag.nodes[id]).filter(|node| matches!(node.op, Op::Stack { .. }));
        let source = stacks.map(|stack| stack.operands[0]).max().expect("a chain starts with a stack");
        let region = self.regions.list[region];
        Chain { region, count: self.dag.scopes[region.scope].count, members, source }
    }

    /// By node, whether the slice of a root value can be computed in a region without waiting for more than the region
    /// waits for.
    fn sliceable(&self, region: RegionId) -> Vec<bool> {
        let known = self.known(region);
        let count = self.dag.scopes[self.regions.list[region].scope].count;
        let mut sliceable = vec![false; self.dag.nodes.len()];
        for (id, node) in self.dag.nodes.iter().enumerate() {
            let slices = || node.operands.iter().all(|&operand| sliceable[operand]);
            let stacked = node.scope == 0 && node.shape.first() == Some(&count);
            sliceable[id] = stacked
                && match &node.op {
                    Op::Parameter { .. } | Op::State { .. } => true,
                    Op::Stack { .. } => self.made_by(node.operands[0], region),
                    Op::Broadcast { axes, .. } if !axes.contains(&0) => known(node.operands[0]),
                    Op::Permute { axes } => axes[0] == 0 && slices(),
                    Op::Reduce { axes, .. } => !axes.contains(&0) && slices(),
                    Op::Unary(_) | Op::Binary(_) | Op::Select | Op::ToFloat | Op::ToInteger | Op::StopGradient => {
                        slices()
                    }
                    Op::Broadcast { .. } | Op::Reshape { .. } => slices(),
                    _ => false,
                };
        }
        sliceable
    }

    /// Whether a value is computed in a region or an earlier pass of its scope.
    fn made_by(&self, id: Id, region: RegionId) -> bool {
        let own = self.regions.of[id];
        own == region || self.regions.list[own].comes_before(self.regions.list[region])
    }

    /// Whether all that a root value waits for is awaited by the region as well.
    fn known(&self, region: RegionId) -> impl Fn(Id) -> bool {
        let of_region = (0..self.dag.nodes.len()).filter(|&id| self.regions.of[id] == region);
        let mut awaited = vec![0; self.dag.scopes.len()];
        for id in of_region {
            awaited.iter_mut().zip(&self.regions.after[id]).for_each(|(most, &after)| *most = after.max(*most));
        }
        move |id| self.regions.after[id].iter().zip(&awaited).all(|(after, most)| after <= most)
    }

    fn is_large(&self, id: Id) -> bool {
        let node = &self.dag.nodes[id];
        node.elements() / node.shape[0] >= self.smallest
    }

    /// Whether a member would leave the repeat only as a small stack or as the new value of a tensor.
    fn may_move(&self, id: Id, members: &BTreeSet<Id>) -> bool {
        let outputs = self.dag.outputs.iter().filter(|(_, output)| *output == id);
        let tensors: Vec<Option<Tensor>> = outputs.map(|(output, _)| Tensor::of(output)).collect();
        let in_place = tensors.iter().flatten().all(|tensor| !self.rooted.contains(tensor));
        let elsewhere = tensors.contains(&None)
            || self.dag.carries.values().any(|carry| carry.init == id || carry.next == id)
            || self.users[id].iter().any(|user| !members.contains(user));
        in_place && !(elsewhere && self.is_large(id))
    }
}

/// The graph under reconstruction.
struct Moving<'a> {
    old: &'a Dag,
    chains: &'a [Chain],
    /// By old node: whether it has users in the root.
    stays: Vec<bool>,
    new: Dag,
    /// By old node, where it went.
    placed: Vec<Option<Id>>,
    /// By pass and old node: its slice.
    slices: BTreeMap<(Region, Id), Id>,
}

impl<'a> Moving<'a> {
    fn new(old: &'a Dag, users: &[Vec<Id>], chains: &'a [Chain]) -> Self {
        let named = old.named();
        let mut stays: Vec<bool> = (0..old.nodes.len()).map(|id| named.contains(&id)).collect();
        let moves: BTreeSet<Id> = chains.iter().flat_map(|chain| &chain.members).copied().collect();
        for id in (0..old.nodes.len()).rev() {
            let used = users[id].iter().any(|&user| stays[user] && !moves.contains(&user));
            stays[id] |= used || old.nodes[id].scope != 0;
        }
        let new = Dag { scopes: old.scopes.clone(), ..Dag::default() };
        Self { old, chains, stays, new, placed: vec![None; old.nodes.len()], slices: BTreeMap::new() }
    }

    fn finish(mut self) -> Dag {
        for id in 0..self.old.nodes.len() {
            if self.stays[id] {
                self.place(id);
            }
            for chain in self.chains.iter().filter(|chain| chain.source == id) {
                self.chain(chain);
            }
        }
        let moved: Vec<Id> = self.placed.iter().map(|placed| placed.unwrap_or(Id::MAX)).collect();
        self.new.adopt(self.old, &moved);
        self.new
    }

    /// Puts a node in behind its operands. Scalars that slices need come earlier than they did.
    fn place(&mut self, id: Id) -> Id {
        if let Some(placed) = self.placed[id] {
            return placed;
        }
        let node = &self.old.nodes[id];
        let operands = node.operands.iter().map(|&operand| self.place(operand)).collect();
        let placed = self.new.push(Node { operands, ..node.clone() });
        self.placed[id] = Some(placed);
        placed
    }

    fn chain(&mut self, chain: &Chain) {
        for &id in &chain.members {
            let slice = self.slice(chain, id);
            if self.stays[id] {
                let (op, node) = (Op::Stack { count: chain.count }, self.old.nodes[id].clone());
                self.placed[id] = Some(self.new.push(Node { op, operands: vec![slice], ..node }));
            }
        }
    }

    /// The slice of a root value in the chain's pass.
    fn slice(&mut self, chain: &Chain, id: Id) -> Id {
        if let Some(&slice) = self.slices.get(&(chain.region, id)) {
            return slice;
        }
        let node = &self.old.nodes[id];
        let operands = match &node.op {
            Op::Stack { .. } => return self.place(node.operands[0]),
            Op::Parameter { .. } | Op::State { .. } => vec![self.place(id)],
            Op::Broadcast { axes, .. } if !axes.contains(&0) => vec![self.place(node.operands[0])],
            _ => node.operands.iter().map(|&operand| self.slice(chain, operand)).collect(),
        };
        let Region { scope, pass } = chain.region;
        let (op, shape) = (op_on_slices(&node.op, scope), node.shape[1..].to_vec());
        let slice = self.new.push(Node { op, shape, scope, operands, earliest: pass, ..node.clone() });
        self.slices.insert((chain.region, id), slice);
        slice
    }
}

/// The operation that makes a slice of the result from slices of the operands.
fn op_on_slices(op: &Op, scope: usize) -> Op {
    let behind = |axes: &[usize]| axes.iter().filter(|&&axis| axis != 0).map(|axis| axis - 1).collect::<Vec<usize>>();
    match op {
        Op::Parameter { .. } | Op::State { .. } => Op::Layer { scope: ScopeId(scope as u32) },
        Op::Broadcast { axes, shape } => Op::Broadcast { axes: behind(axes), shape: shape[1..].to_vec() },
        Op::Reduce { kind, axes } => Op::Reduce { kind: *kind, axes: behind(axes) },
        Op::Permute { axes } => Op::Permute { axes: behind(axes) },
        Op::Reshape { shape } => Op::Reshape { shape: shape[1..].to_vec() },
        op => op.clone(),
    }
}
