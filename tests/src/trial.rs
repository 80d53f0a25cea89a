//! What happens to traffic while something else happens: a node with an agent, three pods, and streams between them of
//! which nothing may be lost and nothing may leak.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    lab::{Cni, Endpoint, Lab, Plan},
    manifest::Manifests,
    probe::{Connection, Ports, Stream},
};

/// The node.
pub const NODE: &str = "node1";
/// How long an agent may take until it enforces what it should.
const READY: Duration = Duration::from_secs(60);
/// How long an answer may take.
pub const ANSWER: Duration = Duration::from_millis(500);
/// Of each stream, a second.
const RATE: u32 = 1000;

/// A node with the pods `x/client`, `x/other` and `x/server`, which the client alone may reach.
#[derive(Debug)]
pub struct Trial {
    /// What the agent watches.
    pub manifests: Manifests,
    /// What was there at first.
    pub objects: Vec<Value>,
    /// Where it is.
    pub lab: Lab,
}

impl Trial {
    /// Makes it, without an agent.
    ///
    /// # Errors
    /// Where the lab cannot be made.
    pub fn new(cni: Cni) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, cni))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})];
        for name in ["client", "other", "server"] {
            let addresses = &lab.add_pod(&format!("x/{name}"), NODE)?.endpoint.addresses;
            objects.push(pod(name, NODE, addresses));
        }
        objects.push(only_from("server", &["client"]));
        manifests.sync(&objects)?;
        Ok(Self {
            manifests,
            objects,
            lab,
        })
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn start(&self, program: &Path, arguments: &[&str]) -> Result<Agent> {
        let folder = self.manifests.folder();
        Agent::start(&self.lab, NODE, program, folder, arguments)
    }

    /// Starts one, and waits until it enforces all it should.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn ready(&self, program: &Path, arguments: &[&str]) -> Result<Agent> {
        let mut agent = self.start(program, arguments)?;
        agent.wait_until_ready(READY)?;
        Ok(agent)
    }

    /// Makes these the objects beside those that were there at first.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn beside(&mut self, more: impl IntoIterator<Item = Value>) -> Result<()> {
        let mut objects = self.objects.clone();
        objects.extend(more);
        self.manifests.sync(&objects)?;
        Ok(())
    }

    /// One of the three.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> &Endpoint {
        &self.lab.pod(&format!("x/{name}")).endpoint
    }

    /// Its address of a family.
    ///
    /// # Errors
    /// Where it has none.
    pub fn address(&self, name: &str, family: u8) -> Result<IpAddr> {
        let address = self.endpoint(name).address(family);
        address.context("no address of that family")
    }

    /// Streams that must pass and one that must not, and a connection.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn streams(&self) -> Result<Streams> {
        let [client, server, other] = ["client", "server", "other"].map(|name| self.endpoint(name));
        Ok(Streams {
            open: Connection::open(client, server, 4, 9001, ANSWER)?,
            allowed: Stream::start(client, server, 4, 9002, RATE, Ports::One)?,
            fresh: Stream::start(client, server, 6, 9003, RATE, Ports::Fresh)?,
            denied: Stream::start(other, server, 4, 9004, RATE, Ports::Fresh)?,
        })
    }
}

/// A connection and streams from the client, and a stream of another's.
#[derive(Debug)]
pub struct Streams {
    /// The connection.
    pub open: Connection,
    allowed: Stream,
    fresh: Stream,
    denied: Stream,
}

impl Streams {
    /// Ends them, and tells how many datagrams went wrong.
    ///
    /// # Errors
    /// Where a single one did, or the connection was cut.
    pub fn judge(mut self, what: &str) -> Result<()> {
        ensure!(self.open.works(ANSWER), "{what}: a connection was cut");
        for (stream, loss, passes) in [
            ("allowed", self.allowed.stop()?, true),
            ("fresh", self.fresh.stop()?, true),
            ("denied", self.denied.stop()?, false),
        ] {
            let wrong = if passes { loss.lost() } else { loss.leaked() };
            let sent = loss.sent.len();
            println!("{what}, {stream}: {wrong} of {sent} went wrong");
            ensure!(wrong == 0, "{what}, {stream}: {wrong} of {sent}");
        }
        Ok(())
    }
}

/// A pod as an object, with its name as the label `app`.
#[must_use]
pub fn pod(name: &str, node: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

/// A policy in the namespace of the pods.
#[must_use]
pub fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"}, "spec": spec,
    })
}

/// A peer that is a pod.
#[must_use]
pub fn peer(name: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": name}}})
}

/// A pod takes connections of these alone.
#[must_use]
pub fn only_from(name: &str, peers: &[&str]) -> Value {
    let peers: Vec<_> = peers.iter().map(|name| peer(name)).collect();
    policy(
        "only-client",
        &json!({"podSelector": {"matchLabels": {"app": name}}, "ingress": [{"from": peers}]}),
    )
}
