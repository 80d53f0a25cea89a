//! The programs on the wires of a lab: connections that are older than their entries, marks that are lost or
//! taken abroad, and frames that no test run takes.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use palisade_common::{
    value::{ALLOW_ALL, Cell, Peer},
    verdict::{Direction, Reason},
};
use palisade_dataplane::caps::has_tcx;
use palisade_tests::{
    lab::{Cni, Lab, Plan, Service, ServicePort},
    packet::{Tcp, ethernet},
    probe::{Connection, Protocol, Wire},
    rig::{Foreign, Guard, Scene, peer, tcp, udp},
    skip_without_root,
};

const PORT: u16 = Scene::PORT;
const SOON: Duration = Duration::from_secs(2);
/// How long what must not arrive is waited for.
const NEVER: Duration = Duration::from_millis(400);
const CLIENT: &str = "x/client";
const SERVER: &str = "x/server";
/// Class of the client where it is no local pod.
const REMOTE: u32 = 99;

/// A client and a server, of which policy lets the one speak with the other's port.
struct Stage {
    lab: Lab,
    guards: Vec<Guard>,
}

impl Stage {
    /// On one node, or on two.
    fn new(nodes: u8, cni: Cni) -> Result<Self> {
        let mut lab = Lab::new(&Plan::of(nodes, cni))?;
        lab.add_pod(CLIENT, "node1")?;
        lab.add_pod(SERVER, if nodes == 1 { "node1" } else { "node2" })?;
        let guards = (1..=nodes).map(|number| {
            let mut guard = Guard::new(&lab, &format!("node{number}"), 1);
            for pod in lab
                .pods()
                .filter(|pod| !guard.slots.contains_key(&pod.endpoint.name))
            {
                for &address in &pod.endpoint.addresses {
                    guard.rig.peer(address, peer(REMOTE, 0, 0));
                }
            }
            guard
        });
        let guards: Vec<_> = guards.collect();
        let mut stage = Self { lab, guards };
        stage.permit(true);
        Ok(stage)
    }

    /// The guard of the server's node.
    fn guard(&mut self) -> &mut Guard {
        self.guards.last_mut().expect("a node")
    }

    /// Isolates the server from everybody, or from everybody but the client at its port.
    fn permit(&mut self, permitted: bool) {
        let guard = self.guard();
        guard.rig.ports(Scene::PORTS, &[PORT]);
        guard.rig.default_cell(Scene::INGRESS, Cell::DENY);
        let cell = if permitted { Scene::CELL } else { Cell::DENY };
        let client = guard
            .slots
            .get(CLIENT)
            .map_or(REMOTE, |slot| u32::from(*slot));
        guard.rig.cell(Scene::INGRESS, client, cell);
        let server = guard.slots[SERVER];
        guard.rig.tables(server, Scene::INGRESS, ALLOW_ALL);
    }

    /// Isolates the server in the other direction too, from everybody.
    fn silence(&mut self) {
        let guard = self.guard();
        guard.rig.default_cell(Scene::EGRESS, Cell::DENY);
        let server = guard.slots[SERVER];
        guard.rig.tables(server, Scene::INGRESS, Scene::EGRESS);
    }

    fn attach(&mut self, on: bool) {
        for (number, guard) in (1..).zip(&mut self.guards) {
            let node = self.lab.node(&format!("node{number}"));
            guard.attach(&node.endpoint.namespace, on);
        }
    }

    fn forget(&mut self) {
        for guard in &mut self.guards {
            guard.rig.forget();
        }
    }

    fn open(&self, family: u8, port: u16, patience: Duration) -> Result<Connection> {
        let (client, server) = (self.lab.pod(CLIENT), self.lab.pod(SERVER));
        Connection::open(&client.endpoint, &server.endpoint, family, port, patience)
    }

    fn address(&self, pod: &str, family: u8) -> IpAddr {
        let endpoint = &self.lab.pod(pod).endpoint;
        endpoint.address(family).expect("both families")
    }
}

/// One node and two, routed and bridged.
fn stages() -> Result<Vec<Stage>> {
    [
        (1, Cni::Ptp),
        (1, Cni::Bridge { netfilter: false }),
        (2, Cni::Ptp),
    ]
    .into_iter()
    .map(|(nodes, cni)| Stage::new(nodes, cni))
    .collect()
}

#[test]
fn policy_holds_on_the_wire() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for mut stage in stages()? {
        stage.attach(true);
        for family in [4, 6] {
            assert!(stage.open(family, PORT, SOON)?.works(SOON));
            assert!(stage.open(family, PORT + 1, NEVER).is_err());
        }
    }
    Ok(())
}

#[test]
fn a_connection_whose_entry_is_gone_goes_on_at_either_ends_turn() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for mut stage in stages()? {
        stage.attach(true);
        for family in [4, 6] {
            let mut connection = stage.open(family, PORT, SOON)?;
            assert!(connection.works(SOON));
            stage.forget();
            assert!(connection.server_speaks(SOON), "the server, IPv{family}");
            assert!(connection.client_speaks(SOON));
            stage.forget();
            assert!(connection.client_speaks(SOON), "the client, IPv{family}");
            assert!(connection.server_speaks(SOON));
        }
    }
    Ok(())
}

#[test]
fn a_connection_goes_on_that_was_there_before_the_programs() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for mut stage in stages()? {
        for family in [4, 6] {
            for server_first in [true, false] {
                stage.attach(false);
                let mut connection = stage.open(family, PORT, SOON)?;
                assert!(connection.works(SOON));
                stage.forget();
                stage.attach(true);
                if server_first {
                    assert!(connection.server_speaks(SOON), "the server, IPv{family}");
                }
                assert!(connection.client_speaks(SOON), "the client, IPv{family}");
                assert!(connection.server_speaks(SOON));
            }
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_policy_denies_is_cut_with_or_without_its_entry() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for mut stage in stages()? {
        for family in [4, 6] {
            for forgotten in [true, false] {
                stage.permit(true);
                stage.attach(true);
                let mut connection = stage.open(family, PORT, SOON)?;
                assert!(connection.works(SOON));
                stage.permit(false);
                // The server could have opened it as well, as far as anybody knows.
                stage.silence();
                stage.guard().rig.revise();
                if forgotten {
                    stage.forget();
                }
                assert!(!connection.client_speaks(NEVER), "the client, IPv{family}");
                assert!(!connection.server_speaks(NEVER), "the server, IPv{family}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_flood_costs_no_connection() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut stage = Stage::new(1, Cni::Ptp)?;
    stage.attach(true);
    let mut connections = Vec::new();
    for family in [4, 6] {
        let mut connection = stage.open(family, PORT, SOON)?;
        assert!(connection.works(SOON));
        connections.push(connection);
    }
    let wire = Wire::open(&stage.lab.pod(CLIENT).endpoint.namespace, "eth0")?;
    for number in 0..30_000_u16 {
        let family = if number % 2 == 0 { 4 } else { 6 };
        let (from, to) = (stage.address(CLIENT, family), stage.address(SERVER, family));
        let (source, destination) = stage.lab.link(stage.lab.pod(CLIENT), to);
        let ports = (20_000 + number, PORT);
        let packet = if number % 3 == 0 {
            udp(from, to, ports)
        } else {
            tcp(from, to, ports, Tcp::SYN)
        };
        wire.send(&ethernet(source, destination, &packet))?;
    }
    for connection in &mut connections {
        assert!(connection.server_speaks(SOON));
        assert!(connection.client_speaks(SOON));
    }
    // More flows than the table of new ones holds.
    assert!(stage.guard().rig.counted(1, Direction::Egress).allowed > 25_000);
    Ok(())
}

/// What a pod's device carries when frames are sent at it from another pod: whether each arrives.
fn arrive(stage: &Stage, frames: &[(Vec<u8>, bool)], what: &str) -> Result<()> {
    let out = Wire::open(&stage.lab.pod(CLIENT).endpoint.namespace, "eth0")?;
    let into = Wire::open(&stage.lab.pod(SERVER).endpoint.namespace, "eth0")?;
    let own = [4, 6].map(|family| stage.address(CLIENT, family));
    for (frame, expected) in frames {
        into.drain()?;
        out.send(frame)?;
        let patience = if *expected { SOON } else { NEVER };
        let arrived = into.expect(patience, |seen| own.contains(&seen.source))?;
        assert_eq!(arrived.is_some(), *expected, "{what}: {frame:02x?}");
    }
    Ok(())
}

#[test]
fn a_forged_segment_is_no_connection() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    for nodes in [1, 2] {
        let mut stage = Stage::new(nodes, Cni::Ptp)?;
        stage.lab.serve(SERVER, PORT + 1, Protocol::Tcp)?;
        stage.attach(true);
        let mut frames = Vec::new();
        for family in [4, 6] {
            let (from, to) = (stage.address(CLIENT, family), stage.address(SERVER, family));
            let (source, destination) = stage.lab.link(stage.lab.pod(CLIENT), to);
            let mut add = |port, flags, arrives| {
                let packet = tcp(from, to, (4000, port), flags);
                frames.push((ethernet(source, destination, &packet), arrives));
            };
            add(PORT, Tcp::SYN, true);
            // The port has a listener, which is no connection.
            for flags in [
                Tcp::ACK,
                Tcp::ACK | Tcp::PSH,
                Tcp::RST,
                Tcp::FIN,
                Tcp::SYN | Tcp::ACK,
            ] {
                add(PORT + 1, flags, false);
                add(PORT + 2, flags, false);
            }
        }
        arrive(&stage, &frames, "forged")?;
    }
    Ok(())
}

#[test]
fn frames_too_short_for_a_test_run_do_not_arrive() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    let mut stage = Stage::new(1, Cni::Bridge { netfilter: false })?;
    stage.attach(true);
    let out = Wire::open(&stage.lab.pod(CLIENT).endpoint.namespace, "eth0")?;
    let mut into = Wire::open(&stage.lab.pod(SERVER).endpoint.namespace, "eth0")?;
    let server = stage.guard().slots[SERVER];
    let denied = |stage: &mut Stage| {
        let counted = stage.guard().rig.counted(server, Direction::Ingress);
        counted.denied[Reason::Malformed as usize]
    };
    for family in [4, 6] {
        let (from, to) = (stage.address(CLIENT, family), stage.address(SERVER, family));
        let (source, destination) = stage.lab.link(stage.lab.pod(CLIENT), to);
        let whole = ethernet(source, destination, &tcp(from, to, (4000, PORT), Tcp::SYN));
        let header = if family == 4 { 34 } else { 54 };
        for length in 15..header {
            let before = denied(&mut stage);
            into.drain()?;
            out.send(&whole[..length])?;
            // Multicast of the devices' own may arrive meanwhile.
            let seen = into.receive(Duration::from_millis(20))?;
            let passed = seen.is_some_and(|frame| frame.starts_with(&destination));
            assert!(!passed, "IPv{family}, {length}");
            assert_eq!(denied(&mut stage), before + 1, "IPv{family}, {length}");
        }
        out.send(&whole)?;
        assert!(into.expect(SOON, |seen| seen.source == from)?.is_some());
        into = Wire::open(&stage.lab.pod(SERVER).endpoint.namespace, "eth0")?;
    }
    Ok(())
}

#[test]
fn slots_of_another_node_mean_nothing_here() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    // Client and server have the same slot, each on its node; a pod always reaches itself.
    for exits in [true, false] {
        let mut stage = Stage::new(2, Cni::Ptp)?;
        stage.permit(false);
        if !exits {
            stage.guards[0].without_exits();
        }
        stage.attach(true);
        let same = stage
            .guards
            .iter()
            .map(|guard| guard.slots.values().copied().next());
        assert_eq!(same.collect::<Vec<_>>(), [Some(1), Some(1)]);
        for family in [4, 6] {
            assert!(
                stage.open(family, PORT, NEVER).is_err(),
                "IPv{family}, exits: {exits}"
            );
        }
        stage.permit(true);
        for family in [4, 6] {
            assert!(stage.open(family, PORT, SOON)?.works(SOON));
        }
    }
    Ok(())
}

#[test]
fn nothing_leaks_where_a_foreign_program_wipes_the_mark() -> Result<()> {
    if skip_without_root() {
        return Ok(());
    }
    if !has_tcx()? {
        println!("SKIP: no TCX (Linux 6.6, commit e420bed02507)");
        return Ok(());
    }
    for (nodes, cni) in [
        (1, Cni::Ptp),
        (1, Cni::Bridge { netfilter: true }),
        (2, Cni::Ptp),
    ] {
        let mut stage = Stage::new(nodes, cni)?;
        let service: IpAddr = "10.96.0.10".parse()?;
        let server = stage.address(SERVER, 4);
        stage.lab.add_services(&[Service {
            name: "x/server".to_owned(),
            addresses: vec![service],
            ports: vec![ServicePort {
                port: PORT,
                protocol: Protocol::Tcp,
                node_port: None,
                backends: vec![SocketAddr::new(server, PORT)],
            }],
            ..Service::default()
        }])?;
        let client = stage.guards[0].slots[CLIENT];
        let rig = &mut stage.guards[0].rig;
        rig.peer(service, peer(0, 0, Peer::TRANSLATED));
        rig.ports(Scene::PORTS, &[PORT]);
        rig.default_cell(Scene::EGRESS, Cell::DENY);
        rig.tables(client, ALLOW_ALL, Scene::EGRESS);
        stage.attach(true);
        let class = stage.guards[0]
            .slots
            .get(SERVER)
            .map_or(REMOTE, |slot| u32::from(*slot));
        let device = stage.lab.pod(CLIENT).index;
        for wipes in [None, Some(false), Some(true)] {
            let node = &stage.lab.node("node1").endpoint.namespace;
            let foreign = wipes.map(|wipes| node.run(|| Foreign::attach(device, wipes)));
            for permitted in [false, true] {
                let cell = if permitted { Scene::CELL } else { Cell::DENY };
                let rig = &mut stage.guards[0].rig;
                rig.cell(Scene::EGRESS, class, cell);
                rig.revise();
                let patience = if permitted { SOON } else { NEVER };
                let (from, to) = (stage.lab.pod(CLIENT), stage.lab.pod(SERVER));
                let target = SocketAddr::new(service, PORT);
                let opened =
                    Connection::open_through(&from.endpoint, &to.endpoint, target, PORT, patience);
                let works = opened.is_ok_and(|mut connection| connection.works(SOON));
                let direct = stage.open(4, PORT, patience).is_ok();
                // A wiped cookie cannot confirm the flow, so its answers may be denied; it must not leak.
                if wipes == Some(true) {
                    assert!(permitted || !works, "{cni:?} {wipes:?} by its Service");
                } else {
                    assert_eq!(works, permitted, "{cni:?} {wipes:?} by its Service");
                }
                assert!(permitted || !direct, "{cni:?} {wipes:?}");
            }
            drop(foreign);
        }
    }
    Ok(())
}
