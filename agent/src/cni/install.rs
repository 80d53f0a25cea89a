//! The plugin in the runtime's folders: its program, and its entry in the list. What another writer removes is brought
//! back.
//!
//! A runtime reads its lists anew whenever their folder changes, and starts nothing meanwhile (observed of containerd;
//! CRI-O watches the folder of programs too). So a folder is written only if its content is not as it should be, never
//! while an ADD waits, and a file is put in place in one step, from one beside it that no runtime takes for a list.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::{NAME, list, record::Records, server::Gate};
use crate::{api::proto::Plugin, watcher::Watcher};

/// What runtimes take for a list, or for a plugin alone (libcni's `ConfFiles`).
const LISTS: [&str; 3] = ["conf", "conflist", "json"];

/// How soon a runtime has read what has changed.
const SOON: Duration = Duration::from_millis(200);
/// For how long a plugin may run.
const LONGEST: Duration = Duration::from_secs(31);

/// The runtime's folders.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Of lists.
    pub lists: PathBuf,
    /// Of programs.
    pub programs: PathBuf,
}

/// Keeps the plugin installed with that entry, or (`None`) out of the folders, until told to break off. Blocks its thread.
pub fn keep(
    folders: Folders,
    entry: Option<Value>,
    records: &Records,
    gate: &Gate,
    mut tell: impl FnMut(Plugin) -> ControlFlow<()>,
) {
    let mut installer = Installer {
        folders,
        program: None,
    };
    let mut watcher = Watcher::default();
    let mut last = None;
    loop {
        watcher.attach(&installer.folders.lists);
        watcher.drain();
        watcher.touched.clear();
        let list = match &entry {
            Some(entry) => installer.install(entry, gate),
            None => gate
                .while_closed(|| remove(&installer.folders, records))
                .and_then(|_removed| bail!("it is switched off")),
        };
        let state = match list {
            Ok(list) => Plugin {
                installed: true,
                list: Some(list.display().to_string()),
                reason: None,
            },
            Err(error) => Plugin {
                installed: false,
                list: None,
                reason: Some(format!("{error:#}")),
            },
        };
        if last.as_ref() != Some(&state) {
            match &state.reason {
                None => tracing::info!(list = state.list, "the network plugin is installed"),
                Some(reason) => tracing::warn!(reason, "the network plugin is not installed"),
            }
            last = Some(state.clone());
        }
        if tell(state).is_break() {
            return;
        }
        watcher.wait();
    }
}

/// The plugin's entry in the list.
#[must_use]
pub fn entry(seconds: u64, on_timeout: &str, folder: &Path) -> Value {
    let mut entry = json!({ "type": NAME, "waitSeconds": seconds, "onTimeout": on_timeout });
    if folder != Path::new(super::FOLDER) {
        entry["folder"] = folder.display().to_string().into();
    }
    entry
}

struct Installer {
    folders: Folders,
    /// The program as it was put there or found: device, inode, length and time.
    program: Option<[i64; 4]>,
}

impl Installer {
    /// Brings both to what they should be; the list that the runtime reads. The program comes first, or the runtime
    /// would start pods with a plugin that is not there.
    fn install(&mut self, entry: &Value, gate: &Gate) -> anyhow::Result<PathBuf> {
        let list = first(&self.folders.lists)?;
        let text = fs::read_to_string(&list)
            .with_context(|| format!("while reading {}", list.display()))?;
        let with = list::with(&text, entry)
            .map_err(|error| anyhow::anyhow!("{}: {error}", list.display()))?;
        let program = self.folders.programs.join(NAME);
        if self.program.is_none() || self.program != seen(&program) {
            if !same(Path::new(PROGRAM), &program)? {
                gate.while_closed(|| put(&program, Permissions::from_mode(0o755), copy))
                    .with_context(|| format!("while writing {}", program.display()))?;
                tracing::info!(program = %program.display(), "wrote the network plugin");
            }
            self.program = seen(&program);
        }
        if let Some(with) = with {
            let permissions = fs::metadata(&list)?.permissions();
            gate.while_closed(|| {
                // It may have changed while pods were waited for.
                if fs::read_to_string(&list)? != text {
                    return Err(io::Error::other("another has just written it"));
                }
                put(&list, permissions, |file| file.write_all(with.as_bytes()))
            })
            .with_context(|| format!("while writing {}", list.display()))?;
            tracing::info!(list = %list.display(), "wrote the network plugin's entry");
        }
        Ok(list)
    }
}

/// The agent's own program is the plugin's.
const PROGRAM: &str = "/proc/self/exe";

/// Takes the plugin out of the folders; what was changed or removed. Its program goes last, once no runtime runs it: a
/// runtime that has it in its list and does not find it removes nothing any more.
///
/// # Errors
///
/// Something cannot be read, written or removed.
pub fn remove(folders: &Folders, records: &Records) -> anyhow::Result<Vec<PathBuf>> {
    let mut removed = remove_entry(&folders.lists)?;
    if !removed.is_empty() {
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
    let program = folders.programs.join(NAME);
    match fs::remove_file(&program) {
        Ok(()) => removed.push(program),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("while removing {}", program.display()));
        }
    }
    Ok(removed)
}

/// Takes the entry out of every list; the lists that had it.
fn remove_entry(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for path in lists(folder)? {
        // What cannot be read, or is no list, has no entry.
        let text = fs::read_to_string(&path).unwrap_or_default();
        if let Ok(Some(text)) = list::without(&text) {
            let permissions = fs::metadata(&path)?.permissions();
            put(&path, permissions, |file| file.write_all(text.as_bytes()))
                .with_context(|| format!("while writing {}", path.display()))?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// What is to be taken for a list in the folder, in the order in which runtimes read. That there is no folder is no
/// error.
fn lists(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
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
fn first(folder: &Path) -> anyhow::Result<PathBuf> {
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

fn seen(program: &Path) -> Option<[i64; 4]> {
    let it = fs::metadata(program).ok()?;
    Some([
        it.dev().cast_signed(),
        it.ino().cast_signed(),
        it.size().cast_signed(),
        it.mtime_nsec(),
    ])
}

/// Whether both have the same content; `false` if the second is not there.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let present = match fs::read(other) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        present => present?,
    };
    Ok(fs::read(one)? == present)
}

fn copy(file: &mut File) -> io::Result<()> {
    io::copy(&mut File::open(PROGRAM)?, file).map(drop)
}

/// Puts a file in place in one step, from one beside it.
fn put(
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(Folders);

    impl Temporary {
        fn new(name: &str) -> io::Result<Self> {
            let top = format!("palisade-install-{name}-{}", std::process::id());
            let top = std::env::temp_dir().join(top);
            let folders = Folders {
                lists: top.join("lists"),
                programs: top.join("programs"),
            };
            fs::create_dir_all(&folders.lists)?;
            fs::create_dir_all(&folders.programs)?;
            Ok(Self(folders))
        }

        fn installer(&self) -> Installer {
            Installer {
                folders: self.0.clone(),
                program: None,
            }
        }
    }

    fn ours() -> Value {
        entry(10, "deny", Path::new(crate::cni::FOLDER))
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(self.0.lists.parent().expect("a folder")));
        }
    }

    const LIST: &str = r#"{"cniVersion": "0.3.1", "name": "x", "plugins": [{"type": "ptp"}]}"#;

    #[test]
    fn it_comes_into_the_first_list_and_goes_without_a_trace() -> anyhow::Result<()> {
        let temporary = Temporary::new("trace")?;
        let Folders { lists, programs } = &temporary.0;
        fs::write(lists.join("20-later.conflist"), LIST)?;
        fs::write(lists.join("10-x.conflist"), LIST)?;
        fs::write(lists.join("05-x.conflist.tmp"), "no list")?;
        fs::set_permissions(lists.join("10-x.conflist"), Permissions::from_mode(0o640))?;
        let gate = Gate::default();
        let list = temporary.installer().install(&ours(), &gate)?;
        assert_eq!(list, lists.join("10-x.conflist"));
        let text = fs::read_to_string(&list)?;
        assert!(text.contains(r#"{"type": "ptp"}, {"onTimeout":"deny","type":"palisade""#));
        assert_eq!(fs::metadata(&list)?.mode() & 0o777, 0o640);
        let program = programs.join(NAME);
        assert!(same(Path::new(PROGRAM), &program)?);
        assert_eq!(fs::metadata(&program)?.mode() & 0o777, 0o755);

        let records = Records::new(programs.with_file_name("records"));
        assert_eq!(remove(&temporary.0, &records)?, [list.clone(), program]);
        assert_eq!(fs::read_to_string(&list)?, LIST);
        assert_eq!(remove(&temporary.0, &records)?, Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(programs)?.count(), 0);
        assert_eq!(fs::read_dir(lists)?.count(), 3);
        Ok(())
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written() -> anyhow::Result<()> {
        let temporary = Temporary::new("still")?;
        let Folders { lists, programs } = &temporary.0;
        fs::write(lists.join("10-x.conflist"), LIST)?;
        let gate = Gate::default();
        temporary.installer().install(&ours(), &gate)?;
        let files = [lists.join("10-x.conflist"), programs.join(NAME)];
        let before = files.each_ref().map(|file| seen(file));
        // A successor knows nothing of it.
        temporary.installer().install(&ours(), &gate)?;
        assert_eq!(files.each_ref().map(|file| seen(file)), before);
        Ok(())
    }

    #[test]
    fn what_another_writes_is_mended() -> anyhow::Result<()> {
        let temporary = Temporary::new("mend")?;
        let Folders { lists, programs } = &temporary.0;
        let list = lists.join("10-x.conflist");
        let gate = Gate::default();
        let mut installer = temporary.installer();
        let error = installer
            .install(&ours(), &gate)
            .expect_err("there is no list");
        assert!(error.to_string().contains("no list of plugins"), "{error}");
        assert_eq!(
            fs::read_dir(programs)?.count(),
            0,
            "nothing is written before it is of use"
        );
        for _ in 0..2 {
            fs::write(&list, LIST)?;
            fs::write(programs.join(NAME), "another")?;
            installer.install(&ours(), &gate)?;
            assert!(fs::read_to_string(&list)?.contains(NAME));
            assert!(same(Path::new(PROGRAM), &programs.join(NAME))?);
        }
        Ok(())
    }

    #[test]
    fn a_plugin_alone_and_a_list_half_written_are_left_alone() -> anyhow::Result<()> {
        let temporary = Temporary::new("alone")?;
        let lists = &temporary.0.lists;
        let gate = Gate::default();
        fs::write(lists.join("20-x.conflist"), "{\"plugins\": [")?;
        assert!(temporary.installer().install(&ours(), &gate).is_err());
        fs::write(lists.join("10-x.conf"), r#"{"type": "ptp"}"#)?;
        let error = temporary
            .installer()
            .install(&ours(), &gate)
            .expect_err("no list");
        assert!(error.to_string().contains("no list, so"), "{error}");
        Ok(())
    }
}
