//! Devices and their addresses, as the kernel describes them.

use std::net::IpAddr;

use zerocopy::FromBytes as _;

use super::wire::{AddressHeader, Attributes, LinkHeader};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The driver's name for its kind (`veth`, `bridge`, …); none for hardware.
    pub kind: Option<String>,
    /// The kernel's number of its link type (`ARPHRD_*`).
    pub link_type: u16,
    /// `IFF_*` bits.
    pub flags: u32,
    /// Index of the device it stands on or is paired with, in that device's namespace.
    pub peer: Option<u32>,
    /// Id of the namespace `peer` lies in, as the *asking* namespace numbers it; none where that is
    /// the device's own.
    pub peer_namespace: Option<i32>,
    /// Index of the device it is enslaved to.
    pub master: Option<u32>,
    /// The kernel's id of the XDP program on it.
    pub xdp: Option<u32>,
}

/// A local address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// Index of the device.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
}

impl Link {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (header, rest) = LinkHeader::read_from_prefix(payload).ok()?;
        let mut link = Self {
            index: u32::try_from(header.index).ok()?,
            name: String::new(),
            kind: None,
            link_type: header.link_type,
            flags: header.flags,
            peer: None,
            peer_namespace: None,
            master: None,
            xdp: None,
        };
        for (kind, value) in Attributes::new(rest).iter() {
            match kind {
                libc::IFLA_IFNAME => link.name = value.text(),
                libc::IFLA_LINKINFO => link.kind = value.nested().text(IFLA_INFO_KIND),
                libc::IFLA_LINK => link.peer = value.u32().filter(|index| *index != 0),
                libc::IFLA_LINK_NETNSID => {
                    link.peer_namespace = value.u32().and_then(|id| id.try_into().ok());
                }
                libc::IFLA_MASTER => link.master = value.u32(),
                libc::IFLA_XDP => {
                    let programs = IFLA_XDP_PROGRAMS.into_iter();
                    link.xdp = programs.filter_map(|kind| value.nested().u32(kind)).next();
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

impl LocalAddress {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (header, rest) = AddressHeader::read_from_prefix(payload).ok()?;
        let attributes = Attributes::new(rest);
        // On a point-to-point address IFA_ADDRESS is the other end.
        let bytes = attributes
            .find(libc::IFA_LOCAL)
            .or_else(|| attributes.find(libc::IFA_ADDRESS))?
            .0;
        let address = match bytes.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        };
        Some(Self {
            index: header.index,
            address,
        })
    }
}

const IFLA_INFO_KIND: u16 = 1;
/// `IFLA_XDP_PROG_ID`, and where there are several the one of the driver, of the stack, of the hardware.
const IFLA_XDP_PROGRAMS: [u16; 4] = [4, 5, 6, 7];
