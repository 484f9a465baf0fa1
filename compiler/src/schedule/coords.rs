//! Coordinates: one index expression per axis of a value, and their maps between shapes.

use trainc_kernels::ir::Index;

/// The row-major position of coordinates. Axes of one element are left out: a vector and a matrix of one row that share
/// memory have the same positions.
pub(super) fn flatten(coords: &[Index], shape: &[u64]) -> Index {
    let mut flat = Index::constant(0);
    let mut stride = 1;
    for (coord, &extent) in coords.iter().zip(shape).rev().filter(|(_, extent)| **extent != 1) {
        flat = flat.add(coord.clone().mul(stride));
        stride *= extent as i64;
    }
    flat
}

/// The coordinates of a row-major position.
pub(super) fn unflatten(flat: &Index, shape: &[u64], extents: &[u64]) -> Vec<Index> {
    let mut stride: i64 = shape.iter().product::<u64>() as i64;
    let mut coords = Vec::with_capacity(shape.len());
    for (axis, &extent) in shape.iter().enumerate() {
        stride /= extent.max(1) as i64;
        let coord = flat.clone().div(stride.max(1), extents);
        coords.push(if axis == 0 { coord } else { coord.mod_(extent as i64, extents) });
    }
    coords
}

/// The same element's coordinates after a reshape. Axes that the shapes share are left alone, so that what cannot be
/// simplified on one axis does not spoil another.
pub(super) fn reshape(coords: &[Index], from: &[u64], to: &[u64], extents: &[u64]) -> Vec<Index> {
    if from == to {
        return coords.to_vec();
    }
    let mut result = Vec::with_capacity(to.len());
    let (mut a, mut b) = (0, 0);
    while a < from.len() || b < to.len() {
        let (first_a, first_b) = (a, b);
        let (mut left, mut right) = (take(from, &mut a), take(to, &mut b));
        while left != right {
            if left < right {
                left *= take(from, &mut a);
            } else {
                right *= take(to, &mut b);
            }
        }
        if from[first_a..a] == to[first_b..b] {
            result.extend_from_slice(&coords[first_a..a]);
        } else {
            let flat = flatten(&coords[first_a..a], &from[first_a..a]);
            result.extend(unflatten(&flat, &to[first_b..b], extents));
        }
    }
    result
}

/// The next extent; 1 after the last axis.
fn take(shape: &[u64], next: &mut usize) -> u64 {
    let extent = shape.get(*next).copied().unwrap_or(1);
    *next = (*next + 1).min(shape.len());
    extent
}

/// Where an operand's axes are read in a broadcast result.
pub(super) fn at(coords: &[Index], axes: &[usize]) -> Vec<Index> {
    axes.iter().map(|&axis| coords[axis].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_there_and_back_changes_nothing() {
        let extents = [6, 10, 4];
        let coords: Vec<Index> = (0..3).map(Index::var).collect();
        for to in [&[60, 4][..], &[6, 40], &[240], &[3, 2, 5, 2, 4], &[12, 20], &[6, 10, 1, 4]] {
            let there = reshape(&coords, &extents, to, &extents);
            assert_eq!(there.len(), to.len());
            assert_eq!(reshape(&there, to, &extents, &extents), coords, "through {to:?}");
        }
    }
}
