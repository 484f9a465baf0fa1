//! Shape operations: chains become one operation, and what moves no element becomes a broadcast or nothing.
//!
//! Normal forms: a broadcast is never of a broadcast; new axes of extent 1 are a broadcast, not a reshape; permutations
//! stand below broadcasts.

use super::Builder;
use crate::graph::{NodeId, Op, TensorType};

impl Builder {
    pub(super) fn broadcast(&mut self, axes: &[usize], shape: &[u64], x: NodeId) -> Option<NodeId> {
        if self.shape(x) == shape {
            return Some(x);
        }
        match self.op(x).clone() {
            Op::Broadcast { axes: inner, .. } => {
                let axes = inner.iter().map(|&axis| axes[axis]).collect();
                Some(self.build(Op::Broadcast { axes, shape: shape.to_vec() }, &[self.operand(x)]))
            }
            Op::Iota { axis, .. } => Some(self.build(Op::Iota { axis: axes[axis], shape: shape.to_vec() }, &[])),
            _ => None,
        }
    }

    pub(super) fn reshape(&mut self, shape: &[u64], x: NodeId) -> Option<NodeId> {
        if self.shape(x) == shape {
            return Some(x);
        }
        if matches!(self.op(x), Op::Reshape { .. }) {
            return Some(self.build(Op::Reshape { shape: shape.to_vec() }, &[self.operand(x)]));
        }
        if let Some(value) = self.uniform(x) {
            let ty = TensorType { dtype: self.ty(x).dtype, shape: shape.to_vec() };
            return Some(self.fill(value, &ty));
        }
        if let Some((axes, inner)) = self.as_broadcast(x)
            && let Some(axes) = unit_map(self.shape(x), shape).and_then(|map| axes.iter().map(|&a| map[a]).collect())
        {
            return Some(self.build(Op::Broadcast { axes, shape: shape.to_vec() }, &[inner]));
        }
        let axes = inserted_units(self.shape(x), shape)?;
        Some(self.build(Op::Broadcast { axes, shape: shape.to_vec() }, &[x]))
    }

    pub(super) fn permute(&mut self, axes: &[usize], x: NodeId) -> Option<NodeId> {
        if axes.is_sorted() {
            return Some(x);
        }
        let shape: Vec<u64> = axes.iter().map(|&axis| self.shape(x)[axis]).collect();
        let moved: Vec<usize> = axes.iter().copied().filter(|&axis| self.shape(x)[axis] != 1).collect();
        match self.op(x).clone() {
            Op::Permute { axes: inner } => {
                let axes = axes.iter().map(|&axis| inner[axis]).collect();
                Some(self.build(Op::Permute { axes }, &[self.operand(x)]))
            }
            Op::Broadcast { axes: inner, .. } => Some(self.permute_broadcast(axes, &inner, shape, x)),
            Op::Iota { axis, .. } => Some(self.build(Op::Iota { axis: position(axes, axis), shape }, &[])),
            _ if moved.is_sorted() => Some(self.build(Op::Reshape { shape }, &[x])),
            _ => None,
        }
    }

    /// `permute(broadcast(x)) = broadcast(permute(x))`.
    fn permute_broadcast(&mut self, axes: &[usize], inner: &[usize], shape: Vec<u64>, x: NodeId) -> NodeId {
        let mut places: Vec<(usize, usize)> =
            inner.iter().enumerate().map(|(i, &axis)| (position(axes, axis), i)).collect();
        places.sort_unstable();
        let permuted = self.build(Op::Permute { axes: places.iter().map(|&(_, i)| i).collect() }, &[self.operand(x)]);
        self.build(Op::Broadcast { axes: places.iter().map(|&(to, _)| to).collect(), shape }, &[permuted])
    }

    pub(super) fn slice(&mut self, axis: usize, start: u64, length: u64, x: NodeId) -> Option<NodeId> {
        if self.shape(x)[axis] == length {
            return Some(x);
        }
        match self.op(x).clone() {
            Op::Slice { axis: inner, start: from, .. } if inner == axis => {
                Some(self.build(Op::Slice { axis, start: from + start, length }, &[self.operand(x)]))
            }
            Op::Broadcast { axes, mut shape } => {
                shape[axis] = length;
                let mut inner = self.operand(x);
                if let Some(place) = axes.iter().position(|&to| to == axis) {
                    inner = self.build(Op::Slice { axis: place, start, length }, &[inner]);
                }
                Some(self.build(Op::Broadcast { axes, shape }, &[inner]))
            }
            Op::Pad { axis: inner, before, .. } if inner == axis => {
                let padded = self.operand(x);
                let inside = start >= before && start + length <= before + self.shape(padded)[axis];
                inside.then(|| self.build(Op::Slice { axis, start: start - before, length }, &[padded]))
            }
            Op::Concat { axis: inner } if inner == axis => self.slice_concat(axis, start, length, x),
            _ => None,
        }
    }

    /// A slice within one part of a concatenation is a slice of that part.
    fn slice_concat(&mut self, axis: usize, start: u64, length: u64, x: NodeId) -> Option<NodeId> {
        let mut offset = 0;
        for part in self.graph.operands(x) {
            let extent = self.shape(part)[axis];
            if start >= offset && start + length <= offset + extent {
                return Some(self.build(Op::Slice { axis, start: start - offset, length }, &[part]));
            }
            offset += extent;
        }
        None
    }

    pub(super) fn pad(&mut self, axis: usize, before: u64, after: u64, x: NodeId) -> Option<NodeId> {
        match *self.op(x) {
            _ if before == 0 && after == 0 => Some(x),
            Op::Pad { axis: inner, before: b, after: a } if inner == axis => {
                Some(self.build(Op::Pad { axis, before: before + b, after: after + a }, &[self.operand(x)]))
            }
            _ => None,
        }
    }

    pub(super) fn concat(&mut self, axis: usize, parts: &[NodeId]) -> Option<NodeId> {
        if let &[only] = parts {
            return Some(only);
        }
        let nested = |part: &NodeId| matches!(self.op(*part), Op::Concat { axis: inner } if *inner == axis);
        if parts.iter().any(nested) {
            let flat: Vec<NodeId> =
                parts.iter().flat_map(|p| if nested(p) { self.graph.operands(*p) } else { vec![*p] }).collect();
            return Some(self.build(Op::Concat { axis }, &flat));
        }
        self.whole_of_slices(axis, parts)
    }

    /// The slices of a value, one after the other, are the value.
    fn whole_of_slices(&self, axis: usize, parts: &[NodeId]) -> Option<NodeId> {
        let whole = self.graph.operands(*parts.first()?).first().copied()?;
        let mut end = 0;
        for &part in parts {
            match *self.op(part) {
                Op::Slice { axis: a, start, length } if a == axis && start == end && self.operand(part) == whole => {
                    end += length;
                }
                _ => return None,
            }
        }
        (self.shape(whole)[axis] == end).then_some(whole)
    }
}

/// Where `axis` is found.
fn position(axes: &[usize], axis: usize) -> usize {
    axes.iter().position(|&a| a == axis).unwrap_or_else(|| panic!("internal: axis {axis} is not in {axes:?}"))
}

/// For shapes that differ by axes of extent 1 alone: where each axis of `from` is in `to`; `None` for those of extent 1.
fn unit_map(from: &[u64], to: &[u64]) -> Option<Vec<Option<usize>>> {
    let mut targets = (0..to.len()).filter(|&i| to[i] != 1);
    let map: Vec<Option<usize>> = from
        .iter()
        .map(|&extent| if extent == 1 { Some(None) } else { targets.next().filter(|&t| to[t] == extent).map(Some) })
        .collect::<Option<_>>()?;
    targets.next().is_none().then_some(map)
}

/// If `to` is `from` with further axes of extent 1: where the axes of `from` are.
fn inserted_units(from: &[u64], to: &[u64]) -> Option<Vec<usize>> {
    let mut axes = Vec::with_capacity(from.len());
    for (i, &extent) in to.iter().enumerate() {
        if from.get(axes.len()) == Some(&extent) {
            axes.push(i);
        } else if extent != 1 {
            return None;
        }
    }
    (axes.len() == from.len() && to.len() > from.len()).then_some(axes)
}
