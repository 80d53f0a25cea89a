//! The plugin in the runtime's folders: its program, and its entry in the list. What another writer removes is brought
//! back.
//!
//! A folder is written only if its content is not as it should be, and never while an ADD waits.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{
    NAME,
    folders::{Folders, first, put},
    list,
    record::Records,
    removal::{remove_program, traces, withdraw},
    server::Gate,
};
use crate::{api::proto::Plugin, watcher::Watcher};

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
            None => switch_off(&installer.folders, records, gate),
        };
        let state = match list {
            Ok(list) => Plugin {
                wanted: entry.is_some(),
                installed: true,
                list: Some(list.display().to_string()),
                reason: None,
            },
            Err(error) => Plugin {
                wanted: entry.is_some(),
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

/// Installs the plugin with that entry, once and without an agent; the list that has it.
///
/// # Errors
///
/// There is no list, or something cannot be read or written.
pub fn once(folders: Folders, entry: &Value) -> anyhow::Result<PathBuf> {
    let mut installer = Installer {
        folders,
        program: None,
    };
    installer.install(entry, &Gate::default())
}

/// Takes out what is there.
fn switch_off(folders: &Folders, records: &Records, gate: &Gate) -> anyhow::Result<PathBuf> {
    if !traces(folders)?.is_empty() {
        gate.while_closed(|| {
            let _lock = withdraw(folders, records)?;
            remove_program(folders)
        })?;
        tracing::info!("removed the network plugin");
    }
    bail!("it is switched off")
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
        assert_eq!(traces(&temporary.0)?, [list.clone(), program.clone()]);
        let (changed, lock) = withdraw(&temporary.0, &records)?;
        assert_eq!(changed, std::slice::from_ref(&list));
        assert_eq!(fs::read_to_string(&list)?, LIST);
        assert_eq!(remove_program(&temporary.0)?, Some(program));
        drop(lock);
        assert_eq!(traces(&temporary.0)?, Vec::<PathBuf>::new());
        let (changed, _lock) = withdraw(&temporary.0, &records)?;
        assert_eq!(changed, Vec::<PathBuf>::new());
        assert_eq!(remove_program(&temporary.0)?, None);
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
