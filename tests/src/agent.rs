//! The real agent on a node of the lab, and what it can be asked.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use palisade::api::{
    client,
    proto::{Explanation, Side, Status},
};

use crate::{
    lab::{Lab, Process},
    probe::Protocol,
};

/// How often an agent is asked whether it is ready.
const POLL: Duration = Duration::from_millis(10);

/// An agent that runs. It is killed when this is dropped; what it pinned stays in force until the lab goes.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    socket: PathBuf,
    process: Process,
}

/// Direction and policies of the first end that denies.
#[must_use]
pub fn denial(explanation: &Explanation) -> Option<(&'static str, &Side)> {
    let sides = [
        ("egress", &explanation.egress),
        ("ingress", &explanation.ingress),
    ];
    let mut sides = sides
        .into_iter()
        .filter_map(|(direction, side)| Some((direction, side.as_ref()?)));
    sides.find(|(_, side)| !side.allowed)
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

    /// Starts one that watches the API server of a kubeconfig.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start_watching(
        lab: &Lab,
        node: &str,
        program: &Path,
        kubeconfig: &Path,
        extra: &[&str],
    ) -> Result<Self> {
        let command = lab.node(node).endpoint.namespace.command(program);
        Self::launch(
            lab,
            node,
            command,
            program,
            ("--kubeconfig", kubeconfig),
            extra,
        )
    }

    /// The same, by a command that ends in the program: one that changes what it may do, for one.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start_as(
        lab: &Lab,
        node: &str,
        command: Command,
        program: &Path,
        manifests: &Path,
        extra: &[&str],
    ) -> Result<Self> {
        Self::launch(
            lab,
            node,
            command,
            program,
            ("--manifests", manifests),
            extra,
        )
    }

    /// What runs a program with the capabilities that the chart gives: BPF, NET_ADMIN and PERFMON, if no others are
    /// named.
    #[must_use]
    pub fn limited(lab: &Lab, node: &str, capabilities: Option<&str>) -> Command {
        let capabilities = capabilities.unwrap_or("+bpf,+net_admin,+perfmon");
        let mut command = lab.node(node).endpoint.namespace.command("setpriv");
        command
            .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set"])
            .arg(format!("-all,{capabilities}"));
        command
    }

    fn launch(
        lab: &Lab,
        node: &str,
        mut command: Command,
        program: &Path,
        (source, path): (&str, &Path),
        extra: &[&str],
    ) -> Result<Self> {
        let socket = lab.path().join(format!("{node}.sock"));
        command
            .args(["agent", "--node-name", node])
            .arg(source)
            .arg(path)
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
            let status = self.status();
            if status.as_ref().is_ok_and(|status| status.healthy) {
                return Ok(());
            }
            let running = self.process.is_running();
            if !running || Instant::now() > deadline {
                let log = self.process.log();
                bail!("not ready (running: {running}): {status:#?}\n{log}");
            }
            thread::sleep(POLL);
        }
    }

    /// Its status.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&self) -> Result<Status> {
        Ok(client::get(&self.socket, "/v1/status")?)
    }

    /// Waits until its condition `source` holds, or does not; returns the reason.
    ///
    /// # Errors
    /// Where it is otherwise for too long, or does not answer.
    pub fn wait_for_source(&mut self, ok: bool, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.status()?;
            let source = status.conditions.iter().find(|it| it.name == "source");
            let source = source.context("no condition")?;
            if source.ok == ok {
                return Ok(source.reason.clone().unwrap_or_default());
            }
            let log = self.process.log();
            ensure!(Instant::now() < deadline, "source is {source:?}\n{log}");
            thread::sleep(POLL);
        }
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
        let mut command = Command::new(&self.program);
        command
            .args([
                "explain", "--from", from, "--to", to, "--port", &port, "-o", "json", "--socket",
            ])
            .arg(&self.socket);
        let output = command.output()?;
        // It exits 1 where the answer is no.
        serde_json::from_slice(&output.stdout).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!("{command:?}: {}: {}", output.status, complaint.trim_end())
        })
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
}
