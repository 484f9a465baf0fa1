//! "Did you mean ...?"

/// The candidate that `word` most probably misspells: equal but for case, or else the nearest by edit distance (insert,
/// delete, replace, swap neighbours) within a third of the word's length, at least one. Ties go to the candidate that
/// comes first, so a deterministic order of candidates gives a deterministic answer.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    let limit = (typed.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().filter(|candidate| *candidate != word) {
        let meant: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let near = meant.len().abs_diff(typed.len()) <= limit && typed.len().min(meant.len()) > 1;
        let distance = if near || typed == meant { edit_distance(&typed, &meant) } else { usize::MAX };
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance, with three rows of the table at a time.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn the_nearest_name_within_a_third_of_the_length_is_meant() {
        let names = ["attention", "adamw", "ffn", "layer_norm", "rms_norm"];
        assert_eq!(did_you_mean("atention", names), Some("attention"));
        assert_eq!(did_you_mean("AdamW", names), Some("adamw"));
        assert_eq!(did_you_mean("adawm", names), Some("adamw"));
        assert_eq!(did_you_mean("layernorm", names), Some("layer_norm"));
        assert_eq!(did_you_mean("ffm", names), Some("ffn"));
        assert_eq!(did_you_mean("convolution", names), None);
        assert_eq!(did_you_mean("x", ["y", "z"]), None);
        assert_eq!(did_you_mean("abc", ["abd", "abe"]), Some("abd"));
    }
}
