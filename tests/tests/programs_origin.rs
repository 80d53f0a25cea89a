//! Whose packet it is: the node's, another pod's, one from outside; and what of that is believed.

use palisade_common::{
    mark::State,
    protocol,
    value::{ALLOW_ALL, Cell, Config, Flow, Interface},
    verdict::{
        Direction, Reason,
        Verdict::{Drop, Pass},
    },
};
use palisade_tests::{
    packet::{Ip, Tcp, arp_request, ethernet, frame},
    rig::{At, Net, POD, Program, Scene, tcp, udp},
    skip_without_root,
};

const SYN: u8 = Tcp::SYN;
const ACK: u8 = Tcp::ACK;
const SYN_ACK: u8 = Tcp::SYN | Tcp::ACK;
const CLIENT: u16 = 4000;
const PORT: u16 = Scene::PORT;
const NEIGHBOUR: u16 = Scene::NEIGHBOUR;

#[test]
fn what_the_node_sends_always_passes_and_is_answered() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        // By an address of its own or any other: what counts is who made it.
        for from in [net.node, net.stranger] {
            assert_eq!(scene.from_node(&tcp(from, net.pod, (CLIENT, 9), SYN)), Pass);
            assert_eq!(
                scene.from_pod(&tcp(net.pod, from, (9, CLIENT), SYN_ACK)),
                Pass
            );
            assert_eq!(scene.from_node(&tcp(from, net.pod, (CLIENT, 9), ACK)), Pass);
            assert_eq!(scene.from_node(&udp(from, net.pod, (CLIENT, 9))), Pass);
            assert_eq!(scene.from_pod(&udp(net.pod, from, (9, CLIENT))), Pass);
        }
    }
}

#[test]
fn a_node_address_alone_makes_no_packet_the_nodes() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let syn = tcp(net.node, net.pod, (CLIENT, 9), SYN);
        assert_eq!(scene.to_pod(&syn), Drop);
        assert_eq!(scene.to_pod(&udp(net.node, net.pod, (CLIENT, 9))), Drop);
        // Nor does a flow that the node has.
        assert_eq!(scene.from_node(&syn), Pass);
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.node, (9, CLIENT), SYN_ACK)),
            Pass
        );
        let ack = tcp(net.node, net.pod, (CLIENT, 9), ACK);
        assert_eq!(scene.to_pod(&ack), Drop);
        assert_eq!(scene.from_node(&ack), Pass);
        let other = scene.at(Program::ToPod, scene.pod, scene.neighbour, &ack);
        assert_eq!(other, Drop);
    }
}

#[test]
fn what_the_pod_asks_of_its_node_is_answered_by_the_node_alone() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.node, (CLIENT, 22), SYN)),
            Pass
        );
        let answer = tcp(net.node, net.pod, (22, CLIENT), SYN_ACK);
        assert_eq!(scene.to_pod(&answer), Drop);
        assert_eq!(scene.from_node(&answer), Pass);
        let flow = scene.flow(POD, CLIENT, net.node, 22).expect("a flow");
        assert_eq!(flow.flags, Flow::NODE | Flow::EGRESS);
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.node, (CLIENT, 22), ACK)),
            Pass
        );
    }
}

#[test]
fn flows_with_the_node_outlive_every_revision() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        assert_eq!(
            scene.from_node(&tcp(net.node, net.pod, (CLIENT, 9), SYN)),
            Pass
        );
        scene.revise();
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.node, (9, CLIENT), SYN_ACK)),
            Pass
        );
        scene.revise();
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.node, (9, CLIENT), ACK)),
            Pass
        );
    }
}

#[test]
fn a_source_that_is_not_the_pods_is_dropped_even_without_policy() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for (ingress, egress) in [(Scene::INGRESS, Scene::EGRESS), (ALLOW_ALL, ALLOW_ALL)] {
        scene.tables(POD, ingress, egress);
        for net in Net::BOTH {
            for source in [net.neighbour, net.peer, net.node, net.stranger, net.service] {
                for packet in [
                    tcp(source, net.peer, (CLIENT, PORT), SYN),
                    udp(source, net.peer, (CLIENT, PORT)),
                    Ip::new(source, net.peer).echo_request(1, 1, b""),
                    Ip::new(source, net.peer).carry(47, &[0; 20]),
                ] {
                    assert_eq!(scene.from_pod(&packet), Drop);
                    assert_eq!(
                        scene.dropped(),
                        Some((POD, Direction::Egress, Reason::Spoofed))
                    );
                }
            }
            let own = tcp(net.pod, net.peer, (CLIENT, PORT), SYN);
            assert_eq!(scene.from_pod(&own), Pass);
        }
    }
}

#[test]
fn a_pod_without_an_address_of_a_family_sends_nothing_of_it() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let slot = scene.slot(POD);
    for net in Net::BOTH {
        let mut without = slot;
        if net.pod.is_ipv4() {
            without.v4 = 0;
        } else {
            without.v6 = [0; 4];
        }
        scene.set_slot(POD, without);
        let zero = if net.pod.is_ipv4() { "0.0.0.0" } else { "::" };
        for source in [net.pod, zero.parse().unwrap()] {
            let packet = tcp(source, net.peer, (CLIENT, PORT), SYN);
            assert_eq!(scene.from_pod(&packet), Drop);
            assert_eq!(
                scene.dropped(),
                Some((POD, Direction::Egress, Reason::Spoofed))
            );
        }
    }
}

#[test]
fn link_local_sources_are_judged_like_the_pods_own() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    let local = "fe80::1234".parse().unwrap();
    let peer = Net::V6.peer;
    assert_eq!(scene.from_pod(&tcp(local, peer, (CLIENT, PORT), SYN)), Pass);
    assert_eq!(scene.from_pod(&tcp(local, peer, (CLIENT, 9), SYN)), Drop);
    // fec0::/10 is something else (RFC 3879).
    let site = "fec0::1234".parse().unwrap();
    assert_eq!(scene.from_pod(&tcp(site, peer, (CLIENT, PORT), SYN)), Drop);
}

#[test]
fn without_spoof_protection_a_strange_source_is_judged_as_the_pods() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.flag(Config::SPOOF_PROTECTION, false);
    for net in Net::BOTH {
        assert_eq!(
            scene.from_pod(&tcp(net.stranger, net.peer, (CLIENT, PORT), SYN)),
            Pass
        );
        assert_eq!(
            scene.from_pod(&tcp(net.stranger, net.peer, (CLIENT, 9), SYN)),
            Drop
        );
    }
}

/// Sends what the neighbour has made to the pod, as marked.
fn from_neighbour(scene: &Scene, state: State, packet: &[u8], cookie: u32) -> bool {
    let mark = (NEIGHBOUR, state, cookie);
    scene.marked(Program::ToPod, scene.pod, mark, packet) == Pass
}

#[test]
fn a_packet_between_pods_of_the_node_passes_if_both_allow() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let number = 60;
    scene.default_cell(number, Cell::DENY);
    for net in Net::BOTH {
        let cookie = scene.cookie(NEIGHBOUR, protocol::TCP, CLIENT, net.pod, PORT);
        let packet = tcp(net.neighbour, net.pod, (CLIENT, PORT), SYN);
        let send = |scene: &Scene| {
            let sent = scene.at(Program::FromPod, scene.neighbour, 0, &packet);
            (sent, from_neighbour(scene, State::Opening, &packet, cookie))
        };
        scene.tables(NEIGHBOUR, ALLOW_ALL, ALLOW_ALL);
        scene.cell(Scene::INGRESS, Scene::LOCAL, Cell::DENY);
        assert_eq!(send(&scene), (Pass, false));
        assert_eq!(
            scene.dropped(),
            Some((POD, Direction::Ingress, Reason::Policy))
        );
        // Nothing of it is answered: what the sender has opened waits.
        let answer = tcp(net.pod, net.neighbour, (PORT, CLIENT), SYN_ACK);
        assert_eq!(scene.from_pod(&answer), Drop);
        let flow = scene
            .flow(NEIGHBOUR, CLIENT, net.pod, PORT)
            .expect("a flow");
        assert_eq!(flow.flags, Flow::EGRESS | Flow::PENDING | Flow::LOCAL);

        scene.cell(Scene::INGRESS, Scene::LOCAL, Scene::CELL);
        assert_eq!(send(&scene), (Pass, true));
        let flow = scene
            .flow(NEIGHBOUR, CLIENT, net.pod, PORT)
            .expect("a flow");
        assert_eq!(flow.flags, Flow::EGRESS | Flow::LOCAL);
        let flow = scene
            .flow(POD, PORT, net.neighbour, CLIENT)
            .expect("a flow");
        assert_eq!(flow.flags, Flow::INGRESS | Flow::LOCAL);
        assert_eq!(scene.from_pod(&answer), Pass);
        let mark = (POD, State::Reply, 0);
        let back = scene.marked(Program::ToPod, scene.neighbour, mark, &answer);
        assert_eq!(back, Pass);

        scene.tables(NEIGHBOUR, ALLOW_ALL, number);
        assert_eq!(send(&scene).0, Drop);
        assert_eq!(
            scene.dropped(),
            Some((NEIGHBOUR, Direction::Egress, Reason::Policy))
        );
        scene.forget();
    }
}

#[test]
fn a_sender_is_known_by_its_device_where_its_mark_was_lost() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.cell(Scene::INGRESS, Scene::LOCAL, Scene::CELL);
    for net in Net::BOTH {
        // Masqueraded: it is still the neighbour that policy speaks of.
        for source in [net.neighbour, net.node, net.stranger] {
            let packet = tcp(source, net.pod, (CLIENT, PORT), SYN);
            assert_eq!(
                scene.at(Program::ToPod, scene.pod, scene.neighbour, &packet),
                Pass
            );
        }
        for source in [net.node, net.stranger] {
            let packet = tcp(source, net.pod, (CLIENT, PORT), SYN);
            assert_eq!(scene.to_pod(&packet), Drop);
        }
        // Its own egress is asked as well.
        scene.default_cell(60, Cell::DENY);
        scene.tables(NEIGHBOUR, ALLOW_ALL, 60);
        let packet = tcp(net.neighbour, net.pod, (CLIENT + 1, PORT), SYN);
        assert_eq!(
            scene.at(Program::ToPod, scene.pod, scene.neighbour, &packet),
            Drop
        );
        assert_eq!(
            scene.dropped(),
            Some((NEIGHBOUR, Direction::Egress, Reason::Policy))
        );
        scene.tables(NEIGHBOUR, ALLOW_ALL, ALLOW_ALL);
    }
}

#[test]
fn a_masqueraded_neighbour_is_judged_as_the_neighbour() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.cell(Scene::INGRESS, Scene::LOCAL, Cell::DENY);
    for net in Net::BOTH {
        for source in [net.node, net.peer] {
            let packet = tcp(source, net.pod, (CLIENT, PORT), SYN);
            let cookie = scene.cookie(NEIGHBOUR, protocol::TCP, CLIENT, net.service, PORT);
            assert!(!from_neighbour(&scene, State::Undecided, &packet, cookie));
            assert_eq!(
                scene.dropped(),
                Some((POD, Direction::Ingress, Reason::Policy))
            );
        }
    }
}

#[test]
fn behind_a_bridge_the_source_tells_the_sender_where_its_mark_was_lost() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.bridge();
    scene.cell(Scene::INGRESS, Scene::LOCAL, Scene::CELL);
    scene.default_cell(60, Cell::DENY);
    for net in Net::BOTH {
        let packet = tcp(net.neighbour, net.pod, (CLIENT, PORT), SYN);
        let by_bridge =
            |scene: &Scene, packet: &[u8]| scene.at(Program::ToPod, scene.pod, scene.above, packet);
        scene.tables(NEIGHBOUR, ALLOW_ALL, ALLOW_ALL);
        assert_eq!(by_bridge(&scene, &packet), Pass);
        scene.tables(NEIGHBOUR, ALLOW_ALL, 60);
        let packet = tcp(net.neighbour, net.pod, (CLIENT + 1, PORT), SYN);
        assert_eq!(by_bridge(&scene, &packet), Drop);
        assert_eq!(
            scene.dropped(),
            Some((NEIGHBOUR, Direction::Egress, Reason::Policy))
        );
        // Whom the bridge carries from elsewhere is judged by the address.
        let packet = tcp(net.peer, net.pod, (CLIENT, PORT), SYN);
        assert_eq!(by_bridge(&scene, &packet), Pass);
        let packet = tcp(net.stranger, net.pod, (CLIENT, PORT), SYN);
        assert_eq!(by_bridge(&scene, &packet), Drop);
    }
}

#[test]
fn behind_a_bridge_the_cookie_of_a_waiting_flow_tells_a_masqueraded_sender() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.bridge();
    scene.cell(Scene::INGRESS, Scene::LOCAL, Scene::CELL);
    for net in Net::BOTH {
        let asked = tcp(net.neighbour, net.service, (CLIENT, PORT), SYN);
        assert_eq!(scene.at(Program::FromPod, scene.neighbour, 0, &asked), Pass);
        let hash = scene.cookie(NEIGHBOUR, protocol::TCP, CLIENT, net.service, PORT);
        let packet = tcp(net.node, net.pod, (61_000, PORT), SYN);
        let frame = ethernet([2; 6], [4; 6], &packet);
        let mut at = At {
            ifindex: scene.pod,
            ingress_ifindex: scene.above,
            tc_index: 0,
            hash,
        };
        assert_eq!(scene.rig.run(Program::ToPod, &frame, at), Pass);
        at.hash ^= 1;
        let packet = tcp(net.node, net.pod, (61_001, PORT), SYN);
        let frame = ethernet([2; 6], [4; 6], &packet);
        assert_eq!(scene.rig.run(Program::ToPod, &frame, at), Drop);
    }
}

#[test]
fn a_mark_is_believed_only_from_its_slots_own_device() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.cell(Scene::INGRESS, Scene::LOCAL, Scene::CELL);
    for net in Net::BOTH {
        for number in [POD, NEIGHBOUR, 9, 4095] {
            for state in 0..16_u16 {
                let at = At {
                    ifindex: scene.pod,
                    ingress_ifindex: scene.uplink,
                    tc_index: number << 4 | state,
                    hash: scene.cookie(number, protocol::TCP, CLIENT, net.pod, PORT),
                };
                let packet = tcp(net.stranger, net.pod, (CLIENT, PORT), SYN);
                let frame = ethernet([2; 6], [4; 6], &packet);
                assert_eq!(
                    scene.rig.run(Program::ToPod, &frame, at),
                    Drop,
                    "{number} {state}"
                );
                // And it makes nothing the node's.
                let packet = tcp(net.node, net.pod, (CLIENT, PORT), ACK);
                let frame = ethernet([2; 6], [4; 6], &packet);
                assert_eq!(
                    scene.rig.run(Program::ToPod, &frame, at),
                    Drop,
                    "{number} {state}"
                );
            }
        }
    }
}

#[test]
fn a_pod_reaches_itself() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let packet = tcp(net.pod, net.pod, (CLIENT, 9), SYN);
        assert_eq!(scene.from_pod(&packet), Pass);
        let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.pod, 9);
        let mark = (POD, State::Expected, cookie);
        assert_eq!(scene.marked(Program::ToPod, scene.pod, mark, &packet), Pass);
        // Through a Service its source is the node's.
        let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.service, 9);
        let packet = tcp(net.node, net.pod, (61_000, 9), SYN);
        let mark = (POD, State::Undecided, cookie);
        assert_eq!(scene.marked(Program::ToPod, scene.pod, mark, &packet), Pass);
    }
}

#[test]
fn a_device_that_nothing_is_known_of_passes_nothing() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let unknown = scene.rig.add_device();
    let packet = tcp(Net::V4.pod, Net::V4.peer, (CLIENT, PORT), SYN);
    for (program, direction) in [
        (Program::FromPod, Direction::Egress),
        (Program::ToPod, Direction::Ingress),
    ] {
        assert_eq!(scene.at(program, unknown, scene.uplink, &packet), Drop);
        assert_eq!(scene.dropped(), Some((0, direction, Reason::Unknown)));
        // A free slot denies as well: it has the deny-all tables.
        scene.interface(unknown, 99, 0);
        assert_eq!(scene.at(program, unknown, scene.uplink, &packet), Drop);
        let forgotten = Interface::default();
        scene
            .rig
            .maps
            .interfaces
            .set(unknown, forgotten, 0)
            .unwrap();
        scene.dropped();
    }
}

#[test]
fn neighbour_discovery_passes_whatever_policy_says() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for table in [Scene::INGRESS, Scene::EGRESS] {
        scene.cell(table, Scene::PEER, Cell::DENY);
    }
    let arp = arp_request([2; 6], [10, 0, 0, 7], [10, 0, 0, 1]);
    let Net {
        pod,
        node,
        stranger,
        ..
    } = Net::V6;
    let mac = [2; 6];
    let target = [0xfd; 16];
    let discover =
        |from, to, kind| ethernet(mac, mac, &Ip::new(from, to).neighbour(kind, target, mac));
    let listener = |kind, hops| {
        let mut ip = Ip::new(stranger, pod);
        ip.ttl = hops;
        ethernet(mac, mac, &ip.icmp(kind, 0, [0; 4], &[0; 16]))
    };
    let routed = |kind| listener(kind, 254);
    let both = |scene: &Scene, frame: &[u8]| {
        let ingress = scene.frame(Program::ToPod, scene.pod, scene.uplink, frame);
        (ingress, scene.frame(Program::FromPod, scene.pod, 0, frame))
    };
    assert_eq!(both(&scene, &arp), (Pass, Pass));
    for kind in [135, 136] {
        assert_eq!(both(&scene, &discover(pod, stranger, kind)), (Pass, Pass));
        assert_eq!(both(&scene, &discover(node, pod, kind)), (Pass, Pass));
    }
    for kind in [130, 131, 132, 143] {
        assert_eq!(both(&scene, &listener(kind, 1)), (Pass, Pass), "{kind}");
    }
    // Through a router it is no discovery.
    for kind in [130, 132, 133, 134, 135, 136, 137, 143] {
        assert_eq!(both(&scene, &routed(kind)), (Drop, Drop), "{kind}");
    }
    // Nor is it in another protocol.
    let other = frame(mac, mac, 0x88cc, &[0; 50]);
    assert_eq!(both(&scene, &other), (Drop, Drop));
}

#[test]
fn out_of_the_node_a_pods_packet_goes_where_it_may() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for (to, port, verdict) in [
            (net.peer, PORT, Pass),
            (net.outside, PORT, Pass),
            (net.peer, 9, Drop),
            (net.stranger, PORT, Drop),
        ] {
            let packet = tcp(net.pod, to, (CLIENT, port), SYN);
            let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.service, 443);
            let mark = (POD, State::Undecided, cookie);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &packet),
                verdict
            );
            // Without a mark the device tells whose it is.
            scene.forget();
            assert_eq!(
                scene.at(Program::ToWire, scene.uplink, scene.pod, &packet),
                verdict
            );
            // Whom it was translated to is seen even where it was allowed as addressed.
            let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.peer, PORT);
            let mark = (POD, State::Expected, cookie);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &packet),
                verdict
            );
            scene.forget();
            // Once judged it is judged.
            let at = At {
                ifindex: scene.uplink,
                ingress_ifindex: scene.pod,
                tc_index: State::Judged as u16,
                hash: 0,
            };
            let frame = ethernet([2; 6], [4; 6], &packet);
            assert_eq!(scene.rig.run(Program::ToWire, &frame, at), Pass);
            // Not a pod's at all.
            for ingress in [0, scene.uplink] {
                assert_eq!(
                    scene.at(Program::ToWire, scene.uplink, ingress, &packet),
                    Pass
                );
            }
        }
    }
}

#[test]
fn out_of_the_node_a_bridged_pod_is_known_by_its_address() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.bridge();
    for net in Net::BOTH {
        for (to, verdict) in [(net.peer, Pass), (net.stranger, Drop)] {
            let packet = tcp(net.pod, to, (CLIENT, PORT), SYN);
            assert_eq!(
                scene.at(Program::ToWire, scene.uplink, scene.above, &packet),
                verdict
            );
        }
    }
}

#[test]
fn a_reply_needs_no_permission_of_the_sender() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let packet = tcp(net.pod, net.stranger, (PORT, CLIENT), ACK);
        let mark = (POD, State::Reply, 0);
        assert_eq!(
            scene.marked(Program::ToWire, scene.uplink, mark, &packet),
            Pass
        );
    }
}
