//! Counters and events.

use palisade_common::{
    event::{Event, Outcome},
    family,
    key::FlowKey,
    mark::State,
    protocol,
    value::{ALLOW_ALL, Cell, Config},
    verdict::{
        Direction::{Egress, Ingress},
        Reason,
        Verdict::{Drop, Pass},
    },
};
use palisade_tests::{
    packet::{Ip, Tcp, ethernet, frame},
    rig::{Counted, Net, POD, Program, Scene, address, family_of, tcp, udp},
    skip_without_root,
};

const CLIENT: u16 = 4000;
const PORT: u16 = Scene::PORT;

fn denied(reason: Reason, packets: u64) -> Counted {
    let mut counted = Counted::default();
    counted.denied[reason as usize] = packets;
    counted
}

#[test]
fn an_event_tells_the_packet_that_was_dropped() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        let packet = tcp(net.stranger, net.pod, (CLIENT, 9), Tcp::SYN | Tcp::PSH);
        assert_eq!(scene.to_pod(&packet), Drop);
        let events = scene.rig.events();
        let expected = Event {
            time: events[0].time,
            source: address(net.stranger),
            destination: address(net.pod),
            peer: address(net.stranger),
            source_port: CLIENT,
            destination_port: 9,
            slot: POD,
            reason: Reason::Policy as u8,
            direction: Ingress as u8,
            protocol: protocol::TCP,
            family: family_of(net.pod),
            tcp_flags: Tcp::SYN | Tcp::PSH,
            outcome: Outcome::Denied as u8,
            length: packet.len() as u32 + 14,
        };
        assert_eq!(events, [expected]);
        assert!(expected.time > 0);

        let packet = udp(net.pod, net.stranger, (CLIENT, 9));
        assert_eq!(scene.from_pod(&packet), Drop);
        let events = scene.rig.events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].peer, address(net.stranger));
        assert_eq!(
            (events[0].direction, events[0].protocol),
            (1, protocol::UDP)
        );
    }
}

#[test]
fn a_connection_that_is_cut_is_told_of_as_who_opened_it_would_send() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for answers in [false, true] {
            scene.forget();
            scene.cell(Scene::INGRESS, Scene::PEER, Scene::CELL);
            scene.revise();
            let opening = tcp(net.peer, net.pod, (CLIENT, PORT), Tcp::SYN);
            let answer = tcp(net.pod, net.peer, (PORT, CLIENT), Tcp::SYN | Tcp::ACK);
            assert_eq!(
                (scene.to_pod(&opening), scene.from_pod(&answer)),
                (Pass, Pass)
            );
            scene.cell(Scene::INGRESS, Scene::PEER, Cell::DENY);
            scene.revise();
            let before = scene.counted(POD, Ingress).denied[Reason::Revoked as usize];
            let verdict = if answers {
                scene.from_pod(&tcp(net.pod, net.peer, (PORT, CLIENT), Tcp::ACK))
            } else {
                scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), Tcp::ACK))
            };
            assert_eq!(verdict, Drop);
            let events = scene.rig.events();
            assert_eq!(events.len(), 1, "{events:?}");
            let event = events[0];
            assert_eq!(
                (event.slot, event.direction, event.reason),
                (POD, Ingress as u8, Reason::Revoked as u8)
            );
            assert_eq!(event.source, address(net.peer));
            assert_eq!(event.destination, address(net.pod));
            assert_eq!(event.peer, address(net.peer));
            assert_eq!((event.source_port, event.destination_port), (CLIENT, PORT));
            let after = scene.counted(POD, Ingress).denied[Reason::Revoked as usize];
            assert_eq!(after, before + 1);
        }
    }
}

#[test]
fn every_reason_is_counted_in_its_own_place() {
    if skip_without_root() {
        return;
    }
    let net = Net::V4;
    let mac = [2; 6];
    let packet = tcp(net.peer, net.pod, (CLIENT, PORT), Tcp::SYN);
    let late = Ip::new(net.peer, net.pod).fragments(1, 17, &[0; 64], 32);
    let frames = [
        (
            Reason::Policy,
            ethernet(mac, mac, &tcp(net.peer, net.pod, (CLIENT, 9), Tcp::SYN)),
        ),
        (Reason::Malformed, ethernet(mac, mac, &packet[..30])),
        (Reason::Fragment, ethernet(mac, mac, &late[1])),
        (Reason::NotIp, frame(mac, mac, 0x88b5, &[0; 50])),
    ];
    let mut scene = Scene::new();
    let mut expected = Counted::default();
    for (number, (reason, frame)) in frames.iter().enumerate() {
        for _ in 0..=number {
            let verdict = scene.frame(Program::ToPod, scene.pod, scene.uplink, frame);
            assert_eq!(verdict, Drop);
            assert_eq!(scene.dropped(), Some((POD, Ingress, *reason)));
        }
        expected.denied[*reason as usize] = number as u64 + 1;
        assert_eq!(scene.rig.counted(POD, Ingress), expected);
    }
    assert_eq!(scene.rig.counted(POD, Egress), Counted::default());
    assert_eq!(scene.from_pod(&tcp(net.peer, net.peer, (1, 2), 0)), Drop);
    assert_eq!(scene.rig.counted(POD, Egress), denied(Reason::Spoofed, 1));
    assert_eq!(scene.to_pod(&packet), Pass);
    expected.allowed = 1;
    assert_eq!(scene.rig.counted(POD, Ingress), expected);
}

#[test]
fn what_passes_is_counted_and_not_reported() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    for net in Net::BOTH {
        for _ in 0..3 {
            assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (CLIENT, PORT))), Pass);
            assert_eq!(
                scene.from_pod(&udp(net.pod, net.peer, (PORT, CLIENT))),
                Pass
            );
        }
    }
    for direction in [Ingress, Egress] {
        assert_eq!(scene.rig.counted(POD, direction).allowed, 6);
    }
    assert_eq!(scene.rig.events(), []);
}

#[test]
fn asked_to_it_reports_the_first_packet_of_an_allowed_flow() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.flag(Config::REPORT_ALLOWED, true);
    for net in Net::BOTH {
        for _ in 0..3 {
            assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (CLIENT, PORT))), Pass);
            assert_eq!(
                scene.from_pod(&udp(net.pod, net.peer, (PORT, CLIENT))),
                Pass
            );
        }
        let events = scene.rig.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (events[0].outcome, events[0].direction),
            (Outcome::Allowed as u8, 0)
        );
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.peer, (CLIENT, PORT), Tcp::SYN)),
            Pass
        );
        let events = scene.rig.events();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].outcome, events[0].direction),
            (Outcome::Allowed as u8, 1)
        );
    }
}

#[test]
fn what_the_exit_allows_is_reported_once_with_its_real_destination() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.flag(Config::REPORT_ALLOWED, true);
    for net in Net::BOTH {
        let asked = tcp(net.pod, net.service, (CLIENT, PORT), Tcp::SYN);
        assert_eq!(scene.from_pod(&asked), Pass);
        // Nobody knows yet where it goes.
        assert_eq!(scene.rig.events(), []);
        let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.service, PORT);
        let exit = |scene: &Scene, state, cookie, flags| {
            let packet = tcp(net.pod, net.peer, (CLIENT, PORT), flags);
            scene.marked(Program::ToWire, scene.uplink, (POD, state, cookie), &packet)
        };
        assert_eq!(exit(&scene, State::Undecided, cookie, Tcp::SYN), Pass);
        let told = scene.rig.events();
        let [event] = told.as_slice() else {
            panic!("{told:?}");
        };
        let what = (event.outcome, event.direction, event.slot);
        assert_eq!(what, (Outcome::Allowed as u8, Egress as u8, POD));
        assert_eq!(event.destination, address(net.peer));
        let next = tcp(net.pod, net.service, (CLIENT, PORT), Tcp::ACK);
        assert_eq!(scene.from_pod(&next), Pass);
        let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.peer, PORT);
        assert_eq!(exit(&scene, State::Expected, cookie, Tcp::ACK), Pass);
        assert_eq!(scene.rig.events(), []);
    }
}

#[test]
fn events_of_one_reason_are_limited_and_the_rest_is_counted() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let config = scene.config();
    scene.configure(Config {
        event_rate: 10,
        ..config
    });
    stay_on_this_cpu();
    for net in Net::BOTH {
        let already = scene.rig.counted(POD, Ingress);
        for _ in 0..30 {
            assert_eq!(scene.to_pod(&udp(net.stranger, net.pod, (CLIENT, 9))), Drop);
        }
        assert_eq!(scene.rig.events().len(), 10);
        let counted = scene.rig.counted(POD, Ingress);
        assert_eq!(counted.suppressed - already.suppressed, 20);
        let policy = Reason::Policy as usize;
        assert_eq!(counted.denied[policy] - already.denied[policy], 30);
        // Another direction, and another reason, have budgets of their own.
        assert_eq!(
            scene.from_pod(&udp(net.pod, net.stranger, (CLIENT, 9))),
            Drop
        );
        let spoofed = udp(net.peer, net.stranger, (CLIENT, 9));
        assert_eq!(scene.from_pod(&spoofed), Drop);
        assert_eq!(scene.rig.events().len(), 2);
        std::thread::sleep(std::time::Duration::from_millis(1050));
        assert_eq!(scene.to_pod(&udp(net.stranger, net.pod, (CLIENT, 9))), Drop);
        assert_eq!(scene.rig.events().len(), 1);
        std::thread::sleep(std::time::Duration::from_millis(1050));
    }
}

/// Budgets are each CPU's own.
fn stay_on_this_cpu() {
    let cpu = rustix::thread::sched_getcpu();
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("staying on a CPU");
}

#[test]
fn a_full_ring_costs_events_and_no_verdict() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    let net = Net::V4;
    let packets = 20_000;
    for _ in 0..packets {
        assert_eq!(scene.to_pod(&udp(net.stranger, net.pod, (CLIENT, 9))), Drop);
    }
    let counted = scene.rig.counted(POD, Ingress);
    let sent = scene.rig.events().len() as u64;
    assert!(counted.suppressed > 0);
    assert_eq!(sent + counted.suppressed, packets);
}

#[test]
fn an_unisolated_pod_counts_like_any_other() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new();
    scene.tables(POD, ALLOW_ALL, ALLOW_ALL);
    for net in Net::BOTH {
        assert_eq!(scene.to_pod(&udp(net.stranger, net.pod, (CLIENT, 9))), Pass);
    }
    assert_eq!(scene.rig.counted(POD, Ingress).allowed, 2);
}

#[test]
fn a_flow_is_keyed_by_the_pods_own_port_first() {
    if skip_without_root() {
        return;
    }
    let scene = Scene::new();
    let net = Net::V4;
    assert_eq!(scene.to_pod(&udp(net.peer, net.pod, (CLIENT, PORT))), Pass);
    let keys: Vec<FlowKey> = scene.flows().into_iter().map(|(key, _)| key).collect();
    let key = FlowKey {
        remote: address(net.peer),
        local_port: PORT,
        remote_port: CLIENT,
        slot: POD,
        protocol: protocol::UDP,
        family: family::V4,
    };
    assert_eq!(keys, [key]);
}
