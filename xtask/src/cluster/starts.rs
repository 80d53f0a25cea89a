//! What a pod's first packets meet, in the cluster: pods that send a hundred times a second from their first instruction.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{
    install,
    network::{Addresses, NODES},
    node::Node,
    packets::{PATIENCE, Packets, of_group},
    run::Run,
};

const NAMESPACE: &str = "starts";
const PORT: u16 = 8080;
/// How often each sender sends, 10 ms apart; and how often in its first second.
const TIMES: u64 = 300;
const FIRST_SECOND: u64 = 100;
/// Pods of each kind that start at once.
const PODS: usize = 3;

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
    let stage = Stage::new(&run)?;
    let result = if options.without_plugin {
        stage.without_plugin()
    } else {
        stage.with_plugin()
    };
    result.and(stage.packets.remove())
}

/// The namespace with its receivers and policies.
struct Stage<'a> {
    packets: Packets<'a>,
    /// Where the pods start; the receivers are on the other node.
    here: &'a Addresses,
}

impl<'a> Stage<'a> {
    fn new(run: &'a Run) -> Result<Self> {
        let [here, there, ..] = NODES else {
            unreachable!("there are two nodes");
        };
        let packets = Packets::new(run, NAMESPACE)?;
        let ports = json!([
            { "port": PORT, "protocol": "TCP" }, { "port": PORT, "protocol": "UDP" },
        ]);
        packets.apply(&[
            packets.policy("denied", json!({ "policyTypes": ["Ingress", "Egress"] })),
            packets.policy(
                "allowed",
                json!({
                    "policyTypes": ["Ingress", "Egress"],
                    "egress": [{
                        "to": [{ "podSelector": of_group("receiver") }, { "podSelector": of_group("picky") }],
                        "ports": ports,
                    }],
                }),
            ),
            packets.policy(
                "picky",
                json!({ "ingress": [{ "from": [{ "podSelector": of_group("allowed") }] }] }),
            ),
            packets.pod("receiver", "receiver", there, &["receive", "8080"]),
            packets.pod("picky", "picky", there, &["receive", "8080"]),
        ])?;
        packets.wait(&["--for=condition=Ready", "pod/receiver", "pod/picky"])?;
        Ok(Self { packets, here })
    }

    /// Makes senders, all at once.
    fn send(&self, names: &[String], group: &str) -> Result<()> {
        let pods = names.iter().map(|name| self.sender(name, group));
        self.packets.apply(&pods.collect::<Result<Vec<_>>>()?)
    }

    fn sender(&self, name: &str, group: &str) -> Result<Value> {
        let targets = ["receiver", "picky"].map(|name| {
            let address = self
                .packets
                .get(&format!("pod/{name}"), "{.status.podIP}")?;
            Ok(format!("{address}:{PORT}"))
        });
        let targets: Vec<String> = targets.into_iter().collect::<Result<_>>()?;
        let times = TIMES.to_string();
        let mut arguments = vec!["send", times.as_str()];
        arguments.extend(targets.iter().map(String::as_str));
        Ok(self.packets.pod(name, group, self.here, &arguments))
    }

    fn with_plugin(&self) -> Result<()> {
        let [denied, allowed] =
            ["denied", "allowed"].map(|group| names(&format!("{group}-first"), PODS));
        self.send(&denied, "denied")?;
        self.send(&allowed, "allowed")?;
        self.packets.finish(&denied)?;
        self.packets.finish(&allowed)?;
        self.expect_nothing_of(&denied)?;
        self.static_pod()?;
        let received = self.packets.received("receiver")?;
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
        let node = Node::find(self.packets.run, self.here)?;
        let pod = self.sender("static", "denied")?;
        node.static_pod("static", Some(&pod))?;
        let mirror = [format!("static-{}", self.here.node)];
        self.packets
            .wait(&["--for=create", &format!("pod/{}", mirror[0])])?;
        let sent = self.packets.finish(&mirror);
        node.static_pod("static", None)?;
        self.packets
            .wait(&["--for=delete", &format!("pod/{}", mirror[0])])?;
        sent?;
        self.expect_nothing_of(&mirror)?;
        println!("a static pod under a default-deny got nothing out");
        Ok(())
    }

    fn expect_nothing_of(&self, denied: &[String]) -> Result<()> {
        for by in ["receiver", "picky"] {
            let received = self.packets.received(by)?;
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
        let received = self.packets.received("picky")?;
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
        let address = self
            .packets
            .get(&format!("pod/{former}"), "{.status.podIP}")?;
        self.packets
            .kubectl(&["delete", "pod", former, "--wait=true"])?;
        // The plugin that gives addresses has a file for each, and goes on from the one it gave last.
        let given = self
            .packets
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
        self.packets.finish(&heir)?;
        let inherited = self.packets.get("pod/heir-0", "{.status.podIP}")?;
        ensure!(
            inherited == address,
            "the heir has {inherited}, not {address}"
        );
        let received = self.packets.received("picky")?;
        let taken = received.get(&("heir-0".to_owned(), "udp".to_owned()));
        println!(
            "a pod with the address of one just deleted was taken for it by {} of {TIMES} datagrams",
            taken.map_or(0, |got| got.all)
        );
        Ok(())
    }

    /// Without an agent nothing starts on the node that policy could speak of, and the node stays as it was.
    fn without_agent(&self) -> Result<()> {
        install::suspend(self.packets.run, true)?;
        let held = names("denied-held", 1);
        self.send(&held, "denied")?;
        thread::sleep(Duration::from_secs(2));
        // Another writes in the folder of lists while the pod is held: the runtime starts nothing before that ends.
        let node = Node::find(self.packets.run, self.here)?;
        node.touch_list()?;
        let mut host = self
            .packets
            .pod("host", "none", self.here, &["receive", "8081"]);
        host["spec"]["hostNetwork"] = true.into();
        let start = Instant::now();
        self.packets.apply(&[host])?;
        self.packets.wait(&["--for=condition=Ready", "pod/host"])?;
        println!(
            "a pod of the host's network started after {:.1} s while another was held and the list written",
            start.elapsed().as_secs_f64()
        );
        let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let end = Instant::now() + Duration::from_secs(40);
        while Instant::now() < end {
            let state = self
                .packets
                .get(&format!("node/{}", self.here.node), ready)?;
            ensure!(state == "True", "the node is not ready: {state}");
            let phase = self.packets.get("pod/denied-held-0", "{.status.phase}")?;
            ensure!(
                phase == "Pending",
                "a pod started without an agent: {phase}"
            );
            thread::sleep(Duration::from_millis(500));
        }
        let events =
            self.packets
                .kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
        ensure!(
            events.contains("palisade uninstall"),
            "no event says what to do: {events}"
        );
        install::suspend(self.packets.run, false)?;
        self.packets.finish(&held)?;
        self.expect_nothing_of(&held)?;
        println!(
            "a pod that came while there was no agent started with the agent, and nothing got out"
        );
        Ok(())
    }

    fn without_plugin(&self) -> Result<()> {
        let denied = names("denied", PODS);
        self.send(&denied, "denied")?;
        self.packets.finish(&denied)?;
        let received = self.packets.received("receiver")?;
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
}

fn names(group: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{group}-{at}")).collect()
}

/// The IPv4 address before this one.
fn before(address: &str) -> Option<String> {
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    Some(std::net::Ipv4Addr::from(u32::from(address).checked_sub(1)?).to_string())
}
