//! NetworkPolicies, defaulted: what the API server would have filled in is filled in.

use std::sync::Arc;

use super::{Block, Mode, Name, Protocol, Selector};

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub name: Name,
    /// The pods of its namespace that it selects.
    pub selector: Selector,
    /// The rules of ingress; `Some` isolates, `Some` of nothing allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// The rules of egress.
    pub egress: Option<Vec<Rule>>,
    /// In audit it is staged: what only it would deny passes, and is told.
    pub mode: Mode,
}

/// One ingress or egress rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// `from` or `to`.
    pub peers: Peers,
    /// `ports`.
    pub ports: Ports,
}

/// The other end of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// No restriction (absent, null or empty list).
    Any,
    /// Any of these. Empty only where none of the peers given could be understood: it matches nobody.
    Of(Vec<Peer>),
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Of these namespaces; `None`: of the policy's own.
        namespaces: Option<Selector>,
        /// With these labels; an absent selector is the empty one.
        pods: Selector,
    },
    /// Addresses, of pods too.
    Block(Block),
}

/// The ports of a rule, at the destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// No restriction: every protocol, those without ports too (absent, null or empty list).
    Any,
    /// Any of these. Empty only where none of the ports given could be understood: it matches nothing.
    Of(Vec<Port>),
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// The numbers.
    pub number: PortNumber,
}

/// The `port` and `endPort` fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortNumber {
    /// Every port of the protocol.
    All,
    /// From the first to the second, both included.
    Range(u16, u16),
    /// The destination's ports of that name and the same protocol.
    Named(Arc<str>),
}
