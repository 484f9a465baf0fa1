//! Durable, all-or-nothing changes of files and directories: write aside, flush to the disk, rename.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces the contents of `path` (or creates it) in one step.
///
/// # Errors
/// From the file system; the old contents are then untouched.
pub fn write_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let aside = aside(path, "partial");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_directory(parent(path))
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

/// Moves a finished directory `from` to `to` in one step; an older `to` is moved away first and removed last.
///
/// # Errors
/// From the file system.
pub fn replace_directory(from: &Path, to: &Path) -> io::Result<()> {
    let old = aside(to, "replaced");
    let replaces = to.exists();
    if replaces {
        fs::rename(to, &old)?;
    }
    fs::rename(from, to)?;
    sync_directory(parent(to))?;
    if replaces {
        fs::remove_dir_all(&old)?;
    }
    Ok(())
}

/// Flushes the names in a directory to the disk.
///
/// # Errors
/// From the file system.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A hidden sibling of `path`.
pub fn aside(path: &Path, purpose: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{purpose}"))
}

/// The folder that a path lies in; the current one for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
