//! The plugin's way out: first its entry, so that no runtime runs it any more, last its program.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use super::{
    NAME,
    folders::{Folders, lists, put},
    list,
    record::Records,
};

/// How soon a runtime has read what has changed.
const SOON: Duration = Duration::from_millis(200);
/// For how long a plugin may run.
const LONGEST: Duration = Duration::from_secs(31);

/// Takes the entry out of the lists; those that had it. When this comes back no runtime runs the plugin any more, and
/// while the second part of the answer lives, one that all the same does lets every pod start.
///
/// # Errors
///
/// Something cannot be read or written.
pub fn withdraw(folders: &Folders, records: &Records) -> anyhow::Result<(Vec<PathBuf>, File)> {
    let changed = remove_entry(&folders.lists)?;
    if !changed.is_empty() {
        // A runtime that has just read its list may be about to run what was in it.
        std::thread::sleep(SOON);
    }
    let lock = records
        .lock()
        .context("while waiting for the network plugin")?;
    let end = Instant::now() + LONGEST;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() && Instant::now() < end {
        std::thread::sleep(SOON);
    }
    Ok((changed, lock))
}

/// Removes the program, if it is there: not before [`withdraw`], for a runtime that has it in its list and does not find
/// it removes nothing any more.
///
/// # Errors
///
/// It cannot be removed.
pub fn remove_program(folders: &Folders) -> anyhow::Result<Option<PathBuf>> {
    let program = folders.programs.join(NAME);
    match fs::remove_file(&program) {
        Ok(()) => Ok(Some(program)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("while removing {}", program.display())),
    }
}

/// What of the plugin is in the folders.
///
/// # Errors
///
/// They cannot be read.
pub fn traces(folders: &Folders) -> anyhow::Result<Vec<PathBuf>> {
    let entries = entries(&folders.lists)?.into_iter();
    let mut found: Vec<_> = entries.map(|(path, _)| path).collect();
    let program = folders.programs.join(NAME);
    if program.symlink_metadata().is_ok() {
        found.push(program);
    }
    Ok(found)
}

/// Takes the entry out of every list; the lists that had it.
fn remove_entry(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for (path, text) in entries(folder)? {
        let permissions = fs::metadata(&path)?.permissions();
        put(&path, permissions, |file| file.write_all(text.as_bytes()))
            .with_context(|| format!("while writing {}", path.display()))?;
        changed.push(path);
    }
    Ok(changed)
}

/// The lists that have the entry, and what they are without it. What cannot be read, or is no list, has none.
fn entries(folder: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let without = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let text = list::without(&text).ok().flatten()?;
        Some((path, text))
    };
    Ok(lists(folder)?.into_iter().filter_map(without).collect())
}
