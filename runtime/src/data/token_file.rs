//! Files of raw token ids have no header: what they are not must be seen by what they hold.

use super::DataError;
use super::signature::Kind;
use super::store::Width;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes looked at, from the beginning on.
const HEAD_BYTES: usize = 1 << 16;

/// First numbers of the headers, of 256 numbers of 4 bytes, that llm.c writes before ids of 2 and of 4 bytes.
const LLM_C: [u32; 2] = [20_240_520, 20_240_801];

/// Fewest wide ids that tell how wide they are.
const MIN_WIDE_IDS: usize = 16;

/// Refuses a file of `bytes` bytes that does not hold ids of this width alone.
pub(super) fn check(path: &Path, file: &File, bytes: u64, width: Width) -> Result<(), DataError> {
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(bytes).unwrap_or(HEAD_BYTES))];
    file.read_exact_at(&mut head, 0).map_err(DataError::io(path))?;
    let problem = foreign(&head).or_else(|| wider(&head, width)).or_else(|| {
        let rest = bytes % width.bytes() as u64;
        (rest != 0).then(|| format!("its {bytes} bytes are not a whole number of {}-byte tokens", width.bytes()))
    });
    problem.map_or(Ok(()), |problem| Err(DataError::file(path, problem)))
}

/// Why these are no raw ids at all. A mark of UTF-16 is not told from an id.
fn foreign(head: &[u8]) -> Option<String> {
    if let Some(kind) = Kind::of(head).filter(|&kind| kind != Kind::Utf16) {
        return Some(kind.instead_of("raw token ids"));
    }
    let first = u32::from_le_bytes(*head.first_chunk()?);
    LLM_C.contains(&first).then(|| {
        "it begins with the header of llm.c, 1024 bytes that are no tokens: cut them off, as `tail -c +1025` does"
            .to_owned()
    })
}

/// Why these ids are wider: all bytes above the width are zero in each of them.
fn wider(head: &[u8], width: Width) -> Option<String> {
    let width = width.bytes();
    let is_wide = |wide: usize| {
        let ids = head.chunks_exact(wide);
        let narrow = |id: &[u8]| id[width..].iter().all(|&byte| byte == 0);
        wide > width && ids.len() >= MIN_WIDE_IDS && ids.clone().all(narrow) && !head.iter().all(|&byte| byte == 0)
    };
    let remedy = |wide| if wide == 4 { "say `width 4`" } else { "write them with 4 bytes each" };
    let wide = [8, 4].into_iter().find(|&wide| is_wide(wide))?;
    Some(format!("its ids have {wide} bytes, not {width}, since every other one would be 0: {}", remedy(wide)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(ids: impl Iterator<Item = u64>, width: usize) -> Vec<u8> {
        ids.flat_map(|id| id.to_le_bytes()[..width].to_vec()).collect()
    }

    #[test]
    fn wide_ids_are_told_from_narrow_ones() {
        for wide in [2, 4, 8] {
            let head = written((0..100).map(|id| id * 500), wide);
            let says = |width| wider(&head, width).map(|problem| problem.contains(&format!("have {wide} bytes")));
            assert_eq!(says(Width::Two), (wide > 2).then_some(true));
            assert_eq!(says(Width::Four), (wide > 4).then_some(true));
        }
        assert_eq!(wider(&[0; 1000], Width::Two), None, "zeros are ids of any width");
        assert_eq!(wider(&written([5, 0].into_iter(), 2), Width::Two), None, "two ids may be anything");
    }
}
