//! One node with an agent, three pods, and the command line beside it.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Attempt, Protocol, attempt},
};

/// The node.
pub const NODE: &str = "node1";
/// Where pods are asked.
pub const PORT: u16 = 8080;
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(200);

/// A node with the pods `x/client`, `x/other` and `x/server`, which the client alone may reach, at one port; `x/pending` has no
/// address yet.
#[derive(Debug)]
pub struct Desk {
    /// Who is asked.
    pub agent: Agent,
    /// What it watches.
    pub manifests: Manifests,
    /// Its node and pods.
    pub lab: Lab,
}

impl Desk {
    /// Whose server may be reached at that port, with further flags of the agent.
    ///
    /// # Errors
    /// Where the lab or the agent does not start.
    pub fn new(allowed: u16, extra: &[&str]) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "allow-client", "namespace": "x"},
                "spec": {
                    "podSelector": {"matchLabels": {"app": "server"}},
                    "ingress": [{
                        "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                        "ports": [{"port": allowed}],
                    }],
                },
            }),
            pod("pending", &[]),
        ];
        for name in ["client", "other", "server"] {
            let addresses = lab.add_pod(&format!("x/{name}"), NODE)?;
            let addresses: Vec<_> = addresses
                .endpoint
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect();
            objects.push(pod(name, &addresses));
        }
        lab.serve("x/server", PORT, Protocol::Tcp)?;
        manifests.sync(&objects)?;
        let program = Agent::program()?;
        let mut agent = Agent::start(&lab, NODE, &program, manifests.folder(), extra)?;
        agent.wait_until_ready(PATIENCE)?;
        Ok(Self {
            agent,
            manifests,
            lab,
        })
    }

    /// Tries to reach the server, so many times at once.
    ///
    /// # Errors
    /// Where nothing can be sent.
    pub fn knock(&self, from: &str, times: usize) -> Result<()> {
        let to = self.lab.pod("x/server").endpoint.address(4);
        let to = SocketAddr::new(to.context("IPv4")?, PORT);
        let attempts: Vec<_> = std::iter::repeat_with(|| Attempt {
            from: &self.lab.pod(&format!("x/{from}")).endpoint.namespace,
            to,
            protocol: Protocol::Tcp,
            patience: ANSWER,
        })
        .take(times)
        .collect();
        attempt(&attempts)?;
        Ok(())
    }

    /// A command of `palisade` that asks the agent.
    ///
    /// # Errors
    /// Where there is no program.
    pub fn command(&self, words: &str) -> Result<Command> {
        let node = &self.lab.node(NODE).endpoint.namespace;
        let mut command = node.command(Agent::program()?);
        let mut words = words.split_whitespace();
        // What is asked otherwise follows, and holds.
        command
            .args(words.next())
            .arg("--socket")
            .arg(self.agent.socket());
        command.args(words);
        Ok(command)
    }

    /// What comes of it.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn palisade(&self, words: &str) -> Result<Output> {
        Ok(self.command(words)?.output()?)
    }

    /// What it prints.
    ///
    /// # Errors
    /// Where it fails.
    pub fn text(&self, words: &str) -> Result<String> {
        let output = self.palisade(words)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// Where it fails, or is none.
    pub fn json(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.text(&format!("{words} -o json"))?,
        )?)
    }

    /// The folder of the maps.
    ///
    /// # Errors
    /// Where there is none.
    pub fn maps(&self) -> Result<PathBuf> {
        let sets = fs::read_dir(self.lab.bpffs().join(NODE))?;
        let mut maps = sets.filter_map(|set| Some(set.ok()?.path().join("maps")));
        maps.find(|path| path.exists()).context("no maps")
    }
}

/// Asks until it holds.
///
/// # Errors
/// Where it does not in time.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A pod of the node.
#[must_use]
pub fn pod(name: &str, addresses: &[String]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}
