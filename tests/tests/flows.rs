//! `palisade flows` beside an agent and real packets.

use std::{
    fs,
    net::SocketAddr,
    process::Output,
    thread,
    time::{Duration, Instant},
};

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

/// A node with the pods `x/client`, `x/other` and `x/server`, which the client alone may reach, at another port.
struct Site {
    agent: Agent,
    lab: Lab,
}

impl Site {
    fn new() -> Result<Self> {
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
                        "ports": [{"port": 9090}],
                    }],
                },
            }),
        ];
        for name in ["client", "other", "server"] {
            let addresses = &lab.add_pod(&format!("x/{name}"), NODE)?.endpoint.addresses;
            let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "x", "uid": name, "labels": {"app": name}},
                "spec": {"nodeName": NODE},
                "status": {"phase": "Running", "podIPs": addresses},
            }));
        }
        manifests.sync(&objects)?;
        let program = Agent::program()?;
        let mut agent = Agent::start(&lab, NODE, &program, manifests.folder(), &[])?;
        agent.wait_until_ready(PATIENCE)?;
        Ok(Self { agent, lab })
    }

    /// Tries to reach the server, so many times at once.
    fn knock(&self, from: &str, times: usize) -> Result<()> {
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

    fn flows(&self, words: &str) -> Result<Output> {
        let mut flows = self
            .lab
            .node(NODE)
            .endpoint
            .namespace
            .command(Agent::program()?);
        flows.args(["flows", "--socket"]).arg(self.agent.socket());
        Ok(flows.args(words.split_whitespace()).output()?)
    }

    /// What it prints.
    fn text(&self, words: &str) -> Result<String> {
        let output = self.flows(words)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[test]
fn a_denied_packet_is_shown_with_the_policy_and_the_rule_that_comes_nearest() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Site::new()?;
    assert_eq!(site.text("")?, "");
    let end = Instant::now() + PATIENCE;
    site.knock("client", 1)?;
    site.knock("other", 1)?;
    while site.text("--from-pod x/other")?.is_empty() {
        ensure!(Instant::now() < end, "nothing is shown");
        thread::sleep(Duration::from_millis(20));
    }
    let text = site.text("--from-pod x/client --last 1")?;
    ensure!(text.lines().count() == 1, "{text}");
    let to = format!(
        "-> x/server:{PORT} TCP DENIED at ingress by allow-client; nearest is allow-client ingress[0]: "
    );
    ensure!(text.contains(&to), "{text}");
    let wide = site.text("--from-pod x/client --last 1 -o wide")?;
    let address = site
        .lab
        .pod("x/client")
        .endpoint
        .address(4)
        .context("IPv4")?;
    ensure!(wide.contains(&format!("x/client ({address})")), "{wide}");
    let json = site.text("--since 1m -o json --not from-pod=x/client")?;
    for line in json.lines() {
        let flow: Value = serde_json::from_str(line)?;
        assert_eq!(flow["peer"]["pod"], "other");
        assert_eq!(flow["miss"]["policy"], "allow-client");
    }
    ensure!(!json.is_empty());
    assert_eq!(site.text("--to-pod x/client")?, "");
    assert_eq!(site.text("--verdict allowed")?, "");
    assert_eq!(site.flows("--port http")?.status.code(), Some(2));
    let nowhere = site.flows("--socket /run/nowhere.sock")?;
    assert_eq!(nowhere.status.code(), Some(3));
    Ok(())
}

#[test]
fn what_comes_is_followed_and_what_is_lost_is_said() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let site = Site::new()?;
    site.knock("other", 1)?;
    let mut follow = site
        .lab
        .node(NODE)
        .endpoint
        .namespace
        .command(Agent::program()?);
    follow.args(["flows", "--follow", "--from-pod", "x/client"]);
    follow.arg("--socket").arg(site.agent.socket());
    let log = "flows.log";
    let mut process = site.lab.start(follow, log)?;
    // It begins with what comes after it has looked once.
    thread::sleep(Duration::from_secs(1));
    site.knock("client", 1)?;
    process.wait_for_log("x/client:", PATIENCE)?;
    // More of a kind than events tell of.
    site.knock("client", 100)?;
    process.wait_for_log("EVENTS LOST: ", PATIENCE)?;
    ensure!(process.is_running());
    let text = fs::read_to_string(site.lab.path().join(log))?;
    ensure!(!text.contains("x/other"), "{text}");
    Ok(())
}
