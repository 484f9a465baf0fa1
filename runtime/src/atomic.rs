//! Durable, all-or-nothing changes of files and directories: write aside, flush to the disk, rename.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces the contents of `path` (or creates it) in one step. Links are followed: it is the file at their end that changes.
/// What is no file, such as `/dev/stdout` or a named pipe, stays what it is and is written to.
///
/// # Errors
/// From the file system; the old contents are then untouched.
pub fn write_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return File::options().write(true).open(path)?.write_all(contents);
    }
    let end = end_of_links(path);
    replace_file(&end, contents)
}

/// The path behind symbolic links, which may lead to a file that is not there yet.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    // As many as the system follows; what is a circle then fails as one.
    for _ in 0..40 {
        match fs::read_link(&end) {
            Ok(target) => end = parent(&end).join(target),
            Err(_) => break,
        }
    }
    end
}

fn replace_file(path: &Path, contents: &[u8]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, symlink};

    #[test]
    fn what_is_no_file_is_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [pipe, link, file] = ["pipe", "link", "file"].map(|name| folder.path().join(name));
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        // SAFETY: the name is a string of C's.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_file(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());

        symlink("file", &link).unwrap();
        for contents in [b"first", b"after"] {
            write_file(&link, contents).unwrap();
            assert_eq!(fs::read(&file).unwrap(), contents);
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
    }

    #[test]
    fn a_folder_is_not_replaced_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_file(folder.path(), b"text").is_err());
        let beside = fs::read_dir(folder.path().parent().unwrap()).unwrap();
        let name = format!(".{}.partial", folder.path().file_name().unwrap().to_str().unwrap());
        assert!(beside.flatten().all(|entry| entry.file_name() != *name), "something was left behind");
    }
}
