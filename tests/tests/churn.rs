//! Pods that come and go by the hundred leave nothing behind.
//!
//! `PALISADE_CHURN_ROUNDS` says how often all of them are replaced, for a longer run.

use std::{
    env, fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use palisade_tests::{
    agent::Agent,
    lab::{Cni, Lab, Plan},
    manifest::Manifests,
    probe::{Attempt, Outcome, Protocol, attempt},
    skip_without_root,
};
use serde_json::{Value, json};

const NODE: &str = "node1";
const PORT: u16 = 8080;
const READY: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(20);
/// Pods that are there at a time.
const PODS: usize = 5;

/// How often all of them are replaced.
fn rounds() -> Result<usize> {
    match env::var("PALISADE_CHURN_ROUNDS") {
        Ok(rounds) => rounds.parse().context("PALISADE_CHURN_ROUNDS"),
        Err(_) => Ok(20),
    }
}

/// What an agent holds: open files, pinned files, entries of each map.
#[derive(Debug, PartialEq)]
struct Holdings {
    files: usize,
    pins: usize,
    maps: Vec<(String, u64)>,
}

fn holdings(lab: &Lab, agent: &mut Agent) -> Result<Holdings> {
    let files = fs::read_dir(format!("/proc/{}/fd", agent.process().pid()))?.count();
    let mut folders = vec![lab.bpffs().join(NODE)];
    let mut pins = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            pins += 1;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let maps = agent.status()?.maps.into_iter();
    Ok(Holdings {
        files,
        pins,
        maps: maps.map(|map| (map.name, map.entries)).collect(),
    })
}

fn pod(lab: &Lab, name: &str, role: &str, generation: usize) -> Value {
    let addresses = lab.pod(&format!("x/{name}")).endpoint.addresses.iter();
    let addresses: Vec<_> = addresses.map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "x", "uid": format!("uid-{name}-{generation}"),
            "labels": {"role": role, "hash": generation.to_string()},
        },
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

/// Servers take connections of clients at their port, and nothing else.
fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "servers", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"role": "server"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"role": "client"}}}],
                "ports": [{"port": PORT}],
            }],
        },
    })
}

fn reaches(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    let to = lab.pod(to).endpoint.address(4).context("IPv4")?;
    let attempts = [Attempt {
        from: &lab.pod(from).endpoint.namespace,
        to: SocketAddr::new(to, PORT),
        protocol: Protocol::Tcp,
        patience: Duration::from_millis(300),
    }];
    Ok(attempt(&attempts)?[0].outcome == Outcome::Answered)
}

#[test]
fn pods_that_come_and_go_leave_nothing_behind() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for cni in [Cni::Ptp, Cni::Bridge { netfilter: true }] {
        let mut lab = Lab::new(&Plan::of(1, cni))?;
        let mut manifests = Manifests::create(&lab.path().join("manifests"))?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
        let mut objects = vec![namespace, policy()];
        for (name, role) in [
            ("client", "client"),
            ("other", "other"),
            ("server", "server"),
        ] {
            lab.add_pod(&format!("x/{name}"), NODE)?;
            objects.push(pod(&lab, name, role, 0));
        }
        lab.serve("x/server", PORT, Protocol::Tcp)?;
        manifests.sync(&objects)?;
        let program = Agent::program()?;
        let mut agent = Agent::start(&lab, NODE, &program, manifests.folder(), &[])?;
        agent.wait_until_ready(READY)?;
        let deadline = Instant::now() + SETTLE;
        while reaches(&lab, "x/other", "x/server")? || !reaches(&lab, "x/client", "x/server")? {
            ensure!(Instant::now() < deadline, "{cni:?}: not as policy says");
        }
        let before = holdings(&lab, &mut agent)?;

        let (rounds, begun) = (rounds()?, Instant::now());
        for generation in 1..=rounds {
            // Names stay, as a StatefulSet's do; everything else changes.
            let names: Vec<_> = (0..PODS).map(|at| format!("churned-{at}")).collect();
            let mut present = objects.clone();
            for name in &names {
                lab.add_pod(&format!("x/{name}"), NODE)?;
                let role = if generation % 2 == 0 {
                    "server"
                } else {
                    "client"
                };
                present.push(pod(&lab, name, role, generation));
            }
            manifests.sync(&present)?;
            let deadline = Instant::now() + SETTLE;
            let enforced = |agent: &Agent| -> Result<usize> {
                let pods = agent.status()?.pods;
                Ok(pods.iter().filter(|pod| pod.slot.is_some()).count())
            };
            while enforced(&agent)? != 3 + PODS {
                ensure!(
                    Instant::now() < deadline,
                    "{cni:?}: {:#?}",
                    agent.status()?.pods
                );
                thread::sleep(Duration::from_millis(20));
            }
            // Half of them go from the node first, half from the API.
            if generation % 4 < 2 {
                manifests.sync(&objects)?;
            }
            for name in &names {
                lab.remove_pod(&format!("x/{name}"))?;
            }
            manifests.sync(&objects)?;
        }
        println!("{cni:?}: {} pods in {:?}", PODS * rounds, begun.elapsed());

        let deadline = Instant::now() + SETTLE;
        loop {
            let after = holdings(&lab, &mut agent)?;
            if after == before {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{cni:?}: {after:#?}\ninstead of {before:#?}"
            );
            thread::sleep(Duration::from_millis(200));
        }
        ensure!(
            reaches(&lab, "x/client", "x/server")?,
            "{cni:?}: the client is cut"
        );
        ensure!(
            !reaches(&lab, "x/other", "x/server")?,
            "{cni:?}: the other is not"
        );
        let log = agent.process().log();
        ensure!(!log.contains("ERROR"), "{cni:?}: {log}");
    }
    Ok(())
}
