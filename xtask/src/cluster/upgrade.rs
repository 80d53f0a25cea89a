//! Agents that are replaced while pods speak with each other: `helm upgrade` with maps of other sizes, which are made anew, and
//! `helm rollback`. Streams of a thousand packets a second run meanwhile that must pass, and that must not.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    install,
    network::NODES,
    packets::{Packets, of_group},
    run::Run,
};
use crate::{
    deploy::{self, NAMESPACE as INSTALLED},
    shell,
};

const NAMESPACE: &str = "upgrade";
/// The senders: their group, and on which node they are.
const SENDERS: [(&str, &str, usize); 4] = [
    ("near", "allowed", 1),
    ("far", "allowed", 0),
    ("near-stranger", "denied", 1),
    ("far-stranger", "denied", 0),
];
/// Of a map in use, so that the others are no successors of it.
const OTHER_MAPS: &str = "extraArgs={--map-entries=peers_v4=50000}";

/// In the cluster that is up, with Palisade; an error where a packet is lost or leaks.
pub(crate) fn run() -> Result<()> {
    let run = Run::here();
    let packets = Packets::new(&run, NAMESPACE)?;
    let result = replace(&packets);
    result.and(packets.remove())
}

fn replace(packets: &Packets<'_>) -> Result<()> {
    packets.apply(&[
        packets.policy(
            "receiver",
            json!({ "ingress": [{ "from": [{ "podSelector": of_group("allowed") }] }] }),
        ),
        packets.pod("receiver", "receiver", &NODES[1], &["receive", "8080"]),
    ])?;
    packets.wait(&["--for=condition=Ready", "pod/receiver"])?;
    let target = format!("{}:8080", packets.get("pod/receiver", "{.status.podIP}")?);
    let stream = ["stream", "1000", &target];
    let senders =
        SENDERS.map(|(name, group, node)| packets.pod(name, group, &NODES[node], &stream));
    packets.apply(&senders)?;
    for (name, ..) in SENDERS {
        packets.wait(&["--for=condition=Ready", &format!("pod/{name}")])?;
    }
    let begun = Instant::now();
    let mut other = install::Options::default();
    other.set(OTHER_MAPS);
    install::run(&other)?;
    let mut rollback = deploy::helm()?;
    rollback.args([
        "rollback",
        "palisade",
        "--namespace",
        INSTALLED,
        "--kubeconfig",
    ]);
    shell::run(rollback.arg(packets.run.kubeconfig()))?;
    install::rollout(packets.run)?;
    let took = begun.elapsed().as_secs_f64();

    // Whoever sends is told to end, and says how much it was.
    for (name, ..) in SENDERS {
        packets.kubectl(&["exec", name, "--", "/first-packet", "end"])?;
    }
    let names = SENDERS.map(|(name, ..)| name.to_owned());
    packets.finish(&names)?;
    let received = packets.received("receiver")?;
    let (mut sent, mut lost, mut leaked) = (0, 0, 0);
    for (name, group, _) in SENDERS {
        let log = packets.kubectl(&["logs", name])?;
        let all: u64 = log
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .unwrap_or(0);
        ensure!(all > 0, "{name} has sent nothing: {log}");
        let got = received.get(&(name.to_owned(), "udp".to_owned()));
        let got = got.map_or(0, |got| got.all);
        sent += all;
        match group {
            "allowed" => lost += all - got,
            _ => leaked += got,
        }
    }
    println!(
        "the agents were replaced, with other maps and back, in {took:.0} s: of {sent} packets {lost} were lost and {leaked} leaked"
    );
    ensure!(lost == 0 && leaked == 0, "packets went wrong: {received:?}");
    Ok(())
}
