//! What a packet carries: ICMP, SCTP, protocols without ports; fragments.

use palisade_common::{
    value::{ALL_PORTS, Cell},
    verdict::{
        Direction, Reason,
        Verdict::{Drop, Pass},
    },
};
use palisade_tests::{
    packet::{Ip, Sctp, Tcp},
    rig::{Net, POD, Scene, tcp, udp},
    skip_without_root,
};

const CLIENT: u16 = 4000;
const PORT: u16 = Scene::PORT;

/// Lets the pod speak every protocol with its peer, in one direction or none.
fn permit(scene: &mut Scene, direction: Option<Direction>) {
    for (table, of) in [
        (Scene::INGRESS, Direction::Ingress),
        (Scene::EGRESS, Direction::Egress),
    ] {
        let cell = if direction == Some(of) {
            Cell::ALLOW
        } else {
            Cell::DENY
        };
        scene.cell(table, Scene::PEER, cell);
    }
}

#[test]
fn an_echo_is_answered_to_who_asked() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let (there, back) = (Ip::new(net.peer, net.pod), Ip::new(net.pod, net.peer));
        permit(&mut scene, Some(Direction::Ingress));
        assert_eq!(scene.from_pod(&back.echo_reply(5, 1, b"x")), Drop);
        assert_eq!(scene.to_pod(&there.echo_request(5, 1, b"x")), Pass);
        assert_eq!(scene.from_pod(&back.echo_reply(5, 1, b"x")), Pass);
        assert_eq!(scene.from_pod(&back.echo_reply(6, 1, b"x")), Drop);
        assert_eq!(scene.from_pod(&back.echo_request(5, 1, b"x")), Drop);
        let elsewhere = Ip::new(net.pod, net.stranger);
        assert_eq!(scene.from_pod(&elsewhere.echo_reply(5, 1, b"x")), Drop);

        permit(&mut scene, Some(Direction::Egress));
        scene.forget();
        assert_eq!(scene.to_pod(&there.echo_reply(5, 1, b"x")), Drop);
        assert_eq!(scene.from_pod(&back.echo_request(5, 1, b"x")), Pass);
        assert_eq!(scene.to_pod(&there.echo_reply(5, 1, b"x")), Pass);
        assert_eq!(scene.to_pod(&there.echo_reply(6, 1, b"x")), Drop);
        assert_eq!(scene.to_pod(&there.echo_request(5, 1, b"x")), Drop);
        scene.age(31);
        assert_eq!(scene.to_pod(&there.echo_reply(5, 1, b"x")), Drop);
    }
}

#[test]
fn ports_alone_allow_no_echo() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let ports = Cell {
        tcp: ALL_PORTS,
        udp: ALL_PORTS,
        sctp: ALL_PORTS,
        flags: 0,
    };
    for table in [Scene::INGRESS, Scene::EGRESS] {
        scene.cell(table, Scene::PEER, ports);
    }
    for net in Net::BOTH {
        assert_eq!(
            scene.to_pod(&Ip::new(net.peer, net.pod).echo_request(5, 1, b"")),
            Drop
        );
        assert_eq!(
            scene.from_pod(&Ip::new(net.pod, net.peer).echo_request(5, 1, b"")),
            Drop
        );
        assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (1, 65_535))), Pass);
    }
}

#[test]
fn an_error_about_a_packet_of_the_pod_passes_from_whatever_router() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let sent = [
            tcp(net.pod, net.peer, (CLIENT, PORT), Tcp::SYN),
            udp(net.pod, net.peer, (CLIENT, PORT)),
            Ip::new(net.pod, net.peer).sctp(&Sctp::opening(Sctp::INIT, CLIENT, PORT, 0, 1)),
        ];
        for sent in sent {
            for router in [net.peer, net.stranger, net.node] {
                let error = Ip::new(router, net.pod);
                for error in [error.port_unreachable(&sent), error.too_big(1400, &sent)] {
                    scene.forget();
                    assert_eq!(scene.to_pod(&error), Drop);
                    assert_eq!(scene.from_pod(&sent), Pass);
                    assert_eq!(scene.to_pod(&error), Pass, "{net:?}");
                }
            }
        }
    }
}

#[test]
fn an_error_about_anything_else_is_denied() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let sent = tcp(net.pod, net.peer, (CLIENT, PORT), Tcp::SYN);
        assert_eq!(scene.from_pod(&sent), Pass);
        let error = Ip::new(net.stranger, net.pod);
        assert_eq!(scene.to_pod(&error.port_unreachable(&sent)), Pass);
        let header = if net.pod.is_ipv4() { 20 } else { 40 };
        let unrelated = [
            tcp(net.pod, net.peer, (CLIENT + 1, PORT), Tcp::SYN),
            tcp(net.pod, net.stranger, (CLIENT, PORT), Tcp::SYN),
            udp(net.pod, net.peer, (CLIENT, PORT)),
            // Somebody else's packet, the pod being the other end.
            tcp(net.peer, net.pod, (PORT, CLIENT), Tcp::SYN),
            tcp(net.stranger, net.peer, (CLIENT, PORT), Tcp::SYN),
            // Too short to tell.
            sent[..header + 7].to_vec(),
            sent[..header].to_vec(),
            sent[..header - 1].to_vec(),
            Vec::new(),
        ];
        for quoted in unrelated {
            let packet = error.port_unreachable(&quoted);
            assert_eq!(scene.to_pod(&packet), Drop, "{quoted:?}");
            assert_eq!(
                scene.dropped(),
                Some((POD, Direction::Ingress, Reason::Policy))
            );
        }
        // A redirect is none of these errors.
        let kind = if net.pod.is_ipv4() { 5 } else { 137 };
        assert_eq!(scene.to_pod(&error.icmp(kind, 0, [0; 4], &sent)), Drop);
    }
}

#[test]
fn an_error_that_the_pod_sends_passes_if_it_knows_the_flow() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let received = udp(net.peer, net.pod, (CLIENT, PORT));
        let error = Ip::new(net.pod, net.peer).port_unreachable(&received);
        assert_eq!(scene.from_pod(&error), Drop);
        assert_eq!(scene.to_pod(&received), Pass);
        assert_eq!(scene.from_pod(&error), Pass);
        let other = udp(net.peer, net.pod, (CLIENT + 1, PORT));
        let error = Ip::new(net.pod, net.peer).port_unreachable(&other);
        assert_eq!(scene.from_pod(&error), Drop);
        // It goes to who sent what it quotes.
        let error = Ip::new(net.pod, net.stranger).port_unreachable(&received);
        assert_eq!(scene.from_pod(&error), Drop);
    }
}

#[test]
fn an_error_revokes_and_opens_nothing() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let sent = tcp(net.pod, net.peer, (CLIENT, PORT), Tcp::SYN);
        assert_eq!(scene.from_pod(&sent), Pass);
        let flows = scene.flows();
        let unrelated = udp(net.pod, net.stranger, (CLIENT, PORT));
        let error = Ip::new(net.stranger, net.pod).port_unreachable(&unrelated);
        assert_eq!(scene.to_pod(&error), Drop);
        assert_eq!(scene.flows(), flows);
    }
}

#[test]
fn each_protocol_has_ports_of_its_own() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let none = Cell::DENY;
    let only = Scene::PORTS;
    for net in Net::BOTH {
        let packets = |port: u16| {
            let sctp = Sctp::opening(Sctp::INIT, CLIENT, port, 0, 1);
            [
                tcp(net.peer, net.pod, (CLIENT, port), Tcp::SYN),
                udp(net.peer, net.pod, (CLIENT, port)),
                Ip::new(net.peer, net.pod).sctp(&sctp),
            ]
        };
        let cells = [
            Cell { tcp: only, ..none },
            Cell { udp: only, ..none },
            Cell { sctp: only, ..none },
        ];
        for (mine, cell) in cells.into_iter().enumerate() {
            scene.forget();
            scene.cell(Scene::INGRESS, Scene::PEER, cell);
            for port in [PORT - 1, PORT, PORT + 1] {
                for (number, packet) in packets(port).iter().enumerate() {
                    let allowed = number == mine && port == PORT;
                    assert_eq!(scene.to_pod(packet) == Pass, allowed, "{number} {port}");
                }
            }
        }
    }
}

#[test]
fn protocols_without_ports_pass_only_where_all_protocols_do() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        // GRE, ESP, IPIP, OSPF, UDP-Lite and the other family's ICMP among them.
        let foreign = if net.pod.is_ipv4() { 58 } else { 1 };
        for protocol in [2, 4, 41, 47, 50, 89, 94, 136, 255, foreign] {
            let packet = Ip::new(net.peer, net.pod).carry(protocol, &[0; 40]);
            scene.cell(Scene::INGRESS, Scene::PEER, Scene::CELL);
            assert_eq!(scene.to_pod(&packet), Drop, "{protocol}");
            scene.cell(Scene::INGRESS, Scene::PEER, Cell::ALLOW);
            assert_eq!(scene.to_pod(&packet), Pass, "{protocol}");
            let answer = Ip::new(net.pod, net.peer).carry(protocol, &[0; 40]);
            assert_eq!(scene.from_pod(&answer), Pass, "{protocol}");
            scene.forget();
        }
    }
}

#[test]
fn a_port_set_is_looked_up_in_the_leaf_of_its_port() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let maps = &mut scene.rig.maps;
    let allowed = [0_u16, 63, 64, 255, 256, 1023, 8443, 32_768, 65_535];
    let mut leaves = [0_u32; 256];
    for port in allowed {
        let place = usize::from(port >> 8);
        if leaves[place] == 0 {
            leaves[place] = 100 + place as u32;
        }
        let leaf = leaves[place];
        let mut bits = maps.port_leaves.get(&leaf, 0).unwrap();
        bits.words[usize::from(port % 256 / 64)] |= 1 << (port % 64);
        maps.port_leaves.set(leaf, bits, 0).unwrap();
    }
    let set = palisade_common::value::PortSet { leaves };
    maps.port_sets.set(9, set, 0).unwrap();
    let cell = Cell {
        tcp: 9,
        ..Cell::DENY
    };
    scene.cell(Scene::INGRESS, Scene::PEER, cell);
    for net in Net::BOTH {
        for port in (0..=65_535).filter(|port| port % 97 == 0 || allowed.contains(port)) {
            let packet = tcp(net.peer, net.pod, (CLIENT, port), Tcp::SYN);
            assert_eq!(
                scene.to_pod(&packet) == Pass,
                allowed.contains(&port),
                "{port}"
            );
        }
    }
}

#[test]
fn fragments_follow_their_first() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let ip = Ip::new(net.peer, net.pod);
        for (id, port, verdict) in [(1, PORT, Pass), (2, PORT + 1, Drop)] {
            let whole = ip.udp_payload(CLIENT, port, &[7; 100]);
            let pieces = ip.fragments(id, 17, &whole, 40);
            let [first, rest @ ..] = &pieces[..] else {
                panic!("pieces")
            };
            for piece in rest {
                assert_eq!(scene.to_pod(piece), Drop, "before its first");
            }
            assert_eq!(scene.to_pod(first), verdict);
            for piece in rest {
                assert_eq!(scene.to_pod(piece), verdict);
            }
            // Another datagram's, and another's of the same number.
            let other = ip.fragments(id + 100, 17, &whole, 40);
            assert_eq!(scene.to_pod(&other[1]), Drop);
            let other = Ip::new(net.stranger, net.pod).fragments(id, 17, &whole, 40);
            assert_eq!(scene.to_pod(&other[1]), Drop);
            let other = ip.fragments(id, 6, &whole, 40);
            assert_eq!(scene.to_pod(&other[1]), Drop);
        }
    }
}

#[test]
fn a_fragment_forgets_its_first_after_a_minute() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let ip = Ip::new(net.peer, net.pod);
        let whole = ip.udp_payload(CLIENT, PORT, &[7; 100]);
        for (age, verdict) in [(58, Pass), (62, Drop)] {
            let pieces = ip.fragments(age, 17, &whole, 64);
            assert_eq!(scene.to_pod(&pieces[0]), Pass);
            let jiffies = age * scene.rig.hz;
            let fragments = &mut scene.rig.maps.fragments;
            let all: Vec<_> = fragments.iter().map(Result::unwrap).collect();
            for (key, mut ports) in all {
                ports.seen = ports.seen.wrapping_sub(jiffies);
                fragments.insert(key, ports, 0).unwrap();
            }
            assert_eq!(scene.to_pod(&pieces[1]), verdict, "{age}");
        }
    }
}

#[test]
fn fragments_of_a_flow_pass_both_ways() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (CLIENT, PORT))), Pass);
        let ip = Ip::new(net.pod, net.peer);
        let whole = ip.udp_payload(PORT, CLIENT, &[7; 300]);
        for piece in ip.fragments(3, 17, &whole, 104) {
            assert_eq!(scene.from_pod(&piece), Pass);
        }
        let echo = ip.fragments(4, if net.pod.is_ipv4() { 1 } else { 58 }, &[8; 200], 104);
        for piece in echo {
            assert_eq!(scene.from_pod(&piece), Drop);
        }
    }
}
