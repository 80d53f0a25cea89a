//! What keeps an object from doing all that it says; none of it stops the compiler.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    model::{Key, Name, Protocol},
    table::Direction,
};

/// A problem of one object and the effect that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issue {
    /// The object.
    pub object: Key,
    /// The field of the object, as a path.
    pub field: String,
    /// What is the matter.
    pub problem: Problem,
}

/// What is the matter with an object; displayed with the effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The namespace has pods and is not known itself.
    UnknownNamespace,
    /// A newer pod claims the address of a pod of this node.
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The newer pod.
        by: Name,
    },
    /// None of the pods of this node that the policy selects has a port of that name.
    UnknownPortName {
        /// The name.
        name: Arc<str>,
        /// The protocol that belongs to it.
        protocol: Protocol,
    },
    /// The dataplane cannot hold the block.
    BlockDoesNotFit(IpNet),
    /// The dataplane cannot hold the address.
    AddressDoesNotFit(IpAddr),
    /// The dataplane cannot hold the class of some addresses, this one among them.
    ClassDoesNotFit(IpAddr),
    /// The dataplane cannot hold the verdict table of a pod of this node.
    TableDoesNotFit(Direction),
}

impl Problem {
    /// Whether the dataplane had no room: more is denied for it than policy says.
    #[must_use]
    pub const fn is_want_of_room(&self) -> bool {
        match self {
            Self::BlockDoesNotFit(_)
            | Self::AddressDoesNotFit(_)
            | Self::ClassDoesNotFit(_)
            | Self::TableDoesNotFit(_) => true,
            Self::UnknownNamespace | Self::AddressTaken { .. } | Self::UnknownPortName { .. } => {
                false
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace => {
                f.write_str("the namespace is not known: no namespaceSelector matches its pods")
            }
            Self::AddressTaken { address, by } => {
                write!(
                    f,
                    "{address} is claimed by the newer pod {by}: policies see that one there"
                )
            }
            Self::UnknownPortName { name, protocol } => write!(
                f,
                "no selected pod of this node has a {protocol} port named {name}: it allows nothing here"
            ),
            Self::BlockDoesNotFit(cidr) => write!(
                f,
                "the block {cidr} does not fit into the dataplane: it matches nothing"
            ),
            Self::AddressDoesNotFit(address) => write!(
                f,
                "{address} does not fit into the dataplane: it is allowed what the block around it is, at most"
            ),
            Self::ClassDoesNotFit(address) => write!(
                f,
                "the class of {address} does not fit into the dataplane: only rules without peers match it"
            ),
            Self::TableDoesNotFit(direction) => write!(
                f,
                "the {direction} table does not fit into the dataplane: everything is denied"
            ),
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.object, self.field, self.problem)
    }
}
