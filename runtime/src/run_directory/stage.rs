//! Where a run is set up before it appears under its name, and how it takes the place of an earlier one.
//!
//! A run that is not there yet is set up in a hidden folder beside its name and gets the name when it is complete. Where a
//! directory is there already (it may hold files of others, be a mount point, or be the current one), the run is set up in
//! a hidden folder within and takes the place of the earlier run in steps, each of which is one change of a name:
//!
//! | hidden folder | what it says | if the process ends here |
//! | --- | --- | --- |
//! | `.starting` | the new run is being set up | the earlier run is untouched |
//! | `.next` | it is complete; what the earlier one left goes to `.replaced` | whoever opens the directory goes on |
//! | `.moving` | the earlier one is out of the way; the new one's files come out | whoever opens the directory goes on |
//! | `.replaced` | the new run is in place; the earlier one is being removed | whoever opens the directory goes on |

use super::lock::{LOCK, Lock};
use super::settings::SETTINGS;
use super::{CHECKPOINTS, METRICS, PROGRAM, SUMMARY, TENSORBOARD};
use crate::atomic;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const STARTING: &str = ".starting";
const NEXT: &str = ".next";
const MOVING: &str = ".moving";
const REPLACED: &str = ".replaced";

/// What a run leaves in its directory, and all that another one may take away. The options come last: where they are,
/// there is a run.
const CONTENTS: [&str; 6] = [PROGRAM, CHECKPOINTS, METRICS, SUMMARY, TENSORBOARD, SETTINGS];

/// A folder in which a run is set up. It goes away with this value unless the run has got its name.
pub(super) struct Stage {
    folder: PathBuf,
    run: PathBuf,
    lock: Option<Lock>,
}

impl Stage {
    /// An empty folder for the run that will be called `run`, and the lock under which it will be.
    ///
    /// # Errors
    /// When another process is at work under that name, or from the file system.
    pub(super) fn open(run: &Path) -> Result<Self> {
        if run.is_dir() {
            let lock = Lock::take(run, run)?;
            settle(run)?;
            let folder = run.join(STARTING);
            fs::create_dir(&folder).map_err(Error::io(&folder))?;
            return Ok(Self { folder, run: run.to_owned(), lock: Some(lock) });
        }
        fs::create_dir_all(atomic::parent(run)).map_err(Error::io(run))?;
        let folder = atomic::aside(run, "starting");
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock = Lock::take(&folder, run)?;
        empty(&folder).map_err(Error::io(&folder))?;
        Ok(Self { folder, run: run.to_owned(), lock: Some(lock) })
    }

    /// Where to set up.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Gives the run its name; from here on it is there.
    ///
    /// # Errors
    /// From the file system. What was there before is then untouched, or taken away by whoever opens the directory next.
    pub(super) fn commit(mut self) -> Result<Lock> {
        let within = self.folder.parent() == Some(&self.run);
        let name = if within { self.run.join(NEXT) } else { self.run.clone() };
        let commit = || {
            atomic::sync_directory(&self.folder)?;
            fs::rename(&self.folder, &name)?;
            atomic::sync_directory(atomic::parent(&name))
        };
        commit().map_err(Error::io(&self.run))?;
        let lock = self.lock.take().expect("taken once");
        settle(&self.run)?;
        Ok(lock)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed is removed by the next one.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether a replacement of the run was cut off, so that it must be settled before anything is read.
pub(super) fn is_unsettled(run: &Path) -> bool {
    [NEXT, MOVING].iter().any(|name| run.join(name).exists())
}

/// Finishes what an earlier process began in a directory whose lock is held. Does nothing where there is nothing to do,
/// and can itself be cut off anywhere.
///
/// # Errors
/// From the file system.
pub(super) fn settle(run: &Path) -> Result<()> {
    settle_in(run).map_err(Error::io(run))
}

fn settle_in(run: &Path) -> io::Result<()> {
    let [starting, next, moving, replaced] = [STARTING, NEXT, MOVING, REPLACED].map(|name| run.join(name));
    if next.exists() {
        fs::create_dir_all(&replaced)?;
        move_contents(run, &replaced)?;
        fs::rename(&next, &moving)?;
    }
    if moving.exists() {
        move_contents(&moving, run)?;
        fs::remove_dir_all(&moving)?;
        atomic::sync_directory(run)?;
    }
    [starting, replaced].iter().filter(|folder| folder.exists()).try_for_each(fs::remove_dir_all)
}

/// Moves what a run consists of and is still there.
fn move_contents(from: &Path, to: &Path) -> io::Result<()> {
    for name in CONTENTS.iter().filter(|name| from.join(name).symlink_metadata().is_ok()) {
        fs::rename(from.join(name), to.join(name))?;
    }
    atomic::sync_directory(to)?;
    atomic::sync_directory(from)
}

/// Removes all but the lock.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.file_name() == Some(LOCK.as_ref()) {
            true => {}
            false if path.is_dir() => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, names: &[&str], text: &str) {
        fs::create_dir_all(folder).unwrap();
        names.iter().for_each(|name| fs::write(folder.join(name), text).unwrap());
    }

    /// Every file of a directory with its text.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_else(|_| "a folder".into());
        let mut files: Vec<_> =
            entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), text(&path))).collect();
        files.sort();
        files
    }

    /// Each state in which a process that replaces a run can end, with the files of either that have been moved by then.
    #[test]
    fn a_replacement_that_is_cut_off_anywhere_leaves_one_whole_run() {
        let whole = |text: &str| {
            let mut all: Vec<_> = CONTENTS.iter().map(|name| ((*name).to_owned(), text.to_owned())).collect();
            all.push(("notes.txt".into(), "mine".into()));
            all.sort();
            all
        };
        for moved in 0..=CONTENTS.len() {
            let (gone, left) = CONTENTS.split_at(moved);
            let settled = |set_up: &dyn Fn(&Path)| {
                let folder = tempfile::tempdir().unwrap();
                put(folder.path(), &["notes.txt"], "mine");
                set_up(folder.path());
                settle(folder.path()).unwrap();
                files(folder.path())
            };
            let starting = settled(&|run| {
                put(run, &CONTENTS, "old");
                put(&run.join(STARTING), gone, "new");
            });
            assert_eq!(starting, whole("old"), "{moved} files were set up");
            let next = settled(&|run| {
                put(run, left, "old");
                put(&run.join(REPLACED), gone, "old");
                put(&run.join(NEXT), &CONTENTS, "new");
            });
            assert_eq!(next, whole("new"), "{moved} files were taken away");
            let moving = settled(&|run| {
                put(run, gone, "new");
                put(&run.join(MOVING), left, "new");
                put(&run.join(REPLACED), &CONTENTS, "old");
            });
            assert_eq!(moving, whole("new"), "{moved} files were in place");
            let replaced = settled(&|run| {
                put(run, &CONTENTS, "new");
                put(&run.join(REPLACED), left, "old");
            });
            assert_eq!(replaced, whole("new"), "{moved} old files were removed");
        }
    }

    #[test]
    fn a_stage_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("deep/run");
        drop(Stage::open(&run).unwrap());
        assert!(files(&folder.path().join("deep")).is_empty());
        put(&run, &["notes.txt"], "mine");
        drop(Stage::open(&run).unwrap());
        assert_eq!(files(&run).len(), 2, "notes and lock: {:?}", files(&run));
    }
}
