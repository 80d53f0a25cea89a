//! What is there: `palisade pods` and its siblings beside an agent and real packets.

use std::{net::SocketAddr, process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Attempt, Protocol, attempt},
    skip_without_root,
};
use serde_json::{Value, json};

const NODE: &str = "node1";
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_millis(200);
const PORT: u16 = 8080;

/// A node with the pods `x/client`, `x/other` and `x/server`, which the client alone may reach; `x/pending` has no address yet.
struct Site {
    agent: Agent,
    lab: Lab,
}

impl Site {
    fn new(extra: &[&str]) -> Result<Self> {
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
                        "ports": [{"port": PORT}],
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
        Ok(Self { agent, lab })
    }

    /// Tries to reach the server once.
    fn knock(&self, from: &str) -> Result<()> {
        let to = self.lab.pod("x/server").endpoint.address(4);
        let attempts = [Attempt {
            from: &self.lab.pod(&format!("x/{from}")).endpoint.namespace,
            to: SocketAddr::new(to.context("IPv4")?, PORT),
            protocol: Protocol::Tcp,
            patience: ANSWER,
        }];
        attempt(&attempts)?;
        Ok(())
    }

    fn palisade(&self, words: &str) -> Result<Output> {
        let mut command = self
            .lab
            .node(NODE)
            .endpoint
            .namespace
            .command(Agent::program()?);
        command.args(words.split_whitespace());
        Ok(command.arg("--socket").arg(self.agent.socket()).output()?)
    }

    /// What it prints.
    fn text(&self, words: &str) -> Result<String> {
        let output = self.palisade(words)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.text(&format!("{words} -o json"))?,
        )?)
    }
}

fn pod(name: &str, addresses: &[String]) -> Value {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "uid": name, "labels": {"app": name}},
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

#[test]
fn pods_are_shown_with_their_policies_packets_and_live_flows() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Site::new(&[])?;
    site.knock("client")?;
    site.knock("other")?;
    let all = site.json("pods")?;
    let names: Vec<_> = all["pods"]
        .as_array()
        .context("pods")?
        .iter()
        .map(|pod| &pod["name"])
        .collect();
    assert_eq!(names, ["client", "other", "pending", "server"]);
    let of = |name: usize, path: &str| all["pods"][name].pointer(path).cloned().unwrap_or_default();
    assert_eq!(of(3, "/node"), NODE);
    assert_eq!(of(3, "/ingress/policies"), json!(["allow-client"]));
    ensure!(
        of(3, "/packets/ingress/denied/policy").as_u64() >= Some(1),
        "{all}"
    );
    ensure!(
        of(3, "/packets/ingress/deniedBytes").as_u64() >= Some(60),
        "{all}"
    );
    ensure!(
        of(3, "/packets/ingress/allowed").as_u64() >= Some(2),
        "{all}"
    );
    assert_eq!(of(0, "/packets/ingress/denied"), json!({}));
    // One connection, which is one flow of each end; what was denied has none.
    assert_eq!(
        (of(0, "/liveFlows"), of(3, "/liveFlows")),
        (json!(1), json!(1)),
        "{all}"
    );
    assert_eq!(of(1, "/liveFlows"), 0, "{all}");
    assert_eq!(
        (of(2, "/enforced"), of(2, "/packets")),
        (json!(false), Value::Null)
    );

    let text = site.text("pods x/server")?;
    ensure!(text.lines().count() == 2, "{text}");
    ensure!(text.contains(" policy "), "{text}");
    ensure!(
        site.text("pods x/pending")?
            .contains("no: it has no address yet")
    );
    let wide = site.text("pods -n x -o wide")?;
    ensure!(
        wide.contains("veth-x-server") && wide.contains("LIVE FLOWS"),
        "{wide}"
    );
    assert_eq!(site.text("pods -n nowhere")?, "");
    assert_eq!(site.palisade("pods x/nobody")?.status.code(), Some(1));
    assert_eq!(site.palisade("pods nobody")?.status.code(), Some(2));
    Ok(())
}
