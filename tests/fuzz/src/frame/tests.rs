use palisade_tests::{
    packet::{Ip, Tcp},
    rig::{
        Net,
        samples::{CLIENT, link},
        tcp,
    },
};

use super::*;

const PORT: u16 = Scene::PORT;

#[test]
fn steps_are_read_as_they_are_written() {
    let (one, other) = ([1; 60], [2; 300]);
    let part = Sent {
        linear: 20,
        ..Sent::whole(&other)
    };
    let tagged = Sent {
        tagged: true,
        ..Sent::whole(&one)
    };
    let free = Free {
        ingress: false,
        egress: true,
    };
    let steps = [
        Step::Policy(free),
        Step::ToPod(Sent::whole(&one)),
        Step::ToPod(tagged),
        Step::Wait(7),
        Step::FromPod(part.clone(), Some(part)),
        Step::FromPod(Sent::whole(&one), Some(Sent::whole(&other))),
        Step::FromPod(Sent::whole(&one), None),
    ];
    assert_eq!(super::step::steps(&input(&steps)), steps);
}

#[test]
fn a_reply_passes_as_long_as_policy_allows_the_question() {
    let net = Net::V4;
    let question = link(&tcp(net.pod, net.outside, (CLIENT, 443), Tcp::SYN));
    let answer =
        link(&Ip::new(net.outside, net.pod).tcp(&Tcp::new(443, CLIENT, Tcp::SYN | Tcp::ACK)));
    let free = Free {
        ingress: false,
        egress: true,
    };
    let mut world = World::new();
    let mut pass = |step: &Step<'_>| match step {
        Step::ToPod(sent) => world.arrive(&mut sent.buffer()),
        Step::FromPod(sent, _) => world.send(&mut sent.buffer()),
        _ => {
            Story::default().take(&mut world, step);
            Pass
        }
    };
    assert_eq!(pass(&Step::ToPod(Sent::whole(&answer))), Drop);
    assert_eq!(pass(&Step::FromPod(Sent::whole(&question), None)), Drop);
    assert_eq!(pass(&Step::Policy(free)), Pass);
    assert_eq!(pass(&Step::FromPod(Sent::whole(&question), None)), Pass);
    assert_eq!(pass(&Step::ToPod(Sent::whole(&answer))), Pass);
    assert_eq!(pass(&Step::Policy(Free::default())), Pass);
    assert_eq!(pass(&Step::ToPod(Sent::whole(&answer))), Drop);
    let allowed = link(&tcp(net.pod, net.outside, (CLIENT, PORT), Tcp::SYN));
    assert_eq!(pass(&Step::FromPod(Sent::whole(&allowed), None)), Pass);
}

#[test]
fn an_error_that_a_pod_sends_itself_passes_as_everything_else_it_sends_itself() {
    let mut world = World::new();
    for net in Net::BOTH {
        let own = Ip::new(net.pod, net.pod);
        let quoted = tcp(net.pod, net.pod, (CLIENT, 81), Tcp::SYN);
        for packet in [own.udp(CLIENT, 81, b"own"), own.port_unreachable(&quoted)] {
            let frame = link(&packet);
            assert_eq!(world.send(&mut Sent::whole(&frame).buffer()), Pass);
        }
        let other = link(&Ip::new(net.pod, net.outside).port_unreachable(&quoted));
        assert_eq!(world.send(&mut Sent::whole(&other).buffer()), Drop);
    }
}
