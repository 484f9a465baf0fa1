//! File patterns: globs, `~`, and paths relative to the program.

use super::DataError;
use std::path::{Path, PathBuf};

/// Resolves `~` and relative paths (against `base`).
pub fn resolve(path: &str, base: &Path) -> Result<PathBuf, DataError> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(base.join(path)) };
    let home = std::env::var_os("HOME").ok_or_else(|| DataError::NoHome { pattern: path.to_owned() })?;
    Ok(Path::new(&home).join(rest.trim_start_matches('/')))
}

/// All files that the patterns match, in sorted order pattern by pattern, each file once.
pub fn expand(patterns: &[String], base: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let mut matches = matches(pattern, base)?;
        matches.sort();
        files.extend(matches);
    }
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn matches(pattern: &str, base: &Path) -> Result<Vec<PathBuf>, DataError> {
    let full = resolve(pattern, base)?;
    let full = full.to_str().ok_or_else(|| DataError::Pattern {
        pattern: pattern.to_owned(),
        reason: "the path is not UTF-8".to_owned(),
    })?;
    // A path that exists is that file, whatever brackets its name has.
    if Path::new(full).is_file() {
        return Ok(vec![full.into()]);
    }
    let found = glob::glob(full)
        .map_err(|error| DataError::Pattern { pattern: pattern.to_owned(), reason: error.to_string() })?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            DataError::Io { path, error: error.into() }
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() { Err(DataError::NoFiles { pattern: full.to_owned() }) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_expand_in_sorted_order_without_repeats() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", "c.bin"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let names = |patterns: &[&str]| {
            let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            let files = expand(&patterns, folder.path()).unwrap();
            files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["*.txt"]), ["a.txt", "b.txt"]);
        assert_eq!(names(&["c.bin", "*"]), ["c.bin", "a.txt", "b.txt"]);
        let error = expand(&["*.rs".to_owned()], folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("no file matches"), "{error}");
        assert!(matches!(expand(&["***".to_owned()], folder.path()), Err(DataError::Pattern { .. })));
    }
}
