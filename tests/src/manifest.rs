//! A folder of manifests that an agent watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

/// A folder with one file per object. Files are replaced by rename, so that no reader sees half of one.
#[derive(Debug)]
pub struct Manifests {
    folder: PathBuf,
    written: BTreeMap<String, Value>,
}

impl Manifests {
    /// Makes the folder.
    ///
    /// # Errors
    /// Where it is there already.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir(folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            written: BTreeMap::new(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes these the objects of the folder; returns how many files changed. What is new or different is
    /// written first, what is gone is removed then.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn sync(&mut self, objects: &[Value]) -> Result<usize> {
        let mut changed = 0;
        let mut names = BTreeSet::new();
        for object in objects {
            let name = file_name(object).context("an object without kind or name")?;
            changed += usize::from(self.put(&name, object)?);
            names.insert(name);
        }
        let gone = self.written.keys().filter(|name| !names.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove(&name)?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Writes one object, or replaces it; tells whether that changed anything.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn apply(&mut self, object: &Value) -> Result<bool> {
        let name = file_name(object).context("an object without kind or name")?;
        self.put(&name, object)
    }

    /// Removes one object.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn delete(&mut self, object: &Value) -> Result<()> {
        self.remove(&file_name(object).context("an object without kind or name")?)
    }

    fn put(&mut self, name: &str, object: &Value) -> Result<bool> {
        if self.written.get(name) == Some(object) {
            return Ok(false);
        }
        replace(
            &self.folder.join(name),
            serde_json::to_string_pretty(object)?.as_bytes(),
        )
        .with_context(|| format!("writing {name}"))?;
        self.written.insert(name.to_owned(), object.clone());
        Ok(true)
    }

    fn remove(&mut self, name: &str) -> Result<()> {
        fs::remove_file(self.folder.join(name)).with_context(|| format!("removing {name}"))?;
        self.written.remove(name);
        Ok(())
    }
}

/// Writes a file in place of another, at once.
///
/// # Errors
/// Where it cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}"));
    fs::write(&draft, content)?;
    fs::rename(draft, path)
}

fn file_name(object: &Value) -> Option<String> {
    let kind = object["kind"].as_str()?.to_lowercase();
    let name = object["metadata"]["name"].as_str()?;
    Some(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind}.{namespace}.{name}.json"),
        None => format!("{kind}.{name}.json"),
    })
}
