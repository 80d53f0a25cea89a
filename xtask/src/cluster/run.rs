//! A run: its one folder, and the processes that belong to it.
//!
//! Each of them has the folder in its environment and passes it on, so that all can be found
//! however the run ended. Containers do not inherit it; they are found by their control groups.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    dist::{self, Target},
    shell::{self, command},
};

/// One cluster per machine: its addresses are the machine's too. Not below `/var/lib` or `/run`,
/// of which nodes have their own.
const FOLDER: &str = "/var/cache/palisade-cluster";

/// The variable that marks a process of a run.
const MARK: &str = "PALISADE_CLUSTER";

/// A run of a cluster.
pub(super) struct Run {
    folder: PathBuf,
}

impl Run {
    /// The one that may be there.
    pub(super) fn here() -> Self {
        Self {
            folder: FOLDER.into(),
        }
    }

    /// A place in the folder.
    pub(super) fn path(&self, place: impl AsRef<Path>) -> PathBuf {
        self.folder.join(place)
    }

    /// A program of the cluster.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.path("bin").join(name)
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The control group of a node, in every hierarchy.
    pub(super) fn group(&self, node: &str) -> String {
        let run = self.folder.file_name().unwrap_or_default();
        format!("{}-{node}", run.display())
    }

    /// `kubectl` of the administrator.
    pub(super) fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.program("kubectl"));
        kubectl.arg("--kubeconfig").arg(self.kubeconfig());
        kubectl
    }

    /// `palisade` of this machine, as the administrator runs it from anywhere; its command line in words.
    pub(super) fn palisade(&self, words: &str) -> Result<Command> {
        let mut palisade = Command::new(dist::program(Target::host()?)?);
        palisade.args(words.split_whitespace());
        palisade.arg("--kubeconfig").arg(self.kubeconfig());
        Ok(palisade)
    }

    /// Makes the folder, which is the administrator's alone.
    pub(super) fn make(&self) -> Result<()> {
        let made = DirBuilder::new().mode(0o700).create(&self.folder);
        made.with_context(|| format!("make {}", self.folder.display()))
    }

    /// Puts the programs of a folder into one of the run, where every node sees them.
    pub(super) fn take(&self, programs: &Path, folder: &str) -> Result<()> {
        let bin = self.path(folder);
        make(&bin)?;
        let entries =
            fs::read_dir(programs).with_context(|| format!("list {}", programs.display()))?;
        for entry in entries {
            let entry = entry?;
            let from = fs::canonicalize(entry.path())?;
            let to = bin.join(entry.file_name());
            if to.exists() {
                continue;
            }
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(|_| ()))
                .with_context(|| format!("make {}", to.display()))?;
        }
        Ok(())
    }

    pub(super) fn write(&self, place: impl AsRef<Path>, content: &str) -> Result<PathBuf> {
        let path = self.path(place);
        if let Some(folder) = path.parent() {
            make(folder)?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A document in JSON, which is YAML too.
    pub(super) fn write_json(&self, place: impl AsRef<Path>, content: &Value) -> Result<PathBuf> {
        self.write(place, &format!("{content:#}\n"))
    }

    /// Starts a process that outlives this one; what it says goes to a file of its own.
    pub(super) fn start(&self, name: &str, command: &mut Command) -> Result<Daemon> {
        let log = self.path("logs").join(format!("{name}.log"));
        make(&self.path("logs"))?;
        let mut start = || {
            let file = File::options().create(true).append(true).open(&log)?;
            command
                .env(MARK, &self.folder)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .process_group(0)
                .spawn()
        };
        let child = start().with_context(|| format!("start {name}"))?;
        Ok(Daemon {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Ends every process and removes every trace.
    pub(super) fn remove(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let alive = self.processes()?;
            if alive.is_empty() {
                break;
            }
            if Instant::now() > end {
                bail!("these processes cannot be ended: {alive:?}");
            }
            let mut kill = command("kill -KILL");
            // One that has ended meanwhile is no failure.
            kill.args(alive.iter().map(u32::to_string))
                .stderr(Stdio::null())
                .status()
                .context("run kill")?;
            thread::sleep(Duration::from_millis(50));
        }
        for group in groups(&self.group(""))? {
            remove_group(&group)?;
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// The processes of this run, and of its containers.
    fn processes(&self) -> Result<Vec<u32>> {
        let mark = format!("{MARK}={}", self.folder.display());
        let own = self.group("");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("list the processes")? {
            let path = entry?.path();
            let pid = path.file_name().and_then(OsStr::to_str);
            let Some(pid) = pid.and_then(|name| name.parse().ok()) else {
                continue;
            };
            // What has ended meanwhile cannot be read, and what is a zombie says nothing.
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0);
            let marked = marked.into_iter().any(|entry| entry == mark.as_bytes());
            let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
            let zombie = fs::read_to_string(path.join("stat"))
                .is_ok_and(|stat| stat.rsplit(')').next().unwrap_or("").starts_with(" Z"));
            if (marked || in_group(&groups, &own)) && !zombie {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// Whether `/proc/PID/cgroup` names a group at the top that begins so.
fn in_group(groups: &str, start: &str) -> bool {
    groups.lines().any(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path.trim_start_matches('/').starts_with(start)
    })
}

/// The groups that begin so, in every hierarchy.
fn groups(start: &str) -> Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for hierarchy in hierarchies()? {
        let entries =
            fs::read_dir(&hierarchy).with_context(|| format!("list {}", hierarchy.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(start) {
                groups.push(entry.path());
            }
        }
    }
    Ok(groups)
}

/// Where control groups are mounted.
pub(super) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(place))
    });
    Ok(mounts.collect())
}

/// A group goes after those in it; its files go with it.
fn remove_group(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group).with_context(|| format!("list {}", group.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    // Its last process may be about to go.
    while let Err(error) = fs::remove_dir(group) {
        if error.kind() == io::ErrorKind::NotFound {
            break;
        }
        if Instant::now() > end {
            return Err(error).with_context(|| format!("remove {}", group.display()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(super) fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}

/// A process of a run.
pub(super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is there that the process brings about.
    pub(super) fn wait(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(120);
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let what = ended.map_or("is not ready".to_owned(), |status| status.to_string());
                let mut tail = command("tail -n 20");
                let said = shell::output(tail.arg(&self.log))?;
                bail!("{}: {what}; {}:\n{said}", self.name, self.log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_group() {
        let known = |groups: &str| in_group(groups, "run-");
        assert!(known("4:memory:/run-node1/kubepods/pod1/2\n"));
        assert!(known("1:cpu:/\n0::/run-node2\n"));
        assert!(!known("1:cpu:/\n0::/user.slice\n"));
        assert!(!known("0::/other/run-node2\n"));
    }

    #[test]
    fn a_started_process_is_found_and_ended() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("run-{}", std::process::id()));
        let run = Run { folder };
        run.make()?;
        let mut daemon = run.start("sleep", &mut command("sleep 60"))?;
        assert_eq!(run.processes()?, [daemon.id()]);
        run.remove()?;
        assert!(!daemon.child.wait()?.success());
        assert!(!run.folder.exists());
        Ok(())
    }
}
