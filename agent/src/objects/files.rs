//! Objects from files, read once.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};

use super::{Objects, Place};
use crate::source::{
    Effect, Issue, Problem,
    convert::{Unidentified, describe},
    file::{Written, is_manifest, values},
};

impl Objects {
    /// Reads files, and the manifests of folders; of folders below them too where `recursive`. The path `-` is standard
    /// input. Where several files define an object, the last holds.
    ///
    /// # Errors
    ///
    /// A path cannot be read. A file that is neither YAML nor JSON is an issue.
    pub fn from_files(paths: &[PathBuf], recursive: bool) -> Result<Self> {
        let mut objects = Self::default();
        for path in paths {
            if path.as_os_str() == "-" {
                let mut text = Vec::new();
                io::stdin()
                    .read_to_end(&mut text)
                    .context("while reading standard input")?;
                objects.take_text("standard input", text);
                continue;
            }
            let failed = || format!("while reading {}", path.display());
            for file in files(path, recursive).with_context(failed)? {
                let failed = || format!("while reading {}", file.display());
                let text = fs::read(&file).with_context(failed)?;
                objects.take_text(&file.to_string_lossy(), text);
            }
        }
        objects.settle();
        Ok(objects)
    }

    /// Reads a text, which errors call by that name.
    #[must_use]
    pub fn from_text(name: &str, text: &str) -> Self {
        let mut objects = Self::default();
        objects.take_text(name, text.as_bytes().to_vec());
        objects.settle();
        objects
    }

    fn take_text(&mut self, file: &str, text: Vec<u8>) {
        let file: Arc<str> = file.into();
        let broken = |problem| Issue {
            file: Some(file.clone()),
            object: None,
            field: String::new(),
            problem,
            effect: Effect::FileKept,
        };
        let parsed = String::from_utf8(text)
            .map_err(|error| Problem::Syntax(error.to_string()))
            .and_then(|text| values(&text, &file));
        let documents = match parsed {
            Ok(documents) => documents,
            Err(problem) => return self.issues.push(broken(problem)),
        };
        for Written { value, line, text } in documents {
            let place = Place {
                file: file.clone(),
                line,
                text,
            };
            match describe(&value) {
                Ok(described) => self.take(described, Some(&place)),
                Err(Unidentified { field, problem }) => {
                    let field = match field.is_empty() {
                        true => field,
                        false => format!("{field}: "),
                    };
                    let problem = Problem::Syntax(format!("line {line}: {field}{problem}"));
                    self.issues.push(broken(problem));
                }
            }
        }
    }
}

/// The files that a path means, sorted.
fn files(path: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let is_folder = fs::metadata(entry.path()).is_ok_and(|it| it.is_dir());
        match is_folder {
            true if recursive => found.extend(files(&entry.path(), true)?),
            false if is_manifest(name) => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}
