//! Files as they are read: regular ones alone, and no more of them than they held when they were opened.
//!
//! A named pipe would wait for a writer, a device may never end, and files that the system makes up while they are read (as in
//! `/proc`) have no size that could be believed.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens a regular file, without waiting for anything.
///
/// # Errors
/// From the file system, and when it is something else; the text says what.
pub fn open(path: &Path) -> Result<File> {
    open_with_metadata(path).map(|(file, _)| file)
}

/// Reads a regular file as it was when it was opened, if it has at most `limit` bytes.
///
/// # Errors
/// As [`open`], and when the file is larger or does not fit into memory.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, metadata) = open_with_metadata(path)?;
    let size = metadata.len();
    if size > limit {
        let problem = format!("its {size} bytes are more than the {limit} that such a file may have");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(|_| ErrorKind::OutOfMemory)?;
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a path leads to, if it is not a regular file.
pub fn other_kind(file_type: FileType) -> Option<&'static str> {
    let kinds = [
        (file_type.is_dir(), "a folder"),
        (file_type.is_fifo(), "a named pipe"),
        (file_type.is_char_device() || file_type.is_block_device(), "a device"),
        (file_type.is_socket(), "a socket"),
    ];
    let other = kinds.into_iter().find(|(holds, _)| *holds).map_or("something else", |(_, kind)| kind);
    (!file_type.is_file()).then_some(other)
}

fn open_with_metadata(path: &Path) -> Result<(File, Metadata)> {
    // Without this flag, opening a pipe waits for whoever writes to it; regular files do not know it.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if let Some(kind) = other_kind(metadata.file_type()) {
        return Err(Error::new(ErrorKind::InvalidInput, format!("it is {kind}, not a regular file")));
    }
    // Where there is nothing to read, a byte more or less read here is none.
    if metadata.len() == 0 && !matches!(file.read(&mut [0]), Ok(0)) {
        let problem = "it has no size, although there is something to read: the system makes it up";
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(path: &Path) -> String {
        open(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(complaint(&pipe), "it is a named pipe, not a regular file");
        assert_eq!(complaint(folder.path()), "it is a folder, not a regular file");
        assert_eq!(complaint(Path::new("/dev/zero")), "it is a device, not a regular file");
        assert!(complaint(Path::new("/proc/self/status")).contains("the system makes it up"));
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(open(&socket).is_err());
    }

    #[test]
    fn files_are_read_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(read(&path, 0).unwrap(), b"");
        // A hole of a petabyte takes no room on the disk, and none is looked for in memory.
        File::create(&path).unwrap().set_len(1 << 43).unwrap();
        assert!(read(&path, u64::MAX).is_err());
    }
}
