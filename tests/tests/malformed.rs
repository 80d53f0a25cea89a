//! Frames that are cut, lie, or hide: an isolated pod gets none of them, and what random changes make of a
//! frame passes only if a second reading of it, by the RFCs, says that policy allows it.

use std::time::Instant;

use palisade_common::{
    value::ALLOW_ALL,
    verdict::{
        Direction, Reason,
        Verdict::{self, Drop, Pass},
    },
};
use palisade_policy::testing::Rng;
use palisade_tests::{
    packet::{Extension, Fragment, Ip, Sctp, Tcp, frame, tagged},
    rig::{
        Net, POD, Program, Read, Reader, Scene,
        samples::{CLIENT, MAC, allowed, link, seeds},
        tcp,
    },
    skip_without_root,
};

const PORT: u16 = Scene::PORT;

fn to_pod(scene: &Scene, frame: &[u8]) -> Verdict {
    scene.frame(Program::ToPod, scene.pod, scene.uplink, frame)
}

fn from_pod(scene: &Scene, frame: &[u8]) -> Verdict {
    scene.frame(Program::FromPod, scene.pod, 0, frame)
}

/// The shortest frame that a test run takes: since Linux 6.18 not without a whole IP header. What is
/// shorter goes over a wire, in `connections.rs`.
fn shortest(frame: &[u8]) -> usize {
    match [frame[12], frame[13]] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 15,
    }
}

#[test]
fn a_frame_cut_anywhere_never_reaches_an_isolated_pod() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for outward in [false, true] {
            for (number, packet) in allowed(net, outward).iter().enumerate() {
                let run = if outward { from_pod } else { to_pod };
                let whole = link(packet);
                for length in shortest(&whole)..whole.len() {
                    let verdict = run(&scene, &whole[..length]);
                    assert_eq!(verdict, Drop, "packet {number} of {net:?} cut to {length}");
                    let (_, _, reason) = scene.dropped().unwrap();
                    assert_eq!(reason, Reason::Malformed);
                }
                assert_eq!(
                    run(&scene, &whole),
                    Pass,
                    "packet {number} of {net:?}, whole"
                );
                scene.forget();
            }
        }
    }
}

#[test]
fn padding_behind_a_packet_is_no_part_of_it() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        for packet in allowed(net, false) {
            let padded = [link(&packet), vec![0xff; 30]].concat();
            assert_eq!(to_pod(&scene, &padded), Pass);
        }
        // Ports that lie in the padding are none.
        let mut ip = Ip::new(net.peer, net.pod);
        let header = if net.pod.is_ipv4() { 20 } else { 0 };
        for carried in [0, 7, 19] {
            ip.total_length = Some(header + carried);
            let packet = ip.tcp(&Tcp::new(CLIENT, PORT, Tcp::SYN));
            assert_eq!(to_pod(&scene, &link(&packet)), Drop, "{carried}");
        }
    }
}

#[test]
fn a_length_that_lies_is_never_believed() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        for packet in allowed(net, false) {
            let (field, fixed) = if net.pod.is_ipv4() { (2, 0) } else { (4, 40) };
            let carried = packet.len() - fixed;
            for length in [carried + 1, carried + 100, 0xffff, 0, 1, 7] {
                let mut packet = packet.clone();
                packet[field..field + 2].copy_from_slice(&(length as u16).to_be_bytes());
                assert_eq!(to_pod(&scene, &link(&packet)), Drop, "{net:?} {length}");
            }
        }
    }
    let net = Net::V4;
    for packet in allowed(net, false) {
        for words in (0..=4).chain([15]) {
            let mut packet = packet.clone();
            packet[0] = 0x40 | words;
            assert_eq!(
                to_pod(&scene, &link(&packet)),
                Drop,
                "a header of {words} words"
            );
        }
    }
}

#[test]
fn options_move_the_ports() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    let net = Net::V4;
    for words in 1..=10_u8 {
        for (port, verdict) in [(PORT, Pass), (PORT + 1, Drop)] {
            let mut ip = Ip::new(net.peer, net.pod);
            // What looks like the ports of an allowed packet where ports are without options.
            ip.options = [CLIENT.to_be_bytes(), PORT.to_be_bytes()].concat();
            ip.options.resize(usize::from(words) * 4, 1);
            assert_eq!(to_pod(&scene, &link(&ip.udp(CLIENT, port, b"x"))), verdict);
            let segment = Tcp::new(CLIENT, port, Tcp::SYN);
            assert_eq!(to_pod(&scene, &link(&ip.tcp(&segment))), verdict);
        }
    }
}

#[test]
fn a_version_that_contradicts_the_ethertype_is_malformed() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for packet in allowed(net, false) {
            let other = if net.pod.is_ipv4() { 0x86dd } else { 0x0800 };
            // Long enough for either header.
            let padded = [&packet[..], &[0; 20]].concat();
            assert_eq!(to_pod(&scene, &frame(MAC, MAC, other, &padded)), Drop);
            let (_, _, reason) = scene.dropped().unwrap();
            assert_eq!(reason, Reason::Malformed);
            for version in (0..16).filter(|version| *version != packet[0] >> 4) {
                let kind = if net.pod.is_ipv4() { 0x0800 } else { 0x86dd };
                let mut packet = packet.clone();
                packet[0] = version << 4 | packet[0] & 0xf;
                assert_eq!(to_pod(&scene, &frame(MAC, MAC, kind, &packet)), Drop);
            }
        }
    }
}

#[test]
fn tagged_and_foreign_frames_pass_only_where_nothing_isolates() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let packet = tcp(Net::V4.peer, Net::V4.pod, (CLIENT, PORT), Tcp::SYN);
    let mut double = tagged(&link(&packet), 5);
    double[12..14].copy_from_slice(&0x88a8_u16.to_be_bytes());
    let frames = [
        tagged(&link(&packet), 5),
        tagged(&link(&packet), 0),
        double,
        frame(MAC, MAC, 0x8847, &packet),
        frame(MAC, MAC, 0x8863, &packet),
        frame(MAC, MAC, 0x22f0, &packet),
        // IEEE 802.3 with a length.
        frame(MAC, MAC, 40, &packet),
    ];
    for tables in [(Scene::INGRESS, Scene::EGRESS), (ALLOW_ALL, ALLOW_ALL)] {
        scene.tables(POD, tables.0, tables.1);
        let verdict = if tables.0 == ALLOW_ALL { Pass } else { Drop };
        for frame in &frames {
            for (run, direction) in [
                (to_pod as fn(&Scene, &[u8]) -> Verdict, Direction::Ingress),
                (from_pod, Direction::Egress),
            ] {
                assert_eq!(run(&scene, frame), verdict);
                let dropped = (verdict == Drop).then_some((POD, direction, Reason::NotIp));
                assert_eq!(scene.dropped(), dropped);
            }
            // The node's own always pass.
            assert_eq!(scene.frame(Program::ToPod, scene.pod, 0, frame), Pass);
        }
    }
}

#[test]
fn what_cannot_be_read_passes_where_neither_end_is_isolated() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let whole = link(&tcp(net.neighbour, net.pod, (CLIENT, PORT), Tcp::SYN));
        let cut = &whole[..whole.len() - 3];
        let local = |scene: &Scene| scene.frame(Program::ToPod, scene.pod, scene.neighbour, cut);
        for ingress in [Scene::INGRESS, ALLOW_ALL] {
            for egress in [Scene::EGRESS, ALLOW_ALL] {
                scene.tables(POD, ingress, ALLOW_ALL);
                scene.tables(Scene::NEIGHBOUR, ALLOW_ALL, egress);
                let free = ingress == ALLOW_ALL;
                assert_eq!(to_pod(&scene, cut) == Pass, free);
                assert_eq!(local(&scene) == Pass, free && egress == ALLOW_ALL);
                let sent = scene.frame(Program::FromPod, scene.neighbour, 0, cut);
                assert_eq!(sent == Pass, egress == ALLOW_ALL);
                let wired = scene.frame(Program::ToWire, scene.uplink, scene.neighbour, cut);
                assert_eq!(wired == Pass, egress == ALLOW_ALL);
            }
        }
        let late = Ip::new(net.peer, net.pod).fragments(5, 17, &[0; 64], 32);
        assert_eq!(to_pod(&scene, &link(&late[1])), Pass);
    }
}

#[test]
fn a_first_fragment_too_small_for_its_header_is_dropped() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let ip = Ip::new(net.peer, net.pod);
        let segment = ip.tcp_payload(&Tcp {
            data: vec![5; 60],
            ..Tcp::new(CLIENT, PORT, Tcp::SYN)
        });
        for (size, verdict) in [(8, Drop), (16, Drop), (24, Pass)] {
            let pieces = ip.fragments(size, 6, &segment, size as usize);
            assert_eq!(to_pod(&scene, &link(&pieces[0])), verdict, "{size}");
        }
        let association = Sctp::opening(Sctp::INIT, CLIENT, PORT, 0, 1).bytes();
        for (size, verdict) in [(8, Drop), (16, Pass)] {
            let pieces = ip.fragments(size, 132, &association, size as usize);
            assert_eq!(to_pod(&scene, &link(&pieces[0])), verdict, "{size}");
        }
        let datagram = ip.udp_payload(CLIENT, PORT, &[1; 24]);
        let pieces = ip.fragments(90, 17, &datagram, 8);
        for piece in &pieces {
            assert_eq!(to_pod(&scene, &link(piece)), Pass);
        }
    }
}

#[test]
fn a_fragment_that_would_rewrite_the_flags_is_dropped() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    for net in Net::BOTH {
        let mut ip = Ip::new(net.peer, net.pod);
        let segment = ip.tcp_payload(&Tcp {
            data: vec![5; 60],
            ..Tcp::new(CLIENT, PORT, Tcp::ACK)
        });
        let piece = |offset: u16| {
            Some(Fragment {
                id: 8,
                offset,
                more: true,
            })
        };
        ip.fragment = piece(0);
        assert_eq!(to_pod(&scene, &link(&ip.carry(6, &segment[..24]))), Pass);
        ip.fragment = piece(8);
        assert_eq!(to_pod(&scene, &link(&ip.carry(6, &[2; 32]))), Drop);
        ip.fragment = piece(24);
        assert_eq!(to_pod(&scene, &link(&ip.carry(6, &[2; 32]))), Pass);
    }
}

#[test]
fn fragments_in_every_order_pass_only_behind_an_allowed_first() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for net in Net::BOTH {
        for (port, allowed) in [(PORT, true), (PORT + 1, false)] {
            for (number, order) in (0_u32..).zip(orders) {
                let ip = Ip::new(net.peer, net.pod);
                let datagram = ip.udp_payload(CLIENT, port, &[1; 60]);
                let id = u32::from(port) * 10 + number;
                let pieces = ip.fragments(id, 17, &datagram, 24);
                let mut first = false;
                for place in order {
                    first |= place == 0;
                    let expected = if first && allowed { Pass } else { Drop };
                    assert_eq!(to_pod(&scene, &link(&pieces[place])), expected);
                }
            }
        }
    }
}

#[test]
fn a_chain_of_extension_headers_is_walked_to_its_end() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let net = Net::V6;
    let padding = Extension::padding;
    let authentication = |bytes| Extension {
        kind: 51,
        body: vec![0; bytes],
    };
    let routing = |left| Extension {
        kind: 43,
        body: vec![0, left, 0, 0, 0, 0],
    };
    let long = |kind| Extension {
        kind,
        body: vec![0; 8 * 30 - 2],
    };
    let chains: Vec<(Vec<Extension>, bool)> = vec![
        (vec![padding(0)], true),
        (vec![padding(60)], true),
        (vec![padding(0), padding(60), routing(0), padding(60)], true),
        (vec![authentication(22)], true),
        (vec![padding(60), authentication(30), padding(60)], true),
        (vec![padding(135), padding(139), padding(140)], true),
        (vec![long(60)], true),
        (vec![padding(60); 7], true),
        (vec![padding(60); 8], false),
        (vec![padding(60); 20], false),
        (vec![routing(1)], false),
        (vec![padding(0), routing(255)], false),
        // ESP, mobility's neighbours unknown, "no next header": nothing that has ports.
        (vec![padding(50)], false),
        (vec![padding(59)], false),
        (vec![padding(253)], false),
    ];
    for (chain, readable) in chains {
        let kinds: Vec<u8> = chain.iter().map(|extension| extension.kind).collect();
        let mut ip = Ip::new(net.peer, net.pod);
        ip.extensions = chain;
        for (port, policy) in [(PORT, true), (PORT + 1, false)] {
            let packets = [
                ip.tcp(&Tcp::new(CLIENT, port, Tcp::SYN)),
                ip.udp(CLIENT, port, b"data"),
            ];
            for packet in packets {
                let expected = if readable && policy { Pass } else { Drop };
                assert_eq!(to_pod(&scene, &link(&packet)), expected, "{kinds:?} {port}");
                scene.forget();
            }
        }
    }
}

#[test]
fn headers_of_fragments_that_hide_the_protocol_are_not_believed() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    let net = Net::V6;
    let ip = Ip::new(net.peer, net.pod);
    let datagram = ip.udp_payload(CLIENT, PORT, &[9; 64]);
    // A destination header inside the fragmented part.
    let inside = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &datagram].concat();
    let pieces = ip.fragments(3, 60, &inside, 24);
    assert_eq!(to_pod(&scene, &link(&pieces[0])), Pass);
    assert_eq!(to_pod(&scene, &link(&pieces[1])), Drop);
    // A first fragment that ends before its ports.
    let pieces = ip.fragments(4, 60, &inside, 8);
    assert_eq!(to_pod(&scene, &link(&pieces[0])), Drop);
    // A fragment in a fragment.
    let mut nested = ip.clone();
    nested.fragment = Some(Fragment {
        id: 5,
        offset: 0,
        more: true,
    });
    let again = [&[17, 0, 0, 9, 0, 0, 0, 6][..], &datagram].concat();
    assert_eq!(to_pod(&scene, &link(&nested.carry(44, &again))), Drop);
    // A fragment of the whole (RFC 8200 section 4.5) is no fragment.
    let mut atomic = ip.clone();
    atomic.fragment = Some(Fragment {
        id: 6,
        offset: 0,
        more: false,
    });
    assert_eq!(to_pod(&scene, &link(&atomic.carry(17, &datagram))), Pass);
}

/// How many frames each random test sends, if the variable PALISADE_FUZZ_FRAMES says nothing else.
const ROUNDS: usize = 120_000;

/// After how many all begins anew.
const RELOAD: usize = 50_000;

/// A number that a variable may give.
fn asked<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_change_brings_a_frame_to_an_isolated_pod_that_policy_does_not_allow() {
    if skip_without_root() {
        return;
    }
    random(false, 0x5eed_0001);
}

#[test]
fn no_change_brings_a_frame_out_of_an_isolated_pod_that_policy_does_not_allow() {
    if skip_without_root() {
        return;
    }
    random(true, 0x5eed_0002);
}

/// Another seed is tried by PALISADE_FUZZ_SEED.
fn random(outward: bool, seed: u64) {
    let rounds = asked("PALISADE_FUZZ_FRAMES").unwrap_or(ROUNDS);
    let seed = asked("PALISADE_FUZZ_SEED").unwrap_or(seed);
    println!("seed {seed:#x}");
    let begun = Instant::now();
    let mut rng = Rng::new(seed);
    let mut scene = Scene::new();
    let seeds: Vec<Vec<u8>> = Net::BOTH
        .into_iter()
        .flat_map(|net| seeds(net, outward))
        .collect();
    let program = if outward {
        Program::FromPod
    } else {
        Program::ToPod
    };
    let mut reader = Reader::new(program);
    let mut passed = 0;
    for round in 0..rounds {
        if round > 0 && round % RELOAD == 0 {
            // The table of fragments forgets those it has no room for, and the reader none.
            (scene, reader) = (Scene::new(), Reader::new(program));
        }
        if round % 1000 == 0 {
            scene.forget();
        }
        let mut frame = rng.pick(&seeds);
        change(&mut rng, &mut frame);
        if frame.len() < shortest(&frame) {
            continue;
        }
        let run = if outward { from_pod } else { to_pod };
        let verdict = run(&scene, &frame);
        let read = reader.read(&frame).read;
        passed += usize::from(verdict == Pass);
        assert_eq!(
            verdict == Pass,
            read == Read::Allowed,
            "round {round} of seed {seed:#x}: {verdict:?} but {read:?}: {frame:02x?}"
        );
    }
    let rate = rounds as f64 / begun.elapsed().as_secs_f64();
    println!("{passed} of {rounds} passed, {rate:.0} frames a second");
    // Otherwise nothing has been tried.
    assert!(passed > rounds / 50 && passed < rounds / 2);
}

/// Changes a few bytes, mostly of headers; sometimes the length.
fn change(rng: &mut Rng, frame: &mut Vec<u8>) {
    const TELLING: [u8; 16] = [
        0, 1, 4, 6, 17, 20, 43, 44, 51, 58, 60, 80, 0x45, 0x60, 132, 255,
    ];
    for _ in 0..rng.below(5) {
        let most = if rng.percent(80) {
            frame.len().min(80)
        } else {
            frame.len()
        };
        let at = 12 + rng.below(most - 12);
        frame[at] = match rng.below(4) {
            0 => frame[at] ^ (1 << rng.below(8)),
            1 => rng.pick(&TELLING),
            2 => frame[at].wrapping_add(1),
            _ => rng.next_u64() as u8,
        };
    }
    if rng.percent(10) {
        let cut = 12 + rng.below(frame.len() - 12);
        match rng.below(3) {
            0 => frame.truncate(cut.max(15)),
            1 => drop(frame.drain(cut..(cut + 8).min(frame.len()))),
            _ => drop(frame.splice(cut..cut, [0, 0, 0, 0, 0, 0, 0, 0])),
        }
    }
}
