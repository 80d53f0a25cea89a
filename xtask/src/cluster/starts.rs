//! What a pod's first packets meet, in the cluster: pods that send a hundred times a second from their first instruction.
//!
//! The sender and the receiver are `first-packet` of `palisade-tests`, an image of its own.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{
    install,
    network::{Addresses, NODES},
    node::Node,
    run::Run,
};
use crate::{
    dist::{self, Target},
    image::archive::Image,
    shell,
};

const NAMESPACE: &str = "starts";
const IMAGE: &str = "docker.io/library/first-packet:1";
const PORT: u16 = 8080;
/// How often each sender sends, 10 ms apart; and how often in its first second.
const TIMES: u64 = 300;
const FIRST_SECOND: u64 = 100;
/// Pods of each kind that start at once.
const PODS: usize = 3;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long what was sent may be under way, and until it is told of.
const SETTLE: Duration = Duration::from_secs(4);

/// What to measure.
#[derive(Args, Default)]
#[group(skip)]
pub(crate) struct Options {
    /// Only measure how long pods are open without the plugin
    #[arg(long)]
    without_plugin: bool,
}

/// Runs in the cluster that is up, with Palisade in it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let run = Run::here();
    load_image(&run)?;
    let stage = Stage::new(&run)?;
    let result = if options.without_plugin {
        stage.without_plugin()
    } else {
        stage.with_plugin()
    };
    let ended = stage.kubectl(&["delete", "namespace", NAMESPACE, "--wait=true"]);
    result.and(ended.map(|_| ()))
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

/// What a receiver got of one sender by one protocol.
#[derive(Clone, Copy, Debug)]
struct Got {
    first: u64,
    all: u64,
    later: u64,
}

type Received = BTreeMap<(String, String), Got>;

/// The namespace with its receivers and policies.
struct Stage<'a> {
    run: &'a Run,
    /// Where the pods start; the receivers are on the other node.
    here: &'a Addresses,
}

impl<'a> Stage<'a> {
    fn new(run: &'a Run) -> Result<Self> {
        let [here, there, ..] = NODES else {
            unreachable!("there are two nodes");
        };
        let stage = Self { run, here };
        stage.apply(&[json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
        })])?;
        stage.wait(&["--for=create", "serviceaccount/default"])?;
        let group = |name: &str| json!({ "matchLabels": { "group": name } });
        let policy = |name: &str, spec: Value| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
            })
        };
        stage.apply(&[
            policy(
                "denied",
                json!({ "podSelector": group("denied"), "policyTypes": ["Ingress", "Egress"] }),
            ),
            policy(
                "allowed",
                json!({
                    "podSelector": group("allowed"), "policyTypes": ["Ingress", "Egress"],
                    "egress": [{
                        "to": [{ "podSelector": group("receiver") }, { "podSelector": group("picky") }],
                        "ports": [
                            { "port": PORT, "protocol": "TCP" }, { "port": PORT, "protocol": "UDP" },
                        ],
                    }],
                }),
            ),
            policy(
                "picky",
                json!({
                    "podSelector": group("picky"),
                    "ingress": [{ "from": [{ "podSelector": group("allowed") }] }],
                }),
            ),
            stage.pod("receiver", "receiver", there, &["receive", "8080"]),
            stage.pod("picky", "picky", there, &["receive", "8080"]),
        ])?;
        stage.wait(&["--for=condition=Ready", "pod/receiver", "pod/picky"])?;
        Ok(stage)
    }

    fn pod(&self, name: &str, group: &str, node: &Addresses, arguments: &[&str]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "group": group } },
            "spec": {
                "nodeName": node.node,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "first-packet", "image": IMAGE, "imagePullPolicy": "Never", "args": arguments,
                }],
            },
        })
    }

    /// Makes senders, all at once.
    fn send(&self, names: &[String], group: &str) -> Result<()> {
        let pods = names.iter().map(|name| self.sender(name, group));
        self.apply(&pods.collect::<Result<Vec<_>>>()?)
    }

    fn sender(&self, name: &str, group: &str) -> Result<Value> {
        let targets = ["receiver", "picky"].map(|name| {
            let address = self.get(&format!("pod/{name}"), "{.status.podIP}")?;
            Ok(format!("{address}:{PORT}"))
        });
        let targets: Vec<String> = targets.into_iter().collect::<Result<_>>()?;
        let times = TIMES.to_string();
        let mut arguments = vec!["send", times.as_str()];
        arguments.extend(targets.iter().map(String::as_str));
        Ok(self.pod(name, group, self.here, &arguments))
    }

    /// Waits until these have sent all.
    fn finish(&self, names: &[String]) -> Result<()> {
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

    fn received(&self, by: &str) -> Result<Received> {
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

    fn with_plugin(&self) -> Result<()> {
        let [denied, allowed] =
            ["denied", "allowed"].map(|group| names(&format!("{group}-first"), PODS));
        self.send(&denied, "denied")?;
        self.send(&allowed, "allowed")?;
        self.finish(&denied)?;
        self.finish(&allowed)?;
        self.expect_nothing_of(&denied)?;
        self.static_pod()?;
        let received = self.received("receiver")?;
        let mut firsts = Vec::new();
        for name in &allowed {
            for protocol in ["udp", "tcp"] {
                let got = received.get(&(name.clone(), protocol.to_owned()));
                let got = got.with_context(|| format!("{name} got nothing out by {protocol}"))?;
                ensure!(
                    got.later == TIMES - FIRST_SECOND,
                    "{name} lost {protocol} after its first second: {got:?}"
                );
                firsts.push(got.first * 10);
            }
        }
        println!(
            "{PODS} pods under a default-deny sent {TIMES} times each from their first instruction on: nothing got out; \
             {PODS} that may send lost nothing after their first second, the first came through after {} ms at most",
            firsts.iter().max().unwrap_or(&0)
        );
        self.strangers(&allowed)?;
        self.without_agent()
    }

    /// The kubelet names a static pod by another uid than the API server.
    fn static_pod(&self) -> Result<()> {
        let node = Node::find(self.run, self.here)?;
        let pod = self.sender("static", "denied")?;
        node.static_pod("static", Some(&pod))?;
        let mirror = [format!("static-{}", self.here.node)];
        self.wait(&["--for=create", &format!("pod/{}", mirror[0])])?;
        let sent = self.finish(&mirror);
        node.static_pod("static", None)?;
        self.wait(&["--for=delete", &format!("pod/{}", mirror[0])])?;
        sent?;
        self.expect_nothing_of(&mirror)?;
        println!("a static pod under a default-deny got nothing out");
        Ok(())
    }

    fn expect_nothing_of(&self, denied: &[String]) -> Result<()> {
        for by in ["receiver", "picky"] {
            let received = self.received(by)?;
            let leaked = received
                .iter()
                .filter(|((name, _), _)| denied.contains(name));
            let leaked: Vec<_> = leaked.collect();
            ensure!(leaked.is_empty(), "{by} got {leaked:?}");
        }
        Ok(())
    }

    /// For how long a peer on another node takes a new pod for a stranger, and an heir for who had its address before.
    fn strangers(&self, allowed: &[String]) -> Result<()> {
        let received = self.received("picky")?;
        let firsts = allowed
            .iter()
            .map(|name| received.get(&(name.clone(), "udp".to_owned())));
        let firsts: Option<Vec<_>> = firsts.map(|got| got.map(|got| got.first * 10)).collect();
        let mut firsts = firsts.context("a peer never knew a pod")?;
        firsts.sort_unstable();
        println!(
            "a peer on another node knew the new pods {firsts:?} ms after their first instruction"
        );

        let former = &allowed[0];
        let address = self.get(&format!("pod/{former}"), "{.status.podIP}")?;
        self.kubectl(&["delete", "pod", former, "--wait=true"])?;
        // The plugin that gives addresses has a file for each, and goes on from the one it gave last.
        let given = self
            .run
            .path(self.here.node)
            .join("lib/cni/networks/cluster");
        let end = Instant::now() + PATIENCE;
        while given.join(&address).exists() {
            ensure!(Instant::now() < end, "{address} is not given back");
            thread::sleep(Duration::from_millis(20));
        }
        let before = before(&address).context("an address of a pod")?;
        let last = given.join("last_reserved_ip.0");
        fs::write(&last, before).with_context(|| format!("write {}", last.display()))?;
        let heir = names("heir", 1);
        self.send(&heir, "none")?;
        self.finish(&heir)?;
        let inherited = self.get("pod/heir-0", "{.status.podIP}")?;
        ensure!(
            inherited == address,
            "the heir has {inherited}, not {address}"
        );
        let received = self.received("picky")?;
        let taken = received.get(&("heir-0".to_owned(), "udp".to_owned()));
        println!(
            "a pod with the address of one just deleted was taken for it by {} of {TIMES} datagrams",
            taken.map_or(0, |got| got.all)
        );
        Ok(())
    }

    /// Without an agent nothing starts on the node that policy could speak of, and the node stays as it was.
    fn without_agent(&self) -> Result<()> {
        install::suspend(self.run, true)?;
        let held = names("denied-held", 1);
        self.send(&held, "denied")?;
        thread::sleep(Duration::from_secs(2));
        // Another writes in the folder of lists while the pod is held: the runtime starts nothing before that ends.
        let node = Node::find(self.run, self.here)?;
        node.touch_list()?;
        let mut host = self.pod("host", "none", self.here, &["receive", "8081"]);
        host["spec"]["hostNetwork"] = true.into();
        let start = Instant::now();
        self.apply(&[host])?;
        self.wait(&["--for=condition=Ready", "pod/host"])?;
        println!(
            "a pod of the host's network started after {:.1} s while another was held and the list written",
            start.elapsed().as_secs_f64()
        );
        let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let end = Instant::now() + Duration::from_secs(40);
        while Instant::now() < end {
            let state = self.get(&format!("node/{}", self.here.node), ready)?;
            ensure!(state == "True", "the node is not ready: {state}");
            let phase = self.get("pod/denied-held-0", "{.status.phase}")?;
            ensure!(
                phase == "Pending",
                "a pod started without an agent: {phase}"
            );
            thread::sleep(Duration::from_millis(500));
        }
        let events = self.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
        ensure!(
            events.contains("palisade uninstall"),
            "no event says what to do: {events}"
        );
        install::suspend(self.run, false)?;
        self.finish(&held)?;
        self.expect_nothing_of(&held)?;
        println!(
            "a pod that came while there was no agent started with the agent, and nothing got out"
        );
        Ok(())
    }

    fn without_plugin(&self) -> Result<()> {
        let denied = names("denied", PODS);
        self.send(&denied, "denied")?;
        self.finish(&denied)?;
        let received = self.received("receiver")?;
        let mut open: Vec<u64> = denied
            .iter()
            .map(|name| {
                let got = received.get(&(name.clone(), "udp".to_owned()));
                got.map_or(0, |got| got.all)
            })
            .collect();
        open.sort_unstable();
        println!(
            "without the plugin {PODS} pods under a default-deny got {open:?} datagrams out, 10 ms apart"
        );
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut kubectl = self.run.kubectl();
        shell::output(kubectl.args(["--namespace", NAMESPACE]).args(arguments))
    }

    fn get(&self, what: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={path}")])
    }

    fn wait(&self, what: &[&str]) -> Result<()> {
        let mut arguments = vec!["wait", "--timeout=120s"];
        arguments.extend(what);
        self.kubectl(&arguments).map(|_| ())
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
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

fn names(group: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{group}-{at}")).collect()
}

/// The IPv4 address before this one.
fn before(address: &str) -> Option<String> {
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    Some(std::net::Ipv4Addr::from(u32::from(address).checked_sub(1)?).to_string())
}
