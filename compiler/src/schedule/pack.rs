//! Gradients of attention that are only ever read side by side are written side by side.
//!
//! One product makes queries, keys and values, so their gradients are concatenated for its own gradients. Attention writes
//! to any view, so each of its gradients goes straight to its part of that value, which is then one more of its results.

use super::{
    coords,
    dag::{Dag, Id},
    select::Sides,
};
use crate::graph::Op;
use std::collections::BTreeSet;
use trainc_kernels::ir::{Exprs, Index};

/// Number of the result that holds the gradients of queries, keys and values.
const PACKED: u32 = 3;

/// A value that is written as a part of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The other one.
    pub whole: Id,
    /// For coordinates of the value (variables from 0 on): those of the other one.
    pub coords: Vec<Index>,
}

/// Turns concatenations of gradients of attention into results of it.
pub(super) fn pack(dag: &mut Dag) {
    let (named, users) = (dag.named(), dag.users());
    let alone = |dag: &Dag, id: Id| {
        let read_by = users[id].iter().filter(|&&user| !matches!(dag.nodes[user].op, Op::Project { .. }));
        read_by.count() == 1 && !named.contains(&id) && !dag.nodes[id].stored && !dag.homes.contains_key(&id)
    };
    for id in 0..dag.nodes.len() {
        if !matches!(dag.nodes[id].op, Op::Concat { .. }) || dag.nodes[id].stored || dag.homes.contains_key(&id) {
            continue;
        }
        if let Some((attention, parts)) = parts(dag, id, &alone) {
            dag.parts.extend(parts);
            dag.nodes[id].op = Op::Project { index: PACKED };
            dag.nodes[id].operands = vec![attention];
        }
    }
}

/// The attention whose gradients are the operands of a concatenation, and where they go.
fn parts(dag: &Dag, id: Id, alone: &dyn Fn(&Dag, Id) -> bool) -> Option<(Id, Vec<(Id, Part)>)> {
    let Op::Concat { axis } = dag.nodes[id].op else { return None };
    let (mut parts, mut start) = (Vec::new(), 0);
    for &operand in &dag.nodes[id].operands {
        let (result, mut coords) = origin(dag, operand, alone)?;
        coords[axis] = coords[axis].clone().add(Index::constant(start));
        start += dag.nodes[operand].shape[axis] as i64;
        parts.push((result, Part { whole: id, coords }));
    }
    let of = |result: Id| match dag.nodes[result].op {
        Op::Project { .. } => dag.nodes[result].operands[0],
        _ => result,
    };
    let attention = of(parts.first()?.0);
    let results: BTreeSet<Id> = parts.iter().map(|(result, _)| *result).collect();
    let together = results.iter().all(|&result| of(result) == attention) && results.len() == parts.len();
    let gradients = matches!(dag.nodes[attention].op, Op::AttentionBackward(_));
    (gradients && together).then_some((attention, parts))
}

/// The value below index maps that nothing else uses, and where its elements are after them.
fn origin(dag: &Dag, mut id: Id, alone: &dyn Fn(&Dag, Id) -> bool) -> Option<(Id, Vec<Index>)> {
    let mut maps = Vec::new();
    while matches!(dag.nodes[id].op, Op::Broadcast { .. } | Op::Permute { .. } | Op::Reshape { .. }) {
        alone(dag, id).then(|| maps.push(id))?;
        id = dag.nodes[id].operands[0];
    }
    alone(dag, id).then_some(())?;
    let extents = &dag.nodes[id].shape;
    let mut coords: Vec<Index> = (0..extents.len() as u32).map(Index::var).collect();
    for map in maps.into_iter().rev() {
        let from = &dag.nodes[dag.nodes[map].operands[0]].shape;
        let to = &dag.nodes[map].shape;
        coords = match &dag.nodes[map].op {
            Op::Permute { axes } => coords::at(&coords, axes),
            Op::Reshape { .. } => coords::reshape(&coords, from, to, extents),
            Op::Broadcast { axes, .. } if from.iter().product::<u64>() == to.iter().product::<u64>() => {
                let of_axis = |axis: usize| axes.iter().position(|&known| known == axis);
                (0..to.len()).map(|axis| of_axis(axis).map_or(Index::constant(0), |at| coords[at].clone())).collect()
            }
            _ => return None,
        };
    }
    let strided =
        |coord: &Index| (0..extents.len() as u32).all(|var| coord.stride_of(var, &Exprs::default()).is_some());
    coords.iter().all(strided).then_some((id, coords))
}

/// The order of axes in which a packed value is best read as a factor of a product: rows first, each in one piece.
pub(super) fn layout(dag: &Dag, whole: Id, users: &[Id]) -> Option<Vec<usize>> {
    dag.parts.values().any(|part| part.whole == whole).then_some(())?;
    let of_user = |&user: &Id| match &dag.nodes[user].op {
        Op::Contract(contraction) if dag.nodes[user].operands[0] == whole => {
            let sides = Sides::of(dag, user, contraction);
            let order = [&sides.batch[..], &sides.m, &sides.k].concat();
            let axis = |label: &u8| contraction.lhs.iter().position(|own| own == label).expect("a label of the factor");
            Some(order.iter().map(axis).collect())
        }
        _ => None,
    };
    users.iter().find_map(of_user)
}
