//! Agents that are replaced while pods speak with each other: `helm upgrade` with maps of other sizes, which are made anew, and
//! `helm rollback`. Streams of a thousand packets a second run meanwhile that must pass, and that must not.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    install,
    network::NODES,
    packets::{Got, PATIENCE, Packets, Received, of_group},
    run::Run,
};
use crate::{
    deploy::{self, NAMESPACE as INSTALLED},
    shell,
};

const NAMESPACE: &str = "upgrade";
/// How often is looked whether somebody is heard.
const LOOK: Duration = Duration::from_millis(200);
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

/// Waits until whoever may send is heard: from then on nothing may be lost.
fn wait_until_heard(packets: &Packets<'_>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        // It tells nothing yet at first.
        let received = packets.received("receiver").unwrap_or_default();
        let mut allowed = SENDERS.iter().filter(|(_, group, _)| *group == "allowed");
        if allowed.all(|(name, ..)| heard(&received, name).is_some()) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "nothing is received: {received:?}");
        thread::sleep(LOOK);
    }
}

fn heard(received: &Received, name: &str) -> Option<Got> {
    received.get(&(name.to_owned(), "udp".to_owned())).copied()
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
    wait_until_heard(packets)?;
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
        sent += all;
        match (group, heard(&received, name)) {
            // The other node took it for a stranger until the API server had told of it.
            ("allowed", got) => lost += all - got.map_or(0, |got| got.first + got.all),
            (_, got) => leaked += got.map_or(0, |got| got.all),
        }
    }
    println!(
        "the agents were replaced, with other maps and back, in {took:.0} s: of {sent} packets {lost} were lost and {leaked} leaked"
    );
    ensure!(lost == 0 && leaked == 0, "packets went wrong: {received:?}");
    Ok(())
}
