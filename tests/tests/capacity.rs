//! Maps that are full, with the real agent: what does not fit denies, is named, and touches nobody else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade::api::proto::Status;
use palisade_tests::{
    agent::Agent,
    lab::{Cni, twin},
    packet::{Ip, Tcp, ethernet},
    probe::{Connection, Ports, Stream, Wire},
    skip_without_root,
    trial::{ANSWER, NODE, Trial, peer, pod, policy},
};
use serde_json::{Value, json};

/// How long the agent may take until it says what is the matter.
const TOLD: Duration = Duration::from_secs(30);
/// How long packets are watched after that.
const AFTERWARDS: Duration = Duration::from_millis(300);
const RATE: u32 = 1000;
const VICTIM: &str = "x/victim";

/// A map, how small it is, what is then asked of it, and by what of `status` that is told.
struct Case {
    size: &'static str,
    /// Of the packets, and of what is asked.
    family: u8,
    /// Of the victim, whose old state is to be reached by the client alone.
    grows: fn(u8) -> Vec<Value>,
    told: &'static str,
    effect: Effect,
}

/// Upon whom it comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// What is new alone.
    New,
    /// The victim, whose new state does not fit as a whole.
    Victim,
    /// The victim's egress.
    Egress,
}

const CASES: [Case; 9] = [
    Case {
        size: "peers_v4=8",
        family: 4,
        grows: many_pods,
        told: "does not fit into the dataplane: it is allowed what the block",
        effect: Effect::New,
    },
    Case {
        size: "cidrs_v4=8",
        family: 4,
        grows: many_blocks,
        told: "does not fit into the dataplane: it matches nothing",
        effect: Effect::New,
    },
    Case {
        size: "peers_v6=20",
        family: 6,
        grows: many_pods,
        told: "does not fit into the dataplane: it is allowed what the block",
        effect: Effect::New,
    },
    Case {
        size: "cidrs_v6=8",
        family: 6,
        grows: many_blocks,
        told: "does not fit into the dataplane: it matches nothing",
        effect: Effect::New,
    },
    Case {
        size: "cells=12",
        family: 4,
        grows: many_pods,
        told: "does not fit into the kernel's maps: everything is denied",
        effect: Effect::Victim,
    },
    Case {
        size: "tables=6",
        family: 4,
        grows: out_of_victim,
        told: "table does not fit into the dataplane: everything is denied",
        effect: Effect::Egress,
    },
    Case {
        size: "port_sets=4",
        family: 4,
        grows: many_pods,
        told: "some of its ports do not fit",
        effect: Effect::New,
    },
    Case {
        size: "port_leaves=4",
        family: 4,
        grows: many_pods,
        told: "some of its ports do not fit",
        effect: Effect::New,
    },
    Case {
        size: "flows_stream=64,flows_datagram=64,flows_new=64,pending=64,fragments=64,events=65536",
        family: 4,
        grows: |_| Vec::new(),
        told: "",
        effect: Effect::New,
    },
];

/// Lets some into the victim.
fn into_victim(name: &str, rules: Vec<Value>) -> Value {
    policy(
        name,
        &json!({
            "podSelector": {"matchLabels": {"app": "victim"}},
            "policyTypes": ["Ingress"], "ingress": rules,
        }),
    )
}

/// Forty pods elsewhere, each of which may reach the victim at a port of its own.
fn many_pods(family: u8) -> Vec<Value> {
    let pods = (0..40_u8).map(|number| {
        let address = Ipv4Addr::new(10, 250, 1, number);
        let address = match family {
            4 => address.into(),
            _ => twin(address).into(),
        };
        pod(&format!("far-{number}"), "elsewhere", &[address])
    });
    let rules = (0..40_u16).map(|number| {
        let from = peer(&format!("far-{number}"));
        json!({"from": [from], "ports": [{"port": 1000 + 300 * number}]})
    });
    let policy = into_victim("many-pods", rules.collect());
    pods.chain([policy]).collect()
}

/// Forty blocks that may reach the victim, and one that holds everybody but the other pod.
fn many_blocks(family: u8) -> Vec<Value> {
    let blocks = (0..40).map(|number| {
        let cidr = match family {
            4 => format!("198.51.{number}.0/24"),
            _ => format!("2001:db8:{number}::/48"),
        };
        json!({"ipBlock": {"cidr": cidr}})
    });
    let around = match family {
        4 => json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.0/16"]}}),
        _ => json!({"ipBlock": {"cidr": "fd00::/16", "except": ["fd00:10:244::/48"]}}),
    };
    let from = blocks.chain([around]).collect::<Vec<_>>();
    vec![into_victim("many-blocks", vec![json!({"from": from})])]
}

/// The victim may send to the client alone.
fn out_of_victim(_family: u8) -> Vec<Value> {
    vec![policy(
        "out-of-victim",
        &json!({
            "podSelector": {"matchLabels": {"app": "victim"}},
            "policyTypes": ["Egress"], "egress": [{"to": [peer("client")]}],
        }),
    )]
}

/// A trial with one pod more, which the client may reach too.
fn trial() -> Result<Trial> {
    let mut trial = Trial::new(Cni::Ptp)?;
    let addresses = &trial.lab.add_pod(VICTIM, NODE)?.endpoint.addresses;
    let object = pod("victim", NODE, addresses);
    trial.objects.push(object);
    let from = json!({"from": [peer("client")]});
    trial.objects.push(into_victim("from-client", vec![from]));
    trial.beside([])?;
    Ok(trial)
}

/// Waits until the status says so.
fn until(agent: &Agent, what: &str, holds: impl Fn(&Status) -> bool) -> Result<()> {
    let deadline = Instant::now() + TOLD;
    loop {
        let status = agent.status()?;
        if holds(&status) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{what}: {status:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether an issue, or why a pod is not enforced, says so.
fn says(status: &Status, what: &str) -> bool {
    let issues = status.issues.iter().map(|issue| &issue.message);
    let reasons = status.pods.iter().filter_map(|pod| pod.reason.as_ref());
    issues.chain(reasons).any(|said| said.contains(what))
}

#[test]
fn what_does_not_fit_into_a_map_denies_is_named_and_touches_nobody_else() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for case in CASES {
        for keep in [false, true] {
            if keep && case.effect != Effect::Victim {
                continue;
            }
            overflow(&case, keep).with_context(|| format!("{}, keep: {keep}", case.size))?;
        }
    }
    Ok(())
}

fn overflow(case: &Case, keep: bool) -> Result<()> {
    let mut trial = trial()?;
    let on_overflow = if keep { "keep" } else { "deny" };
    let arguments = ["--map-entries", case.size, "--on-overflow", on_overflow];
    let agent = trial.ready(&Agent::program()?, &arguments)?;
    let streams = trial.streams()?;
    let to_victim = |from, port| {
        let (from, to) = (trial.endpoint(from), trial.endpoint("victim"));
        Stream::start(from, to, case.family, port, RATE, Ports::One)
    };
    let (allowed, forbidden) = (to_victim("client", 9005)?, to_victim("other", 9006)?);
    thread::sleep(AFTERWARDS);
    trial.beside((case.grows)(case.family))?;
    let told = if keep {
        "an earlier one stays"
    } else {
        case.told
    };
    until(&agent, told, |status| {
        says(status, told) || told.is_empty() && status.events_lost > 0
    })?;
    let settled = Instant::now();
    // Who is told that something is left out is told the same by all.
    let status = agent.status()?;
    let enforcement = status.conditions.iter().find(|it| it.name == "enforcement");
    let holds = enforcement.context("no condition")?.ok;
    ensure!(holds == case.told.is_empty(), "{status:#?}");
    thread::sleep(AFTERWARDS);
    let (allowed, forbidden) = (allowed.stop()?, forbidden.stop()?);
    let (sent, leaked) = (forbidden.sent.len(), forbidden.leaked());
    println!("{}, keep {keep}: {leaked} of {sent} leaked", case.size);
    ensure!(leaked == 0, "{leaked} of {sent} leaked");
    if case.effect == Effect::Egress {
        let (victim, client) = (trial.endpoint("victim"), trial.endpoint("client"));
        let opened = Connection::open(victim, client, case.family, 9006, ANSWER);
        ensure!(opened.is_err(), "it passes what was never in force");
    }
    if case.effect == Effect::Victim && !keep {
        let (_, arrived) = allowed.between(settled, Instant::now());
        ensure!(
            arrived == 0,
            "{arrived} passed that the deny-all table denies"
        );
    } else {
        let (sent, lost) = (allowed.sent.len(), allowed.lost());
        ensure!(lost == 0, "{lost} of {sent} were lost");
    }
    streams.judge(case.size)?;
    // What there is room for again is in force again.
    trial.beside([])?;
    until(&agent, "it fits", |status| {
        status.healthy && !says(status, "fit into")
    })?;
    let (client, victim) = (trial.endpoint("client"), trial.endpoint("victim"));
    let mut open = Connection::open(client, victim, case.family, 9007, ANSWER)?;
    ensure!(open.works(ANSWER), "it is not in force again");
    Ok(())
}

#[test]
fn an_isolated_pod_without_a_slot_passes_nothing() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut trial = Trial::new(Cni::Ptp)?;
    let agent = trial.ready(&Agent::program()?, &["--map-entries", "slots=5"])?;
    let streams = trial.streams()?;
    let addresses = &trial.lab.add_pod(VICTIM, NODE)?.endpoint.addresses;
    let victim = pod("victim", NODE, addresses);
    trial.beside([victim.clone()])?;
    until(&agent, "no slot", |status| {
        says(status, "there is no slot left for it")
    })?;
    let (client, to) = (trial.endpoint("client"), trial.endpoint("victim"));
    let mut open = Connection::open(client, to, 4, 9007, ANSWER)?;
    ensure!(open.works(ANSWER), "no policy speaks of it");
    let from = json!({"from": [peer("nobody")]});
    trial.beside([victim.clone(), into_victim("from-nobody", vec![from])])?;
    let deadline = Instant::now() + TOLD;
    while open.works(ANSWER) {
        ensure!(Instant::now() < deadline, "it passes what policy denies");
    }
    let (from, to) = (trial.endpoint("other"), trial.endpoint("victim"));
    let forbidden = Stream::start(from, to, 4, 9008, RATE, Ports::One)?;
    thread::sleep(AFTERWARDS);
    let loss = forbidden.stop()?;
    ensure!(loss.leaked() == 0, "{} leaked", loss.leaked());
    streams.judge("no slot is left")
}

#[test]
fn maps_grow_and_shrink_without_a_gap() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let trial = Trial::new(Cni::Ptp)?;
    let program = Agent::program()?;
    let mut agent = trial.ready(&program, &["--map-entries", "cells=64,peers_v4=64"])?;
    let mut streams = trial.streams()?;
    for size in [
        "cells=4096,peers_v4=4096,flows_new=65536",
        "cells=64,peers_v4=32",
    ] {
        agent.process().kill()?;
        agent = trial.ready(&program, &["--map-entries", size])?;
        let expected: u64 = size.split([',', '=']).nth(1).context("a size")?.parse()?;
        let maps = agent.status()?.maps;
        let cells = maps.iter().find(|map| map.name == "cells");
        ensure!(
            cells.is_some_and(|map| map.capacity == expected),
            "{maps:?}"
        );
        ensure!(streams.open.works(ANSWER), "{size}: a connection was cut");
    }
    streams.judge("maps of other sizes")
}

#[test]
fn a_flood_and_a_scan_cost_no_connection() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    const BURST: u32 = 256;
    let flows = flood();
    let mut trial = Trial::new(Cni::Ptp)?;
    // Everything of the flood is allowed, so that each packet is a flow.
    trial
        .objects
        .retain(|object| object["kind"] != "NetworkPolicy");
    trial.beside([policy(
        "isolated",
        &json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer("client"), peer("other")]}],
            "egress": [{"to": [peer("client")]}],
        }),
    )])?;
    let size = "flows_stream=1024,flows_datagram=1024,flows_new=4096";
    let agent = trial.ready(&Agent::program()?, &["--map-entries", size])?;
    let (client, server) = (trial.endpoint("client"), trial.endpoint("server"));
    let target = |port| -> Result<_> { Ok(SocketAddr::new(trial.address("server", 4)?, port)) };
    let mut open = (0..4)
        .map(|at| Connection::open_through(client, server, target(9100 + at)?, 9100 + at, ANSWER))
        .collect::<Result<Vec<_>>>()?;
    let stream = Stream::start(client, server, 4, 9002, RATE, Ports::One)?;
    let (from, to) = (trial.address("other", 4)?, trial.address("server", 4)?);
    let (source, destination) = trial.lab.link(trial.lab.pod("x/other"), to);
    let wire = Wire::open(&trial.endpoint("other").namespace, "eth0")?;
    let ip = Ip::new(from, to);
    let begun = Instant::now();
    for burst in 0..flows / BURST {
        for number in burst * BURST..(burst + 1) * BURST {
            let [high, low] = [(number >> 16) as u16, number as u16];
            // A SYN of ever another port, and a scan of all UDP ports.
            let packet = if number % 2 == 0 {
                ip.tcp(&Tcp::new(low, 10_000 + high, Tcp::SYN))
            } else {
                ip.udp(20_000 + high, low, b"scan")
            };
            wire.send(&ethernet(source, destination, &packet))?;
        }
        if burst % 16 == 0 {
            let (at, works) = (burst as usize / 16 % open.len(), ANSWER);
            ensure!(open[at].works(works), "cut after {} flows", burst * BURST);
        }
    }
    let took = begun.elapsed();
    println!(
        "{flows} flows in {took:?}, {:.0} a second",
        f64::from(flows) / took.as_secs_f64()
    );
    for connection in &mut open {
        ensure!(connection.server_speaks(ANSWER), "the server's end is cut");
        ensure!(connection.client_speaks(ANSWER), "the client's end is cut");
    }
    let loss = stream.stop()?;
    let (sent, lost) = (loss.sent.len(), loss.lost());
    println!("{lost} of {sent} datagrams of another's stream were lost");
    ensure!(lost == 0, "{lost} of {sent} were lost");
    ensure!(agent.status()?.healthy, "the agent is not healthy");
    Ok(())
}

/// How many flows: more than the tables hold, or what the variable PALISADE_FLOOD says.
fn flood() -> u32 {
    let asked = std::env::var("PALISADE_FLOOD").ok();
    asked
        .and_then(|flows| flows.parse().ok())
        .unwrap_or(100_000)
}
