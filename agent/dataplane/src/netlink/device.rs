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
        let attributes = Attributes::new(rest);
        Some(Self {
            index: u32::try_from(header.index).ok()?,
            name: attributes.text(libc::IFLA_IFNAME)?,
            kind: attributes
                .find(libc::IFLA_LINKINFO)
                .and_then(|info| Attributes::new(info).text(IFLA_INFO_KIND)),
            link_type: header.link_type,
            flags: header.flags,
            peer: attributes.u32(libc::IFLA_LINK).filter(|index| *index != 0),
            peer_namespace: attributes
                .u32(libc::IFLA_LINK_NETNSID)
                .map(|id| id as i32)
                .filter(|id| *id >= 0),
            master: attributes.u32(libc::IFLA_MASTER),
            xdp: attributes
                .find(libc::IFLA_XDP)
                .map(Attributes::new)
                .and_then(|xdp| IFLA_XDP_PROGRAMS.into_iter().find_map(|kind| xdp.u32(kind))),
        })
    }
}

impl LocalAddress {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (header, rest) = AddressHeader::read_from_prefix(payload).ok()?;
        let attributes = Attributes::new(rest);
        // On a point-to-point address IFA_ADDRESS is the other end.
        let bytes = attributes
            .find(libc::IFA_LOCAL)
            .or_else(|| attributes.find(libc::IFA_ADDRESS))?;
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
