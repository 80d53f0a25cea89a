//! The runtime's folders, of lists and of programs.
//!
//! A runtime reads its lists anew whenever their folder changes, and starts nothing meanwhile (observed of containerd;
//! CRI-O watches the folder of programs too). So a file is put in place in one step, from one beside it that no runtime
//! takes for a list.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// What runtimes take for a list, or for a plugin alone (libcni's `ConfFiles`).
const LISTS: [&str; 3] = ["conf", "conflist", "json"];

/// The runtime's folders.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Of lists.
    pub lists: PathBuf,
    /// Of programs.
    pub programs: PathBuf,
}

/// What is to be taken for a list in the folder, in the order in which runtimes read. That there is no folder is no
/// error.
pub(crate) fn lists(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("while reading {}", folder.display()))?,
    };
    let mut lists = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| LISTS.contains(&extension)) {
            lists.push(path);
        }
    }
    lists.sort();
    Ok(lists)
}

/// The list that the runtime reads: the first.
pub(super) fn first(folder: &Path) -> anyhow::Result<PathBuf> {
    let Some(first) = lists(folder)?.into_iter().next() else {
        bail!("there is no list of plugins in {} yet", folder.display());
    };
    if first.extension().is_some_and(|it| it == "conf") {
        bail!(
            "{} holds one plugin and no list, so none can be added",
            first.display()
        );
    }
    Ok(first)
}

/// Puts a file in place in one step, from one beside it.
pub(super) fn put(
    path: &Path,
    permissions: Permissions,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.palisade-tmp"));
    let written = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&aside)?;
        write(&mut file)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    if written.is_err() {
        drop(fs::remove_file(&aside));
    }
    written
}
