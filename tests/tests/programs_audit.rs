//! Audit: what passes although policy as a whole would deny it is told, once a flow.

use palisade_common::{
    event::Outcome,
    mark::State,
    protocol,
    value::{ALLOW_ALL, Cell},
    verdict::{
        Direction::{self, Egress, Ingress},
        Reason,
        Verdict::{Drop, Pass},
    },
};
use palisade_tests::{
    packet::Tcp,
    rig::{Net, POD, Program, Scene, address, tcp, udp},
    skip_without_root,
};

const CLIENT: u16 = 4000;
const PORT: u16 = Scene::PORT;
const SYN: u8 = Tcp::SYN;
const ACK: u8 = Tcp::ACK;

/// The pod in audit: nothing is denied, and told of what its policies do not allow.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.tables(POD, ALLOW_ALL, ALLOW_ALL);
    scene.audit(POD, Scene::INGRESS, Scene::EGRESS);
    scene
}

/// What was told since the last call.
fn told(scene: &mut Scene) -> Vec<(Outcome, Direction, Reason)> {
    let events = scene.rig.events().into_iter();
    events
        .map(|event| {
            let outcome = Outcome::from_number(event.outcome).expect("an outcome");
            let direction = if event.direction == 0 {
                Ingress
            } else {
                Egress
            };
            let reason = Reason::from_number(event.reason).expect("a reason");
            (outcome, direction, reason)
        })
        .collect()
}

#[test]
fn what_policy_would_deny_passes_and_is_told_once_a_flow() {
    if skip_without_root() {
        return;
    }
    let mut scene = scene();
    for net in Net::BOTH {
        let before = scene.counted(POD, Ingress).audited;
        let opening = tcp(net.stranger, net.pod, (CLIENT, 9), SYN);
        assert_eq!(scene.to_pod(&opening), Pass);
        let events = scene.rig.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].outcome, Outcome::Audited as u8);
        assert_eq!(
            (events[0].slot, events[0].peer),
            (POD, address(net.stranger))
        );
        for _ in 0..3 {
            let answer = tcp(net.pod, net.stranger, (9, CLIENT), SYN | ACK);
            assert_eq!(scene.from_pod(&answer), Pass);
            assert_eq!(
                scene.to_pod(&tcp(net.stranger, net.pod, (CLIENT, 9), ACK)),
                Pass
            );
        }
        assert_eq!(told(&mut scene), []);
        assert_eq!(scene.counted(POD, Ingress).audited, before + 1);

        let datagram = udp(net.pod, net.stranger, (CLIENT, 9));
        assert_eq!(scene.from_pod(&datagram), Pass);
        assert_eq!(scene.from_pod(&datagram), Pass);
        assert_eq!(
            told(&mut scene),
            [(Outcome::Audited, Egress, Reason::Policy)]
        );
    }
}

#[test]
fn what_policy_allows_is_not_told_in_audit() {
    if skip_without_root() {
        return;
    }
    let mut scene = scene();
    for net in Net::BOTH {
        assert_eq!(
            scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), SYN)),
            Pass
        );
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.outside, (CLIENT, PORT), SYN)),
            Pass
        );
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.pod, (CLIENT, 9), SYN)),
            Pass
        );
        assert_eq!(
            scene.from_node(&tcp(net.node, net.pod, (CLIENT, 9), SYN)),
            Pass
        );
    }
    assert_eq!(told(&mut scene), []);
    // Nor is what no policy selects.
    scene.audit(POD, ALLOW_ALL, 0);
    for net in Net::BOTH {
        assert_eq!(
            scene.to_pod(&tcp(net.stranger, net.pod, (CLIENT, 9), SYN)),
            Pass
        );
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.stranger, (CLIENT, 9), SYN)),
            Pass
        );
    }
    assert_eq!(told(&mut scene), []);
}

#[test]
fn what_other_policies_deny_is_denied_and_not_told_as_audited() {
    if skip_without_root() {
        return;
    }
    // One policy is staged, and would deny the peer too.
    const STAGED: u32 = 9;
    let mut scene = Scene::new();
    scene.default_cell(STAGED, Cell::DENY);
    scene.audit(POD, STAGED, STAGED);
    for net in Net::BOTH {
        assert_eq!(
            scene.to_pod(&tcp(net.stranger, net.pod, (CLIENT, 9), SYN)),
            Drop
        );
        assert_eq!(
            told(&mut scene),
            [(Outcome::Denied, Ingress, Reason::Policy)]
        );
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.stranger, (CLIENT, 9), SYN)),
            Drop
        );
        assert_eq!(
            told(&mut scene),
            [(Outcome::Denied, Egress, Reason::Policy)]
        );
        assert_eq!(
            scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), SYN)),
            Pass
        );
        assert_eq!(
            told(&mut scene),
            [(Outcome::Audited, Ingress, Reason::Policy)]
        );
    }
}

#[test]
fn a_connection_that_policy_would_cut_goes_on_and_is_told() {
    if skip_without_root() {
        return;
    }
    let mut scene = scene();
    for net in Net::BOTH {
        assert_eq!(
            scene.to_pod(&tcp(net.peer, net.pod, (CLIENT, PORT), SYN)),
            Pass
        );
        let answer = tcp(net.pod, net.peer, (PORT, CLIENT), SYN | ACK);
        assert_eq!(scene.from_pod(&answer), Pass);
        scene.cell(Scene::INGRESS, Scene::PEER, Cell::DENY);
        scene.revise();
        let segment = tcp(net.peer, net.pod, (CLIENT, PORT), ACK);
        assert_eq!(scene.to_pod(&segment), Pass);
        assert_eq!(
            told(&mut scene),
            [(Outcome::Audited, Ingress, Reason::Revoked)]
        );
        assert_eq!(scene.to_pod(&segment), Pass);
        assert_eq!(
            scene.from_pod(&tcp(net.pod, net.peer, (PORT, CLIENT), ACK)),
            Pass
        );
        assert_eq!(told(&mut scene), []);
        // What is told is who opened it, whoever speaks first after the change.
        scene.revise();
        let answer = tcp(net.pod, net.peer, (PORT, CLIENT), ACK);
        assert_eq!(scene.from_pod(&answer), Pass);
        let events = scene.rig.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].direction, Ingress as u8);
        assert_eq!(
            (events[0].source, events[0].destination),
            (address(net.peer), address(net.pod))
        );
        assert_eq!(
            (events[0].source_port, events[0].destination_port),
            (CLIENT, PORT)
        );
        scene.cell(Scene::INGRESS, Scene::PEER, Scene::CELL);
        scene.revise();
        assert_eq!(scene.from_pod(&answer), Pass);
        assert_eq!(told(&mut scene), [], "it is allowed again");
    }
}

#[test]
fn behind_a_service_the_backend_is_audited() {
    if skip_without_root() {
        return;
    }
    let mut scene = scene();
    for net in Net::BOTH {
        for (backend, expected) in [
            (net.peer, &[][..]),
            (net.stranger, &[(Outcome::Audited, Egress, Reason::Policy)]),
        ] {
            let addressed = tcp(net.pod, net.service, (CLIENT, 443), SYN);
            assert_eq!(scene.from_pod(&addressed), Pass);
            assert_eq!(told(&mut scene), [], "not before it is known who gets it");
            let cookie = scene.cookie(POD, protocol::TCP, CLIENT, net.service, 443);
            let mark = (POD, State::Undecided, cookie);
            let translated = tcp(net.pod, backend, (CLIENT, PORT), SYN);
            assert_eq!(
                scene.marked(Program::ToWire, scene.uplink, mark, &translated),
                Pass
            );
            assert_eq!(told(&mut scene), expected);
            scene.forget();
        }
    }
}

#[test]
fn what_cannot_be_read_passes_in_audit_and_is_told() {
    if skip_without_root() {
        return;
    }
    let mut scene = scene();
    let cut = &tcp(Net::V4.stranger, Net::V4.pod, (CLIENT, 9), SYN)[..24];
    assert_eq!(scene.to_pod(cut), Pass);
    assert_eq!(
        told(&mut scene),
        [(Outcome::Audited, Ingress, Reason::Malformed)]
    );
    let cut = &tcp(Net::V4.pod, Net::V4.stranger, (CLIENT, 9), SYN)[..24];
    assert_eq!(scene.from_pod(cut), Pass);
    assert_eq!(
        told(&mut scene),
        [(Outcome::Audited, Egress, Reason::Malformed)]
    );
}
