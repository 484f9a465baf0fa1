//! File patterns: globs, `~`, and paths relative to the program.

use super::DataError;
use crate::files;
use std::path::{Path, PathBuf};

/// Resolves `~` and relative paths (against `base`).
pub fn resolve(path: &str, base: &Path) -> Result<PathBuf, DataError> {
    Ok(match path.strip_prefix('~') {
        Some(rest) => home(path)?.join(rest.trim_start_matches('/')),
        None => base.join(path),
    })
}

fn home(pattern: &str) -> Result<PathBuf, DataError> {
    let home = std::env::var_os("HOME").ok_or_else(|| DataError::NoHome { pattern: pattern.to_owned() })?;
    Ok(home.into())
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
    let plain = resolve(pattern, base)?;
    // A path that exists is that file, whatever brackets its name has.
    if let Ok(metadata) = std::fs::metadata(&plain) {
        return match files::other_kind(metadata.file_type()) {
            None => Ok(vec![plain]),
            Some(kind) if metadata.is_dir() => {
                Err(DataError::file(plain, format!("it is {kind}: write `{pattern}/*` for the files in it")))
            }
            Some(kind) => Err(DataError::file(plain, format!("it is {kind}, not a regular file"))),
        };
    }
    let found = glob::glob(&glob_of(pattern, base)?)
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
    if files.is_empty() { Err(DataError::NoFiles { pattern: plain.display().to_string() }) } else { Ok(files) }
}

/// The pattern as a whole: what the program says may have wildcards, the folder that it starts at means itself.
fn glob_of(pattern: &str, base: &Path) -> Result<String, DataError> {
    let (folder, rest) = match pattern.strip_prefix('~') {
        Some(rest) => (home(pattern)?, rest.trim_start_matches('/')),
        None => (base.to_owned(), pattern),
    };
    let folder = folder.to_str().ok_or_else(|| DataError::Pattern {
        pattern: pattern.to_owned(),
        reason: "the path is not UTF-8".to_owned(),
    })?;
    Ok(Path::new(&glob::Pattern::escape(folder)).join(rest).to_string_lossy().into_owned())
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

    #[test]
    fn a_folder_with_brackets_in_its_name_is_that_folder() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("proj [v2] {a,b} *");
        std::fs::create_dir(&base).unwrap();
        std::fs::write(base.join("a[1].txt"), "a").unwrap();
        std::fs::write(base.join("b.txt"), "b").unwrap();
        let count = |pattern: &str| expand(&[pattern.to_owned()], &base).map(|files| files.len());
        assert_eq!([count("*.txt").unwrap(), count("a[1].txt").unwrap(), count("[ab].txt").unwrap()], [2, 1, 1]);
        assert!(expand(&["proj [v2]*/*.txt".to_owned()], folder.path()).is_err(), "a program's brackets are a pattern");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("texts")).unwrap();
        let complaint = |pattern: &str| expand(&[pattern.to_owned()], folder.path()).unwrap_err().to_string();
        assert!(complaint("texts").ends_with("it is a folder: write `texts/*` for the files in it"));
        assert!(complaint("/dev/zero").ends_with("it is a device, not a regular file"));
    }
}
