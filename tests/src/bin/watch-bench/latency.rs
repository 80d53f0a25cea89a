//! What the watch costs an agent: memory and time where a server tells it of a large cluster, and how long it takes from
//! the server's answer to the packet.

use std::{
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use palisade_tests::{
    agent::Agent,
    control_plane::Fake,
    cost::Cost,
    lab::{Cni, Lab, Plan},
    probe::{Attempt, Outcome, Protocol, attempt},
};
use serde_json::{Value, json};

use crate::objects::{NAMESPACES, namespace_of, pod, policy};

const NODE: &str = "node1";
const PORT: u16 = 8080;
const PODS: usize = 100_000;
const POLICIES: usize = 10_000;
/// As many have policies.
const APPS: usize = POLICIES / NAMESPACES;
/// Pods to a node.
const DENSITY: usize = 100;
/// Changes of which each is timed.
const CHANGES: u64 = 100;
/// For how long a probe waits: they follow each other so closely.
const PROBE: Duration = Duration::from_millis(2);
/// For how long nothing passes once all is closed.
const SILENCE: Duration = Duration::from_millis(100);
/// How long a change takes at most.
const SLOWEST: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(300);

/// What is on the agent's node.
#[derive(Args)]
pub(crate) struct Options {
    /// Pods of the node: the two that speak, and others of which each has a policy of its own
    #[arg(long, default_value_t = 2)]
    local: usize,
}

/// Measures one agent.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    for name in ["x/client", "x/server"] {
        lab.add_pod(name, NODE)?;
        lab.serve(name, PORT, Protocol::Tcp)?;
    }
    let fake = Fake::start(&lab.node(NODE).endpoint.namespace)?;
    let kubeconfig = lab.path().join("kubeconfig");
    fake.kubeconfig(&kubeconfig)?;
    let mut own = Vec::new();
    for name in ["client", "server"] {
        let address = lab.pod(&format!("x/{name}")).endpoint.address(4);
        let address = address.context("IPv4")?.to_string();
        own.push(pod("x", name, NODE, &address, name, 1));
    }
    for at in 2..options.local {
        let name = format!("local-{at}");
        let plugged = lab.add_pod(&format!("x/{name}"), NODE)?;
        let address = plugged.endpoint.address(4).context("IPv4")?.to_string();
        let app = format!("app{}", at % APPS);
        own.push(pod(&namespace_of(at), &name, NODE, &address, &app, 1));
    }
    fake.list("pods", 1_000_000, &own);
    fake.list("networkpolicies", 1_000_000, &[open(1)]);
    fake.list("namespaces", 1_000_000, &[]);
    fake.list("services", 1_000_000, &[]);
    fake.stream("namespaces", NAMESPACES, |at| {
        let (name, version, team) = (namespace_of(at), at + 1, at % 50);
        json!({"metadata": {
            "name": name, "resourceVersion": version.to_string(), "labels": {"team": format!("t{team}")},
        }})
        .to_string()
    });
    fake.stream("pods", PODS, |at| {
        // Rendered once, for rendering would be most of the time.
        static POD: LazyLock<String> =
            LazyLock::new(|| pod("@NS", "@NAME", "@NODE", "@IP", "@APP", 1).to_string());
        let app = format!("app{}", at / NAMESPACES % 20);
        POD.replace("@NS", &namespace_of(at))
            .replace("@NAME", &format!("{app}-7c9d8f6b5d-{at:05}"))
            .replace("@NODE", &format!("node-{}", at / DENSITY))
            .replace(
                "@IP",
                &format!("10.{}.{}.{}", 128 + at / 65_536, at / 256 % 256, at % 256),
            )
            .replace("@APP", &app)
            .replace(
                r#""resourceVersion":"1""#,
                &format!(r#""resourceVersion":"{}""#, at + 10),
            )
    });
    fake.stream("networkpolicies", POLICIES, |at| policy(at).to_string());
    let size = pod("namespace", "name", "node", "10.0.0.1", "app", 1)
        .to_string()
        .len();
    println!(
        "{PODS} pods of {size} bytes, {} of its own, {POLICIES} policies, {NAMESPACES} namespaces",
        own.len()
    );

    let begun = Instant::now();
    let program = Agent::program()?;
    let told = ["--log", "info,palisade=debug"];
    let mut agent = Agent::start_watching(&lab, NODE, &program, &kubeconfig, &told)?;
    agent.wait_until_ready(PATIENCE)?;
    println!("ready after {:?}", begun.elapsed());
    for what in ["compiled", "updated"] {
        let log = agent.process().log();
        let first = log.lines().find(|line| line.contains(what));
        println!("{}", first.with_context(|| format!("nothing is {what}"))?);
    }
    let pid = agent.process().pid();
    println!("{}", Cost::of(pid)?);

    let probe = |patience| -> Result<bool> {
        let attempts = [Attempt {
            from: &lab.pod("x/client").endpoint.namespace,
            to: SocketAddr::new(
                lab.pod("x/server").endpoint.address(4).context("IPv4")?,
                PORT,
            ),
            protocol: Protocol::Tcp,
            patience,
        }];
        Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
    };
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let version = 2_000_000 + 2 * change;
        fake.tell("networkpolicies", "MODIFIED", &shut(version));
        // Only an answer is sure: a probe may be silent for other reasons, so silence has to last.
        while probe(SILENCE)? {}
        fake.tell("networkpolicies", "MODIFIED", &open(version + 1));
        let told = Instant::now();
        while !probe(PROBE)? {
            ensure!(told.elapsed() < SLOWEST, "nothing opens");
        }
        times.push(told.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "from the answer to the packet: median {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    println!("{}", Cost::of(pid)?);
    Ok(())
}

/// Lets the client reach the server.
fn open(version: u64) -> Value {
    own(
        version,
        &json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]),
    )
}

/// Lets nobody.
fn shut(version: u64) -> Value {
    own(version, &json!([]))
}

fn own(version: u64, ingress: &Value) -> Value {
    json!({
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "p", "namespace": "x", "uid": "1", "resourceVersion": version.to_string()},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress},
    })
}
