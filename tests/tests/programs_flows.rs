//! Which packets belong to a flow that policy has allowed, and for how long.

use std::net::IpAddr;

use palisade_common::{
    mark::State,
    protocol,
    value::{ALLOW_ALL, Cell, Config, Flow},
    verdict::{
        Direction, Reason,
        Verdict::{Drop, Pass},
    },
};
use palisade_tests::{
    packet::{Ip, Sctp, Tcp},
    rig::{Net, POD, Program, Scene, address, tcp, udp},
    skip_without_root,
};

const SYN: u8 = Tcp::SYN;
const ACK: u8 = Tcp::ACK;
const SYN_ACK: u8 = Tcp::SYN | Tcp::ACK;
/// The client's port.
const CLIENT: u16 = 4000;
const PORT: u16 = Scene::PORT;

/// A peer connects to the pod.
fn connect_in(scene: &Scene, net: Net) {
    assert_eq!(
        scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), SYN)),
        Pass
    );
    assert_eq!(
        scene.from_pod(&tcp(net.pod, net.peer, (PORT, CLIENT), SYN_ACK)),
        Pass
    );
    assert_eq!(
        scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), ACK)),
        Pass
    );
}

/// The pod connects to a peer.
fn connect_out(scene: &Scene, net: Net) {
    assert_eq!(
        scene.from_pod(&tcp(net.pod, net.peer, (CLIENT, PORT), SYN)),
        Pass
    );
    assert_eq!(
        scene.to_pod(&tcp(net.peer, net.pod, (PORT, CLIENT), SYN_ACK)),
        Pass
    );
    assert_eq!(
        scene.from_pod(&tcp(net.pod, net.peer, (CLIENT, PORT), ACK)),
        Pass
    );
}

/// What both ends send once connected: into the pod, and out of it.
fn turns(net: Net, inbound: bool) -> [Vec<u8>; 2] {
    let (own, other) = if inbound {
        (PORT, CLIENT)
    } else {
        (CLIENT, PORT)
    };
    [
        tcp(net.peer, net.pod, (other, own), ACK),
        tcp(net.pod, net.peer, (own, other), ACK),
    ]
}

/// Lets the pod speak with nobody, or as it did.
fn permit(scene: &mut Scene, permitted: bool) {
    for table in [Scene::INGRESS, Scene::EGRESS] {
        let cell = if permitted { Scene::CELL } else { Cell::DENY };
        scene.cell(table, Scene::PEER, cell);
    }
}

#[test]
fn an_allowed_connection_opens_and_is_answered() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        connect_in(&scene, net);
        let flow = scene.flow(POD, PORT, net.peer, CLIENT).expect("a flow");
        assert_eq!((flow.flags, flow.port), (Flow::INGRESS, PORT));
    }
    let count = |map: &aya::maps::HashMap<_, _, _>| map.keys().count();
    let maps = &scene.rig.maps;
    assert_eq!(count(&maps.flows_stream), 2);
}

#[test]
fn a_connection_of_the_pods_own_is_answered() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        connect_out(&scene, net);
        let flow = scene.flow(POD, CLIENT, net.peer, PORT).expect("a flow");
        assert_eq!((flow.flags, flow.port), (Flow::EGRESS, PORT));
    }
}

#[test]
fn what_policy_denies_is_dropped_and_opens_nothing() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let denied = [
            (net.stranger, PORT),
            (net.peer, PORT + 1),
            (net.outside, PORT - 1),
            (net.peer, PORT + 256),
        ];
        for (peer, port) in denied {
            for flags in [SYN, ACK, SYN_ACK, Tcp::RST, 0, 0xff] {
                assert_eq!(
                    scene.to_pod(&tcp(peer, net.pod, (CLIENT, port), flags)),
                    Drop
                );
                assert_eq!(
                    scene.dropped(),
                    Some((POD, Direction::Ingress, Reason::Policy))
                );
                assert_eq!(
                    scene.from_pod(&tcp(net.pod, peer, (CLIENT, port), flags)),
                    Drop
                );
                assert_eq!(
                    scene.dropped(),
                    Some((POD, Direction::Egress, Reason::Policy))
                );
            }
            assert_eq!(scene.to_pod(&udp(peer, net.pod, (CLIENT, port))), Drop);
            assert_eq!(scene.from_pod(&udp(net.pod, peer, (CLIENT, port))), Drop);
        }
    }
    assert_eq!(scene.flows(), []);
}

#[test]
fn an_address_without_an_entry_has_the_class_of_the_longest_block_around_it() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for (net, inner) in [(Net::V4, "203.0.113.5/32"), (Net::V6, "fd00:0:0:203::/120")] {
        let packet = tcp(net.outside, net.pod, (CLIENT, PORT), SYN);
        assert_eq!(scene.to_pod(&packet), Pass);
        scene.block(inner.parse().unwrap(), 77);
        assert_eq!(scene.to_pod(&packet), Drop);
    }
}

#[test]
fn only_the_flow_itself_is_answered() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        connect_in(&scene, net);
        assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (CLIENT, PORT))), Pass);
        let not_the_flow = [
            (net.peer, PORT + 1, CLIENT),
            (net.peer, PORT, CLIENT + 1),
            (net.stranger, PORT, CLIENT),
        ];
        for (peer, own, other) in not_the_flow {
            for flags in [ACK, SYN_ACK] {
                assert_eq!(
                    scene.from_pod(&tcp(net.pod, peer, (own, other), flags)),
                    Drop
                );
                assert_eq!(
                    scene.dropped(),
                    Some((POD, Direction::Egress, Reason::Policy))
                );
            }
            assert_eq!(scene.from_pod(&udp(net.pod, peer, (own, other))), Drop);
        }
        assert_eq!(
            scene.from_pod(&udp(net.pod, net.peer, (PORT, CLIENT))),
            Pass
        );
    }
}

#[test]
fn a_segment_that_opens_is_judged_as_new_whatever_was_there() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        permit(&mut scene, true);
        connect_in(&scene, net);
        permit(&mut scene, false);
        // The revision has not moved: the flow itself goes on.
        assert_eq!(
            scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), ACK)),
            Pass
        );
        assert_eq!(
            scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), SYN)),
            Drop
        );
        // Nor may the pod open one of its own under that key.
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.peer, (PORT, CLIENT), SYN)),
            Drop
        );
    }
}

#[test]
fn the_answer_to_an_opening_segment_belongs_to_the_newest_flow() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        permit(&mut scene, true);
        connect_in(&scene, net);
        permit(&mut scene, false);
        scene.revise();
        let [_, answer] = turns(net, true);
        assert_eq!(scene.from_pod(&answer), Drop);
        permit(&mut scene, true);
        // No revision moves: only a new connection is allowed now.
        assert_eq!(scene.from_pod(&answer), Drop);
        connect_in(&scene, net);
        assert_eq!(scene.from_pod(&answer), Pass);
    }
}

#[test]
fn withdrawn_permission_cuts_connections_at_the_next_packet_of_either_end() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for inbound in [true, false] {
            for first in [0, 1] {
                permit(&mut scene, true);
                scene.forget();
                if inbound {
                    connect_in(&scene, net);
                } else {
                    connect_out(&scene, net);
                }
                permit(&mut scene, false);
                scene.revise();
                let opened = if inbound {
                    Direction::Ingress
                } else {
                    Direction::Egress
                };
                let turns = turns(net, inbound);
                for turn in [first, 1 - first] {
                    assert_eq!(send(&scene, turn, &turns), Drop, "{net:?} {inbound} {turn}");
                    assert_eq!(scene.dropped(), Some((POD, opened, Reason::Revoked)));
                }
                permit(&mut scene, true);
                scene.revise();
                for turn in [first, 1 - first] {
                    assert_eq!(send(&scene, turn, &turns), Pass);
                }
            }
        }
    }
}

#[test]
fn a_revision_alone_changes_no_verdict() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        connect_in(&scene, net);
        for turn in [0, 1, 0] {
            scene.revise();
            assert_eq!(send(&scene, turn, &turns(net, true)), Pass);
        }
    }
}

#[test]
fn only_the_direction_that_opened_a_connection_is_judged_again() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        connect_in(&scene, net);
        scene.cell(Scene::EGRESS, Scene::PEER, Cell::DENY);
        scene.revise();
        for turn in [0, 1] {
            assert_eq!(send(&scene, turn, &turns(net, true)), Pass);
        }
        scene.cell(Scene::EGRESS, Scene::PEER, Scene::CELL);
    }
}

#[test]
fn who_comes_from_the_pods_own_address_is_judged_again_as_anybody() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        scene.tables(POD, ALLOW_ALL, Scene::EGRESS);
        let forged = |flags| tcp(net.pod, net.pod, (CLIENT, 9), flags);
        assert_eq!(scene.to_pod(&forged(SYN)), Pass);
        scene.tables(POD, Scene::INGRESS, Scene::EGRESS);
        scene.revise();
        assert_eq!(scene.to_pod(&forged(ACK)), Drop);
        // The pod itself goes on reaching itself.
        let own = |flags| tcp(net.pod, net.pod, (CLIENT, 10), flags);
        assert_eq!(scene.from_pod(&own(SYN)), Pass);
        scene.revise();
        assert_eq!(scene.from_pod(&own(ACK)), Pass);
    }
}

#[test]
fn kept_connections_outlive_their_permission() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.flag(Config::KEEP_CONNECTIONS, true);
    for net in Net::BOTH {
        for inbound in [true, false] {
            permit(&mut scene, true);
            if inbound {
                connect_in(&scene, net);
            } else {
                connect_out(&scene, net);
            }
            permit(&mut scene, false);
            scene.revise();
            for turn in [1, 0] {
                assert_eq!(send(&scene, turn, &turns(net, inbound)), Pass);
            }
            assert_eq!(
                scene.to_pod(&tcp(net.peer, net.pod, (CLIENT + 1, PORT), SYN)),
                Drop
            );
            scene.forget();
        }
    }
}

#[test]
fn datagrams_of_a_revoked_flow_are_judged_as_new() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        permit(&mut scene, true);
        let there = udp(net.peer, net.pod, (CLIENT, PORT));
        let back = udp(net.pod, net.peer, (PORT, CLIENT));
        assert_eq!((scene.to_pod(&there), scene.from_pod(&back)), (Pass, Pass));
        permit(&mut scene, false);
        scene.revise();
        assert_eq!((scene.from_pod(&back), scene.to_pod(&there)), (Drop, Drop));
        assert_eq!(scene.flows(), []);
        permit(&mut scene, true);
        scene.revise();
        assert_eq!((scene.from_pod(&back), scene.to_pod(&there)), (Drop, Pass));
        assert_eq!(scene.from_pod(&back), Pass);
        scene.forget();
    }
}

#[test]
fn an_answered_flow_moves_to_the_table_of_its_kind() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.cell(Scene::INGRESS, Scene::PEER, Cell::ALLOW);
    let sctp = |from, to, ports: (u16, u16)| {
        Ip::new(from, to).sctp(&Sctp::opening(Sctp::INIT, ports.0, ports.1, 0, 1))
    };
    for net in Net::BOTH {
        let echo = if net.pod.is_ipv4() {
            protocol::ICMP
        } else {
            protocol::ICMPV6
        };
        let there = |protocol: u8| {
            let ip = Ip::new(net.peer, net.pod);
            match protocol {
                protocol::TCP => tcp(net.peer, net.pod, (CLIENT, PORT), SYN),
                protocol::UDP => udp(net.peer, net.pod, (CLIENT, PORT)),
                protocol::SCTP => sctp(net.peer, net.pod, (CLIENT, PORT)),
                47 => ip.carry(47, &[0; 30]),
                _ => ip.echo_request(9, 1, b"data"),
            }
        };
        let back = |protocol: u8| {
            let ip = Ip::new(net.pod, net.peer);
            match protocol {
                protocol::TCP => tcp(net.pod, net.peer, (PORT, CLIENT), SYN_ACK),
                protocol::UDP => udp(net.pod, net.peer, (PORT, CLIENT)),
                protocol::SCTP => sctp(net.pod, net.peer, (PORT, CLIENT)),
                47 => ip.carry(47, &[0; 30]),
                _ => ip.echo_reply(9, 1, b"data"),
            }
        };
        for protocol in [protocol::TCP, protocol::SCTP, protocol::UDP, echo, 47] {
            let tables = |scene: &Scene| {
                let maps = &scene.rig.maps;
                [&maps.flows_new, &maps.flows_stream, &maps.flows_datagram]
                    .map(|map| map.keys().count())
            };
            assert_eq!(scene.to_pod(&there(protocol)), Pass, "{protocol}");
            assert_eq!(tables(&scene), [1, 0, 0], "{protocol}");
            // Not by repetition.
            assert_eq!(scene.to_pod(&there(protocol)), Pass);
            assert_eq!(tables(&scene), [1, 0, 0], "{protocol}");
            assert_eq!(scene.from_pod(&back(protocol)), Pass, "{protocol}");
            let stream = [protocol::TCP, protocol::SCTP].contains(&protocol);
            let [_, streams, datagrams] = tables(&scene);
            let home = if stream { (1, 0) } else { (0, 1) };
            assert_eq!((streams, datagrams), home, "{protocol}");
            scene.forget();
        }
    }
}

/// A flow's name, the seconds for which it lives without a packet, the packets that make it, and one of it.
type Case<'a> = (&'a str, u32, &'a [&'a [u8]], &'a [u8]);

#[test]
fn a_flow_without_packets_ends_after_its_lifetime() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let syn = tcp(net.peer, net.pod, (CLIENT, PORT), SYN);
        let [ack, _] = turns(net, true);
        let answer = tcp(net.pod, net.peer, (PORT, CLIENT), SYN_ACK);
        let fin = tcp(net.pod, net.peer, (PORT, CLIENT), Tcp::FIN | ACK);
        let rst = tcp(net.pod, net.peer, (PORT, CLIENT), Tcp::RST | ACK);
        let asked = udp(net.peer, net.pod, (CLIENT, PORT));
        let told = udp(net.pod, net.peer, (PORT, CLIENT));
        let init = Sctp::opening(Sctp::INIT, CLIENT, PORT, 0, 1);
        let init = Ip::new(net.peer, net.pod).sctp(&init);
        let init_ack = Sctp::opening(Sctp::INIT_ACK, PORT, CLIENT, 0, 1);
        let init_ack = Ip::new(net.pod, net.peer).sctp(&init_ack);
        let cases: [Case<'_>; 8] = [
            ("unanswered SYN", 120, &[&syn], &ack),
            ("connection", 432_000, &[&syn, &answer], &ack),
            ("closing", 120, &[&syn, &answer, &fin], &ack),
            ("reset", 10, &[&syn, &answer, &rst], &ack),
            ("unanswered datagram", 30, &[&asked], &asked),
            ("datagrams", 180, &[&asked, &told], &asked),
            ("unanswered association", 30, &[&init], &init),
            ("association", 432_000, &[&init, &init_ack], &init),
        ];
        for (name, lifetime, before, next) in cases {
            for (age, expected) in [(lifetime - 2, Pass), (lifetime + 2, Drop)] {
                permit(&mut scene, true);
                for (number, packet) in before.iter().enumerate() {
                    let verdict = if number == 0 {
                        scene.to_pod(packet)
                    } else {
                        scene.from_pod(packet)
                    };
                    assert_eq!(verdict, Pass, "{name}");
                }
                permit(&mut scene, false);
                scene.age(age);
                assert_eq!(scene.to_pod(next), expected, "{name} after {age} s");
                scene.forget();
            }
        }
    }
}

#[test]
fn packets_keep_a_flow_alive() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let there = udp(net.peer, net.pod, (CLIENT, PORT));
        let back = udp(net.pod, net.peer, (PORT, CLIENT));
        permit(&mut scene, true);
        assert_eq!((scene.to_pod(&there), scene.from_pod(&back)), (Pass, Pass));
        permit(&mut scene, false);
        for _ in 0..4 {
            scene.age(150);
            assert_eq!(scene.to_pod(&there), Pass);
        }
        scene.age(200);
        assert_eq!(scene.to_pod(&there), Drop);
    }
}

#[test]
fn a_pending_flow_passes_nothing_until_its_exit_confirms_it() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for protocol in [protocol::TCP, protocol::UDP] {
            let send = |from: IpAddr, to, ports, flags| match protocol {
                protocol::TCP => tcp(from, to, ports, flags),
                _ => udp(from, to, ports),
            };
            scene.forget();
            let asked = send(net.pod, net.service, (CLIENT, PORT), SYN);
            let answered = send(net.service, net.pod, (PORT, CLIENT), SYN_ACK);
            assert_eq!(scene.from_pod(&asked), Pass);
            let flow = scene.flow(POD, CLIENT, net.service, PORT).expect("a flow");
            assert_eq!(flow.flags, Flow::EGRESS | Flow::PENDING);
            assert_eq!(scene.to_pod(&answered), Drop);
            let cookie = scene.cookie(POD, protocol, CLIENT, net.service, PORT);
            let mark = (POD, State::Undecided, cookie);
            // Translated to where policy does not allow it to go.
            let astray = send(net.pod, net.stranger, (CLIENT, PORT), SYN);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &astray),
                Drop
            );
            assert_eq!(scene.to_pod(&answered), Drop);
            // To where it does; the port is another, and so is the source.
            let backend = send(net.node, net.peer, (61_000, PORT), SYN);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &backend),
                Pass
            );
            assert_eq!(scene.to_pod(&answered), Pass);
            // Later packets go to the confirmed backend and nowhere else.
            let next = send(net.pod, net.service, (CLIENT, PORT), ACK);
            assert_eq!(scene.from_pod(&next), Pass);
            let cookie = scene.cookie(POD, protocol, CLIENT, net.peer, PORT);
            let mark = (POD, State::Expected, cookie);
            let backend = send(net.pod, net.peer, (CLIENT, PORT), ACK);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &backend),
                Pass
            );
            let astray = send(net.pod, net.stranger, (CLIENT, PORT), ACK);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &astray),
                Drop
            );
            assert_eq!(
                scene.dropped(),
                Some((POD, Direction::Egress, Reason::Policy))
            );
        }
        scene.forget();
    }
}

#[test]
fn a_flow_to_a_service_is_judged_again_on_its_backend() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        permit(&mut scene, true);
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.service, (CLIENT, 443), SYN)),
            Pass
        );
        let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.service, 443);
        let backend = tcp(net.pod, net.peer, (CLIENT, PORT), SYN);
        let mark = (POD, State::Undecided, cookie);
        assert_eq!(
            scene.marked(Program::ToWire, scene.uplink, mark, &backend),
            Pass
        );
        let answer = tcp(net.service, net.pod, (443, CLIENT), SYN_ACK);
        let next = tcp(net.pod, net.service, (CLIENT, 443), ACK);
        assert_eq!((scene.to_pod(&answer), scene.from_pod(&next)), (Pass, Pass));
        scene.revise();
        assert_eq!(scene.from_pod(&next), Pass);
        permit(&mut scene, false);
        scene.revise();
        assert_eq!(scene.from_pod(&next), Drop);
        let answer = tcp(net.service, net.pod, (443, CLIENT), ACK);
        assert_eq!(scene.to_pod(&answer), Drop);
        // Both are told of as the way to the backend.
        let events = scene.rig.events();
        assert_eq!(events.len(), 2);
        for event in events {
            assert_eq!(event.direction, Direction::Egress as u8);
            assert_eq!(event.reason, Reason::Revoked as u8);
            assert_eq!(event.source, address(net.pod));
            assert_eq!(event.destination, address(net.peer));
            assert_eq!(event.peer, address(net.peer));
            assert_eq!((event.source_port, event.destination_port), (CLIENT, PORT));
        }
    }
}

fn send(scene: &Scene, turn: usize, turns: &[Vec<u8>; 2]) -> palisade_common::verdict::Verdict {
    if turn == 0 {
        scene.to_pod(&turns[0])
    } else {
        scene.from_pod(&turns[1])
    }
}
