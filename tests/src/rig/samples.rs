//! Frames of every kind, to and from the pod under policy of a [`Scene`].

use super::{Net, Scene, tcp, udp};
use crate::packet::{Extension, Ip, Sctp, Tcp, ethernet};

/// The port of who asks.
pub const CLIENT: u16 = 4000;
/// The hardware address of either end.
pub const MAC: [u8; 6] = [2; 6];
const PORT: u16 = Scene::PORT;

/// A frame around a packet.
#[must_use]
pub fn link(packet: &[u8]) -> Vec<u8> {
    ethernet(MAC, MAC, packet)
}

/// Packets of every kind that policy allows the peer to send to the pod (or the pod to the peer).
#[must_use]
pub fn allowed(net: Net, outward: bool) -> Vec<Vec<u8>> {
    let (from, to) = if outward {
        (net.pod, net.peer)
    } else {
        (net.peer, net.pod)
    };
    let ip = Ip::new(from, to);
    let segment = Tcp {
        options: vec![2, 4, 5, 0xb4, 1, 1, 1, 1],
        data: b"hello".to_vec(),
        ..Tcp::new(CLIENT, PORT, Tcp::SYN)
    };
    let mut packets = vec![
        ip.tcp(&Tcp::new(CLIENT, PORT, Tcp::SYN)),
        ip.tcp(&segment),
        ip.udp(CLIENT, PORT, b""),
        ip.udp(CLIENT, PORT, &[1; 40]),
        ip.sctp(&Sctp::opening(Sctp::INIT, CLIENT, PORT, 0, 1)),
    ];
    let datagram = ip.udp_payload(CLIENT, PORT, &[3; 100]);
    packets.push(ip.fragments(77, 17, &datagram, 48)[0].clone());
    let mut around = ip.clone();
    if from.is_ipv4() {
        around.options = vec![1, 1, 1, 1, 0x94, 4, 0, 0];
    } else {
        around.extensions = [0, 60, 51, 43]
            .map(|kind| Extension {
                kind,
                // A routing header of no segments left; an authentication header of 12 bytes and two more.
                body: vec![0, 0, 0, 0, 0, 0],
            })
            .to_vec();
    }
    packets.push(around.tcp(&segment));
    packets.push(around.udp(CLIENT, PORT, b"datagram"));
    packets
}

/// Frames that policy allows and frames that it does not.
#[must_use]
pub fn seeds(net: Net, outward: bool) -> Vec<Vec<u8>> {
    let (from, to) = if outward {
        (net.pod, net.peer)
    } else {
        (net.peer, net.pod)
    };
    let (stranger, other) = if outward {
        (net.pod, net.stranger)
    } else {
        (net.stranger, net.pod)
    };
    let ip = Ip::new(from, to);
    let mut packets = allowed(net, outward);
    let datagram = ip.udp_payload(CLIENT, PORT, &[3; 64]);
    packets.extend(ip.fragments(77, 17, &datagram, 24));
    packets.extend(ip.fragments(78, 17, &ip.udp_payload(CLIENT, 81, &[3; 64]), 24));
    packets.extend([
        tcp(from, to, (CLIENT, PORT + 1), Tcp::SYN),
        udp(from, to, (CLIENT, PORT + 1)),
        tcp(stranger, other, (CLIENT, PORT), Tcp::SYN),
        udp(stranger, other, (CLIENT, PORT)),
        ip.echo_request(1, 1, b"data"),
        ip.port_unreachable(&tcp(to, from, (1111, 2222), Tcp::ACK)),
        ip.carry(47, &[0; 30]),
    ]);
    if !net.pod.is_ipv4() {
        packets.push(ip.neighbour(135, [0xfd; 16], MAC));
    }
    packets.iter().map(|packet| link(packet)).collect()
}
