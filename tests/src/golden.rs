//! Expected texts in files. `BLESS=1` in the environment writes what is found in place of what was expected; review the
//! difference like prose.

use std::path::Path;

/// Whether expected texts are to be written anew.
pub fn blessing() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value == "1")
}

/// Compares a text with a file, or writes the file. The answer is a complaint, or nothing.
pub fn compare(file: &Path, found: &str) -> Option<String> {
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected == found {
        return None;
    }
    if blessing() {
        std::fs::write(file, found).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        return None;
    }
    let line = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let side = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    Some(format!(
        "{}, line {}:\n  expected: {}\n  found:    {}\nif the new text is right, run the tests with BLESS=1",
        file.display(),
        line + 1,
        side(&expected),
        side(found)
    ))
}
