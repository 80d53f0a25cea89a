//! The agent's own folder on a bpf filesystem: what outlives it.
//!
//! ```text
//! ROOT/v<layout>[-<number>]/maps/<NAME>   the maps of one set
//! ROOT/links/<ifindex>-<hook>             TCX links; of no layout, so that a successor of any finds them
//! ROOT/links/<ifindex>-<hook>-new         one on its way to take such a link's place
//! ROOT/clsact/<ifindex>/                  an empty folder: the device's clsact qdisc was made here
//! ```
//!
//! bpffs takes no dots in names. Whoever changes anything in the folder holds its lock.

use std::{
    fmt,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bpffs::{self, BpffsError},
    netlink::Hook,
};

/// The folder cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// It is not on a bpf filesystem.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// Another agent holds it.
    #[error("an agent is at work in {}", root.display())]
    Busy {
        /// The folder.
        root: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl PinsError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// The folder, locked: one agent works in it at a time.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    /// Holds the lock while open.
    _lock: File,
}

/// How often a held lock is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// A set of maps that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapSet {
    /// `palisade_common::LAYOUT_VERSION` of its maker.
    pub layout: u32,
    /// Told apart where one layout needs another set: with other sizes, for one.
    pub number: u32,
}

impl fmt::Display for MapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "v{}", self.layout),
            number => write!(f, "v{}-{number}", self.layout),
        }
    }
}

impl MapSet {
    fn parse(name: &str) -> Option<Self> {
        let name = name.strip_prefix('v')?;
        let (layout, number) = name.split_once('-').unwrap_or((name, "0"));
        let set = Self {
            layout: layout.parse().ok()?,
            number: number.parse().ok()?,
        };
        Some(set)
    }
}

impl Pins {
    /// Makes the folder if need be, and locks it. While another agent holds it, `keep_waiting` is asked
    /// again and again, with how long it has been so far (zero at first).
    ///
    /// # Errors
    ///
    /// [`PinsError::Busy`] once `keep_waiting` says no; else what cannot be made or locked.
    pub fn lock(
        root: &Path,
        mut keep_waiting: impl FnMut(Duration) -> bool,
    ) -> Result<Self, PinsError> {
        bpffs::check(root)?;
        let start = Instant::now();
        loop {
            make(root)?;
            let lock = File::open(root).map_err(PinsError::io("open", root))?;
            match lock.try_lock() {
                // An agent that was uninstalled while this one waited has taken the folder away.
                Ok(()) if is(&lock, root)? => {
                    let pins = Self {
                        root: root.to_owned(),
                        _lock: lock,
                    };
                    pins.drop_new_links()?;
                    return Ok(pins);
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !keep_waiting(start.elapsed()) {
                        return Err(PinsError::Busy {
                            root: root.to_owned(),
                        });
                    }
                    thread::sleep(LOCK_INTERVAL);
                }
                Err(TryLockError::Error(source)) => {
                    return Err(PinsError::io("lock", root)(source));
                }
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a set's maps, made if need be.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn maps(&self, set: MapSet) -> Result<PathBuf, PinsError> {
        let folder = self.set(set).join("maps");
        make(&folder)?;
        Ok(folder)
    }

    /// The sets that are pinned, in order.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn sets(&self) -> Result<Vec<MapSet>, PinsError> {
        let mut sets: Vec<_> = names(&self.root)?
            .iter()
            .filter_map(|name| MapSet::parse(name))
            .collect();
        sets.sort_unstable();
        Ok(sets)
    }

    /// Unpins every set of maps but one: once all hooks carry the programs of that one. Maps that a program
    /// still uses live on with it.
    ///
    /// # Errors
    ///
    /// What cannot be removed.
    pub fn remove_other_sets(&self, keep: MapSet) -> Result<(), PinsError> {
        for set in self.sets()?.into_iter().filter(|set| *set != keep) {
            self.remove_set(set)?;
        }
        Ok(())
    }

    fn remove_set(&self, set: MapSet) -> Result<(), PinsError> {
        let folder = self.set(set);
        gone(&folder, fs::remove_dir_all(&folder))
    }

    /// Where the link on a hook is pinned.
    pub(crate) fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        link(&self.root, ifindex, hook)
    }

    /// Every pinned link, by the device and hook it was made for.
    pub(crate) fn links(&self) -> Result<Vec<(u32, Hook)>, PinsError> {
        links(&self.root)
    }

    /// Makes the folder of links if need be.
    pub(crate) fn make_links(&self) -> Result<(), PinsError> {
        make(&self.links_folder())
    }

    /// Unpins a link; a missing one is no error.
    pub(crate) fn remove_link(&self, ifindex: u32, hook: Hook) -> Result<(), PinsError> {
        let link = self.link(ifindex, hook);
        gone(&link, fs::remove_file(&link))
    }

    /// Where a link is pinned that is to take another's place.
    pub(crate) fn new_link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        let mut path = self.link(ifindex, hook).into_os_string();
        path.push(NEW);
        path.into()
    }

    /// Has a new link take the place of the one that is pinned, in one step.
    pub(crate) fn replace_link(&self, ifindex: u32, hook: Hook) -> Result<(), PinsError> {
        let (new, old) = (self.new_link(ifindex, hook), self.link(ifindex, hook));
        let replaced = fs::rename(&new, &old).map_err(PinsError::io("rename", &new));
        if replaced.is_err() {
            gone(&new, fs::remove_file(&new))?;
        }
        replaced
    }

    /// Unpins what an agent that was interrupted has not put in its place: what was to be replaced is still there.
    fn drop_new_links(&self) -> Result<(), PinsError> {
        let folder = self.links_folder();
        for name in names(&folder)? {
            let link = name.strip_suffix(NEW).and_then(parse_link);
            if link.is_some() {
                let path = folder.join(name);
                gone(&path, fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    /// Notes that a device's clsact qdisc is of our making.
    pub(crate) fn note_clsact(&self, ifindex: u32) -> Result<(), PinsError> {
        make(&self.clsact(ifindex))
    }

    /// Whether a device's clsact qdisc is of our making.
    pub(crate) fn made_clsact(&self, ifindex: u32) -> bool {
        self.clsact(ifindex).is_dir()
    }

    /// The devices whose clsact qdisc is of our making.
    pub(crate) fn clsacts(&self) -> Result<Vec<u32>, PinsError> {
        let folders = names(&self.root.join(CLSACT))?;
        Ok(folders
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// Takes the note back.
    pub(crate) fn forget_clsact(&self, ifindex: u32) -> Result<(), PinsError> {
        let note = self.clsact(ifindex);
        gone(&note, fs::remove_dir(&note))
    }

    /// Removes everything, the folder included, and gives up the lock.
    ///
    /// # Errors
    ///
    /// What cannot be removed, such as a file that is not ours.
    pub(crate) fn remove(self) -> Result<(), PinsError> {
        for set in self.sets()? {
            self.remove_set(set)?;
        }
        for (ifindex, hook) in self.links()? {
            self.remove_link(ifindex, hook)?;
        }
        for ifindex in self.clsacts()? {
            self.forget_clsact(ifindex)?;
        }
        for folder in [self.links_folder(), self.root.join(CLSACT), self.root] {
            gone(&folder, fs::remove_dir(&folder))?;
        }
        Ok(())
    }

    fn set(&self, set: MapSet) -> PathBuf {
        self.root.join(set.to_string())
    }

    fn links_folder(&self) -> PathBuf {
        self.root.join(LINKS)
    }

    fn clsact(&self, ifindex: u32) -> PathBuf {
        self.root.join(CLSACT).join(ifindex.to_string())
    }
}

const LINKS: &str = "links";
/// What the name of a link ends with that is to take another's place.
const NEW: &str = "-new";
const CLSACT: &str = "clsact";

/// Where the link on a hook is pinned, if it is.
pub(crate) fn link(root: &Path, ifindex: u32, hook: Hook) -> PathBuf {
    root.join(LINKS).join(format!("{ifindex}-{hook}"))
}

/// The links pinned in a folder of pins.
pub(crate) fn links(root: &Path) -> Result<Vec<(u32, Hook)>, PinsError> {
    let links = names(&root.join(LINKS))?;
    Ok(links.iter().filter_map(|name| parse_link(name)).collect())
}

fn parse_link(name: &str) -> Option<(u32, Hook)> {
    let (ifindex, hook) = name.split_once('-')?;
    let hook = [Hook::Ingress, Hook::Egress]
        .into_iter()
        .find(|candidate| candidate.to_string() == hook)?;
    Some((ifindex.parse().ok()?, hook))
}

/// Whether an open folder is the one under that path.
fn is(folder: &File, path: &Path) -> Result<bool, PinsError> {
    let open = folder.metadata().map_err(PinsError::io("look at", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PinsError::io("look at", path)(error)),
    }
}

/// Makes a folder and those above it, for its owner alone: who can open a pinned map can change it.
fn make(folder: &Path) -> Result<(), PinsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(PinsError::io("make the folder", folder))
}

fn names(folder: &Path) -> Result<Vec<String>, PinsError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(PinsError::io("list", folder))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(PinsError::io("list", folder))
}

/// What is not there is as good as removed.
fn gone(path: &Path, removed: io::Result<()>) -> Result<(), PinsError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinsError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_and_links_are_read_back() {
        for (layout, number) in [(1, 0), (1, 7), (12, 1)] {
            let set = MapSet { layout, number };
            assert_eq!(MapSet::parse(&set.to_string()), Some(set));
        }
        for other in ["links", "clsact", "v", "v1-", "v1-x", "w1", ""] {
            assert_eq!(MapSet::parse(other), None, "{other}");
        }
        assert_eq!(parse_link("17-egress"), Some((17, Hook::Egress)));
        assert_eq!(parse_link("17-ingress"), Some((17, Hook::Ingress)));
        for other in ["17", "x-egress", "17-egress-new", ""] {
            assert_eq!(parse_link(other), None, "{other}");
        }
    }
}
