//! Which thread and which bits hold the metadata of a group of elements of a sparse A.

use super::warp::Lanes;
use crate::syntax::tree::Type;

/// The lane and its four bits for a row and a group of four columns (of two for tf32); `None` if the selector is out of
/// range.
///
/// PTX ISA, "Sparse Matrix multiply-accumulate: metadata fragments". Rows r and r + 8 belong to quad r % 8.
pub fn nibble(
    metadata: &Lanes<u32>,
    input: Type,
    k: usize,
    selector: u8,
    row: usize,
    group: usize,
) -> Option<(usize, u32)> {
    let quad = row % 8;
    let upper = row / 8;
    let small = (input == Type::Tf32 && k == 8) || (input != Type::Tf32 && k == 16);
    let (lane, position) = if small {
        // One thread of the quad: its lower 16 bits for the row, its upper ones for the row eight below.
        if selector > 3 {
            return None;
        }
        (4 * quad + selector as usize, 4 * upper + group)
    } else {
        // A pair of threads: the first for columns of the lower half of k, the second for the upper half.
        if selector > 1 {
            return None;
        }
        (4 * quad + 2 * selector as usize + group / 4, 4 * upper + group % 4)
    };
    Some((lane, metadata[lane] >> (4 * position) & 15))
}
