//! Links, addresses and routes, by rtnetlink: one message and its answer each.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    sync::Mutex,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A link layer address.
pub type Mac = [u8; 6];

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Name of the device.
    pub name: &'a str,
    /// Its link layer address.
    pub mac: Mac,
}

/// What a route leads to.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    /// The link itself.
    Link(u32),
    /// A router on a link.
    Router(IpAddr, u32),
}

/// An rtnetlink socket; it speaks of the namespace it was opened in.
pub struct Netlink(Mutex<Socket>);

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(Mutex::new(socket)))
    }

    /// Index of the device of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn index(&self, name: &str) -> Result<u32> {
        let message = RouteNetlinkMessage::GetLink(named(name));
        match self.request(message, 0) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(link.header.index),
            Ok(_) => anyhow::bail!("no answer about {name}"),
            Err(error) => Err(error).with_context(|| format!("looking for {name}")),
        }
    }

    /// Sets a device up; returns its index.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn up(&self, name: &str) -> Result<u32> {
        let message = RouteNetlinkMessage::NewLink(raised(named(name)));
        self.done(message, 0, || format!("setting {name} up"))?;
        self.index(name)
    }

    /// Makes a veth pair, the far end in another namespace, where it has to be set up; returns the
    /// near index.
    ///
    /// # Errors
    /// Where a name is taken or too long.
    pub fn add_veth(&self, near: End<'_>, far: End<'_>, home: BorrowedFd<'_>) -> Result<u32> {
        let mut peer = with_mac(named(far.name), far.mac);
        peer.attributes
            .push(LinkAttribute::NetNsFd(home.as_raw_fd()));
        let mut link = raised(with_mac(named(near.name), near.mac));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.add_link(link, near.name)
    }

    /// Makes a bridge, up; returns its index. Its address is given and so never changes with its
    /// ports.
    ///
    /// # Errors
    /// Where the name is taken.
    pub fn add_bridge(&self, bridge: End<'_>) -> Result<u32> {
        let mut link = raised(with_mac(named(bridge.name), bridge.mac));
        let kind = LinkInfo::Kind(InfoKind::Bridge);
        link.attributes.push(LinkAttribute::LinkInfo(vec![kind]));
        self.add_link(link, bridge.name)
    }

    /// Makes a device a port of a bridge, in hairpin mode if asked.
    ///
    /// # Errors
    /// Where either does not exist.
    pub fn enslave(&self, port: u32, bridge: u32, hairpin: bool) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = port;
        link.attributes.push(LinkAttribute::Controller(bridge));
        let message = RouteNetlinkMessage::NewLink(link);
        self.done(message, 0, || format!("making {port} a port of {bridge}"))?;
        let mut link = LinkMessage::default();
        link.header.index = port;
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                hairpin,
            )])),
        ]));
        let message = RouteNetlinkMessage::NewLink(link);
        self.done(message, 0, || format!("setting hairpin mode of {port}"))
    }

    /// Removes a device, and so the pair if it is a veth.
    ///
    /// # Errors
    /// Where there is none.
    pub fn delete_link(&self, index: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let message = RouteNetlinkMessage::DelLink(link);
        self.done(message, 0, || format!("deleting link {index}"))
    }

    /// Gives a device an address, usable at once.
    ///
    /// # Errors
    /// Where it has it already.
    pub fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.done(message, flags, || format!("adding {address}"))
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// Where it has none such.
    pub fn delete_address(&self, index: u32, address: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        self.done(message, 0, || format!("deleting {address}"))
    }

    /// Adds a route, or replaces the one to the same destination.
    ///
    /// # Errors
    /// Where the router is out of reach.
    pub fn add_route(&self, to: IpNet, via: Via) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(route_message(to, via));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.done(message, flags, || format!("routing {to} {via:?}"))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// Where there is none such.
    pub fn delete_route(&self, to: IpNet, via: Via) -> Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(to, via));
        self.done(message, 0, || format!("removing the route to {to}"))
    }

    fn add_link(&self, link: LinkMessage, name: &str) -> Result<u32> {
        let message = RouteNetlinkMessage::NewLink(link);
        self.done(message, NLM_F_CREATE | NLM_F_EXCL, || {
            format!("adding {name}")
        })?;
        self.index(name)
    }

    fn done(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl FnOnce() -> String,
    ) -> Result<()> {
        self.request(message, NLM_F_ACK | flags)
            .map(drop)
            .with_context(doing)
    }

    /// Sends one message and returns its one answer, `None` for a bare acknowledgement.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        let socket = self.0.lock().unwrap_or_else(|lock| lock.into_inner());
        socket.send(&buffer, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(None),
        }
    }
}

/// The prefix of one address alone.
#[must_use]
pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Everywhere, in the family of an address.
#[must_use]
pub(super) fn everywhere(family: IpAddr) -> IpNet {
    let any = match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    IpNet::new_assert(any, 0)
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn with_mac(mut link: LinkMessage, mac: Mac) -> LinkMessage {
    link.attributes.push(LinkAttribute::Address(mac.to_vec()));
    link
}

fn raised(mut link: LinkMessage) -> LinkMessage {
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
    link
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

fn route_message(to: IpNet, via: Via) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(to.addr()),
        destination_prefix_length: to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        kind: RouteType::Unicast,
        scope: match via {
            Via::Link(_) if to.addr().is_ipv4() => RouteScope::Link,
            _ => RouteScope::Universe,
        },
        ..RouteHeader::default()
    };
    if to.prefix_len() > 0 {
        let destination = RouteAddress::from(to.network());
        message
            .attributes
            .push(RouteAttribute::Destination(destination));
    }
    let index = match via {
        Via::Link(index) => index,
        Via::Router(router, index) => {
            // A gateway address of a /32 pod is on no prefix of its own.
            message.header.flags |= RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(RouteAddress::from(router)));
            index
        }
    };
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
