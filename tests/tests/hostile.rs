//! Pods that mean harm, with the real agent: whatever they send, nothing that policy does not allow arrives, and nobody
//! else loses a packet. `docs/hostile-pods.md` is the table of it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use palisade_common::mark;
use palisade_dataplane::caps::has_tcx;
use palisade_tests::{
    agent::Agent,
    lab::{Cni, both},
    packet::{Fragment, Ip, Tcp, ethernet, parse},
    probe::Wire,
    rig::Foreign,
    skip_without_root,
    trial::{ANSWER, Trial, peer, policy},
};
use rustix::{
    net::sockopt,
    thread::{CpuSet, sched_getcpu, sched_setaffinity},
};
use serde_json::{Value, json};

use self::tries::{Ends, FORGED, OPEN, SHUT, Try, tries};

#[path = "hostile/tries.rs"]
mod tries;

/// How long a frame that must arrive may take.
const SOON: Duration = Duration::from_secs(5);
/// Bytes of frames that may wait to be looked at.
const QUEUE: usize = 8 << 20;
/// How often everything is sent.
const ROUNDS: u16 = 3;

const BRIDGE: Cni = Cni::Bridge { netfilter: false };

fn ports() -> Value {
    json!([{"port": OPEN, "protocol": "TCP"}, {"port": OPEN, "protocol": "UDP"}])
}

/// The server takes what the hostile pod sends to one port.
fn into_one_port() -> Value {
    policy(
        "into-one-port",
        &json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [peer("other")], "ports": ports()}],
        }),
    )
}

/// The hostile pod may send to one port of the server, and nowhere else.
fn out_to_one_port() -> Value {
    policy(
        "out-to-one-port",
        &json!({
            "podSelector": {"matchLabels": {"app": "other"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [peer("server")], "ports": ports()}],
        }),
    )
}

/// The wires of the hostile pod and of its victim.
struct Wires {
    out: Wire,
    into: Wire,
    /// Frames that always pass, each with a number: what was sent before one has been decided when it is there.
    number: u16,
}

impl Wires {
    fn open(trial: &Trial) -> Result<Self> {
        let wire = |name: &str| Wire::open(&trial.endpoint(name).namespace, "eth0");
        let (out, into) = (wire("other")?, wire("server")?);
        sockopt::set_socket_recv_buffer_size_force(&into, QUEUE)?;
        Ok(Self {
            out,
            into,
            number: 20_000,
        })
    }

    /// Sends frames, and counts which of those that arrive are wanted.
    fn send(
        &mut self,
        frames: &[Vec<u8>],
        last: impl Fn(u16) -> Vec<u8>,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<usize> {
        for frame in frames {
            self.out.send(frame)?;
        }
        self.number += 1;
        self.out.send(&last(self.number))?;
        let deadline = Instant::now() + SOON;
        let mut arrived = 0;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let frame = self.into.receive(rest)?;
            let frame = frame.context("what always passes did not arrive")?;
            let ports = parse(&frame).and_then(|seen| seen.ports());
            if ports == Some((self.number, OPEN)) {
                return Ok(arrived);
            }
            arrived += usize::from(wanted(&frame));
        }
    }
}

/// Runs it on one processor, on which no frame overtakes another.
fn pinned<T: Send>(inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut here = CpuSet::new();
            here.set(sched_getcpu());
            sched_setaffinity(None, &here)?;
            inside()
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn ends(trial: &Trial, family: u8) -> Result<Ends> {
    let nobody = both([10, 244, 1, 250].into())[usize::from(family == 6)];
    Ok(Ends {
        nobody,
        from: trial.address("other", family)?,
        to: trial.address("server", family)?,
        friend: trial.address("client", family)?,
        node: trial
            .lab
            .node("node1")
            .endpoint
            .address(family)
            .context("an address")?,
        mac: trial.lab.pod("x/server").mac,
    })
}

/// Sends everything once; `expected` says of a try whether it is to arrive. How many frames of each kind were sent.
fn round(
    trial: &Trial,
    wires: &mut Wires,
    number: u16,
    expected: impl Fn(&Try) -> bool,
) -> Result<BTreeMap<&'static str, usize>> {
    let mut sent = BTreeMap::new();
    for family in [4, 6] {
        let ends = ends(trial, family)?;
        let last = |port: u16| {
            let packet = Ip::new(ends.from, ends.to).udp(port, OPEN, b"last");
            ethernet(FORGED, ends.mac, &packet)
        };
        for one in tries(&ends, number) {
            let frames = [one.frame.clone()];
            let arrived = wires.send(&frames, last, |frame| frame[6..12] == FORGED)?;
            let (what, frame) = (one.what, &one.frame);
            ensure!(
                arrived == usize::from(expected(&one)),
                "IPv{family}, {what}: {arrived} arrived of {frame:02x?}"
            );
            *sent.entry(what).or_default() += 1;
        }
    }
    Ok(sent)
}

#[test]
fn nothing_that_a_hostile_pod_makes_up_gets_past_policy() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut trial = Trial::new(BRIDGE)?;
    let mut wires = Wires::open(&trial)?;
    // What the network carries by itself: all of it, or nothing would be proved below.
    pinned(|| round(&trial, &mut wires, 0, |_| true))?;
    trial.beside([into_one_port()])?;
    let _agent = trial.ready(&Agent::program()?, &[])?;
    let streams = trial.streams()?;
    for number in 1..=ROUNDS {
        let sent = pinned(|| round(&trial, &mut wires, number, |one| one.passes))?;
        println!("into a pod, round {number}: {sent:?}");
    }
    streams.judge("a hostile pod sends to an isolated one")
}

#[test]
fn nothing_that_policy_forbids_gets_out_of_a_hostile_pod() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut trial = Trial::new(BRIDGE)?;
    // Its own egress alone is what stops it.
    trial
        .objects
        .retain(|object| object["kind"] != "NetworkPolicy");
    trial.beside([out_to_one_port()])?;
    let mut wires = Wires::open(&trial)?;
    let _agent = trial.ready(&Agent::program()?, &[])?;
    let streams = trial.streams()?;
    for number in 1..=ROUNDS {
        let sent = pinned(|| round(&trial, &mut wires, number, |one| one.passes))?;
        println!("out of a pod, round {number}: {sent:?}");
    }
    streams.judge("an isolated pod is hostile")
}

#[test]
fn a_flood_of_fragments_and_forged_segments_costs_nobody_a_packet() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    const BURST: u32 = 200;
    let mut trial = Trial::new(BRIDGE)?;
    trial.beside([into_one_port()])?;
    let mut wires = Wires::open(&trial)?;
    let _agent = trial.ready(&Agent::program()?, &[])?;
    let mut streams = trial.streams()?;
    let (client, server) = streams.open.addresses()?;
    let ends = ends(&trial, 4)?;
    let own = Ip::new(ends.from, ends.to);
    let friend = Ip::new(ends.friend, ends.to);
    let last = |port: u16| ethernet(FORGED, ends.mac, &own.udp(port, OPEN, b"last"));
    let arrived = pinned(|| {
        let mut arrived = 0;
        for burst in 0..150 {
            let frames = (0..BURST).map(|at| {
                let number = burst * BURST + at;
                let fragment = Some(Fragment {
                    id: number,
                    offset: 64,
                    more: true,
                });
                let piece = Ip {
                    fragment,
                    ..own.clone()
                };
                let reset = Tcp {
                    sequence: number << 12,
                    ..Tcp::new(client.port(), server.port(), Tcp::RST | Tcp::ACK)
                };
                let packet = match number % 3 {
                    0 => piece.carry(17, &[7; 64]),
                    1 => friend.tcp(&reset),
                    _ => own.tcp(&Tcp::new(number as u16, SHUT, Tcp::SYN)),
                };
                ethernet(FORGED, ends.mac, &packet)
            });
            let frames: Vec<_> = frames.collect();
            arrived += wires.send(&frames, last, |frame| frame[6..12] == FORGED)?;
        }
        Ok(arrived)
    })?;
    ensure!(arrived == 0, "{arrived} of {} arrived", 150 * BURST);
    // Those that the peer itself sends belong to the connection; the pod's kernel knows they are out of its window.
    let wire = Wire::open(&trial.endpoint("client").namespace, "eth0")?;
    for number in 0..50_u32 {
        let reset = Tcp {
            sequence: number << 26,
            ..Tcp::new(client.port(), server.port(), Tcp::RST)
        };
        let packet = friend.tcp(&reset);
        wire.send(&ethernet(trial.lab.pod("x/client").mac, ends.mac, &packet))?;
        let syn = friend.tcp(&Tcp::new(client.port(), server.port(), Tcp::SYN));
        wire.send(&ethernet(trial.lab.pod("x/client").mac, ends.mac, &syn))?;
    }
    ensure!(
        streams.open.works(ANSWER),
        "resets out of the window cut it"
    );
    streams.judge("a flood of forged packets")
}

#[test]
fn a_pod_cannot_open_its_own_ingress() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut trial = Trial::new(BRIDGE)?;
    trial.beside([into_one_port()])?;
    let mut wires = Wires::open(&trial)?;
    let _agent = trial.ready(&Agent::program()?, &[])?;
    let streams = trial.streams()?;
    // The server is in league with the other.
    let inside = Wire::open(&trial.endpoint("server").namespace, "eth0")?;
    let macs = ["server", "other"].map(|name| trial.lab.pod(&format!("x/{name}")).mac);
    for family in [4, 6] {
        let ends = ends(&trial, family)?;
        let (there, back) = (Ip::new(ends.from, ends.to), Ip::new(ends.to, ends.from));
        let last = |port: u16| ethernet(FORGED, ends.mac, &there.udp(port, OPEN, b"last"));
        let mut open = |sent: &[u8], asked: &[u8]| {
            inside.send(&ethernet(macs[0], macs[1], sent))?;
            // It has passed the server's interface when this one is answered for.
            let frames = [ethernet(FORGED, ends.mac, asked)];
            wires.send(&frames, last, |frame| frame[6..12] == FORGED)
        };
        pinned(|| {
            for flags in [
                Tcp::SYN,
                Tcp::SYN | Tcp::ACK,
                Tcp::ACK,
                Tcp::RST,
                Tcp::FIN | Tcp::ACK,
                0,
            ] {
                for port in [5000, 5001] {
                    let sent = back.tcp(&Tcp::new(SHUT, 5000, flags));
                    let asked = there.tcp(&Tcp::new(port, SHUT, Tcp::SYN));
                    ensure!(
                        open(&sent, &asked)? == 0,
                        "IPv{family}: {flags:#x} opens a port"
                    );
                }
            }
            // A datagram of its own is answered, at its port and from where it went.
            for (port, answered) in [(5000, 1), (5001, 0)] {
                let sent = back.udp(SHUT, 5000, b"hello");
                let asked = there.udp(port, SHUT, b"hostile");
                ensure!(open(&sent, &asked)? == answered, "IPv{family}: from {port}");
            }
            let asked = there.echo_request(7, 1, b"hostile");
            ensure!(open(&back.echo_reply(7, 1, b""), &asked)? == 0, "an echo");
            // Nor by an error about a packet that never was.
            let quote = there.udp(5002, SHUT, b"hostile");
            let error = back.port_unreachable(&quote);
            ensure!(open(&error, &quote)? == 0, "an error");
            Ok(())
        })?;
    }
    streams.judge("a pod tries to open its own ingress")
}

#[test]
fn what_a_pods_own_programs_write_on_packets_is_not_believed() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    if !has_tcx()? {
        println!("SKIP: no TCX (Linux 6.6, commit e420bed02507)");
        return Ok(());
    }
    for cni in [BRIDGE, Cni::Ptp] {
        let mut trial = Trial::new(cni)?;
        trial.beside([into_one_port()])?;
        let mut wires = Wires::open(&trial)?;
        let agent = trial.ready(&Agent::program()?, &[])?;
        let streams = trial.streams()?;
        let slots: Vec<_> = agent
            .status()?
            .pods
            .iter()
            .filter_map(|pod| pod.slot)
            .collect();
        ensure!(slots.len() == 3, "{slots:?}");
        let other = trial.lab.pod("x/other");
        let (own, server) = (&other.endpoint.namespace, trial.address("server", 4)?);
        let device = own.netlink().up("eth0")?;
        let (source, destination) = trial.lab.link(other, server);
        let ip = Ip::new(trial.address("other", 4)?, server);
        let last = |port: u16| ethernet(source, destination, &ip.udp(port, OPEN, b"last"));
        for slot in slots.into_iter().chain([0, 4095]) {
            for state in 0..=6 {
                let tc_index = mark::encode(slot, mark::State::Expected) & !0xf | state;
                let forger = own.run(|| Foreign::forging(device, tc_index, u32::MAX));
                let frames = [
                    ip.tcp(&Tcp::new(5000, SHUT, Tcp::SYN)),
                    ip.udp(5000, SHUT, b"hostile"),
                ];
                let frames = frames.map(|packet| ethernet(source, destination, &packet));
                let arrived = pinned(|| {
                    wires.send(&frames, last, |frame| {
                        let ports = parse(frame).and_then(|seen| seen.ports());
                        ports == Some((5000, SHUT))
                    })
                })?;
                drop(forger);
                ensure!(arrived == 0, "{cni:?}: {tc_index:#x}");
            }
        }
        streams.judge(&format!("{cni:?}, forged marks"))?;
    }
    Ok(())
}
