//! Packets by test run.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use palisade_common::{value::Config, verdict::Verdict};
use palisade_tests::{
    packet::{Tcp, ethernet},
    rig::{At, Net, Program, Rig, Scene, peer, tcp, udp},
};

/// Rounds in which every kind of packet has its turn; the fastest turn counts.
const ROUNDS: usize = 7;
/// Runs in one turn.
const RUNS: u32 = 100_000;
/// Peers and blocks.
const LOADS: [(u32, u32); 5] = [
    (100, 1000),
    (20_000, 10),
    (20_000, 1000),
    (20_000, 20_000),
    (200_000, 1000),
];

/// A kind of packet: its name, program, frame, and where it is.
type Kind = (&'static str, Program, Vec<u8>, At);

pub(crate) fn print() {
    println!("| packet | peers | CIDRs | empty, ns | program, ns | ratio |");
    println!("|---|---|---|---|---|---|");
    for (peers, blocks) in LOADS {
        let mut scene = Scene::with(Rig::sized(262_144));
        // What is limited costs what it costs under attack.
        let config = scene.config();
        scene.configure(Config {
            event_rate: 10,
            ..config
        });
        load(&mut scene, peers, blocks);
        let kinds = kinds(&scene);
        let mut best: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for (name, program, frame, at) in &kinds {
                let empty = scene.rig.time(Program::Empty, frame, *at, RUNS);
                let ours = scene.rig.time(*program, frame, *at, RUNS);
                let entry = best.entry(name).or_insert((u32::MAX, u32::MAX));
                *entry = (entry.0.min(empty), entry.1.min(ours));
            }
        }
        for (name, ..) in &kinds {
            let (empty, ours) = best[name];
            let ratio = f64::from(ours) / f64::from(empty.max(1));
            println!("| {name} | {peers} | {blocks} | {empty} | {ours} | {ratio:.1} |");
        }
    }
}

/// Fills the maps with peers of the peer's class, and blocks around nobody that is asked for.
fn load(scene: &mut Scene, peers: u32, blocks: u32) {
    for number in 0..peers {
        let v4 = Ipv4Addr::from(0x0a40_0000 + number);
        let v6 = Ipv6Addr::from((0xfd00_0000_0000_0040_u128 << 64) + u128::from(number));
        scene.peer(v4.into(), peer(Scene::PEER, 0, 0));
        scene.peer(v6.into(), peer(Scene::PEER, 0, 0));
    }
    for number in 0..blocks {
        let v4 = Ipv4Addr::from(0x2000_0000 + number * 0x1000);
        let v6 = Ipv6Addr::from((0x2001_0db8_u128 << 96) + (u128::from(number) << 64));
        scene.block(IpNet::new_assert(v4.into(), 20), 100);
        scene.block(IpNet::new_assert(v6.into(), 64), 100);
    }
}

fn kinds(scene: &Scene) -> Vec<Kind> {
    let (syn, ack) = (Tcp::SYN, Tcp::ACK);
    let answer = syn | ack;
    let frame = |packet: &[u8]| ethernet([2; 6], [4; 6], packet);
    let inward = At {
        ifindex: scene.pod,
        ingress_ifindex: scene.uplink,
        ..At::default()
    };
    let outward = At {
        ifindex: scene.pod,
        ..At::default()
    };
    for net in Net::BOTH {
        for packet in [
            tcp(net.peer, net.pod, (4000, Scene::PORT), syn),
            udp(net.peer, net.pod, (4000, Scene::PORT)),
        ] {
            passes(scene.rig.run(Program::ToPod, &frame(&packet), inward));
        }
        for packet in [
            tcp(net.pod, net.peer, (Scene::PORT, 4000), answer),
            udp(net.pod, net.peer, (Scene::PORT, 4000)),
        ] {
            passes(scene.rig.run(Program::FromPod, &frame(&packet), outward));
        }
        let opens = tcp(net.pod, net.peer, (5000, Scene::PORT), syn);
        passes(scene.rig.run(Program::FromPod, &frame(&opens), outward));
        let answered = tcp(net.peer, net.pod, (Scene::PORT, 5000), answer);
        passes(scene.rig.run(Program::ToPod, &frame(&answered), inward));
    }
    let mut kinds = Vec::new();
    let mut add = |name, packet: &[u8], inside| {
        let (program, at) = if inside {
            (Program::FromPod, outward)
        } else {
            (Program::ToPod, inward)
        };
        kinds.push((name, program, frame(packet), at));
    };
    let port = Scene::PORT;
    let (v4, v6) = (Net::V4, Net::V6);
    add(
        "established, IPv4 TCP, to the pod",
        &tcp(v4.peer, v4.pod, (4000, port), ack),
        false,
    );
    add(
        "established, IPv4 TCP, its reply",
        &tcp(v4.pod, v4.peer, (port, 4000), ack),
        true,
    );
    add(
        "established, IPv4 TCP, the pod's own",
        &tcp(v4.pod, v4.peer, (5000, port), ack),
        true,
    );
    add(
        "established, IPv6 TCP, to the pod",
        &tcp(v6.peer, v6.pod, (4000, port), ack),
        false,
    );
    add(
        "established, IPv4 UDP, to the pod",
        &udp(v4.peer, v4.pod, (4000, port)),
        false,
    );
    add(
        "first, IPv4 TCP, from a pod peer",
        &tcp(v4.peer, v4.pod, (4001, port), syn),
        false,
    );
    add(
        "first, IPv6 TCP, from a pod peer",
        &tcp(v6.peer, v6.pod, (4001, port), syn),
        false,
    );
    add(
        "first, IPv4 TCP, from a CIDR",
        &tcp(v4.outside, v4.pod, (4001, port), syn),
        false,
    );
    add(
        "first, IPv4 TCP, the pod's own",
        &tcp(v4.pod, v4.peer, (5001, port), syn),
        true,
    );
    add(
        "denied, IPv4 TCP, from a stranger",
        &tcp(v4.stranger, v4.pod, (4001, port), syn),
        false,
    );
    add(
        "denied, IPv6 TCP, from a stranger",
        &tcp(v6.stranger, v6.pod, (4001, port), syn),
        false,
    );
    add(
        "denied, IPv4 UDP, from a stranger",
        &udp(v4.stranger, v4.pod, (4001, port)),
        false,
    );
    add(
        "undecided, IPv4 TCP, to a Service",
        &tcp(v4.pod, v4.service, (5001, port), syn),
        true,
    );
    kinds
}

fn passes(verdict: Verdict) {
    assert_eq!(verdict, Verdict::Pass, "a flow that is measured must stand");
}
