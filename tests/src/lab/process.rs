//! Programs that run beside a test, in a namespace of the lab.

use std::{
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// Starts every process. The kernel sends the signal of a parent's death when the *thread* that
/// started the child ends, and this one ends with the process only.
static STARTER: LazyLock<Sender<Start>> = LazyLock::new(|| {
    let (sender, starts) = mpsc::channel::<Start>();
    thread::spawn(move || {
        for mut start in starts {
            if start.answer.send(start.command.spawn()).is_err() {
                eprintln!("nobody waits for {:?}", start.command);
            }
        }
    });
    sender
});

struct Start {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

/// A running program. It is killed when this is dropped, and by the kernel when the process of the
/// test ends in whatever way.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command, its output and errors going to the end of the file `log`.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let die = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: one system call.
        unsafe { command.pre_exec(die) };
        let program = format!("{command:?}");
        let (answer, started) = mpsc::channel();
        STARTER
            .send(Start { command, answer })
            .context("the starter is gone")?;
        let child = started
            .recv()?
            .with_context(|| format!("starting {program}"))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        let pid = Pid::from_raw(pid).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it has not ended in time; with its log.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("still running after {patience:?}:\n{}", self.log())
    }

    /// Waits until its log contains a text.
    ///
    /// # Errors
    /// Where it has not in time, or the program has ended; with its log.
    pub fn wait_for_log(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let running = self.is_running();
            let log = self.log();
            if log.contains(text) {
                return Ok(());
            }
            if !running || Instant::now() > deadline {
                bail!("no {text:?} (running: {running}) in\n{log}");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it at once, with no chance to do anything more.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.is_running() {
            self.child.kill()?;
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        match self.kill() {
            Ok(status) if status.core_dumped() => eprintln!("{status}:\n{}", self.log()),
            Ok(_) => {}
            Err(error) => eprintln!("ending process {}: {error:#}", self.pid()),
        }
    }
}
