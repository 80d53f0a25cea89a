//! Pods of `first-packet` of `palisade-tests`, an image of its own: they send and receive, and tell what came.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    network::{Addresses, NODES},
    node::Node,
    run::Run,
};
use crate::{
    dist::{self, Target},
    image::archive::Image,
    shell,
};

const IMAGE: &str = "docker.io/library/first-packet:1";
/// How long what was sent may be under way, and until it is told of.
const SETTLE: Duration = Duration::from_secs(4);
/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// What a receiver got of one sender by one protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Got {
    /// The smallest number.
    pub(super) first: u64,
    /// How many.
    pub(super) all: u64,
    /// How many after the first second of pods that send from their start on.
    pub(super) later: u64,
}

/// By sender and protocol.
pub(super) type Received = BTreeMap<(String, String), Got>;

/// A namespace with such pods.
pub(super) struct Packets<'a> {
    pub(super) run: &'a Run,
    namespace: &'static str,
}

impl<'a> Packets<'a> {
    /// Builds the image, loads it into every node, and makes the namespace.
    pub(super) fn new(run: &'a Run, namespace: &'static str) -> Result<Self> {
        load_image(run)?;
        let packets = Self { run, namespace };
        packets.apply(&[json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        })])?;
        packets.wait(&["--for=create", "serviceaccount/default"])?;
        Ok(packets)
    }

    /// Removes the namespace with all that is in it.
    pub(super) fn remove(&self) -> Result<()> {
        self.kubectl(&["delete", "namespace", self.namespace, "--wait=true"])
            .map(drop)
    }

    /// A policy for the pods of a group.
    pub(super) fn policy(&self, group: &str, mut spec: Value) -> Value {
        spec["podSelector"] = of_group(group);
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": group, "namespace": self.namespace }, "spec": spec,
        })
    }

    /// A pod of a group.
    pub(super) fn pod(
        &self,
        name: &str,
        group: &str,
        node: &Addresses,
        arguments: &[&str],
    ) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": self.namespace, "labels": { "group": group } },
            "spec": {
                "nodeName": node.node,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "first-packet", "image": IMAGE, "imagePullPolicy": "Never", "args": arguments,
                    // Its queue may be longer than others' may.
                    "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } },
                }],
            },
        })
    }

    /// Waits until these have sent all, and it was told.
    pub(super) fn finish(&self, names: &[String]) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        for name in names {
            let pod = format!("pod/{name}");
            self.wait(&["--for=condition=Ready", &pod])?;
            while !self.kubectl(&["logs", &pod])?.contains("done") {
                ensure!(Instant::now() < end, "{name} does not come to an end");
                thread::sleep(Duration::from_millis(200));
            }
        }
        thread::sleep(SETTLE);
        Ok(())
    }

    /// What a receiver has got so far.
    pub(super) fn received(&self, by: &str) -> Result<Received> {
        let said = self.kubectl(&["logs", &format!("pod/{by}"), "--tail=1"])?;
        let rows: Vec<Value> = serde_json::from_str(said.trim()).context("read a receiver")?;
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or_default();
        let rows = rows.iter().map(|row| {
            let got = Got {
                first: number(row, "first"),
                all: number(row, "all"),
                later: number(row, "later"),
            };
            ((text(row, "name"), text(row, "protocol")), got)
        });
        Ok(rows.collect())
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut kubectl = self.run.kubectl();
        shell::output(
            kubectl
                .args(["--namespace", self.namespace])
                .args(arguments),
        )
    }

    pub(super) fn get(&self, what: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
    }

    pub(super) fn wait(&self, what: &[&str]) -> Result<()> {
        let mut arguments = vec!["wait", "--timeout=120s"];
        arguments.extend(what);
        self.kubectl(&arguments).map(drop)
    }

    pub(super) fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let mut kubectl = self.run.kubectl();
        let mut child = kubectl
            .args(["apply", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("run kubectl")?;
        let mut input = child.stdin.take().context("no pipe to kubectl")?;
        input.write_all(list.to_string().as_bytes())?;
        drop(input);
        ensure!(child.wait()?.success(), "kubectl apply failed");
        Ok(())
    }
}

/// How policies name the pods of a group.
pub(super) fn of_group(group: &str) -> Value {
    json!({ "matchLabels": { "group": group } })
}

fn load_image(run: &Run) -> Result<()> {
    let target = Target::host()?;
    let program = dist::build(target, "palisade-tests", "first-packet")?;
    let archive = run.path("images/first-packet.tar");
    Image {
        names: &[IMAGE],
        architecture: target.go_name(),
        program: ("first-packet", &program),
        arguments: &[],
    }
    .write(&archive)?;
    for addresses in NODES {
        Node::find(run, addresses)?.load(&archive)?;
    }
    Ok(())
}
