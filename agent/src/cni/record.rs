//! What the plugin knows of pods, in files: an agent that starts reads what it was not there to hear.
//!
//! | file | what it says |
//! |---|---|
//! | `ID.json` | the sandbox has an interface: the [`Record`] |
//! | `ID.gone` | its interface is removed; an ADD for it that comes late is refused |
//!
//! The folder is in `/run`: a reboot ends all sandboxes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::Attachment;

/// For how long a removed sandbox is remembered. A runtime kills a plugin long before.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is known of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its pod and interface.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Why the pod was started although its policies were not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unheld: Option<String>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    /// That folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
    }

    /// Where the agent listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// A lock that plugins share as long as they run: whoever has it alone knows that none does.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn lock(&self) -> io::Result<File> {
        self.make()?;
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false).mode(0o600);
        options.open(self.0.join("lock"))
    }

    fn file(&self, container: &str) -> PathBuf {
        self.0.join(format!("{container}.json"))
    }

    fn tombstone(&self, container: &str) -> PathBuf {
        self.0.join(format!("{container}.gone"))
    }

    /// Writes what is known of a sandbox. `false` if that is already gone: then nothing is left of it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, record: &Record) -> io::Result<bool> {
        self.make()?;
        let container = &record.attachment.container;
        let file = self.file(container);
        // Whoever reads meets the old or the new.
        let aside = file.with_extension("tmp");
        let text = serde_json::to_vec(record)?;
        File::create(&aside)?.write_all(&text)?;
        fs::rename(&aside, &file)?;
        // It may have gone meanwhile; whoever comes second sees what the first has done.
        if self.is_gone(container) {
            remove(&file)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the sandbox's interface was removed.
    #[must_use]
    pub fn is_gone(&self, container: &str) -> bool {
        self.tombstone(container).exists()
    }

    /// Remembers that a sandbox's interface is removed.
    ///
    /// # Errors
    ///
    /// It cannot be written; what is known of the sandbox is removed all the same.
    pub fn bury(&self, container: &str) -> io::Result<()> {
        let buried = self
            .make()
            .and_then(|()| File::create(self.tombstone(container)).map(drop));
        remove(&self.file(container)).and(buried)
    }

    /// All sandboxes that have an interface. What cannot be read is passed over.
    ///
    /// # Errors
    ///
    /// The folder cannot be read; that there is none is no error.
    pub fn all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for path in self.files("json")? {
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "what the network plugin knew of a pod cannot be read");
                }
            }
        }
        Ok(records)
    }

    /// Forgets sandboxes that went long ago.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn forget(&self, now: SystemTime) -> io::Result<()> {
        for path in self.files("gone")? {
            let age = fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .map(|written| now.duration_since(written).unwrap_or_default());
            if age.is_ok_and(|age| age > REMEMBERED) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn files(&self, extension: &str) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == extension) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(Records);

    impl Temporary {
        fn new(name: &str) -> Self {
            let folder = format!("palisade-records-{name}-{}", std::process::id());
            Self(Records::new(std::env::temp_dir().join(folder)))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0.0));
        }
    }

    fn record(container: &str) -> Record {
        Record {
            attachment: Attachment {
                container: container.to_owned(),
                namespace: "x".to_owned(),
                pod: "a".to_owned(),
                uid: "1".to_owned(),
                addresses: vec!["10.0.0.1".parse().expect("an address")],
                netns: "/run/netns/1".into(),
            },
            unheld: None,
        }
    }

    #[test]
    fn what_is_written_is_read_until_it_is_gone() -> io::Result<()> {
        let Temporary(records) = &Temporary::new("read");
        assert_eq!(records.all()?, [], "there is no folder");
        assert!(records.write(&record("one"))?);
        assert!(records.write(&record("two"))?);
        fs::write(records.file("three"), "{")?;
        assert_eq!(records.all()?, [record("one"), record("two")]);
        records.bury("one")?;
        assert_eq!(records.all()?, [record("two")]);
        assert!(records.is_gone("one") && !records.is_gone("two"));
        Ok(())
    }

    #[test]
    fn what_is_gone_does_not_come_back() -> io::Result<()> {
        let Temporary(records) = &Temporary::new("late");
        records.bury("one")?;
        assert!(!records.write(&record("one"))?);
        assert_eq!(records.all()?, []);
        Ok(())
    }

    #[test]
    fn what_went_long_ago_is_forgotten() -> io::Result<()> {
        let Temporary(records) = &Temporary::new("forget");
        records.bury("one")?;
        records.forget(SystemTime::now())?;
        assert!(records.is_gone("one"));
        records.forget(SystemTime::now() + REMEMBERED + Duration::from_secs(1))?;
        assert!(!records.is_gone("one"));
        Ok(())
    }
}
