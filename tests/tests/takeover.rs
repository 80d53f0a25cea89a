//! One agent after the other, whatever became of the last: nothing that must pass is lost, nothing that must not leaks.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Connection, Ports, Stream},
    skip_without_root,
};
use serde_json::{Value, json};

const NODE: &str = "node1";
const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_millis(500);
const STRATEGIES: [&str; 2] = ["tcx", "clsact"];
/// Of each stream.
const RATE: u32 = 1000;

/// A node with the pods `x/client`, `x/other` and `x/server`, which the client alone may reach.
struct Site {
    manifests: Manifests,
    objects: Vec<Value>,
    lab: Lab,
    strategy: &'static str,
}

impl Site {
    fn new(strategy: &'static str) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        let mut objects =
            vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})];
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
        objects.push(only_client());
        manifests.sync(&objects)?;
        Ok(Self {
            manifests,
            objects,
            lab,
            strategy,
        })
    }

    fn start(&self, program: &Path) -> Result<Agent> {
        let arguments = ["--attach", self.strategy];
        Agent::start(
            &self.lab,
            NODE,
            program,
            self.manifests.folder(),
            &arguments,
        )
    }

    fn ready(&self, program: &Path) -> Result<Agent> {
        let mut agent = self.start(program)?;
        agent.wait_until_ready(READY)?;
        Ok(agent)
    }

    /// Streams that must pass and one that must not, and a connection.
    fn streams(&self) -> Result<Streams> {
        let at = |name: &str| &self.lab.pod(&format!("x/{name}")).endpoint;
        let (client, server, other) = (at("client"), at("server"), at("other"));
        Ok(Streams {
            open: Connection::open(client, server, 4, 9001, ANSWER)?,
            allowed: Stream::start(client, server, 4, 9002, RATE, Ports::One)?,
            fresh: Stream::start(client, server, 6, 9003, RATE, Ports::Fresh)?,
            denied: Stream::start(other, server, 4, 9004, RATE, Ports::Fresh)?,
        })
    }
}

struct Streams {
    open: Connection,
    allowed: Stream,
    fresh: Stream,
    denied: Stream,
}

impl Streams {
    /// Ends them, and tells how many went wrong.
    fn judge(mut self, what: &str) -> Result<()> {
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

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"}, "spec": spec,
    })
}

fn only_client() -> Value {
    let client = json!({"podSelector": {"matchLabels": {"app": "client"}}});
    policy(
        "only-client",
        json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [client]}]}),
    )
}

/// Policies that change nothing between these pods, each with other classes, tables and port sets.
fn beside(number: u64) -> Value {
    let blocks = (0..number % 40).map(|at| {
        let cidr = format!("198.51.{}.0/{}", (at * 7 + number) % 256, 24 + at % 8);
        json!({"ipBlock": {"cidr": cidr}})
    });
    let ports = (0..=number % 5).map(|at| json!({"port": 1 + (number * 31 + at * 97) % 9000}));
    let isolates = json!(["Ingress", "Egress"]);
    policy(
        &format!("beside-{}", number % 3),
        json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": if number.is_multiple_of(2) { isolates } else { json!(["Ingress"]) },
            "ingress": [{
                "from": blocks.collect::<Vec<_>>(),
                "ports": ports.collect::<Vec<_>>(),
            }, {"from": [{"podSelector": {"matchLabels": {"app": format!("nobody-{number}")}}}]}],
        }),
    )
}

/// The program that `PALISADE_OTHER` names: that of another version, whose maps may be laid out otherwise.
#[test]
fn another_version_takes_over_and_gives_back_without_a_gap() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let own = Agent::program()?;
    let other = std::env::var_os("PALISADE_OTHER").map_or_else(|| own.clone(), PathBuf::from);
    for strategy in STRATEGIES {
        let site = Site::new(strategy)?;
        let mut agent = site.ready(&other)?;
        let mut streams = site.streams()?;
        for program in [&own, &other, &own] {
            thread::sleep(Duration::from_millis(300));
            agent.process().kill()?;
            agent = site.ready(program)?;
            let cut = format!("{strategy}: {} cut a connection", program.display());
            ensure!(streams.open.works(ANSWER), cut);
        }
        streams.judge(strategy)?;
    }
    Ok(())
}

#[test]
fn an_agent_may_be_killed_at_any_moment() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let own = Agent::program()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = now.as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    for strategy in STRATEGIES {
        let mut site = Site::new(strategy)?;
        let mut agent = site.ready(&own)?;
        let streams = site.streams()?;
        for _ in 0..12 {
            // While it writes what is new; then its successor, while that takes over.
            for longest in [40, 250] {
                let mut objects = site.objects.clone();
                let number = below(1000);
                objects.extend((0..number % 4).map(|more| beside(number + more)));
                site.manifests.sync(&objects)?;
                thread::sleep(Duration::from_millis(below(longest)));
                agent.process().kill()?;
                agent = site.start(&own)?;
            }
        }
        agent.wait_until_ready(READY)?;
        streams.judge(strategy)?;
    }
    Ok(())
}
