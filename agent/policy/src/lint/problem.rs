//! What may be found, and how bad it is. Codes and names are a contract: they are added, never changed.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::{
    model::{Name, Protocol},
    table::Direction,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Something is not in force as it is written.
    Error,
}

impl Severity {
    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The label or name that comes nearest to what was written, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// What was written.
    pub wanted: String,
    /// What there is; `None` where its bearer lacks that alone and has nothing like it.
    pub found: Option<String>,
    /// Who has it.
    pub bearer: String,
}

/// What is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The policy selects no pod.
    SelectsNothing(Option<Nearest>),
    /// A peer matches no pod.
    PeerMatchesNothing(Option<Nearest>),
    /// The `namespaceSelector` of a peer matches no namespace.
    NoSuchNamespace(Option<Nearest>),
    /// None of the pods at the destination has a port of that name.
    UnknownPortName {
        /// The name.
        name: Arc<str>,
        /// The protocol that belongs to it.
        protocol: Protocol,
        /// A name that comes near.
        nearest: Option<Nearest>,
    },
    /// Pods may send, but not ask for names.
    NoDns {
        /// One of them.
        pod: Name,
        /// How many there are.
        pods: usize,
    },
    /// Another rule allows all that this one does, to the same pods or more.
    Swallowed {
        /// The policy that has it.
        policy: Name,
        /// The direction of both.
        direction: Direction,
        /// Its place there.
        rule: usize,
    },
    /// No policy denies what is not allowed to every pod of the namespace.
    NoDefaultDeny {
        /// The direction.
        direction: Direction,
        /// How many of its pods no policy isolates.
        open: usize,
        /// How many it has.
        pods: usize,
    },
    /// A block holds addresses of pods.
    BlockHoldsPods {
        /// The block.
        cidr: IpNet,
        /// One of the pods.
        pod: Name,
        /// How many addresses.
        addresses: usize,
    },
    /// A Service selects no pod.
    ServiceSelectsNothing(Option<Nearest>),
    /// None of the pods behind a Service has a port of the name of its `targetPort`.
    UnknownTargetPort {
        /// The name.
        name: Arc<str>,
        /// The protocol of the Service's port.
        protocol: Protocol,
        /// A name that comes near.
        nearest: Option<Nearest>,
    },
    /// None of the containers behind a Service declares its `targetPort`, though they declare others.
    UndeclaredTargetPort {
        /// The number.
        port: u16,
        /// The protocol.
        protocol: Protocol,
    },
    /// All pods behind a Service are isolated, and no rule is for its `targetPort`.
    TargetPortNotAllowed {
        /// The number.
        port: u16,
        /// The protocol.
        protocol: Protocol,
    },
}

impl Problem {
    /// Its code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SelectsNothing(_) => "PL101",
            Self::PeerMatchesNothing(_) => "PL102",
            Self::NoSuchNamespace(_) => "PL103",
            Self::UnknownPortName { .. } => "PL104",
            Self::NoDns { .. } => "PL105",
            Self::Swallowed { .. } => "PL106",
            Self::NoDefaultDeny { direction, .. } => match direction {
                Direction::Ingress => "PL107",
                Direction::Egress => "PL108",
            },
            Self::BlockHoldsPods { .. } => "PL109",
            Self::ServiceSelectsNothing(_) => "PL201",
            Self::UnknownTargetPort { .. } => "PL202",
            Self::UndeclaredTargetPort { .. } => "PL203",
            Self::TargetPortNotAllowed { .. } => "PL204",
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SelectsNothing(_) => "selects-nothing",
            Self::PeerMatchesNothing(_) => "peer-matches-nothing",
            Self::NoSuchNamespace(_) => "no-such-namespace",
            Self::UnknownPortName { .. } => "unknown-port-name",
            Self::NoDns { .. } => "no-dns",
            Self::Swallowed { .. } => "swallowed-rule",
            Self::NoDefaultDeny { direction, .. } => match direction {
                Direction::Ingress => "no-default-deny",
                Direction::Egress => "no-default-deny-egress",
            },
            Self::BlockHoldsPods { .. } => "block-holds-pods",
            Self::ServiceSelectsNothing(_) => "service-selects-nothing",
            Self::UnknownTargetPort { .. } => "unknown-target-port",
            Self::UndeclaredTargetPort { .. } => "undeclared-target-port",
            Self::TargetPortNotAllowed { .. } => "target-port-not-allowed",
        }
    }

    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoDefaultDeny {
                direction: Direction::Egress,
                ..
            }
            | Self::UndeclaredTargetPort { .. } => Severity::Info,
            // Whoever means everybody means pods too.
            Self::BlockHoldsPods { cidr, .. } if cidr.prefix_len() == 0 => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            found,
            bearer,
        } = self;
        match found {
            Some(found) => write!(f, "; nearest to {wanted} is {found}, of {bearer}"),
            None => write!(f, "; nearest is {bearer}, which fails {wanted} alone"),
        }
    }
}

/// What comes nearest, where anything does.
fn hint(nearest: &Option<Nearest>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, Nearest::to_string)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelectsNothing(nearest) => write!(f, "selects no pod{}", hint(nearest)),
            Self::PeerMatchesNothing(nearest) => write!(f, "matches no pod{}", hint(nearest)),
            Self::NoSuchNamespace(nearest) => write!(f, "matches no namespace{}", hint(nearest)),
            Self::UnknownPortName {
                name,
                protocol,
                nearest,
            } => write!(
                f,
                "no pod at the destination has a {protocol} port named {name}{}",
                hint(nearest)
            ),
            Self::NoDns { pod, pods } => {
                write!(f, "{pod}")?;
                if *pods > 1 {
                    write!(f, " and {} more", pods - 1)?;
                }
                f.write_str(" may send, but not to port 53/UDP of the cluster's DNS: names cannot be resolved")
            }
            Self::Swallowed {
                policy,
                direction,
                rule,
            } => write!(
                f,
                "{policy} {direction}[{rule}] allows all of this already, to the same pods or more"
            ),
            Self::NoDefaultDeny {
                direction,
                open,
                pods,
            } => write!(
                f,
                "no policy isolates the {direction} of all pods; of its {pods} {open} are open to everything"
            ),
            Self::BlockHoldsPods {
                cidr,
                pod,
                addresses,
            } => {
                write!(f, "{cidr} holds the address of {pod}")?;
                if *addresses > 1 {
                    write!(f, " and {} more of pods", addresses - 1)?;
                }
                f.write_str(
                    "; blocks are for what is outside of the cluster, and pods change addresses",
                )
            }
            Self::ServiceSelectsNothing(nearest) => write!(f, "selects no pod{}", hint(nearest)),
            Self::UnknownTargetPort {
                name,
                protocol,
                nearest,
            } => write!(
                f,
                "no pod behind it has a {protocol} port named {name}{}",
                hint(nearest)
            ),
            Self::UndeclaredTargetPort { port, protocol } => {
                write!(f, "no container behind it declares {port}/{protocol}")
            }
            Self::TargetPortNotAllowed { port, protocol } => write!(
                f,
                "every pod behind it is isolated, and no rule is for {port}/{protocol}: nobody reaches it"
            ),
        }
    }
}
