//! The maps of characters in a `tokenizer.json` (`Precompiled`, from SentencePiece) say how long they are; the library that reads
//! them makes room by that word, for which no memory may be left. So the word is compared with what is there.

use serde::Deserialize;
use serde_json::Value;

/// The part of a `tokenizer.json` that may hold such maps.
#[derive(Deserialize)]
struct Normalizing {
    #[serde(default)]
    normalizer: Value,
}

/// Refuses a file with a map that is shorter than it says. What else is wrong with a file is found by the library.
pub(super) fn check(json: &[u8]) -> Result<(), String> {
    let Ok(file) = serde_json::from_slice::<Normalizing>(json) else { return Ok(()) };
    match cut_off(&file.normalizer) {
        true => Err("its `precompiled_charsmap` is shorter than it says".to_owned()),
        false => Ok(()),
    }
}

/// Whether a map in it is not all there.
fn cut_off(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            let map = members.get("precompiled_charsmap").and_then(Value::as_str);
            map.is_some_and(map_is_cut_off) || members.values().any(cut_off)
        }
        Value::Array(parts) => parts.iter().any(cut_off),
        _ => false,
    }
}

/// A map is the bytes of its trie, in four bytes, the trie, and the texts that it points to.
fn map_is_cut_off(map: &str) -> bool {
    let Ok(bytes) = base64::decode(map) else { return false };
    let Some((length, rest)) = bytes.split_first_chunk() else { return true };
    u32::from_le_bytes(*length) as usize > rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_says_more_than_it_holds_is_refused() {
        let file = |map: &str| {
            let normalizer =
                r#"{"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "MAP"}]}"#;
            format!(r#"{{"version": "1.0", "normalizer": {}, "model": {{}}}}"#, normalizer.replace("MAP", map))
        };
        let of = |bytes: &[u8]| check(file(&base64::encode(bytes)).as_bytes());
        assert_eq!(of(&[4, 0, 0, 0, 1, 2, 3, 4]), Ok(()));
        assert!(of(&[4, 0, 0, 0, 1, 2, 3]).is_err() && of(&[0, 0]).is_err());
        assert!(of(&[0xff; 8]).is_err(), "4 GB");
        assert_eq!(check(br#"{"normalizer": null}"#), Ok(()));
        assert_eq!(check(b"{"), Ok(()));
    }
}
