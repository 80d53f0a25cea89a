//! Traffic control: the `clsact` qdisc and the classifiers that hang on it.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd as _},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use zerocopy::FromBytes as _;

use super::{
    NetlinkError, Socket,
    wire::{Attributes, Request, TcHeader, Value},
};

/// A hook of the `clsact` qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// What the device receives.
    Ingress,
    /// What the device sends.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl Hook {
    /// `tcm_parent` of a filter: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// A classifier on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Lower ones run first.
    pub priority: u16,
    /// Its number among those of the same priority.
    pub handle: u32,
    /// `bpf`, `flower`, …
    pub kind: String,
    /// The name given to a BPF classifier.
    pub name: Option<String>,
    /// The id of its BPF program.
    pub program: Option<u32>,
}

impl Socket {
    /// The kind of the qdisc on the ingress side of each device that has one: `clsact`, or the older
    /// `ingress` that stands in its place.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn ingress_qdiscs(&mut self) -> Result<Vec<(u32, String)>, NetlinkError> {
        const OPERATION: &str = "list qdiscs";
        let request = Request::new(
            libc::RTM_GETQDISC,
            NLM_F_REQUEST | NLM_F_DUMP,
            &TcHeader::default(),
        );
        self.dump(OPERATION, request, |kind, payload| {
            if kind != libc::RTM_NEWQDISC {
                return Ok(None);
            }
            let (header, attributes) = tc_message(OPERATION, payload)?;
            Ok((header.handle == CLSACT_HANDLE)
                .then(|| Some((header.ifindex as u32, attributes.text(libc::TCA_KIND)?)))
                .flatten())
        })
    }

    /// Gives a device a `clsact` qdisc. `false` if it has one, of that kind or of another that stands in
    /// its place.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn add_clsact(&mut self, ifindex: u32) -> Result<bool, NetlinkError> {
        let header = TcHeader {
            ifindex: ifindex as i32,
            handle: CLSACT_HANDLE,
            parent: CLSACT_PARENT,
            ..TcHeader::default()
        };
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut request = Request::new(libc::RTM_NEWQDISC, flags, &header);
        request.attribute(libc::TCA_KIND, b"clsact\0");
        match self.exchange("add a clsact qdisc", request, |_, _| Ok(())) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a device's `clsact` qdisc away, with every filter on it.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn delete_clsact(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let header = TcHeader {
            ifindex: ifindex as i32,
            handle: CLSACT_HANDLE,
            parent: CLSACT_PARENT,
            ..TcHeader::default()
        };
        let request = Request::new(libc::RTM_DELQDISC, NLM_F_REQUEST | NLM_F_ACK, &header);
        self.exchange("delete a clsact qdisc", request, |_, _| Ok(()))?;
        Ok(())
    }

    /// The classifiers on a hook, in the order in which they run as far as priorities tell.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn filters(&mut self, ifindex: u32, hook: Hook) -> Result<Vec<Filter>, NetlinkError> {
        const OPERATION: &str = "list filters";
        let header = TcHeader {
            ifindex: ifindex as i32,
            parent: hook.parent(),
            ..TcHeader::default()
        };
        let request = Request::new(libc::RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, &header);
        self.dump(OPERATION, request, |kind, payload| {
            if kind != libc::RTM_NEWTFILTER {
                return Ok(None);
            }
            let (header, attributes) = tc_message(OPERATION, payload)?;
            // Each priority is listed once by itself, with handle 0, before its filters.
            if header.handle == 0 {
                return Ok(None);
            }
            let options = attributes.find(libc::TCA_OPTIONS).map(Value::nested);
            Ok(Some(Filter {
                priority: (header.info >> 16) as u16,
                handle: header.handle,
                kind: attributes.text(libc::TCA_KIND).unwrap_or_default(),
                name: options.and_then(|options| options.text(TCA_BPF_NAME)),
                program: options.and_then(|options| options.u32(TCA_BPF_ID)),
            }))
        })
    }

    /// Puts a BPF classifier (direct action, all protocols) on a hook, in the place of the one with this
    /// priority and handle if there is one; packets meet either the old or the new.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn put_filter(
        &mut self,
        ifindex: u32,
        hook: Hook,
        priority: u16,
        handle: u32,
        program: impl AsFd,
        name: &str,
    ) -> Result<(), NetlinkError> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        let header = filter_header(ifindex, hook, priority, handle);
        let mut request = Request::new(libc::RTM_NEWTFILTER, flags, &header);
        request.attribute(libc::TCA_KIND, b"bpf\0");
        request.nested(libc::TCA_OPTIONS, |options| {
            let fd = program.as_fd().as_raw_fd();
            options.attribute(TCA_BPF_FD, &fd.to_ne_bytes());
            options.attribute(TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat());
            options.attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        });
        self.exchange("put a filter", request, |_, _| Ok(()))?;
        Ok(())
    }

    /// Takes a BPF classifier away. `false` if there is none of this priority and handle, or no device.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn delete_filter(
        &mut self,
        ifindex: u32,
        hook: Hook,
        priority: u16,
        handle: u32,
    ) -> Result<bool, NetlinkError> {
        let header = filter_header(ifindex, hook, priority, handle);
        let mut request = Request::new(libc::RTM_DELTFILTER, NLM_F_REQUEST | NLM_F_ACK, &header);
        request.attribute(libc::TCA_KIND, b"bpf\0");
        match self.exchange("delete a filter", request, |_, _| Ok(())) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn filter_header(ifindex: u32, hook: Hook, priority: u16, handle: u32) -> TcHeader {
    TcHeader {
        ifindex: ifindex as i32,
        handle,
        parent: hook.parent(),
        info: u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be()),
        ..TcHeader::default()
    }
}

fn tc_message<'a>(
    operation: &'static str,
    payload: &'a [u8],
) -> Result<(TcHeader, Attributes<'a>), NetlinkError> {
    let (header, rest) =
        TcHeader::read_from_prefix(payload).map_err(|_short| NetlinkError::malformed(operation))?;
    Ok((header, Attributes::new(rest)))
}

const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
