//! The agents, one per node, and what they can be asked.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use palisade_tests::{
    lab::{Lab, Process},
    probe::Protocol,
};
use serde::Deserialize;

use crate::story::NODES;

/// The agents, and the program they are.
pub(super) struct Agents {
    program: PathBuf,
    socket: PathBuf,
    running: Vec<Process>,
}

/// What `palisade explain -o json` says, as far as the demo tells it on.
#[derive(Deserialize)]
pub(super) struct Explanation {
    /// Whether it may pass.
    pub(super) allowed: bool,
    egress: Option<Side>,
    ingress: Option<Side>,
}

/// One end.
#[derive(Deserialize)]
struct Side {
    namespace: String,
    pod: String,
    allowed: bool,
    policies: Vec<String>,
    misses: Vec<Miss>,
}

/// A rule that does not allow.
#[derive(Deserialize)]
struct Miss {
    policy: String,
    reason: String,
}

impl Explanation {
    /// Which policies decide that it may not pass.
    pub(super) fn reason(&self) -> Option<String> {
        let sides = [("egress", &self.egress), ("ingress", &self.ingress)];
        let (direction, side) = sides
            .into_iter()
            .filter_map(|(direction, side)| Some((direction, side.as_ref()?)))
            .find(|(_, side)| !side.allowed)?;
        let Side { namespace, pod, .. } = side;
        let policies = side.policies.join(", ");
        let decided = format!("{direction} of {namespace}/{pod}: {policies}");
        Some(match side.misses.first() {
            Some(Miss { policy, reason }) => format!("{decided}; not by {policy}: {reason}"),
            None => decided,
        })
    }
}

impl Agents {
    /// Starts one on each node and waits until all are ready.
    pub(super) fn start(lab: &Lab, program: &Path, manifests: &Path) -> Result<Self> {
        ensure!(
            program.is_file(),
            "no {} (cargo build --package palisade)",
            program.display()
        );
        let mut running = Vec::new();
        for name in NODES {
            let mut command = lab.node(name).endpoint.namespace.command(program);
            command
                .args(["agent", "--node-name", name, "--manifests"])
                .arg(manifests)
                .arg("--netns-dir")
                .arg(lab.netns_dir())
                .arg("--bpffs")
                .arg(lab.bpffs().join(name))
                .arg("--socket")
                .arg(socket(lab, name));
            running.push(lab.start(command, &format!("{name}.log"))?);
        }
        let mut agents = Self {
            program: program.to_owned(),
            socket: socket(lab, NODES[0]),
            running,
        };
        for (number, name) in NODES.into_iter().enumerate() {
            agents.wait(number, &socket(lab, name))?;
        }
        Ok(agents)
    }

    /// Waits until one enforces all it should.
    fn wait(&mut self, number: usize, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut command = Command::new(&self.program);
            let status = command.arg("status").arg("--socket").arg(socket).output()?;
            if status.status.success() {
                return Ok(());
            }
            let agent = &mut self.running[number];
            if !agent.is_running() || Instant::now() > deadline {
                let said = String::from_utf8_lossy(&status.stdout);
                bail!("the agent is not ready:\n{said}{}", agent.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks whether and why packets pass.
    pub(super) fn explain(
        &self,
        from: &str,
        to: &str,
        port: u16,
        protocol: Protocol,
    ) -> Result<Explanation> {
        let mut command = Command::new(&self.program);
        command.args([
            "explain", "--from", from, "--to", to, "-o", "json", "--port",
        ]);
        command
            .arg(format!("{port}/{protocol}"))
            .arg("--socket")
            .arg(&self.socket);
        let output = command.output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "explain {from} {to}: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Commands to ask them by hand.
    pub(super) fn commands(&self) -> Vec<String> {
        let (program, socket) = (self.program.display(), self.socket.display());
        vec![
            format!("{program} status --socket {socket}"),
            format!(
                "{program} explain --socket {socket} --from shop/api --to 203.0.113.66 --port 443/TCP"
            ),
        ]
    }
}

fn socket(lab: &Lab, node: &str) -> PathBuf {
    lab.path().join(format!("{node}.sock"))
}
