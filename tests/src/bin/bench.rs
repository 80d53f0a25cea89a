//! What the programs cost: each beside a program that returns at once, in the same run; and connections of a
//! lab with and without them. Prints Markdown.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use palisade_common::{
    value::{Cell, Config},
    verdict::Verdict,
};
use palisade_tests::{
    lab::{Cni, Lab, Plan},
    packet::{Tcp, ethernet},
    rig::{At, Guard, Net, Program, Rig, Scene, peer, tcp, udp},
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

fn main() -> Result<()> {
    packets();
    connections()
}

/// A kind of packet: its name, program, frame, and where it is.
type Kind = (&'static str, Program, Vec<u8>, At);

fn packets() {
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
        "undecided, IPv4 TCP, to a Service",
        &tcp(v4.pod, v4.service, (5001, port), syn),
        true,
    );
    kinds
}

fn passes(verdict: Verdict) {
    assert_eq!(verdict, Verdict::Pass, "a flow that is measured must stand");
}

/// Turns of each measurement, with and without by turns; the middle one counts.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);

fn connections() -> Result<()> {
    println!("\n| between two pods of a node | without | with | ratio |");
    println!("|---|---|---|---|");
    let mut lab = Lab::new(&Plan::of(1, Cni::Ptp))?;
    lab.add_pod("x/client", "node1")?;
    lab.add_pod("x/server", "node1")?;
    let mut guard = Guard::new(&lab, "node1", 1);
    isolate(&mut guard);
    for (name, measure) in [
        ("TCP requests, 1/s", requests as fn(&Lab) -> Result<f64>),
        ("TCP stream, MB/s", stream),
    ] {
        let mut found = [Vec::new(), Vec::new()];
        for turn in 0..2 * TURNS {
            let with = turn % 2;
            guard.attach(&lab.node("node1").endpoint.namespace, with == 1);
            found[with].push(measure(&lab)?);
        }
        let [without, with] = found.map(|mut found| {
            found.sort_by(f64::total_cmp);
            found[TURNS / 2]
        });
        println!(
            "| {name} | {without:.0} | {with:.0} | {:.3} |",
            with / without
        );
    }
    Ok(())
}

/// The server takes connections of the client alone.
fn isolate(guard: &mut Guard) {
    let (client, server) = (guard.slots["x/client"], guard.slots["x/server"]);
    guard.rig.ports(Scene::PORTS, &[Scene::PORT]);
    guard.rig.default_cell(Scene::INGRESS, Cell::DENY);
    guard
        .rig
        .cell(Scene::INGRESS, u32::from(client), Scene::CELL);
    let slot = guard.rig.slot(server);
    guard.rig.tables(server, Scene::INGRESS, slot.egress);
}

fn connect(lab: &Lab) -> Result<(TcpStream, TcpStream)> {
    let server = &lab.pod("x/server").endpoint;
    let address: IpAddr = server.address(4).context("no IPv4")?;
    let listener = server
        .namespace
        .run(|| TcpListener::bind(SocketAddr::new(address, Scene::PORT)))?;
    let client = lab.pod("x/client").endpoint.namespace.run(|| {
        TcpStream::connect_timeout(
            &SocketAddr::new(address, Scene::PORT),
            Duration::from_secs(5),
        )
    })?;
    let (served, _) = listener.accept()?;
    for end in [&client, &served] {
        end.set_nodelay(true)?;
    }
    Ok((client, served))
}

fn requests(lab: &Lab) -> Result<f64> {
    let (mut client, mut server) = connect(lab)?;
    let echo = thread::spawn(move || {
        let mut byte = [0; 1];
        while let Ok(1) = server.read(&mut byte) {
            if server.write_all(&byte).is_err() {
                break;
            }
        }
    });
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < TURN {
        client.write_all(&[1])?;
        client.read_exact(&mut [0; 1])?;
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    drop(client);
    echo.join().ok().context("the server")?;
    Ok(rate)
}

fn stream(lab: &Lab) -> Result<f64> {
    let (mut client, mut server) = connect(lab)?;
    let sink = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 17];
        let mut total = 0;
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            total += length;
        }
        total
    });
    let begun = Instant::now();
    let buffer = vec![0; 1 << 17];
    while begun.elapsed() < TURN {
        client.write_all(&buffer)?;
    }
    drop(client);
    let total = sink.join().ok().context("the server")?;
    Ok(total as f64 / begun.elapsed().as_secs_f64() / 1e6)
}
