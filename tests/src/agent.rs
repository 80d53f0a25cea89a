//! The real agent on a node of the lab, and what it can be asked.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    lab::{Lab, Process},
    probe::Protocol,
};

/// An agent that runs. It is killed when this is dropped; what it pinned stays in force until the lab goes.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    socket: PathBuf,
    process: Process,
}

/// What `palisade explain -o json` says, as far as tests ask for it.
#[derive(Clone, Debug, Deserialize)]
pub struct Explanation {
    /// Whether it may pass.
    pub allowed: bool,
    /// What the sender's policies say, if it is a pod.
    pub egress: Option<Side>,
    /// What the receiver's policies say.
    pub ingress: Option<Side>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, Deserialize)]
pub struct Side {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Whether this end allows it.
    pub allowed: bool,
    /// The policies that isolate the pod in this direction.
    pub policies: Vec<String>,
    /// The rules that do not allow it, nearest first.
    #[serde(default)]
    pub misses: Vec<Miss>,
}

/// A rule that does not allow, and why.
#[derive(Clone, Debug, Deserialize)]
pub struct Miss {
    /// Its policy.
    pub policy: String,
    /// The reason.
    pub reason: String,
}

impl Explanation {
    /// Direction and policies of the first end that denies.
    #[must_use]
    pub fn denial(&self) -> Option<(&'static str, &Side)> {
        let sides = [("egress", &self.egress), ("ingress", &self.ingress)];
        let mut sides = sides
            .into_iter()
            .filter_map(|(direction, side)| Some((direction, side.as_ref()?)));
        sides.find(|(_, side)| !side.allowed)
    }
}

impl Agent {
    /// The program: what the variable PALISADE_BIN says, else the one that cargo puts beside this.
    ///
    /// # Errors
    /// Where there is none.
    pub fn program() -> Result<PathBuf> {
        let program = match env::var_os("PALISADE_BIN") {
            Some(program) => PathBuf::from(program),
            None => {
                let own = env::current_exe()?;
                let mut folders = own.ancestors().skip(1).take(2);
                let beside = folders.find_map(|folder| {
                    let program = folder.join("palisade");
                    program.is_file().then_some(program)
                });
                beside
                    .context("no palisade beside this program (cargo build --package palisade)")?
            }
        };
        ensure!(program.is_file(), "no {}", program.display());
        Ok(fs::canonicalize(program)?)
    }

    /// Starts one on a node, with pins, socket and log of its own; what is started there later takes over what
    /// this leaves. Extra arguments come last.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(
        lab: &Lab,
        node: &str,
        program: &Path,
        manifests: &Path,
        extra: &[&str],
    ) -> Result<Self> {
        let command = lab.node(node).endpoint.namespace.command(program);
        Self::start_as(lab, node, command, program, manifests, extra)
    }

    /// The same, by a command that ends in the program: one that changes what it may do, for one.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start_as(
        lab: &Lab,
        node: &str,
        mut command: Command,
        program: &Path,
        manifests: &Path,
        extra: &[&str],
    ) -> Result<Self> {
        let socket = lab.path().join(format!("{node}.sock"));
        command
            .args(["agent", "--node-name", node])
            .arg("--manifests")
            .arg(manifests)
            .arg("--netns-dir")
            .arg(lab.netns_dir())
            .arg("--bpffs")
            .arg(lab.bpffs().join(node))
            .arg("--socket")
            .arg(&socket)
            .args(extra);
        Ok(Self {
            program: program.to_owned(),
            socket,
            process: lab.start(command, &format!("{node}.log"))?,
        })
    }

    /// Waits until it enforces all it should.
    ///
    /// # Errors
    /// Where it does not in time, or ends; with its log.
    pub fn wait_until_ready(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.ask(&["status"])?;
            if status.status.success() {
                return Ok(());
            }
            let running = self.process.is_running();
            if !running || Instant::now() > deadline {
                let said = String::from_utf8_lossy(&status.stdout);
                bail!(
                    "not ready (running: {running}):\n{said}{}",
                    self.process.log()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its status, as `palisade status -o json` has it.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&self) -> Result<Value> {
        let output = self.ask(&["status", "-o", "json"])?;
        parsed(&output)
    }

    /// Asks whether and why packets pass between two pods (`ns/pod`) or addresses.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn explain(
        &self,
        from: &str,
        to: &str,
        port: u16,
        protocol: Protocol,
    ) -> Result<Explanation> {
        let port = format!("{port}/{protocol}");
        let output = self.ask(&[
            "explain", "--from", from, "--to", to, "--port", &port, "-o", "json",
        ])?;
        parsed(&output).with_context(|| format!("explaining {from} -> {to} {port}"))
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--socket").arg(&self.socket);
        command
            .output()
            .with_context(|| format!("running {command:?}"))
    }
}

fn parsed<'a, T: Deserialize<'a>>(output: &'a Output) -> Result<T> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("{}: {}", output.status, complaint.trim_end())
    })
}
