//! The packet filter of nftables, which is `iptables`' as well unless that is the legacy one: what is there, by name.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    NetlinkError, Socket,
    wire::{Attributes, Request},
};

/// A socket that asks the packet filter of the calling thread's network namespace.
#[derive(Debug)]
pub struct Netfilter(Socket);

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The name of its table.
    pub table: String,
    /// Its own.
    pub name: String,
}

impl Netfilter {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// The system call that failed.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::of(NETLINK_NETFILTER).map(Self)
    }

    /// The names of all tables.
    ///
    /// # Errors
    ///
    /// What the kernel says; it takes `CAP_NET_ADMIN`.
    pub fn tables(&mut self) -> Result<Vec<String>, NetlinkError> {
        self.list("list tables", GETTABLE, |attributes| {
            attributes.text(NFTA_TABLE_NAME)
        })
    }

    /// All chains.
    ///
    /// # Errors
    ///
    /// As [`tables`](Self::tables).
    pub fn chains(&mut self) -> Result<Vec<Chain>, NetlinkError> {
        self.list("list chains", GETCHAIN, |attributes| {
            Some(Chain {
                table: attributes.text(NFTA_CHAIN_TABLE)?,
                name: attributes.text(NFTA_CHAIN_NAME)?,
            })
        })
    }

    /// Where the kernel has no nftables there is nothing.
    fn list<T>(
        &mut self,
        operation: &'static str,
        kind: u16,
        read: impl Fn(Attributes<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let request = Request::new(
            NFTABLES << 8 | kind,
            NLM_F_REQUEST | NLM_F_DUMP,
            &[0u8; HEADER],
        );
        let listed = self.0.dump(operation, request, |_, payload| {
            let attributes = Attributes::new(payload.get(HEADER..).unwrap_or_default());
            Ok(read(attributes))
        });
        match listed {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)
                ) =>
            {
                Ok(Vec::new())
            }
            listed => listed,
        }
    }
}

// Numbers of include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.
const NFTABLES: u16 = 10;
const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// `struct nfgenmsg`; all families.
const HEADER: usize = 4;
