//! The lab itself: with no policy anywhere, everybody reaches everybody.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use palisade_tests::{
    lab::{Cni, Lab, Plan, Service, ServicePort, both},
    packet::{Ip, ethernet},
    probe::{
        Attempt, Check, Connection, Outcome, Patience, Ports, Protocol, Report, Stream, Wire,
        attempt,
    },
    skip_without_root,
};

type Result = std::result::Result<(), Box<dyn Error>>;

const STYLES: [Cni; 3] = [
    Cni::Ptp,
    Cni::Bridge { netfilter: true },
    Cni::Bridge { netfilter: false },
];

const PODS: [&str; 9] = [
    "x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c",
];

const SECOND: Duration = Duration::from_secs(1);

/// Two nodes, nine pods, one host outside.
fn lab(cni: Cni) -> anyhow::Result<Lab> {
    let mut lab = Lab::new(&Plan::of(2, cni))?;
    for (number, name) in PODS.iter().enumerate() {
        lab.add_pod(name, ["node1", "node2"][number % 2])?;
    }
    lab.add_outside("internet", &both([203, 0, 113, 7].into()))?;
    Ok(lab)
}

#[test]
fn a_lab_of_two_nodes_and_nine_pods_is_made() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let begun = Instant::now();
        let lab = lab(cni)?;
        let made = begun.elapsed();
        drop(lab);
        println!(
            "{cni:?}: made in {made:?}, all of it in {:?}",
            begun.elapsed()
        );
    }
    Ok(())
}

#[test]
fn without_policy_everybody_reaches_everybody() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let lab = lab(cni)?;
        let names: Vec<_> = PODS
            .into_iter()
            .chain(["internet", "node:node1", "node:node2"])
            .collect();
        let mut checks = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
            for family in [4, 6] {
                checks.push(Check::all_open(&names, 80, protocol, family));
            }
        }
        let begun = Instant::now();
        lab.expect(&checks, Patience::default())?;
        println!(
            "{cni:?}: {} pairs, twice, in {:?}",
            8 * 12 * 11,
            begun.elapsed()
        );
    }
    Ok(())
}

/// One attempt from an endpoint.
fn reach(lab: &Lab, from: &str, to: SocketAddr, protocol: Protocol) -> anyhow::Result<Report> {
    let from = lab
        .endpoint(from)
        .ok_or_else(|| anyhow::anyhow!("no {from}"))?;
    let attempts = [Attempt {
        from: &from.namespace,
        to,
        protocol,
        patience: SECOND,
    }];
    let mut reports = attempt(&attempts)?;
    Ok(reports.remove(0))
}

const VIP: [u8; 4] = [10, 96, 0, 10];

/// A Service on port 80 of both families whose backends serve port 8080.
fn service(lab: &Lab, backends: &[&str], protocol: Protocol) -> Service {
    let addresses = backends
        .iter()
        .flat_map(|name| &lab.pod(name).endpoint.addresses);
    let port = ServicePort {
        port: 80,
        protocol,
        node_port: Some(30080),
        backends: addresses
            .map(|address| SocketAddr::new(*address, 8080))
            .collect(),
    };
    Service {
        name: format!("svc-{protocol}"),
        addresses: both(VIP.into()).to_vec(),
        ports: vec![port],
        ..Service::default()
    }
}

#[test]
fn services_lead_to_their_backends_and_hairpins_are_masqueraded() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in [Cni::Ptp, Cni::Bridge { netfilter: true }] {
        let mut lab = lab(cni)?;
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        // x/a and x/c are on node1, x/b is on node2.
        for backend in ["x/a", "x/b", "x/c"] {
            for protocol in protocols {
                lab.serve(backend, 8080, protocol)?;
            }
            let services = protocols.map(|protocol| service(&lab, &[backend], protocol));
            lab.add_services(&services)?;
            for protocol in protocols {
                for address in both(VIP.into()) {
                    let vip = SocketAddr::new(address, 80);
                    let report = reach(&lab, "x/a", vip, protocol)?;
                    let case = format!("{cni:?} x/a -> {vip}/{protocol} -> {backend}: {report:?}");
                    assert_eq!(report.outcome, Outcome::Answered, "{case}");
                    if protocol == Protocol::Sctp {
                        continue;
                    }
                    let (server, client) = report.answer().ok_or("no answer")?;
                    assert_eq!(server, backend, "{case}");
                    let own = lab.pod("x/a").endpoint.addresses.contains(&client.ip());
                    assert_eq!(own, backend != "x/a", "{case}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_bridge_that_netfilter_does_not_see_loses_answers_of_neighbours() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let mut lab = lab(Cni::Bridge { netfilter: false })?;
    let vip = SocketAddr::new(VIP.into(), 80);
    // On node2, like it, and on x/a's own node.
    for (backend, answers) in [("x/b", true), ("y/a", true), ("x/c", false)] {
        lab.serve(backend, 8080, Protocol::Tcp)?;
        lab.add_services(&[service(&lab, &[backend], Protocol::Tcp)])?;
        let report = reach(&lab, "x/a", vip, Protocol::Tcp)?;
        let answered = report.outcome == Outcome::Answered;
        assert_eq!(answered, answers, "{backend}: {report:?}");
    }
    Ok(())
}

#[test]
fn masquerade_and_node_ports_hide_the_client() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let mut lab = lab(Cni::Ptp)?;
    lab.serve("x/b", 8080, Protocol::Tcp)?;
    let plain = service(&lab, &["x/b"], Protocol::Tcp);
    let masqueraded = Service {
        masquerade_all: true,
        ..plain.clone()
    };
    let local = Service {
        external_local: true,
        ..plain.clone()
    };
    let x_a = lab.pod("x/a").endpoint.addresses.clone();
    let internet = both([203, 0, 113, 7].into());
    let seen =
        |lab: &Lab, from: &str, to: SocketAddr| -> std::result::Result<IpAddr, Box<dyn Error>> {
            let report = reach(lab, from, to, Protocol::Tcp)?;
            let answer = report.answer();
            Ok(answer
                .ok_or_else(|| format!("{from} -> {to}: {report:?}"))?
                .1
                .ip())
        };
    for family in [4, 6] {
        let number = if family == 4 { 0 } else { 1 };
        let vip = SocketAddr::new(both(VIP.into())[number], 80);
        let node = lab
            .node("node2")
            .endpoint
            .address(family)
            .ok_or("no address")?;
        let node_port = SocketAddr::new(node, 30080);
        lab.add_services(std::slice::from_ref(&plain))?;
        assert_eq!(seen(&lab, "x/a", vip)?, x_a[number]);
        assert_ne!(seen(&lab, "internet", node_port)?, internet[number]);
        lab.add_services(std::slice::from_ref(&masqueraded))?;
        assert_ne!(seen(&lab, "x/a", vip)?, x_a[number]);
        lab.add_services(std::slice::from_ref(&local))?;
        assert_eq!(seen(&lab, "internet", node_port)?, internet[number]);
    }
    lab.remove_services(&["svc-TCP"])?;
    let report = reach(&lab, "x/a", SocketAddr::new(VIP.into(), 80), Protocol::Tcp)?;
    assert_ne!(report.outcome, Outcome::Answered);
    lab.add_services(&[service(&lab, &[], Protocol::Tcp)])?;
    let report = reach(&lab, "x/a", SocketAddr::new(VIP.into(), 80), Protocol::Tcp)?;
    assert_eq!(report.outcome, Outcome::Refused);
    Ok(())
}

#[test]
fn a_pod_may_have_any_address_and_leave_it_to_another() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let mut lab = lab(cni)?;
        let addresses = both([192, 0, 2, 33].into());
        let names = [
            "n/stray",
            "x/a",
            "x/b",
            "internet",
            "node:node1",
            "node:node2",
        ];
        for node in ["node1", "node2"] {
            lab.add_pod_at("n/stray", node, &addresses)?;
            let checks = [4, 6].map(|family| Check::all_open(&names, 80, Protocol::Tcp, family));
            lab.expect(&checks, Patience::default())?;
            lab.remove_pod("n/stray")?;
            let gone = reach(
                &lab,
                "x/a",
                SocketAddr::new(addresses[0], 80),
                Protocol::Tcp,
            )?;
            assert_ne!(gone.outcome, Outcome::Answered);
        }
    }
    Ok(())
}

#[test]
fn connections_and_streams_break_with_the_wire() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    let lab = lab(Cni::Ptp)?;
    let (a, b) = (lab.pod("x/a"), lab.pod("x/b"));
    let soon = Duration::from_millis(300);
    for family in [4, 6] {
        let mut connection = Connection::open(&a.endpoint, &b.endpoint, family, 9000, SECOND)?;
        let one = Stream::start(&a.endpoint, &b.endpoint, family, 9001, 1000, Ports::One)?;
        let fresh = Stream::start(&a.endpoint, &b.endpoint, family, 9002, 1000, Ports::Fresh)?;
        assert!(connection.works(soon));
        thread::sleep(soon);
        let cut = Instant::now();
        let drop_all =
            "table inet cut { chain c { type filter hook forward priority 0; policy drop; }\n}";
        let node = &lab.node("node1").endpoint.namespace;
        node.output("nft", &["-f", "-"], drop_all)?;
        let begun = Instant::now();
        assert!(!connection.client_speaks(soon));
        let healed = Instant::now();
        node.output("nft", &["delete", "table", "inet", "cut"], "")?;
        thread::sleep(soon);
        for loss in [one.stop()?, fresh.stop()?] {
            assert_eq!(loss.between(begun, healed).1, 0, "nothing leaks");
            let (sent, arrived) = loss.between(loss.sent[0], cut);
            assert_eq!(sent, arrived, "nothing is lost while it is whole");
            assert!(sent > 100, "about 1000 a second, not {sent} in {soon:?}");
            assert!(loss.first_after(healed).is_some());
            assert!(loss.lost() >= 200 && loss.leaked() >= 200);
        }
        assert!(connection.works(3 * SECOND), "retransmission heals it");
    }
    Ok(())
}

#[test]
fn frames_made_by_hand_arrive_as_they_were_made() -> Result {
    if skip_without_root() {
        return Ok(());
    }
    for cni in STYLES {
        let lab = lab(cni)?;
        // x/c is on the same node as x/a, x/b on the other.
        for peer in ["x/c", "x/b"] {
            let (from, to) = (lab.pod("x/a"), lab.pod(peer));
            let (out, into) = (
                Wire::open(&from.endpoint.namespace, "eth0")?,
                Wire::open(&to.endpoint.namespace, "eth0")?,
            );
            for family in [4, 6] {
                let address = |pod: &palisade_tests::lab::Pod| {
                    pod.endpoint.address(family).ok_or("no address")
                };
                let header = Ip::new(address(from)?, address(to)?);
                // The neighbour is asked for by the first attempt, as hand-made frames ask for nothing.
                let target = SocketAddr::new(address(to)?, 9);
                reach(&lab, "x/a", target, Protocol::Icmp)?;
                into.drain()?;
                let datagram = header.udp_payload(1234, 9, &[7; 60]);
                let (source, destination) = lab.link(from, address(to)?);
                for packet in header.fragments(77, 17, &datagram, 32) {
                    out.send(&ethernet(source, destination, &packet))?;
                }
                for offset in [0, 32, 64] {
                    let mine = |seen: &palisade_tests::packet::Seen| seen.protocol == 17;
                    let seen = into.expect(SECOND, mine)?;
                    let seen =
                        seen.ok_or_else(|| format!("{cni:?} {peer} no fragment at {offset}"))?;
                    assert_eq!((seen.source, seen.offset), (address(from)?, offset));
                }
            }
        }
    }
    Ok(())
}
