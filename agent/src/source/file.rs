//! Objects from a folder of YAML or JSON files, as a cluster without an API server.
//!
//! Files whose names end in `.yaml`, `.yml` or `.json` and do not begin with a dot are read; folders below
//! are not. A file is one unit: while it cannot be read, parsed or told from a half-written one, its last
//! good state stays, and the [`Issue`] says so. Where several files define an object, the last by name
//! wins, as if the folder were applied in order.
//!
//! A change costs what it touches: only changed files are read, and of those only changed documents
//! (between `---`) are parsed, for YAML is slow to parse.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use self::{definitions::Definitions, document::Documents};
use super::{Batch, Effect, Issue, Problem};

mod definitions;
mod document;
mod lines;
mod watch;

pub use self::watch::watch;
pub(crate) use self::{
    document::{Written, values},
    lines::Text,
};

/// For how long a file may be written before it is reported.
const PATIENCE: Duration = Duration::from_secs(1);

/// A folder and what was read of it.
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<Arc<str>, File>,
    definitions: Definitions,
    fault: Option<Problem>,
    synced: bool,
    issues: Arc<[Issue]>,
}

/// One file.
#[derive(Default)]
struct File {
    /// Of the version last read; `None` where it has to be read again.
    stamp: Option<Stamp>,
    /// Of the last good version.
    documents: Documents,
    /// Why the present version is not the last good one.
    fault: Option<Problem>,
    /// Since when it is being written.
    busy: Option<Instant>,
}

/// Tells versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The changed files, read but not yet believed.
pub struct Reads {
    seen: Instant,
    /// Each file present now, with its new version if it has one.
    files: io::Result<BTreeMap<Arc<str>, Option<Version>>>,
}

/// A version of a file.
struct Version {
    stamp: Option<Stamp>,
    content: io::Result<Vec<u8>>,
}

impl Reads {
    /// One file of that name and content, for whoever has it from elsewhere than a folder.
    #[must_use]
    pub fn of(name: &str, content: Vec<u8>) -> Self {
        let version = Version {
            stamp: None,
            content: Ok(content),
        };
        Self {
            seen: Instant::now(),
            files: Ok([(name.into(), Some(version))].into()),
        }
    }
}

impl Folder {
    /// The folder at that path; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            definitions: Definitions::default(),
            fault: None,
            synced: false,
            issues: Arc::new([]),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the folder once, for whoever does not watch it.
    #[must_use]
    pub fn scan(&mut self) -> Option<Batch> {
        let reads = self.read(&HashSet::new(), &HashSet::new());
        self.take(reads, &HashSet::new())
    }

    /// Reads the files that changed, and those `touched` whatever they look like, but not the `busy` ones.
    #[must_use]
    pub fn read(&self, touched: &HashSet<Arc<str>>, busy: &HashSet<Arc<str>>) -> Reads {
        let seen = Instant::now();
        let files = fs::read_dir(&self.path).and_then(|entries| {
            let mut files = BTreeMap::new();
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| is_manifest(name)) else {
                    continue;
                };
                let path = entry.path();
                let version = match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {
                        let stamp = Some(Stamp::of(&metadata));
                        let known = self.files.get(name).and_then(|file| file.stamp);
                        let changed = known != stamp || touched.contains(name);
                        (changed && !busy.contains(name)).then(|| Version {
                            stamp,
                            content: fs::read(path),
                        })
                    }
                    Ok(_) => continue,
                    // Gone since.
                    Err(_) if fs::symlink_metadata(&path).is_err() => continue,
                    // A link to nothing, for one.
                    Err(error) => Some(Version {
                        stamp: None,
                        content: Err(error),
                    }),
                };
                files.insert(Arc::from(name), version);
            }
            Ok(files)
        });
        Reads { seen, files }
    }

    /// Takes in what was read, except of files that are `busy`, that is being written. `None` where
    /// neither an object nor an issue is other than before.
    #[must_use]
    pub fn take(&mut self, reads: Reads, busy: &HashSet<Arc<str>>) -> Option<Batch> {
        let was_synced = self.synced;
        let mut moves = self.definitions.moves();
        match reads.files {
            Err(error) => self.fault = Some(Problem::Io(error.to_string())),
            Ok(present) => {
                self.fault = None;
                self.synced = true;
                self.files.retain(|name, file| {
                    let stays = present.contains_key(name);
                    if !stays {
                        moves.redefine(name, file.documents.objects(), &BTreeMap::new());
                    }
                    stays
                });
                for (name, version) in present {
                    let file = self.files.entry(name.clone()).or_default();
                    match version {
                        _ if busy.contains(&name) => {
                            file.stamp = None;
                            let since = *file.busy.get_or_insert(reads.seen);
                            if reads.seen.duration_since(since) >= PATIENCE {
                                file.fault = Some(Problem::Busy);
                            }
                        }
                        None => {}
                        Some(version) => {
                            file.busy = None;
                            file.stamp = version.stamp.filter(|_| version.content.is_ok());
                            match parse(version.content, &name, &file.documents) {
                                Ok(documents) => {
                                    moves.redefine(
                                        &name,
                                        file.documents.objects(),
                                        documents.objects(),
                                    );
                                    file.documents = documents;
                                    file.fault = None;
                                }
                                Err(problem) => file.fault = Some(problem),
                            }
                        }
                    }
                }
            }
        }
        let changes = moves.into_changes();
        let issues = self.all_issues();
        if changes.is_empty() && *issues == *self.issues && was_synced == self.synced {
            return None;
        }
        self.issues = issues.into();
        Some(Batch {
            changes,
            issues: self.issues.clone(),
            synced: self.synced,
            unreachable: None,
            seen: reads.seen,
            answers: Vec::new(),
        })
    }

    fn all_issues(&self) -> Vec<Issue> {
        let mut issues = Vec::new();
        let mut whole = |file: Arc<str>, problem: &Problem| {
            issues.push(Issue {
                file: Some(file),
                object: None,
                field: String::new(),
                problem: problem.clone(),
                effect: Effect::FileKept,
            });
        };
        if let Some(problem) = &self.fault {
            whole(self.path.to_string_lossy().into(), problem);
        }
        for (name, file) in &self.files {
            if let Some(problem) = &file.fault {
                whole(name.clone(), problem);
            }
        }
        for file in self.files.values() {
            issues.extend(file.documents.issues().cloned());
        }
        issues.extend(self.definitions.duplicates());
        issues
    }
}

fn parse(
    content: io::Result<Vec<u8>>,
    name: &Arc<str>,
    last: &Documents,
) -> Result<Documents, Problem> {
    let content = content.map_err(|error| Problem::Io(error.to_string()))?;
    let text = std::str::from_utf8(&content).map_err(|error| Problem::Syntax(error.to_string()))?;
    Documents::parse(text, name, last)
}

/// Dots in front hide files: editors' and the generations of a mounted ConfigMap among them.
pub(crate) fn is_manifest(name: &str) -> bool {
    !name.starts_with('.')
        && [".yaml", ".yml", ".json"]
            .iter()
            .any(|extension| name.ends_with(extension))
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
