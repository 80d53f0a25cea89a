//! What the kernel's own connection tracking knows of flows. It tracks where something has asked for that, as kube-proxy
//! does.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use palisade_common::protocol;

use super::{
    NetlinkError, Socket,
    wire::{Attributes, Request, Value},
};

/// A socket that asks the connection tracking of the calling thread's network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

/// The two ends of a flow, as its packets in one direction name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where they come from.
    pub source: SocketAddr,
    /// Where they go.
    pub destination: SocketAddr,
}

/// A flow that was answered. Of a translated one the directions name other ends: the packets that opened it before they
/// are translated, and the answers before they are translated back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// The direction that opened it.
    pub original: Ends,
    /// The other: its source is who really answers, its destination whom that answers.
    pub reply: Ends,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The system call that failed.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::of(NETLINK_NETFILTER).map(Self)
    }

    /// The answered UDP flows of the default zone, of both families, as far as they are wanted.
    ///
    /// # Errors
    ///
    /// What the kernel says; it takes `CAP_NET_ADMIN`. `EINVAL` where it has no connection tracking, or does not tell of it.
    pub fn datagrams(
        &mut self,
        wanted: impl Fn(&Tracked) -> bool,
    ) -> Result<Vec<Tracked>, NetlinkError> {
        let request = Request::new(
            CTNETLINK << 8 | GET,
            NLM_F_REQUEST | NLM_F_DUMP,
            &[0u8; HEADER],
        );
        self.0
            .dump("list tracked connections", request, |kind, payload| {
                let new = kind == CTNETLINK << 8 | NEW;
                let tracked = new.then(|| Tracked::read(payload)).flatten();
                Ok(tracked.filter(&wanted))
            })
    }
}

impl Tracked {
    fn read(payload: &[u8]) -> Option<Self> {
        let attributes = Attributes::new(payload.get(HEADER..)?);
        let original = Ends::read(attributes.find(CTA_TUPLE_ORIG)?.nested())?;
        let status: [u8; 4] = attributes.find(CTA_STATUS)?.0.try_into().ok()?;
        // A zone is a network of its own, where the same addresses may be others'.
        if u32::from_be_bytes(status) & IPS_SEEN_REPLY == 0 || attributes.find(CTA_ZONE).is_some() {
            return None;
        }
        let reply = Ends::read(attributes.find(CTA_TUPLE_REPLY)?.nested())?;
        Some(Self { original, reply })
    }
}

impl Ends {
    /// Those of UDP; nothing else has any here.
    fn read(tuple: Attributes<'_>) -> Option<Self> {
        let transport = tuple.find(CTA_TUPLE_PROTO)?.nested();
        if transport.find(CTA_PROTO_NUM)?.0 != [protocol::UDP]
            || tuple.find(CTA_TUPLE_ZONE).is_some()
        {
            return None;
        }
        let port = |kind| {
            let bytes: [u8; 2] = transport.find(kind)?.0.try_into().ok()?;
            Some(u16::from_be_bytes(bytes))
        };
        let network = tuple.find(CTA_TUPLE_IP)?.nested();
        let ip = |v4, v6| address(network.find(v4).or_else(|| network.find(v6))?);
        let end = |v4, v6, kind| Some(SocketAddr::new(ip(v4, v6)?, port(kind)?));
        Some(Self {
            source: end(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?,
            destination: end(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?,
        })
    }
}

fn address(value: Value<'_>) -> Option<IpAddr> {
    match value.0.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(value.0).ok()?)),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(value.0).ok()?)),
    }
}

// Numbers of include/uapi/linux/netfilter/{nfnetlink,nfnetlink_conntrack,nf_conntrack_common}.h.
const CTNETLINK: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const IPS_SEEN_REPLY: u32 = 1 << 1;
/// `struct nfgenmsg`; all families.
const HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::wire::{MESSAGE_HEADER, Messages};

    const CLIENT: &str = "10.1.0.2:4000";
    const SERVICE: &str = "10.96.0.10:53";
    const BACKEND: &str = "10.1.1.9:5353";
    const NODE: &str = "192.0.2.1:61000";

    fn tuple(message: &mut Request, kind: u16, [source, destination]: [&str; 2], transport: u8) {
        let ends: [SocketAddr; 2] = [source.parse().unwrap(), destination.parse().unwrap()];
        message.nested(kind, |tuple| {
            tuple.nested(CTA_TUPLE_IP, |network| {
                for (place, end) in ends.iter().enumerate() {
                    match end.ip() {
                        IpAddr::V4(ip) => {
                            network.attribute([CTA_IP_V4_SRC, CTA_IP_V4_DST][place], &ip.octets());
                        }
                        IpAddr::V6(ip) => {
                            network.attribute([CTA_IP_V6_SRC, CTA_IP_V6_DST][place], &ip.octets());
                        }
                    }
                }
            });
            tuple.nested(CTA_TUPLE_PROTO, |ports| {
                ports.attribute(CTA_PROTO_NUM, &[transport]);
                ports.attribute(CTA_PROTO_SRC_PORT, &ends[0].port().to_be_bytes());
                ports.attribute(CTA_PROTO_DST_PORT, &ends[1].port().to_be_bytes());
            });
        });
    }

    /// A message without its header, as the kernel writes it.
    fn message(
        original: [&str; 2],
        reply: [&str; 2],
        transport: u8,
        status: u32,
        more: impl FnOnce(&mut Request),
    ) -> Vec<u8> {
        let mut message = Request::new(CTNETLINK << 8 | NEW, 0, &[2u8, 0, 0, 0]);
        tuple(&mut message, CTA_TUPLE_ORIG, original, transport);
        tuple(&mut message, CTA_TUPLE_REPLY, reply, transport);
        message.attribute(CTA_STATUS, &status.to_be_bytes());
        more(&mut message);
        let bytes = message.finish(1);
        assert!(matches!(Messages::new(&bytes).next(), Some(Some(_))));
        bytes[MESSAGE_HEADER..].to_vec()
    }

    fn read(transport: u8, status: u32, more: impl FnOnce(&mut Request)) -> Option<Tracked> {
        let (original, reply) = ([CLIENT, SERVICE], [BACKEND, NODE]);
        Tracked::read(&message(original, reply, transport, status, more))
    }

    #[test]
    fn a_translated_flow_names_other_ends_in_each_direction() {
        let tracked = read(protocol::UDP, IPS_SEEN_REPLY | 1 << 3, |_| ()).unwrap();
        let ends = |source: &str, destination: &str| Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        assert_eq!(tracked.original, ends(CLIENT, SERVICE));
        assert_eq!(tracked.reply, ends(BACKEND, NODE));
    }

    #[test]
    fn a_flow_of_ipv6_is_read() {
        let (one, other) = ("[2001:db8::1]:4000", "[2001:db8::2]:53");
        let bytes = message(
            [one, other],
            [other, one],
            protocol::UDP,
            IPS_SEEN_REPLY,
            |_| (),
        );
        let tracked = Tracked::read(&bytes).unwrap();
        assert_eq!(tracked.original.source, one.parse().unwrap());
        assert_eq!(tracked.reply.source, other.parse().unwrap());
    }

    #[test]
    fn what_is_no_answered_datagram_of_the_default_zone_is_passed_over() {
        assert!(read(protocol::UDP, IPS_SEEN_REPLY, |_| ()).is_some());
        assert!(read(protocol::UDP, 1 << 3, |_| ()).is_none());
        assert!(read(protocol::TCP, IPS_SEEN_REPLY, |_| ()).is_none());
        let zone = |message: &mut Request| message.attribute(CTA_ZONE, &7u16.to_be_bytes());
        assert!(read(protocol::UDP, IPS_SEEN_REPLY, zone).is_none());
    }

    #[test]
    fn a_message_that_is_cut_short_or_lies_is_passed_over() {
        let whole = message(
            [CLIENT, SERVICE],
            [BACKEND, NODE],
            protocol::UDP,
            IPS_SEEN_REPLY,
            |_| (),
        );
        for cut in 0..whole.len() {
            assert!(Tracked::read(&whole[..cut]).is_none(), "cut at {cut}");
        }
        for place in HEADER..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = value;
                // Whatever it says: it does not panic.
                let _read = Tracked::read(&bytes);
            }
        }
    }
}
